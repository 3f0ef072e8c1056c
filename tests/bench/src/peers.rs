//! One RPC through the edge, beside the bare server and beside nginx, interleaved.

use std::{
    fs,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tokio::runtime::Runtime;

use crate::{
    Row, Table,
    load::{self, Figure},
    median, nginx,
    stack::Stack,
};

const ECHO: u16 = 19_791;
const NGINX: u16 = 19_792;

/// Ends a peer when the bench does, however it does.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // nginx ends its workers on TERM.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

pub(crate) fn measure(
    runtime: &Runtime,
    stack: &Stack,
    rounds: usize,
    time: Duration,
    table: &mut Table,
) -> anyhow::Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("creel-bench-peer-")
        .tempdir_in("/tmp")?;
    certificates(dir.path())?;
    let own = std::env::current_exe()?;
    let _echo = Peer(
        Command::new(own)
            .arg("echo")
            .arg(dir.path())
            .arg(ECHO.to_string())
            .spawn()
            .context("echo")?,
    );
    let nginx = nginx::start(dir.path(), NGINX, ECHO)?.map(Peer);
    let edge = stack.edge()?.address;
    let ours = stack.script_cert()?;
    let device = device_id(stack)?;
    for (connections, in_flight) in [(1, 32), (64, 1)] {
        let (mut creel, mut echo, mut proxy) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let on = |address: String, dir: &Path| {
                settle(runtime, &address, dir, &device)?;
                runtime.block_on(load::run(&address, dir, &device, connections, in_flight, time))
            };
            creel.push(on(edge.clone(), &ours)?);
            echo.push(on(format!("127.0.0.1:{ECHO}"), dir.path())?);
            if nginx.is_some() {
                proxy.push(on(format!("127.0.0.1:{NGINX}"), dir.path())?);
            }
        }
        let label =
            format!("unary RPC through the edge, {connections} connection(s) × {in_flight} in flight");
        let (creel, echo) = (middle(&creel), middle(&echo));
        let ratio = creel.per_second / echo.per_second * 100.0;
        let mut beside = format!(
            "bare tonic {}; {ratio:.0} % of it (goal ≥ 45), p99 {:.1}× (goal ≤ 2)",
            show(echo),
            creel.p99_ms / echo.p99_ms
        );
        if !proxy.is_empty() {
            let proxy = middle(&proxy);
            let times = creel.per_second / proxy.per_second;
            beside.push_str(&format!("; nginx {}; {times:.2}× of it (goal ≥ 1)", show(proxy)));
        }
        table.push(Row::new(label, show(creel), beside))?;
    }
    Ok(())
}

/// Waits until a peer answers.
fn settle(runtime: &Runtime, address: &str, dir: &Path, device: &str) -> anyhow::Result<()> {
    let mut last = None;
    for _ in 0..200 {
        match runtime.block_on(load::run(address, dir, device, 1, 1, Duration::from_millis(1))) {
            Ok(_) => return Ok(()),
            Err(error) => last = Some(error),
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    Err(last
        .unwrap_or_else(|| anyhow::anyhow!("no answer"))
        .context(format!("{address} does not answer")))
}

fn middle(figures: &[Figure]) -> Figure {
    let of = |part: fn(&Figure) -> f64| median(&mut figures.iter().map(part).collect::<Vec<_>>());
    Figure {
        per_second: of(|f| f.per_second),
        p50_ms: of(|f| f.p50_ms),
        p99_ms: of(|f| f.p99_ms),
    }
}

fn show(figure: Figure) -> String {
    format!(
        "{:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
        figure.per_second, figure.p50_ms, figure.p99_ms
    )
}

fn device_id(stack: &Stack) -> anyhow::Result<String> {
    let devices: serde_json::Value = serde_json::from_str(&stack.creel(&["devices", "list", "--json"])?)?;
    let found = devices
        .as_array()
        .into_iter()
        .flatten()
        .find(|device| device["name"] == "bench");
    let id = found.and_then(|device| device["deviceId"].as_str().or_else(|| device["id"].as_str()));
    id.map(str::to_owned).context("the bench's device")
}

/// A CA, a server for `localhost`, a client: P-256 as Creel's own services have.
fn certificates(dir: &Path) -> anyhow::Result<()> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    // Each subject has a name of its own: a leaf named as its issuer is taken for self-signed by OpenSSL.
    ca.distinguished_name.push(DnType::CommonName, "bench CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);
    fs::write(dir.join("ca.pem"), root.pem())?;
    for (cert, key, usage) in [
        ("server.pem", "server.key", ExtendedKeyUsagePurpose::ServerAuth),
        ("cert.pem", "key.pem", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let pair = KeyPair::generate()?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, cert);
        params.extended_key_usages = vec![usage];
        // Names itself as a device would, so that the accept loop of the bare server knows it.
        if cert == "cert.pem" {
            let domain = creel_wire::TrustDomain::of_root(root.der());
            let uri = format!("spiffe://{domain}/operator/{}", "a".repeat(64));
            params.subject_alt_names = vec![rcgen::SanType::URI(rcgen::string::Ia5String::try_from(uri)?)];
        }
        let leaf = params.signed_by(&pair, &issuer)?;
        fs::write(dir.join(cert), leaf.pem())?;
        fs::write(dir.join(key), pair.serialize_pem())?;
    }
    Ok(())
}
