//! What lies on disk: a state directory without room, and a store that a newer version wrote. Each is told
//! with the way out, nothing that was answered is lost, and the rest keeps working.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests start processes; a test that cannot go on fails"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use creel_store_rocksdb::{Migration, Options, open};
use creel_tests::{Cluster, cluster::PATIENCE, processes::wait_until};
use creel_wire::ServiceName;

/// A file system of a fixed size, unmounted at the end of the test.
struct Small(PathBuf);

impl Small {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m,mode=700", "creel-test"])
            .arg(at)
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then(|| Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_refuses_what_can_not_be_kept_and_heals_by_itself() {
    let mut cluster = Cluster::new();
    let Some(small) = Small::mount(&cluster.profile.root().join("state")) else {
        eprintln!("SKIPPED: a full disk, since no tmpfs can be mounted here; nothing was tested");
        return;
    };
    cluster.up();
    cluster.creel(&["send", "before"]).ok();
    let fill = small.0.join("fill");
    // Writes what fits, then fails.
    assert!(fs::write(&fill, vec![0_u8; 100 << 20]).is_err());
    // More than the room that the stores have already taken.
    let long = "x".repeat(100_000);
    let mut refused = None;
    wait_until("a message is refused", PATIENCE, || {
        let answer = cluster.creel(&["send", &long]);
        refused = (answer.status != 0).then_some(answer);
        refused.is_some()
    });
    let said = format!("{refused:?}");
    assert!(said.contains("disk has room"), "{said}");
    fs::remove_file(&fill).unwrap();
    wait_until("it answers again", PATIENCE, || {
        cluster.creel(&["send", "after"]).status == 0
    });
    let shown = cluster.creel(&["sessions", "show", "main", "--json"]);
    let transcript = shown.ok();
    for kept in ["echo: before", "echo: after"] {
        assert!(transcript.contains(kept), "{kept}");
    }
    assert_eq!(cluster.stop(), 0);
}

#[test]
fn a_store_of_a_newer_version_stops_its_service_only_and_is_left_as_it_is() {
    let mut cluster = Cluster::start();
    cluster.creel(&["send", "hello"]).ok();
    assert_eq!(cluster.stop(), 0);
    let db = cluster.profile.state(ServiceName::Scheduler).join("db");
    let today = Options::default().schema_version;
    let newer = || Options {
        schema_version: today + 1,
        migrations: vec![Migration {
            from: today,
            name: "a step of the future",
            apply: |_, _| Ok(()),
        }],
        ..Options::default()
    };
    drop(open(&db, newer()).unwrap());
    cluster.spawn_up();
    wait_until("it is told with the way back", PATIENCE, || {
        let said = cluster.said();
        said.contains("scheduler: the store has schema version") && said.contains("snapshot")
    });
    wait_until("the scheduler is given up, the others run", PATIENCE, || {
        cluster.state_of(ServiceName::Scheduler).as_deref() == Some("failed")
            && cluster.state_of(ServiceName::Gateway).as_deref() == Some("ready")
    });
    cluster.creel(&["send", "hello again"]).ok();
    assert_eq!(cluster.stop(), 1, "a failed service is in the exit status");
    open(&db, newer()).unwrap();
}
