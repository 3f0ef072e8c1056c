//! Group commit: one thread takes whatever is queued, evaluates it in order against the database and what the batch
//! already changed, writes one synced batch, and answers. There is no delay: the next batch is what came in while
//! the last sync ran.

use crate::acked::Mark;
use crate::layout::{self, meta};
use crate::{fault, options};
use creel_store::{Error, Event, History, Key, KeyRange, Outcome, Plan, Rev, Txn, View, plan, reads};
use rocksdb::{DB, WriteBatch};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

/// Most transactions in one batch, and most that wait for the next.
pub(crate) const BATCH_TXNS: usize = 1024;
/// A batch is closed when its transactions reach this size; one more may be as big as [`creel_store::limits`] allow.
const BATCH_BYTES: usize = 4 << 20;

type Answer = Result<Outcome, Error>;

/// A queued transaction.
pub(crate) struct Request {
    pub(crate) txn: Txn,
    pub(crate) instant_ms: i64,
    pub(crate) answer: oneshot::Sender<Answer>,
    /// Its share of the memory that queued transactions may take; free when it is answered.
    pub(crate) memory: OwnedSemaphorePermit,
}

/// The state of the one writer.
pub(crate) struct Committer {
    pub(crate) db: Arc<DB>,
    pub(crate) mark: Mark,
    pub(crate) history: Arc<History>,
    /// The last durable revision.
    pub(crate) rev: Rev,
    /// The last durable instant; readers see it.
    pub(crate) instant_ms: Arc<AtomicI64>,
    /// Whether the last write failed, so that a full disk isn't reported a thousand times.
    pub(crate) failing: bool,
    /// Set once writing is given up.
    pub(crate) broken: Option<Error>,
}

/// Evaluated transactions that wait for their sync.
#[derive(Default)]
struct Batch {
    taken: usize,
    bytes: usize,
    changes: WriteBatch,
    events: Vec<(Rev, Vec<Event>)>,
    /// The keys the batch changed so far: their revisions, `None` for removed ones. Kept for those who ask only.
    pending: BTreeMap<Key, Option<Rev>>,
    /// The transactions that `pending` knows of.
    indexed: usize,
    /// Room for what is put.
    raw: Vec<u8>,
    answers: Vec<(oneshot::Sender<Answer>, Outcome, OwnedSemaphorePermit)>,
    instant_ms: Option<i64>,
}

impl Committer {
    /// Runs until all senders are gone and the queue is empty.
    pub(crate) fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        while let Some(first) = queue.blocking_recv() {
            let mut batch = Batch::default();
            let mut next = Some(first);
            while let Some(request) = next {
                self.evaluate(request, &mut batch);
                let full = batch.taken >= BATCH_TXNS || batch.bytes >= BATCH_BYTES;
                next = if full { None } else { queue.try_recv().ok() };
            }
            self.finish(batch);
        }
    }

    fn evaluate(&self, request: Request, batch: &mut Batch) {
        batch.taken += 1;
        batch.bytes += request.txn.size_bytes();
        let current = batch.events.last().map_or(self.rev, |(rev, _)| *rev);
        if reads(&request.txn) {
            batch.index();
        }
        let view = Overlay {
            db: &self.db,
            pending: &batch.pending,
        };
        match (plan(&view, request.txn, current), &self.broken) {
            (Err(err), _) => answer(request.answer, Err(err)),
            (Ok(plan), Some(broken)) if !plan.events.is_empty() => {
                answer(request.answer, Err(broken.clone()));
            }
            (Ok(Plan { outcome, events }), _) => {
                if !events.is_empty() {
                    batch.add(outcome.rev(), events);
                    batch.instant_ms = batch.instant_ms.max(Some(request.instant_ms));
                }
                // Without a change it still waits: what it saw may be pending.
                batch.answers.push((request.answer, outcome, request.memory));
            }
        }
    }

    fn finish(&mut self, mut batch: Batch) {
        let written = match batch.events.last().map(|(rev, _)| *rev) {
            Some(rev) => self.write(rev, &mut batch),
            None => Ok(()),
        };
        for (sender, outcome, memory) in batch.answers {
            answer(sender, written.clone().map(|()| outcome));
            drop(memory);
        }
    }

    /// Makes the batch durable, then visible.
    fn write(&mut self, rev: Rev, batch: &mut Batch) -> Result<(), Error> {
        let instant_ms = batch
            .instant_ms
            .filter(|ms| *ms > self.instant_ms.load(Ordering::Acquire));
        batch.changes.put(meta::REV, rev.to_be_bytes());
        if let Some(ms) = instant_ms {
            batch.changes.put(meta::INSTANT, ms.to_be_bytes());
        }
        if let Err(err) = self
            .db
            .write_opt(std::mem::take(&mut batch.changes), &options::synced())
        {
            if !std::mem::replace(&mut self.failing, true) {
                tracing::error!(error = %err, transactions = batch.answers.len(), "writing to the store failed");
            }
            let fault = fault::write(err);
            self.broken = fault.later;
            return Err(fault.answer);
        }
        if std::mem::take(&mut self.failing) {
            tracing::info!(rev, "writing to the store succeeds again");
        }
        self.rev = rev;
        self.mark.set(rev);
        if let Some(ms) = instant_ms {
            self.instant_ms.store(ms, Ordering::Release);
        }
        self.history.publish(std::mem::take(&mut batch.events));
        Ok(())
    }
}

