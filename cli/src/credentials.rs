//! A device as files: its Ed25519 key (which is its TLS key), its certificate, whom it trusts.
//! `credentials/cli` of the profile holds the command line's own; `devices cert` writes more of them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use creel_kit::{
    Profile,
    cert::pem_chain,
    profile::{private_dir, write_private},
};
use creel_proto::identity::v1::{IssuedCertificate, TrustBundle};
use creel_wire::{
    Code, DeviceId, Error,
    tls::{Credentials, lifetime},
};
use prost::Message as _;
use rand::TryRng as _;
use rcgen::KeyPair;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use crate::failure::Failure;

/// Where the parts of a device lie.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) dir: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) cert: PathBuf,
    pub(crate) trust: PathBuf,
}

impl Files {
    /// The command line's own device.
    pub(crate) fn of_cli(profile: &Profile) -> Self {
        Self::named(&profile.cli_credentials(), "device.key", "trust.pem")
    }

    /// Of a stack that this machine joined.
    pub(crate) fn of_context(dir: &Path) -> Self {
        Self::named(dir, "device.key", "trust.pem")
    }

    /// As `creel devices cert` writes them.
    pub(crate) fn of_script(dir: &Path) -> Self {
        Self::named(dir, "key.pem", "ca.pem")
    }

    fn named(dir: &Path, key: &str, trust: &str) -> Self {
        Self {
            dir: dir.to_owned(),
            key: dir.join(key),
            cert: dir.join("cert.pem"),
            trust: dir.join(trust),
        }
    }

    /// Reads the device; `None` when a part is missing.
    pub(crate) fn load(&self) -> Result<Option<Device>, Failure> {
        let (Some(key), Some(cert), Some(trust)) = (read(&self.key)?, read(&self.cert)?, read(&self.trust)?)
        else {
            return Ok(None);
        };
        let credentials =
            Credentials::from_pem(&cert, &key).map_err(|error| unreadable(&self.dir, &error))?;
        let root = CertificateDer::from_pem_slice(&trust).map_err(|error| unreadable(&self.trust, &error))?;
        let leaf = credentials
            .chain
            .first()
            .ok_or_else(|| unreadable(&self.cert, &"it is empty"))?;
        let (from_ms, until_ms) = lifetime(leaf).map_err(|error| unreadable(&self.cert, &error))?;
        Ok(Some(Device {
            root,
            credentials,
            from_ms,
            until_ms,
        }))
    }

    /// The key alone, if there is one.
    pub(crate) fn load_key(&self) -> Result<Option<Key>, Failure> {
        read(&self.key)?
            .map(|pem| Key::read(&pem).map_err(|why| unreadable(&self.key, &why)))
            .transpose()
    }

    /// Writes the key, for its owner alone.
    pub(crate) fn keep_key(&self, key: &Key) -> Result<(), Failure> {
        private_dir(&self.dir)?;
        keep(&self.key, key.pem.as_bytes())
    }

    /// Writes the certificate, and the root if it came along.
    pub(crate) fn keep_certificate(&self, issued: &IssuedCertificate) -> Result<(), Failure> {
        if let Some(bundle) = &issued.bundle {
            keep(&self.trust, pem_chain(&[&bundle.root_der]).as_bytes())?;
        }
        keep(&self.cert, pem_chain(&issued.chain_der).as_bytes())
    }
}

/// A device that can prove itself.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    /// Of the stack that knows it.
    pub(crate) root: CertificateDer<'static>,
    pub(crate) credentials: Credentials,
    /// The certificate's life, Unix milliseconds.
    pub(crate) from_ms: i64,
    pub(crate) until_ms: i64,
}

impl Device {
    pub(crate) const fn is_over(&self, now_ms: i64) -> bool {
        now_ms >= self.until_ms
    }

    /// Past half its life, when it is renewed.
    pub(crate) const fn is_due(&self, now_ms: i64) -> bool {
        now_ms >= self.from_ms + (self.until_ms - self.from_ms) / 2
    }
}

