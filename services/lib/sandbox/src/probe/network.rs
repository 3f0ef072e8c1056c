//! Acts against the `net` and `ipc` walls.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener, UnixStream};
use std::time::Duration;

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    listen, recv, sendto, socket, socketpair,
};

use super::{Act, Outcome, Targets, check, done, reach};
use crate::report::Wall::{Ipc, Net};

const fn net(name: &'static str, needs: &'static [&'static str], attempt: fn(&Targets) -> Outcome) -> Act {
    Act {
        name,
        wall: Net,
        needs,
        attempt,
    }
}

const fn ipc(name: &'static str, needs: &'static [&'static str], attempt: fn(&Targets) -> Outcome) -> Act {
    Act {
        name,
        wall: Ipc,
        needs,
        attempt,
    }
}

pub(super) const ACTS: &[Act] = &[
    net("talk TCP to a host", &["tcp"], |t| {
        let stream = TcpStream::connect(t.get::<SocketAddr>("tcp")?)?;
        hear(stream)
    }),
    net("talk TCP by fast open", &["tcp"], |t| {
        let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        // MSG_FASTOPEN, which rustix has no name for.
        let flags = SendFlags::from_bits_retain(0x2000_0000);
        sendto(&fd, b"x", flags, &t.get::<SocketAddr>("tcp")?)?;
        hear(TcpStream::from(fd))
    }),
    net("talk multipath TCP", &["tcp"], |t| {
        let fd = socket(
            AddressFamily::INET,
            SocketType::STREAM,
            Some(rustix::net::ipproto::MPTCP),
        )?;
        connect(&fd, &t.get::<SocketAddr>("tcp")?)?;
        hear(TcpStream::from(fd))
    }),
    net("disconnect a socket and connect it elsewhere", &["tcp"], |t| {
        let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        let unspecified = libc::sockaddr {
            sa_family: 0,
            sa_data: [0; 14],
        };
        let len = libc::socklen_t::try_from(size_of::<libc::sockaddr>()).map_err(io::Error::other)?;
        // SAFETY: an initialised address of the given length.
        check(unsafe { libc::connect(fd.as_raw_fd(), &raw const unspecified, len) })?;
        connect(&fd, &t.get::<SocketAddr>("tcp")?)?;
        hear(TcpStream::from(fd))
    }),
    net("send a datagram", &["udp"], |t| {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket
            .send_to(b"x", t.get::<SocketAddr>("udp")?)
            .map(|n| format!("{n} bytes"))
    }),
    net("listen on TCP", &[], |_| {
        let fd = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        bind(&fd, &any)?;
        Ok(listen(&fd, 1).map(done("listening"))?)
    }),
    net("make an IPv6 socket", &[], |_| {
        make(AddressFamily::INET6, SocketType::STREAM, None)
    }),
    net("make a raw socket", &[], |_| {
        make(
            AddressFamily::INET,
            SocketType::RAW,
            Some(rustix::net::ipproto::ICMP),
        )
    }),
    net("make a ping socket", &[], |_| {
        make(
            AddressFamily::INET,
            SocketType::DGRAM,
            Some(rustix::net::ipproto::ICMP),
        )
    }),
    net("make a packet socket", &[], |_| {
        make(AddressFamily::PACKET, SocketType::RAW, None)
    }),
    net("make a netlink socket", &[], |_| {
        make(AddressFamily::NETLINK, SocketType::RAW, None)
    }),
    net("make a vsock socket", &[], |_| {
        make(AddressFamily::VSOCK, SocketType::STREAM, None)
    }),
    net("make a crypto socket", &[], |_| {
        make(AddressFamily::from_raw(38), SocketType::SEQPACKET, None)
    }),
    ipc("make a unix socket", &[], |_| {
        make(AddressFamily::UNIX, SocketType::STREAM, None)
    }),
    ipc("connect to a unix socket", &["socket"], |t| {
        UnixStream::connect(t.path("socket")?).map(|_| "connected".to_owned())
    }),
    ipc("connect to an abstract socket", &["abstract"], |t| {
        let address = UnixAddr::from_abstract_name(t.text("abstract").unwrap_or_default())?;
        UnixStream::connect_addr(&address).map(|_| "connected".to_owned())
    }),
    ipc("send to a unix socket", &["dgram"], |t| {
        UnixDatagram::unbound()?
            .send_to(b"x", t.path("dgram")?)
            .map(|n| format!("{n} bytes"))
    }),
    ipc("redirect a datagram pair to a unix socket", &["dgram"], |t| {
        redirect(t, SocketType::DGRAM)
    }),
    ipc("redirect a raw pair to a unix socket", &["dgram"], |t| {
        redirect(t, SocketType::RAW)
    }),
    ipc("reconnect a stream pair to a unix socket", &["socket"], |t| {
        let (a, _b) = pair(SocketType::STREAM)?;
        Ok(connect(&a, &SocketAddrUnix::new(t.path("socket")?)?).map(done("connected"))?)
    }),
    ipc("reconnect an orphaned pair to a unix socket", &["socket"], |t| {
        let (a, b) = pair(SocketType::STREAM)?;
        drop(b);
        let _ = rustix::net::shutdown(&a, rustix::net::Shutdown::Both);
        Ok(connect(&a, &SocketAddrUnix::new(t.path("socket")?)?).map(done("connected"))?)
    }),
    ipc("listen on a unix socket", &["workspace"], |t| {
        UnixListener::bind(t.scratch("sock")?).map(|_| "listening".to_owned())
    }),
    ipc("make a SysV shared memory segment", &[], |_| {
        // SAFETY: three integers.
        check(unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o600) }).map(|id| {
            // SAFETY: removes what was just made.
            unsafe {
                libc::shmctl(
                    i32::try_from(id).unwrap_or(-1),
                    libc::IPC_RMID,
                    std::ptr::null_mut(),
                )
            };
            "made".to_owned()
        })
    }),
    ipc("make a SysV message queue", &[], |_| {
        // SAFETY: two integers.
        check(unsafe { libc::msgget(libc::IPC_PRIVATE, libc::IPC_CREAT | 0o600) }).map(|id| {
            // SAFETY: removes what was just made.
            unsafe {
                libc::msgctl(
                    i32::try_from(id).unwrap_or(-1),
                    libc::IPC_RMID,
                    std::ptr::null_mut(),
                )
            };
            "made".to_owned()
        })
    }),
    ipc("attach a SysV segment", &[], |_| reach(libc::SYS_shmat)),
    ipc("open a POSIX message queue", &[], |_| reach(libc::SYS_mq_open)),
    ipc("set up io_uring", &[], |_| reach(libc::SYS_io_uring_setup)),
];

