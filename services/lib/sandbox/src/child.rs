//! From a fork of the run's init to the program: everything between is done here, in this order, by one thread.

use std::convert::Infallible;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit, Signal};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

use crate::landlock_wall::{Right, Rules, RulesetFailure};
use crate::profile::Limits;
use crate::report::{Refusal, Wall};
use crate::seccomp::Filters;
use crate::sys::{self, Image};
use crate::wire::{self, MAX_FDS, Order};
use crate::{caps, gate, meter};

/// How much lower than its service's a run's priority is.
const NICE: i32 = 5;

/// What the child tells its init before it becomes the program. Success is the end of the socket at exec.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Setup {
    /// The filters stand; the listener comes with this packet.
    Gate,
    /// It did not work out.
    Failed(Refusal),
}

/// Everything the child needs, put together by its init.
pub(crate) struct Blueprint<'a> {
    pub(crate) order: &'a Order,
    /// Program, working directory, arguments, environment.
    pub(crate) strings: &'a [&'a CStr],
    pub(crate) fds: [Option<OwnedFd>; MAX_FDS],
    pub(crate) rules: Option<Rules>,
    /// `None` where seccomp is not available and no wall needs it.
    pub(crate) filters: Option<&'a Filters>,
    /// Whether to install the gate.
    pub(crate) gated: bool,
    pub(crate) init: Pid,
}

impl Blueprint<'_> {
    /// Becomes the program, or reports on `setup` why not and exits.
    pub(crate) fn build(self, setup: &OwnedFd) -> ! {
        let Err(refusal) = self.try_build(setup);
        // If even this fails, init sees the exit code and an empty socket.
        let _ = wire::post(setup, &Setup::Failed(refusal));
        sys::exit(126)
    }

    fn try_build(mut self, setup: &OwnedFd) -> Result<Infallible, Refusal> {
        let [program, cwd, ..] = *self.strings else {
            return Err(Refusal::setup(
                "read the order",
                &io::ErrorKind::InvalidData.into(),
            ));
        };
        step("start a session", rustix::process::setsid().map(drop))?;
        // The run's init, and the services, must be able to keep up with whatever it does.
        let _ = rustix::process::nice(NICE);
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        self.standard_streams()?;
        step(
            &format!("enter the working directory `{}`", cwd.to_string_lossy()),
            rustix::process::chdir(cwd),
        )?;
        step("set no_new_privs", rustix::thread::set_no_new_privs(true))?;
        step("drop capabilities", caps::drop_all_but(CapabilitySet::empty()))?;
        self.landlock()?;
        self.seccomp(setup)?;
        // Not earlier: what the steps before need is not the program's.
        limit(&self.order.limits)?;
        // After the last change of credentials, which may clear it.
        step(
            "set the death signal",
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL)),
        )?;
        if rustix::process::getppid() != Some(self.init) {
            sys::exit(126); // init died before the signal was set; nobody is there to be told
        }
        sys::restore_sigpipe();
        step("unblock signals", sys::block_signals(false))?;
        step("close descriptors", sys::close_on_exec_from_3())?;

        let (argv, env) = self.strings[2..].split_at(self.order.argc.min(self.strings.len() - 2));
        let image = self.fds[3]
            .as_ref()
            .map_or(Image::Path(program), |fd| Image::Fd(fd.as_fd()));
        let error = sys::exec(&image, argv, env);
        Err(Refusal::setup(
            format!("execute `{}`", program.to_string_lossy()),
            &error,
        ))
    }

    fn standard_streams(&self) -> Result<(), Refusal> {
        let null = step(
            "open /dev/null",
            rustix::fs::open(
                c"/dev/null",
                rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
                rustix::fs::Mode::empty(),
            ),
        )?;
        for (target, fd) in (0..3).zip(&self.fds) {
            step(
                "set a standard stream",
                sys::dup_onto(fd.as_ref().unwrap_or(&null).as_fd(), target),
            )?;
        }
        Ok(())
    }

    fn landlock(&mut self) -> Result<(), Refusal> {
        let Some(rules) = self.rules.take() else {
            return Ok(());
        };
        // Its own /proc entry, for the program itself; what it starts has other entries. They hold nothing of
        // anybody else, and the filter for ptrace applies to what they lead to.
        let own = match self.order.grants.proc.is_empty() {
            true => Ok(rules),
            false => rules.grant_pinned(Path::new("/proc/self"), Right::Read),
        };
        own.and_then(Rules::enforce).map_err(|e| {
            if let RulesetFailure::Open { source, .. } = &e {
                return Refusal::setup("open /proc/self", source);
            }
            let walls = self.order.walls;
            let wall = if walls.fs {
                Wall::Fs
            } else if walls.net {
                Wall::Net
            } else {
                Wall::Kill
            };
            Refusal::unavailable(wall, describe(&e))
        })
    }

    fn seccomp(&self, setup: &OwnedFd) -> Result<(), Refusal> {
        let Some(filters) = self.filters else {
            return Ok(());
        };
        let wall = if self.order.walls.net {
            Wall::Net
        } else {
            Wall::Ipc
        };
        seccompiler::apply_filter(&filters.errors).map_err(|e| Refusal::unavailable(wall, describe(&e)))?;
        if self.gated {
            let listener = sys::install_listener(&filters.gate)
                .map_err(|e| Refusal::unavailable(gate::wall(self.order).unwrap_or(wall), describe(&e)))?;
            let packet = step("encode", wire::encode(&Setup::Gate, &[]))?;
            step(
                "hand over the gate",
                wire::send(setup.as_fd(), &packet, &[listener.as_fd()], true),
            )?;
        }
        Ok(())
    }
}

/// A non-dumpable process gives nobody its memory, its descriptors or its `/proc` entries; exec makes the program
/// dumpable again.
pub(crate) fn hide() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(
        DumpableBehavior::NotDumpable,
    )?)
}

/// Undoes [`hide`].
pub(crate) fn show() -> io::Result<()> {
    Ok(rustix::process::set_dumpable_behavior(
        DumpableBehavior::Dumpable,
    )?)
}

fn limit(limits: &Limits) -> Result<(), Refusal> {
    let processes = meter::backstop(limits);
    let wanted = [
        (Resource::Core, 0, 0),
        (Resource::Msgqueue, 0, 0),
        (Resource::Nproc, processes, processes),
        (Resource::Data, limits.memory_bytes, limits.memory_bytes),
        (
            Resource::Cpu,
            limits.cpu_seconds,
            limits.cpu_seconds.saturating_add(1),
        ),
        (Resource::Nofile, limits.open_files, limits.open_files),
        (Resource::Fsize, limits.file_bytes, limits.file_bytes),
    ];
    for (resource, soft, hard) in wanted {
        let ceiling = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let limit = Rlimit {
            current: Some(soft.min(ceiling)),
            maximum: Some(hard.min(ceiling)),
        };
        step(
            "set a resource limit",
            rustix::process::setrlimit(resource, limit),
        )?;
    }
    Ok(())
}

fn step<T, E: Into<io::Error>>(what: &str, result: Result<T, E>) -> Result<T, Refusal> {
    result.map_err(|e| Refusal::setup(what, &e.into()))
}

/// An error with its sources, for a message that crosses to another process.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
