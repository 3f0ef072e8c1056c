//! What `/proc` says of processes.

use std::{collections::BTreeMap, fs, time::Duration};

/// Waits until `check` holds; panics with `what` after `limit`.
pub fn wait_until(what: &str, limit: Duration, mut check: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + limit;
    while !check() {
        assert!(std::time::Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[must_use]
pub fn is_alive(pid: u32) -> bool {
    // A zombie is over: only its parent has not looked yet.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z') && !rest.starts_with('X'))
    })
}

/// Kills with SIGKILL.
pub fn kill9(pid: u32) {
    signal(pid, rustix::process::Signal::KILL);
}

pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("pids fit")).expect("not 0");
    // Gone already is fine.
    let _ = rustix::process::kill_process(pid, signal);
}

/// All processes whose environment names this profile: id → command line.
#[must_use]
pub fn of_profile(home: &str) -> BTreeMap<u32, String> {
    let needle = format!("CREEL_HOME={home}\0");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(environment) = fs::read(entry.path().join("environ")) else {
            continue;
        };
        let text = String::from_utf8_lossy(&environment);
        if text.contains(&needle) && is_alive(pid) {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.insert(pid, String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}
