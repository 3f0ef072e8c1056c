//! Contexts in memory: each behind a lock of its own, loaded when needed, forgotten when idle. Whoever
//! holds the lock is the only writer of that context's record, inbox and transcript.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use creel_proto::agent::v1::{ContextRecord, TranscriptEntry};
use creel_store::Store;
use creel_wire::{Error, SessionKey};
use tokio::sync::OwnedMutexGuard;

use crate::{
    inbox::{self, Inbox},
    session,
    store::{self, Kind},
    transcript::Transcript,
};

/// Contexts kept in memory while nobody uses them; each holds one open file.
const MAX_IDLE: usize = 128;

/// One context.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) record: ContextRecord,
    pub(crate) inbox: Inbox,
    pub(crate) transcript: Transcript,
    /// Whether the store has it.
    pub(crate) exists: bool,
}

impl Context {
    /// Adds entries to the transcript and the record's count of them; all or none.
    ///
    /// # Errors
    /// `Unavailable` when the file can't be written.
    pub(crate) fn append(&mut self, entries: Vec<TranscriptEntry>) -> Result<(), Error> {
        let before = self.transcript.len();
        for entry in entries {
            if let Err(error) = self.transcript.append(entry) {
                self.cut(before);
                return Err(storage(&error));
            }
        }
        self.record.entries = self.transcript.len();
        Ok(())
    }

    /// Takes back what was appended after there were `len` entries.
    pub(crate) fn cut(&mut self, len: u64) {
        if let Err(error) = self.transcript.cut(len) {
            // The store still says how many count; the next open cuts.
            tracing::error!(%error, session = %self.record.session, "transcript not cut back");
        }
        self.record.entries = len;
    }

    /// Makes all of the transcript durable.
    ///
    /// # Errors
    /// `Unavailable` when the system does not.
    pub(crate) async fn sync(&self) -> Result<(), Error> {
        let unsynced = self.transcript.unsynced();
        blocking(move || unsynced.sync()).await
    }
}

/// Runs file work elsewhere than on an async thread.
///
/// # Errors
/// `Unavailable` when it fails.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| storage(&error)),
        Err(_) => Err(Error::internal("reading files")),
    }
}

/// A failure of files, as it is told to a caller.
pub(crate) fn storage(error: &std::io::Error) -> Error {
    tracing::error!(%error, "files failed");
    Error::new(
        creel_wire::Code::Unavailable,
        "storage",
        "transcripts can't be read or written now",
    )
    .hint("see that the disk has room: df, creel logs agent-runner")
}

type Shared = Arc<tokio::sync::Mutex<Option<Context>>>;

/// A locked context.
pub(crate) type Locked = OwnedMutexGuard<Option<Context>>;

/// All contexts.
#[derive(Debug)]
pub(crate) struct Contexts {
    store: Store,
    dir: PathBuf,
    loaded: Mutex<BTreeMap<SessionKey, Shared>>,
}

impl Contexts {
    /// Contexts of a store, with their transcripts below `dir`.
    pub(crate) fn new(store: Store, dir: &Path) -> Self {
        Self {
            store,
            dir: dir.to_owned(),
            loaded: Mutex::default(),
        }
    }

    /// Where the transcript of a context lies.
    pub(crate) fn folder(&self, folder: &str) -> PathBuf {
        self.dir.join(folder)
    }

    /// Locks a context; inside is `None` when there is no such context.
    ///
    /// # Errors
    /// What store or files said.
    pub(crate) async fn find(&self, key: &SessionKey) -> Result<Locked, Error> {
        let mut locked = self.shared(key).lock_owned().await;
        if locked.is_none()
            && let Some(record) = store::get::<ContextRecord>(&self.store, &store::context_key(key)).await?
        {
            *locked = Some(self.load(record).await?);
        }
        Ok(locked)
    }

    /// Locks a context; one that does not exist yet is made in memory, with `exists` unset until its
    /// record is committed.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(crate) async fn open(&self, key: &SessionKey, unique: &str, now_ms: i64) -> Result<Locked, Error> {
        let mut locked = self.find(key).await?;
        if locked.is_none() {
            let record = ContextRecord {
                session: key.to_string(),
                trust: session::trust(key).into(),
                created_at_unix_ms: now_ms,
                last_active_at_unix_ms: now_ms,
                folder: format!("{}-{unique}", session::kind(key)),
                ..Default::default()
            };
            let path = self.folder(&record.folder);
            let transcript = blocking(move || Transcript::open(&path, 0)).await?;
            let inbox = Inbox::default();
            *locked = Some(Context {
                record,
                inbox,
                transcript,
                exists: false,
            });
        }
        Ok(locked)
    }

    /// Takes back a context that was opened and never committed.
    pub(crate) fn discard(locked: &mut Locked) {
        if let Some(context) = locked.take_if(|context| !context.exists) {
            // It holds nothing; should it stay, then as an empty directory.
            let _ = context.transcript.remove();
        }
    }

    async fn load(&self, mut record: ContextRecord) -> Result<Context, Error> {
        let (path, committed) = (self.folder(&record.folder), record.entries);
        let transcript = blocking(move || Transcript::open(&path, committed)).await?;
        if transcript.len() < committed {
            tracing::warn!(session = %record.session, committed, found = transcript.len(), "transcript entries are missing");
            record.entries = transcript.len();
        }
        let range = Kind::Queued.range_of([&record.folder]);
        let mut events: Vec<creel_proto::agent::v1::QueuedEventRecord> =
            store::all(&self.store, range, inbox::MAX_EVENTS).await?;
        events.sort_by(|a, b| (a.created_at_unix_ms, &a.event_id).cmp(&(b.created_at_unix_ms, &b.event_id)));
        Ok(Context {
            record,
            inbox: Inbox::of(events),
            transcript,
            exists: true,
        })
    }

    fn shared(&self, key: &SessionKey) -> Shared {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.len() > MAX_IDLE && !loaded.contains_key(key) {
            // Under this lock nobody can get another handle, so one handle is nobody's.
            loaded.retain(|_, shared| Arc::strong_count(shared) > 1);
        }
        Arc::clone(loaded.entry(key.clone()).or_default())
    }
}
