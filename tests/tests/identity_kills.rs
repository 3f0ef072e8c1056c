//! `kill -9` of identity between any two steps of approve, redeem, rotate, revoke and recover, by real processes: no
//! device is half let in, no invite used twice, no answer taken back. Identity's own tests try each commit in turn
//! (`services/identity/src/tests/crashes.rs`); here the moment is what the machine makes of it.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests start processes and read the clock; a test that cannot go on fails"
)]

use std::{
    fs,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use creel_proto::{
    gateway::v1::{WhoAmIRequest, status_service_client::StatusServiceClient},
    identity::v1::{
        ApproveRequest, CreateInviteRequest, Device, GetTrustBundleRequest, ListDevicesRequest,
        ListRequestsRequest, RevokeDeviceRequest, RotateTokenRequest, ca_service_client::CaServiceClient,
        device_service_client::DeviceServiceClient, request_pairing_response::Outcome,
    },
};
use creel_tests::{
    Cluster,
    cluster::PATIENCE,
    door, edge,
    processes::{kill9, signal, wait_until},
    strangers::{asks, bound, new_key, reason, redeems, stranger},
};
use creel_wire::{Code, ServiceName};
use rcgen::KeyPair;
use tonic::{Status, transport::Channel};

fn rounds() -> usize {
    let asked = std::env::var("CREEL_IDENTITY_KILLS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(8)
}

/// Kills identity with SIGKILL after `calls` calls of a stranger were answered: a delay that is work.
async fn kill_after(cluster: &Cluster, channel: Channel, calls: usize) {
    for _ in 0..calls {
        let _ = CaServiceClient::new(channel.clone())
            .get_trust_bundle(GetTrustBundleRequest {})
            .await;
    }
    kill9(cluster.pid_of("identity"));
}

/// Waits until another identity than `before` is ready. The supervisor gives a service up that dies too
/// often; asked to, it starts it again.
fn back(cluster: &Cluster, before: u32) {
    let mut asked = false;
    wait_until("identity is there again", PATIENCE, || {
        let status = cluster.status().unwrap_or_else(|| panic!("no status"));
        let identity = status.services.iter().find(|one| one.name == "identity").unwrap();
        if identity.state == "failed" && !asked {
            asked = true;
            signal(cluster.supervisor_pid(), rustix::process::Signal::HUP);
        }
        identity.pid != before && identity.state == "ready"
    });
}

/// Calls until it is answered by identity itself, not by its absence.
async fn until_answered<T, F, R>(what: &str, call: F) -> Result<T, Status>
where
    F: Fn() -> R,
    R: Future<Output = Result<tonic::Response<T>, Status>>,
{
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let outcome = call().await;
        let passing = outcome.as_ref().err().is_some_and(|status| {
            matches!(
                Code::of_grpc(status.code()),
                Code::Unavailable | Code::Internal | Code::Cancelled | Code::DeadlineExceeded
            ) || reason(status) == "slow_down"
        });
        if !passing {
            return outcome.map(tonic::Response::into_inner);
        }
        assert!(
            std::time::Instant::now() < end,
            "{what}: {outcome:?}",
            outcome = outcome.err()
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn named(owner: &Channel, name: &str) -> Vec<Device> {
    let list = || {
        let mut client = DeviceServiceClient::new(owner.clone());
        async move {
            client
                .list_devices(ListDevicesRequest {
                    page_size: 500,
                    ..Default::default()
                })
                .await
        }
    };
    let all = until_answered("listing", list).await.unwrap();
    all.devices
        .into_iter()
        .filter(|one| one.name.starts_with(name))
        .collect()
}

fn owner(cluster: &Cluster) -> Channel {
    let dir = cluster.home().parent().unwrap().join("owner-files");
    let scopes = ["read", "write", "admin", "pairing"].map(|scope| format!("operator.{scope}"));
    let mut arguments = vec![
        "devices",
        "cert",
        "--name",
        "owner-script",
        "--out",
        dir.to_str().unwrap(),
    ];
    for scope in &scopes {
        arguments.extend(["--scope", scope]);
    }
    cluster.creel(&arguments).ok();
    edge::channel(&cluster.edge().address, &dir)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invite_lets_exactly_one_device_in_whenever_identity_is_killed() {
    let cluster = Arc::new(Cluster::start());
    let owner = owner(&cluster);
    for round in 0..rounds() {
        let name = format!("phone-{round}");
        let make = || {
            let mut client = DeviceServiceClient::new(owner.clone());
            let name = name.clone();
            async move {
                client
                    .create_invite(CreateInviteRequest {
                        name,
                        ..Default::default()
                    })
                    .await
            }
        };
        let made = until_answered("inviting", make).await.unwrap();
        let (first, second) = (new_key(), new_key());
        let redeem = async |key: &KeyPair| {
            let (channel, exporter) = bound(&cluster).await;
            let request = redeems(key, &made.secret, &exporter);
            DeviceServiceClient::new(channel).redeem_invite(request).await
        };
        let before = cluster.pid_of("identity");
        // Both race for it while identity is killed somewhere in between.
        let killing = kill_after(&cluster, stranger(&cluster), round % 4);
        let _ = tokio::join!(redeem(&first), redeem(&second), killing);
        back(&cluster, before);
        let one = until_answered("redeeming", || redeem(&first)).await;
        let two = until_answered("redeeming", || redeem(&second)).await;
        let let_in = [&one, &two].iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(let_in, 1, "round {round}: {one:?} {two:?}");
        let refused = one.err().or(two.err()).unwrap();
        assert_eq!(reason(&refused), "invite_invalid");
        assert_eq!(named(&owner, &name).await.len(), 1, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_is_whole_or_not_at_all_whenever_identity_is_killed() {
    let cluster = Arc::new(Cluster::start());
    let owner = owner(&cluster);
    for round in 0..rounds() {
        let key = new_key();
        let ask = || async {
            let (channel, exporter) = bound(&cluster).await;
            let request = asks(&key, &exporter);
            DeviceServiceClient::new(channel).request_pairing(request).await
        };
        let asked = until_answered("asking", ask).await.unwrap();
        let Some(Outcome::Pending(pending)) = asked.outcome else {
            panic!("{asked:?}")
        };
        let name = format!("tablet-{round}");
        let approve = || {
            let request = ApproveRequest {
                request_id: format!("round-{round}"),
                pairing: pending.pairing_id.clone(),
                name: name.clone(),
                ..Default::default()
            };
            let mut client = DeviceServiceClient::new(owner.clone());
            async move { client.approve(request).await }
        };
        let before = cluster.pid_of("identity");
        let killing = kill_after(&cluster, stranger(&cluster), round % 4);
        let _ = tokio::join!(approve(), killing);
        back(&cluster, before);
        let list = || {
            let mut client = DeviceServiceClient::new(owner.clone());
            async move { client.list_requests(ListRequestsRequest {}).await }
        };
        let waiting = until_answered("listing", list).await.unwrap().requests;
        let waits = waiting.iter().any(|one| one.pairing_id == pending.pairing_id);
        let device = named(&owner, &name).await;
        assert_eq!(waits, device.is_empty(), "round {round}: it waits, or it is in");
        // The same request again ends the same way, whatever became of the first.
        let approved = until_answered("approving", approve).await.unwrap();
        assert_eq!(approved.scopes, ["operator.read", "operator.pairing"]);
        let again = until_answered("asking", ask).await.unwrap();
        assert!(matches!(again.outcome, Some(Outcome::Approved(_))), "{again:?}");
        assert_eq!(named(&owner, &name).await.len(), 1);
    }
}

/// Proves a device of the original at the door, again as long as identity is not there to judge it: `hello-ok`, or
/// the details of the refusal.
async fn knock(cluster: &Cluster, device: &door::Device) -> Result<serde_json::Value, String> {
    let edge = cluster.edge().address;
    let until = Instant::now() + PATIENCE;
    loop {
        let mut socket = door::Socket::open(&edge, &cluster.profile.root_cert_file())
            .await
            .unwrap();
        match socket.prove(device).await {
            // A knock now and then, not a flood.
            Err(error) if error["code"] == "UNAVAILABLE" && Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            answer => return answer.map_err(|error| error["details"].to_string()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_tokens_exactly_one_is_good_whenever_identity_is_killed() {
    let cluster = Arc::new(Cluster::start());
    let owner = owner(&cluster);
    let mut device = door::Device::new(7, "operator", &["operator.read"]);
    knock(&cluster, &device).await.unwrap_err();
    let list = || {
        let mut client = DeviceServiceClient::new(owner.clone());
        async move { client.list_requests(ListRequestsRequest {}).await }
    };
    let waiting = until_answered("listing", list).await.unwrap().requests;
    let approve = || {
        let request = ApproveRequest {
            pairing: waiting[0].pairing_id.clone(),
            name: "tablet".into(),
            ..Default::default()
        };
        let mut client = DeviceServiceClient::new(owner.clone());
        async move { client.approve(request).await }
    };
    until_answered("approving", approve).await.unwrap();
    let hello = knock(&cluster, &device).await.unwrap();
    device.token = hello["auth"]["deviceToken"].as_str().map(str::to_owned);
    for round in 0..rounds() {
        let rotate = |id: String| {
            let request = RotateTokenRequest {
                request_id: id,
                device: "tablet".into(),
                ..Default::default()
            };
            let mut client = DeviceServiceClient::new(owner.clone());
            async move { client.rotate_token(request).await }
        };
        let id = format!("round-{round}");
        let before = cluster.pid_of("identity");
        let killing = kill_after(&cluster, stranger(&cluster), round % 4);
        let (first, ()) = tokio::join!(rotate(id.clone()), killing);
        back(&cluster, before);
        let old_is_good = knock(&cluster, &device).await.is_ok();
        let answered = first.ok().map(|answer| answer.into_inner().token);
        assert!(
            answered.is_none() || !old_is_good,
            "round {round}: the answer was given before it was true"
        );
        let token = match answered {
            Some(token) => token,
            None => match until_answered("rotating", || rotate(id.clone())).await {
                Ok(answer) => {
                    assert!(old_is_good, "round {round}: neither was good");
                    answer.token
                }
                // Done, and its token was shown to nobody.
                Err(status) => {
                    assert_eq!((reason(&status).as_str(), old_is_good), ("shown_once", false));
                    let again = format!("{id}-again");
                    until_answered("rotating", || rotate(again.clone()))
                        .await
                        .unwrap()
                        .token
                }
            },
        };
        let refused = knock(&cluster, &device).await.unwrap_err();
        assert!(refused.contains("TOKEN_MISMATCH"), "round {round}: {refused}");
        device.token = Some(token);
        knock(&cluster, &device).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_device_never_gets_in_again_whenever_identity_is_killed() {
    let cluster = Arc::new(Cluster::start());
    let owner = owner(&cluster);
    for round in 0..rounds() {
        let name = format!("script-{round}");
        let dir = cluster.home().parent().unwrap().join(&name);
        let out = dir.to_str().unwrap();
        let cert = [
            "devices",
            "cert",
            "--name",
            &name,
            "--scope",
            "operator.read",
            "--out",
            out,
        ];
        cluster.creel(&cert).ok();
        let address = cluster.edge().address;
        // A new connection each time: whoever is let in is judged afresh.
        let whoami = || {
            let channel = edge::channel(&address, &dir);
            async move { StatusServiceClient::new(channel).who_am_i(WhoAmIRequest {}).await }
        };
        until_answered("asking", whoami).await.unwrap();
        let revoke = || {
            let request = RevokeDeviceRequest {
                request_id: format!("round-{round}"),
                device: name.clone(),
                ..Default::default()
            };
            let mut client = DeviceServiceClient::new(owner.clone());
            async move { client.revoke(request).await }
        };
        let before = cluster.pid_of("identity");
        let killing = kill_after(&cluster, stranger(&cluster), round % 4);
        let (first, ()) = tokio::join!(revoke(), killing);
        back(&cluster, before);
        let seen = until_answered("asking", whoami).await;
        if first.is_ok() {
            assert_eq!(
                seen.as_ref().map_err(reason).unwrap_err(),
                "device_revoked",
                "round {round}: it was answered"
            );
        }
        if let Err(status) = &seen {
            assert_eq!(reason(status), "device_revoked", "round {round}");
        }
        until_answered("revoking", revoke).await.unwrap();
        let refused = until_answered("asking", whoami).await.unwrap_err();
        assert_eq!(reason(&refused), "device_revoked", "round {round}");
    }
}

fn recovery_code(cluster: &Cluster) -> String {
    let said = cluster.said();
    let code = said
        .split_whitespace()
        .find(|word| word.len() == 29 && word.matches('-').count() == 4);
    code.unwrap_or_else(|| panic!("a recovery code: {said}"))
        .to_owned()
}

/// `creel devices recover` of a machine that lost its key, while `kill` is done to identity; then once more. The
/// device that came of it, and whether the first time was answered.
fn recovered(cluster: &Cluster, kill: impl FnOnce() + Send, back: impl FnOnce()) -> (String, bool) {
    let file = cluster.home().parent().unwrap().join("code");
    let file = file.to_str().unwrap();
    let recover = ["devices", "recover", "--code-file", file, "--json"];
    fs::remove_dir_all(cluster.profile.cli_credentials()).unwrap();
    let first = std::thread::scope(|scope| {
        let killing = scope.spawn(kill);
        let first = cluster.creel(&recover);
        killing.join().unwrap();
        first
    });
    back();
    let again = cluster.creel(&recover).json();
    assert_eq!(again["scopes"].as_array().unwrap().len(), 5, "{again}");
    let id = again["deviceId"].as_str().unwrap().to_owned();
    if first.status == 0 {
        let first: serde_json::Value = serde_json::from_str(&first.stdout).unwrap();
        assert_eq!(first["deviceId"], id.as_str(), "the same key, the same device");
    }
    (id, first.status == 0)
}

/// Each device is there once and whole: those that were recovered hold everything.
fn all_whole(cluster: &Cluster, ids: &[String]) {
    let listed = cluster.creel(&["devices", "list", "--json"]).json();
    let listed = listed.as_array().unwrap();
    for id in ids {
        let own: Vec<_> = listed
            .iter()
            .filter(|one| one["deviceId"] == id.as_str())
            .collect();
        assert_eq!(own.len(), 1, "{id}: {listed:?}");
        assert_eq!(own[0]["scopes"].as_array().unwrap().len(), 5, "{id}");
    }
    // The first operator, and one of each recovery.
    assert_eq!(listed.len(), 1 + ids.len(), "{listed:?}");
}

#[test]
fn a_recovery_is_whole_or_not_at_all_whenever_identity_is_killed() {
    let cluster = Cluster::start();
    cluster.creel(&["status"]).ok();
    fs::write(
        cluster.home().parent().unwrap().join("code"),
        recovery_code(&cluster),
    )
    .unwrap();
    let mut ids = Vec::new();
    for round in 0..rounds() {
        let before = cluster.pid_of("identity");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let kill = || runtime.block_on(async { kill_after(&cluster, stranger(&cluster), round % 8).await });
        let (id, _) = recovered(&cluster, kill, || back(&cluster, before));
        ids.push(id);
    }
    all_whole(&cluster, &ids);
}

#[test]
fn an_offline_recovery_is_whole_or_not_at_all_whenever_identity_is_killed() {
    let mut cluster = Cluster::start();
    cluster.creel(&["status"]).ok();
    fs::write(
        cluster.home().parent().unwrap().join("code"),
        recovery_code(&cluster),
    )
    .unwrap();
    assert_eq!(cluster.stop(), 0);
    let socket = cluster.profile.socket(ServiceName::Identity);
    let start = || {
        let child = cluster
            .command("creeld")
            .arg("identity")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("identity listens", PATIENCE, || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        child
    };
    let mut ids = Vec::new();
    for round in 0..rounds() {
        let mut dying = start();
        let mut next = None;
        let pid = dying.id();
        let kill = || {
            // A delay that is work: connections that say nothing.
            for _ in 0..round * 40 {
                let _ = std::os::unix::net::UnixStream::connect(&socket);
            }
            kill9(pid);
        };
        let (id, _) = recovered(&cluster, kill, || {
            dying.wait().unwrap();
            next = Some(start());
        });
        ids.push(id);
        let mut next = next.unwrap();
        signal(next.id(), rustix::process::Signal::TERM);
        next.wait().unwrap();
    }
    cluster.up();
    all_whole(&cluster, &ids);
}
