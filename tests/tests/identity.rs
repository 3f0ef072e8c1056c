//! Who is let in, by real processes: invites and `creel join`, requests and approvals, what a stranger may
//! call, and `kill -9` of identity between any two steps.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests start processes and read the clock; a test that cannot go on fails"
)]

use std::{fs, path::PathBuf, sync::Arc};

use creel_kit::cert::{pem_chain, request_for};
use creel_proto::identity::v1::{
    ApproveRequest, ChallengeRequest, CreateInviteRequest, Declaration, Device, GetTrustBundleRequest,
    IssueCertificateResponse, ListDevicesRequest, ListRequestsRequest, RedeemInviteRequest,
    RequestPairingRequest, ca_service_client::CaServiceClient, device_service_client::DeviceServiceClient,
    request_pairing_response::Outcome,
};
use creel_tests::{
    Cluster, Output,
    cluster::PATIENCE,
    edge,
    processes::{kill9, signal, wait_until},
};
use creel_wire::{Code, Error};
use rcgen::{KeyPair, PKCS_ED25519};
use tonic::{Status, transport::Channel};

/// Another machine: a home of its own.
struct Machine<'a> {
    cluster: &'a Cluster,
    home: PathBuf,
}

impl<'a> Machine<'a> {
    fn new(cluster: &'a Cluster, name: &str) -> Self {
        let home = cluster.home().parent().unwrap().join(name);
        fs::create_dir(&home).unwrap();
        Self { cluster, home }
    }

    fn creel(&self, arguments: &[&str]) -> Output {
        let mut command = self.cluster.command("creel");
        self.cluster
            .run(command.env("CREEL_HOME", &self.home).args(arguments))
    }
}

fn invite(cluster: &Cluster, name: &str) -> String {
    let made = cluster
        .creel(&["devices", "invite", "--name", name, "--json"])
        .json();
    made["code"].as_str().unwrap().to_owned()
}

fn stranger(cluster: &Cluster) -> Channel {
    edge::anonymous_channel(&cluster.edge().address, &cluster.profile.root_cert_file())
}

fn reason(status: &Status) -> String {
    Error::of_status(status).reason.into_owned()
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).unwrap()
}

fn asks(key: &KeyPair) -> RequestPairingRequest {
    RequestPairingRequest {
        csr_der: request_for(key).unwrap(),
        declared: Some(Declaration {
            display_name: "tablet".into(),
            scopes: vec!["operator.read".into(), "operator.pairing".into()],
            ..Default::default()
        }),
    }
}

#[test]
fn a_machine_joins_by_invite_shows_the_same_words_and_is_cut_off_on_revoke() {
    let cluster = Cluster::start();
    let code = invite(&cluster, "phone");
    let phone = Machine::new(&cluster, "phone");
    // A code for another stack: this one is not believed, and the secret does not travel.
    let mut forged = code.clone();
    let at = "creel1-".len();
    let other = if forged[at..].starts_with('A') { "B" } else { "A" };
    forged.replace_range(at..=at, other);
    let refused = phone.creel(&["join", &forged]);
    assert_eq!(refused.status, 4, "{refused:?}");
    assert!(
        refused.stderr.contains("not the stack that made this code"),
        "{refused:?}"
    );

    let joined = phone.creel(&["join", &code, "--json"]).json();
    assert_eq!(joined["inUse"], true, "the first stack it knows");
    let listed = cluster.creel(&["devices", "list", "--json"]).json();
    let device = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "phone")
        .unwrap();
    assert_eq!(device["phrase"], joined["phrase"]);
    assert_eq!(device["origin"], "invite");
    assert_eq!(joined["phrase"].as_str().unwrap().split(' ').count(), 6);
    phone.creel(&["send", "hello from the phone"]).ok();
    let whoami = phone.creel(&["whoami", "--json"]).json();
    assert_eq!(whoami["name"], "phone");
    assert!(phone.creel(&["contexts"]).ok().contains(" *"));

    let thief = Machine::new(&cluster, "thief");
    let again = thief.creel(&["join", &code, "--json"]);
    assert_eq!(again.status, 4, "{again:?}");
    assert!(again.stderr.contains("invite_invalid"), "{again:?}");
    assert!(
        !thief.home.join("contexts/127.0.0.1").exists(),
        "nothing is left of it"
    );

    cluster.creel(&["devices", "revoke", "phone", "--yes"]).ok();
    let out = phone.creel(&["whoami", "--json"]);
    assert_eq!(out.status, 4, "{out:?}");
    assert!(out.stderr.contains("device_revoked"), "{out:?}");
    // Its own machine's stack, of which there is none.
    phone.creel(&["use", "local"]).ok();
    assert_eq!(phone.creel(&["whoami"]).status, 5);
    assert_eq!(phone.creel(&["use", "nowhere"]).status, 3);
}

