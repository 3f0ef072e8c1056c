//! A stack in a temporary profile: how fast it starts, what it costs when nobody asks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use creel_kit::{
    Profile,
    profile::{EdgeFile, StatusFile},
};
use creel_proto::identity::v1::TrustBundle;
use creel_wire::{
    ServiceName,
    channel::{Dialler, Target},
    tls::{Credentials, Tls, Trust},
};
use prost::Message as _;
use tonic::transport::Channel;

use crate::{Row, load, median};

pub(crate) struct Stack {
    bin: PathBuf,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) profile: Profile,
}

impl Stack {
    fn new(bin: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("creel-bench-")
            .tempdir_in("/tmp")?;
        let config = "[gateway]\nlisten = \"127.0.0.1:19789\"\nadmin_listen = \"127.0.0.1:19790\"\n\
                      max_connections_per_device = 2000\n[agent]\nmax_running_turns = 100\n";
        fs::write(dir.path().join("creel.toml"), config)?;
        Ok(Self {
            bin: bin.to_owned(),
            profile: Profile::at("default", dir.path())?,
            dir,
        })
    }

    pub(crate) fn start(bin: &Path) -> anyhow::Result<Self> {
        let stack = Self::new(bin)?;
        stack.up()?;
        Ok(stack)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.env("CREEL_HOME", self.dir.path()).stdin(Stdio::null());
        command
    }

