//! `creel devices show`: one device, in words; and what was done to one.

use creel_proto::identity::v1::{Device, GetDeviceRequest};

use crate::{
    context::Context,
    failure::Failure,
    stubs,
    times::Local,
    views::{device::DeviceView, text},
};

pub(super) async fn run(context: &mut Context, name: String) -> Result<(), Failure> {
    let client = context.client().await?;
    let own = client.device_id();
    let which = GetDeviceRequest { device: name };
    let device = client
        .call(&which, |channel, which| async move {
            stubs::devices(channel).get_device(which).await
        })
        .await?;
    let view = DeviceView::of(&device, own.as_deref());
    if context.out.is_json() {
        return context.out.json(&view);
    }
    let local = context.local();
    for (name, value) in facts(&view, &local) {
        context.out.line(&format!("{name:<13}{value}"))?;
    }
    Ok(())
}

/// What was, or would be, done to a device.
pub(super) fn changed(
    context: &mut Context,
    device: &Device,
    own: Option<&str>,
    dry_run: bool,
    done: &str,
) -> Result<(), Failure> {
    if context.out.is_json() {
        return context.out.json(&DeviceView::of(device, own));
    }
    let done = if dry_run {
        format!("would be {done} (dry run)")
    } else {
        done.to_owned()
    };
    context.out.line(&format!("{}: {done}", device.name))
}

fn facts(device: &DeviceView, local: &Local) -> Vec<(&'static str, String)> {
    let this = if device.current { " (this machine)" } else { "" };
    let by = device.approved_by.as_deref().map_or_else(String::new, |by| {
        format!(", let in by {}", by.chars().take(12).collect::<String>())
    });
    let commands = &device.surface.commands;
    let shown = |ms: i64| format!("{} ({})", local.show(ms), local.distance(ms));
    let facts = [
        ("name", Some(format!("{}{this}", device.name))),
        ("id", Some(device.device_id.clone())),
        ("role", Some(device.role.clone())),
        ("person", text(&device.person)),
        ("scopes", text(&device.scopes.join(" "))),
        ("commands", text(&commands.join(" "))),
        ("state", Some(device.state.clone())),
        ("six words", device.phrase.clone()),
        ("came by", Some(format!("{}{by}", device.origin))),
        ("since", device.created_at_ms.map(shown)),
        (
            "certificate",
            device
                .certificate_expires_at_ms
                .map(|ms| format!("until {}", shown(ms))),
        ),
        (
            "token",
            device
                .token_issued_at_ms
                .map(|ms| format!("issued {}", shown(ms))),
        ),
        ("revoked", device.revoked_at_ms.map(shown)),
        ("platform", device.platform.clone()),
        ("etag", Some(device.etag.clone())),
    ];
    facts
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::times::tests::berlin;

    #[test]
    fn a_device_is_a_list_of_facts_with_its_six_words() {
        let device = Device {
            name: "anna-phone".into(),
            device_id: "ab".repeat(32),
            phrase: "slow wolf drip taste tell game".into(),
            origin: "invite".into(),
            approved_by: "cd".repeat(32),
            etag: "7".into(),
            ..Device::default()
        };
        let facts = facts(&DeviceView::of(&device, None), &berlin());
        let value = |name: &str| {
            let found = facts.iter().find(|(fact, _)| *fact == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(value("name"), Some("anna-phone"));
        assert_eq!(value("six words"), Some("slow wolf drip taste tell game"));
        assert_eq!(value("came by"), Some("invite, let in by cdcdcdcdcdcd"));
        assert_eq!(value("etag"), Some("7"));
        assert_eq!(
            (value("scopes"), value("revoked")),
            (None, None),
            "what is not there has no line"
        );
    }
}
