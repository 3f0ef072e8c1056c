//! Ids of jobs and runs. A run's id is a hash of which occurrence it is, so that every path to the same
//! occurrence, before and after a crash, comes to the same id (`reference/scheduler.md` §3.4).

use std::{cmp::Ordering, fmt, str::FromStr};

use creel_proto::scheduler::v1::RunKind;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A job.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct JobId([u64; 2]);

/// A run: 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunId([u64; 2]);

/// As numbers: two comparisons, where those of an array are a loop. Every search of a tree makes a dozen.
macro_rules! ordered {
    ($($id:ident),+) => { $(
        impl Ord for $id {
            #[inline]
            fn cmp(&self, other: &Self) -> Ordering {
                let ([high, low], [other_high, other_low]) = (self.0, other.0);
                high.cmp(&other_high).then(low.cmp(&other_low))
            }
        }

        impl PartialOrd for $id {
            #[inline]
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
    )+ };
}

ordered!(JobId, RunId);

/// A text that is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id")]
pub struct NotAnId;

/// Ids are kept in halves, which sort as the whole: a `u128` would make everything it is in as wide as itself.
const fn halves(whole: u128) -> [u64; 2] {
    [(whole >> 64) as u64, whole as u64]
}

const fn whole([high, low]: [u64; 2]) -> u128 {
    (high as u128) << 64 | low as u128
}

impl JobId {
    /// A time-ordered id of Unix milliseconds and ten random bytes.
    #[must_use]
    pub fn new(unix_ms: i64, random: &[u8; 10]) -> Self {
        let uuid =
            uuid::Builder::from_unix_timestamp_millis(unix_ms.max(0).unsigned_abs(), random).into_uuid();
        Self(halves(uuid.as_u128()))
    }

    /// The id as a key part.
    #[must_use]
    pub fn bytes(self) -> [u8; 16] {
        whole(self.0).to_be_bytes()
    }

    /// The id of a key part.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        bytes
            .try_into()
            .ok()
            .map(|bytes| Self(halves(u128::from_be_bytes(bytes))))
    }

    /// The time and the random half of it, as numbers.
    pub(crate) const fn halves(self) -> [u64; 2] {
        self.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Uuid::from_u128(whole(self.0)).as_hyphenated())
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for JobId {
    type Err = NotAnId;
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        Uuid::parse_str(text)
            .map(|uuid| Self(halves(uuid.as_u128())))
            .map_err(|_| NotAnId)
    }
}

/// Which occurrence a run is.
#[derive(Debug, Clone, Copy)]
pub struct Occurrence<'a> {
    /// The job.
    pub job: JobId,
    /// Which of the jobs that ever had this id.
    pub incarnation: u64,
    /// Why it runs.
    pub kind: RunKind,
    /// For manual runs: the client's request id, or a number of the job's own.
    pub request: Option<&'a str>,
    /// The instant it is for, Unix milliseconds.
    pub nominal_ms: i64,
}

/// The length of a part, before it.
const fn len(part: &[u8]) -> [u8; 8] {
    (part.len() as u64).to_be_bytes()
}

impl RunId {
    /// The id of an occurrence: the first 16 bytes of SHA-256 over its parts, each with its length before it.
    #[must_use]
    pub fn of(occurrence: Occurrence<'_>) -> Self {
        let mut text = Uuid::encode_buffer();
        let job = Uuid::from_u128(whole(occurrence.job.0))
            .as_hyphenated()
            .encode_lower(&mut text)
            .as_bytes();
        let incarnation = occurrence.incarnation.to_be_bytes();
        let kind = (occurrence.kind as i32).to_be_bytes();
        // What every occurrence has goes to the hasher at once: small pieces cost as much as the hash.
        let mut first = [0; 3 * 8 + 36 + 8 + 4];
        let mut rest = &mut first[..];
        for bytes in [
            &len(job)[..],
            job,
            &len(&incarnation),
            &incarnation,
            &len(&kind),
            &kind,
        ] {
            let (place, more) = rest.split_at_mut(bytes.len());
            place.copy_from_slice(bytes);
            rest = more;
        }
        let mut hasher = Sha256::new_with_prefix(first);
        let nominal = occurrence.nominal_ms.to_be_bytes();
        for part in occurrence
            .request
            .map(str::as_bytes)
            .into_iter()
            .chain([&nominal[..]])
        {
            hasher.update(len(part));
            hasher.update(part);
        }
        let digest: [u8; 32] = hasher.finalize().into();
        let (half, _) = digest.split_at(16);
        Self(halves(
            half.iter().fold(0, |id, byte| id << 8 | u128::from(*byte)),
        ))
    }

    /// The id as a key part.
    #[must_use]
    pub fn bytes(self) -> [u8; 16] {
        whole(self.0).to_be_bytes()
    }

    /// For tables: it is half of a hash already.
    pub(crate) const fn hash(self) -> u64 {
        let [_, low] = self.0;
        low
    }