/// A device's key.
pub(crate) struct Key {
    pub(crate) pair: KeyPair,
    pem: String,
}

impl Key {
    /// A new one. Written as PKCS#8 version 1 (RFC 8410, section 7), which OpenSSL and Go read, too; the
    /// version 2 that libraries write by themselves, OpenSSL does not.
    pub(crate) fn generate() -> Result<Self, Failure> {
        /// SEQUENCE, version 0, algorithm 1.3.101.112, OCTET STRING of OCTET STRING of 32 bytes.
        const PKCS8_ED25519: [u8; 16] = [
            0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
        ];
        let mut seed = [0_u8; 32];
        rand::rngs::SysRng
            .try_fill_bytes(&mut seed)
            .map_err(|error| Failure::internal("randomness", &error))?;
        let der = [&PKCS8_ED25519[..], &seed[..]].concat();
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(der)
        );
        Self::read(pem.as_bytes()).map_err(|why| Failure::internal("a new key", &*why))
    }

    fn read(pem: &[u8]) -> Result<Self, Box<dyn std::error::Error>> {
        let pem = String::from_utf8(pem.to_vec())?;
        let pair = KeyPair::from_pem(&pem)?;
        if pair.algorithm() != &rcgen::PKCS_ED25519 {
            return Err("it is not an Ed25519 key".into());
        }
        Ok(Self { pair, pem })
    }

    pub(crate) fn device_id(&self) -> Option<DeviceId> {
        self.pair
            .public_key_raw()
            .try_into()
            .ok()
            .map(DeviceId::of_public_key)
    }

    /// A request for its certificate, DER.
    pub(crate) fn request(&self) -> Result<Vec<u8>, Failure> {
        creel_kit::cert::request_for(&self.pair)
            .map_err(|error| Failure::internal("a certificate request", &error))
    }
}

/// What the stack of this profile says to trust, if there has been one.
pub(crate) fn bundle(profile: &Profile) -> Result<Option<TrustBundle>, Failure> {
    let path = profile.bundle_file();
    read(&path)?
        .map(|bytes| TrustBundle::decode(bytes.as_slice()).map_err(|error| unreadable(&path, &error)))
        .transpose()
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(Failure::file("read", path, &error)),
    }
}

fn keep(path: &Path, content: &[u8]) -> Result<(), Failure> {
    write_private(path, content).map_err(|error| Failure::file("write", path, &error))
}

fn unreadable(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    let message = format!("can't use `{}`: {why}", path.display());
    Error::new(Code::FailedPrecondition, "credentials_unreadable", message)
        .hint("move it away; the next call makes a new one, or: creel devices recover")
        .into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_survives_its_file_which_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::of_script(&dir.path().join("ci"));
        assert!(files.load_key().unwrap().is_none());
        let key = Key::generate().unwrap();
        files.keep_key(&key).unwrap();
        let again = files.load_key().unwrap().unwrap();
        assert_eq!(again.device_id(), key.device_id());
        assert!(key.device_id().is_some());
        assert_ne!(Key::generate().unwrap().device_id(), key.device_id());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&files.key), mode(&files.dir)), (0o600, 0o700));
        assert!(files.load().unwrap().is_none(), "a key alone is no device");
        assert!(!key.request().unwrap().is_empty());
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::of_script(dir.path());
        fs::write(&files.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let failure = files.load_key().err().unwrap();
        assert_eq!(failure.error().unwrap().reason, "credentials_unreadable");
    }

    #[test]
    fn renewal_is_due_at_half_of_life() {
        let device = Device {
            root: CertificateDer::from(Vec::new()),
            credentials: Credentials {
                chain: Vec::new(),
                key: creel_wire::Secret::new(Vec::new()),
            },
            from_ms: 0,
            until_ms: 100,
        };
        assert!(!device.is_due(49) && device.is_due(50) && !device.is_over(99) && device.is_over(100));
    }
}
