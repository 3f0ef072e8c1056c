//! The protocol between a service, its spawner and a run's init: one message per packet of a SOCK_SEQPACKET pair,
//! descriptors beside it.
//!
//! Both ends are this crate in the same binary, so there is no versioning. A packet is a little-endian `u32`, that
//! many bytes of JSON, and for [`Request::Run`] the NUL-terminated byte strings which JSON can't carry.

use std::ffi::{CStr, CString};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::exit::{Cause, Exit};
use crate::profile::{Grants, Limits, Net, Walls};
use crate::report::{Enforced, Refusal};
use crate::support::Support;

/// Largest packet: a whole command, or one message back. Below the default socket buffer (208 KiB), so that a
/// packet always fits.
pub(crate) const MAX_PACKET: usize = 128 * 1024;
/// stdin, stdout, stderr and the program.
pub(crate) const MAX_FDS: usize = 4;

/// From the service.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Run(Box<Order>),
    Kill { run: u64, grace_ms: u64 },
}

/// One run, ready to start. The strings follow as the packet's tail.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) run: u64,
    pub(crate) walls: Walls,
    pub(crate) net: Net,
    pub(crate) limits: Limits,
    pub(crate) grants: Grants,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) grace_ms: u64,
    /// Which of stdin, stdout, stderr, program come as descriptors; the others are `/dev/null`, and the path.
    pub(crate) fds: [bool; MAX_FDS],
    /// How many of the strings are arguments. Before them come program path and working directory.
    pub(crate) argc: usize,
}

/// From the spawner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Event {
    Hello(Support),
    Started {
        run: u64,
        pid: i32,
        init: i32,
        enforced: Enforced,
    },
    Refused {
        run: u64,
        refusal: Refusal,
    },
    Exited {
        run: u64,
        exit: Exit,
    },
}

/// From the spawner to one run's init. The socket's end means the same with [`Cause::OwnerLost`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) grace_ms: u64,
    pub(crate) cause: Cause,
}

/// A connected pair that keeps packets apart.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Encodes a message and its tail.
pub(crate) fn encode<T: Serialize>(message: &T, tail: &[u8]) -> io::Result<Vec<u8>> {
    let mut packet = vec![0; 4];
    serde_json::to_writer(&mut packet, message)?;
    let head = u32::try_from(packet.len() - 4).map_err(|_| too_large())?;
    packet[..4].copy_from_slice(&head.to_le_bytes());
    packet.extend_from_slice(tail);
    if packet.len() > MAX_PACKET {
        Err(too_large())
    } else {
        Ok(packet)
    }
}

/// Splits a packet into message and tail.
pub(crate) fn decode<T: DeserializeOwned>(packet: &[u8]) -> io::Result<(T, &[u8])> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "malformed packet");
    let (len, rest) = packet.split_first_chunk::<4>().ok_or_else(bad)?;
    let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| bad())?;
    let (head, tail) = rest.split_at_checked(len).ok_or_else(bad)?;
    Ok((serde_json::from_slice(head)?, tail))
}

/// Sends one packet. Never raises SIGPIPE.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    packet: &[u8],
    fds: &[BorrowedFd<'_>],
    wait: bool,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(too_large());
    }
    let mut flags = SendFlags::NOSIGNAL;
    if !wait {
        flags |= SendFlags::DONTWAIT;
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(packet)], &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

/// Receives one packet into `buffer`; `Ok(None)` at the end of the stream. Received descriptors are close-on-exec.
pub(crate) fn receive<'b>(
    socket: BorrowedFd<'_>,
    buffer: &'b mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<Option<&'b [u8]>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            // A peer that ends with something of ours unread resets, and the kernel says so once, before what the
            // peer had said. Its last words are read next.
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => {}
            other => break other?,
        }
    };
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = part {
            fds.extend(received);
        }
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(too_large());
    }
    Ok(if message.bytes == 0 {
        None
    } else {
        Some(&buffer[..message.bytes])
    })
}

/// Sends a message to the other helper, waiting for room.
pub(crate) fn post<T: Serialize>(socket: &impl AsFd, message: &T) -> io::Result<()> {
    send(socket.as_fd(), &encode(message, &[])?, &[], true)
}