/// Whoever asked may have given up waiting; that changes nothing.
fn answer(sender: oneshot::Sender<Answer>, answer: Answer) {
    drop(sender.send(answer));
}

impl Batch {
    fn add(&mut self, rev: Rev, events: Vec<Event>) {
        for Event { key, value } in &events {
            match value {
                Some(value) => layout::put(&mut self.changes, &mut self.raw, key, value, rev),
                None => self.changes.delete(layout::raw_key(key.as_ref())),
            }
        }
        self.events.push((rev, events));
    }

    /// Makes what the batch changed so far known to those who ask for it.
    fn index(&mut self) {
        for (rev, events) in self.events.get(self.indexed..).unwrap_or_default() {
            let revs = events
                .iter()
                .map(|event| (event.key.clone(), event.value.as_ref().map(|_| *rev)));
            self.pending.extend(revs);
        }
        self.indexed = self.events.len();
    }
}

/// The database as it will be once the batch is written.
struct Overlay<'a> {
    db: &'a DB,
    pending: &'a BTreeMap<Key, Option<Rev>>,
}

impl View for Overlay<'_> {
    fn rev(&self, key: &Key) -> Result<Option<Rev>, Error> {
        if let Some(pending) = self.pending.get(key) {
            return Ok(*pending);
        }
        let raw = self
            .db
            .get_pinned(layout::raw_key(key.as_ref()))
            .map_err(fault::read)?;
        raw.map(|raw| layout::rev(&raw)).transpose()
    }

    fn keys(&self, range: &KeyRange, limit: usize) -> Result<Vec<Key>, Error> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let pending: Vec<_> = self.pending.range::<[u8], _>(range.bounds()).collect();
        // So many that `limit` remain even if the batch removed one for each key it touched.
        let enough = limit + pending.len();
        let (lower, upper) = layout::raw_bounds(range);
        let mut stored = self.db.raw_iterator_opt(options::between(lower, upper));
        stored.seek_to_first();
        let mut keys = BTreeSet::new();
        while let Some(raw) = stored.key().filter(|_| keys.len() < enough) {
            keys.insert(layout::key(raw)?);
            stored.next();
        }
        stored.status().map_err(fault::read)?;
        for (key, rev) in pending {
            match rev {
                Some(_) => keys.insert(key.clone()),
                None => keys.remove(key),
            };
        }
        Ok(keys.into_iter().take(limit).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use creel_store::limits;

    /// Five stored keys, of which the batch so far removed two, put one again and added two.
    #[test]
    fn the_overlay_is_the_database_after_the_batch() {
        let dir = tempfile::tempdir().unwrap();
        let db = DB::open(&options::database(&crate::Options::default()), dir.path()).unwrap();
        let mut stored = WriteBatch::default();
        stored.put(meta::REV, 1u64.to_be_bytes());
        let (old, new, mut raw) = (1, 2, Vec::new());
        for name in ["a", "b", "c", "d", "e"] {
            layout::put(&mut stored, &mut raw, &name.into(), b"", old);
        }
        db.write_opt(stored, &options::synced()).unwrap();
        let pending = [
            ("0", Some(new)),
            ("a", None),
            ("b", None),
            ("c", Some(new)),
            ("f", Some(new)),
        ];
        let pending = pending
            .into_iter()
            .map(|(name, rev)| (Key::from(name), rev))
            .collect();
        let overlay = Overlay {
            db: &db,
            pending: &pending,
        };

        let keys = |range, limit| -> Vec<Key> { overlay.keys(&range, limit).unwrap() };
        let named = |names: &[&str]| -> Vec<Key> { names.iter().map(|name| Key::from(*name)).collect() };
        assert_eq!(
            keys(KeyRange::all(), limits::RANGE_KEYS),
            named(&["0", "c", "d", "e", "f"])
        );
        for limit in 0..5 {
            let first = &["c", "d", "e", "f"][..limit.min(4)];
            assert_eq!(
                keys(KeyRange::new("a", "z"), limit),
                named(first),
                "removed keys don't take a place"
            );
        }
        assert_eq!(keys(KeyRange::new("b", "d"), 9), named(&["c"]));
        assert_eq!(keys(KeyRange::new("d", "b"), 9), []);
        for (name, rev) in [
            ("a", None),
            ("c", Some(new)),
            ("d", Some(old)),
            ("f", Some(new)),
            ("g", None),
        ] {
            assert_eq!(overlay.rev(&name.into()).unwrap(), rev, "{name}");
        }
    }
}
