//! Lines of a worker's output, bounded: no more of it is in memory than one line and one read.

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::protocol::MAX_LINE;

const READ: usize = 16 << 10;

/// What comes next of an output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A line without its end; never blank.
    Line(Vec<u8>),
    /// A line that is longer than allowed; reading on makes no sense.
    TooLong,
    /// The end. What came after the last line end is a [`Next::Line`] before it.
    End,
}

/// Reads lines.
pub(crate) struct Lines<R> {
    from: R,
    buffer: Vec<u8>,
    /// How far the buffer was searched for a line end.
    searched: usize,
    ended: bool,
    /// Bytes of blank lines, which count as output.
    blank: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) const fn new(from: R) -> Self {
        Self {
            from,
            buffer: Vec::new(),
            searched: 0,
            ended: false,
            blank: 0,
        }
    }

    /// The next line, and how many bytes it took with the blank lines before it. Cancelling it loses
    /// nothing.
    pub(crate) async fn next(&mut self) -> (Next, usize) {
        loop {
            if let Some(at) = self.buffer[self.searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let rest = self.buffer.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                self.searched = 0;
                line.pop();
                if line.len() > MAX_LINE {
                    return (Next::TooLong, line.len());
                }
                if line.trim_ascii().is_empty() && self.blank < MAX_LINE {
                    self.blank += line.len() + 1;
                    continue;
                }
                let bytes = std::mem::take(&mut self.blank) + line.len();
                return (Next::Line(line), bytes);
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_LINE {
                return (Next::TooLong, self.buffer.len());
            }
            if self.ended {
                let line = std::mem::take(&mut self.buffer);
                self.searched = 0;
                let size = line.len();
                return if line.trim_ascii().is_empty() {
                    (Next::End, 0)
                } else {
                    (Next::Line(line), size)
                };
            }
            self.buffer.reserve(READ);
            match self.from.read_buf(&mut self.buffer).await {
                Ok(1..) => {}
                // A broken pipe is an end too; the exit tells why.
                Ok(_) | Err(_) => self.ended = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(bytes: &[u8]) -> Vec<Next> {
        let mut lines = Lines::new(bytes);
        let mut out = Vec::new();
        loop {
            let (next, _) = lines.next().await;
            let over = !matches!(next, Next::Line(_));
            out.push(next);
            if over {
                return out;
            }
        }
    }

    #[tokio::test]
    async fn lines_are_cut_at_their_ends_and_blank_ones_are_nothing() {
        let line = |text: &str| Next::Line(text.as_bytes().to_vec());
        assert_eq!(
            all(b"a\n\n  \nbc\nd").await,
            [line("a"), line("bc"), line("d"), Next::End]
        );
        assert_eq!(all(b"").await, [Next::End]);
    }

    #[tokio::test]
    async fn the_longest_line_passes_with_or_without_its_end() {
        for (n, end, passes) in [(0, "\n", true), (0, "", true), (1, "\n", false), (1, "", false)] {
            let mut bytes = vec![b'a'; MAX_LINE + n];
            bytes.extend_from_slice(end.as_bytes());
            let first = all(&bytes).await.remove(0);
            assert_eq!(matches!(first, Next::Line(_)), passes, "{n} {end:?}");
        }
    }

    #[tokio::test]
    async fn a_line_counts_in_whole_however_often_it_was_read() {
        for size in [1, READ - 1, READ, READ + 1, 5 * READ + 7] {
            let mut bytes = vec![b'a'; size];
            bytes.extend_from_slice(b"\nb\n");
            let mut lines = Lines::new(bytes.as_slice());
            assert_eq!(lines.next().await.1, size);
            assert_eq!(lines.next().await, (Next::Line(b"b".to_vec()), 1));
        }
    }

    #[tokio::test]
    async fn blank_lines_count_as_output() {
        let mut lines = Lines::new(b"\n\n\nx\n".as_slice());
        assert_eq!(lines.next().await, (Next::Line(b"x".to_vec()), 4));
        let blank = vec![b'\n'; MAX_LINE + 10];
        assert!(
            matches!(Lines::new(blank.as_slice()).next().await.0, Next::Line(_)),
            "and not without end"
        );
    }
}
