//! TLS state of a process: its certificate, whom it trusts, and the configurations made of both,
//! swapped as one when a certificate is renewed. TLS 1.3 only, one provider, no session tickets.

use std::sync::Arc;

use arc_swap::ArcSwap;
use creel_proto::identity::v1::TrustBundle;
use ed25519_dalek::VerifyingKey;
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime, pem::PemObject as _,
};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::{
    Secret, TrustDomain,
    assertion::VerifierKey,
    names::{SpiffeId, Subject},
};

/// Why TLS material was refused.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key that can't be read.
    #[error("{what} can't be read: {why}")]
    Unreadable {
        /// Which part.
        what: &'static str,
        /// What the parser said.
        why: String,
    },
    /// rustls refused the combination.
    #[error("the certificate can't be used")]
    Rustls(#[from] rustls::Error),
    /// The roots can't make a verifier.
    #[error("the trusted certificates can't be used")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

fn unreadable(what: &'static str, why: impl ToString) -> TlsError {
    TlsError::Unreadable {
        what,
        why: why.to_string(),
    }
}

/// A certificate chain, leaf first, and its private key.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Leaf, then intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8, DER.
    pub key: Secret<Vec<u8>>,
}

impl Credentials {
    /// Reads `cert.pem` and `key.pem` contents.
    ///
    /// # Errors
    /// [`TlsError::Unreadable`] naming the part.
    pub fn from_pem(cert: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = CertificateDer::pem_slice_iter(cert)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| unreadable("the certificate", error))?;
        if chain.is_empty() {
            return Err(unreadable("the certificate", "no certificate inside"));
        }
        let key =
            PrivatePkcs8KeyDer::from_pem_slice(key).map_err(|error| unreadable("the private key", error))?;
        Ok(Self {
            chain,
            key: Secret::new(key.secret_pkcs8_der().to_vec()),
        })
    }

    /// When the leaf ends, Unix milliseconds.
    ///
    /// # Errors
    /// [`TlsError::Unreadable`] when the leaf can't be parsed.
    pub fn not_after_unix_ms(&self) -> Result<i64, TlsError> {
        let leaf = self
            .chain
            .first()
            .ok_or_else(|| unreadable("the certificate", "empty chain"))?;
        Ok(lifetime(leaf)?.1)
    }

    fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.expose().clone()))
    }
}

/// Start and end of a certificate, Unix milliseconds.
///
/// # Errors
/// [`TlsError::Unreadable`].
pub fn lifetime(der: &[u8]) -> Result<(i64, i64), TlsError> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|error| unreadable("the certificate", error))?;
    let validity = cert.validity();
    Ok((
        validity.not_before.timestamp() * 1_000,
        validity.not_after.timestamp() * 1_000,
    ))
}

/// Whom a leaf names: exactly one URI SAN, a SPIFFE id of this trust domain.
#[must_use]
pub fn subject_of(der: &[u8], domain: &TrustDomain) -> Option<Subject> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let names = cert.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (first, second) = (uris.next()?, uris.next());
    let id: SpiffeId = first.parse().ok()?;
    (second.is_none() && id.domain == *domain).then_some(id.subject)
}

/// The SubjectPublicKeyInfo of a certificate, DER.
///
/// # Errors
/// [`TlsError::Unreadable`].
pub fn public_key_der(der: &[u8]) -> Result<Vec<u8>, TlsError> {
    let (_, cert) = X509Certificate::from_der(der).map_err(|error| unreadable("the certificate", error))?;
    Ok(cert.public_key().raw.to_vec())
}

/// Whom and what this process trusts. Made of a [`TrustBundle`].
#[derive(Debug, Clone)]
pub struct Trust {
    /// The stack.
    pub domain: TrustDomain,
    /// Signs the intermediates and nothing else.
    pub root: CertificateDer<'static>,
    /// What service ports trust.
    pub service_issuers: Vec<CertificateDer<'static>>,
    /// What the edge trusts.
    pub device_issuers: Vec<CertificateDer<'static>>,
    /// Keys that sign assertions.
    pub assertion_keys: Vec<VerifierKey>,
}

impl TryFrom<&TrustBundle> for Trust {
    type Error = TlsError;

    fn try_from(bundle: &TrustBundle) -> Result<Self, TlsError> {
        let domain = TrustDomain::of_root(&bundle.root_der);
        if domain.as_str() != bundle.trust_domain {
            return Err(unreadable(
                "the trust bundle",
                "its trust domain is not that of its root",
            ));
        }
        let assertion_keys = bundle
            .assertion_keys
            .iter()
            .map(|one| {
                let raw: &[u8; 32] = one
                    .public_key
                    .as_slice()
                    .try_into()
                    .map_err(|_| unreadable("an assertion key", "not 32 bytes"))?;
                let key =
                    VerifyingKey::from_bytes(raw).map_err(|error| unreadable("an assertion key", error))?;
                Ok(VerifierKey {
                    key_id: one.key_id.clone(),
                    key,
                })
            })
            .collect::<Result<_, TlsError>>()?;
        let owned = |list: &[Vec<u8>]| list.iter().map(|der| CertificateDer::from(der.clone())).collect();
        Ok(Self {
            domain,
            root: CertificateDer::from(bundle.root_der.clone()),
            service_issuers: owned(&bundle.service_issuers_der),
            device_issuers: owned(&bundle.device_issuers_der),
            assertion_keys,
        })
    }
}

