//! Identity's own certificate: from its own authority, with a key that never leaves the process,
//! renewed at half its life.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use creel_kit::service::OwnCertificate;
use creel_wire::{
    Secret, ServiceName,
    tls::{Credentials, Tls, Trust},
};
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;

use crate::{
    ca::{Authority, SERVICE_LIFE_MS},
    ca_files::load_or_create,
};

/// Loads the authority into `loaded`, and makes the certificate that identity itself shows.
pub(crate) async fn certificate(
    parts: OwnCertificate,
    loaded: Arc<OnceLock<Arc<Authority>>>,
) -> anyhow::Result<Arc<Tls>> {
    let made = Arc::new(load_or_create(&parts.profile, parts.clock.now_ms())?);
    let authority = Arc::clone(loaded.get_or_init(|| made));
    let mut issued_at = parts.clock.now_ms();
    let tls = Tls::new(
        Trust::try_from(&authority.bundle())?,
        Some(fresh(&authority, issued_at)?),
    )?;
    let renewed = Arc::clone(&tls);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = parts.drain.cancelled() => return,
                // Short steps of wall-clock time: a suspended machine's timers stand still.
                () = tokio::time::sleep(Duration::from_secs(30)) => {}
            }
            let now = parts.clock.now_ms();
            if (issued_at..issued_at + SERVICE_LIFE_MS / 2).contains(&now) {
                continue;
            }
            match fresh(&authority, now).map(|own| renewed.replace(None, own)) {
                Ok(Ok(())) => issued_at = now,
                Ok(Err(error)) => tracing::error!(%error, "own certificate not renewed"),
                Err(error) => tracing::error!(%error, "own certificate not renewed"),
            }
        }
    });
    Ok(tls)
}

fn fresh(authority: &Authority, now_ms: i64) -> anyhow::Result<Credentials> {
    let key = KeyPair::generate()?;
    let issued = authority.issue_service(ServiceName::Identity, &key, now_ms)?;
    let chain = issued.chain_der.into_iter().map(CertificateDer::from).collect();
    Ok(Credentials {
        chain,
        key: Secret::new(key.serialize_der()),
    })
}
