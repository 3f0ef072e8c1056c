//! Devices that ask to be let in, and operators who decide.

use creel_proto::identity::v1::{
    ApproveRequest, Declaration, DeviceEventKind, ListRequestsRequest, PairingReason, PairingRequest,
    RejectRequest, RequestPairingRequest, RequestPairingResponse, WatchDevicesRequest,
    request_pairing_response::Outcome as Asked,
};
use creel_wire::{accept::Connection, caller::Peer};

use super::{
    clients::{EXPORTER, connected, forwarded, gateway, node_client, operator_client, pending, signed, why},
    *,
};

/// Approves all that was asked for.
pub(super) async fn approve(identity: &Identity, caller: &Caller, pairing: &str) -> Result<Device, String> {
    let request = ApproveRequest {
        pairing: pairing.into(),
        ..Default::default()
    };
    reason(
        identity
            .devices()
            .approve(as_caller(caller.clone(), request))
            .await,
    )
}

pub(super) async fn requests(identity: &Identity, caller: &Caller) -> Vec<PairingRequest> {
    let request = as_caller(caller.clone(), ListRequestsRequest {});
    reason(identity.devices().list_requests(request).await)
        .unwrap()
        .requests
}

/// What a device asks for by gRPC.
fn wish(key: &KeyPair, scopes: &[&str]) -> RequestPairingRequest {
    let declared = Declaration {
        display_name: "phone".into(),
        scopes: scopes.iter().map(|s| (*s).to_owned()).collect(),
        ..Default::default()
    };
    RequestPairingRequest {
        csr_der: request_for(key).unwrap(),
        signature: signed(key, &declared, ""),
        declared: Some(declared),
    }
}

/// Asks by gRPC, from an address as the gateway tells it.
pub(super) async fn ask(
    identity: &Identity,
    key: &KeyPair,
    address: &str,
    scopes: &[&str],
) -> Result<Asked, String> {
    let mut request = forwarded(wish(key, scopes));
    let value = address.parse().unwrap();
    request.metadata_mut().insert(creel_wire::source::METADATA, value);
    let answer: RequestPairingResponse = reason(identity.devices().request_pairing(request).await)?;
    Ok(answer.outcome.unwrap())
}

#[tokio::test]
async fn a_device_without_a_certificate_asks_waits_and_collects_it_once() {
    let mut identity = Identity::new().await;
    let owner = identity.owner().await;
    let key = device_key();
    let Asked::Pending(first) = ask(&identity, &key, "192.0.2.1", &["operator.read"])
        .await
        .unwrap()
    else {
        panic!("pending")
    };
    identity.restart().await;
    let Asked::Pending(again) = ask(&identity, &key, "192.0.2.1", &["operator.read"])
        .await
        .unwrap()
    else {
        panic!("pending")
    };
    assert_eq!(first, again, "the same request, after a restart too");
    let list = requests(&identity, &owner).await;
    assert_eq!(list.len(), 1);
    assert_eq!(
        (list[0].remote_address.as_str(), list[0].phrase.as_str()),
        ("192.0.2.1", first.phrase.as_str())
    );
    // By its phrase, as it is read out over a telephone.
    let device = approve(&identity, &owner, &first.phrase.to_uppercase())
        .await
        .unwrap();
    assert_eq!(
        (device.name.as_str(), device.origin.as_str()),
        ("phone", "request")
    );
    assert!(device.certificate_expires_at.is_none());
    assert!(requests(&identity, &owner).await.is_empty());
    let Asked::Approved(got) = ask(&identity, &key, "192.0.2.1", &[]).await.unwrap() else {
        panic!("approved")
    };
    let subject = Subject::Device(DeviceSubject {
        certificate_der: leaf(&got),
        connection_id: "c".into(),
    });
    assert_eq!(
        identity.mint(ServiceName::Gateway, subject).await.unwrap().scopes,
        ["operator.read"]
    );
    assert!(matches!(
        ask(&identity, &key, "192.0.2.1", &[]).await.unwrap(),
        Asked::Approved(_)
    ));
    identity.deps.clock.advance(3_600_000);
    assert_eq!(
        ask(&identity, &key, "192.0.2.1", &[]).await.unwrap_err(),
        "already_paired"
    );
    identity.revoke("phone").await.unwrap();
    assert_eq!(
        ask(&identity, &key, "192.0.2.1", &[]).await.unwrap_err(),
        "device_revoked"
    );
}

