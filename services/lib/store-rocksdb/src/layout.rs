//! The bytes in RocksDB: a prefix tells meta keys from data, a header gives each value its revisions.
//!
//! ```text
//! 00 <name>   ->  meta value
//! 01 <key>    ->  create revision (8, big endian) | modification revision (8) | value
//! ```

use bytes::BytesMut;
use creel_store::{Bytes, Entry, Error, Key, KeyRange, Rev, Revs};
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
    let Revs { create, modified } = revs(raw)?;
    Ok(Entry {
        key,
        value: Bytes::copy_from_slice(&raw[HEADER..]),
        create_rev: create,
        mod_rev: modified,
    })
}

/// The entry of a raw key and value, both copied into a buffer that many share; a new one of `size` bytes when it is
/// full.
pub(crate) fn entry_in(buffer: &mut BytesMut, size: usize, key: &[u8], raw: &[u8]) -> Result<Entry, Error> {
    let (Some((&DATA, key)), Revs { create, modified }) = (key.split_first(), revs(raw)?) else {
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
        create_rev: create,
        mod_rev: modified,
    })
}

pub(crate) fn revs(raw: &[u8]) -> Result<Revs, Error> {
    match raw.split_first_chunk() {
        Some((create, rest)) => match rest.first_chunk() {
            Some(modified) => Ok(Revs {
                create: Rev::from_be_bytes(*create),
                modified: Rev::from_be_bytes(*modified),
            }),
            None => Err(malformed("a value")),
        },
        None => Err(malformed("a value")),
    }
}

pub(crate) fn put(batch: &mut WriteBatch, key: &Key, value: &[u8], revs: Revs) {
    let mut raw = Vec::with_capacity(HEADER + value.len());
    raw.extend_from_slice(&revs.create.to_be_bytes());
    raw.extend_from_slice(&revs.modified.to_be_bytes());
    raw.extend_from_slice(value);
    batch.put(raw_key(key.as_ref()), raw);
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
        assert!(matches!(revs(&[0; 15]), Err(Error::Corrupt { .. })));
        assert!(matches!(key(b""), Err(Error::Corrupt { .. })));
        assert!(matches!(key(b"\0rev"), Err(Error::Corrupt { .. })));
        let raw = [1u64.to_be_bytes(), 2u64.to_be_bytes()].concat();
        let entry = entry("k".into(), &raw).unwrap();
        assert_eq!((entry.create_rev, entry.mod_rev, entry.value.len()), (1, 2, 0));
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
            assert_eq!((entry.create_rev, entry.mod_rev), (1, 2));
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