/// Appends one string to a tail.
pub(crate) fn push_string(tail: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    let string = CString::new(bytes).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "a NUL byte in a path, argument or variable",
        )
    })?;
    tail.extend_from_slice(string.as_bytes_with_nul());
    Ok(())
}

/// Splits a tail into its strings.
pub(crate) fn strings(mut tail: &[u8]) -> io::Result<Vec<&CStr>> {
    let mut found = Vec::new();
    while !tail.is_empty() {
        let string = CStr::from_bytes_until_nul(tail)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "unterminated string"))?;
        tail = &tail[string.to_bytes_with_nul().len()..];
        found.push(string);
    }
    Ok(found)
}

fn too_large() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("more than {MAX_PACKET} bytes or {MAX_FDS} descriptors"),
    )
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn packets_keep_their_boundaries_strings_and_descriptors() {
        let (a, b) = pair().unwrap();
        let mut tail = Vec::new();
        for s in [&b"/bin/echo"[..], b"", b"\xff\xfe"] {
            push_string(&mut tail, s).unwrap();
        }
        let (read, write) = rustix::pipe::pipe().unwrap();
        let packet = encode(&Request::Kill { run: 7, grace_ms: 9 }, &tail).unwrap();
        send(a.as_fd(), &packet, &[write.as_fd()], true).unwrap();
        post(&a, &Request::Kill { run: 8, grace_ms: 0 }).unwrap();
        drop((a, write));

        let (mut buffer, mut fds) = (vec![0; MAX_PACKET], Vec::new());
        let got = receive(b.as_fd(), &mut buffer, &mut fds).unwrap().unwrap();
        let (message, tail) = decode::<Request>(got).unwrap();
        assert!(matches!(message, Request::Kill { run: 7, grace_ms: 9 }));
        assert_eq!(strings(tail).unwrap(), [c"/bin/echo", c"", c"\xff\xfe"]);
        std::fs::File::from(fds.pop().unwrap())
            .write_all(b"through")
            .unwrap();
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");

        let (message, _) =
            decode::<Request>(receive(b.as_fd(), &mut buffer, &mut fds).unwrap().unwrap()).unwrap();
        assert!(matches!(message, Request::Kill { run: 8, .. }));
        assert!(
            receive(b.as_fd(), &mut buffer, &mut fds).unwrap().is_none(),
            "the end"
        );
    }

    #[test]
    fn the_largest_packet_passes_and_one_byte_more_does_not() {
        let (a, b) = pair().unwrap();
        let message = Request::Kill { run: 1, grace_ms: 1 };
        let room = MAX_PACKET - encode(&message, &[]).unwrap().len();
        let packet = encode(&message, &vec![b'x'; room]).unwrap();
        send(a.as_fd(), &packet, &[], false).unwrap();
        let (mut buffer, mut fds) = (vec![0; MAX_PACKET], Vec::new());
        assert_eq!(
            receive(b.as_fd(), &mut buffer, &mut fds).unwrap().unwrap().len(),
            MAX_PACKET
        );
        assert!(encode(&message, &vec![b'x'; room + 1]).is_err());
    }

    #[test]
    fn the_last_words_of_a_peer_that_read_nothing_are_heard() {
        let (a, b) = pair().unwrap();
        post(&a, &Request::Kill { run: 9, grace_ms: 1 }).unwrap();
        post(&b, &Request::Kill { run: 0, grace_ms: 0 }).unwrap();
        drop(a);
        let mut buffer = vec![0; MAX_PACKET];
        let mut next = || {
            receive(b.as_fd(), &mut buffer, &mut Vec::new())
                .unwrap()
                .map(<[u8]>::to_vec)
        };
        let (message, _) = decode::<Request>(&next().expect("its last words")).unwrap();
        assert!(matches!(message, Request::Kill { run: 9, .. }));
        assert!(next().is_none(), "then the end");
    }

    #[test]
    fn malformed_packets_are_errors() {
        for bad in [
            &b""[..],
            b"\x01",
            b"\xff\xff\xff\xff{}",
            b"\x02\0\0\0{}",
            b"\x01\0\0\0{}",
        ] {
            assert!(decode::<Request>(bad).is_err(), "{bad:?}");
        }
        assert!(strings(b"unterminated").is_err());
        assert!(push_string(&mut Vec::new(), b"a\0b").is_err());
    }
}
