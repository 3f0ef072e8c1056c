//! A connection on which nothing was said yet. Hyper finds out a connection's version from its first bytes
//! and waits for them without end, so this waits with one.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

/// So many bytes say what is spoken (the preface of HTTP/2, RFC 9113 §3.4). From there on hyper has its own limits.
const ENOUGH: usize = 24;

/// A stream that tells when its peer has said enough to be understood.
#[derive(Debug)]
pub(crate) struct Opening<S> {
    stream: S,
    read: usize,
    said: CancellationToken,
}

impl<S> Opening<S> {
    /// The stream, and what is cancelled once the peer has said enough.
    pub(crate) fn new(stream: S) -> (Self, CancellationToken) {
        let said = CancellationToken::new();
        let opening = Self {
            stream,
            read: 0,
            said: said.clone(),
        };
        (opening, said)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.read < ENOUGH {
            self.read += buf.filled().len() - before;
            if self.read >= ENOUGH {
                self.said.cancel();
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn it_is_said_with_the_24th_byte_and_everything_passes() {
        let (mut far, near) = tokio::io::duplex(64);
        let (mut near, said) = Opening::new(near);
        let mut got = [0; 64];
        far.write_all(&[7; 23]).await.unwrap();
        assert_eq!(near.read(&mut got).await.unwrap(), 23);
        assert!(!said.is_cancelled());
        far.write_all(&[8]).await.unwrap();
        assert_eq!(near.read(&mut got).await.unwrap(), 1);
        assert!(said.is_cancelled());
        near.write_all(b"answer").await.unwrap();
        assert_eq!(far.read(&mut got).await.unwrap(), 6);
    }
}
