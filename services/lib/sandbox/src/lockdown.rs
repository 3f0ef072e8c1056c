//! How a service gives up what it does not need, before it listens.
//!
//! Landlock and `no_new_privs` bind the calling thread and what it starts later; only kernels from 7.0 on can bind
//! all threads at once. So [`lock_service`] must be called while the process has one thread: early in `main`, after
//! [`Spawner::start`](crate::Spawner::start), before the runtime. It refuses otherwise. There is no way back.
//!
//! What this does not do: keep a service from connecting to unix sockets of other processes of the same user
//! (Landlock ABI 9 will; until then mutual TLS is the wall), nor hold against a kernel bug.

use std::path::PathBuf;

use rustix::thread::CapabilitySet;

use crate::base::Base;
use crate::landlock_wall::{Ports, Right, Rules, RulesetFailure, Scopes};
use crate::report::Level;
use crate::{caps, child, seccomp, sys};

/// What a service keeps.
#[derive(Debug, Clone, Default)]
pub struct LockSpec {
    /// Files and directories it reads: configuration, certificates, trust bundles.
    pub read: Vec<PathBuf>,
    /// Directories it reads and writes, with sockets in them: state, log, run. They must exist.
    pub write: Vec<PathBuf>,
    /// TCP ports it listens on. Port 0 in the list means any that the kernel picks.
    pub tcp_bind: Ports,
    /// TCP ports it connects to, on any host.
    pub tcp_connect: Ports,
    /// Whether it needs ports below 1024.
    pub low_ports: bool,
    /// Whether it has started a spawner: then it keeps the right to signal processes outside its own walls, which
    /// it needs to end what a dead spawner leaves.
    pub has_spawner: bool,
}

/// What stands around the service now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockReport {
    /// `full` when everything below holds; `partial` when the kernel lacks something; `none` without Landlock and
    /// seccomp.
    pub level: Level,
    /// The kernel's Landlock ABI; 0 = files and ports are not restricted.
    pub landlock_abi: u32,
    /// System calls are filtered.
    pub seccomp: bool,
    /// What is missing, for `status`. Empty at `full`.
    pub gaps: Vec<&'static str>,
}

/// Why a service could not lock itself. It must not go on: half of it may stand.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Other threads would stay outside.
    #[error("{threads} threads run; lock_service must be called before any is started")]
    Threads {
        /// How many.
        threads: usize,
    },
    /// A path of the specification can't be opened.
    #[error("could not open `{}`", .path.display())]
    Path {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A call that this kernel should know failed.
    #[error("could not {step}: {cause}")]
    Step {
        /// What was attempted.
        step: &'static str,
        /// Why it failed.
        cause: String,
    },
}

/// Locks the calling process. On kernels without Landlock or seccomp it does what it can and says so.
///
/// # Errors
/// [`LockError`].
pub fn lock_service(spec: &LockSpec) -> Result<LockReport, LockError> {
    match sys::thread_count() {
        Some(1) => {}
        threads => {
            return Err(LockError::Threads {
                threads: threads.unwrap_or(0),
            });
        }
    }
    let landlock_abi = sys::landlock_abi();
    let seccomp = sys::seccomp_has(libc::SECCOMP_RET_ERRNO);

    step("hide from ptrace", child::hide())?;
    step("set no_new_privs", rustix::thread::set_no_new_privs(true))?;
    let keep = if spec.low_ports {
        CapabilitySet::NET_BIND_SERVICE
    } else {
        CapabilitySet::empty()
    };
    step("drop capabilities", caps::drop_all_but(keep))?;
    if let Some(rules) = rules(spec, landlock_abi)? {
        rules.enforce().map_err(failure)?;
    }
    if seccomp {
        let program = step("compile the filter", seccomp::for_service())?;
        step("install the filter", seccompiler::apply_filter(&program))?;
    }

    let checks = [
        (landlock_abi >= 1, "files are not restricted (needs Landlock)"),
        (
            landlock_abi >= 3,
            "truncation is not restricted (needs kernel 6.2)",
        ),
        (
            landlock_abi >= 4,
            "TCP ports are not restricted (needs kernel 6.7)",
        ),
        (
            landlock_abi >= 6 || spec.has_spawner,
            "signals are not restricted (needs kernel 6.12)",
        ),
        (seccomp, "system calls are not filtered (needs seccomp)"),
    ];
    let gaps: Vec<_> = checks
        .iter()
        .filter(|(held, _)| !held)
        .map(|(_, gap)| *gap)
        .collect();
    let level = match (gaps.is_empty(), landlock_abi, seccomp) {
        (true, ..) => Level::Full,
        (false, 0, false) => Level::None,
        _ => Level::Partial,
    };
    Ok(LockReport {
        level,
        landlock_abi,
        seccomp,
        gaps,
    })
}

fn rules(spec: &LockSpec, abi: u32) -> Result<Option<Rules>, LockError> {
    let scopes = Scopes {
        files: true,
        bind: spec.tcp_bind.clone(),
        connect: spec.tcp_connect.clone(),
        signals: !spec.has_spawner,
        abstract_sockets: true,
    };
    let build = || -> Result<Option<Rules>, RulesetFailure> {
        let Some(mut rules) = Rules::new(abi, &scopes)? else {
            return Ok(None);
        };
        // Libraries that glibc loads late (name services, character sets); mapping them needs no right to execute.
        // And /proc, for the children of a dead spawner and the status of peers: what is another process's secret
        // there is guarded by ptrace rights, which no locked process has over an unlocked one.
        let system = ["/usr", "/lib", "/lib64", "/proc"].map(PathBuf::from);
        let base = system
            .into_iter()
            .chain(Base::System.readable().iter().map(PathBuf::from));
        for path in base.filter_map(|p| std::fs::canonicalize(p).ok()) {
            rules = rules.grant(&path, Right::Read)?;
        }
        for path in Base::System.devices() {
            if let Ok(path) = std::fs::canonicalize(path) {
                rules = rules.grant(&path, Right::Device)?;
            }
        }
        for (paths, right) in [(&spec.read, Right::Read), (&spec.write, Right::WriteAndSockets)] {
            for path in paths {
                let real = std::fs::canonicalize(path).map_err(|source| RulesetFailure::Open {
                    path: path.clone(),
                    source,
                })?;
                rules = rules.grant(&real, right)?;
            }
        }
        Ok(Some(rules))
    };
    build().map_err(failure)
}

fn failure(e: RulesetFailure) -> LockError {
    match e {
        RulesetFailure::Open { path, source } => LockError::Path { path, source },
        e @ RulesetFailure::Landlock(_) => LockError::Step {
            step: "restrict with Landlock",
            cause: child::describe(&e),
        },
    }
}

fn step<T, E: std::error::Error>(step: &'static str, result: Result<T, E>) -> Result<T, LockError> {
    result.map_err(|e| LockError::Step {
        step,
        cause: child::describe(&e),
    })
}
