//! The chain supervisor → service → spawner → init → program: losing any one process of it leaves nothing alive.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod common;

use std::path::Path;
use std::time::Duration;

use common::{BED, DEADLINE, Place, Role, Watched};
use creel_sandbox::Status;

/// From being told to end to nothing left (`exec.md`).
const PROMISED: Duration = Duration::from_secs(6);

/// A program that does what it can to stay: it ignores TERM, and starts children in sessions of their own, some
/// orphaned at once. Prints `stray PID` for each.
const CLINGING: &str = r#"
    trap '' TERM HUP INT
    stay() { sh -c 'echo stray $$; exec sleep 1000'; }
    setsid sh -c 'trap "" TERM; echo stray $$; exec sleep 1000' &
    (setsid sh -c 'echo stray $$; setsid sh -c "echo stray \$\$; exec sleep 1000"; :' &)
    (stay &)
    echo stray $$
    stay; stay
"#;

struct Chain {
    role: Role,
    _place: Place,
    links: serde_json::Value,
    strays: Vec<Watched>,
}

impl Chain {
    /// Starts a whole chain, with the bed as supervisor.
    fn start() -> Self {
        let place = Place::new();
        let profile = place.write_profile(&place.profile());
        let args = ["supervisor", profile.to_str().unwrap(), "/bin/sh", "-c", CLINGING];
        let mut role = Role::start(Path::new(BED), &args);
        let (mut links, mut strays) = (serde_json::Value::Null, Vec::new());
        while strays.len() < 6 || links.is_null() {
            let line = role.line();
            match line.strip_prefix("stray ") {
                Some(pid) => strays.push(Watched::new(pid.parse().unwrap())),
                None => links = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: `{line}`")),
            }
        }
        Self {
            role,
            _place: place,
            links,
            strays,
        }
    }

    fn link(&self, name: &str) -> Watched {
        Watched::new(i32::try_from(self.links[name].as_i64().unwrap()).unwrap())
    }

    /// Kills one link and waits for everything below it, and for the strays wherever they are.
    fn lose(self, lost: &str, below: &[&str]) -> Role {
        let lost = match lost {
            "supervisor" => Watched::new(self.role.child.pid()),
            name => self.link(name),
        };
        let below: Vec<_> = below.iter().map(|name| self.link(name)).collect();
        lost.kill();
        for process in below.iter().chain(&self.strays) {
            process.wait_gone(PROMISED);
        }
        self.role
    }
}

#[test]
fn losing_the_program_ends_what_it_started() {
    let role = Chain::start().lose("main", &["init"]);
    let (_, status) = role.finish();
    assert_eq!(status, Status::Code(0), "the supervisor saw its service end");
}

#[test]
fn losing_init_leaves_nothing() {
    let role = Chain::start().lose("init", &["main"]);
    let (out, status) = role.finish();
    // The spawner reports it and goes on; here the service then ends by itself.
    assert!(out.contains("\"left\":0"), "{out}");
    assert_eq!(status, Status::Code(0));
}

#[test]
fn losing_the_spawner_leaves_nothing() {
    Chain::start().lose("spawner", &["init", "main"]).finish();
}

#[test]
fn losing_the_service_leaves_nothing() {
    let role = Chain::start().lose("service", &["spawner", "init", "main"]);
    let (out, _) = role.finish();
    assert!(out.contains("\"left\":0"), "{out}");
}

#[test]
fn losing_the_supervisor_leaves_nothing() {
    Chain::start().lose("supervisor", &["service", "spawner", "init", "main"]);
}

#[test]
fn losing_spawner_and_init_together_leaves_the_rest_to_the_service() {
    let chain = Chain::start();
    // Stopped, it can't see its spawner's end before the spawner's child is gone, too.
    let (spawner, init) = (chain.link("spawner"), chain.link("init"));
    spawner.kill();
    init.kill();
    for process in [&spawner, &init].into_iter().chain(&chain.strays) {
        process.wait_gone(PROMISED);
    }
    let (out, _) = chain.role.finish();
    assert!(out.contains("\"left\":0"), "{out}");
}

#[test]
fn a_signal_to_the_group_is_the_services_to_heed() {
    // Ctrl-C and a supervisor's TERM reach spawner and init, too; they must not run away from their runs.
    let place = Place::new();
    let profile = place.write_profile(&place.profile());
    let args = [
        "service",
        profile.to_str().unwrap(),
        "/bin/sh",
        "-c",
        "echo ready; exec sleep 1000",
    ];
    let mut role = Role::start(Path::new(BED), &args);
    let mut links = serde_json::Value::Null;
    for _ in 0..2 {
        let line = role.line();
        if line != "ready" {
            links = serde_json::from_str(&line).unwrap();
        }
    }
    let link = |name: &str| Watched::new(i32::try_from(links[name].as_i64().unwrap()).unwrap());
    let (spawner, init, main) = (link("spawner"), link("init"), link("main"));
    for helper in [&spawner, &init] {
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            helper.signal(signal);
            // Neither acted on nor ignored for good: blocked, and so pending.
            assert!(helper.has_pending(signal), "signal {signal} to {}", helper.pid);
        }
    }
    role.child.signal_group(libc::SIGTERM).unwrap();
    for process in [&spawner, &init, &main] {
        process.wait_gone(DEADLINE);
    }
}
