//! The gate: the run's init judges, call by call, what a filter alone can't.
//!
//! - **Sockets** of a run with [`Net::Proxy`] are made here, already connected to the proxy, and given to the
//!   program; its own `connect` is answered with success and not run. So the only sockets it ever holds lead to the
//!   proxy. Landlock's TCP rules can't say that: they know ports and no addresses, and a stranger's host may listen
//!   on the same port.
//! - **Modes, owners and times** of files by path: see [`metadata`].
//!
//! Judged arguments are register values in the notification. A call whose meaning lies in the program's memory is
//! never let through on the strength of a look at it: it could change between the look and the call.
//!
//! If init dies, the kernel answers gated calls with ENOSYS. One thing the gate is not good for is `fork`: a signal
//! that arrives before init has taken the call makes it fail with EINTR where the handler does not restart calls,
//! and shells with a handler for SIGCHLD do not expect that of fork. So processes are counted by `meter.rs`.

mod metadata;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};

use self::metadata::Change;
use crate::profile::Net;
use crate::report::Wall;
use crate::sys::{self, Verdict};
use crate::tree;
use crate::wire::Order;

/// How long the proxy may take to accept on loopback. While it does, the run's other gated calls wait, and so does
/// its end.
const CONNECT_PATIENCE: Duration = Duration::from_millis(250);

pub(crate) struct Gate {
    listener: OwnedFd,
    net: Net,
    /// Where modes, owners and times may be changed.
    writable: Vec<PathBuf>,
}

impl Gate {
    pub(crate) fn new(listener: OwnedFd, order: &Order) -> Self {
        Self {
            listener,
            net: order.net,
            writable: order.grants.write.clone(),
        }
    }

    /// Judges the next call. To be called when the listener is readable.
    pub(crate) fn judge(&self) -> io::Result<()> {
        let call = match sys::notification(self.listener.as_fd()) {
            Ok(call) => call,
            // The caller died before we looked.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => return Ok(()),
            Err(e) => return Err(e),
        };
        let (nr, args) = (i64::from(call.data.nr), &call.data.args);
        let answered = if nr == libc::SYS_socket {
            match self.socket(args) {
                Ok((fd, cloexec)) => self.answer(
                    call.id,
                    &Verdict::Give {
                        fd: fd.as_fd(),
                        cloexec,
                    },
                ),
                Err(errno) => self.answer(call.id, &Verdict::Fail(errno)),
            }
        } else if nr == libc::SYS_connect {
            // Only the error's wording depends on the address: whatever it says, nothing is connected.
            match family(call.pid.cast_signed(), args[1]) {
                Some(libc::AF_INET | libc::AF_INET6) => self.answer(call.id, &Verdict::Done),
                _ => self.answer(call.id, &Verdict::Fail(libc::EPERM)),
            }
        } else if let Some(change) = Change::from_call(nr, args) {
            let caller = call.pid.cast_signed();
            let waits = || sys::still_waits(self.listener.as_fd(), call.id);
            match change.apply(caller, &self.writable, waits) {
                Ok(()) => self.answer(call.id, &Verdict::Done),
                Err(errno) => self.answer(call.id, &Verdict::Fail(errno)),
            }
        } else {
            self.answer(call.id, &Verdict::Fail(libc::ENOSYS))
        };
        match answered {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            // The program's descriptor table is full: its own problem, told as socket(2) tells it.
            Err(e) if e.raw_os_error() == Some(libc::EMFILE) => {
                self.answer(call.id, &Verdict::Fail(libc::EMFILE))
            }
            other => other,
        }
    }

    fn answer(&self, id: u64, verdict: &Verdict<'_>) -> io::Result<()> {
        sys::answer(self.listener.as_fd(), id, verdict)
    }

    fn socket(&self, args: &[u64; 6]) -> Result<(OwnedFd, bool), i32> {
        let Net::Proxy { port } = self.net else {
            return Err(libc::EPERM);
        };
        let [family, kind, protocol] = [args[0], args[1], args[2]].map(low_int);
        if family != libc::AF_INET {
            // As if IPv6 were switched off: programs go on with IPv4.
            return Err(libc::EAFNOSUPPORT);
        }
        if kind & 0xf != libc::SOCK_STREAM {
            return Err(libc::EPERM);
        }
        if protocol != 0 && protocol != libc::IPPROTO_TCP {
            return Err(libc::EPROTONOSUPPORT);
        }
        let fd = connected(port).map_err(|e| e.raw_os_error().unwrap_or(libc::ECONNREFUSED))?;
        rustix::io::ioctl_fionbio(&fd, kind & libc::SOCK_NONBLOCK != 0)
            .map_err(rustix::io::Errno::raw_os_error)?;
        Ok((fd, kind & libc::SOCK_CLOEXEC != 0))
    }
}

impl AsFd for Gate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Whether a run has anything for a gate to judge; with it, the wall that falls when it can't be installed.
pub(crate) fn wall(order: &Order) -> Option<Wall> {
    if order.walls.net && matches!(order.net, Net::Proxy { .. }) {
        Some(Wall::Net)
    } else {
        order.walls.fs.then_some(Wall::Fs)
    }
}

/// A TCP connection to the proxy, or why there is none.
fn connected(port: u16) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    match connect(&fd, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
        Err(rustix::io::Errno::INPROGRESS) => {
            let mut polled = [PollFd::new(&fd, PollFlags::OUT)];
            if poll(&mut polled, tree::timespec(CONNECT_PATIENCE).as_ref())? == 0 {
                return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
            }
            sockopt::socket_error(&fd)??;
        }
        other => other?,
    }
    Ok(fd)
}

/// The address family at an address of the program's memory.
fn family(caller: libc::pid_t, address: u64) -> Option<i32> {
    let mut family = [0; 2];
    let read = sys::read_memory(caller, address, &mut family).ok()?;
    (read == family.len()).then(|| i32::from(u16::from_ne_bytes(family)))
}

fn low_int(arg: u64) -> i32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the kernel takes these arguments as int, too"
    )]
    let low = arg as u32;
    low.cast_signed()
}
