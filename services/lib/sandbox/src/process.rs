//! Trusted children without walls: what the supervisor starts its services with.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::io::Interest;

use crate::exit::Status;
use crate::sys;

/// Longest secret that can be given on stdin: it must fit the pipe whole, so that writing it never waits for the
/// child.
pub const MAX_STDIN_BYTES: usize = 16 * 1024;

/// Where a stream of a child goes.
#[derive(Debug, Default)]
pub enum Target {
    /// `/dev/null`.
    #[default]
    Null,
    /// Where this process's own goes.
    Inherit,
    /// This descriptor.
    Fd(OwnedFd),
}

/// What to start.
#[derive(Debug, Default)]
pub struct ChildSpec {
    /// The program, absolute.
    pub exe: PathBuf,
    /// Its arguments, without the program's name.
    pub args: Vec<OsString>,
    /// Its complete environment.
    pub env: Vec<(OsString, OsString)>,
    /// Bytes to find on stdin, then the end of file; at most [`MAX_STDIN_BYTES`]. `None` is `/dev/null`.
    pub stdin: Option<Vec<u8>>,
    /// Standard output.
    pub stdout: Target,
    /// Standard error.
    pub stderr: Target,
    /// Leads a process group of its own, so that [`Child::signal_group`] reaches what it starts and a terminal's
    /// Ctrl-C does not reach it.
    pub own_group: bool,
    /// The signal (number) the kernel sends the child when this process dies.
    ///
    /// The kernel ties it to the *thread* that started the child. Only the main thread lives as long as the process,
    /// so with this set [`Child::spawn`] refuses to be called on any other.
    pub death_signal: Option<i32>,
}

/// A running child. Dropping it neither kills nor collects it.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Child {
    /// Starts a child.
    ///
    /// # Errors
    /// `InvalidInput` when `stdin` is too long, the signal is none, or a death signal is asked for on another than
    /// the main thread; else the system's.
    pub fn spawn(spec: ChildSpec) -> io::Result<Self> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
        if spec
            .stdin
            .as_ref()
            .is_some_and(|bytes| bytes.len() > MAX_STDIN_BYTES)
        {
            return Err(invalid("more bytes for stdin than a pipe holds"));
        }
        let death = match spec.death_signal {
            None => None,
            Some(_) if rustix::thread::gettid() != rustix::process::getpid() => {
                return Err(invalid(
                    "a child with a death signal must be started on the main thread",
                ));
            }
            Some(number) => {
                Some(Signal::from_named_raw(number).ok_or_else(|| invalid("not a signal number"))?)
            }
        };

        #[expect(
            clippy::disallowed_methods,
            reason = "this crate is where processes are started"
        )]
        let mut command = std::process::Command::new(&spec.exe);
        command.args(spec.args).env_clear().envs(spec.env);
        command.stdin(if spec.stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        });
        command.stdout(stdio(spec.stdout)).stderr(stdio(spec.stderr));
        if spec.own_group {
            command.process_group(0);
        }
        let parent = rustix::process::getpid();
        // SAFETY: between fork and exec the closure makes system calls and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                // Whatever our own starter left open (a lock, the end of a pipe) would live as long as the child.
                sys::close_on_exec_from_3()?;
                let Some(signal) = death else { return Ok(()) };
                rustix::process::set_parent_process_death_signal(Some(signal))?;
                // The parent may have died before the signal was set.
                match rustix::process::getppid() {
                    Some(now) if now == parent => Ok(()),
                    _ => Err(rustix::io::Errno::SRCH.into()),
                }
            });
        }
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("no pid"))?;
        // Not yet collected, so the pid is the child's own.
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        if let (Some(mut pipe), Some(bytes)) = (child.stdin.take(), spec.stdin) {
            match pipe.write_all(&bytes) {
                // It did not want to read; its exit tells more than this could.
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
                other => other?,
            }
        }
        Ok(Self { pid, pidfd })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits for its end and collects it.
    ///
    /// # Errors
    /// `ECHILD` when it was collected elsewhere (keep [`reap_strays`](crate::reap_strays) away by naming its pid).
    pub async fn wait(&self) -> io::Result<Status> {
        let watched = sys::watch(self.pidfd.as_fd(), Interest::READABLE)?;
        loop {
            let mut ready = watched.readable().await?;
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            ready.clear_ready();
        }
    }

    /// Collects it if it has ended.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub fn try_wait(&self) -> io::Result<Option<Status>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let Some(status) = waitid(WaitId::Pid(self.pid), options)? else {
            return Ok(None);
        };
        Ok(Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Status::Code(code),
            (None, Some(signal)) => Status::Signal(signal),
            (None, None) => Status::Lost,
        }))
    }

    /// Sends it a signal by number. Reaches nobody else, even after its end.
    ///
    /// # Errors
    /// `ESRCH` when it has been collected; `InvalidInput` when there is no such signal.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.pidfd, named(number)?)?)
    }

    /// Sends a signal to its process group (see [`ChildSpec::own_group`]). Not after it has been collected: only
    /// until then the group is certainly its own.
    ///
    /// # Errors
    /// As [`Child::signal`].
    pub fn signal_group(&self, number: i32) -> io::Result<()> {
        Ok(kill_process_group(self.pid, named(number)?)?)
    }
}

