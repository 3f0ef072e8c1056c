//! A client nobody here wrote: OpenClaw's published package. Its command line and its node host find their way
//! in by what `creel connect openclaw` prints, and out by `creel devices revoke`.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::time::Duration;

use creel_tests::{Cluster, Output, cluster::PATIENCE, openclaw::Openclaw, processes::wait_until};
use serde_json::Value;

/// How long its node host may take to start: 7 s alone on this machine, more than a minute beside a build.
const START: Duration = Duration::from_secs(240);

/// The devices that wait.
fn waiting(cluster: &Cluster) -> Vec<Value> {
    let requests = cluster.creel(&["devices", "requests", "--json"]).json();
    requests.as_array().unwrap().clone()
}

fn approve(cluster: &Cluster, request: &Value, name: &str) {
    let pairing = request["pairingId"].as_str().unwrap();
    cluster
        .creel(&["devices", "approve", pairing, "--name", name, "--yes"])
        .ok();
}

fn connected(cluster: &Cluster) -> bool {
    let nodes = cluster.creel(&["nodes", "list", "--json"]).json();
    nodes
        .as_array()
        .unwrap()
        .iter()
        .any(|node| node["connected"] == true)
}

fn which(cluster: &Cluster) -> Output {
    let params = "{\"bins\":[\"sh\"]}";
    cluster.creel(&[
        "nodes",
        "invoke",
        "attic",
        "system.which",
        "--params",
        params,
        "--json",
    ])
}

#[test]
fn its_command_line_pairs_and_calls() {
    let cluster = Cluster::start();
    let home = cluster.home().join("oc");
    let Some(openclaw) = Openclaw::find("openclaw: its_command_line", &home) else {
        return;
    };
    cluster
        .creel(&["cron", "add", "briefing", "0 7 * * *", "hello"])
        .ok();
    let config = cluster.creel(&["connect", "openclaw", "--json"]).json();
    openclaw.configure(&config["config"]);
    let call = |method: &str| cluster.run(&mut openclaw.command(&["gateway", "call", method, "--json"]));
    let cron_list = || cluster.run(&mut openclaw.command(&["cron", "list", "--json"]));
    // Looking at `health` makes it no key of its own; reading jobs does.
    let refused = call("health");
    assert!(refused.stdout.contains("DEVICE_IDENTITY_REQUIRED"), "{refused:?}");
    let refused = cron_list();
    assert_ne!(refused.status, 0, "{}", refused.stdout);
    let requests = waiting(&cluster);
    let [request] = requests.as_slice() else {
        panic!("{refused:?} {requests:?}")
    };
    let pairing = request["pairingId"].as_str().unwrap();
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(said.contains(pairing), "it says which request waits: {said}");
    approve(&cluster, request, "laptop");
    let health = call("health").json();
    assert_eq!(health["ok"], true, "{health}");
    let jobs = call("cron.list").json();
    assert_eq!(jobs["jobs"][0]["name"], "briefing", "{jobs}");
    // Its own view of them, too.
    let list = cron_list().json();
    assert_eq!(list["jobs"][0]["name"], "briefing", "{list}");
    // Its overview reads the answer of `status` field by field.
    let status = cluster.run(&mut openclaw.command(&["status", "--json"])).json();
    assert_eq!(status["sessions"]["byAgent"][0]["agentId"], "default", "{status}");
    // More than it was granted waits for an approval instead of being let through.
    let refused = call("chat.send");
    assert_ne!(refused.status, 0, "{}", refused.stdout);
    cluster.creel(&["devices", "revoke", "laptop", "--yes"]).ok();
    assert_ne!(call("health").status, 0);
    // Another home is another key, so another device that waits.
    let other = openclaw.with_home(&cluster.home().join("other"));
    other.configure(&config["config"]);
    let refused = cluster.run(&mut other.command(&["cron", "list", "--json"]));
    assert_ne!(refused.status, 0, "{}", refused.stdout);
    let other = waiting(&cluster)
        .into_iter()
        .any(|one| one["deviceId"] != request["deviceId"]);
    assert!(other);
}

