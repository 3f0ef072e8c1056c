//! Invites: one secret, one device, minutes.

use creel_proto::identity::v1::{
    CreateInviteRequest, CreateInviteResponse, Declaration, Invite, ListInvitesRequest, RedeemInviteRequest,
    RefusedReason, Surface, WithdrawInviteRequest,
};

use super::{
    clients::{connected, forwarded, node_client, operator_client, signed, why},
    *,
};

pub(super) async fn invite(
    identity: &Identity,
    caller: &Caller,
    change: impl FnOnce(&mut CreateInviteRequest),
) -> Result<CreateInviteResponse, String> {
    let mut request = CreateInviteRequest {
        name: "phone".into(),
        ..Default::default()
    };
    change(&mut request);
    reason(
        identity
            .devices()
            .create_invite(as_caller(caller.clone(), request))
            .await,
    )
}

pub(super) async fn redeem(
    identity: &Identity,
    secret: &str,
    key: &KeyPair,
) -> Result<IssueCertificateResponse, String> {
    let declared = Declaration::default();
    let request = RedeemInviteRequest {
        secret: secret.into(),
        csr_der: request_for(key).unwrap(),
        signature: signed(key, &declared, secret),
        declared: Some(declared),
    };
    reason(identity.devices().redeem_invite(forwarded(request)).await)
}

#[tokio::test]
async fn an_invite_lets_one_device_in_within_ten_minutes() {
    let mut identity = Identity::new().await;
    let owner = identity.owner().await;
    let made = invite(&identity, &owner, |_| {}).await.unwrap();
    assert_eq!(made.ca_fingerprint, identity.authority.root_fingerprint());
    let (key, thief) = (device_key(), device_key());
    assert_eq!(
        redeem(&identity, "wrong", &key).await.unwrap_err(),
        "invite_invalid"
    );
    let got = redeem(&identity, &made.secret, &key).await.unwrap();
    let device = got.device.as_ref().unwrap();
    assert_eq!(scopes_of(&got), Scopes::from([Scope::Read, Scope::Write]));
    assert_eq!(
        (device.name.as_str(), device.origin.as_str()),
        ("phone", "invite")
    );
    let raw: [u8; 32] = key.public_key_raw().try_into().unwrap();
    let nonce = device.phrase_nonce.as_slice().try_into().unwrap();
    let phrase = creel_wire::phrase::phrase(&raw, &identity.authority.root_fingerprint(), &nonce);
    assert_eq!(device.phrase, phrase);
    identity.restart().await;
    assert_eq!(
        redeem(&identity, &made.secret, &thief).await.unwrap_err(),
        "invite_invalid"
    );
    let lost = redeem(&identity, &made.secret, &key).await.unwrap();
    assert_eq!(
        lost.device.unwrap().device_id,
        device.device_id,
        "an answer that was lost"
    );
    identity.revoke("phone").await.unwrap();
    assert_eq!(
        redeem(&identity, &made.secret, &key).await.unwrap_err(),
        "device_revoked"
    );

    let made = invite(&identity, &owner, |_| {}).await.unwrap();
    identity.deps.clock.advance(600_000 - 1);
    redeem(&identity, &made.secret, &device_key()).await.unwrap();
    let made = invite(&identity, &owner, |request| request.name = "late".into())
        .await
        .unwrap();
    identity.deps.clock.advance(600_000);
    assert_eq!(
        redeem(&identity, &made.secret, &device_key()).await.unwrap_err(),
        "invite_invalid"
    );
}

#[tokio::test]
async fn racing_for_an_invite_lets_one_in() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let made = invite(&identity, &owner, |_| {}).await.unwrap();
    let keys: Vec<_> = (0..8).map(|_| device_key()).collect();
    let racing = keys.iter().map(|key| redeem(&identity, &made.secret, key));
    let outcomes = futures_util::future::join_all(racing).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert_eq!(identity.registry.list().len(), 2);
}

