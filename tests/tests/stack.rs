//! The walking skeleton as its users meet it: a fresh profile, a message, a job, a script certificate,
//! and its end.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests start processes and read the clock; a test that cannot go on fails"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use creel_proto::{
    agent::v1::{ListContextsRequest, context_service_client::ContextServiceClient},
    gateway::v1::{
        TailLogsRequest, WhoAmIRequest, log_service_client::LogServiceClient,
        status_service_client::StatusServiceClient,
    },
    scheduler::v1::{CreateJobRequest, job_service_client::JobServiceClient},
};
use creel_tests::{Cluster, Output, cluster::PATIENCE, edge, processes::wait_until, tools};
use creel_wire::{Code, Error, assertion};

/// A script certificate with these scopes, in its own directory.
fn certificate(cluster: &Cluster, name: &str, scopes: &[&str]) -> PathBuf {
    let dir = cluster.home().parent().unwrap().join(name);
    let mut arguments = vec!["devices", "cert", "--name", name, "--out", dir.to_str().unwrap()];
    for scope in scopes {
        arguments.extend(["--scope", scope]);
    }
    cluster.creel(&arguments).ok();
    dir
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_fresh_profile_answers_a_message_and_fires_a_job_every_second() {
    let cluster = Cluster::start();
    wait_until("it says so", PATIENCE, || cluster.said().contains("ready in"));
    let answer = cluster.creel(&["send", "hello"]);
    assert!(answer.ok().contains("hello"), "{answer:?}");

    cluster
        .creel(&["cron", "add", "tick", "--every", "1s", "--message", "tick"])
        .ok();
    let succeeded = || {
        let runs = cluster.creel(&["cron", "runs", "--job", "tick", "--json"]).json();
        runs.as_array()
            .unwrap()
            .iter()
            .filter(|run| run["status"] == "succeeded")
            .count()
    };
    wait_until("three runs succeeded", PATIENCE, || succeeded() >= 3);
    let runs = cluster.creel(&["cron", "runs", "--job", "tick", "--json"]).json();
    let mut ids: Vec<_> = runs
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["runId"].as_str().unwrap().to_owned())
        .collect();
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "every run has its own id");

    let shown = cluster.creel(&["sessions", "show", "main"]);
    assert!(
        shown.ok().contains("tick") && shown.stdout.contains("hello"),
        "{shown:?}"
    );
    let jobs = cluster.creel(&["cron", "list", "--json"]).json();
    assert_eq!(jobs[0]["name"], "tick");
    assert!(jobs[0]["state"]["nextRunAtMs"].as_i64().unwrap() > 1_700_000_000_000);
    cluster.creel(&["cron", "rm", "tick", "--yes"]).ok();
    assert_eq!(cluster.creel(&["cron", "show", "tick"]).status, 3, "not found");
}

/// Every file and directory under one, but not those of a directory that is left out.
fn tree(dir: &Path, left_out: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path == left_out {
            continue;
        }
        if path.is_dir() && !path.is_symlink() {
            tree(&path, left_out, found);
        }
        found.push(path);
    }
}

/// The original took a job's id for a part of a path, and opened files outside its store by it.
#[test]
fn a_jobs_name_or_id_is_never_part_of_a_path() {
    let cluster = Cluster::start();
    let around = cluster.home().parent().unwrap();
    let outside = || {
        let mut found = Vec::new();
        tree(around, cluster.home(), &mut found);
        found.sort();
        found
    };
    let before = outside();
    for name in [
        "../../escaped",
        "/../../../escaped",
        "..",
        "escaped/../../x",
        "%2e%2e%2fescaped",
    ] {
        cluster
            .creel(&["cron", "add", name, "--every", "1h", "--message", "hello"])
            .ok();
        let ran = cluster.creel(&["cron", "run", name, "--wait"]);
        assert_eq!(ran.status, 0, "{name}: {ran:?}");
        let runs = cluster.creel(&["cron", "runs", "--job", name, "--json"]).json();
        assert_eq!(runs.as_array().unwrap().len(), 1, "{name}: {runs}");
        // An id that was never given names nothing.
        let id = format!("{name}/{}", runs[0]["runId"].as_str().unwrap());
        assert_eq!(cluster.creel(&["cron", "show", &id]).status, 3);
        assert_eq!(cluster.creel(&["cron", "runs", "--job", &id]).status, 3);
        cluster.creel(&["cron", "rm", name, "--yes"]).ok();
    }
    assert_eq!(outside(), before, "nothing was made outside the profile");
    let mut inside = Vec::new();
    tree(cluster.home(), Path::new(""), &mut inside);
    let named = inside
        .iter()
        .find(|path| path.to_string_lossy().contains("escaped"));
    assert_eq!(named, None, "no file is named by a job");
}