#[test]
fn its_commands_do_what_they_say() {
    // For what its command line calls administration, and everything about devices.
    let mut cluster = Cluster::new().config("[identity]\nlegacy_devices_may_administer = true\n");
    cluster.up();
    let home = cluster.home().join("oa");
    let Some(openclaw) = Openclaw::find("openclaw: its_commands", &home) else {
        return;
    };
    openclaw.configure(&cluster.creel(&["connect", "openclaw", "--json"]).json()["config"]);
    let oc = |arguments: &[&str]| cluster.run(&mut openclaw.command(arguments));
    // A job. It asks for what it would need where it comes from, and names the request that waits.
    let add = [
        "cron",
        "add",
        "--name",
        "briefing",
        "--cron",
        "0 7 * * *",
        "--message",
        "hello",
    ];
    let refused = oc(&add);
    assert_ne!(refused.status, 0, "{refused:?}");
    let requests = waiting(&cluster);
    let pairing = requests[0]["pairingId"].as_str().unwrap();
    assert!(format!("{refused:?}").contains(pairing), "{refused:?}");
    approve(&cluster, &requests[0], "laptop");
    let job = oc(&add).json();
    let id = job["id"].as_str().unwrap();
    assert_eq!(job["payload"]["message"], "hello", "{job}");
    assert_eq!(oc(&["cron", "disable", id]).json()["enabled"], false);
    let all = oc(&["cron", "list", "--all"]);
    assert!(
        all.ok().contains("briefing") && all.stdout.contains("disabled"),
        "{all:?}"
    );
    let edit = [
        "cron",
        "edit",
        id,
        "--enable",
        "--every",
        "2h",
        "--timeout-seconds",
        "30",
        "--no-deliver",
    ];
    let edited = oc(&edit).json();
    assert_eq!(
        (&edited["enabled"], &edited["schedule"]["everyMs"]),
        (&true.into(), &7_200_000.into()),
        "{edited}"
    );
    assert_eq!(
        edited["payload"],
        serde_json::json!({"kind": "agentTurn", "message": "hello", "timeoutSeconds": 30})
    );
    assert_eq!(edited["delivery"]["mode"], "none");
    // It waits for the run, and takes it as done only when everything was.
    let ran = oc(&["cron", "run", id, "--wait", "--poll-interval", "200ms"]).json();
    assert_eq!(ran["completionStatus"], "succeeded", "{ran}");
    let runs = oc(&["cron", "runs", id]).json();
    assert_eq!(
        (&runs["total"], &runs["hasMore"]),
        (&1.into(), &false.into()),
        "{runs}"
    );
    assert_eq!(runs["entries"][0]["runId"], ran["runId"]);
    assert_eq!(oc(&["cron", "rm", id]).json()["removed"], true);
    let gone = oc(&["cron", "rm", id]);
    assert_ne!(gone.status, 0);
    assert!(
        format!("{gone:?}").contains("openclaw cron list"),
        "its own words for what is gone: {gone:?}"
    );
    // What a job here can't do is refused, and says which field it was.
    let other = [
        "cron",
        "add",
        "--name",
        "x",
        "--every",
        "1h",
        "--message",
        "x",
        "--model",
        "m",
    ];
    assert!(format!("{:?}", oc(&other)).contains("/payload/model"));
    // How the stack is, in its own words.
    let health = oc(&["health"]);
    assert!(health.ok().contains("Agents: default (default)"), "{health:?}");
    let probe = oc(&["gateway", "probe", "--json", "--timeout", "60000"]).json();
    assert_eq!(
        (&probe["ok"], &probe["degraded"]),
        (&true.into(), &false.into()),
        "{probe}"
    );
    // Devices and nodes.
    let devices = oc(&["devices", "list", "--json"]).json();
    let own = devices["paired"].as_array().unwrap().iter();
    let own = own
        .clone()
        .find(|device| device["displayName"] == "laptop")
        .unwrap();
    let device = own["deviceId"].as_str().unwrap();
    oc(&["devices", "rename", "--device", device, "--name", "desk"]).ok();
    let none = oc(&["devices", "approve", "nobody"]);
    assert!(
        format!("{none:?}").contains("No pending device request matches"),
        "{none:?}"
    );
    let nodes = oc(&["nodes", "list"]);
    assert!(nodes.ok().contains("Paired: 0"), "{nodes:?}");
    let unknown = oc(&["gateway", "call", "wizard.start"]);
    assert!(
        format!("{unknown:?}").contains("unknown method: wizard.start"),
        "{unknown:?}"
    );
    // It ends itself.
    oc(&["devices", "revoke", "--device", device, "--role", "operator"]);
    assert_ne!(oc(&["cron", "status"]).status, 0);
}

