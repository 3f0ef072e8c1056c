//! Files of messages that only grow: each entry is its length (a varint), the message, and eight bytes
//! of its SHA-256. What a crash left half-written is cut off at open.
//!
//! It knows nothing of what the messages are, and does not decide when they are durable: `sync` does.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
};

use prost::Message;
use sha2::{Digest as _, Sha256};

/// The longest message of an entry, in bytes: the longest text and what is around it.
pub(crate) const MAX_ENTRY: usize = 2 << 20;
const CHECKSUM: usize = 8;
/// Longest varint of a length up to [`MAX_ENTRY`].
const MAX_PREFIX: usize = 4;
const READ: usize = 64 << 10;

/// A file of entries that one writer extends.
#[derive(Debug)]
pub(crate) struct LogFile {
    file: Arc<File>,
    bytes: u64,
    entries: u64,
}

impl LogFile {
    /// Opens or makes a file, and cuts off everything behind its `keep`th entry or its last whole one.
    /// What stays is shown to `seen`.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(path: &Path, keep: u64, mut seen: impl FnMut(Vec<u8>)) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let file = Arc::new(file);
        let mut reader = Reader::new(Arc::clone(&file));
        let (mut bytes, mut entries) = (0, 0);
        while entries < keep
            && let Some(entry) = reader.next()?
        {
            entries += 1;
            bytes = reader.offset;
            seen(entry);
        }
        if file.metadata()?.len() > bytes {
            file.set_len(bytes)?;
        }
        Ok(Self { file, bytes, entries })
    }

    /// Adds a message; visible to readers at once, durable after [`Self::sync`].
    ///
    /// # Errors
    /// The system's, or `InvalidInput` for one that is too long; nothing was added then.
    pub(crate) fn append(&mut self, message: &impl Message) -> io::Result<()> {
        let frame = frame(message)?;
        if let Err(error) = self.file.write_all_at(&frame, self.bytes) {
            // What was written of it is no entry; the next one goes over it.
            let _ = self.file.set_len(self.bytes);
            return Err(error);
        }
        self.bytes += frame.len() as u64;
        self.entries += 1;
        Ok(())
    }

    /// Bytes of whole entries.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whole entries.
    pub(crate) const fn entries(&self) -> u64 {
        self.entries
    }

    /// The file, to sync it elsewhere than on an async thread.
    pub(crate) fn handle(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }
}

fn frame(message: &impl Message) -> io::Result<Vec<u8>> {
    let length = message.encoded_len();
    if length > MAX_ENTRY {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the entry is too long",
        ));
    }
    let mut frame = message.encode_length_delimited_to_vec();
    let sum = Sha256::digest(&frame[frame.len() - length..]);
    frame.extend_from_slice(&sum[..CHECKSUM]);
    Ok(frame)
}

/// Reads entries in order, also while they are being written.
#[derive(Debug)]
pub(crate) struct Reader {
    file: Arc<File>,
    /// Where the next entry starts.
    offset: u64,
    buffer: Vec<u8>,
    /// Where the next entry starts in the buffer.
    at: usize,
}

impl Reader {
    pub(crate) const fn new(file: Arc<File>) -> Self {
        Self {
            file,
            offset: 0,
            buffer: Vec::new(),
            at: 0,
        }
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self::new(Arc::new(File::open(path)?)))
    }

    /// The next whole entry's message; `None` where there is none yet (or ever). It may be asked again.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            match parse(&self.buffer[self.at..]) {
                Parsed::Whole { start, end } => {
                    let message = self.buffer[self.at + start..self.at + end].to_vec();
                    let size = end + CHECKSUM;
                    self.at += size;
                    self.offset += size as u64;
                    return Ok(Some(message));
                }
                Parsed::Bad => {
                    // It may be half-written now and whole later: look at the file again next time.
                    self.buffer.clear();
                    self.at = 0;
                    return Ok(None);
                }
                Parsed::Short => {
                    self.buffer.drain(..self.at);
                    self.at = 0;
                    if !self.fill()? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Reads on; whether there was anything.
    fn fill(&mut self) -> io::Result<bool> {
        let held = self.buffer.len();
        self.buffer.resize(held + READ, 0);
        let read = self
            .file
            .read_at(&mut self.buffer[held..], self.offset + held as u64);
        self.buffer.truncate(held + *read.as_ref().unwrap_or(&0));
        Ok(read? > 0)
    }
}