#[test]
fn everyday_commands_say_what_is_and_fail_with_the_next_step() {
    let mut cluster = Cluster::start();
    let status = cluster.creel(&["status"]);
    for word in ["identity", "gateway", "scheduler", "agent-runner", "ready"] {
        assert!(status.ok().contains(word), "{word}: {status:?}");
    }
    assert_eq!(cluster.creel(&["health"]).status, 0);
    let json = cluster.creel(&["status", "--json"]).json();
    assert_eq!(json["ready"], true);
    assert_eq!(cluster.creel(&["sessions", "show", "nobody"]).status, 3);
    assert_eq!(
        cluster
            .creel(&["cron", "add", "x", "--every", "10ms", "--message", "x"])
            .status,
        2
    );
    assert_eq!(cluster.creel(&["frobnicate"]).status, 2);
    let doctor = cluster.creel(&["doctor"]);
    assert_eq!(doctor.status, 0, "{doctor:?}");
    assert!(doctor.stdout.contains("12 checks"), "{doctor:?}");

    assert_eq!(cluster.stop(), 0);
    cluster.wait_empty(Duration::from_secs(2));
    let down = cluster.creel(&["send", "hello"]);
    assert_eq!(down.status, 5, "{down:?}");
    assert!(down.stderr.contains("creeld up"), "{}", down.stderr);
    let next = cluster.creel(&[
        "cron",
        "next",
        "0 7 * * *",
        "--tz",
        "Europe/Berlin",
        "-n",
        "2",
        "--after",
        "2026-03-28T12:00:00Z",
        "--json",
    ]);
    assert!(next.ok().contains("2026-03-29"), "needs no daemon: {next:?}");
}

#[test]
fn a_script_certificate_does_what_its_scope_says_until_it_is_revoked() {
    let cluster = Cluster::start();
    let dir = certificate(&cluster, "ci", &["operator.read"]);
    let address = cluster.edge().address;
    runtime().block_on(async {
        let channel = edge::channel(&address, &dir);
        let me = StatusServiceClient::new(channel.clone())
            .who_am_i(WhoAmIRequest {})
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (me.name.as_str(), me.scopes.as_slice()),
            ("ci", ["operator.read".to_owned()].as_slice())
        );
        ContextServiceClient::new(channel.clone())
            .list(ListContextsRequest::default())
            .await
            .unwrap();

        let denied = JobServiceClient::new(channel.clone())
            .create(CreateJobRequest::default())
            .await
            .unwrap_err();
        let error = Error::of_status(&denied);
        assert_eq!(
            (error.code, error.reason.as_ref()),
            (Code::PermissionDenied, "scope_missing")
        );
        assert!(error.hint.unwrap().contains("operator.write"));

        // An assertion of one's own making is taken away at the edge: the same scopes as before.
        let mut forged = tonic::Request::new(CreateJobRequest::default());
        forged.metadata_mut().insert_bin(
            assertion::METADATA,
            tonic::metadata::MetadataValue::from_bytes(b"me"),
        );
        let error = Error::of_status(
            &JobServiceClient::new(channel.clone())
                .create(forged)
                .await
                .unwrap_err(),
        );
        assert_eq!(error.reason, "scope_missing");

        let mut logs = LogServiceClient::new(channel.clone())
            .tail(TailLogsRequest {
                follow: true,
                ..Default::default()
            })
            .await
            .unwrap()
            .into_inner();
        assert!(logs.message().await.unwrap().is_some(), "an open stream");
        let cut = tokio::spawn(async move { while let Ok(Some(_)) = logs.message().await {} });
        cluster.creel(&["devices", "revoke", "ci", "--yes"]).ok();
        tokio::time::timeout(Duration::from_secs(1), cut)
            .await
            .expect("cut within a second")
            .unwrap();
        let again = edge::channel(&address, &dir);
        let error = StatusServiceClient::new(again)
            .who_am_i(WhoAmIRequest {})
            .await
            .unwrap_err();
        assert_eq!(error.code(), tonic::Code::Unauthenticated);

        let nobody = edge::anonymous_channel(&address, &cluster.profile.root_cert_file());
        let error = StatusServiceClient::new(nobody)
            .who_am_i(WhoAmIRequest {})
            .await
            .unwrap_err();
        assert_eq!(error.code(), tonic::Code::Unauthenticated);
        assert!(error.message().contains("creel devices cert"), "{error:?}");
    });
    let refused = cluster.creel(&["devices", "cert", "renew", dir.to_str().unwrap()]);
    assert_eq!(refused.status, 4, "no path re-issues it: {refused:?}");
}

