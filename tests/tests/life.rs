//! How a stack starts, fails to start, and ends: each with a clear message, the right exit status, and
//! nothing lost or left behind.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests start processes and read the clock; a test that cannot go on fails"
)]

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use creel_tests::{
    Cluster,
    cluster::{PATIENCE, free_port},
    processes::{kill9, wait_until},
    tools,
};
use creel_wire::ServiceName;

#[test]
fn a_second_up_names_the_first() {
    let cluster = Cluster::start();
    let second = cluster.creeld(&["up"]);
    assert_eq!(second.status, 1, "{second:?}");
    let said = format!("{}{}", second.stdout, second.stderr);
    assert!(said.contains(&cluster.supervisor_pid().to_string()), "{said}");
    assert!(cluster.is_ready(), "the first is undisturbed");
}

#[test]
fn the_recovery_code_is_printed_once_and_gives_all_scopes_back() {
    let mut cluster = Cluster::start();
    let said = cluster.said();
    let code = said
        .split_whitespace()
        .find(|word| {
            word.len() >= 20
                && word.contains('-')
                && word
                    .chars()
                    .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '-')
        })
        .unwrap_or_else(|| panic!("a recovery code: {said}"))
        .to_owned();
    cluster.creel(&["status"]).ok();
    // Another machine key: read and write only, until the code is shown.
    fs::remove_dir_all(cluster.profile.cli_credentials()).unwrap();
    let me = cluster.creel(&["whoami", "--json"]).json();
    assert_eq!(me["scopes"].as_array().unwrap().len(), 2, "{me}");
    let file = cluster.home().parent().unwrap().join("code");
    fs::write(&file, "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE").unwrap();
    assert_eq!(
        cluster
            .creel(&["devices", "recover", "--code-file", file.to_str().unwrap()])
            .status,
        4
    );
    fs::write(&file, &code).unwrap();
    cluster
        .creel(&["devices", "recover", "--code-file", file.to_str().unwrap()])
        .ok();
    let me = cluster.creel(&["whoami", "--json"]).json();
    assert_eq!(me["scopes"].as_array().unwrap().len(), 5, "{me}");
    assert_eq!(cluster.stop(), 0);
    cluster.up();
    assert!(!cluster.said().contains(&code), "printed at the first start only");
}

#[test]
fn a_taken_port_gives_way_and_its_holder_is_named() {
    let port = free_port();
    let _holder = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let cluster = Cluster::new();
    let config = format!(
        "[gateway]\nlisten = \"127.0.0.1:{port}\"\nadmin_listen = \"127.0.0.1:{}\"\n",
        free_port()
    );
    fs::write(cluster.profile.config_file(), config).unwrap();
    let mut cluster = cluster;
    cluster.up();
    let edge = cluster.edge().address;
    assert!(!edge.ends_with(&format!(":{port}")));
    let said = cluster.said();
    assert!(said.contains(&format!("pid {}", std::process::id())), "{said}");
    assert!(
        cluster.creel(&["send", "hello"]).ok().contains("hello"),
        "clients find it"
    );
}

#[test]
fn a_bad_config_is_refused_with_its_place_and_the_nearest_name() {
    let cluster = Cluster::new();
    fs::write(
        cluster.profile.config_file(),
        "[gateway]\nlisen = \"127.0.0.1:1\"\n",
    )
    .unwrap();
    for output in [cluster.creeld(&["up"]), cluster.creel(&["config", "check"])] {
        assert_eq!(output.status, 78, "{output:?}");
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(
            said.contains("creel.toml:2:1") && said.contains("`listen`"),
            "{said}"
        );
    }
    assert!(cluster.processes().is_empty());
}

#[test]
fn a_running_stack_keeps_its_config_when_the_new_one_is_bad() {
    let mut cluster = Cluster::start();
    let good = fs::read_to_string(cluster.profile.config_file()).unwrap();
    fs::write(cluster.profile.config_file(), "[gatway]\n").unwrap();
    creel_tests::processes::signal(cluster.supervisor_pid(), rustix::process::Signal::HUP);
    wait_until("the error is reported", PATIENCE, || {
        cluster.said().contains("did you mean `gateway`")
    });
    fs::write(cluster.profile.config_file(), good).unwrap();
    assert!(cluster.is_ready());
    cluster.creel(&["send", "still here"]).ok();
    assert_eq!(cluster.stop(), 0);
}

#[test]
fn a_drain_leaves_nothing_and_loses_nothing() {
    let mut cluster = Cluster::start();
    cluster.creel(&["send", "remember the lobster"]).ok();
    assert_eq!(cluster.stop(), 0);
    cluster.wait_empty(Duration::from_secs(2));
    cluster.up();
    assert!(
        cluster
            .creel(&["sessions", "show", "main"])
            .ok()
            .contains("remember the lobster")
    );
}