#[tokio::test]
async fn a_wish_is_good_as_it_was_signed_and_on_the_connection_it_was_signed_for() {
    let identity = Identity::new().await;
    let key = device_key();
    let good = wish(&key, &["operator.read"]);
    let ask = async |request| reason(identity.devices().request_pairing(request).await).map(drop);
    let before = identity.deps.store.latest_rev().await;
    let changed = |change: fn(&mut RequestPairingRequest)| {
        let mut wish = good.clone();
        change(&mut wish);
        forwarded(wish)
    };
    for request in [
        changed(|wish| wish.signature.clear()),
        changed(|wish| wish.signature[0] ^= 1),
        changed(|wish| wish.declared = None),
        changed(|wish| {
            wish.declared
                .as_mut()
                .unwrap()
                .scopes
                .push("operator.admin".into())
        }),
        changed(|wish| wish.declared.as_mut().unwrap().role = Role::Node.into()),
        changed(|wish| wish.csr_der = request_for(&device_key()).unwrap()),
    ] {
        assert_eq!(ask(request).await.unwrap_err(), "signature_invalid");
    }
    let mut elsewhere = forwarded(good.clone());
    let other = tonic::metadata::MetadataValue::from_bytes(&[6; 32]);
    elsewhere
        .metadata_mut()
        .insert_bin(creel_wire::proof::METADATA, other);
    assert_eq!(ask(elsewhere).await.unwrap_err(), "signature_invalid");
    // A gateway that says nothing, and a stranger whose word for it is not asked.
    let unsaid = as_caller(gateway(), good.clone());
    assert_eq!(ask(unsaid).await.unwrap_err(), "channel_binding_missing");
    let mut stranger = forwarded(good.clone());
    stranger.extensions_mut().insert(nobody());
    assert_eq!(ask(stranger).await.unwrap_err(), "channel_binding_missing");
    assert_eq!(
        identity.deps.store.latest_rev().await,
        before,
        "nothing was stored"
    );
    let shown = identity.deps.metrics.encode().unwrap();
    assert!(shown.contains("signature_invalid") && shown.contains("channel_binding_missing"));

    // Ten bad ones within a minute are told from one; the good one is let in all the same.
    for _ in 0..10 {
        let _ = ask(changed(|wish| wish.signature.clear())).await;
    }
    let many = ask(changed(|wish| wish.signature.clear())).await;
    assert_eq!(many.unwrap_err(), "too_many_failures");
    ask(forwarded(good.clone())).await.unwrap();
    // Who comes to identity itself is on the connection that identity sees.
    let mut direct = as_caller(nobody(), good);
    direct.extensions_mut().insert(Arc::new(Connection {
        id: 1,
        peer: Peer::Anonymous,
        certificate: None,
        exporter: EXPORTER,
        remote: None,
        close: CancellationToken::new(),
    }));
    ask(direct).await.unwrap();
}

#[tokio::test]
async fn strangers_fill_their_own_quota_and_no_other() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    for n in 0..5 {
        let address = format!("198.51.100.{n}");
        ask(&identity, &device_key(), &address, &["operator.read"])
            .await
            .unwrap();
    }
    let refused = ask(
        &identity,
        &device_key(),
        "::ffff:198.51.100.77",
        &["operator.read"],
    )
    .await;
    assert_eq!(
        refused.unwrap_err(),
        "pairing_full",
        "mapped IPv6 is the same network"
    );
    for n in 5..20 {
        let address = format!("2001:db8:0:{n}::1");
        ask(&identity, &device_key(), &address, &["operator.read"])
            .await
            .unwrap();
    }
    let refused = ask(&identity, &device_key(), "203.0.113.1", &["operator.read"]).await;
    assert_eq!(refused.unwrap_err(), "pairing_full");
    assert_eq!(
        why(identity.prove(&operator_client(1, true, &[])).await),
        creel_proto::identity::v1::RefusedReason::PairingFull
    );
    // Operators' own ways stay open.
    identity.bootstrap(&device_key(), "desk").await.unwrap();
    identity
        .issue(owner.clone(), &device_key(), "ci", &["operator.read"])
        .await
        .unwrap();
    identity.deps.clock.advance(3_600_000 - 1);
    assert_eq!(requests(&identity, &owner).await.len(), 20);
    identity.deps.clock.advance(1);
    assert!(requests(&identity, &owner).await.is_empty(), "expired at an hour");
    ask(&identity, &device_key(), "203.0.113.1", &["operator.read"])
        .await
        .unwrap();
    let left = identity
        .deps
        .store
        .scan_all(crate::store::Kind::Pairing.range(), 100)
        .await
        .unwrap();
    assert_eq!(left.entries.len(), 1, "what is over is removed");
}

