//! Who is let in, by real processes: invites and `creel join`, requests and approvals, what a stranger may
//! call.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests start processes and read the clock; a test that cannot go on fails"
)]

use std::{fs, path::PathBuf};

use creel_kit::cert::pem_chain;
use creel_proto::identity::v1::{
    ChallengeRequest, GetTrustBundleRequest, IssueCertificateResponse, ListDevicesRequest,
    ca_service_client::CaServiceClient, device_service_client::DeviceServiceClient,
    request_pairing_response::Outcome,
};
use creel_tests::{
    Cluster, Output,
    cluster::PATIENCE,
    edge,
    processes::{signal, wait_until},
    strangers::{asks, bound, new_key, reason, stranger},
};
use rcgen::KeyPair;

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
fn an_invite_is_listed_and_withdrawn_and_its_code_is_worth_nothing_then() {
    let cluster = Cluster::start();
    let code = invite(&cluster, "phone");
    let listed = cluster.creel(&["devices", "invites", "--json"]).json();
    assert_eq!(
        (&listed[0]["name"], &listed[0]["role"]),
        (&"phone".into(), &"operator".into())
    );
    let id = listed[0]["inviteId"].as_str().unwrap();
    // A table shows the last part of an id, and it is taken for the whole.
    let short = id.rsplit('-').next().unwrap();
    let shown = cluster.creel(&["devices", "invites"]);
    assert!(shown.ok().contains(short), "{shown:?}");
    for id in [id, short] {
        let tried = cluster.creel(&["devices", "uninvite", id, "--dry-run"]);
        assert!(tried.ok().contains("dry run"), "{tried:?}");
    }
    cluster.creel(&["devices", "uninvite", "phone"]).ok();
    assert_eq!(
        cluster.creel(&["devices", "invites", "--json"]).json(),
        serde_json::json!([])
    );
    assert_eq!(cluster.creel(&["devices", "uninvite", "phone"]).status, 3);
    let phone = Machine::new(&cluster, "phone");
    let refused = phone.creel(&["join", &code, "--json"]);
    assert_eq!(refused.status, 4, "{refused:?}");
    assert!(refused.stderr.contains("invite_invalid"), "{refused:?}");
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
    let (channel, exporter) = bound(&cluster).await;
    let mut bound = DeviceServiceClient::new(channel);
    let asked = bound
        .request_pairing(asks(&key, &exporter))
        .await
        .unwrap()
        .into_inner();
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
    let collected = bound
        .request_pairing(asks(&key, &exporter))
        .await
        .unwrap()
        .into_inner();
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