#[test]
fn its_node_host_pairs_answers_comes_back_and_is_cut_off() {
    let mut cluster = Cluster::start();
    let home = cluster.home().join("on");
    let Some(openclaw) = Openclaw::find("openclaw: its_node_host", &home) else {
        return;
    };
    let edge = cluster.edge();
    let (host, port) = edge.address.rsplit_once(':').unwrap();
    let pin = edge.certificate_sha256.as_str();
    let arguments = ["--host", host, "--port", port, "--tls", "--tls-fingerprint", pin];
    let node = openclaw.node_host(&arguments);
    wait_until("its request waits", START, || !waiting(&cluster).is_empty());
    assert_eq!(which(&cluster).status, 3, "nothing is asked of a stranger");
    approve(&cluster, &waiting(&cluster)[0], "attic");
    // It waits and comes by itself: the refusal told it to.
    wait_until("it is connected", PATIENCE, || connected(&cluster));
    let answer = which(&cluster).json();
    let path = answer["payload"]["bins"]["sh"].as_str().unwrap();
    assert!(path.ends_with("/sh"), "{answer}");
    let run = [
        "nodes",
        "invoke",
        "attic",
        "system.run",
        "--params",
        "{\"command\":[\"id\"]}",
    ];
    let refused = cluster.creel(&run);
    assert_eq!(refused.status, 4, "{}", refused.stderr);
    // A restart of this side, then of its own: it comes back with its token.
    cluster.kill9_and_wait("gateway");
    wait_until("it came back", PATIENCE, || connected(&cluster));
    which(&cluster).ok();
    drop(node);
    wait_until("it is away", PATIENCE, || !connected(&cluster));
    let node = openclaw.node_host(&arguments);
    wait_until("it came back by itself", START, || connected(&cluster));
    which(&cluster).ok();
    assert!(waiting(&cluster).is_empty(), "it was not asked to pair again");
    // Revoked: the link ends within a second of the commit, and no way leads back.
    cluster.creel(&["devices", "revoke", "attic", "--yes"]).ok();
    wait_until("its link has ended", Duration::from_secs(1), || {
        !connected(&cluster)
    });
    wait_until("it heard why", PATIENCE, || node.said().contains("closed (1008)"));
    drop(node);
    let node = openclaw.node_host(&arguments);
    wait_until("it is refused", START, || {
        node.said().contains("connect failed") || !node.is_alive()
    });
    assert!(!connected(&cluster), "{}", node.said());
}

#[test]
fn its_node_host_comes_in_by_a_setup_code_once() {
    let cluster = Cluster::start();
    let home = cluster.home().join("os");
    let Some(openclaw) = Openclaw::find("openclaw: its_node_host_comes_in_by_a_setup_code", &home) else {
        return;
    };
    let invite = ["devices", "invite", "--name", "attic", "--role", "node"];
    let made = cluster.creel(&[&invite[..], &["--command", "system.which", "--json"]].concat());
    let made = made.json();
    let code = made["setupCode"].as_str().unwrap();
    // Address, certificate and secret are in the code: nothing else is told, nobody has to approve.
    let node = openclaw.node_host(&["--pair", code]);
    wait_until("it is connected", START, || connected(&cluster));
    which(&cluster).ok();
    // What it declares beyond the invite waits for an operator.
    let more = waiting(&cluster);
    assert_eq!(more[0]["reason"], "surface_upgrade", "{more:?}");
    // The code is used up.
    let thief = openclaw.with_home(&cluster.home().join("thief"));
    let thief = thief.node_host(&["--pair", code]);
    wait_until("another is refused", START, || {
        thief.said().contains("connect failed") || !thief.is_alive()
    });
    let nodes = cluster.creel(&["nodes", "list", "--json"]).json();
    assert_eq!(nodes.as_array().unwrap().len(), 1, "{nodes}");
    drop((node, thief));
}
