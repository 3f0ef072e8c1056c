//! Schema versions: a newer store is refused, an older one is snapshotted and then brought up step by step.
//! Each step is one synced batch together with its version, so a crash leaves the version before or after it.

use crate::engine::{Entries, Meta};
use crate::layout::{self, meta};
use crate::{Options, fault, options, restore};
use creel_store::{Bytes, Entry, Error, Key, KeyRange, Rev, limits};
use rocksdb::{DB, WriteBatch, checkpoint::Checkpoint};
use std::collections::BTreeMap;
use std::path::Path;

/// Most bytes of keys and values one step may change; they are held in memory.
const STEP_BYTES: usize = 64 << 20;

/// A step from one schema version to the next.
#[derive(Debug, Clone)]
pub struct Migration {
    /// The version it starts from; it ends at the next one.
    pub from: u32,
    /// What it does, for the log.
    pub name: &'static str,
    /// Reads the state before and says what to change.
    pub apply: fn(&Before<'_>, &mut Changes) -> Result<(), Error>,
}

/// The store as it was before the step.
pub struct Before<'a> {
    db: &'a DB,
}

/// What a step changes, all at one new revision.
#[derive(Debug, Default)]
pub struct Changes {
    bytes: usize,
    keys: BTreeMap<Key, Option<Bytes>>,
}

impl Before<'_> {
    /// The entries of a range in ascending order.
    pub fn entries(&self, range: &KeyRange) -> impl Iterator<Item = Result<Entry, Error>> {
        let (lower, upper) = layout::raw_bounds(range);
        // An inverted range would be an error of the iterator, an empty one has nothing.
        let raw = (!range.is_empty()).then(|| self.db.raw_iterator_opt(options::between(lower, upper)));
        raw.into_iter().flat_map(|raw| Entries::new(raw, false))
    }
}

impl Changes {
    /// Sets a value.
    ///
    /// # Errors
    /// [`Error::Limit`] for the key, the value, or all changes of the step together (64 MiB).
    pub fn put(&mut self, key: Key, value: impl Into<Bytes>) -> Result<(), Error> {
        let value = value.into();
        limits::check("bytes in a key", limits::KEY_BYTES, key.as_ref().len())?;
        limits::check("bytes in a value", limits::VALUE_BYTES, value.len())?;
        self.set(key, Some(value))
    }

    /// Removes a key.
    ///
    /// # Errors
    /// [`Error::Limit`] for all changes of the step together (64 MiB).
    pub fn delete(&mut self, key: Key) -> Result<(), Error> {
        self.set(key, None)
    }

    fn set(&mut self, key: Key, value: Option<Bytes>) -> Result<(), Error> {
        self.bytes += key.as_ref().len() + value.as_ref().map_or(0, Bytes::len);
        limits::check("bytes changed by a migration", STEP_BYTES, self.bytes)?;
        self.keys.insert(key, value);
        Ok(())
    }

    fn batch(self, rev: Rev) -> WriteBatch {
        let (mut batch, mut raw) = (WriteBatch::default(), Vec::new());
        for (key, value) in self.keys {
            match value {
                Some(value) => layout::put(&mut batch, &mut raw, &key, &value, rev),
                None => batch.delete(layout::raw_key(key.as_ref())),
            }
        }
        batch
    }
}

/// Brings the database to the version of this program.
pub(crate) fn to_current(db: &DB, store: &Path, found: Meta, opts: &Options) -> Result<Meta, Error> {
    let (version, supported) = (found.identity.schema_version, opts.schema_version);
    if version > supported {
        return Err(Error::NewerSchema {
            found: version,
            supported,
        });
    }
    if version == supported {
        return Ok(found);
    }
    // All steps are looked up before the first is taken.
    let steps: Vec<_> = (version..supported)
        .map(|from| step(opts, from))
        .collect::<Result<_, _>>()?;
    let snapshot = restore::snapshot_path(store, version, found.rev);
    take_snapshot(db, &snapshot)?;
    let mut meta = found;
    for step in steps {
        tracing::info!(from = step.from, step = step.name, snapshot = %snapshot.display(), "migrating the store");
        meta = run(db, meta, step)?;
    }
    restore::prune(store);
    Ok(meta)
}

fn step(opts: &Options, from: u32) -> Result<&Migration, Error> {
    opts.migrations
        .iter()
        .find(|step| step.from == from)
        .ok_or_else(|| Error::Unavailable {
            what: format!("there is no migration from schema version {from} to {}", from + 1),
            hint: "start the version of Creel that wrote the store, or one between".into(),
            cause: None,
        })
}

fn run(db: &DB, before: Meta, step: &Migration) -> Result<Meta, Error> {
    let mut after = before;
    after.identity.schema_version = step.from + 1;
    let mut changes = Changes::default();
    (step.apply)(&Before { db }, &mut changes)?;
    after.rev += Rev::from(!changes.keys.is_empty());
    let mut batch = changes.batch(after.rev);
    batch.put(meta::REV, after.rev.to_be_bytes());
    batch.put(meta::SCHEMA, after.identity.schema_version.to_be_bytes());
    db.write_opt(batch, &options::synced())
        .map_err(|err| fault::write(err).answer)?;
    Ok(after)
}

/// RocksDB makes the snapshot elsewhere and renames it, so one that is there is whole; one of the same version and
/// revision, left by a migration that failed, holds the same.
fn take_snapshot(db: &DB, to: &Path) -> Result<(), Error> {
    if to.exists() {
        return Ok(());
    }
    if let Some(parent) = to.parent() {
        crate::engine::make_directory(parent).map_err(|err| fault::files("making", parent, err))?;
    }
    let made = Checkpoint::new(db).and_then(|checkpoint| checkpoint.create_checkpoint(to));
    made.map_err(|err| fault::open(to, err))
}
