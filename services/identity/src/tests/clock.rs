//! Clocks that are wrong, machines that slept: what was over stays over, what has an end reaches it, and nobody is
//! locked out.

use creel_proto::identity::v1::RefusedReason as Why;

use super::{
    clients::{operator_client, pending, why},
    devices::{keep_recovery_code, recover},
    invites::{invite, redeem},
    pairing::{ask, requests},
    people::Chat,
    *,
};
use crate::ca::DAY_MS;

const YEAR_MS: i64 = 365 * DAY_MS;
const MINUTE_MS: i64 = 60_000;

fn certificate(answer: &IssueCertificateResponse) -> Subject {
    Subject::Device(DeviceSubject {
        certificate_der: leaf(answer),
        connection_id: "c".into(),
    })
}

/// A year ahead, long enough for somebody to act, and right again: also over a restart, when only what was committed
/// tells how far time was.
#[tokio::test]
async fn a_year_ahead_and_back_locks_nobody_out_and_lets_nothing_live_longer() {
    for restart in [false, true] {
        let mut identity = Identity::new().await;
        let owner = identity.owner().await;
        keep_recovery_code(&identity);
        let lost = device_key();
        let clock = identity.deps.clock.clone();
        clock.advance(YEAR_MS);
        let ahead = invite(&identity, &owner, |_| {}).await.unwrap();
        let code = Chat::new(&identity).code("1").await;
        ask(&identity, &device_key(), "192.0.2.1", &[]).await.unwrap();
        for _ in 0..10 {
            assert_eq!(
                recover(&identity, &lost, "WRONG").await.unwrap_err(),
                "recovery_code_wrong"
            );
        }
        clock.advance(-YEAR_MS);
        if restart {
            identity.restart().await;
        }

        // Certificates and proofs are judged by the clock as it is now.
        let desk = identity.bootstrap(&device_key(), "desk").await.unwrap();
        identity
            .mint(ServiceName::Gateway, certificate(&desk))
            .await
            .unwrap();
        pending(
            identity
                .prove(&operator_client(1, true, &["operator.read"]))
                .await,
        );
        // What was made meanwhile, and what is made now, has its life and no more.
        let now = invite(&identity, &owner, |request| request.name = "tablet".into())
            .await
            .unwrap();
        clock.advance(10 * MINUTE_MS - 1);
        redeem(&identity, &now.secret, &device_key()).await.unwrap();
        clock.advance(1);
        for late in [&ahead.secret, &now.secret] {
            assert_eq!(
                redeem(&identity, late, &device_key()).await.unwrap_err(),
                "invite_invalid",
                "restart: {restart}"
            );
        }
        clock.advance(5 * MINUTE_MS - 1);
        assert_eq!(
            recover(&identity, &lost, "ABCDE-12345").await.unwrap_err(),
            "too_many_guesses"
        );
        clock.advance(1);
        recover(&identity, &lost, "ABCDE-12345").await.unwrap();
        clock.advance(45 * MINUTE_MS - 1);
        assert_eq!(requests(&identity, &owner).await.len(), 2);
        clock.advance(1);
        assert!(requests(&identity, &owner).await.is_empty());
        assert_eq!(
            Chat::new(&identity).approve(&code).await.unwrap_err(),
            "code_unknown",
            "a sender's code ends at an hour"
        );
    }
}

#[tokio::test]
async fn a_step_back_revives_nothing_and_keeps_nobody_out() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let clock = identity.deps.clock.clone();
    let made = invite(&identity, &owner, |_| {}).await.unwrap();
    let code = Chat::new(&identity).code("1").await;
    let client = operator_client(1, false, &["operator.read"]);
    let asked = pending(identity.prove(&client).await);
    let nonce = identity.challenge("c").await;
    clock.advance(60 * MINUTE_MS);
    // All are over, and each was said so: nothing was committed since.
    assert!(requests(&identity, &owner).await.is_empty());
    clock.advance(-60 * MINUTE_MS);
    assert!(requests(&identity, &owner).await.is_empty());
    assert_eq!(
        super::pairing::approve(&identity, &owner, &asked.pairing_id)
            .await
            .unwrap_err(),
        "pairing_gone"
    );
    assert_eq!(
        redeem(&identity, &made.secret, &device_key()).await.unwrap_err(),
        "invite_invalid"
    );
    assert_eq!(
        Chat::new(&identity).approve(&code).await.unwrap_err(),
        "code_unknown"
    );
    assert_eq!(
        why(identity.send(client.proof("c", &nonce, 0)).await),
        Why::NonceMismatch
    );
    // And each can be had anew.
    pending(identity.prove(&client).await);
    let made = invite(&identity, &owner, |_| {}).await.unwrap();
    redeem(&identity, &made.secret, &device_key()).await.unwrap();
    let code = Chat::new(&identity).code("1").await;
    Chat::new(&identity).approve(&code).await.unwrap();
}

/// Timers stand still while a machine sleeps; the clock does not.
#[tokio::test]
async fn after_twenty_five_hours_asleep_and_after_thirty_days_off_everybody_comes_back() {
    for (away_ms, restart) in [(25 * 3_600_000, false), (30 * DAY_MS, true)] {
        let mut identity = Identity::new().await;
        let service_key = KeyPair::generate().unwrap();
        let secret = [7_u8; 32];
        let file = identity.deps.profile.join_dir().join("scheduler");
        fs::write(file, creel_wire::names::hex(&Sha256::digest(secret))).unwrap();
        let request = EnrollRequest {
            service: "scheduler".into(),
            join_secret: secret.to_vec(),
            csr_der: request_for(&service_key).unwrap(),
        };
        reason(identity.ca().enroll(as_caller(nobody(), request)).await).unwrap();
        let key = device_key();
        let laptop = identity.bootstrap(&key, "laptop").await.unwrap();
        let me = caller_of(laptop.device.as_ref().unwrap());
        let made = invite(&identity, &me, |_| {}).await.unwrap();
        identity.deps.clock.advance(away_ms);
        if restart {
            identity.restart().await;
        }
        // The service's certificate is over: the key it was enrolled with gets it another.
        let renew = RenewRequest {
            csr_der: request_for(&service_key).unwrap(),
        };
        let renewed = reason(identity.ca().renew(as_caller(nobody(), renew)).await).unwrap();
        assert_eq!(
            subject_of(&renewed.chain_der[0], &identity.authority.domain),
            Some(Named::Service(ServiceName::Scheduler))
        );
        // The device's is not, and is renewed as ever.
        identity
            .mint(ServiceName::Gateway, certificate(&laptop))
            .await
            .unwrap();
        let renew = RenewCertificateRequest {
            csr_der: request_for(&key).unwrap(),
            ..Default::default()
        };
        reason(identity.devices().renew_certificate(as_caller(me, renew)).await).unwrap();
        assert_eq!(
            redeem(&identity, &made.secret, &device_key()).await.unwrap_err(),
            "invite_invalid"
        );
    }
}
