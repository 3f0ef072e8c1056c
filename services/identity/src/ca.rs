//! The certificate authority: a root that signs two intermediates and nothing else, one intermediate
//! for services and one for devices (client authentication only), and the key that signs assertions.
//! Of a request only the public key is used.
//!
//! `now_ms` is what the clock says, not the time that never goes back: whoever verifies a certificate asks the clock,
//! and one that begins in a year because the clock once ran ahead would let nobody in.

use std::net::IpAddr;

use creel_proto::{
    identity::v1::{AssertionKey, IssuedCertificate, TrustBundle},
    time,
};
use creel_wire::{
    DeviceId, Error, ServiceName, TrustDomain,
    names::{SpiffeId, Subject},
};
use ed25519_dalek::SigningKey;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateSigningRequestDer;

use crate::proof;

/// Certificates start so much before now, for clocks that differ, in milliseconds.
const BACKDATE_MS: i64 = 5 * 60 * 1_000;
/// Life of a service's certificate, in milliseconds (`architecture.md` §4).
pub(crate) const SERVICE_LIFE_MS: i64 = 24 * 3_600 * 1_000;
/// Life of the edge's certificate, in milliseconds.
pub(crate) const EDGE_LIFE_MS: i64 = 800 * DAY_MS;
const CA_LIFE_MS: i64 = 3_650 * DAY_MS;
pub(crate) const DAY_MS: i64 = 24 * 3_600 * 1_000;
/// A request is never longer, in bytes.
const MAX_CSR_BYTES: usize = 8 * 1_024;

/// The authority with its keys.
pub(crate) struct Authority {
    pub(crate) domain: TrustDomain,
    pub(crate) root_der: Vec<u8>,
    services: Intermediate,
    devices: Intermediate,
    pub(crate) assertion_key: SigningKey,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("domain", &self.domain)
            .finish_non_exhaustive()
    }
}

