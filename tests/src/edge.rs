//! Clients of the edge as a stranger would write them: a certificate, rustls, tonic.

use std::{fs, path::Path, sync::Arc};

use creel_wire::{
    channel::{Dialler, Target},
    tls::{Credentials, edge_client},
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tonic::transport::Channel;

/// A channel to the edge with the script certificate in `dir` (`ca.pem cert.pem key.pem`).
#[must_use]
pub fn channel(address: &str, dir: &Path) -> Channel {
    let read = |name: &str| fs::read(dir.join(name)).expect("a file of the certificate");
    let root = CertificateDer::from_pem_slice(&read("ca.pem")).expect("ca.pem");
    let credentials = Credentials::from_pem(&read("cert.pem"), &read("key.pem")).expect("certificate");
    dial(address, &root, Some(&credentials))
}

/// A channel to the edge without a certificate.
#[must_use]
pub fn anonymous_channel(address: &str, ca_pem: &Path) -> Channel {
    let root = CertificateDer::from_pem_slice(&fs::read(ca_pem).expect("ca.pem")).expect("ca.pem");
    dial(address, &root, None)
}

fn dial(address: &str, root: &CertificateDer<'static>, credentials: Option<&Credentials>) -> Channel {
    let config = edge_client(root, credentials).expect("TLS");
    let target = Target::Tcp(address.to_owned());
    Dialler::new(target, "localhost", Arc::new(move || Arc::clone(&config)))
        .expect("a name")
        .channel()
}
