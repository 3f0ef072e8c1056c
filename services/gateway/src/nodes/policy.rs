//! The third gate: which commands a node of a platform may be asked for at all, and the fourth: the
//! permission that a command needs. Pure.
//!
//! Whatever records people, reads what is theirs or speaks for them needs `[gateway.nodes] allow` in
//! `creel.toml`; deny wins. An unknown platform gets what is harmless, not everything. Commands that start
//! programs are not offered this way on any platform: they go through the approvals of `exec`. Nor is the
//! browser, until its control URLs and methods have the allowlists they need.

use creel_kit::config::Nodes;

/// Harmless on any platform: what the node shows, and what it says of itself.
const EVERYWHERE: [&str; 8] = [
    "canvas.a2ui.push",
    "canvas.a2ui.pushJSONL",
    "canvas.a2ui.reset",
    "canvas.hide",
    "canvas.navigate",
    "canvas.present",
    "device.info",
    "device.status",
];
/// On phones.
const MOBILE: [&str; 2] = ["camera.list", "location.get"];
/// On computers.
const COMPUTER: [&str; 3] = ["system.execApprovals.get", "system.notify", "system.which"];
/// These start programs, say which may be started, or steer a browser.
const NEVER: [&str; 5] = [
    "browser.proxy",
    "browser.proxy.upload.v1",
    "system.execApprovals.set",
    "system.run",
    "system.run.prepare",
];

/// By the beginning of a command's name: the permission it needs.
const PERMISSIONS: [(&str, &str); 10] = [
    ("calendar.", "calendar"),
    ("camera.", "camera"),
    ("contacts.", "contacts"),
    ("health.", "health"),
    ("location.", "location"),
    ("microphone.", "microphone"),
    ("reminders.", "reminders"),
    ("screen.", "screenRecording"),
    ("sms.", "sms"),
    ("talk.", "microphone"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Platform {
    Mobile,
    Computer,
    Unknown,
}

fn platform(name: &str, family: &str) -> Platform {
    let (name, family) = (name.to_ascii_lowercase(), family.to_ascii_lowercase());
    // "darwin" before "win": it holds the other.
    let computers = ["mac", "darwin", "win", "linux"];
    let phones = ["ios", "ipados", "android"];
    if phones.iter().any(|prefix| name.starts_with(prefix)) {
        Platform::Mobile
    } else if computers.iter().any(|prefix| name.starts_with(prefix)) {
        Platform::Computer
    } else if ["iphone", "ipad", "ios", "android"]
        .iter()
        .any(|part| family.contains(part))
    {
        Platform::Mobile
    } else if ["mac", "windows", "linux"]
        .iter()
        .any(|part| family.contains(part))
    {
        Platform::Computer
    } else {
        Platform::Unknown
    }
}

/// Whether no config can allow a command.
pub(crate) fn is_never(command: &str) -> bool {
    NEVER.contains(&command)
}

/// Whether a node may be asked for a command at all.
pub(crate) fn allows(config: &Nodes, platform_name: &str, family: &str, command: &str) -> bool {
    let listed = |list: &[String]| list.iter().any(|entry| entry == command);
    if listed(&config.deny) || is_never(command) {
        return false;
    }
    let by_platform: &[&str] = match platform(platform_name, family) {
        Platform::Mobile => &MOBILE,
        Platform::Computer => &COMPUTER,
        Platform::Unknown => &[],
    };
    listed(&config.allow) || EVERYWHERE.contains(&command) || by_platform.contains(&command)
}

/// The permission that a command needs on the node.
pub(crate) fn permission(command: &str) -> Option<&'static str> {
    PERMISSIONS
        .iter()
        .find(|(prefix, _)| command.starts_with(prefix))
        .map(|(_, permission)| *permission)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_default(platform: &str, family: &str, command: &str) -> bool {
        allows(&Nodes::default(), platform, family, command)
    }

    #[test]
    fn platforms_are_told_apart_and_the_unknown_one_gets_little() {
        assert!(by_default("linux", "", "system.which"));
        assert!(by_default("darwin 25", "", "system.which"));
        assert!(by_default("win32", "", "system.which"));
        assert!(by_default("", "Mac", "system.which"));
        assert!(!by_default("iOS 26", "", "system.which"));
        assert!(by_default("iOS 26", "", "location.get"));
        assert!(by_default("", "iPad", "location.get"));
        for command in ["system.which", "location.get", "sms.send"] {
            assert!(!by_default("plan9", "", command), "{command}");
        }
        assert!(by_default("plan9", "", "canvas.present"));
    }

    #[test]
    fn no_config_lets_a_program_be_started_past_exec_and_deny_wins() {
        let config = Nodes {
            allow: ["system.run", "sms.send", "camera.snap"]
                .map(str::to_owned)
                .to_vec(),
            deny: ["sms.send", "system.which"].map(str::to_owned).to_vec(),
        };
        assert!(!allows(&config, "linux", "", "system.run"));
        assert!(!allows(&config, "android", "", "sms.send"));
        assert!(!allows(&config, "linux", "", "system.which"));
        assert!(allows(&config, "android", "", "camera.snap"));
        assert!(!by_default("android", "", "camera.snap"), "only by config");
    }

    #[test]
    fn commands_need_their_permission() {
        assert_eq!(permission("camera.snap"), Some("camera"));
        assert_eq!(permission("screen.record"), Some("screenRecording"));
        assert_eq!(permission("system.which"), None);
    }
}
