//! Each limit at its edge, as callers meet it: what is just within passes, what is just beyond is refused.

use std::ops::RangeInclusive;

use creel_proto::{
    identity::v1::{ChallengeRequest, Declaration, RefusedReason as Why, Surface},
    time,
};
use creel_wire::tls::lifetime;

use super::{
    clients::{assertion_of, connected, gateway, operator_client, pending},
    invites::invite,
    pairing::ask,
    *,
};
use crate::{
    ca::{DAY_MS, EDGE_LIFE_MS, SERVICE_LIFE_MS, read_request},
    device::CERT_LIFE_MS,
    proof::tests::{SMALL_ORDER, not_canonical},
};

#[tokio::test]
async fn no_key_of_small_order_and_none_written_another_way_gets_in() {
    let identity = Identity::new().await;
    let client = operator_client(1, false, &["operator.read"]);
    for key in SMALL_ORDER.iter().copied().chain(not_canonical()) {
        let nonce = identity.challenge("c").await;
        let mut request = client.proof("c", &nonce, 0);
        request.public_key = key.to_vec();
        request.device_id.clear();
        assert_eq!(
            identity.refused(request).await,
            Why::PublicKeyInvalid,
            "{key:02x?}"
        );
    }
}

/// With the neutral element as its key, a request carries a signature that anybody can make for it, and that holds.
#[tokio::test]
async fn a_certificate_request_by_a_weak_key_that_holds_is_refused_for_the_key() {
    let identity = Identity::new().await;
    let key = device_key();
    let mut csr_der = request_for(&key).unwrap();
    let raw = key.public_key_raw();
    let at = csr_der.windows(32).position(|window| window == raw).unwrap();
    let neutral = SMALL_ORDER[0];
    csr_der[at..at + 32].copy_from_slice(&neutral);
    let signature = csr_der.len() - 64;
    csr_der[signature..].copy_from_slice(&[neutral, [0; 32]].concat());
    let read = read_request(&csr_der).expect("its signature holds");
    assert!(read.device_key().is_err());
    let request = IssueCertificateRequest {
        csr_der,
        name: "ci".into(),
        scopes: vec!["operator.read".into()],
        ..Default::default()
    };
    let granter = operator(&[Scope::Read, Scope::Pairing].into());
    let issued = identity
        .devices()
        .issue_certificate(as_caller(granter, request))
        .await;
    assert_eq!(reason(issued).unwrap_err(), "invalid_argument");
    assert!(identity.registry.list().is_empty());
}

#[test]
fn a_certificate_request_is_at_most_eight_kibibytes() {
    // Long enough, it is looked at and is none; longer, it is not looked at.
    let said = |bytes: usize| read_request(&vec![0; bytes]).unwrap_err().message;
    assert!(said(8 * 1_024).contains("that holds"));
    for unread in [0, 8 * 1_024 + 1] {
        assert!(said(unread).contains("of 1 to 8192 bytes"));
    }
}

#[tokio::test]
async fn an_originals_signature_is_good_two_minutes_either_way() {
    let identity = Identity::new().await;
    for (n, skew_ms) in (1..).zip([-120_001, -120_000, 120_000, 120_001_i64]) {
        let client = operator_client(n, true, &[]);
        let nonce = identity.challenge("c").await;
        let request = client.proof("c", &nonce, identity.deps.clock.now_ms() + skew_ms);
        if skew_ms.abs() <= 120_000 {
            pending(identity.send(request).await);
        } else {
            assert_eq!(identity.refused(request).await, Why::SignatureExpired);
        }
    }
}

#[tokio::test]
async fn five_of_one_network_wait_and_its_sixth_does_not() {
    let identity = Identity::new().await;
    let sixth = async |address: &dyn Fn(usize) -> String| {
        for n in 0..5 {
            ask(&identity, &device_key(), &address(n), &[]).await.unwrap();
        }
        ask(&identity, &device_key(), &address(5), &[]).await.unwrap_err()
    };
    assert_eq!(sixth(&|n| format!("2001:db8:1:2:{n}::1")).await, "pairing_full");
    ask(&identity, &device_key(), "2001:db8:1:3::1", &[])
        .await
        .unwrap();
    // The same network, however its addresses are written.
    let mapped = |n: usize| match n % 2 {
        0 => format!("203.0.113.{n}"),
        _ => format!("::ffff:203.0.113.{n}"),
    };
    assert_eq!(sixth(&mapped).await, "pairing_full");
    ask(&identity, &device_key(), "203.0.112.255", &[]).await.unwrap();
}

#[tokio::test]
async fn a_device_that_asks_again_waits_once() {
    let identity = Identity::new().await;
    let key = device_key();
    for n in 0..30 {
        ask(&identity, &key, &format!("192.0.{n}.1"), &[]).await.unwrap();
    }
    assert_eq!(identity.pairings.list(NOW).len(), 1);
}

/// Just within both ends, and just beyond.
fn edges(range: &RangeInclusive<i64>) -> [(i64, bool); 4] {
    let (start, end) = (*range.start(), *range.end());
    [(start - 1, false), (start, true), (end, true), (end + 1, false)]
}