#[test]
fn grpcurl_sees_one_server() {
    let Some(grpcurl) = tools::find("grpcurl", "grpcurl_sees_one_server") else {
        return;
    };
    let cluster = Cluster::start();
    let dir = certificate(&cluster, "ci", &["operator.read"]);
    let address = cluster.edge().address;
    let run = |certified: bool, before: &[&str], after: &[&str]| -> Output {
        let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let mut command = Command::new(&grpcurl);
        command.args(["-cacert", &file("ca.pem"), "-max-time", "20"]);
        if certified {
            command.args(["-cert", &file("cert.pem"), "-key", &file("key.pem")]);
        }
        cluster.run(command.args(before).arg(&address).args(after))
    };
    let list = run(true, &[], &["list"]);
    for service in [
        "creel.scheduler.v1.JobService",
        "creel.agent.v1.ContextService",
        "creel.gateway.v1.MessageService",
        "grpc.health.v1.Health",
    ] {
        assert!(list.ok().contains(service), "{service}: {list:?}");
    }
    assert!(
        !list.stdout.contains("AssertionService") && !list.stdout.contains("WorkService"),
        "{list:?}"
    );
    let described = run(true, &[], &["describe", "creel.scheduler.v1.JobService"]);
    assert!(described.ok().contains("rpc List"), "{described:?}");
    let jobs = run(true, &["-d", "{}"], &["creel.scheduler.v1.JobService/List"]);
    assert_eq!(jobs.status, 0, "{jobs:?}");
    let denied = run(true, &["-d", "{}"], &["creel.scheduler.v1.JobService/Create"]);
    assert_ne!(denied.status, 0);
    assert!(
        denied.stderr.contains("PermissionDenied") && denied.stderr.contains("operator.write"),
        "{denied:?}"
    );
    assert!(
        denied.stderr.contains("scope_missing") && denied.stderr.contains("creel devices cert --name"),
        "reason and next step are readable: {denied:?}"
    );
    let nobody = run(false, &[], &["list"]);
    assert!(
        nobody.stderr.contains("no client certificate") && nobody.stderr.contains("creel devices cert"),
        "{nobody:?}"
    );
    cluster.creel(&["devices", "revoke", "ci", "--yes"]).ok();
    assert_ne!(
        run(true, &[], &["list"]).status,
        0,
        "nothing after the revocation"
    );
}

#[test]
fn metrics_and_liveness_are_where_operations_look_for_them() {
    let cluster = Cluster::start();
    cluster.creel(&["send", "hello"]).ok();
    let edge = cluster.edge();
    let get = |address: &str, host: &str| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let text = get(&edge.admin, "localhost");
    for service in ["gateway", "identity", "scheduler", "agent-runner"] {
        assert!(
            text.contains(&format!("creel_process_memory_bytes{{service=\"{service}\"}}")),
            "{service}: {text}"
        );
        assert!(
            text.contains(&format!("creel_up{{service=\"{service}\"}} 1")),
            "{service}"
        );
    }
    assert!(
        text.contains("creel_turns_total") && text.contains("creel_rpc_requests_total"),
        "{text}"
    );
    assert_eq!(
        text.matches("# TYPE creel_rpc_requests counter").count(),
        1,
        "a family stands once"
    );
    assert!(get(&edge.admin, "evil.example").starts_with("HTTP/1.1 421"));
    wait_until("the first operator is on record", PATIENCE, || {
        fs::read_to_string(cluster.profile.audit_file()).is_ok_and(|text| text.contains("device.approved"))
    });
    assert!(creel_kit::audit_file::verify(&cluster.profile.audit_file()).unwrap() > 0);
}
