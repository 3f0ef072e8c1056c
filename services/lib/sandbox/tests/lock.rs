//! A service that locked itself, and what it can still tell about its peers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod common;

use std::os::unix::net::UnixStream;
use std::path::Path;

use common::{BED, Place, Role, Watched};
use creel_sandbox::{LockError, LockSpec, Status, lock_service};

/// What the locked service found, and the pid of the peer that connected to it.
fn findings(prefix: &[&str]) -> (serde_json::Value, u32) {
    let place = Place::new();
    let own = place.path("tmp");
    let secret = place.secret();
    let profile = place.write_profile(&place.profile());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let bed = place.bed();
    let mut args: Vec<&str> = prefix.to_vec();
    if !prefix.is_empty() {
        args.push(bed.to_str().unwrap());
    }
    args.extend([
        "lock",
        own.to_str().unwrap(),
        secret.to_str().unwrap(),
        profile.to_str().unwrap(),
        &port,
    ]);
    let mut role = Role::start(Path::new(BED), &args);
    let socket = role.json()["socket"].as_str().unwrap().to_owned();
    let stream = UnixStream::connect(socket).unwrap();
    let found = role.json();
    drop(stream);
    let (_, status) = role.finish();
    assert_eq!(status, Status::Code(0));
    (found, std::process::id())
}

#[test]
fn a_locked_service_keeps_its_own_and_loses_the_rest() {
    let (found, me) = findings(&[]);
    let yes = [
        "own_write",
        "own_connect",
        "bind",
        "connect_allowed",
        "thread",
        "run_ended",
        "peer_has_pidfd",
    ];
    let no = [
        "foreign_read",
        "foreign_write",
        "exec",
        "connect_other",
        "dumpable",
    ];
    for name in yes {
        assert_eq!(found[name], true, "{name}: {found}");
    }
    for name in no {
        assert_eq!(found[name], false, "{name}: {found}");
    }
    assert_eq!(found["left"], 0, "{found}");
    assert_eq!(found["level"], "full", "{found}");

    // This test is as free as the service was when it started; a run is not, and is known for what it is.
    assert_eq!(found["peer_pid"], me);
    assert_eq!(
        (&found["peer_confined"], &found["peer_descends"]),
        (&false.into(), &false.into()),
        "{found}"
    );
    assert_eq!(
        (&found["run_confined"], &found["run_descends"]),
        (&true.into(), &true.into()),
        "{found}"
    );
}

#[test]
fn in_a_container_a_run_is_still_more_confined_than_the_service() {
    // The service has its container's filter and no_new_privs, and its baseline says so.
    let (found, _) = findings(&["docker"]);
    assert_eq!(
        (&found["run_confined"], &found["run_descends"]),
        (&true.into(), &true.into()),
        "{found}"
    );
    assert_eq!(found["foreign_read"], false, "{found}");
    assert_eq!(found["exec"], false, "{found}");
    // And this test, outside the container, is freer than the service.
    assert_eq!(found["peer_confined"], false, "{found}");
}

#[test]
fn a_confined_peer_is_told_from_a_free_one() {
    // The roles turned: a free service, a peer inside a container's conditions.
    let baseline = creel_sandbox::Confinement::of_self().unwrap();
    let free = Role::start(Path::new("/bin/sleep"), &["1000"]);
    let confined = Role::start(
        Path::new(BED),
        &["docker", "/bin/sh", "-c", "echo up; exec sleep 1000"],
    );
    let mut confined = confined;
    assert_eq!(confined.line(), "up");
    let of = |role: &Role| creel_sandbox::Confinement::of(role.child.pid()).unwrap();
    assert!(!of(&free).is_more_confined_than(&baseline));
    assert!(
        of(&confined).is_more_confined_than(&baseline),
        "{:?}",
        of(&confined)
    );
    for role in [free, confined] {
        role.child.signal(libc::SIGKILL).unwrap();
        Watched::new(role.child.pid()).wait_gone(common::DEADLINE);
    }
}

#[test]
fn a_process_with_threads_is_not_half_locked() {
    // The test harness runs this on a thread of its own.
    let refused = lock_service(&LockSpec::default());
    assert!(
        matches!(refused, Err(LockError::Threads { threads }) if threads > 1),
        "{refused:?}"
    );
}
