//! A server in the middle, over real TLS: a client believes it (it has a certificate of its own authority), and it
//! passes challenge and proof on to the stack it wants to get into. What an edge would do is the few lines of
//! [`serve`]: nobody asks the client what its connection's exporter is, each end takes it from its own TLS.

use creel_proto::identity::v1::{
    OwnProof, ProveRequest, ProveResponse, RefusedReason as Why, prove_request::Protocol,
    prove_response::Outcome,
};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream, server};

use super::{
    clients::{Client, connected, operator_client, pending, why},
    *,
};

const NAME: &str = "localhost";
const CONNECTION: &str = "edge-1";

/// A server's certificate of an authority of its own, and what a client needs to believe it.
struct Server {
    accept: TlsAcceptor,
    connect: TlsConnector,
}

impl Server {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let certificate: CertificateDer<'static> = made.cert.der().clone();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            accept: TlsAcceptor::from(Arc::new(config)),
            connect: TlsConnector::from(Arc::new(client)),
        }
    }

    /// Both ends of a connection to it.
    async fn connection(&self) -> (TlsStream<DuplexStream>, server::TlsStream<DuplexStream>) {
        let (near, far) = duplex(64 << 10);
        let name = ServerName::try_from(NAME).unwrap();
        let (client, server) = tokio::join!(self.connect.connect(name, near), self.accept.accept(far));
        (client.unwrap(), server.unwrap())
    }
}

/// RFC 9266.
const LABEL: &[u8] = b"EXPORTER-Channel-Binding";

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    stream
        .write_u32(u32::try_from(bytes.len()).unwrap())
        .await
        .unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = vec![0; stream.read_u32().await.unwrap() as usize];
    stream.read_exact(&mut bytes).await.unwrap();
    bytes
}

/// The stack's end: a nonce, then a proof, judged with the exporter of this very connection.
async fn serve(identity: &Identity, mut stream: server::TlsStream<DuplexStream>) {
    let exporter = stream
        .get_ref()
        .1
        .export_keying_material([0; 32], LABEL, None)
        .unwrap();
    write(&mut stream, identity.challenge(CONNECTION).await.as_bytes()).await;
    let mut request = ProveRequest::decode(read(&mut stream).await.as_slice()).unwrap();
    if let Some(Protocol::Own(own)) = &mut request.protocol {
        own.tls_exporter = exporter.to_vec();
    }
    let outcome = identity.send(request).await;
    let answer = ProveResponse {
        outcome: Some(outcome),
    };
    write(&mut stream, &answer.encode_to_vec()).await;
}

/// The client's end.
async fn knock(client: &Client, now: i64, mut stream: TlsStream<DuplexStream>) -> ProveResponse {
    let exporter = stream
        .get_ref()
        .1
        .export_keying_material([0; 32], LABEL, None)
        .unwrap();
    let nonce = String::from_utf8(read(&mut stream).await).unwrap();
    let mut proof = client.proof_over(&exporter, CONNECTION, &nonce, now);
    if let Some(Protocol::Own(own)) = &mut proof.protocol {
        *own = OwnProof::default();
    }
    write(&mut stream, &proof.encode_to_vec()).await;
    ProveResponse::decode(read(&mut stream).await.as_slice()).unwrap()
}

async fn direct(identity: &Identity, client: &Client) -> Outcome {
    let (near, far) = Server::new().connection().await;
    let now = identity.deps.clock.now_ms();
    let (answer, ()) = tokio::join!(knock(client, now, near), serve(identity, far));
    answer.outcome.unwrap()
}

async fn relayed(identity: &Identity, client: &Client) -> Outcome {
    let (near, mut middle) = Server::new().connection().await;
    let (mut onward, far) = Server::new().connection().await;
    let now = identity.deps.clock.now_ms();
    let pass = async {
        // Every byte, both ways; it ends when either end is done, which may be without a farewell.
        let _ = tokio::io::copy_bidirectional(&mut middle, &mut onward).await;
    };
    let (answer, (), ()) = tokio::join!(knock(client, now, near), serve(identity, far), pass);
    answer.outcome.unwrap()
}

#[tokio::test]
async fn a_proof_that_another_server_relays_is_refused_counted_and_leaves_nothing() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let client = operator_client(1, false, &["operator.read"]);
    // Unknown: by the relay it can't even ask to be let in.
    let before = identity.deps.store.latest_rev().await;
    assert_eq!(why(relayed(&identity, &client).await), Why::SignatureInvalid);
    assert_eq!(
        identity.deps.store.latest_rev().await,
        before,
        "nothing stored before a valid proof"
    );
    let asked = pending(direct(&identity, &client).await);
    super::pairing::approve(&identity, &owner, &asked.pairing_id)
        .await
        .unwrap();
    connected(direct(&identity, &client).await);

    // Let in: the relay is not, however often it tries, and it is counted.
    let before = identity.deps.store.latest_rev().await;
    let mut reasons = Vec::new();
    for _ in 0..11 {
        reasons.push(why(relayed(&identity, &client).await));
    }
    assert_eq!(reasons[0], Why::SignatureInvalid);
    assert_eq!(reasons[10], Why::TooManyFailures);
    assert_eq!(identity.deps.store.latest_rev().await, before);
    let shown = identity.deps.metrics.encode().unwrap();
    assert!(
        shown.contains("signature_invalid") && shown.contains("too_many_failures"),
        "{shown}"
    );
    // The device itself is not shut out by it.
    connected(direct(&identity, &client).await);
}

/// What the relay can do with the original's payloads, which are bound to no connection: the reason why its devices
/// hold nothing that lets others in, and that the test above tests something.
#[tokio::test]
async fn the_same_relay_passes_for_a_client_of_the_original() {
    let identity = Identity::new().await;
    let owner = identity.owner().await;
    let client = operator_client(2, true, &["operator.read", "operator.admin"]);
    let asked = pending(relayed(&identity, &client).await);
    let device = super::pairing::approve(&identity, &owner, &asked.pairing_id)
        .await
        .unwrap();
    assert_eq!(device.scopes, ["operator.read", "operator.write"], "no admin");
    connected(relayed(&identity, &client).await);
}
