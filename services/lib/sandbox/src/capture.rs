//! Output that the service keeps: bounded, and read to the end even beyond the bound, so that a chatty program is
//! slowed by nothing but itself.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

/// What was captured of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// The first bytes, up to the bound.
    pub bytes: Vec<u8>,
    /// How many more there were.
    pub dropped: u64,
}

/// A capture in progress.
#[derive(Debug)]
pub(crate) struct Capture {
    reader: JoinHandle<Captured>,
}

impl Capture {
    /// Starts reading; the returned write end goes to the program.
    pub(crate) fn start(max_bytes: usize) -> io::Result<(Self, OwnedFd)> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        let read = pipe::Receiver::from_owned_fd(read)?;
        Ok((
            Self {
                reader: tokio::spawn(collect(read, max_bytes)),
            },
            write,
        ))
    }

    /// What came until every holder of the write end was gone.
    pub(crate) async fn finish(self) -> Captured {
        self.reader.await.unwrap_or_default()
    }
}

async fn collect(mut read: pipe::Receiver, max_bytes: usize) -> Captured {
    let mut captured = Captured::default();
    let mut chunk = [0; 8192];
    while let Ok(n @ 1..) = read.read(&mut chunk).await {
        let kept = n.min(max_bytes - captured.bytes.len());
        captured.bytes.extend_from_slice(&chunk[..kept]);
        captured.dropped += u64::try_from(n - kept).unwrap_or(0);
    }
    captured
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn keeps_up_to_the_bound_and_counts_the_rest() {
        for (written, max, kept, dropped) in [
            (10, 10, 10, 0),
            (11, 10, 10, 1),
            (30_000, 10_000, 10_000, 20_000),
            (5, 0, 0, 5),
        ] {
            let (capture, write) = Capture::start(max).unwrap();
            std::fs::File::from(write)
                .write_all(&vec![b'x'; written])
                .unwrap();
            let got = capture.finish().await;
            assert_eq!((got.bytes.len(), got.dropped), (kept, dropped));
        }
    }
}