enum Parsed {
    /// The message lies from `start` to `end`, its checksum holds.
    Whole { start: usize, end: usize },
    /// More bytes are needed.
    Short,
    /// Not an entry.
    Bad,
}

fn parse(bytes: &[u8]) -> Parsed {
    let mut head = &bytes[..bytes.len().min(MAX_PREFIX)];
    let whole = head.len();
    let Ok(length) = prost::decode_length_delimiter(&mut head) else {
        return if whole < MAX_PREFIX {
            Parsed::Short
        } else {
            Parsed::Bad
        };
    };
    if length > MAX_ENTRY {
        return Parsed::Bad;
    }
    let start = whole - head.len();
    let end = start + length;
    let Some(sum) = bytes.get(end..end + CHECKSUM) else {
        return Parsed::Short;
    };
    if Sha256::digest(&bytes[start..end])[..CHECKSUM] == *sum {
        Parsed::Whole { start, end }
    } else {
        Parsed::Bad
    }
}

/// Makes the entries of a directory durable.
///
/// # Errors
/// The system's.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(path: &Path) -> Vec<Vec<u8>> {
        let mut reader = Reader::open(path).unwrap();
        std::iter::from_fn(|| reader.next().unwrap()).collect()
    }

    fn write(path: &Path, messages: &[Vec<u8>]) -> Vec<u64> {
        let mut log = LogFile::open(path, u64::MAX, drop).unwrap();
        let end_after = |message: &Vec<u8>| {
            log.append(message).unwrap();
            log.bytes()
        };
        messages.iter().map(end_after).collect()
    }

    /// prost writes `Vec<u8>` as a `BytesValue`: tag, length, bytes.
    fn unwrap(entry: &[u8]) -> Vec<u8> {
        <Vec<u8> as Message>::decode(entry).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A file cut anywhere, or with any byte changed, gives a prefix of what was written, and goes on
        /// from there.
        #[test]
        fn a_torn_or_damaged_tail_is_cut_and_nothing_else(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..12),
            place in any::<prop::sample::Index>(),
            flip in any::<bool>(),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let ends = write(&path, &messages);
            let mut bytes = std::fs::read(&path).unwrap();
            let at = place.index(bytes.len());
            let whole = ends.iter().filter(|end| **end <= at as u64).count();
            if flip { bytes[at] ^= 0x40 } else { bytes.truncate(at) }
            std::fs::write(&path, &bytes).unwrap();

            let mut kept = Vec::new();
            let mut log = LogFile::open(&path, u64::MAX, |entry| kept.push(unwrap(&entry))).unwrap();
            prop_assert_eq!(&kept[..], &messages[..whole]);
            prop_assert_eq!(log.entries(), whole as u64);
            log.append(&b"new".to_vec()).unwrap();
            let mut expected = messages[..whole].to_vec();
            expected.push(b"new".to_vec());
            prop_assert_eq!(read_all(&path).iter().map(|e| unwrap(e)).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_reader_follows_the_writer_across_buffers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = LogFile::open(&path, u64::MAX, drop).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        assert_eq!(reader.next().unwrap(), None);
        for size in [0, 1, READ - 3, READ, 3 * READ + 7, 5] {
            log.append(&vec![7_u8; size]).unwrap();
            assert_eq!(unwrap(&reader.next().unwrap().unwrap()).len(), size);
            assert_eq!(reader.next().unwrap(), None);
        }
    }

    #[test]
    fn only_so_many_are_kept_and_none_is_too_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        write(&path, &[vec![1], vec![2], vec![3]]);
        let log = LogFile::open(&path, 2, drop).unwrap();
        assert_eq!((log.entries(), read_all(&path).len()), (2, 2));
        let mut log = LogFile::open(&path, 2, drop).unwrap();
        assert!(log.append(&vec![0_u8; MAX_ENTRY]).is_err());
        assert!(log.append(&vec![0_u8; MAX_ENTRY - 16]).is_ok());
    }
}
