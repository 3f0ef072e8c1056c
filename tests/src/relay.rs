//! A server in the middle, over real TLS: a client believes it (it has a certificate of its own authority, which the
//! client is made to trust), and it passes every byte of what is said on to the edge, both ways.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use creel_wire::tls::edge_client;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject as _};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Such a server; it ends when it is dropped.
#[derive(Debug)]
pub struct Relay {
    /// Where it listens.
    pub address: String,
    /// Whom its victims trust.
    pub ca: PathBuf,
    _serving: JoinSet<()>,
}

impl Relay {
    /// One in front of the edge at this address; `dir` gets the certificate.
    pub async fn before(edge: &str, edge_ca: &Path, dir: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let ca = dir.join("relay-ca.pem");
        fs::write(&ca, made.cert.pem()).expect("written");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a configuration");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let root = CertificateDer::from_pem_file(edge_ca).expect("ca.pem");
        let edge = edge.to_owned();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                passing.spawn(pass(acceptor.clone(), tcp, edge.clone(), root.clone()));
            }
        });
        Self {
            address,
            ca,
            _serving: serving,
        }
    }
}

/// One connection, in the protocol that its client chose; who breaks off is followed by the other side.
async fn pass(acceptor: TlsAcceptor, tcp: TcpStream, edge: String, root: CertificateDer<'static>) {
    let Ok(mut near) = acceptor.accept(tcp).await else {
        return;
    };
    let mut config = (*edge_client(&root, None).expect("TLS")).clone();
    config.alpn_protocols = near
        .get_ref()
        .1
        .alpn_protocol()
        .map(<[u8]>::to_vec)
        .into_iter()
        .collect();
    let far = TcpStream::connect(&edge).await.expect("the edge");
    let name = ServerName::try_from("localhost").expect("a name");
    let far = TlsConnector::from(Arc::new(config)).connect(name, far).await;
    let _ = copy_bidirectional(&mut near, &mut far.expect("the edge's TLS")).await;
}