    /// `creeld up --detach`; seconds until it returned, which is when everything is ready.
    pub(crate) fn up(&self) -> anyhow::Result<f64> {
        let started = Instant::now();
        let output = self
            .command("creeld")
            .args(["up", "--detach"])
            .output()
            .context("creeld")?;
        if !output.status.success() {
            bail!("creeld up: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(started.elapsed().as_secs_f64())
    }

    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        self.command("creeld").arg("down").output()?;
        Ok(())
    }

    pub(crate) fn creel(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command("creel").args(arguments).output()?;
        if !output.status.success() {
            bail!("creel {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(crate) fn edge(&self) -> anyhow::Result<EdgeFile> {
        Ok(serde_json::from_slice(&fs::read(
            self.dir.path().join("run/edge.json"),
        )?)?)
    }

    /// The directory of a script's certificate, made when there is none.
    pub(crate) fn script_cert(&self) -> anyhow::Result<PathBuf> {
        let dir = self.dir.path().join("bench-cert");
        if !dir.exists() {
            let out = dir.to_string_lossy();
            let mut arguments = vec!["devices", "cert", "--name", "bench", "--out", &out];
            for scope in ["operator.read", "operator.write", "operator.pairing"] {
                arguments.extend(["--scope", scope]);
            }
            self.creel(&arguments)?;
        }
        Ok(dir)
    }

    /// A connection to the edge, as that script.
    pub(crate) fn script(&self) -> anyhow::Result<Channel> {
        load::edge_channel(&self.edge()?.address, &self.script_cert()?)
    }

    /// A connection to the service `to` as the service `own`, by its certificate.
    pub(crate) fn as_service(&self, own: ServiceName, to: ServiceName) -> anyhow::Result<Channel> {
        let bundle = TrustBundle::decode(fs::read(self.profile.bundle_file())?.as_slice())?;
        let trust = Trust::try_from(&bundle)?;
        let name = trust.domain.dns_name(to);
        let dir = self.profile.credentials(own);
        let own = Credentials::from_pem(&fs::read(dir.join("cert.pem"))?, &fs::read(dir.join("key.pem"))?)?;
        let tls = Tls::new(trust, Some(own))?;
        let target = Target::Unix(self.profile.socket(to));
        Ok(Dialler::new(target, &name, Arc::new(move || tls.client()))?.channel())
    }

    fn status(&self) -> anyhow::Result<StatusFile> {
        Ok(serde_json::from_slice(&fs::read(self.profile.status_file())?)?)
    }

    pub(crate) fn pid_of(&self, service: ServiceName) -> anyhow::Result<u32> {
        let services = self.status()?.services;
        let own = services.iter().find(|one| one.name == service.as_str());
        Ok(own.with_context(|| format!("no {service}"))?.pid)
    }

    /// Supervisor, services, and everything they started.
    fn pids(&self) -> anyhow::Result<Vec<u32>> {
        let mut pids = vec![self.status()?.pid];
        let mut at = 0;
        while at < pids.len() {
            let tasks = format!("/proc/{0}/task/{0}/children", pids[at]);
            let children = fs::read_to_string(tasks).unwrap_or_default();
            pids.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
            at += 1;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// The same as a list for other programs.
    pub(crate) fn pids_text(&self) -> anyhow::Result<String> {
        let pids: Vec<String> = self.pids()?.iter().map(u32::to_string).collect();
        Ok(pids.join(","))
    }

    pub(crate) fn status_time(&self, rounds: usize) -> anyhow::Result<Row> {
        self.creel(&["status"])?;
        let mut times = Vec::new();
        for _ in 0..rounds {
            let started = Instant::now();
            self.creel(&["status"])?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        Ok(Row::new(
            "`creel status`, wall",
            format!("{:.1} ms", median(&mut times)),
            "goal ≤ 15 ms",
        ))
    }

    pub(crate) fn idle(&self, watch: Duration) -> anyhow::Result<Vec<Row>> {
        std::thread::sleep(Duration::from_secs(3));
        let pids = self.pids()?;
        let before = cpu_ticks(&pids);
        std::thread::sleep(watch);
        let ticks = cpu_ticks(&pids) - before;
        let pss: u64 = pids.iter().map(|pid| pss_kib(*pid)).sum();
        let percent =
            f64::from(u32::try_from(ticks).unwrap_or(u32::MAX)) / 100.0 / watch.as_secs_f64() * 100.0;
        let pss_mib = f64::from(u32::try_from(pss).unwrap_or(u32::MAX)) / 1024.0;
        Ok(vec![
            Row::new(
                "idle stack, PSS",
                format!("{pss_mib:.1} MiB in {} processes", pids.len()),
                "goal ≤ 40 MB; OpenClaw about 900 MB",
            ),
            Row::new(
                format!("idle stack, CPU over {} s", watch.as_secs()),
                format!("{percent:.2} %"),
                "goal ≤ 0.1 %; OpenClaw 1.25 %",
            ),
        ])
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // However the bench ends; of what is down already there is nothing to stop.
        let _ = self.stop();
    }
}

/// Cold: a fresh profile each time, CA and all. Warm: the same profile again.
pub(crate) fn starts(bin: &Path, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let stack = Stack::new(bin)?;
        cold.push(stack.up()? * 1e3);
        stack.stop()?;
        warm.push(stack.up()? * 1e3);
        stack.stop()?;
    }
    Ok(vec![
        Row::new(
            "`creeld up` to ready, first start",
            format!("{:.0} ms", median(&mut cold)),
            "",
        ),
        Row::new(
            "`creeld up` to ready, warm",
            format!("{:.0} ms", median(&mut warm)),
            "goal ≤ 200 ms; OpenClaw 14.6 s",
        ),
    ])
}

fn pss_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// User and system time in ticks of 10 ms.
pub(crate) fn cpu_ticks(pids: &[u32]) -> u64 {
    let of = |pid: &u32| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<_> = text.rsplit_once(") ")?.1.split(' ').collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    };
    pids.iter().filter_map(of).sum()
}

/// What processes, a list with commas, have put on the disk, by the kernel's account.
pub(crate) fn written_bytes(pids: &str) -> anyhow::Result<u64> {
    let mut sum = 0;
    for pid in pids.split(',') {
        let text = fs::read_to_string(format!("/proc/{pid}/io"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        sum += line.context("write_bytes")?.trim().parse::<u64>()?;
    }
    Ok(sum)
}
