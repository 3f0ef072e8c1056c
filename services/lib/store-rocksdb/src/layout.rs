//! The bytes in RocksDB: a prefix tells meta keys from data, a header gives each value its revision.
//!
//! ```text
//! 00 <name>   ->  meta value
//! 01 <key>    ->  revision (8, big endian) | the same | value
//! ```
//!
//! The first revision once was the key's creation, which nobody asked for, and finding it cost every put a read.

use bytes::BytesMut;
use creel_store::{Bytes, Entry, Error, Key, KeyRange, Rev};
use rocksdb::WriteBatch;

/// The version of this layout, not of the records in it.
pub(crate) const FORMAT: u32 = 1;

const DATA: u8 = 1;
const HEADER: usize = 16;

/// Meta keys.
pub(crate) mod meta {
    /// Layout version, u32 big endian; there since creation.
    pub(crate) const FORMAT: &[u8] = b"\0format";
    /// 16 random bytes.
    pub(crate) const INCARNATION: &[u8] = b"\0incarnation";
    /// Schema version, u32 big endian.
    pub(crate) const SCHEMA: &[u8] = b"\0schema";
    /// The revision, u64 big endian.
    pub(crate) const REV: &[u8] = b"\0rev";
    /// The last committed instant, Unix ms, i64 big endian; missing before the first.
    pub(crate) const INSTANT: &[u8] = b"\0instant";
}

pub(crate) fn raw_key(key: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(key.len() + 1);
    raw.push(DATA);
    raw.extend_from_slice(key);
    raw
}

/// The raw keys of a range: inclusive lower, exclusive upper end.
pub(crate) fn raw_bounds(range: &KeyRange) -> (Vec<u8>, Vec<u8>) {
    (
        raw_key(range.start()),
        range.end().map_or(vec![DATA + 1], raw_key),
    )
}

pub(crate) fn key(raw: &[u8]) -> Result<Key, Error> {
    match raw.split_first() {
        Some((&DATA, key)) => Ok(key.into()),
        _ => Err(malformed("a key")),
    }
}

pub(crate) fn entry(key: Key, raw: &[u8]) -> Result<Entry, Error> {
    Ok(Entry {
        key,
        mod_rev: rev(raw)?,
        value: Bytes::copy_from_slice(&raw[HEADER..]),
    })
}

/// The entry of a raw key and value, both copied into a buffer that many share; a new one of `size` bytes when it is
/// full.
pub(crate) fn entry_in(buffer: &mut BytesMut, size: usize, key: &[u8], raw: &[u8]) -> Result<Entry, Error> {
    let (Some((&DATA, key)), mod_rev) = (key.split_first(), rev(raw)?) else {
        return Err(malformed("a key"));
    };
    let value = &raw[HEADER..];
    if buffer.capacity() < key.len() + value.len() {
        *buffer = BytesMut::with_capacity(size.max(key.len() + value.len()));
    }
    let mut keep = |bytes: &[u8]| {
        buffer.extend_from_slice(bytes);
        buffer.split().freeze()
    };
    Ok(Entry {
        key: Key::new(keep(key)),
        value: keep(value),
        mod_rev,
    })
}

/// The revision of a raw value.
pub(crate) fn rev(raw: &[u8]) -> Result<Rev, Error> {
    let header = raw.first_chunk::<HEADER>();
    let rev = header.and_then(|header| header.last_chunk());
    rev.map(|rev| Rev::from_be_bytes(*rev))
        .ok_or_else(|| malformed("a value"))
}

/// Adds a put to a batch. `raw` is room that many share.
pub(crate) fn put(batch: &mut WriteBatch, raw: &mut Vec<u8>, key: &Key, value: &[u8], rev: Rev) {
    raw.clear();
    raw.push(DATA);
    raw.extend_from_slice(key.as_ref());
    let (rev, len) = (rev.to_be_bytes(), raw.len());
    raw.extend_from_slice(&rev);
    raw.extend_from_slice(&rev);
    raw.extend_from_slice(value);
    let (key, value) = raw.split_at(len);
    batch.put(key, value);
}

pub(crate) fn malformed(what: &str) -> Error {
    Error::Corrupt {
        what: format!("{what} is not in the layout this program writes"),
        hint: "restore a backup of the store".into(),
        cause: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_values_and_foreign_keys_are_damage_not_panics() {
        assert!(matches!(rev(&[0; 15]), Err(Error::Corrupt { .. })));
        assert!(matches!(key(b""), Err(Error::Corrupt { .. })));
        assert!(matches!(key(b"\0rev"), Err(Error::Corrupt { .. })));
        let raw = [1u64.to_be_bytes(), 2u64.to_be_bytes()].concat();
        let entry = entry("k".into(), &raw).unwrap();
        assert_eq!((entry.mod_rev, entry.value.len()), (2, 0));
    }

    #[test]
    fn entries_of_a_scan_share_buffers_and_are_whole() {
        let header = [1u64.to_be_bytes(), 2u64.to_be_bytes()].concat();
        let mut buffer = BytesMut::new();
        let made: Vec<_> = (0..200_u8)
            .map(|n| {
                let (key, value) = ([DATA, n], [&header[..], &vec![n; usize::from(n)]].concat());
                entry_in(&mut buffer, 64, &key, &value).unwrap()
            })
            .collect();
        for (n, entry) in (0..200_u8).zip(made) {
            assert_eq!(
                (entry.key.as_ref(), &*entry.value),
                (&[n][..], &*vec![n; usize::from(n)])
            );
            assert_eq!(entry.mod_rev, 2);
        }
        assert!(entry_in(&mut buffer, 64, b"\0rev", &header).is_err());
        assert!(entry_in(&mut buffer, 64, &[DATA, 1], &[0; 15]).is_err());
    }

    #[test]
    fn meta_keys_lie_outside_every_range() {
        let (lower, upper) = raw_bounds(&KeyRange::all());
        for name in [
            meta::FORMAT,
            meta::INCARNATION,
            meta::SCHEMA,
            meta::REV,
            meta::INSTANT,
        ] {
            assert!(name < &lower[..]);
        }
        assert!(raw_key(&[0xff; 1024]) < upper);
    }
}
