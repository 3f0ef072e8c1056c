//! The audit records of all services in one file, each line chained to the one before by hash, until
//! the auditor keeps them. Writers of several processes take turns by a file lock.
//!
//! A change, a gap or a swap of lines is found by [`verify`]; a cut at the end is not (that takes the
//! auditor's checkpoints).

use std::{
    fs,
    io::{self, BufRead as _, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use creel_proto::audit::v1::{AuditClass, AuditRecord};
use creel_wire::names::hex;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// How much of the file's end is searched for records that were shipped just before a crash.
const TAIL_BYTES: u64 = 1 << 20;

/// The file.
#[derive(Debug, Clone)]
pub struct AuditFile {
    path: PathBuf,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Counts from 0.
    pub index: u64,
    /// Hash of the line before; 64 zeros for the first.
    pub previous: String,
    /// The record, as JSON in a string, so that its bytes are what was hashed.
    pub record: String,
    /// SHA-256 over previous hash, index and record.
    pub hash: String,
}

/// A record as people and programs read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as creel.audit.v1.AuditRecord")]
pub struct Readable {
    pub service: String,
    pub incarnation: String,
    pub sequence: u64,
    pub time_unix_ms: i64,
    pub class: String,
    pub action: String,
    pub principal: String,
    pub object: String,
    pub fields: std::collections::BTreeMap<String, String>,
    pub count: u64,
}

impl From<&AuditRecord> for Readable {
    fn from(record: &AuditRecord) -> Self {
        let class = match record.class() {
            AuditClass::A => "A",
            AuditClass::B => "B",
            AuditClass::C => "C",
            AuditClass::Unspecified => "",
        };
        Self {
            service: record.service.clone(),
            incarnation: hex(&record.incarnation),
            sequence: record.sequence,
            time_unix_ms: record.time_unix_ms,
            class: class.to_owned(),
            action: record.action.clone(),
            principal: record.principal.clone(),
            object: record.object.clone(),
            // Map order of a message is not fixed; that of the line is.
            #[expect(clippy::disallowed_methods, reason = "collected into a BTreeMap")]
            fields: record
                .fields
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            count: record.count,
        }
    }
}

/// Why a file does not hold together.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The file can't be read.
    #[error("can't read the audit file")]
    Io(#[from] io::Error),
    /// A line that isn't what was written.
    #[error("line {line}: {what}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        what: &'static str,
    },
}

impl AuditFile {
    /// The file at a path; it is made when first written.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Appends records that are newer than what the file's end holds of their origin, and syncs.
    ///
    /// # Errors
    /// What the system said; then the records are not taken as shipped.
    pub fn append(&self, records: &[AuditRecord]) -> io::Result<()> {
        let Some(first) = records.first() else {
            return Ok(());
        };
        let mut file = fs::OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(&self.path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        let tail = tail(&mut file)?;
        let origin = (first.service.as_str(), hex(&first.incarnation));
        let shipped = tail
            .iter()
            .rev()
            .filter_map(|line| serde_json::from_str::<Readable>(&line.record).ok())
            .find(|record| {
                (record.service.as_str(), record.incarnation.as_str()) == (origin.0, origin.1.as_str())
            })
            .map_or(0, |record| record.sequence);
        let (mut index, mut previous) = tail
            .last()
            .map_or((0, "0".repeat(64)), |line| (line.index + 1, line.hash.clone()));
        let mut out = Vec::new();
        for record in records.iter().filter(|record| record.sequence > shipped) {
            let text = serde_json::to_string(&Readable::from(record))?;
            let hash = hash(&previous, index, &text);
            let line = Line {
                index,
                previous,
                record: text,
                hash: hash.clone(),
            };
            serde_json::to_writer(&mut out, &line)?;
            out.push(b'\n');
            (index, previous) = (index + 1, hash);
        }
        file.write_all(&out)?;
        file.sync_data()
        // The lock ends with the descriptor.
    }
}

/// The last whole lines of the file. A torn last line (a crash while it was written) is cut off: its
/// record was not taken as shipped, so it comes again.
fn tail(file: &mut fs::File) -> io::Result<Vec<Line>> {
    let length = file.metadata()?.len();
    let start = length.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    io::Read::by_ref(file).take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let whole = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    if whole < bytes.len() {
        file.set_len(start + whole as u64)?;
    }
    let mut lines: Vec<&[u8]> = bytes[..whole]
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .collect();
    if start > 0 && !lines.is_empty() {
        lines.remove(0);
    }
    Ok(lines
        .iter()
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect())
}

fn hash(previous: &str, index: u64, record: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"creel-audit-line-v1\0");
    hasher.update(previous);
    hasher.update(index.to_be_bytes());
    hasher.update(record);
    hex(&hasher.finalize())
}

/// Checks the chain from the first line to the last; returns how many there are.
///
/// # Errors
/// [`Broken`] with the first line that does not fit.
pub fn verify(path: &Path) -> Result<u64, Broken> {
    let mut previous = "0".repeat(64);
    let mut count = 0;
    for text in io::BufReader::new(fs::File::open(path)?).lines() {
        let broken = |what| Broken::Line {
            line: count + 1,
            what,
        };
        let line: Line = serde_json::from_str(&text?).map_err(|_| broken("is not an audit line"))?;
        if line.index != count {
            return Err(broken("is not the next in order"));
        }
        if line.previous != previous {
            return Err(broken("does not follow the line before"));
        }
        if line.hash != hash(&previous, line.index, &line.record) {
            return Err(broken("was changed"));
        }
        previous = line.hash;
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(service: &str, sequence: u64) -> AuditRecord {
        AuditRecord {
            service: service.into(),
            incarnation: vec![1; 16],
            sequence,
            action: "x".into(),
            ..Default::default()
        }
    }

    #[test]
    fn origins_interleave_repeats_are_dropped_and_a_torn_line_is_mended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let file = AuditFile::new(path.clone());
        file.append(&[record("a", 1), record("a", 2)]).unwrap();
        file.append(&[record("b", 1)]).unwrap();
        file.append(&[record("a", 2), record("a", 3)]).unwrap();
        assert_eq!(verify(&path).unwrap(), 4);

        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 7]).unwrap();
        file.append(&[record("a", 3), record("a", 4)]).unwrap();
        assert_eq!(verify(&path).unwrap(), 5);
    }

    #[test]
    fn a_change_a_gap_and_a_swap_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        AuditFile::new(path.clone())
            .append(&(1..=4).map(|n| record("a", n)).collect::<Vec<_>>())
            .unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let tampered = [
            text.replacen("\\\"action\\\":\\\"x\\\"", "\\\"action\\\":\\\"y\\\"", 1),
            [lines[0], lines[2], lines[3]].join("\n"),
            [lines[0], lines[2], lines[1], lines[3]].join("\n"),
            lines[1..].join("\n"),
        ];
        for bad in tampered {
            assert_ne!(bad, text);
            fs::write(&path, bad).unwrap();
            assert!(matches!(verify(&path), Err(Broken::Line { .. })));
        }
    }
}