fn named(number: i32) -> io::Result<Signal> {
    Signal::from_named_raw(number).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn stdio(target: Target) -> Stdio {
    match target {
        Target::Null => Stdio::null(),
        Target::Inherit => Stdio::inherit(),
        Target::Fd(fd) => Stdio::from(fd),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn sh(script: &str) -> ChildSpec {
        ChildSpec {
            exe: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            ..ChildSpec::default()
        }
    }

    #[tokio::test]
    async fn the_end_is_told_as_code_or_signal() {
        let child = Child::spawn(sh("exit 7")).unwrap();
        assert_eq!(child.wait().await.unwrap(), Status::Code(7));
        let child = Child::spawn(sh("kill -9 $$")).unwrap();
        assert_eq!(child.wait().await.unwrap(), Status::Signal(9));
        assert!(child.wait().await.is_err(), "collected once");
    }

    #[tokio::test]
    async fn stdin_holds_the_bytes_and_ends_and_the_environment_is_only_what_was_given() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let spec = ChildSpec {
            stdin: Some(b"s3cret".to_vec()),
            stdout: Target::Fd(write),
            env: vec![("A".into(), "1".into())],
            ..sh("cat; echo \" $A $HOME\"")
        };
        let child = Child::spawn(spec).unwrap();
        assert_eq!(child.wait().await.unwrap(), Status::Code(0));
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, "s3cret 1 \n");
    }

    #[tokio::test]
    async fn no_descriptor_but_the_three_streams_is_passed_on() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let (held, inherited) = rustix::pipe::pipe().unwrap();
        rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).unwrap();
        let spec = ChildSpec {
            stdout: Target::Fd(write),
            ..sh("echo; sleep 1000")
        };
        let child = Child::spawn(spec).unwrap();
        std::fs::File::from(read).read_exact(&mut [0]).unwrap();
        drop(inherited);
        // The end comes while the child lives: it has no copy.
        assert_eq!(std::fs::File::from(held).read(&mut [0]).unwrap(), 0);
        child.signal(libc::SIGKILL).unwrap();
        child.wait().await.unwrap();
    }

    #[tokio::test]
    async fn a_signal_to_the_group_reaches_what_the_child_started() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let spec = ChildSpec {
            stdout: Target::Fd(write),
            own_group: true,
            ..sh("sleep 1000 & echo; wait")
        };
        let child = Child::spawn(spec).unwrap();
        let mut read = std::fs::File::from(read);
        read.read_exact(&mut [0]).unwrap();
        child.signal_group(libc::SIGKILL).unwrap();
        assert_eq!(child.wait().await.unwrap(), Status::Signal(9));
        // Both held the pipe; its end says both are gone.
        assert_eq!(read.read(&mut [0]).unwrap(), 0);
    }

    #[tokio::test]
    async fn a_death_signal_is_refused_off_the_main_thread() {
        let spec = ChildSpec {
            death_signal: Some(libc::SIGKILL),
            ..sh("true")
        };
        let refused = std::thread::spawn(|| Child::spawn(spec)).join().unwrap();
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let long = ChildSpec {
            stdin: Some(vec![0; MAX_STDIN_BYTES + 1]),
            ..sh("true")
        };
        assert!(Child::spawn(long).is_err());
    }
}
