//! The limits every engine shares. They are etcd's order of magnitude, so that no service grows out of the engine
//! it may move to. [`crate::Store`] checks them before an engine is asked; going past one is [`Error::Limit`].

use crate::{Cmp, Error, Key, KeyRange, Op, Txn};

/// Longest key, in bytes.
pub const KEY_BYTES: usize = 1024;
/// Largest value, in bytes.
pub const VALUE_BYTES: usize = 256 * 1024;
/// Most operations in each branch of a transaction, and most compares.
pub const TXN_OPS: usize = 100;
/// Most bytes of keys and values in a transaction, all branches and compares together.
pub const TXN_BYTES: usize = 1024 * 1024;
/// Most existing keys that the `DeleteRange` operations of one transaction may remove together.
/// For more, see [`crate::Store::clear`].
pub const RANGE_KEYS: usize = 10_000;
/// Most entries in a page of a scan.
pub const PAGE_ENTRIES: usize = 1000;
/// A page ends early once it holds this many bytes of keys and values (it always holds at least one entry).
pub const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Most bytes that [`crate::Store::scan_all`] collects.
pub const SCAN_ALL_BYTES: usize = 64 * 1024 * 1024;

/// [`Error::Limit`] when there are more than `limit`.
///
/// # Errors
/// That one.
pub fn check(what: &'static str, limit: usize, got: usize) -> Result<(), Error> {
    if got > limit {
        return Err(Error::Limit {
            what,
            limit: limit as u64,
            got: got as u64,
        });
    }
    Ok(())
}

pub(crate) fn check_key(key: &Key) -> Result<(), Error> {
    check("empty keys", 0, usize::from(key.as_ref().is_empty()))?;
    check("bytes in a key", KEY_BYTES, key.as_ref().len())
}

pub(crate) fn check_txn(txn: &Txn) -> Result<(), Error> {
    check("compares in a transaction", TXN_OPS, txn.when.len())?;
    check("operations in a transaction", TXN_OPS, txn.then.len())?;
    check(
        "alternative operations in a transaction",
        TXN_OPS,
        txn.otherwise.len(),
    )?;
    for cmp in &txn.when {
        check_key(cmp_key(cmp))?;
    }
    for op in txn.then.iter().chain(&txn.otherwise) {
        match op {
            Op::Put(key, value) => {
                check_key(key)?;
                check("bytes in a value", VALUE_BYTES, value.len())?;
            }
            Op::Delete(key) => check_key(key)?,
            Op::DeleteRange(range) => check_range(range)?,
        }
    }
    check("bytes in a transaction", TXN_BYTES, txn.size_bytes())
}

/// A bound may be one byte longer than a key: the successor of the longest key is a valid bound.
pub(crate) fn check_range(range: &KeyRange) -> Result<(), Error> {
    check("bytes in a range bound", KEY_BYTES + 1, range.start().len())?;
    check(
        "bytes in a range bound",
        KEY_BYTES + 1,
        range.end().map_or(0, <[u8]>::len),
    )
}

fn cmp_key(cmp: &Cmp) -> &Key {
    match cmp {
        Cmp::Exists(key) | Cmp::Absent(key) | Cmp::ModRev(key, _) => key,
    }
}