#[test]
fn a_machine_is_recovered_while_the_stack_is_down_by_identity_alone() {
    let mut cluster = Cluster::start();
    let said = cluster.said();
    let code = said
        .split_whitespace()
        .find(|word| word.len() == 29 && word.matches('-').count() == 4)
        .unwrap_or_else(|| panic!("a recovery code: {said}"))
        .to_owned();
    cluster.creel(&["status"]).ok();
    assert_eq!(cluster.stop(), 0);
    let file = cluster.home().parent().unwrap().join("code");
    fs::write(&file, &code).unwrap();
    // Its key is lost with its machine: a new one begins with nothing.
    fs::remove_dir_all(cluster.profile.cli_credentials()).unwrap();
    let recover = [
        "devices",
        "recover",
        "--code-file",
        file.to_str().unwrap(),
        "--json",
    ];
    let down = cluster.creel(&recover);
    assert_eq!(down.status, 5, "{down:?}");
    assert!(down.stderr.contains("creeld identity"), "{down:?}");
    let mut identity = cluster
        .command("creeld")
        .arg("identity")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let socket = cluster.profile.socket(creel_wire::ServiceName::Identity);
    wait_until("identity listens", PATIENCE, || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    });
    let recovered = cluster.creel(&recover).json();
    assert_eq!(recovered["scopes"].as_array().unwrap().len(), 5, "{recovered}");
    signal(identity.id(), rustix::process::Signal::TERM);
    identity.wait().unwrap();
    cluster.up();
    cluster.creel(&["devices", "list"]).ok();
}

#[test]
fn a_chat_sender_is_shown_a_code_let_in_by_it_and_answered_in_its_own_session() {
    let cluster = Cluster::start();
    let first = cluster.creel(&["send", "--as", "telegram:7", "hello", "--json"]);
    assert_eq!(first.status, 7, "{first:?}");
    let shown: serde_json::Value = serde_json::from_str(&first.stdout).unwrap();
    let code = shown["code"].as_str().unwrap();
    let again = cluster.creel(&["send", "--as", "telegram:7", "hello"]);
    assert_eq!((again.status, again.stdout.as_str()), (7, ""), "{again:?}");
    let sessions = cluster.creel(&["sessions", "list"]);
    assert!(
        !sessions.ok().contains("telegram"),
        "nothing of it was processed: {sessions:?}"
    );
    assert_eq!(
        cluster
            .creel(&["pairing", "approve", "telegram", "AAAAAAAA"])
            .status,
        3
    );
    cluster
        .creel(&["pairing", "approve", "telegram", &code.to_lowercase()])
        .ok();
    let answered = cluster.creel(&["send", "--as", "telegram:7", "hello"]);
    assert!(answered.ok().contains("hello"), "{answered:?}");
    let sessions = cluster.creel(&["sessions", "list"]);
    assert!(
        sessions.ok().contains("agent:default:telegram:default:dm:7"),
        "{sessions:?}"
    );
    cluster.creel(&["people", "add", "anna"]).ok();
    cluster.creel(&["people", "link", "anna", "telegram:7"]).ok();
    let linked = cluster
        .creel(&["send", "--as", "telegram:7", "me again", "--json"])
        .json();
    assert!(linked["session"].as_str().unwrap().contains("anna"), "{linked}");
    let listed = cluster.creel(&["pairing", "list", "--json"]).json();
    assert_eq!(
        (&listed[0]["sender"], &listed[0]["person"]),
        (&"telegram:7".into(), &"anna".into())
    );
    cluster.creel(&["people", "unlink", "anna", "telegram:7"]).ok();
    cluster.creel(&["pairing", "remove", "telegram", "7"]).ok();
    assert_eq!(
        cluster.creel(&["send", "--as", "telegram:7", "hello"]).status,
        7,
        "a new code"
    );
}

