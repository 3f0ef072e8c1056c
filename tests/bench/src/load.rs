//! The load client, the same for all peers: `GetDevice` over mutual TLS, so many connections, so many
//! calls in flight on each.

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use creel_proto::identity::v1::{GetDeviceRequest, device_service_client::DeviceServiceClient};
use creel_wire::{
    channel::{Dialler, Target},
    tls::{Credentials, edge_client},
};
use futures_util::future::join_all;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tonic::transport::Channel;

use crate::percentile;

/// What one load showed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// A channel of its own connection, with the certificate in `dir` (`ca.pem cert.pem key.pem`).
pub(crate) fn edge_channel(address: &str, dir: &Path) -> anyhow::Result<Channel> {
    let root = CertificateDer::from_pem_slice(&fs::read(dir.join("ca.pem"))?)?;
    let credentials =
        Credentials::from_pem(&fs::read(dir.join("cert.pem"))?, &fs::read(dir.join("key.pem"))?)?;
    let config = edge_client(&root, Some(&credentials))?;
    let target = Target::Tcp(address.to_owned());
    Ok(Dialler::new(target, "localhost", Arc::new(move || Arc::clone(&config)))?.channel())
}

/// Calls for so long on `connections` connections, `in_flight` at once on each.
pub(crate) async fn run(
    address: &str,
    dir: &Path,
    device: &str,
    connections: usize,
    in_flight: usize,
    time: Duration,
) -> anyhow::Result<Figure> {
    let mut channels = Vec::new();
    for _ in 0..connections {
        let channel = edge_channel(address, dir)?;
        call(&channel, device).await?;
        channels.push(channel);
    }
    let started = Instant::now();
    let end = started + time;
    let workers = channels.iter().flat_map(|channel| {
        (0..in_flight).map(|_| {
            let channel = channel.clone();
            async move {
                let mut times = Vec::new();
                while Instant::now() < end {
                    let asked = Instant::now();
                    call(&channel, device).await?;
                    times.push(asked.elapsed().as_secs_f64() * 1e3);
                }
                anyhow::Ok(times)
            }
        })
    });
    let mut times = Vec::new();
    for worker in join_all(workers).await {
        times.extend(worker?);
    }
    let count = f64::from(u32::try_from(times.len())?);
    Ok(Figure {
        per_second: count / started.elapsed().as_secs_f64(),
        p50_ms: percentile(&mut times, 50.0),
        p99_ms: percentile(&mut times, 99.0),
    })
}

async fn call(channel: &Channel, device: &str) -> anyhow::Result<()> {
    DeviceServiceClient::new(channel.clone())
        .get_device(GetDeviceRequest {
            device: device.to_owned(),
        })
        .await?;
    Ok(())
}
