//! `creel config`: creel.toml, without a stack.

mod edit;

use std::{fs, io, path::Path};

use creel_kit::{
    Config,
    config::{ConfigError, schema},
    profile::{private_dir, write_private},
};
use creel_wire::{Code, Error, error::printable};
use serde_json::{Value, json};

use crate::{args::Config as Command, context::Context, failure::Failure};

pub(super) fn run(context: &mut Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Check { file } => {
            let path = file.map_or_else(|| context.profile().map(|profile| profile.config_file()), Ok)?;
            check(context, &path)
        }
        // JSON whoever asks.
        Command::Schema => context.out.json(&schema()),
        Command::Get { key } => get(context, key.as_deref()),
        Command::Set { key, value, checked } => set(context, &key, &value, checked.dry_run),
    }
}

fn check(context: &mut Context, path: &Path) -> Result<(), Failure> {
    let there = path.exists();
    Config::load(path)?;
    if context.out.is_json() {
        return context
            .out
            .json(&json!({ "path": path.display().to_string(), "exists": there, "valid": true }));
    }
    let remark = if there { "" } else { " (not there: the defaults)" };
    context.out.line(&format!("{}: valid{remark}", path.display()))
}

fn get(context: &mut Context, key: Option<&str>) -> Result<(), Failure> {
    let config = Config::load(&context.profile()?.config_file())?;
    let all = serde_json::to_value(config).map_err(|error| Failure::internal("the config", &error))?;
    let value = match key {
        Some(key) => find(&all, key)?,
        None => &all,
    };
    match value {
        Value::String(text) if !context.out.is_json() => context.out.line(text),
        value => context.out.json(value),
    }
}

/// The value under a dotted key.
fn find<'a>(all: &'a Value, key: &str) -> Result<&'a Value, Failure> {
    let mut value = all;
    for part in edit::parts(key)? {
        value = value.get(&part).ok_or_else(|| {
            let known: Vec<&str> = value
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| name.as_str())
                .collect();
            let error = Error::new(
                Code::NotFound,
                "no_such_key",
                format!("no `{}` in the config", printable(key, 128)),
            );
            if known.is_empty() {
                Failure::from(error)
            } else {
                error.hint(format!("one of {}", known.join(", "))).into()
            }
        })?;
    }
    Ok(value)
}

fn set(context: &mut Context, key: &str, value: &str, dry_run: bool) -> Result<(), Failure> {
    let profile = context.profile()?;
    let path = profile.config_file();
    let before = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(source) => return Err(ConfigError::Read { path, source }.into()),
    };
    let after = edit::set(&before, &path, key, value)?;
    let changed = after != before;
    if changed && !dry_run {
        private_dir(profile.root())?;
        write_private(&path, after.as_bytes()).map_err(|error| Failure::file("write", &path, &error))?;
    }
    if let Some((variable, _)) = Config::ENV
        .iter()
        .find(|(name, sets)| *sets == key && std::env::var_os(name).is_some())
    {
        context
            .out
            .note(&format!("note: {variable} is set here and overrides the file"));
    }
    let diff = edit::diff(&before, &after);
    if context.out.is_json() {
        return context.out.json(&json!({
            "path": path.display().to_string(), "key": key, "changed": changed, "written": changed && !dry_run, "diff": diff,
        }));
    }
    if !changed {
        context.out.note("nothing to change");
        return Ok(());
    }
    context.out.piece(&diff)?;
    context.out.note(&if dry_run {
        "dry run: nothing was written".to_owned()
    } else {
        format!("written to {}", path.display())
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_dotted_keys_and_strangers_with_a_hint() {
        let all = serde_json::to_value(Config::default()).unwrap();
        assert_eq!(find(&all, "gateway.listen").unwrap(), "127.0.0.1:18789");
        assert!(find(&all, "agent").unwrap().is_object());
        let failure = find(&all, "gateway.lisen").unwrap_err();
        let error = failure.error().unwrap();
        assert_eq!(error.code, Code::NotFound);
        assert!(error.hint.as_deref().unwrap().contains("listen"));
        assert!(find(&all, "gateway..x").is_err());
    }
}
