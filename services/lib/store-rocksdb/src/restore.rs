//! Snapshots taken before migrations, and the way back to one.

use crate::acked;
use crate::engine::{Meta, db_path, make_directory, sync_directory};
use crate::layout::{self, meta};
use crate::{Options, fault, options};
use creel_store::{Error, Rev};
use rocksdb::{DB, WriteBatch, checkpoint::Checkpoint};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// How many snapshots are kept; older ones are removed after a migration.
const KEPT: usize = 2;

/// The snapshots of the store in `path`, oldest first.
///
/// # Errors
/// [`Error::Unavailable`] when the directory can't be read.
pub fn snapshots(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let dir = path.join("snapshots");
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if let Some(order) = order(&path) {
                found.push((order, path));
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, path)| path).collect())
    };
    match list() {
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|err| fault::files("reading", &dir, err)),
    }
}

/// Puts a snapshot in the place of the store in `path`, which must not be open. The snapshot stays; what was there
/// is kept as `db.replaced`. The store gets a new incarnation, because revisions after the snapshot's will mean
/// something else now.
///
/// If it is interrupted the store doesn't open until it is run again.
///
/// # Errors
/// [`Error::Unavailable`] when the store is open or the files can't be moved, [`Error::Corrupt`] when the snapshot
/// is damaged; the store is then as before.
pub fn restore(path: &Path, snapshot: &Path) -> Result<(), Error> {
    let (current, copy, replaced) = (db_path(path), path.join("db.restoring"), path.join("db.replaced"));
    let opts = options::database(&Options::default());
    let open = |dir: &Path| DB::open(&opts, dir).map_err(|err| fault::open(dir, err));
    make_directory(path).map_err(|err| fault::files("making", path, err))?;
    if current.exists() {
        // Only to see that nobody has it open. It can't be held open: on closing, RocksDB would tidy up by path.
        match open(&current) {
            Ok(db) => drop(db),
            Err(Error::Corrupt { .. }) => {}
            Err(err) => return Err(err),
        }
    }
    remove(&copy)?;
    if !snapshot.is_dir() {
        return Err(fault::files("reading", snapshot, ErrorKind::NotFound.into()));
    }
    let source = open(snapshot)?;
    let made = Checkpoint::new(&source).and_then(|checkpoint| checkpoint.create_checkpoint(&copy));
    made.map_err(|err| fault::open(&copy, err))?;
    drop(source);
    let db = open(&copy)?;
    Meta::read(&db)?.ok_or_else(|| layout::malformed("the snapshot"))?;
    let mut batch = WriteBatch::default();
    batch.put(meta::INCARNATION, rand::random::<[u8; 16]>());
    db.write_opt(batch, &options::synced())
        .map_err(|err| fault::write(err).answer)?;
    drop(db);

    if current.exists() {
        // Otherwise an interrupted run has moved the store there already.
        remove(&replaced)?;
    }
    let swap = || -> io::Result<()> {
        if current.exists() {
            fs::rename(&current, &replaced)?;
        }
        fs::rename(&copy, &current)?;
        // The mark speaks of the incarnation that was replaced. Until it is gone, the store refuses to open.
        match fs::remove_file(acked::path(path)) {
            Err(err) if err.kind() != ErrorKind::NotFound => Err(err),
            _ => sync_directory(path),
        }
    };
    swap().map_err(|err| fault::files("replacing", &current, err))
}

pub(crate) fn snapshot_path(store: &Path, version: u32, rev: Rev) -> PathBuf {
    store
        .join("snapshots")
        .join(format!("schema-{version}-rev-{rev}"))
}

/// Removes all but the newest snapshots. A store that can't lose an old one still works.
pub(crate) fn prune(store: &Path) {
    let pruned = snapshots(store).and_then(|all| {
        let old = all.len().saturating_sub(KEPT);
        all.iter().take(old).try_for_each(|snapshot| remove(snapshot))
    });
    if let Err(err) = pruned {
        tracing::warn!(error = %err, "an old snapshot of the store couldn't be removed");
    }
}

/// Version and revision in a snapshot's name; `None` for anything else in the directory.
fn order(path: &Path) -> Option<(u32, Rev)> {
    let (version, rev) = path
        .file_name()?
        .to_str()?
        .strip_prefix("schema-")?
        .split_once("-rev-")?;
    Some((version.parse().ok()?, rev.parse().ok()?))
}

fn remove(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(dir) {
        Err(err) if err.kind() != ErrorKind::NotFound => Err(fault::files("removing", dir, err)),
        _ => Ok(()),
    }
}