#[tokio::test]
async fn without_a_certificate_only_the_ways_to_prove_oneself_answer_and_slowly() {
    let cluster = Cluster::start();
    cluster.creel(&["status"]).ok();
    let channel = stranger(&cluster);
    let mut devices = DeviceServiceClient::new(channel.clone());
    let hint = devices
        .list_devices(ListDevicesRequest::default())
        .await
        .unwrap_err();
    assert_eq!(reason(&hint), "no_client_certificate");
    assert!(hint.message().contains("creel devices cert"), "{hint:?}");
    let closed = devices.challenge(ChallengeRequest::default()).await.unwrap_err();
    assert_eq!(reason(&closed), "no_client_certificate", "for the gateway alone");
    let mut ca = CaServiceClient::new(channel.clone());
    ca.get_trust_bundle(GetTrustBundleRequest {}).await.unwrap();

    let key = new_key();
    let asked = devices.request_pairing(asks(&key)).await.unwrap().into_inner();
    let Some(Outcome::Pending(pending)) = asked.outcome else {
        panic!("{asked:?}")
    };
    let requests = cluster.creel(&["devices", "requests", "--json"]).json();
    assert_eq!(requests[0]["phrase"], pending.phrase.as_str());
    assert_eq!(requests[0]["remoteAddress"], "127.0.0.1");
    cluster
        .creel(&[
            "devices",
            "approve",
            &pending.phrase,
            "--scope",
            "operator.read",
            "--name",
            "tablet",
        ])
        .ok();
    let collected = devices.request_pairing(asks(&key)).await.unwrap().into_inner();
    let Some(Outcome::Approved(approved)) = collected.outcome else {
        panic!("{collected:?}")
    };
    let device = approved.device.clone().unwrap();
    assert_eq!(
        device.scopes,
        ["operator.read"],
        "of what it asked for, what was chosen"
    );
    let certified = edge::channel(
        &cluster.edge().address,
        &files(&cluster, "tablet", &key, &approved),
    );
    let mut certified = DeviceServiceClient::new(certified);
    let missing = certified
        .list_devices(ListDevicesRequest::default())
        .await
        .unwrap_err();
    assert_eq!(reason(&missing), "scope_missing");

    let mut slowed = None;
    for _ in 0..1_000 {
        if let Err(status) = ca.get_trust_bundle(GetTrustBundleRequest {}).await {
            slowed = Some(status);
            break;
        }
    }
    let slowed = slowed.expect("a burst of strangers is slowed down");
    assert_eq!(
        (reason(&slowed).as_str(), slowed.code()),
        ("slow_down", tonic::Code::ResourceExhausted)
    );
    cluster.creel(&["status"]).ok();
}

/// A device's files, as `devices cert` would have written them.
fn files(cluster: &Cluster, name: &str, key: &KeyPair, got: &IssueCertificateResponse) -> PathBuf {
    let dir = cluster.home().parent().unwrap().join(format!("{name}-files"));
    fs::create_dir_all(&dir).unwrap();
    let issued = got.certificate.as_ref().unwrap();
    fs::write(dir.join("cert.pem"), pem_chain(&issued.chain_der)).unwrap();
    fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    let root = &issued.bundle.as_ref().unwrap().root_der;
    fs::write(dir.join("ca.pem"), pem_chain(&[root])).unwrap();
    dir
}

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
        let redeem = |key: &KeyPair| {
            let request = RedeemInviteRequest {
                secret: made.secret.clone(),
                csr_der: request_for(key).unwrap(),
                declared: None,
            };
            let mut client = DeviceServiceClient::new(stranger(&cluster));
            async move { client.redeem_invite(request).await }
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
        let ask = || {
            let mut client = DeviceServiceClient::new(stranger(&cluster));
            let request = asks(&key);
            async move { client.request_pairing(request).await }
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
