//! The engine: opens the database, reads it on the caller's thread, hands commits to the committer's.

use crate::acked::Mark;
use crate::committer::{BATCH_TXNS, Committer, Request};
use crate::layout::{self, meta};
use crate::{Options, acked, fault, migrate, options};
use async_trait::async_trait;
use bytes::BytesMut;
use creel_store::{
    Engine, Entry, Error, History, Identity, Key, KeyRange, Outcome, Rev, ScanBounds, ScanPage, Txn, limits,
};
use rocksdb::{DB, DBRawIteratorWithThreadMode, WriteBatch};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::JoinHandle;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Most bytes of queued transactions; senders wait when it is taken.
const QUEUE_BYTES: usize = 8 << 20;
/// Of so much unflushed data a store lets go when it rests.
const REST_BYTES: u64 = 1 << 20;
/// RocksDB's name for the size of it.
const ACTIVE_BUFFER: &str = "rocksdb.cur-size-active-mem-table";

pub(crate) struct Rocks {
    db: Arc<DB>,
    identity: Identity,
    history: Arc<History>,
    instant_ms: Arc<AtomicI64>,
    memory: Arc<Semaphore>,
    /// Both are there until the drop.
    queue: Option<mpsc::Sender<Request>>,
    committer: Option<JoinHandle<()>>,
}

/// The meta keys of an open database.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Meta {
    pub(crate) identity: Identity,
    pub(crate) rev: Rev,
    pub(crate) instant_ms: i64,
}

/// Where RocksDB's files lie.
pub(crate) fn db_path(store: &Path) -> PathBuf {
    store.join("db")
}

impl Rocks {
    pub(crate) fn open(path: &Path, opts: Options) -> Result<Self, Error> {
        make_directory(path).map_err(|err| fault::files("making", path, err))?;
        let db_path = db_path(path);
        if !db_path.exists() {
            // Nothing is created where commits are known to be missing.
            acked::check(path, 0)?;
        }
        let db = DB::open(&options::database(&opts), &db_path).map_err(|err| fault::open(&db_path, err))?;
        let found = Meta::read(&db)?;
        acked::check(path, found.map_or(0, |meta| meta.rev))?;
        let found = match found {
            Some(meta) => meta,
            None => Meta::create(&db, opts.schema_version)?,
        };
        let meta = migrate::to_current(&db, path, found, &opts)?;

        let db = Arc::new(db);
        let history = History::new(meta.rev, opts.history);
        let instant_ms = Arc::new(AtomicI64::new(meta.instant_ms));
        let (sender, receiver) = mpsc::channel(BATCH_TXNS);
        let committer = Committer {
            db: db.clone(),
            mark: Mark::open(path, meta.rev)?,
            history: history.clone(),
            rev: meta.rev,
            instant_ms: instant_ms.clone(),
            failing: false,
            broken: None,
        };
        let thread = std::thread::Builder::new().name("store-commit".into());
        let thread = thread.spawn(move || committer.run(receiver));
        Ok(Self {
            db,
            identity: meta.identity,
            history,
            instant_ms,
            memory: Arc::new(Semaphore::new(QUEUE_BYTES)),
            queue: Some(sender),
            committer: Some(thread.map_err(|err| fault::files("starting the commit thread of", path, err))?),
        })
    }
}

#[async_trait]
impl Engine for Rocks {
    fn identity(&self) -> Identity {
        self.identity
    }

    fn last_instant_ms(&self) -> i64 {
        self.instant_ms.load(Ordering::Acquire)
    }

    fn history(&self) -> &Arc<History> {
        &self.history
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        let raw = self
            .db
            .get_pinned(layout::raw_key(key.as_ref()))
            .map_err(fault::read)?;
        raw.map(|raw| layout::entry(key.clone(), &raw)).transpose()
    }

    async fn scan(&self, range: KeyRange, bounds: ScanBounds) -> Result<ScanPage, Error> {
        if bounds.entries <= limits::PAGE_ENTRIES {
            return scan(&self.db, range, bounds);
        }
        // A whole range may be long: not on a thread that others wait for.
        let db = self.db.clone();
        match tokio::task::spawn_blocking(move || scan(&db, range, bounds)).await {
            Ok(page) => page,
            Err(err) => Err(Error::Unavailable {
                what: "a long scan was cut off".into(),
                hint: "restart the service".into(),
                cause: Some(Arc::new(err)),
            }),
        }
    }

    async fn commit(&self, txn: Txn, instant_ms: i64) -> Result<Outcome, Error> {
        let closed = || Error::Unavailable {
            what: "the commit thread has stopped".into(),
            hint: "restart the service".into(),
            cause: None,
        };
        // At most `limits::TXN_BYTES`, checked by the store, so it fits.
        let bytes = u32::try_from(txn.size_bytes()).map_err(|_| closed())?;
        let memory = self
            .memory
            .clone()
            .acquire_many_owned(bytes)
            .await
            .map_err(|_| closed())?;
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        queue
            .send(Request {
                txn,
                instant_ms,
                answer,
                memory,
            })
            .await
            .map_err(|_| closed())?;
        answered.await.unwrap_or_else(|_| {
            Err(Error::Indeterminate {
                what: "the commit thread stopped before it answered".into(),
                cause: None,
            })
        })
    }

