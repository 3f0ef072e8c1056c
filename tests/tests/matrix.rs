//! Who may call what: every method × every kind of principal, as one table that a change must change.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fmt::Write as _, fs, path::Path};

use creel_proto::METHODS;
use creel_wire::{
    Caller, DeviceId, Principal, Scope, Scopes, ServiceName,
    authz::{decide, test_caller},
    caller::LocalPeer,
};

fn principals() -> Vec<(String, Caller)> {
    let device = || DeviceId::of_public_key(&[1; 32]);
    let plain = |principal| test_caller(principal, Scopes::new(), None);
    let mut all = vec![
        ("anonymous".to_owned(), plain(Principal::Anonymous)),
        (
            "local".to_owned(),
            plain(Principal::Local(LocalPeer { pid: 1, uid: 1 })),
        ),
        (
            "operator without scopes".to_owned(),
            plain(Principal::Operator(device())),
        ),
    ];
    for scope in Scope::ALL {
        let caller = test_caller(
            Principal::Operator(device()),
            [*scope].into(),
            Some(ServiceName::Gateway),
        );
        all.push((scope.to_string(), caller));
    }
    // A node with all scopes is still a node.
    let everything: Scopes = Scope::ALL.iter().copied().collect();
    all.push((
        "node".to_owned(),
        test_caller(Principal::Node(device()), everything.clone(), None),
    ));
    for service in ServiceName::ALL {
        all.push((format!("service {service}"), plain(Principal::Service(*service))));
    }
    for (name, principal) in [
        ("agent turn", Principal::AgentTurn("t".into())),
        ("job", Principal::Job("j".into())),
        ("plugin", Principal::Plugin("p".into())),
        ("sender", Principal::Sender("s".into())),
    ] {
        all.push((name.to_owned(), test_caller(principal, everything.clone(), None)));
    }
    all
}

#[test]
fn the_matrix_is_as_it_was_agreed() {
    let mut table = String::new();
    let health = "/grpc.health.v1.Health/Check";
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let paths = METHODS
        .iter()
        .map(|method| (method.path, method.edge))
        .chain([(health, true), (reflection, true)]);
    for (path, edge) in paths {
        let edge = if edge { " (edge)" } else { "" };
        writeln!(table, "{path}{edge}").unwrap();
        for (name, caller) in principals() {
            if decide(path, &caller).is_ok() {
                writeln!(table, "    {name}").unwrap();
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/matrix.txt");
    if std::env::var_os("CREEL_UPDATE").is_some() {
        fs::write(&path, &table).unwrap();
    }
    let agreed = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        table, agreed,
        "who may call what has changed: if it should, CREEL_UPDATE=1 writes the new table"
    );
}

#[test]
fn no_agent_job_plugin_or_sender_reaches_policy_pairing_or_the_local_socket() {
    for method in METHODS {
        let guarded = [
            "Identity",
            "identity",
            "LocalService",
            "DeviceService",
            "CaService",
            "AssertionService",
            "GrantAgent",
        ];
        if !guarded.iter().any(|word| method.path.contains(word)) {
            continue;
        }
        for (name, caller) in principals() {
            if ["agent turn", "job", "plugin", "sender"].contains(&name.as_str()) {
                let open = method.rules.contains(&creel_proto::Admits::Anonymous);
                assert_eq!(
                    decide(method.path, &caller).is_ok(),
                    open,
                    "{name} {}",
                    method.path
                );
            }
        }
    }
}