/// An intermediate with its key.
pub(crate) struct Intermediate {
    pub(crate) der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

impl Intermediate {
    pub(crate) fn new(der: Vec<u8>, key: KeyPair) -> Result<Self, rcgen::Error> {
        let issuer = Issuer::from_ca_cert_der(&der.as_slice().into(), key)?;
        Ok(Self { der, issuer })
    }
}

/// Everything a new authority is made of, to be written down before it is used.
pub(crate) struct NewAuthority {
    pub(crate) root: (String, String),
    pub(crate) services: (String, String),
    pub(crate) devices: (String, String),
    pub(crate) assertion_seed: [u8; 32],
}

/// Makes root, intermediates and assertion key. PEM pairs of certificate and key.
pub(crate) fn create(now_ms: i64) -> Result<NewAuthority, rcgen::Error> {
    let root_key = KeyPair::generate()?;
    let root_params = ca_params("Creel root", now_ms, 1, &[]);
    let root = root_params.self_signed(&root_key)?;
    let issuer = Issuer::new(root_params, &root_key);
    let intermediate = |name, usages: &[ExtendedKeyUsagePurpose]| -> Result<_, rcgen::Error> {
        let key = KeyPair::generate()?;
        let cert = ca_params(name, now_ms, 0, usages).signed_by(&key, &issuer)?;
        Ok((cert.pem(), key.serialize_pem()))
    };
    let both = [
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(NewAuthority {
        root: (root.pem(), root_key.serialize_pem()),
        services: intermediate("Creel services", &both)?,
        devices: intermediate("Creel devices", &both[1..])?,
        assertion_seed: rand::random(),
    })
}

/// The public key of a request whose signature holds.
#[derive(Debug)]
pub(crate) struct RequestedKey(rcgen::PublicKey);

impl RequestedKey {
    /// SubjectPublicKeyInfo, DER.
    pub(crate) fn spki(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    /// The raw key of a device: Ed25519, canonical, not of small order.
    pub(crate) fn device_key(&self) -> Result<([u8; 32], DeviceId), Error> {
        let wrong = |why: &str| Error::invalid("csr_der", format!("the device key {why}"));
        if self.0.algorithm() != &rcgen::PKCS_ED25519 {
            return Err(wrong("is not Ed25519").hint("openssl genpkey -algorithm ed25519 makes one"));
        }
        let key = proof::device_key(self.0.der_bytes())
            .ok_or_else(|| wrong("is not a canonical point of 32 bytes, or a weak one"))?;
        let raw = key.to_bytes();
        Ok((raw, DeviceId::of_public_key(&raw)))
    }
}

/// Reads a request and checks its signature; whatever names it asks for are ignored.
pub(crate) fn read_request(csr_der: &[u8]) -> Result<RequestedKey, Error> {
    if csr_der.is_empty() || csr_der.len() > MAX_CSR_BYTES {
        return Err(Error::invalid(
            "csr_der",
            format!("must be a PKCS#10 request of 1 to {MAX_CSR_BYTES} bytes"),
        ));
    }
    let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
        .map_err(|error| Error::invalid("csr_der", format!("not a PKCS#10 request that holds: {error}")))?;
    Ok(RequestedKey(request.public_key))
}

impl Authority {
    pub(crate) fn new(
        root_der: Vec<u8>,
        services: Intermediate,
        devices: Intermediate,
        assertion_seed: &[u8; 32],
    ) -> Self {
        let domain = TrustDomain::of_root(&root_der);
        Self {
            domain,
            root_der,
            services,
            devices,
            assertion_key: SigningKey::from_bytes(assertion_seed),
        }
    }

    /// What everybody may know.
    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle {
            trust_domain: self.domain.to_string(),
            root_der: self.root_der.clone(),
            service_issuers_der: vec![self.services.der.clone()],
            device_issuers_der: vec![self.devices.der.clone()],
            assertion_keys: vec![AssertionKey {
                key_id: self.assertion_key_id(),
                public_key: self.assertion_key.verifying_key().to_bytes().to_vec(),
            }],
        }
    }

    /// SHA-256 of the root certificate: what invites and phrases name this stack by.
    pub(crate) fn root_fingerprint(&self) -> [u8; 32] {
        use sha2::{Digest as _, Sha256};
        Sha256::digest(&self.root_der).into()
    }

    pub(crate) fn assertion_key_id(&self) -> String {
        creel_wire::names::sha256_hex(self.assertion_key.verifying_key().as_bytes())[..16].to_owned()
    }

    /// A service's certificate: one SPIFFE name for servers to authorise, one DNS name for clients.
    pub(crate) fn issue_service(
        &self,
        service: ServiceName,
        key: &impl PublicKeyData,
        now_ms: i64,
    ) -> Result<IssuedCertificate, Error> {
        let dns = self.domain.dns_name(service);
        let names = vec![self.uri(Subject::Service(service))?, SanType::DnsName(ia5(&dns)?)];
        let usages = [
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let params = leaf_params(service.as_str(), names, &usages, now_ms, now_ms + SERVICE_LIFE_MS);
        self.issue(&self.services, &params, key)
    }

    /// A service's certificate by request.
    pub(crate) fn issue_service_for(
        &self,
        service: ServiceName,
        key: &RequestedKey,
        now_ms: i64,
    ) -> Result<IssuedCertificate, Error> {
        self.issue_service(service, &key.0, now_ms)
    }

    /// The edge's certificate: no SPIFFE name, so it is nobody on service ports.
    pub(crate) fn issue_edge(
        &self,
        key: &RequestedKey,
        names: &[String],
        now_ms: i64,
    ) -> Result<IssuedCertificate, Error> {
        if names.is_empty() || names.len() > 64 {
            return Err(Error::invalid("names", "1 to 64 names"));
        }
        let names = names
            .iter()
            .map(|name| self.edge_name(name))
            .collect::<Result<_, _>>()?;
        let usages = [ExtendedKeyUsagePurpose::ServerAuth];
        let params = leaf_params("Creel edge", names, &usages, now_ms, now_ms + EDGE_LIFE_MS);
        self.issue(&self.services, &params, &key.0)
    }

    /// A device's certificate: client authentication only.
    pub(crate) fn issue_device(
        &self,
        subject: Subject,
        label: &str,
        key: &RequestedKey,
        now_ms: i64,
        life_ms: i64,
    ) -> Result<IssuedCertificate, Error> {
        let names = vec![self.uri(subject)?];
        let usages = [ExtendedKeyUsagePurpose::ClientAuth];
        let params = leaf_params(label, names, &usages, now_ms, now_ms + life_ms);
        self.issue(&self.devices, &params, &key.0)
    }

    fn issue(
        &self,
        issuer: &Intermediate,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<IssuedCertificate, Error> {
        let cert = params.signed_by(key, &issuer.issuer).map_err(|error| {
            tracing::error!(%error, "signing failed");
            Error::internal("signing the certificate")
        })?;
        Ok(IssuedCertificate {
            chain_der: vec![cert.der().to_vec(), issuer.der.clone()],
            not_after: Some(time::timestamp(params.not_after.unix_timestamp() * 1_000)),
            bundle: Some(self.bundle()),
        })
    }

    fn uri(&self, subject: Subject) -> Result<SanType, Error> {
        let id = SpiffeId {
            domain: self.domain.clone(),
            subject,
        };
        Ok(SanType::URI(ia5(&id.to_string())?))
    }

    fn edge_name(&self, name: &str) -> Result<SanType, Error> {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(SanType::IpAddress(address));
        }
        let label = |part: &str| {
            !part.is_empty()
                && part.len() <= 63
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let plain = name.strip_prefix("*.").unwrap_or(name);
        if name.len() > 253 || !plain.split('.').all(label) {
            let shown = creel_wire::error::printable(name, 64);
            return Err(Error::invalid(
                "names",
                format!("`{shown}` is neither a DNS name nor an address"),
            ));
        }
        // Else the edge could stand in for a service.
        if name.to_ascii_lowercase().ends_with(self.domain.as_str()) {
            return Err(Error::invalid(
                "names",
                "names of the trust domain belong to services",
            ));
        }
        Ok(SanType::DnsName(ia5(name)?))
    }
}

fn ia5(text: &str) -> Result<rcgen::string::Ia5String, Error> {
    rcgen::string::Ia5String::try_from(text).map_err(|_| Error::invalid("names", "names are ASCII"))
}

fn ca_params(name: &str, now_ms: i64, depth: u8, usages: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
    let mut params = leaf_params(name, vec![], usages, now_ms, now_ms + CA_LIFE_MS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(
    name: &str,
    names: Vec<SanType>,
    usages: &[ExtendedKeyUsagePurpose],
    now_ms: i64,
    until_ms: i64,
) -> CertificateParams {
    let at = |ms: i64| {
        let seconds = std::time::Duration::from_secs(ms.max(0).unsigned_abs() / 1_000);
        rcgen::date_time_ymd(1970, 1, 1) + seconds
    };
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    params.subject_alt_names = names;
    params.not_before = at(now_ms - BACKDATE_MS);
    params.not_after = at(until_ms);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages.to_vec();
    params.use_authority_key_identifier_extension = true;
    let mut serial: [u8; 16] = rand::random();
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}