#[tokio::test]
async fn lives_that_may_be_chosen_have_two_ends() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    for (n, (life_ms, good)) in edges(&(60_000..=3_600_000)).into_iter().enumerate() {
        let made = invite(&identity, &owner, |request| {
            request.name = format!("phone-{n}");
            request.lifetime = Some(time::duration(life_ms));
        });
        assert_eq!(made.await.is_ok(), good, "an invite of {life_ms} ms");
    }
    assert_eq!(CERT_LIFE_MS, 3_600_000..=800 * DAY_MS);
    for (n, (life_ms, good)) in edges(&CERT_LIFE_MS).into_iter().enumerate() {
        let request = IssueCertificateRequest {
            csr_der: request_for(&device_key()).unwrap(),
            name: format!("ci-{n}"),
            scopes: vec!["operator.read".into()],
            lifetime: Some(time::duration(life_ms)),
            ..Default::default()
        };
        let issued = identity
            .devices()
            .issue_certificate(as_caller(owner.clone(), request))
            .await;
        assert_eq!(reason(issued).is_ok(), good, "a certificate of {life_ms} ms");
    }
}

#[tokio::test]
async fn each_certificate_begins_five_minutes_ago_and_has_the_life_of_its_kind() {
    let identity = Identity::new().await;
    let service = KeyPair::generate().unwrap();
    let issued = |der: &[u8]| lifetime(der).unwrap();
    let of_service = identity
        .authority
        .issue_service(ServiceName::Scheduler, &service, NOW)
        .unwrap();
    let edge = read_request(&request_for(&service).unwrap()).unwrap();
    let of_edge = identity
        .authority
        .issue_edge(&edge, &["localhost".to_owned()], NOW)
        .unwrap();
    let of_device = identity.bootstrap(&device_key(), "laptop").await.unwrap();
    assert_eq!((SERVICE_LIFE_MS, EDGE_LIFE_MS), (24 * 3_600_000, 800 * DAY_MS));
    for (der, life_ms) in [
        (of_service.chain_der[0].as_slice(), SERVICE_LIFE_MS),
        (&of_edge.chain_der[0], EDGE_LIFE_MS),
        (&leaf(&of_device), 90 * DAY_MS),
    ] {
        assert_eq!(issued(der), (NOW - 5 * 60_000, NOW + life_ms));
    }
}

/// To the millisecond, where an assertion is believed again: by identity itself, which makes others of it.
#[tokio::test]
async fn an_assertion_lives_five_minutes_and_what_is_made_of_it_no_longer() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let client = operator_client(1, false, &["operator.read"]);
    let asked = pending(identity.prove(&client).await);
    super::pairing::approve(&identity, &owner, &asked.pairing_id)
        .await
        .unwrap();
    let assertion = connected(identity.prove(&client).await)
        .assertion
        .unwrap()
        .assertion;
    let first = assertion_of(&assertion);
    assert_eq!(first.expires_at_unix_ms - first.issued_at_unix_ms, 300_000);
    let narrow = || {
        let request = AttenuateRequest {
            assertion: assertion.clone(),
            scopes: vec!["operator.read".into()],
        };
        let service = Assertions::new(&identity.deps, &identity.authority, &identity.registry).unwrap();
        async move {
            let caller = service_caller(ServiceName::Gateway);
            reason(service.attenuate(as_caller(caller, request)).await)
        }
    };
    identity.deps.clock.advance(299_999);
    let made = narrow().await.unwrap();
    assert_eq!(
        assertion_of(&made.assertion).expires_at_unix_ms,
        first.expires_at_unix_ms
    );
    identity.deps.clock.advance(1);
    assert_eq!(narrow().await.unwrap_err(), "assertion_expired");
}

#[tokio::test]
async fn names_and_lists_of_a_declaration_are_bounded_where_a_proof_is_judged() {
    let identity = Identity::new().await;
    let words = |n: usize, bytes: usize| (0..n).map(|i| format!("{i:0bytes$}")).collect::<Vec<_>>();
    let with = |change: &dyn Fn(&mut Declaration, &mut Surface)| {
        let mut client = operator_client(1, true, &[]);
        let mut surface = Surface::default();
        change(&mut client.declared, &mut surface);
        client.declared.surface = Some(surface);
        client
    };
    for (most, client) in [
        (
            64,
            &(|n, s: &mut Surface| s.caps = words(n, 64)) as &dyn Fn(usize, &mut Surface),
        ),
        (256, &|n, s: &mut Surface| s.commands = words(n, 64)),
        (64, &|n, s: &mut Surface| {
            s.permissions = words(n, 64).into_iter().map(|name| (name, true)).collect();
        }),
        (64, &|n, s: &mut Surface| s.commands = words(1, n)),
    ] {
        pending(identity.prove(&with(&|_, surface| client(most, surface))).await);
        let over = identity
            .prove(&with(&|_, surface| client(most + 1, surface)))
            .await;
        assert_eq!(super::clients::why(over), Why::DeclarationInvalid);
    }
    for bytes in [64, 65] {
        let outcome = identity
            .prove(&with(&|declared, _| declared.platform = "x".repeat(bytes)))
            .await;
        if bytes == 64 {
            pending(outcome);
        } else {
            assert_eq!(super::clients::why(outcome), Why::DeclarationInvalid);
        }
    }
    // What names a connection, and what is said of a nonce or a token, is not even looked at when it is longer.
    let challenge = |bytes: usize| {
        let request = ChallengeRequest {
            connection_id: "c".repeat(bytes),
            ..ChallengeRequest::default()
        };
        let devices = identity.devices();
        async move { reason(devices.challenge(as_caller(gateway(), request)).await) }
    };
    challenge(128).await.unwrap();
    for bytes in [0, 129] {
        assert_eq!(challenge(bytes).await.unwrap_err(), "invalid_argument");
    }
    for (bytes, expected) in [(256, Why::Unspecified), (257, Why::DeclarationInvalid)] {
        let mut client = operator_client(3, true, &[]);
        client.token = "t".repeat(bytes);
        match expected {
            Why::Unspecified => drop(pending(identity.prove(&client).await)),
            expected => assert_eq!(super::clients::why(identity.prove(&client).await), expected),
        }
    }
}
