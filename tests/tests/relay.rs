//! A server in the middle against real processes: by Creel's own protocol it gains nothing, whatever it passes on;
//! by the original's it passes, which is why those devices let nobody in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

use creel_proto::identity::v1::{
    CreateInviteRequest, device_service_client::DeviceServiceClient, request_pairing_response::Outcome,
};
use creel_tests::{
    bed::{Bed, runtime},
    door::{Device, Socket},
    edge::{bound_channel, refusals},
    relay::Relay,
    strangers::{asks, bound, new_key, reason, redeems},
};
use creel_wire::proof;
use serde_json::Value;
use tonic::{Request, metadata::MetadataValue, transport::Channel};

async fn relay(bed: &Bed) -> Relay {
    Relay::before(&bed.address, &bed.ca, bed.cluster.home()).await
}

/// What a device hears that takes the relay for the edge.
async fn relayed(relay: &Relay, device: &Device) -> Result<Value, Value> {
    let mut socket = Socket::open(&relay.address, &relay.ca).await.unwrap();
    socket.prove(device).await
}

/// A channel of a victim that takes the relay for the edge, and what it signs for.
async fn victim(relay: &Relay) -> (DeviceServiceClient<Channel>, [u8; 32]) {
    let (channel, exporter) = bound_channel(&relay.address, &relay.ca).await.unwrap();
    (DeviceServiceClient::new(channel), exporter)
}

/// All that identity stored of devices.
fn stored(bed: &Bed) -> [Value; 2] {
    ["list", "requests"].map(|what| bed.cluster.creel(&["devices", what, "--json"]).json())
}

#[test]
fn a_proof_at_the_door_that_another_server_relays_is_refused_counted_and_leaves_nothing() {
    let bed = Bed::new();
    runtime().block_on(async {
        let relay = relay(&bed).await;
        let mut device = Device::new(1, "operator", &["operator.read", "operator.pairing"]).own();
        // Unknown: by the relay it can't even ask to be let in.
        let before = stored(&bed);
        let refused = relayed(&relay, &device).await.unwrap_err();
        assert_eq!(
            refused["details"]["code"], "DEVICE_AUTH_SIGNATURE_INVALID",
            "{refused}"
        );
        assert_eq!(stored(&bed), before, "nothing stored before a valid proof");
        assert_eq!(refusals(&bed.cluster, "signature_invalid"), 1);

        // Let in: the relay is not, however often it tries.
        drop(bed.paired(&mut device).await);
        let before = stored(&bed);
        let mut codes = Vec::new();
        for _ in 0..10 {
            let refused = relayed(&relay, &device).await.unwrap_err();
            codes.push(refused["details"]["code"].as_str().unwrap().to_owned());
        }
        assert_eq!(codes[0], "DEVICE_AUTH_SIGNATURE_INVALID");
        assert_eq!(codes[9], "AUTH_RATE_LIMITED", "{codes:?}");
        assert_eq!(stored(&bed), before);
        let counted =
            refusals(&bed.cluster, "signature_invalid") + refusals(&bed.cluster, "too_many_failures");
        assert_eq!(counted, 11);
        // The device itself is not shut out by it.
        bed.open().await.prove(&device).await.unwrap();
    });
}