#[tokio::test]
async fn an_invite_gives_no_more_than_its_maker_has_when_it_is_made_and_when_it_is_used() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let made = identity
        .issue(
            owner.clone(),
            &device_key(),
            "desk",
            &["operator.read", "operator.pairing"],
        )
        .await
        .unwrap();
    let desk = caller_of(made.device.as_ref().unwrap());
    let wide = invite(&identity, &desk, |request| {
        request.scopes = vec!["operator.admin".into()]
    })
    .await;
    assert_eq!(wide.unwrap_err(), "scope_not_held");
    let node = invite(&identity, &desk, |request| {
        request.role = Role::Node.into();
        request.commands = vec!["system.run".into()];
    });
    assert_eq!(node.await.unwrap_err(), "scope_not_held");
    let read = |request: &mut CreateInviteRequest| request.scopes = vec!["operator.read".into()];
    let made = invite(&identity, &desk, read).await.unwrap();
    identity.revoke("desk").await.unwrap();
    assert_eq!(
        redeem(&identity, &made.secret, &device_key()).await.unwrap_err(),
        "invite_invalid",
        "its maker is out, and so is its invite"
    );
    for bad in [59_999, 3_600_001] {
        let long = invite(&identity, &owner, |request| {
            request.lifetime = Some(creel_proto::time::duration(bad));
        });
        assert_eq!(long.await.unwrap_err(), "invalid_argument");
    }
}

#[tokio::test]
async fn a_repeated_request_makes_no_second_invite_and_shows_no_secret_again() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let named = |request: &mut CreateInviteRequest| request.request_id = "r1".into();
    let made = invite(&identity, &owner, named).await.unwrap();
    assert_eq!(invite(&identity, &owner, named).await.unwrap_err(), "shown_once");
    let kept = identity
        .deps
        .store
        .scan_all(crate::store::Kind::Invite.range(), 10)
        .await
        .unwrap();
    assert_eq!(kept.entries.len(), 1);
    let everything = identity
        .deps
        .store
        .scan_all(creel_store::KeyRange::prefix(b""), 1_000)
        .await
        .unwrap();
    let shown = |bytes: &[u8]| {
        bytes
            .windows(made.secret.len())
            .any(|w| w == made.secret.as_bytes())
    };
    assert!(
        !everything.entries.iter().any(|entry| shown(&entry.value)),
        "only its hash is kept"
    );
}

#[tokio::test]
async fn open_invites_are_bounded_and_make_room_when_they_end() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    for _ in 0..50 {
        invite(&identity, &owner, |_| {}).await.unwrap();
    }
    assert_eq!(
        invite(&identity, &owner, |_| {}).await.unwrap_err(),
        "too_many_invites"
    );
    identity.deps.clock.advance(600_000);
    invite(&identity, &owner, |_| {}).await.unwrap();
}

#[tokio::test]
async fn a_client_of_the_original_redeems_an_invite_by_its_proof() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let made = invite(&identity, &owner, |request| {
        request.role = Role::Node.into();
        request.commands = vec!["camera.snap".into(), "system.run".into()];
    })
    .await
    .unwrap();
    let mut operator = operator_client(3, true, &["operator.read"]);
    operator.invite.clone_from(&made.secret);
    assert_eq!(
        why(identity.prove(&operator).await),
        RefusedReason::InviteInvalid,
        "another role's"
    );
    let mut node = node_client(4, &["camera.snap", "clipboard.read"]);
    node.invite.clone_from(&made.secret);
    let on = connected(identity.prove(&node).await);
    assert_eq!(
        on.surface.unwrap(),
        Surface {
            commands: vec!["camera.snap".into()],
            ..Surface::default()
        }
    );
    assert_eq!(on.new_token.len(), 43);
    assert!(on.upgrade.is_some(), "the other command waits");
    let mut second = node_client(5, &["camera.snap"]);
    second.invite = made.secret;
    assert_eq!(why(identity.prove(&second).await), RefusedReason::InviteInvalid);
}

async fn open_invites(identity: &Identity, caller: &Caller) -> Vec<Invite> {
    let request = as_caller(caller.clone(), ListInvitesRequest {});
    reason(identity.devices().list_invites(request).await)
        .unwrap()
        .invites
}

