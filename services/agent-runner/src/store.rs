//! What agent-runner keeps in its store, and how it is found. Long texts, transcripts and events lie in
//! files that the records name.

use creel_proto::agent::v1::{ContextRecord, QueuedEventRecord, RemovalRecord, TurnRecord, WorkRecord};
use creel_store::{Key, KeyRange, Page, Store, Txn, be, kinds::parts};
use creel_wire::{Error, SessionKey};
use prost::Message;

use creel_kit::failure::store_error;

creel_store::kinds! {
    /// The kinds of records.
    pub(crate) enum Kind {
        /// A context, by session.
        Context = b"cx",
        /// An event that waits, by (folder, event id).
        Queued = b"qe",
        /// A turn, by id.
        Turn = b"tn",
        /// Ids of a context's turns, by (folder, number).
        TurnOf = b"to",
        /// Turns that have not ended, by id.
        Open = b"op",
        /// Runs of jobs, by run id.
        Work = b"wk",
        /// Contexts that are being removed, by folder.
        Removal = b"rm",
    }
}

/// The key of a context.
pub(crate) fn context_key(session: &SessionKey) -> Key {
    Kind::Context.key([session.to_string()])
}

/// The key of a turn.
pub(crate) fn turn_key(turn: &str) -> Key {
    Kind::Turn.key([turn])
}

/// Contexts whose session starts with a text.
pub(crate) fn contexts_with(prefix: &str) -> KeyRange {
    let key = Kind::Context.key([prefix]);
    // Without the two bytes that close the part, the key's bytes are those that all such keys start with.
    let bytes = key.as_ref();
    KeyRange::prefix(&bytes[..bytes.len() - 2])
}

/// Reads one record.
///
/// # Errors
/// What the store said; `Internal` for a record that can't be read.
pub(crate) async fn get<T: Message + Default>(store: &Store, key: &Key) -> Result<Option<T>, Error> {
    let entry = store.get(key).await.map_err(store_error)?;
    entry.map(|entry| decode(&entry.value)).transpose()
}

/// Reads all records of a range that is known to be small.
///
/// # Errors
/// As [`get`], and when there are more than `max`.
pub(crate) async fn all<T: Message + Default>(
    store: &Store,
    range: KeyRange,
    max: usize,
) -> Result<Vec<T>, Error> {
    let page = store.scan_all(range, max).await.map_err(store_error)?;
    page.entries.iter().map(|entry| decode(&entry.value)).collect()
}

/// Reads one page of keys and values.
///
/// # Errors
/// As [`get`].
pub(crate) async fn page(
    store: &Store,
    range: KeyRange,
    limit: usize,
) -> Result<creel_store::ScanPage, Error> {
    store.scan(range, Page::first(limit)).await.map_err(store_error)
}

/// Reads a record's bytes.
///
/// # Errors
/// `Internal` when they are none.
pub(crate) fn decode<T: Message + Default>(bytes: &[u8]) -> Result<T, Error> {
    T::decode(bytes).map_err(|error| {
        tracing::error!(%error, kind = std::any::type_name::<T>(), "a stored record can't be read");
        Error::internal("reading a stored record")
    })
}

/// The last part of a key made by a kind, as text.
pub(crate) fn last_part(key: &Key) -> Option<String> {
    parts(key)?.pop().and_then(|part| String::from_utf8(part).ok())
}

/// Puts a context.
pub(crate) fn put_context(txn: &mut Txn, record: &ContextRecord) {
    txn.push_put(Kind::Context.key([&record.session]), record.encode_to_vec());
}

/// Puts a turn; an open one is found again after a restart.
pub(crate) fn put_turn(txn: &mut Txn, record: &TurnRecord, open: bool) {
    txn.push_put(turn_key(&record.turn_id), record.encode_to_vec());
    let key = Kind::Open.key([&record.turn_id]);
    if open {
        txn.push_put(key, Vec::new())
    } else {
        txn.push_delete(key)
    }
}

/// Puts a turn that is new, and its place among those of its context.
pub(crate) fn put_new_turn(txn: &mut Txn, record: &TurnRecord) {
    put_turn(txn, record, true);
    txn.push_put(
        turn_of(&record.folder, record.number),
        record.turn_id.clone().into_bytes(),
    );
}

/// Where a context's turn of that number is named.
pub(crate) fn turn_of(folder: &str, number: u64) -> Key {
    Kind::TurnOf.key([folder.as_bytes(), &be(number)])
}

/// Puts an event that waits.
pub(crate) fn put_queued(txn: &mut Txn, folder: &str, event: &QueuedEventRecord) {
    txn.push_put(queued(folder, &event.event_id), event.encode_to_vec());
}

/// Where an event waits.
pub(crate) fn queued(folder: &str, event: &str) -> Key {
    Kind::Queued.key([folder, event])
}

/// Puts a run.
pub(crate) fn put_work(txn: &mut Txn, record: &WorkRecord) {
    txn.push_put(work_key(&record.run_id), record.encode_to_vec());
}

/// Where a run is kept.
pub(crate) fn work_key(run: &str) -> Key {
    Kind::Work.key([run])
}

/// Puts a note that a context's files and records must go.
pub(crate) fn put_removal(txn: &mut Txn, record: &RemovalRecord) {
    txn.push_put(Kind::Removal.key([&record.folder]), record.encode_to_vec());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_finds_the_sessions_that_start_with_it() {
        let range = contexts_with("agent:a:");
        let key = |session: &str| Kind::Context.key([session]);
        assert!(range.contains(key("agent:a:main").as_ref()));
        assert!(!range.contains(key("agent:ab:main").as_ref()));
        assert!(contexts_with("").contains(key("cron:j:run:r").as_ref()));
        assert!(!contexts_with("").contains(Kind::Turn.key(["x"]).as_ref()));
        assert_eq!(last_part(&key("agent:a:main")).as_deref(), Some("agent:a:main"));
    }

    #[test]
    fn kinds_do_not_collide_with_the_frames() {
        let frame = creel_kit::idempotency::FrameKind::TAGS;
        assert!(Kind::TAGS.iter().all(|tag| !frame.contains(tag)));
    }
}
