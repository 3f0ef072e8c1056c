//! A reader that hands a WebSocket one frame at a time and never a byte more. So the small limit of the
//! handshake can give way to the large one between two frames without losing what a client sent ahead:
//! the frame parser's limits are fixed when it is made, and it must be left with an empty buffer.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest header: 2 bytes, 8 of length, 4 of mask (RFC 6455 §5.2).
const MAX_HEADER: usize = 14;

/// Where in a frame the reading stands.
#[derive(Debug)]
pub(crate) struct Frames {
    header: [u8; MAX_HEADER],
    have: usize,
    payload_left: u64,
}

impl Frames {
    const fn new() -> Self {
        Self {
            header: [0; MAX_HEADER],
            have: 0,
            payload_left: 0,
        }
    }

    /// How many bytes may be read without passing the end of what is known; at least 1.
    fn allowed(&self) -> u64 {
        if self.payload_left > 0 {
            self.payload_left
        } else {
            (self.header_len() - self.have) as u64
        }
    }

    /// The header's length, as far as its beginning tells.
    fn header_len(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        let extended = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        2 + extended + mask
    }

    /// Takes note of bytes that were read, no more than [`Self::allowed`].
    fn note(&mut self, bytes: &[u8]) {
        if self.payload_left > 0 {
            self.payload_left -= bytes.len() as u64;
            return;
        }
        for byte in bytes {
            if let Some(slot) = self.header.get_mut(self.have) {
                *slot = *byte;
                self.have += 1;
            }
        }
        if self.have >= 2 && self.have == self.header_len() {
            self.payload_left = self.payload_len();
            self.have = 0;
        }
    }

    fn payload_len(&self) -> u64 {
        let big_endian = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte))
        };
        match self.header[1] & 0x7f {
            126 => big_endian(&self.header[2..4]),
            127 => big_endian(&self.header[2..10]),
            short => u64::from(short),
        }
    }
}

/// A stream that is read frame by frame, until [`Gate::open`].
#[derive(Debug)]
pub(crate) struct Gate<S> {
    stream: S,
    frames: Option<Frames>,
}

impl<S> Gate<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self {
            stream,
            frames: Some(Frames::new()),
        }
    }

    /// From here on it reads what there is.
    pub(crate) fn open(self) -> Self {
        Self {
            stream: self.stream,
            frames: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(frames) = &mut this.frames else {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        };
        let room = usize::try_from(frames.allowed())
            .unwrap_or(usize::MAX)
            .min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        std::task::ready!(Pin::new(&mut this.stream).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        frames.note(part.filled());
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// A client's frame: masked, with the shortest length.
    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x81];
        match payload.len() {
            short @ 0..126 => bytes.push(0x80 | u8::try_from(short).unwrap()),
            medium @ 126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(medium).unwrap().to_be_bytes());
            }
            long => {
                bytes.push(0x80 | 127);
                bytes.extend((long as u64).to_be_bytes());
            }
        }
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn nothing_past_a_frame_is_read(sizes in prop::collection::vec(0_usize..70_000, 1..5), chunk in 1_usize..9_000) {
            let frames: Vec<_> = sizes.iter().map(|size| frame(&vec![7; *size])).collect();
            let all = frames.concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let outcome = runtime.block_on(async {
                let mut gate = Gate::new(all.as_slice());
                for frame in &frames {
                    let mut got = Vec::new();
                    while got.len() < frame.len() {
                        let mut buffer = vec![0; chunk];
                        let read = gate.read(&mut buffer).await.unwrap();
                        got.extend_from_slice(&buffer[..read]);
                    }
                    if &got != frame {
                        return false;
                    }
                }
                let mut rest = Vec::new();
                gate.open().read_to_end(&mut rest).await.unwrap();
                rest.is_empty()
            });
            prop_assert!(outcome);
        }
    }

    #[tokio::test]
    async fn what_came_ahead_is_there_after_the_gate_opened() {
        let first = frame(b"connect");
        let all = [first.clone(), b"more".to_vec()].concat();
        let mut gate = Gate::new(all.as_slice());
        let mut got = vec![0; first.len()];
        gate.read_exact(&mut got).await.unwrap();
        let mut rest = String::new();
        gate.open().read_to_string(&mut rest).await.unwrap();
        assert_eq!((got, rest.as_str()), (first, "more"));
    }
}
