//! Strangers who send anything at all.

use creel_proto::identity::v1::{
    Declaration, LegacyProof, OwnProof, ProveRequest, RedeemInviteRequest, RefusedReason as Why,
    prove_request::Protocol,
};

use super::{clients::forwarded, *};

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    /// Whatever bytes a stranger sends: one typed answer, never a panic, and nothing stored.
    #[test]
    fn nonsense_is_refused_and_leaves_nothing_behind(
        key in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40),
        signature in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..70),
        text in "\\PC{0,80}",
        role in -2..4_i32,
        own in proptest::prelude::any::<bool>(),
        at in proptest::prelude::any::<i64>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let identity = Identity::new().await;
            let nonce = identity.challenge("c").await;
            let protocol = if own {
                Protocol::Own(OwnProof { tls_exporter: key.clone() })
            } else {
                Protocol::Legacy(LegacyProof { signed_at_unix_ms: at })
            };
            let request = ProveRequest {
                connection_id: "c".into(),
                remote_address: text.clone(),
                public_key: key.clone(),
                signature: signature.clone(),
                device_id: text.clone(),
                nonce,
                declared: Some(Declaration {
                    display_name: text.clone(),
                    role,
                    scopes: vec![text.clone()],
                    platform: text.clone(),
                    ..Declaration::default()
                }),
                protocol: Some(protocol),
                token: text.clone(),
                invite: text.clone(),
            };
            assert_ne!(identity.refused(request).await, Why::Unspecified);
            let stranger = RedeemInviteRequest {
                secret: text.clone(),
                csr_der: signature.clone(),
                declared: None,
                signature,
            };
            let redeemed = identity.devices().redeem_invite(forwarded(stranger)).await;
            assert!(reason(redeemed).is_err());
            assert!(identity.registry.list().is_empty());
            assert!(identity.pairings.list(identity.deps.clock.now_ms()).is_empty());
        });
    }
}