#[tokio::test]
async fn a_request_is_decided_once_in_time_and_for_what_was_seen() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let key = device_key();
    let Asked::Pending(asked) = ask(&identity, &key, "192.0.2.1", &["operator.read"])
        .await
        .unwrap()
    else {
        panic!("pending")
    };
    let seen = requests(&identity, &owner).await.remove(0);
    // It asks for more while somebody looks at it.
    ask(&identity, &key, "192.0.2.1", &["operator.read", "operator.admin"])
        .await
        .unwrap();
    let stale = ApproveRequest {
        pairing: asked.pairing_id.clone(),
        if_match: seen.etag,
        ..Default::default()
    };
    assert_eq!(
        reason(identity.devices().approve(as_caller(owner.clone(), stale)).await).unwrap_err(),
        "etag_mismatch"
    );
    let both = futures_util::future::join(
        approve(&identity, &owner, &asked.pairing_id),
        approve(&identity, &owner, &asked.pairing_id),
    )
    .await;
    let outcomes = [both.0.map(drop), both.1.map(drop)];
    assert!(
        outcomes.contains(&Ok(())) && outcomes.contains(&Err("pairing_gone".into())),
        "{outcomes:?}"
    );

    let late = device_key();
    let Asked::Pending(asked) = ask(&identity, &late, "192.0.2.1", &["operator.read"])
        .await
        .unwrap()
    else {
        panic!("pending")
    };
    identity.deps.clock.advance(1_800_000);
    ask(&identity, &late, "192.0.2.1", &["operator.read"])
        .await
        .unwrap();
    identity.deps.clock.advance(1_800_000);
    assert_eq!(
        approve(&identity, &owner, &asked.pairing_id).await.unwrap_err(),
        "pairing_gone"
    );
    let Asked::Pending(asked) = ask(&identity, &late, "192.0.2.1", &["operator.read"])
        .await
        .unwrap()
    else {
        panic!("pending")
    };
    let reject = RejectRequest {
        pairing: asked.pairing_id.clone(),
        ..Default::default()
    };
    reason(identity.devices().reject(as_caller(owner.clone(), reject)).await).unwrap();
    assert_eq!(
        approve(&identity, &owner, &asked.pairing_id).await.unwrap_err(),
        "pairing_gone"
    );
}

#[tokio::test]
async fn an_approver_gives_what_was_asked_chosen_and_is_its_own() {
    let identity = Identity::new().await;
    identity.owner().await;
    let all = ["operator.read", "operator.write", "operator.admin"];
    let approver = operator(&[Scope::Read, Scope::Write, Scope::Pairing].into());
    let Asked::Pending(one) = ask(&identity, &device_key(), "192.0.2.1", &all).await.unwrap() else {
        panic!("pending")
    };
    let choose = ApproveRequest {
        pairing: one.pairing_id,
        scopes: vec![
            "operator.read".into(),
            "operator.admin".into(),
            "operator.pairing".into(),
        ],
        ..Default::default()
    };
    let dry = ApproveRequest {
        validate_only: true,
        ..choose.clone()
    };
    let would = reason(identity.devices().approve(as_caller(approver.clone(), dry)).await).unwrap();
    let did = reason(
        identity
            .devices()
            .approve(as_caller(approver.clone(), choose))
            .await,
    )
    .unwrap();
    assert_eq!(
        (would.scopes, did.scopes),
        (vec!["operator.read".to_owned()], vec!["operator.read".to_owned()])
    );
    let Asked::Pending(two) = ask(&identity, &device_key(), "192.0.2.1", &["operator.admin"])
        .await
        .unwrap()
    else {
        panic!("pending")
    };
    assert_eq!(
        approve(&identity, &approver, &two.pairing_id).await.unwrap_err(),
        "nothing_to_grant"
    );
    let other = ApproveRequest {
        pairing: two.pairing_id,
        person: "anna".into(),
        ..Default::default()
    };
    let full = operator(&Scope::ALL.iter().copied().collect());
    let none = reason(identity.devices().approve(as_caller(full, other.clone())).await);
    assert_eq!(none.unwrap_err(), "not_found");
    let pairing_alone = operator(&[Scope::Admin, Scope::Pairing].into());
    let none = reason(identity.devices().approve(as_caller(pairing_alone, other)).await);
    assert_eq!(
        none.unwrap_err(),
        "not_found",
        "administrators may, if there is such a person"
    );
}

