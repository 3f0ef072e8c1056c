//! Clients of the edge as a stranger would write them: a certificate, rustls, tonic.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::Arc,
};

use creel_wire::{
    channel::{Dialler, Target},
    tls::{Credentials, edge_client},
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tonic::{Status, transport::Channel};

use crate::Cluster;

/// A channel to the edge with the script certificate in `dir` (`ca.pem cert.pem key.pem`).
#[must_use]
pub fn channel(address: &str, dir: &Path) -> Channel {
    let read = |name: &str| fs::read(dir.join(name)).expect("a file of the certificate");
    let root = root_in(&dir.join("ca.pem"));
    let credentials = Credentials::from_pem(&read("cert.pem"), &read("key.pem")).expect("certificate");
    dialler(address, &root, Some(&credentials)).channel()
}

/// A channel to the edge without a certificate.
#[must_use]
pub fn anonymous_channel(address: &str, ca_pem: &Path) -> Channel {
    dialler(address, &root_in(ca_pem), None).channel()
}

/// A channel over one connection without a certificate, and that connection's exporter.
///
/// # Errors
/// What dialling said.
pub async fn bound_channel(address: &str, ca_pem: &Path) -> Result<(Channel, [u8; 32]), Status> {
    dialler(address, &root_in(ca_pem), None).bound().await
}

fn root_in(ca_pem: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(ca_pem).expect("ca.pem")
}

fn dialler(address: &str, root: &CertificateDer<'static>, credentials: Option<&Credentials>) -> Dialler {
    let config = edge_client(root, credentials).expect("TLS");
    let target = Target::Tcp(address.to_owned());
    Dialler::new(target, "localhost", Arc::new(move || Arc::clone(&config))).expect("a name")
}

/// How many requests of strangers and others were refused for this reason, by the stack's own count.
#[must_use]
pub fn refusals(cluster: &Cluster, reason: &str) -> u64 {
    let mut stream = TcpStream::connect(cluster.edge().admin).expect("the gateway's metrics");
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("asked");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answered");
    let wanted = format!("reason=\"{reason}\"");
    let lines = text
        .lines()
        .filter(|line| line.starts_with("creel_") && line.contains(&wanted));
    let counts = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    counts.sum()
}
