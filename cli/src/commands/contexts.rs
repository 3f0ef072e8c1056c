//! `creel use`, `creel contexts`, `creel leave`: which stack is called.

use serde::Serialize;

use crate::{
    context::Context,
    contexts::{self, LOCAL},
    failure::Failure,
    reach::Endpoint,
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ContextView {
    name: String,
    current: bool,
    endpoint: Option<String>,
    device_id: Option<String>,
}

pub(super) fn switch(context: &mut Context, name: &str) -> Result<(), Failure> {
    let profile = context.profile()?;
    contexts::switch(&profile, name)?;
    if context.out.is_json() {
        return list(context);
    }
    context.out.line(&format!("{name}: in use"))
}

pub(super) fn leave(context: &mut Context, name: &str) -> Result<(), Failure> {
    let profile = context.profile()?;
    let joined = contexts::known(&profile, name)?;
    let at = joined
        .endpoint()
        .map_or_else(|_| String::new(), |endpoint| format!(" ({endpoint})"));
    let question = format!("Forget `{name}`{at}? Its key is deleted; to come back needs another invite.");
    context.out.confirm(context.global.yes, &question)?;
    contexts::forget(&profile, &joined)?;
    if context.out.is_json() {
        return list(context);
    }
    context.out.line(&format!("{name}: left"))?;
    context
        .out
        .note("over there the device stays until it is revoked: creel devices revoke NAME");
    Ok(())
}

pub(super) fn list(context: &mut Context) -> Result<(), Failure> {
    let profile = context.profile()?;
    // A mark that points nowhere is shown by no star at all.
    let current = contexts::current(&profile)
        .map(|joined| joined.map_or_else(|| LOCAL.to_owned(), |joined| joined.name))
        .unwrap_or_default();
    let mut views = vec![ContextView {
        name: LOCAL.to_owned(),
        current: current == LOCAL,
        endpoint: Endpoint::of_profile(&profile)?.map(|endpoint| endpoint.to_string()),
        device_id: device_id(&crate::credentials::Files::of_cli(&profile)),
    }];
    for joined in contexts::all(&profile)? {
        views.push(ContextView {
            current: current == joined.name,
            endpoint: joined.endpoint().ok().map(|endpoint| endpoint.to_string()),
            device_id: device_id(&joined.files),
            name: joined.name,
        });
    }
    if context.out.is_json() {
        return context.out.json(&views);
    }
    let rows: Vec<Vec<String>> = views
        .into_iter()
        .map(|view| {
            let mark = if view.current { " *" } else { "" };
            let dash = || "-".to_owned();
            let id: String = view.device_id.unwrap_or_else(dash).chars().take(12).collect();
            vec![
                format!("{}{mark}", view.name),
                view.endpoint.unwrap_or_else(dash),
                id,
            ]
        })
        .collect();
    context.out.table(&["NAME", "ENDPOINT", "DEVICE"], &rows)
}

fn device_id(files: &crate::credentials::Files) -> Option<String> {
    let key = files.load_key().ok().flatten()?;
    key.device_id().map(|id| id.to_string())
}