    /// The id of a key part.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Option<Self> {
        bytes
            .try_into()
            .ok()
            .map(|bytes| Self(halves(u128::from_be_bytes(bytes))))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", whole(self.0))
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for RunId {
    type Err = NotAnId;
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 32 || !text.bytes().all(hex) {
            return Err(NotAnId);
        }
        u128::from_str_radix(text, 16)
            .map(|id| Self(halves(id)))
            .map_err(|_| NotAnId)
    }
}

/// The fewest digits that name a run.
const SHORTEST_END: usize = 8;

/// Digits that a run's id begins or ends with, as a person copied them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunEnd {
    value: u128,
    /// Bits of an id beside them.
    other: u32,
}

impl RunEnd {
    pub(crate) fn is_of(self, run: RunId) -> bool {
        let id = whole(run.0);
        id >> self.other == self.value || id & (u128::MAX >> self.other) == self.value
    }

    /// The first and the last id that begin with them.
    pub(crate) fn beginnings(self) -> (RunId, RunId) {
        let first = self.value << self.other;
        (
            RunId(halves(first)),
            RunId(halves(first | !(u128::MAX << self.other))),
        )
    }
}

impl FromStr for RunEnd {
    type Err = NotAnId;
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if !(SHORTEST_END..32).contains(&text.len()) || !text.bytes().all(hex) {
            return Err(NotAnId);
        }
        let value = u128::from_str_radix(text, 16).map_err(|_| NotAnId)?;
        let other = 128 - 4 * text.len() as u32;
        Ok(Self { value, other })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_by_either_end() {
        let id = "16488c7d0d790e665c05823f7a29856f";
        let run: RunId = id.parse().unwrap();
        let end = |text: &str| text.parse::<RunEnd>();
        for text in ["16488c7d", "16488c7d0", "7a29856f", &id[1..], &id[..31]] {
            assert!(end(text).unwrap().is_of(run), "{text}");
        }
        for text in ["16488c7e", "88c7d0d7", "7a29856e"] {
            assert!(!end(text).unwrap().is_of(run), "{text}");
        }
        for text in ["", "7a29856", "16488C7D", "16488c7g", id] {
            assert_eq!(end(text), Err(NotAnId), "{text}");
        }
        let (first, last) = end("16488c7d").unwrap().beginnings();
        assert_eq!(first.to_string(), "16488c7d000000000000000000000000");
        assert_eq!(last.to_string(), "16488c7dffffffffffffffffffffffff");
    }

    #[test]
    fn every_part_of_an_occurrence_is_in_its_id() {
        let job = JobId::new(1_000, &[7; 10]);
        let base = Occurrence {
            job,
            incarnation: 1,
            kind: RunKind::Scheduled,
            request: None,
            nominal_ms: 60_000,
        };
        let others = [
            Occurrence {
                job: JobId::new(1_000, &[8; 10]),
                ..base
            },
            Occurrence {
                incarnation: 2,
                ..base
            },
            Occurrence {
                kind: RunKind::Manual,
                ..base
            },
            Occurrence {
                request: Some(""),
                ..base
            },
            Occurrence {
                request: Some("a"),
                ..base
            },
            Occurrence {
                nominal_ms: 60_001,
                ..base
            },
        ];
        let mut ids: Vec<_> = others.iter().chain([&base]).map(|one| RunId::of(*one)).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), others.len() + 1);
        assert_eq!(RunId::of(base), RunId::of(base));
    }

    #[test]
    fn the_id_is_half_a_hash_of_the_parts_each_with_its_length() {
        let job = JobId::new(1_764_000_000_000, &[9; 10]);
        for request in [None, Some(""), Some("request")] {
            let occurrence = Occurrence {
                job,
                incarnation: 7,
                kind: RunKind::Manual,
                request,
                nominal_ms: -60_000,
            };
            let text = job.to_string();
            let kind = (RunKind::Manual as i32).to_be_bytes();
            let (incarnation, nominal) = (7_u64.to_be_bytes(), (-60_000_i64).to_be_bytes());
            let mut whole = Vec::new();
            let parts = [Some(text.as_bytes()), Some(&incarnation), Some(&kind)];
            for part in parts
                .into_iter()
                .chain([request.map(str::as_bytes), Some(&nominal)])
                .flatten()
            {
                whole.extend((part.len() as u64).to_be_bytes());
                whole.extend(part);
            }
            let digest = Sha256::digest(&whole);
            assert_eq!(RunId::of(occurrence).bytes(), digest[..16]);
        }
    }

    #[test]
    fn ids_survive_text_and_bytes() {
        let job = JobId::new(1_764_000_000_000, &[9; 10]);
        assert_eq!(job.to_string().parse(), Ok(job));
        assert_eq!(JobId::of_bytes(&job.bytes()), Some(job));
        let occurrence = Occurrence {
            job,
            incarnation: 1,
            kind: RunKind::Scheduled,
            request: None,
            nominal_ms: 0,
        };
        let run = RunId::of(occurrence);
        assert_eq!(run.to_string().parse(), Ok(run));
        assert_eq!(run.to_string().len(), 32);
        for bad in [
            "",
            "xyz",
            "ABCDEFABCDEFABCDEFABCDEFABCDEFAB",
            "+0000000000000000000000000000000",
        ] {
            assert_eq!(bad.parse::<RunId>(), Err(NotAnId), "{bad}");
        }
    }
}
