//! A service's certificate: read from disk, enrolled when missing, renewed at half its life, without a
//! restart and at any age (`architecture.md` §4).

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use creel_proto::identity::v1::{
    EnrollRequest, IssuedCertificate, RenewRequest, TrustBundle, ca_service_client::CaServiceClient,
};
use creel_wire::{
    Code, Error, Secret, ServiceName,
    names::Subject,
    tls::{Credentials, Tls, TlsError, Trust, lifetime, subject_of},
};
use prost::Message as _;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use crate::{Clock, Config, Profile, metrics::Metrics, peers::Peers, profile::write_private};

/// Why a service has no certificate.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum CertError {
    #[error("can't read or write {0}")]
    File(std::path::PathBuf, #[source] io::Error),
    #[error("the trust bundle can't be read")]
    Bundle(#[source] prost::DecodeError),
    #[error("TLS can't be set up")]
    Tls(#[from] TlsError),
    #[error("a key or request can't be made")]
    Key(#[from] rcgen::Error),
    #[error("identity refused the certificate: {0}")]
    Refused(Error),
    #[error("no join secret: start services with `creeld up`, or set CREEL_JOIN_FILE")]
    NoJoinSecret,
    #[error("identity has another trust bundle than before")]
    BundleChanged,
    #[error("the name can't be dialled")]
    Dial(#[from] creel_wire::channel::BadServerName),
}

/// What is needed to get a certificate.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The stack.
    pub profile: Profile,
    /// How identity is reached.
    pub config: Arc<Config>,
    /// Whose certificate.
    pub name: ServiceName,
    /// The one-use secret, if whoever started us gave one.
    pub join_secret: Option<Secret<Vec<u8>>>,
    /// The time.
    pub clock: Clock,
}

impl Enrolment {
    /// TLS with a valid certificate: the one on disk, or a new one from identity, however long that
    /// takes to come up.
    ///
    /// # Errors
    /// [`CertError`] when waiting longer would not help.
    pub async fn tls(&self) -> Result<Arc<Tls>, CertError> {
        loop {
            let bundle = self.bundle().await?;
            match self.tls_under(bundle).await {
                // Its state was removed, say, and we were faster than its new bundle.
                Err(CertError::BundleChanged) => {
                    tracing::warn!("the trust bundle was replaced meanwhile: starting with the new one");
                }
                other => return other,
            }
        }
    }

    async fn tls_under(&self, bundle: TrustBundle) -> Result<Arc<Tls>, CertError> {
        let trust = Trust::try_from(&bundle)?;
        if let Some(credentials) = self.on_disk(&trust)? {
            let now = self.clock.now_ms();
            let tls = Tls::new(trust, Some(credentials.clone()))?;
            if credentials.not_after_unix_ms()? > now {
                return Ok(tls);
            }
            tracing::info!("the certificate has ended (a long sleep?): renewing it");
            match self.renew(&tls, Some(&bundle)).await {
                Ok(()) => return Ok(tls),
                // Enrolled at another identity, or revoked: a join secret decides.
                Err(CertError::Refused(error)) if self.join_secret.is_some() => {
                    tracing::warn!(%error, "renewal refused: enrolling again");
                }
                Err(error) => return Err(error),
            }
        }
        self.enroll(bundle).await
    }

    /// Renews at half the life of the certificate, until the drain.
    pub async fn keep_fresh(self, tls: Arc<Tls>, metrics: Metrics, drain: CancellationToken) {
        loop {
            let wait = renewal_due(&tls, self.clock.now_ms(), &metrics);
            // A wall-clock time is waited for in short steps: a suspended machine's timers stand still.
            if wait > 0 {
                let step = Duration::from_millis(wait.unsigned_abs().min(30_000));
                tokio::select! {
                    () = drain.cancelled() => return,
                    () = tokio::time::sleep(step) => continue,
                }
            }
            let renewed = tokio::select! {
                () = drain.cancelled() => return,
                renewed = self.renew(&tls, None) => renewed,
            };
            match renewed {
                Ok(()) => tracing::info!("certificate renewed"),
                Err(error) => {
                    tracing::warn!(error = %crate::failure::chain(&error), "certificate not renewed; trying again");
                    tokio::select! {
                        () = drain.cancelled() => return,
                        () = tokio::time::sleep(Duration::from_secs(5)) => {}
                    }
                }
            }
        }
    }

    /// The trust bundle. Identity writes it when it first starts, so it may take a moment to appear.
    async fn bundle(&self) -> Result<TrustBundle, CertError> {
        let path = self.profile.bundle_file();
        let mut wait = Duration::from_millis(2);
        loop {
            match fs::read(&path) {
                Ok(bytes) => return TrustBundle::decode(bytes.as_slice()).map_err(CertError::Bundle),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(CertError::File(path, error)),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_millis(100));
        }
    }

    fn on_disk(&self, trust: &Trust) -> Result<Option<Credentials>, CertError> {
        let dir = self.profile.credentials(self.name);
        let (Some(cert), Some(key)) = (read(&dir.join("cert.pem"))?, read(&dir.join("key.pem"))?) else {
            return Ok(None);
        };
        let credentials = Credentials::from_pem(&cert, &key)?;
        let ours = credentials
            .chain
            .first()
            .and_then(|leaf| subject_of(leaf, &trust.domain));
        // Of another CA (the state was removed, say): as good as none.
        Ok((ours == Some(Subject::Service(self.name))).then_some(credentials))
    }

    async fn enroll(&self, bundle: TrustBundle) -> Result<Arc<Tls>, CertError> {
        let secret = self.join_secret.as_ref().ok_or(CertError::NoJoinSecret)?;
        let key = KeyPair::generate()?;
        let csr_der = request_for(&key)?;
        let tls = Tls::new(Trust::try_from(&bundle)?, None)?;
        let issued = self
            .call(&tls, Some(&bundle), |mut client| {
                let request = EnrollRequest {
                    service: self.name.to_string(),
                    join_secret: secret.expose().clone(),
                    csr_der: csr_der.clone(),
                };
                async move { client.enroll(request).await }
            })
            .await?;
        self.keep("key.pem", key.serialize_pem().as_bytes())?;
        self.take(&tls, &issued, Secret::new(key.serialize_der()))?;
        tracing::info!("enrolled");
        Ok(tls)
    }

    async fn renew(&self, tls: &Arc<Tls>, wait_under: Option<&TrustBundle>) -> Result<(), CertError> {
        let path = self.profile.credentials(self.name).join("key.pem");
        let pem = fs::read_to_string(&path).map_err(|error| CertError::File(path, error))?;
        let key = KeyPair::from_pem(&pem)?;
        let csr_der = request_for(&key)?;
        let issued = self
            .call(tls, wait_under, |mut client| {
                let request = RenewRequest {
                    csr_der: csr_der.clone(),
                };
                async move { client.renew(request).await }
            })
            .await?;
        self.take(tls, &issued, Secret::new(key.serialize_der()))
    }

    /// Calls identity; with `wait_under` until it is there, for as long as that bundle is the one to trust.
    async fn call<F, R>(
        &self,
        tls: &Arc<Tls>,
        wait_under: Option<&TrustBundle>,
        call: F,
    ) -> Result<IssuedCertificate, CertError>
    where
        F: Fn(CaServiceClient<tonic::transport::Channel>) -> R,
        R: Future<Output = Result<tonic::Response<IssuedCertificate>, tonic::Status>>,
    {
        let peers = Peers::new(self.profile.clone(), Arc::clone(&self.config), Arc::clone(tls));
        let mut wait = Duration::from_millis(5);
        loop {
            let channel = peers.anonymous_channel(ServiceName::Identity)?;
            match call(CaServiceClient::new(channel)).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status)
                    if let Some(bundle) = wait_under
                        && Code::of_grpc(status.code()) == Code::Unavailable =>
                {
                    tracing::debug!(%status, "identity is not there yet");
                    if self.bundle().await? != *bundle {
                        return Err(CertError::BundleChanged);
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(1));
                }
                Err(status) => return Err(CertError::Refused(Error::of_status(&status))),
            }
        }
    }

    fn take(&self, tls: &Tls, issued: &IssuedCertificate, key: Secret<Vec<u8>>) -> Result<(), CertError> {
        self.keep("cert.pem", pem_chain(&issued.chain_der).as_bytes())?;
        let chain = issued
            .chain_der
            .iter()
            .map(|der| CertificateDer::from(der.clone()))
            .collect();
        let trust = issued.bundle.as_ref().map(Trust::try_from).transpose()?;
        tls.replace(trust, Credentials { chain, key })?;
        Ok(())
    }

    fn keep(&self, name: &str, content: &[u8]) -> Result<(), CertError> {
        let path = self.profile.credentials(self.name).join(name);
        write_private(&path, content).map_err(|error| CertError::File(path, error))
    }
}

/// Milliseconds until the certificate should be renewed; 0 or less when it is time. A clock that was
/// set back before the certificate's start counts as time, too.
fn renewal_due(tls: &Tls, now_ms: i64, metrics: &Metrics) -> i64 {
    let span = tls
        .credentials()
        .and_then(|own| own.chain.first().map(|leaf| lifetime(leaf)));
    let Some(Ok((start, end))) = span else { return 0 };
    metrics.certificate_ends(end);
    if now_ms < start {
        0
    } else {
        start + (end - start) / 2 - now_ms
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, CertError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CertError::File(path.to_owned(), error)),
    }
}

/// A PKCS#10 request of a key, DER. Names are given by identity, whatever a request says.
///
/// # Errors
/// When the key can't sign.
pub fn request_for(key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    Ok(CertificateParams::default()
        .serialize_request(key)?
        .der()
        .to_vec())
}

/// Certificates as PEM, in order.
#[must_use]
pub fn pem_chain<D: AsRef<[u8]>>(chain: &[D]) -> String {
    use base64::Engine as _;
    let mut text = String::new();
    for der in chain {
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for at in (0..body.len()).step_by(64) {
            text.push_str(&body[at..(at + 64).min(body.len())]);
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