#[tokio::test]
async fn a_nodes_commands_need_their_scope_and_more_of_them_wait_while_the_old_stay() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let writer = operator(&[Scope::Write, Scope::Pairing].into());
    let mut node = node_client(7, &["camera.snap", "system.run"]);
    let asked = pending(identity.prove(&node).await);
    assert_eq!(
        approve(&identity, &writer, &asked.pairing_id).await.unwrap_err(),
        "scope_not_held"
    );
    let fewer = ApproveRequest {
        pairing: asked.pairing_id.clone(),
        commands: vec!["camera.snap".into()],
        ..Default::default()
    };
    let device = reason(identity.devices().approve(as_caller(writer.clone(), fewer)).await).unwrap();
    assert_eq!((device.role(), device.scopes.len()), (Role::Node, 0));
    assert_eq!(device.surface.unwrap().commands, ["camera.snap"]);

    let on = connected(identity.prove(&node).await);
    assert_eq!(
        on.surface.unwrap().commands,
        ["camera.snap"],
        "the old surface stays"
    );
    let upgrade = on.upgrade.unwrap();
    assert_eq!(upgrade.reason(), PairingReason::SurfaceUpgrade);
    assert_eq!(assertion_kind(&on.assertion.unwrap().assertion), "node");
    let shown = requests(&identity, &owner).await.remove(0);
    assert_eq!(shown.held_surface.unwrap().commands, ["camera.snap"]);
    node.token = on.new_token;
    assert_eq!(
        approve(&identity, &writer, &upgrade.pairing_id)
            .await
            .unwrap_err(),
        "scope_not_held"
    );
    let upgraded = approve(&identity, &owner, &upgrade.pairing_id).await.unwrap();
    assert_eq!(upgraded.epoch, 2, "its connections close");
    let on = connected(identity.prove(&node).await);
    assert_eq!(on.surface.unwrap().commands, ["camera.snap", "system.run"]);
    assert!(on.upgrade.is_none());
    // It declares less: it offers less.
    node.declared.surface.as_mut().unwrap().commands = vec!["system.run".into()];
    assert_eq!(
        connected(identity.prove(&node).await).surface.unwrap().commands,
        ["system.run"]
    );
}

fn assertion_kind(bytes: &[u8]) -> &'static str {
    match super::clients::assertion_of(bytes).kind() {
        creel_proto::identity::v1::SubjectKind::Node => "node",
        _ => "other",
    }
}

#[tokio::test]
async fn whoever_watches_sees_what_waits_and_each_decision() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let first = pending(
        identity
            .prove(&operator_client(1, true, &["operator.read"]))
            .await,
    );
    let mut watch = reason(
        identity
            .devices()
            .watch(as_caller(owner.clone(), WatchDevicesRequest {}))
            .await,
    )
    .unwrap();
    let mut next = async || watch.next().await.unwrap().unwrap();
    let waiting = next().await;
    assert_eq!(waiting.kind(), DeviceEventKind::Requested);
    assert_eq!(waiting.request.unwrap().pairing_id, first.pairing_id);
    assert_eq!(next().await.kind(), DeviceEventKind::Ready);
    approve(&identity, &owner, &first.pairing_id).await.unwrap();
    assert_eq!(next().await.kind(), DeviceEventKind::Changed);
    let approved = next().await;
    assert_eq!(approved.kind(), DeviceEventKind::Approved);
    assert_eq!(approved.device.unwrap().scopes, ["operator.read"]);
    pending(
        identity
            .prove(&operator_client(2, true, &["operator.read"]))
            .await,
    );
    assert_eq!(next().await.kind(), DeviceEventKind::Requested);
    identity.deps.clock.advance(3_600_000);
    let writer = identity.registry.write().await;
    assert_eq!(
        identity
            .pairings
            .sweep(&writer, identity.deps.clock.now_ms())
            .await
            .unwrap(),
        1
    );
    assert_eq!(next().await.kind(), DeviceEventKind::Expired);
}
