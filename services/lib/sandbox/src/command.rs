//! What to run: the command a service hands to its spawner.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::profile::{Grants, Profile};
use crate::wire::{self, MAX_FDS, Order, Request};

/// Time between TERM and KILL when nobody says otherwise (`exec.md`: 5 s).
pub const DEFAULT_GRACE: Duration = Duration::from_secs(5);
/// Longest grace: with the second that SIGKILL gets, a run is gone 6 s after it was told to end.
pub const MAX_GRACE: Duration = Duration::from_secs(5);

/// One standard stream of a run.
#[derive(Debug, Default)]
pub enum Io {
    /// `/dev/null`.
    #[default]
    Null,
    /// This descriptor: a pipe, a file, one end of a *stream* socketpair. (A datagram socket would let the program
    /// send to any socket of the host.)
    Fd(OwnedFd),
    /// Collected by the service; the first `max_bytes` are kept, the rest is counted. Not for stdin.
    Capture {
        /// How much is kept.
        max_bytes: usize,
    },
}

/// One program to run inside walls.
#[derive(Debug)]
pub struct Command {
    /// The program's absolute path, followed by its arguments. Nothing is searched, nothing is expanded.
    pub argv: Vec<OsString>,
    /// What the program sees as `argv[0]`; the path if `None`.
    pub argv0: Option<OsString>,
    /// An already opened program to run instead of what lies at `argv[0]` now. Must be an ELF file: the kernel
    /// can't hand an interpreter a script that is only a descriptor.
    pub image: Option<OwnedFd>,
    /// The complete environment; nothing is inherited.
    pub env: Vec<(OsString, OsString)>,
    /// Working directory, absolute. It is entered, not granted.
    pub cwd: PathBuf,
    /// What it may touch.
    pub profile: Profile,
    /// Standard input.
    pub stdin: Io,
    /// Standard output.
    pub stdout: Io,
    /// Standard error.
    pub stderr: Io,
    /// After this long the run is ended as by [`Run::kill`](crate::Run::kill).
    pub timeout: Option<Duration>,
    /// Between TERM to the group and SIGKILL to everything; at most [`MAX_GRACE`].
    pub grace: Duration,
}

impl Command {
    /// A command with an empty environment, `/dev/null` on all streams and no timeout.
    pub fn new<A: Into<OsString>>(
        argv: impl IntoIterator<Item = A>,
        cwd: impl Into<PathBuf>,
        profile: Profile,
    ) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            argv0: None,
            image: None,
            env: Vec::new(),
            cwd: cwd.into(),
            profile,
            stdin: Io::Null,
            stdout: Io::Null,
            stderr: Io::Null,
            timeout: None,
            grace: DEFAULT_GRACE,
        }
    }
}

/// A command as it travels: one packet and its descriptors.
pub(crate) struct Parcel {
    pub(crate) packet: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Parcel {
    /// Packs a command whose profile resolved to `grants`. The streams must be [`Io::Null`] or [`Io::Fd`] by now.
    pub(crate) fn pack(run: u64, command: Command, grants: Grants) -> io::Result<Self> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why.to_owned());
        let program = command
            .argv
            .first()
            .ok_or_else(|| invalid("the command has no program"))?;
        if !Path::new(program).is_absolute() || !command.cwd.is_absolute() {
            return Err(invalid("program and working directory must be absolute paths"));
        }
        let mut tail = Vec::new();
        wire::push_string(&mut tail, program.as_bytes())?;
        wire::push_string(&mut tail, command.cwd.as_os_str().as_bytes())?;
        wire::push_string(&mut tail, command.argv0.as_ref().unwrap_or(program).as_bytes())?;
        for argument in &command.argv[1..] {
            wire::push_string(&mut tail, argument.as_bytes())?;
        }
        for (name, value) in &command.env {
            if name.is_empty() || name.as_bytes().contains(&b'=') {
                return Err(invalid("a variable's name is empty or contains `=`"));
            }
            wire::push_string(&mut tail, &[name.as_bytes(), b"=", value.as_bytes()].concat())?;
        }

        let mut fds = Vec::new();
        let mut sent = [false; MAX_FDS];
        for (slot, io) in [command.stdin, command.stdout, command.stderr]
            .into_iter()
            .enumerate()
        {
            match io {
                Io::Null => {}
                Io::Fd(fd) => {
                    sent[slot] = true;
                    fds.push(fd);
                }
                Io::Capture { .. } => return Err(invalid("stdin can't be captured")),
            }
        }
        if let Some(image) = command.image {
            sent[3] = true;
            fds.push(image);
        }
        let order = Order {
            run,
            walls: command.profile.walls,
            net: command.profile.net,
            limits: command.profile.limits,
            grants,
            timeout_ms: command.timeout.map(millis),
            grace_ms: millis(command.grace.min(MAX_GRACE)),
            fds: sent,
            argc: command.argv.len(),
        };
        Ok(Self {
            packet: wire::encode(&Request::Run(Box::new(order)), &tail)?,
            fds,
        })
    }

    /// Sends without waiting; `WouldBlock` when there is no room.
    pub(crate) fn send(&self, socket: impl AsFd) -> io::Result<()> {
        let fds: Vec<_> = self.fds.iter().map(AsFd::as_fd).collect();
        wire::send(socket.as_fd(), &self.packet, &fds, false)
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(argv: &[&str]) -> Command {
        Command::new(
            argv.iter().copied(),
            "/",
            Profile::turn(Path::new("/tmp"), Path::new("/tmp")),
        )
    }

    fn grants() -> Grants {
        Grants {
            exec: vec![],
            read: vec![],
            proc: vec![],
            devices: vec![],
            write: vec![],
        }
    }

    #[test]
    fn the_tail_holds_program_cwd_argv_and_environment_in_order() {
        let mut c = command(&["/bin/sh", "-c", "true"]);
        c.argv0 = Some("sh".into());
        c.env.push(("A".into(), "1=2".into()));
        let parcel = Parcel::pack(3, c, grants()).unwrap();
        let (Request::Run(order), tail) = wire::decode(&parcel.packet).unwrap() else {
            panic!()
        };
        assert_eq!((order.run, order.argc), (3, 3));
        assert_eq!(
            wire::strings(tail).unwrap(),
            [c"/bin/sh", c"/", c"sh", c"-c", c"true", c"A=1=2"]
        );
    }

    #[test]
    fn nonsense_is_refused_before_it_is_sent() {
        let refused = |c: Command| Parcel::pack(1, c, grants()).is_err();
        assert!(refused(command(&[])));
        assert!(refused(command(&["sh"])), "no search path");
        assert!(refused(command(&["/bin/sh", "a\0b"])));
        assert!(refused(Command {
            cwd: "work".into(),
            ..command(&["/bin/sh"])
        }));
        assert!(refused(Command {
            env: vec![("A=B".into(), "".into())],
            ..command(&["/bin/sh"])
        }));
        assert!(refused(Command {
            stdin: Io::Capture { max_bytes: 1 },
            ..command(&["/bin/sh"])
        }));
        assert!(
            refused(command(&["/bin/sh", &"x".repeat(wire::MAX_PACKET)])),
            "bounded"
        );
        assert!(!refused(command(&["/bin/sh"])));
    }
}
