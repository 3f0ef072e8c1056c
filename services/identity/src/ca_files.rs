//! The authority on disk: `state/identity/ca`, 0700, read by identity alone; and what is public, in
//! `credentials/public`.

use std::{fs, io, path::Path};

use anyhow::Context as _;
use creel_kit::{
    Profile,
    cert::pem_chain,
    profile::{private_dir, write_private},
};
use creel_wire::ServiceName;
use prost::Message as _;
use rcgen::KeyPair;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use crate::ca::{Authority, Intermediate, create};

/// Reads the authority, or makes it on the very first start, and publishes the trust bundle.
pub(crate) fn load_or_create(profile: &Profile, now_ms: i64) -> anyhow::Result<Authority> {
    let dir = profile.state(ServiceName::Identity).join("ca");
    // The directory appears whole, by one rename: a crash leaves no half authority behind.
    if !dir.exists() {
        let new = dir.with_extension("new");
        match fs::remove_dir_all(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        private_dir(&new)?;
        let made = create(now_ms)?;
        for (name, (cert, key)) in [
            ("root", made.root),
            ("services", made.services),
            ("devices", made.devices),
        ] {
            write_private(&new.join(format!("{name}.pem")), cert.as_bytes())?;
            write_private(&new.join(format!("{name}.key")), key.as_bytes())?;
        }
        write_private(&new.join("assertion.key"), &made.assertion_seed)?;
        fs::rename(&new, &dir)?;
        fs::File::open(profile.state(ServiceName::Identity))?.sync_all()?;
        tracing::info!("made the certificate authority");
    }
    let authority = load(&dir).with_context(|| {
        format!(
            "the certificate authority in {} can't be read; restore it from a backup",
            dir.display()
        )
    })?;
    publish(profile, &authority)?;
    Ok(authority)
}

fn load(dir: &Path) -> anyhow::Result<Authority> {
    let read = |name: &str| fs::read(dir.join(name)).with_context(|| format!("can't read {name}"));
    let der = |name: &str| -> anyhow::Result<Vec<u8>> {
        Ok(CertificateDer::from_pem_slice(&read(name)?)
            .with_context(|| format!("{name} is no certificate"))?
            .to_vec())
    };
    let intermediate = |name: &str| -> anyhow::Result<Intermediate> {
        let key = KeyPair::from_pem(&String::from_utf8(read(&format!("{name}.key"))?)?)
            .with_context(|| format!("{name}.key is no key"))?;
        Ok(Intermediate::new(der(&format!("{name}.pem"))?, key)?)
    };
    let seed = read("assertion.key")?;
    let seed: &[u8; 32] = seed
        .as_slice()
        .try_into()
        .context("assertion.key is not 32 bytes")?;
    Ok(Authority::new(
        der("root.pem")?,
        intermediate("services")?,
        intermediate("devices")?,
        seed,
    ))
}

fn publish(profile: &Profile, authority: &Authority) -> anyhow::Result<()> {
    private_dir(&profile.public())?;
    let contents = [
        (
            profile.root_cert_file(),
            pem_chain(&[&authority.root_der]).into_bytes(),
        ),
        (profile.bundle_file(), authority.bundle().encode_to_vec()),
    ];
    for (path, content) in contents {
        if fs::read(&path).ok().as_deref() != Some(content.as_slice()) {
            write_private(&path, &content)?;
        }
    }
    Ok(())
}