async fn withdraw(
    identity: &Identity,
    caller: &Caller,
    change: impl FnOnce(&mut WithdrawInviteRequest),
) -> Result<Invite, String> {
    let mut request = WithdrawInviteRequest {
        invite: "phone".into(),
        ..Default::default()
    };
    change(&mut request);
    let request = as_caller(caller.clone(), request);
    reason(identity.devices().withdraw_invite(request).await)
}

#[tokio::test]
async fn a_withdrawn_invite_lets_nobody_in_and_that_is_on_record() {
    let mut identity = Identity::new().await;
    let owner = identity.owner().await;
    let made = invite(&identity, &owner, |_| {}).await.unwrap();
    let tried = withdraw(&identity, &owner, |request| request.validate_only = true).await;
    assert_eq!(tried.unwrap().invite_id, made.invite_id);
    assert_eq!(open_invites(&identity, &owner).await.len(), 1, "a dry run");

    let once = |request: &mut WithdrawInviteRequest| request.request_id = "once".into();
    let withdrawn = withdraw(&identity, &owner, once).await.unwrap();
    assert_eq!(
        (withdrawn.name.as_str(), withdrawn.role()),
        ("phone", Role::Operator)
    );
    assert_eq!(open_invites(&identity, &owner).await, []);
    identity.restart().await;
    assert_eq!(
        redeem(&identity, &made.secret, &device_key()).await.unwrap_err(),
        "invite_invalid"
    );
    assert_eq!(
        withdraw(&identity, &owner, once).await.unwrap(),
        withdrawn,
        "repeated"
    );
    assert_eq!(
        withdraw(&identity, &owner, |_| {}).await.unwrap_err(),
        "not_found"
    );
    let everything = identity
        .deps
        .store
        .scan_all(creel_store::KeyRange::prefix(b""), 1_000)
        .await
        .unwrap();
    let said = |text: &str| {
        let records = everything.entries.iter();
        records
            .filter(|entry| {
                entry
                    .value
                    .windows(text.len())
                    .any(|part| part == text.as_bytes())
            })
            .count()
    };
    assert_eq!(said("invite.withdrawn"), 1, "once, with its change");
}

#[tokio::test]
async fn only_open_invites_are_listed_and_only_one_at_a_time_is_withdrawn() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let used = invite(&identity, &owner, |_| {}).await.unwrap();
    redeem(&identity, &used.secret, &device_key()).await.unwrap();
    assert_eq!(
        withdraw(&identity, &owner, |_| {}).await.unwrap_err(),
        "not_found",
        "it was used"
    );
    let named = |name: &'static str| move |request: &mut CreateInviteRequest| request.name = name.into();
    let first = invite(&identity, &owner, named("tablet")).await.unwrap();
    identity.deps.clock.advance(1);
    let second = invite(&identity, &owner, named("tablet")).await.unwrap();
    let listed = open_invites(&identity, &owner).await;
    assert_eq!(
        listed.iter().map(|one| &one.invite_id).collect::<Vec<_>>(),
        [&first.invite_id, &second.invite_id],
        "the first to end first"
    );
    let tablet = |request: &mut WithdrawInviteRequest| request.invite = "tablet".into();
    assert_eq!(
        withdraw(&identity, &owner, tablet).await.unwrap_err(),
        "invalid_argument",
        "which one?"
    );
    let by_id = second.invite_id.clone();
    withdraw(&identity, &owner, |request| request.invite = by_id)
        .await
        .unwrap();
    redeem(&identity, &first.secret, &device_key()).await.unwrap();
    let late = invite(&identity, &owner, named("late")).await.unwrap();
    identity.deps.clock.advance(600_000 - 1);
    assert_eq!(open_invites(&identity, &owner).await.len(), 1);
    identity.deps.clock.advance(1);
    assert_eq!(open_invites(&identity, &owner).await, []);
    let by_id = late.invite_id;
    assert_eq!(
        withdraw(&identity, &owner, |request| request.invite = by_id)
            .await
            .unwrap_err(),
        "not_found",
        "over by itself"
    );
}