    /// Unflushed data goes to the disk, unless it is so little that a file of its own would cost more.
    async fn rest(&self) {
        let db = Arc::clone(&self.db);
        let flushed = tokio::task::spawn_blocking(move || {
            let held = db.property_int_value(ACTIVE_BUFFER)?.unwrap_or(0);
            if held < REST_BYTES { Ok(()) } else { db.flush() }
        });
        if let Ok(Err(err)) = flushed.await {
            // It stays in the log, and in memory.
            tracing::warn!(error = %err, "unflushed data stays in memory");
        }
    }
}

impl Drop for Rocks {
    /// Waits for the last batch, so that the store can be opened again as soon as its handle is gone.
    fn drop(&mut self) {
        self.queue.take();
        if self.committer.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's commit thread had panicked");
        }
    }
}

impl Meta {
    /// `None` for a database that was just created.
    pub(crate) fn read(db: &DB) -> Result<Option<Self>, Error> {
        let Some(format) = number(db, meta::FORMAT)? else {
            let mut any = db.raw_iterator();
            any.seek_to_first();
            any.status().map_err(fault::read)?;
            return if any.valid() {
                Err(layout::malformed("the database"))
            } else {
                Ok(None)
            };
        };
        let format = u32::from_be_bytes(format);
        if format > layout::FORMAT {
            return Err(Error::NewerSchema {
                found: format,
                supported: layout::FORMAT,
            });
        }
        let missing = || layout::malformed("the meta data");
        let identity = Identity {
            incarnation: number(db, meta::INCARNATION)?.ok_or_else(missing)?,
            schema_version: u32::from_be_bytes(number(db, meta::SCHEMA)?.ok_or_else(missing)?),
        };
        let rev = Rev::from_be_bytes(number(db, meta::REV)?.ok_or_else(missing)?);
        let instant_ms = number(db, meta::INSTANT)?.map_or(i64::MIN, i64::from_be_bytes);
        Ok(Some(Self {
            identity,
            rev,
            instant_ms,
        }))
    }

    fn create(db: &DB, schema_version: u32) -> Result<Self, Error> {
        let identity = Identity {
            incarnation: rand::random(),
            schema_version,
        };
        let mut batch = WriteBatch::default();
        batch.put(meta::FORMAT, layout::FORMAT.to_be_bytes());
        batch.put(meta::INCARNATION, identity.incarnation);
        batch.put(meta::SCHEMA, schema_version.to_be_bytes());
        batch.put(meta::REV, 0u64.to_be_bytes());
        db.write_opt(batch, &options::synced())
            .map_err(|err| fault::write(err).answer)?;
        Ok(Self {
            identity,
            rev: 0,
            instant_ms: i64::MIN,
        })
    }
}

/// A meta value of fixed size.
fn number<const N: usize>(db: &DB, name: &[u8]) -> Result<Option<[u8; N]>, Error> {
    let Some(bytes) = db.get_pinned(name).map_err(fault::read)? else {
        return Ok(None);
    };
    bytes
        .as_ref()
        .try_into()
        .map(Some)
        .map_err(|_| layout::malformed("the meta data"))
}

/// One page from one snapshot, with its revision.
fn scan(db: &DB, range: KeyRange, bounds: ScanBounds) -> Result<ScanPage, Error> {
    let snapshot = db.snapshot();
    let rev = snapshot.get_pinned(meta::REV).map_err(fault::read)?;
    let rev = rev
        .as_deref()
        .and_then(creel_store::from_be)
        .ok_or_else(|| layout::malformed("the meta data"))?;
    if range.is_empty() {
        return Ok(ScanPage {
            entries: Vec::new(),
            rev,
            next: None,
        });
    }
    let (lower, upper) = layout::raw_bounds(&range);
    let raw = snapshot.raw_iterator_opt(options::between(lower, upper));
    bounds.collect(range, rev, Entries::new(raw, bounds.reverse))
}

/// Entries of a scan share buffers of this size, so that a million of them are not two million allocations; who
/// keeps one for long keeps its neighbours.
const BUFFER_BYTES: usize = 16 << 10;

/// The entries under a bounded iterator, in either direction.
pub(crate) struct Entries<'a> {
    raw: DBRawIteratorWithThreadMode<'a, DB>,
    reverse: bool,
    done: bool,
    buffer: BytesMut,
}

impl<'a> Entries<'a> {
    pub(crate) fn new(mut raw: DBRawIteratorWithThreadMode<'a, DB>, reverse: bool) -> Self {
        if reverse {
            raw.seek_to_last()
        } else {
            raw.seek_to_first()
        }
        Self {
            raw,
            reverse,
            done: false,
            buffer: BytesMut::new(),
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let Some((key, value)) = self.raw.item() else {
            self.done = true;
            return self.raw.status().err().map(|err| Err(fault::read(err)));
        };
        let entry = layout::entry_in(&mut self.buffer, BUFFER_BYTES, key, value);
        if self.reverse {
            self.raw.prev()
        } else {
            self.raw.next()
        }
        Some(entry)
    }
}

/// Makes a directory that only its owner enters, and makes its name durable: a commit in it is worth nothing if
/// the directory is gone after a power failure.
pub(crate) fn make_directory(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    make_directory(parent)?;
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    sync_directory(path)?;
    sync_directory(parent)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    fs::File::open(path)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}
