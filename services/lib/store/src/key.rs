//! Keys and half-open ranges of keys, ordered by their bytes.

use bytes::Bytes;
use std::fmt;
use std::ops::Bound;

/// A key: at most [`crate::limits::KEY_BYTES`] bytes, ordered bytewise. Cheap to clone.
/// Services make keys through their [`crate::kinds!`] enum, not from loose bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// A key of exactly these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The bytes as a shared buffer.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// The least key above this one.
    #[must_use]
    pub fn successor(&self) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len() + 1);
        bytes.extend_from_slice(&self.0);
        bytes.push(0);
        Self(bytes.into())
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Lets a map of keys be asked by a slice; sound because `Key` orders and hashes as its bytes do.
impl std::borrow::Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Key {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<&[u8]> for Key {
    fn from(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

/// Escaped ASCII: `Key(dvpart\x00\x01)`.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.escape_ascii())
    }
}

/// The keys from a start (inclusive) to an end (exclusive).
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRange {
    start: Key,
    /// `None`: no upper end.
    end: Option<Key>,
}

impl KeyRange {
    /// Every key `k` with `start <= k < end`; empty when `end <= start`.
    pub fn new(start: impl Into<Key>, end: impl Into<Key>) -> Self {
        Self {
            start: start.into(),
            end: Some(end.into()),
        }
    }

    /// Every key that starts with `prefix`; the empty prefix is every key.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        // The end is the prefix with its last byte that can grow grown, and what follows cut off.
        let end = prefix.iter().rposition(|b| *b != 0xff).map(|at| {
            let mut end = prefix[..=at].to_vec();
            end[at] += 1;
            Key::from(end)
        });
        Self {
            start: prefix.into(),
            end,
        }
    }

    /// Every key of the store.
    #[must_use]
    pub fn all() -> Self {
        Self::prefix(&[])
    }

    /// The same range without the keys below `start`.
    #[must_use]
    pub fn starting_at(self, start: Key) -> Self {
        Self {
            start: start.max(self.start),
            end: self.end,
        }
    }

    /// The same range without the keys at or above `end`.
    #[must_use]
    pub fn ending_at(self, end: Key) -> Self {
        Self {
            end: Some(self.end.map_or(end.clone(), |e| e.min(end))),
            start: self.start,
        }
    }

    /// The first key that may be in the range.
    #[must_use]
    pub fn start(&self) -> &[u8] {
        self.start.as_ref()
    }

    /// The first key above the range; `None` when it has no upper end.
    #[must_use]
    pub fn end(&self) -> Option<&[u8]> {
        self.end.as_ref().map(AsRef::as_ref)
    }

    /// The range as bounds for a `BTreeMap<Key, _>`, which would panic on an inverted range.
    #[must_use]
    pub fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        let end = match self.end() {
            Some(_) if self.is_empty() => Bound::Excluded(self.start()),
            Some(end) => Bound::Excluded(end),
            None => Bound::Unbounded,
        };
        (Bound::Included(self.start()), end)
    }

    /// Whether the key lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start() && self.end().is_none_or(|end| key < end)
    }

    /// Whether no key can lie in the range.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.end().is_some_and(|end| end <= self.start())
    }
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRange({}..", self.start().escape_ascii())?;
        match self.end() {
            Some(end) => write!(f, "{})", end.escape_ascii()),
            None => write!(f, ")"),
        }
    }
}

/// A number as a key part whose byte order is its numeric order.
#[must_use]
pub const fn be(n: u64) -> [u8; 8] {
    n.to_be_bytes()
}

/// The number of a key part made by [`be`]; `None` unless it is exactly eight bytes.
#[must_use]
pub fn from_be(part: &[u8]) -> Option<u64> {
    part.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ranges_end_right_after_the_prefix() {
        let range = KeyRange::prefix(b"ab");
        assert!(range.contains(b"ab") && range.contains(b"ab\xff\xff"));
        assert!(!range.contains(b"aa\xff") && !range.contains(b"ac"));
        let top = KeyRange::prefix(b"a\xff");
        assert!(top.contains(b"a\xff\x01") && !top.contains(b"b"));
        assert_eq!(KeyRange::prefix(b"\xff").end(), None);
        assert!(KeyRange::all().contains(b"") && KeyRange::all().contains(b"\xff\xff"));
    }

    #[test]
    fn ranges_narrow_and_know_when_they_are_empty() {
        let range = KeyRange::new("b", "d");
        assert!(range.contains(b"b") && range.contains(b"c") && !range.contains(b"d"));
        assert!(KeyRange::new("b", "b").is_empty() && KeyRange::new("c", "b").is_empty());
        let narrowed = range.clone().starting_at("a".into()).ending_at("z".into());
        assert_eq!(narrowed, range);
        assert!(range.starting_at("d".into()).is_empty());
    }

    #[test]
    fn numbers_sort_as_their_bytes() {
        assert!(be(255) < be(256));
        assert_eq!(from_be(&be(77)), Some(77));
        assert_eq!(from_be(b"short"), None);
    }

    #[test]
    fn debug_is_escaped() {
        assert_eq!(format!("{:?}", Key::from("a\0\u{7f}")), r"Key(a\x00\x7f)");
        assert_eq!(
            format!("{:?}", KeyRange::prefix(b"a\x01")),
            r"KeyRange(a\x01..a\x02)"
        );
    }
}