#[test]
fn a_wish_by_grpc_that_another_server_relays_is_refused_counted_and_leaves_nothing() {
    let bed = Bed::new();
    runtime().block_on(async {
        let relay = relay(&bed).await;
        let key = new_key();
        let before = stored(&bed);
        let (mut client, exporter) = victim(&relay).await;
        let refused = client.request_pairing(asks(&key, &exporter)).await.unwrap_err();
        assert_eq!(reason(&refused), "signature_invalid", "{refused:?}");
        assert_eq!(stored(&bed), before);
        // A relay that says by which connection the victim came is not asked.
        let (channel, _) = bound(&bed.cluster).await;
        let mut request = Request::new(asks(&key, &exporter));
        let named = MetadataValue::from_bytes(&exporter);
        request.metadata_mut().insert_bin(proof::METADATA, named);
        let refused = DeviceServiceClient::new(channel).request_pairing(request).await;
        assert_eq!(reason(&refused.unwrap_err()), "signature_invalid");
        assert_eq!(stored(&bed), before);
        assert_eq!(refusals(&bed.cluster, "signature_invalid"), 2);
        // Without the relay the device asks, and the wish is good for its own connection alone.
        let (channel, exporter) = bound(&bed.cluster).await;
        let wish = asks(&key, &exporter);
        let asked = DeviceServiceClient::new(channel)
            .request_pairing(wish.clone())
            .await;
        let outcome = asked.unwrap().into_inner().outcome;
        assert!(matches!(outcome, Some(Outcome::Pending(_))), "{outcome:?}");
        let (channel, _) = bound(&bed.cluster).await;
        let again = DeviceServiceClient::new(channel).request_pairing(wish).await;
        assert_eq!(reason(&again.unwrap_err()), "signature_invalid");
    });
}

#[test]
fn an_invite_that_another_server_relays_stays_unused() {
    let bed = Bed::new();
    runtime().block_on(async {
        let relay = relay(&bed).await;
        let invite = async |name: &str| {
            let request = CreateInviteRequest {
                name: name.into(),
                ..Default::default()
            };
            bed.devices().create_invite(request).await.unwrap().into_inner()
        };
        let (made, other) = (invite("phone").await, invite("tablet").await);
        let invites = || bed.cluster.creel(&["devices", "invites", "--json"]).json();
        let before = (stored(&bed), invites());
        let key = new_key();
        let (mut client, exporter) = victim(&relay).await;
        let refused = client.redeem_invite(redeems(&key, &made.secret, &exporter)).await;
        let refused = refused.unwrap_err();
        assert_eq!(reason(&refused), "signature_invalid", "{refused:?}");
        // Nor does a wish that nobody signed. (A relay that was told the secret could use it for itself: that it
        // is told to the stack of the code alone is `creel join`'s part, and tested in identity.rs.)
        let mut unsigned = redeems(&new_key(), &made.secret, &exporter);
        unsigned.signature.clear();
        let refused = client.redeem_invite(unsigned).await.unwrap_err();
        assert_eq!(reason(&refused), "signature_invalid", "{refused:?}");
        let mut tablet = Device::new(3, "operator", &["operator.read"]).own();
        tablet.invite = Some(other.secret);
        let refused = relayed(&relay, &tablet).await.unwrap_err();
        assert_eq!(
            refused["details"]["code"], "DEVICE_AUTH_SIGNATURE_INVALID",
            "{refused}"
        );
        assert_eq!((stored(&bed), invites()), before);
        assert_eq!(refusals(&bed.cluster, "signature_invalid"), 3);
        bed.open().await.prove(&tablet).await.unwrap();
        let (channel, exporter) = bound(&bed.cluster).await;
        let wish = redeems(&key, &made.secret, &exporter);
        let joined = DeviceServiceClient::new(channel)
            .redeem_invite(wish)
            .await
            .unwrap();
        assert_eq!(joined.into_inner().device.unwrap().name, "phone");
        assert_eq!(invites(), serde_json::json!([]));
    });
}

/// The known difference: what the original's clients sign is bound to no connection.
#[test]
fn the_same_relay_passes_for_a_client_of_the_original_which_lets_nobody_in() {
    let bed = Bed::new();
    runtime().block_on(async {
        let relay = relay(&bed).await;
        let device = Device::new(2, "operator", &["operator.read", "operator.pairing"]);
        let asked = relayed(&relay, &device).await.unwrap_err();
        assert_eq!(asked["details"]["code"], "PAIRING_REQUIRED", "{asked}");
        bed.approve(asked["details"]["requestId"].as_str().unwrap()).await;
        let hello = relayed(&relay, &device).await.unwrap();
        assert_eq!(
            hello["auth"]["scopes"],
            serde_json::json!(["operator.read"]),
            "{hello}"
        );
    });
}