/// How a listener treats clients without a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// No handshake without a service certificate.
    Required,
    /// They get in as anonymous: identity, whose first RPCs must not need one.
    Optional,
}

#[derive(Debug)]
struct State {
    trust: Arc<Trust>,
    credentials: Option<Credentials>,
    client: Arc<ClientConfig>,
    anonymous: Arc<ClientConfig>,
    server_required: Option<Arc<ServerConfig>>,
    server_optional: Option<Arc<ServerConfig>>,
}

/// The TLS state of a process. Readers take what is current; a renewal swaps all of it.
#[derive(Debug)]
pub struct Tls {
    state: ArcSwap<State>,
}

impl Tls {
    /// TLS with what this process trusts, and its certificate if it has one yet.
    ///
    /// # Errors
    /// [`TlsError`] when certificate, key and trust don't make a configuration.
    pub fn new(trust: Trust, credentials: Option<Credentials>) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(Self {
            state: ArcSwap::from_pointee(state(Arc::new(trust), credentials)?),
        }))
    }

    /// Replaces the certificate and, if given, whom to trust. New connections use them; old ones go on.
    ///
    /// # Errors
    /// [`TlsError`]; then nothing has changed.
    pub fn replace(&self, trust: Option<Trust>, credentials: Credentials) -> Result<(), TlsError> {
        let trust = trust.map_or_else(|| self.trust(), Arc::new);
        self.state.store(Arc::new(state(trust, Some(credentials))?));
        Ok(())
    }

    /// Whom this process trusts.
    #[must_use]
    pub fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.state.load().trust)
    }

    /// The present certificate.
    #[must_use]
    pub fn credentials(&self) -> Option<Credentials> {
        self.state.load().credentials.clone()
    }

    /// For dialling services, with this process's certificate if it has one.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.state.load().client)
    }

    /// For dialling identity without a certificate.
    #[must_use]
    pub fn anonymous_client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.state.load().anonymous)
    }

    /// For a service port; absent while this process has no certificate.
    #[must_use]
    pub fn server(&self, clients: ClientAuth) -> Option<Arc<ServerConfig>> {
        let state = self.state.load();
        match clients {
            ClientAuth::Required => state.server_required.clone(),
            ClientAuth::Optional => state.server_optional.clone(),
        }
    }
}

/// The provider everything uses.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// With AES-128 before the others. Its SHA-256 is made in hardware where the SHA-384 of AES-256 is not, and a
/// handshake hashes far more than it encrypts; clients of the original ask for AES-256 first.
fn light_first(provider: Arc<CryptoProvider>) -> CryptoProvider {
    let mut provider = Arc::unwrap_or_clone(provider);
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// A server configuration for the edge: its own certificate, devices as clients or nobody.
///
/// # Errors
/// [`TlsError`] when the parts don't fit.
pub fn edge_server(trust: &Trust, credentials: &Credentials) -> Result<Arc<ServerConfig>, TlsError> {
    server(
        verifier(&trust.device_issuers, ClientAuth::Optional)?,
        credentials,
    )
}

/// A client configuration for the edge: trusts the stack's root, shows a device certificate.
///
/// # Errors
/// [`TlsError`] when the parts don't fit.
pub fn edge_client(
    root: &CertificateDer<'static>,
    credentials: Option<&Credentials>,
) -> Result<Arc<ClientConfig>, TlsError> {
    client(std::slice::from_ref(root), credentials)
}

/// A client configuration that believes any server. For one purpose: to read a trust bundle, which is
/// public and then believed only when the fingerprint of its root was known before. Nothing secret may
/// travel on such a connection.
///
/// # Errors
/// [`TlsError`] when the provider can't make it.
pub fn unproven_client() -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unproven(provider())))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// See [`unproven_client`].
#[derive(Debug)]
struct Unproven(Arc<CryptoProvider>);

impl ServerCertVerifier for Unproven {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn state(trust: Arc<Trust>, credentials: Option<Credentials>) -> Result<State, TlsError> {
    let make = |clients| {
        credentials
            .as_ref()
            .map(|own| server(verifier(&trust.service_issuers, clients)?, own))
            .transpose()
    };
    Ok(State {
        client: client(&trust.service_issuers, credentials.as_ref())?,
        anonymous: client(&trust.service_issuers, None)?,
        server_required: make(ClientAuth::Required)?,
        server_optional: make(ClientAuth::Optional)?,
        trust,
        credentials,
    })
}

fn roots(certificates: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate.clone())?;
    }
    Ok(Arc::new(store))
}

/// Judges client certificates against the issuers of devices or of services.
///
/// # Errors
/// [`TlsError::Verifier`].
pub fn verifier(
    issuers: &[CertificateDer<'static>],
    clients: ClientAuth,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let builder = WebPkiClientVerifier::builder_with_provider(roots(issuers)?, provider());
    Ok(match clients {
        ClientAuth::Required => builder.build()?,
        ClientAuth::Optional => builder.allow_unauthenticated().build()?,
    })
}

fn server(
    verifier: Arc<dyn ClientCertVerifier>,
    credentials: &Credentials,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(light_first(provider())))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credentials.chain.clone(), credentials.key_der())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ignore_client_order = true;
    // A ticket would outlive the revocation of the certificate it was made for.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

fn client(
    issuers: &[CertificateDer<'static>],
    credentials: Option<&Credentials>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(issuers)?, provider()).build()?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_webpki_verifier(verifier);
    let mut config = match credentials {
        Some(own) => builder.with_client_auth_cert(own.chain.clone(), own.key_der())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}