/// A connection counts only if the target is at the other end: a proxy may be there instead.
fn hear(mut stream: TcpStream) -> Outcome {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"x")?;
    let mut answer = [0; 6];
    stream.read_exact(&mut answer)?;
    match &answer {
        b"target" => Ok("the target answered".to_owned()),
        _ => Err(io::Error::other("somebody else answered")),
    }
}

fn make(family: AddressFamily, kind: SocketType, protocol: Option<Protocol>) -> Outcome {
    match socket(family, kind, protocol) {
        Ok(_) => Ok("made".to_owned()),
        // The family is not in this kernel, or the gate plays that it is not.
        Err(e @ rustix::io::Errno::AFNOSUPPORT) => Err(e.into()),
        Err(e) => super::reached(e.into()),
    }
}

fn pair(kind: SocketType) -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, kind, SocketFlags::empty(), None)?)
}

fn redirect(t: &Targets, kind: SocketType) -> Outcome {
    let (a, b) = pair(kind)?;
    sendto(
        &a,
        b"x",
        SendFlags::empty(),
        &SocketAddrUnix::new(t.path("dgram")?)?,
    )?;
    let mut byte = [0];
    match recv(b.as_fd(), &mut byte, RecvFlags::DONTWAIT) {
        Ok(_) => Err(io::Error::other("it went to the other half")),
        Err(_) => Ok("sent".to_owned()),
    }
}
