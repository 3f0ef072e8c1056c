//! What a person sees who waits or watches while a service is killed: the answer, as if nothing had been. And who asks
//! for what is not there any more.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests start processes; a test that cannot go on fails"
)]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use creel_tests::{Cluster, processes::wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

/// A turn says that it has begun, and ends when the file `gate` is there.
fn config(dir: &Path) -> String {
    let dir = dir.display();
    let script = format!(
        r#"echo '{{"type":"delta","text":"begun, "}}'; while [ ! -e {dir}/gate ]; do sleep 0.05; done; echo '{{"type":"final","text":"begun, done"}}'"#
    );
    format!(
        "[backends.gated]\nkind = \"command\"\nargv = [\"sh\", \"-c\", '''{script}''']\nread = [\"{dir}\"]\n"
    )
}

struct Bed {
    cluster: Cluster,
    dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("creel-gate-")
            .tempdir_in("/tmp")
            .unwrap();
        let mut cluster = Cluster::new().config(&config(dir.path()));
        cluster.up();
        Self { cluster, dir }
    }

    fn begin(&self, arguments: &[&str]) -> Child {
        let mut command = self.cluster.command("creel");
        command.args(arguments).stdin(Stdio::null());
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn open_gate(&self) {
        fs::write(self.dir.path().join("gate"), "").unwrap();
    }

    fn close_gate(&self) {
        fs::remove_file(self.dir.path().join("gate")).unwrap();
    }

    fn running(&self, job: &str) -> bool {
        let runs = self
            .cluster
            .creel(&["cron", "runs", "--job", job, "--status", "running", "--json"]);
        runs.status == 0 && runs.json().as_array().is_some_and(|runs| !runs.is_empty())
    }
}

/// Its end, and what it has said.
fn end(mut child: Child) -> (i32, String, String) {
    wait_until("the command ends", PATIENCE, || {
        child.try_wait().unwrap().is_some()
    });
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap_or(-1),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn a_run_that_is_waited_for_is_answered_over_a_kill() {
    let mut bed = Bed::new();
    let add = [
        "cron",
        "add",
        "gated",
        "--every",
        "1h",
        "--message",
        "go",
        "--backend",
        "gated",
    ];
    bed.cluster.creel(&add).ok();
    for service in ["scheduler", "gateway", "identity"] {
        let waiting = bed.begin(&["cron", "run", "gated", "--wait"]);
        wait_until("the run runs", PATIENCE, || bed.running("gated"));
        bed.cluster.kill9_and_wait(service);
        bed.open_gate();
        let (status, out, err) = end(waiting);
        assert_eq!(status, 0, "{service}: {out}{err}");
        assert!(
            out.contains("succeeded") && out.contains("begun, done"),
            "{service}: {out}{err}"
        );
        bed.close_gate();
    }
}

#[test]
fn an_answer_that_is_followed_goes_on_over_a_kill() {
    let mut bed = Bed::new();
    for service in ["gateway", "scheduler"] {
        let mut following = bed.begin(&["send", "hello", "--backend", "gated", "--follow"]);
        // What was shown before the kill is not shown again after it.
        let mut begun = [0; 7];
        following.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
        assert_eq!(&begun, b"begun, ");
        bed.cluster.kill9_and_wait(service);
        bed.open_gate();
        let (status, out, err) = end(following);
        assert_eq!((status, out.as_str()), (0, "done\n"), "{service}: {err}");
        bed.close_gate();
    }
}

#[test]
fn a_job_that_is_gone_is_answered_for_by_its_runs() {
    let bed = Bed::new();
    bed.cluster
        .creel(&["cron", "add", "tea", "@yearly", "tea is ready"])
        .ok();
    let run = bed
        .cluster
        .creel(&["cron", "run", "tea", "--wait", "--json"])
        .json();
    bed.cluster.creel(&["cron", "rm", "tea", "--yes"]).ok();
    let runs = bed
        .cluster
        .creel(&["cron", "runs", "--job", "tea", "--json"])
        .json();
    assert_eq!(runs[0]["runId"], run["runId"], "{runs}");
    let explained = bed.cluster.creel(&["cron", "explain", "tea"]);
    assert_eq!(explained.status, 3, "{explained:?}");
    let id = run["jobId"].as_str().unwrap();
    assert!(
        explained.stderr.contains("was deleted")
            && explained.stderr.contains(&format!("creel cron runs --job {id}")),
        "{explained:?}"
    );
    let never = bed.cluster.creel(&["cron", "runs", "--job", "coffee"]);
    assert!(
        never.status == 3 && never.stderr.contains("no job `coffee`"),
        "{never:?}"
    );
}

#[test]
fn whoever_watches_runs_misses_none_and_sees_none_twice() {
    let mut bed = Bed::new();
    bed.cluster
        .creel(&["cron", "add", "tick", "@yearly", "tick"])
        .ok();
    let run = |bed: &Bed| {
        let run = bed
            .cluster
            .creel(&["cron", "run", "tick", "--wait", "--json"])
            .json();
        run["runId"].as_str().unwrap().to_owned()
    };
    let first = run(&bed);
    let mut watching = bed.begin(&["cron", "runs", "--job", "tick", "--follow", "--json"]);
    let (told, heard) = std::sync::mpsc::channel();
    let lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let reader = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if told.send(line).is_err() {
                return;
            }
        }
    });
    let mut over: Vec<String> = Vec::new();
    let until = |id: &str, over: &mut Vec<String>| {
        while !over.iter().any(|seen| seen == id) {
            let line = heard.recv_timeout(PATIENCE).expect("another line");
            let run: Value = serde_json::from_str(&line).unwrap();
            if run["status"] == "succeeded" {
                over.push(run["runId"].as_str().unwrap().to_owned());
            }
        }
    };
    until(&first, &mut over);
    for service in ["scheduler", "gateway"] {
        bed.cluster.kill9_and_wait(service);
        let next = run(&bed);
        until(&next, &mut over);
    }
    assert_eq!(over.len(), 3, "{over:?}");
    assert_eq!(over.iter().collect::<BTreeSet<_>>().len(), 3, "{over:?}");
    watching.kill().unwrap();
    watching.wait().unwrap();
    reader.join().unwrap();
}
