//! Identity, scheduler and gateway as processes of their own, without a supervisor, so that one can be killed
//! and started when the bench says so.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, ensure};
use creel_proto::scheduler::v1::Schedule;
use creel_wire::ServiceName;
use tonic::transport::Channel;

use super::seed;
use crate::stack::Stack;

/// A million jobs are read at a start.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bed {
    bin: PathBuf,
    stack: Stack,
    identity: Option<Child>,
    scheduler: Option<Child>,
    gateway: Option<Child>,
    seeded: u64,
}

impl Bed {
    /// A profile with certificates and one job to copy; nothing runs.
    pub(crate) fn new(bin: &Path) -> anyhow::Result<Self> {
        let stack = Stack::start(bin)?;
        stack.script_cert()?;
        stack.creel(&[
            "cron",
            "add",
            "template",
            "--at",
            "in 300d",
            "--message",
            "tick",
            "--deliver",
            "none",
            "--no-alert",
        ])?;
        stack.stop()?;
        Ok(Self {
            bin: bin.to_owned(),
            stack,
            identity: None,
            scheduler: None,
            gateway: None,
            seeded: 0,
        })
    }

    /// Writes so many more jobs into the store of the scheduler, which must not run.
    pub(crate) async fn seed(
        &mut self,
        count: u64,
        when: impl Fn(i64) -> Schedule + Send + Sync,
    ) -> anyhow::Result<()> {
        ensure!(self.scheduler.is_none(), "the scheduler has its store open");
        let store = self.stack.profile.state(ServiceName::Scheduler).join("db");
        seed::write(&store, self.seeded, count, &when).await?;
        self.seeded += count;
        Ok(())
    }

    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        // Identity's health is asked with a certificate that only the supervisor has; its socket is made anew.
        let socket = self.stack.profile.socket(ServiceName::Identity);
        let _ = fs::remove_file(&socket);
        self.identity = Some(self.spawn("identity")?);
        let limit = Instant::now() + PATIENCE;
        while !socket.exists() {
            ensure!(Instant::now() < limit, "identity does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.gateway = Some(self.spawn("gateway")?);
        self.start_scheduler()?;
        self.wait("gateway")
    }

    pub(crate) fn start_scheduler(&mut self) -> anyhow::Result<()> {
        self.spawn_scheduler()?;
        self.wait("scheduler")
    }

    /// Without waiting until it serves.
    pub(crate) fn spawn_scheduler(&mut self) -> anyhow::Result<()> {
        self.scheduler = Some(self.spawn("scheduler")?);
        Ok(())
    }

    pub(crate) fn kill_scheduler(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.scheduler.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    pub(crate) fn stop_scheduler(&mut self) -> anyhow::Result<()> {
        stop(self.scheduler.take())
    }

    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        stop(self.gateway.take())?;
        stop(self.scheduler.take())?;
        stop(self.identity.take())
    }

    fn spawn(&self, service: &str) -> anyhow::Result<Child> {
        Command::new(self.bin.join("creeld"))
            .arg(service)
            .env("CREEL_HOME", self.stack.dir.path())
            .env_remove("CREEL_SUPERVISED")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("creeld {service}"))
    }

    fn wait(&self, service: &str) -> anyhow::Result<()> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let asked = Command::new(self.bin.join("creeld"))
                .args(["health", service])
                .env("CREEL_HOME", self.stack.dir.path())
                .stdin(Stdio::null())
                .output()?;
            if asked.status.success() {
                return Ok(());
            }
            ensure!(
                Instant::now() < limit,
                "{service} does not serve: {}",
                String::from_utf8_lossy(&asked.stderr)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn scheduler_pid(&self) -> u32 {
        self.scheduler.as_ref().map_or(0, Child::id)
    }

    /// Those that every fire goes through.
    pub(crate) fn pids(&self) -> Vec<u32> {
        [&self.identity, &self.scheduler]
            .into_iter()
            .flatten()
            .map(Child::id)
            .collect()
    }

    /// A connection to the edge, as an operator's script.
    pub(crate) fn edge(&self) -> anyhow::Result<Channel> {
        self.stack.script()
    }

    /// A connection to the scheduler, as agent-runner.
    pub(crate) fn as_worker(&self) -> anyhow::Result<Channel> {
        self.stack
            .as_service(ServiceName::AgentRunner, ServiceName::Scheduler)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for mut child in [self.gateway.take(), self.scheduler.take(), self.identity.take()]
            .into_iter()
            .flatten()
        {
            // Gone already is fine.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn stop(child: Option<Child>) -> anyhow::Result<()> {
    let Some(mut child) = child else { return Ok(()) };
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id())?).context("a process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    let limit = Instant::now() + Duration::from_secs(20);
    while child.try_wait()?.is_none() {
        if Instant::now() > limit {
            child.kill()?;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

pub(crate) fn rss_mib(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib: u32 = text
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or(0);
    f64::from(kib) / 1024.0
}
