//! A client nobody here wrote: OpenClaw's published package. Its command line and its node host find their way
//! in by what `creel connect openclaw` prints, and out by `creel devices revoke`.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{path::Path, time::Duration};

use creel_proto::identity::v1::{
    ApproveRequest, ListRequestsRequest, PairingRequest, device_service_client::DeviceServiceClient,
};
use creel_tests::{Cluster, Output, cluster::PATIENCE, edge, openclaw::Openclaw, processes::wait_until};
use serde_json::Value;

/// An operator that may pair, as a script would be one.
fn pairing_rights(cluster: &Cluster, dir: &Path) {
    let dir = dir.to_str().unwrap();
    let mut arguments = vec!["devices", "cert", "--name", "tester", "--out", dir];
    for scope in [
        "operator.read",
        "operator.write",
        "operator.admin",
        "operator.pairing",
    ] {
        arguments.extend(["--scope", scope]);
    }
    cluster.creel(&arguments).ok();
}

fn waiting(cluster: &Cluster, dir: &Path) -> Vec<PairingRequest> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut devices = DeviceServiceClient::new(edge::channel(&cluster.edge().address, dir));
        devices
            .list_requests(ListRequestsRequest {})
            .await
            .unwrap()
            .into_inner()
            .requests
    })
}

fn approve(cluster: &Cluster, dir: &Path, pairing: &str, name: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut devices = DeviceServiceClient::new(edge::channel(&cluster.edge().address, dir));
        let request = ApproveRequest {
            request_id: pairing.to_owned(),
            pairing: pairing.to_owned(),
            name: name.to_owned(),
            ..ApproveRequest::default()
        };
        devices.approve(request).await.unwrap();
    });
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
    cluster.creel(&[
        "nodes",
        "invoke",
        "attic",
        "system.which",
        "--params",
        "{\"bins\":[\"sh\"]}",
        "--json",
    ])
}

#[test]
fn its_command_line_pairs_and_calls() {
    let cluster = Cluster::start();
    let Some(openclaw) = Openclaw::find("openclaw: its_command_line", &cluster.home().join("oc")) else {
        return;
    };
    let dir = cluster.home().join("operator");
    pairing_rights(&cluster, &dir);
    cluster
        .creel(&["cron", "add", "briefing", "0 7 * * *", "hello"])
        .ok();
    openclaw.configure(&cluster.creel(&["connect", "openclaw", "--json"]).json()["config"]);
    let call = |method: &str| cluster.run(&mut openclaw.command(&["gateway", "call", method, "--json"]));
    // Looking at `health` makes no key of its own; reading jobs does.
    let refused = call("health");
    assert!(refused.stdout.contains("DEVICE_IDENTITY_REQUIRED"), "{refused:?}");
    let cron_list = || cluster.run(&mut openclaw.command(&["cron", "list", "--json"]));
    let refused = cron_list();
    assert_ne!(refused.status, 0, "{}", refused.stdout);
    let requests = waiting(&cluster, &dir);
    let [request] = requests.as_slice() else {
        panic!("{refused:?} {requests:?}")
    };
    let said = format!("{}{}", refused.stdout, refused.stderr);
    assert!(
        said.contains(&request.pairing_id),
        "it says which request waits: {said}"
    );
    approve(&cluster, &dir, &request.pairing_id, "laptop");
    let health = call("health").json();
    assert_eq!(health["ok"], true, "{health}");
    let jobs = call("cron.list").json();
    assert_eq!(jobs["jobs"][0]["name"], "briefing", "{jobs}");
    // Its own view of them, too.
    let list = cron_list().json();
    assert_eq!(list["jobs"][0]["name"], "briefing", "{list}");
    // More than it was granted waits for an approval instead of being let through.
    let refused = call("device.pair.list");
    assert_ne!(refused.status, 0, "{}", refused.stdout);
    cluster.creel(&["devices", "revoke", "laptop", "--yes"]).ok();
    assert_ne!(call("health").status, 0);
    // Another home is another key, so another device that waits; this one's request is not its.
    let other = openclaw.with_home(&cluster.home().join("other"));
    let config = cluster.creel(&["connect", "openclaw", "--json"]).json();
    other.configure(&config["config"]);
    let refused = cluster.run(&mut other.command(&["cron", "list", "--json"]));
    assert_ne!(refused.status, 0, "{}", refused.stdout);
    let ids: Vec<_> = waiting(&cluster, &dir)
        .into_iter()
        .map(|request| request.device_id)
        .collect();
    assert!(ids.iter().any(|id| *id != request.device_id), "{ids:?}");
}

#[test]
fn its_node_host_pairs_answers_comes_back_and_is_cut_off() {
    let mut cluster = Cluster::start();
    let Some(openclaw) = Openclaw::find("openclaw: its_node_host", &cluster.home().join("oc")) else {
        return;
    };
    let dir = cluster.home().join("operator");
    pairing_rights(&cluster, &dir);
    let edge = cluster.edge();
    let (host, port) = edge.address.rsplit_once(':').unwrap();
    let arguments = [
        "--host",
        host,
        "--port",
        port,
        "--tls",
        "--tls-fingerprint",
        &edge.certificate_sha256,
    ];
    let node = openclaw.node_host(&arguments);
    let mut requests = Vec::new();
    wait_until("its request waits", PATIENCE, || {
        requests = waiting(&cluster, &dir);
        !requests.is_empty()
    });
    assert_eq!(which(&cluster).status, 3, "nothing is asked of a stranger");
    approve(&cluster, &dir, &requests[0].pairing_id, "attic");
    // It waits and comes by itself: the refusal told it to.
    wait_until("it is connected", PATIENCE, || connected(&cluster));
    let answer: Value = which(&cluster).json();
    assert!(
        answer["payload"]["bins"]["sh"].as_str().unwrap().ends_with("/sh"),
        "{answer}"
    );
    let refused = cluster.creel(&[
        "nodes",
        "invoke",
        "attic",
        "system.run",
        "--params",
        "{\"command\":[\"id\"]}",
    ]);
    assert_eq!(refused.status, 4, "{}", refused.stderr);
    // A restart of this side, then of its own: it comes back with its token.
    cluster.kill9_and_wait("gateway");
    wait_until("it came back", PATIENCE, || connected(&cluster));
    which(&cluster).ok();
    drop(node);
    wait_until("it is away", PATIENCE, || !connected(&cluster));
    let node = openclaw.node_host(&arguments);
    wait_until("it came back by itself", PATIENCE, || connected(&cluster));
    which(&cluster).ok();
    assert!(
        waiting(&cluster, &dir).is_empty(),
        "it was not asked to pair again"
    );
    // Revoked: the link ends with the commit, and no way leads back.
    cluster.creel(&["devices", "revoke", "attic", "--yes"]).ok();
    wait_until("its link has ended", Duration::from_secs(1), || {
        !connected(&cluster)
    });
    wait_until("it heard why", PATIENCE, || node.said().contains("closed (1008)"));
    drop(node);
    let node = openclaw.node_host(&arguments);
    wait_until("it is refused", PATIENCE, || {
        node.said().contains("connect failed") || !node.is_alive()
    });
    assert!(!connected(&cluster), "{}", node.said());
}