#[test]
fn kill9_of_the_supervisor_leaves_nothing_after_two_seconds_and_the_next_up_works() {
    let mut cluster = Cluster::start();
    cluster.creel(&["send", "before"]).ok();
    let killed = Instant::now();
    kill9(cluster.supervisor_pid());
    assert_eq!(cluster.wait_end(), 128 + 9);
    cluster.wait_empty(
        Duration::from_secs(2)
            .saturating_sub(killed.elapsed())
            .max(Duration::from_millis(500)),
    );
    cluster.up();
    assert!(
        cluster
            .creel(&["sessions", "show", "main"])
            .ok()
            .contains("before")
    );
}

#[test]
fn detached_up_returns_when_ready_and_down_when_nothing_is_left() {
    let cluster = Cluster::new();
    let up = cluster.creeld(&["up", "--detach"]);
    assert_eq!(up.status, 0, "{up:?}");
    assert!(cluster.creel(&["send", "hello"]).ok().contains("hello"));
    let down = cluster.creeld(&["down"]);
    assert_eq!(down.status, 0, "{down:?}");
    cluster.wait_empty(Duration::from_millis(500));
    assert_eq!(cluster.creeld(&["down"]).status, 0, "down of what is down");
}

#[test]
fn an_unreadable_key_stops_that_service_and_says_which_file() {
    let mut cluster = Cluster::start();
    assert_eq!(cluster.stop(), 0);
    let key = cluster
        .profile
        .credentials(ServiceName::Scheduler)
        .join("key.pem");
    fs::write(&key, "not a key").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    cluster.spawn_up();
    wait_until("the scheduler's trouble is told", PATIENCE, || {
        cluster.said().contains("scheduler") && cluster.said().contains("private key")
    });
    wait_until("it is given up, the others run", PATIENCE, || {
        cluster.state_of(ServiceName::Scheduler).as_deref() == Some("failed")
            && cluster.state_of(ServiceName::Identity).as_deref() == Some("ready")
    });
    assert!(
        cluster.creel(&["send", "hello"]).ok().contains("hello"),
        "the rest keeps working"
    );
    assert_eq!(cluster.stop(), 1, "a failed service is in the exit status");
}

/// A stack that sees the time that stands in a file, at first `at`; nothing runs yet.
fn with_clock(library: &Path, at: &str) -> (Cluster, PathBuf) {
    let cluster = Cluster::new();
    // A directory, since a start removes the files beside it; and there, since services may read it.
    let clock = cluster.profile.run().join("faketime/clock");
    fs::create_dir_all(clock.parent().unwrap()).unwrap();
    fs::write(&clock, at).unwrap();
    let cluster = cluster
        .env("LD_PRELOAD", library.to_str().unwrap())
        .env("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap())
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    (cluster, clock)
}

#[test]
fn before_the_clock_is_set_it_waits_instead_of_failing() {
    let Some(library) = tools::faketime("before_the_clock_is_set_it_waits_instead_of_failing") else {
        return;
    };
    let (mut cluster, clock) = with_clock(&library, "@1970-01-02 00:00:00");
    cluster.spawn_up();
    let waiting = |cluster: &Cluster| {
        let log = |name: ServiceName| fs::read_to_string(cluster.profile.log_file(name)).unwrap_or_default();
        log(ServiceName::Identity).contains("waiting for time sync")
    };
    wait_until("it says that it waits", PATIENCE, || waiting(&cluster));
    let restarts = cluster.status().map_or(0, |status| {
        status.services.iter().map(|one| one.restarts).sum::<u32>()
    });
    assert_eq!(restarts, 0, "no restart loop");
    fs::write(&clock, "+0").unwrap();
    cluster.wait_ready();
}

#[test]
fn after_25_hours_of_sleep_certificates_renew_by_themselves() {
    let Some(library) = tools::faketime("after_25_hours_of_sleep_certificates_renew_by_themselves") else {
        return;
    };
    let (mut cluster, clock) = with_clock(&library, "+0");
    cluster.up();
    cluster.creel(&["send", "before the sleep"]).ok();
    fs::write(&clock, "+25h").unwrap();
    // Timers notice within half a minute of wall-clock steps; restarts must not be needed.
    for name in [
        ServiceName::AgentRunner,
        ServiceName::Scheduler,
        ServiceName::Gateway,
    ] {
        let log = cluster.profile.log_file(name);
        wait_until(&format!("{name} renews"), Duration::from_secs(120), || {
            fs::read_to_string(&log).is_ok_and(|log| log.contains("certificate renewed"))
        });
    }
    wait_until("it answers again", Duration::from_secs(120), || {
        cluster.creel(&["send", "after the sleep"]).status == 0
    });
    let restarts: u32 = cluster
        .status()
        .unwrap()
        .services
        .iter()
        .map(|one| one.restarts)
        .sum();
    assert_eq!(restarts, 0);
    // And a whole restart with every certificate expired on disk.
    fs::write(&clock, "+75h").unwrap();
    cluster.stop();
    cluster.up();
    cluster.creel(&["send", "after the restart"]).ok();
}
