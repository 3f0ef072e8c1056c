//! Transactions: compares, the operations if all of them hold, and the operations otherwise.

use crate::{Bytes, Key, KeyRange, Rev};

/// A condition on one key at the moment of the commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cmp {
    /// The key exists.
    Exists(Key),
    /// The key doesn't exist.
    Absent(Key),
    /// The key exists and was last put at this revision.
    ModRev(Key, Rev),
}

/// A change. The operations of a branch apply in order; of several on one key the last one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets the value.
    Put(Key, Bytes),
    /// Removes the key; nothing happens when it doesn't exist.
    Delete(Key),
    /// Removes every existing key of the range, at most [`crate::limits::RANGE_KEYS`].
    DeleteRange(KeyRange),
}

/// An atomic transaction. With no compares it always takes the `then` branch.
///
/// ```
/// # use creel_store::{Key, Store, Txn, Outcome};
/// # async fn demo(store: &Store, key: Key) -> Result<(), creel_store::Error> {
/// let taken = Txn::new().expect_absent(key.clone()).put(key, "holder");
/// match store.commit(taken).await? {
///     Outcome::Committed { rev } => println!("ours since revision {rev}"),
///     Outcome::Conflict { .. } => println!("someone was faster"),
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// All of these must hold.
    pub when: Vec<Cmp>,
    /// Applied when they do.
    pub then: Vec<Op>,
    /// Applied when one doesn't.
    pub otherwise: Vec<Op>,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All compares held; `then` is durable. `rev` is its revision, or the current one if no key changed.
    Committed {
        /// The store's revision after the transaction.
        rev: Rev,
    },
    /// A compare failed; `otherwise` (which may be empty) is durable.
    Conflict {
        /// The store's revision after the transaction.
        rev: Rev,
    },
}

impl Outcome {
    /// The store's revision after the transaction, whichever branch was taken.
    #[must_use]
    pub fn rev(self) -> Rev {
        match self {
            Self::Committed { rev } | Self::Conflict { rev } => rev,
        }
    }

    /// Whether the `then` branch was taken.
    #[must_use]
    pub fn is_committed(self) -> bool {
        matches!(self, Self::Committed { .. })
    }
}

impl Txn {
    /// A transaction that compares and changes nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Requires that the key doesn't exist.
    #[must_use]
    pub fn expect_absent(mut self, key: Key) -> Self {
        self.push_cmp(Cmp::Absent(key));
        self
    }

    /// Requires that the key exists.
    #[must_use]
    pub fn expect_exists(mut self, key: Key) -> Self {
        self.push_cmp(Cmp::Exists(key));
        self
    }

    /// Requires that the key was last put at `rev`.
    #[must_use]
    pub fn expect_rev(mut self, key: Key, rev: Rev) -> Self {
        self.push_cmp(Cmp::ModRev(key, rev));
        self
    }

    /// Sets a value.
    #[must_use]
    pub fn put(mut self, key: Key, value: impl Into<Bytes>) -> Self {
        self.push_put(key, value);
        self
    }

    /// Removes a key.
    #[must_use]
    pub fn delete(mut self, key: Key) -> Self {
        self.push_delete(key);
        self
    }

    /// Removes every key of a range.
    #[must_use]
    pub fn delete_range(mut self, range: KeyRange) -> Self {
        self.push_delete_range(range);
        self
    }

    /// Sets a value if a compare fails.
    #[must_use]
    pub fn otherwise_put(mut self, key: Key, value: impl Into<Bytes>) -> Self {
        self.push_otherwise(Op::Put(key, value.into()));
        self
    }

    /// Removes a key if a compare fails.
    #[must_use]
    pub fn otherwise_delete(mut self, key: Key) -> Self {
        self.push_otherwise(Op::Delete(key));
        self
    }

    /// Removes every key of a range if a compare fails.
    #[must_use]
    pub fn otherwise_delete_range(mut self, range: KeyRange) -> Self {
        self.push_otherwise(Op::DeleteRange(range));
        self
    }

    /// Adds a compare.
    pub fn push_cmp(&mut self, cmp: Cmp) {
        self.when.push(cmp);
    }

    /// Adds a put to the `then` branch.
    pub fn push_put(&mut self, key: Key, value: impl Into<Bytes>) {
        self.push_then(Op::Put(key, value.into()));
    }

    /// Adds a delete to the `then` branch.
    pub fn push_delete(&mut self, key: Key) {
        self.push_then(Op::Delete(key));
    }

    /// Adds a range delete to the `then` branch.
    pub fn push_delete_range(&mut self, range: KeyRange) {
        self.push_then(Op::DeleteRange(range));
    }

    /// Adds an operation to the `then` branch.
    pub fn push_then(&mut self, op: Op) {
        self.then.push(op);
    }

    /// Adds an operation to the `otherwise` branch.
    pub fn push_otherwise(&mut self, op: Op) {
        self.otherwise.push(op);
    }

    /// Bytes of all keys, range bounds and values: what [`crate::limits::TXN_BYTES`] bounds.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let compares = self.when.iter().map(|cmp| match cmp {
            Cmp::Exists(key) | Cmp::Absent(key) | Cmp::ModRev(key, _) => key.as_ref().len(),
        });
        let ops = self.then.iter().chain(&self.otherwise).map(|op| match op {
            Op::Put(key, value) => key.as_ref().len() + value.len(),
            Op::Delete(key) => key.as_ref().len(),
            Op::DeleteRange(range) => range.start().len() + range.end().map_or(0, <[u8]>::len),
        });
        compares.chain(ops).sum()
    }
}
