//! Those who are not in yet, as a stranger would write them: no certificate, a key, a wish.

use creel_kit::cert::request_for;
use creel_proto::identity::v1::{Declaration, RequestPairingRequest};
use creel_wire::Error;
use rcgen::{KeyPair, PKCS_ED25519};
use tonic::{Status, transport::Channel};

use crate::{Cluster, edge};

/// A channel to the edge without a certificate.
#[must_use]
pub fn stranger(cluster: &Cluster) -> Channel {
    edge::anonymous_channel(&cluster.edge().address, &cluster.profile.root_cert_file())
}

/// The stable reason of a refusal.
#[must_use]
pub fn reason(status: &Status) -> String {
    Error::of_status(status).reason.into_owned()
}

#[must_use]
pub fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).expect("a key")
}

/// What such a device asks for.
#[must_use]
pub fn asks(key: &KeyPair) -> RequestPairingRequest {
    RequestPairingRequest {
        csr_der: request_for(key).expect("a key"),
        declared: Some(Declaration {
            display_name: "tablet".into(),
            scopes: vec!["operator.read".into(), "operator.pairing".into()],
            ..Default::default()
        }),
    }
}
