//! The edge's certificate: a stable key, 800 days, renewed 30 days before its end or when the names
//! change, announced in the log (clients of the original pin its fingerprint).

use std::{fs, io, sync::Arc, time::Duration};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use creel_kit::{
    Deps,
    cert::{pem_chain, request_for},
    profile::write_private,
};
use creel_proto::identity::v1::{IssueEdgeCertificateRequest, ca_service_client::CaServiceClient};
use creel_wire::{
    Code, ServiceName,
    names::sha256_hex,
    tls::{Credentials, edge_server, lifetime},
};
use rcgen::KeyPair;
use rustls::ServerConfig;

const RENEW_BEFORE_MS: i64 = 30 * 24 * 3_600 * 1_000;

/// The certificate in use.
#[derive(Debug, Clone)]
pub(crate) struct EdgeCertificate {
    pub(crate) tls: Arc<ServerConfig>,
    /// Of the leaf, lower-case hex.
    pub(crate) sha256: String,
    pub(crate) names: Vec<String>,
    pub(crate) not_after_unix_ms: i64,
}

/// Names the certificate must carry: those of the config, loopback, the host's.
fn names(deps: &Deps) -> Vec<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let valid = |name: &String| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b))
    };
    let fixed = [
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
        host,
    ];
    let mut names: Vec<String> = deps
        .config
        .gateway
        .names
        .iter()
        .cloned()
        .chain(fixed.into_iter().filter(valid))
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The certificate on disk if it still fits, else a new one for the same key.
pub(crate) async fn load_or_issue(deps: &Deps) -> anyhow::Result<EdgeCertificate> {
    let dir = deps.profile.credentials(ServiceName::Gateway);
    let wanted = names(deps);
    let read = |name: &str| match fs::read(dir.join(name)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("can't read {}", dir.join(name).display())),
    };
    let key = match read("edge-key.pem")? {
        Some(pem) => {
            KeyPair::from_pem(std::str::from_utf8(&pem).context("edge-key.pem")?).context("edge-key.pem")?
        }
        None => {
            let key = KeyPair::generate()?;
            write_private(&dir.join("edge-key.pem"), key.serialize_pem().as_bytes())?;
            key
        }
    };
    let named = read("edge-names")?.map(|text| String::from_utf8_lossy(&text).into_owned());
    if let (Some(cert), true) = (
        read("edge-cert.pem")?,
        named.as_deref() == Some(wanted.join("\n").as_str()),
    ) {
        let credentials = Credentials::from_pem(&cert, key.serialize_pem().as_bytes())?;
        if credentials.not_after_unix_ms()? - RENEW_BEFORE_MS > deps.clock.now_ms() {
            return in_use(deps, &credentials, wanted);
        }
    }
    let chain_der = issue(deps, &key, &wanted).await?;
    let cert = pem_chain(&chain_der);
    write_private(&dir.join("edge-cert.pem"), cert.as_bytes())?;
    write_private(&dir.join("edge-names"), wanted.join("\n").as_bytes())?;
    let credentials = Credentials::from_pem(cert.as_bytes(), key.serialize_pem().as_bytes())?;
    let certificate = in_use(deps, &credentials, wanted)?;
    tracing::warn!(sha256 = %certificate.sha256, names = ?certificate.names, "the edge has a new certificate: clients that pin it need this fingerprint");
    Ok(certificate)
}

/// Looks once in a while whether the certificate nears its end.
pub(crate) async fn keep_fresh(deps: Deps, current: Arc<ArcSwap<EdgeCertificate>>) {
    loop {
        tokio::select! {
            () = deps.drain.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(3_600)) => {}
        }
        if current.load().not_after_unix_ms - RENEW_BEFORE_MS > deps.clock.now_ms() {
            continue;
        }
        match load_or_issue(&deps).await {
            Ok(fresh) => current.store(Arc::new(fresh)),
            Err(error) => {
                tracing::error!(%error, "the edge's certificate was not renewed; trying again in an hour")
            }
        }
    }
}

async fn issue(deps: &Deps, key: &KeyPair, names: &[String]) -> anyhow::Result<Vec<Vec<u8>>> {
    let request = IssueEdgeCertificateRequest {
        csr_der: request_for(key)?,
        names: names.to_vec(),
    };
    let mut client = CaServiceClient::new(deps.peers.channel(ServiceName::Identity)?);
    let mut wait = Duration::from_millis(5);
    loop {
        match client.issue_edge_certificate(request.clone()).await {
            Ok(issued) => return Ok(issued.into_inner().chain_der),
            Err(status)
                if Code::of_grpc(status.code()) == Code::Unavailable && !deps.drain.is_cancelled() =>
            {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(1));
            }
            Err(status) => return Err(status).context("identity refused the edge's certificate"),
        }
    }
}

fn in_use(deps: &Deps, credentials: &Credentials, names: Vec<String>) -> anyhow::Result<EdgeCertificate> {
    let leaf = credentials.chain.first().context("empty chain")?;
    Ok(EdgeCertificate {
        tls: edge_server(&deps.tls.trust(), credentials)?,
        sha256: sha256_hex(leaf),
        not_after_unix_ms: lifetime(leaf)?.1,
        names,
    })
}
