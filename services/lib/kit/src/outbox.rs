//! Audit records on their way out. Class A commits in the transaction of the change it tells of;
//! class B is gathered for a second at most; class C is one count per (principal, method, reason) and
//! minute. A shipper moves what is committed to the audit file, at least once, in order of commit.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use creel_proto::audit::v1::{AuditClass, AuditRecord};
use creel_store::{Key, Page, Store, Txn, be};
use creel_wire::{Code, Error, ServiceName};
use prost::Message as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{Clock, audit_file::AuditFile, idempotency::FrameKind, metrics::Metrics};

/// Records that wait, in bytes: beyond it class A changes are refused.
pub const MAX_BYTES: usize = 64 << 20;

/// Decisions (class B) gathered at most; more are counted as lost.
const MAX_BUFFERED: usize = 1_024;

/// Aggregates (class C) at most; more go into one.
const MAX_AGGREGATES: usize = 1_024;

const GATHER: Duration = Duration::from_secs(1);
const AGGREGATE: Duration = Duration::from_secs(60);
/// Ops per shipping transaction, well below the store's limit.
const SHIP: usize = 90;

/// What happened.
#[derive(Debug, Clone, Default)]
pub struct Event {
    action: String,
    principal: String,
    object: String,
    fields: BTreeMap<String, String>,
}

impl Event {
    /// An action by someone on something, for example `device.revoked`, `operator/…`, `device/…`.
    #[must_use]
    pub fn new(action: &str, principal: impl ToString, object: impl ToString) -> Self {
        Self {
            action: action.to_owned(),
            principal: principal.to_string(),
            object: object.to_string(),
            fields: BTreeMap::new(),
        }
    }

    /// With a fact. Never a secret, never message text.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.fields.insert(
            key.to_owned(),
            creel_wire::error::printable(&value.to_string(), 512),
        );
        self
    }
}

/// The outbox of a service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    service: ServiceName,
    clock: Clock,
    metrics: Metrics,
    next: AtomicU64,
    waiting_bytes: AtomicUsize,
    wake: Notify,
    gathered: Mutex<Gathered>,
}

#[derive(Debug, Default)]
struct Gathered {
    decisions: Vec<AuditRecord>,
    lost: u64,
    refusals: BTreeMap<(String, String, String), u64>,
}

impl Outbox {
    /// Opens the outbox in a service's store and finds what still waits.
    ///
    /// # Errors
    /// What the store said.
    pub async fn open(
        store: Store,
        service: ServiceName,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Self, creel_store::Error> {
        let mut next = 1;
        let mut bytes = 0;
        let mut range = Some(FrameKind::Outbox.range());
        while let Some(rest) = range {
            let page = store.scan(rest, Page::first(1_000)).await?;
            for entry in &page.entries {
                bytes += entry.value.len();
                next = number(&entry.key).map_or(next, |number| number + 1);
            }
            range = page.next;
        }
        Ok(Self(Arc::new(Inner {
            store,
            service,
            clock,
            metrics,
            next: AtomicU64::new(next),
            waiting_bytes: AtomicUsize::new(bytes),
            wake: Notify::new(),
            gathered: Mutex::default(),
        })))
    }

    /// Adds a class A record to the transaction of the change it tells of.
    ///
    /// # Errors
    /// `Unavailable` when the outbox is full: the change must not happen unrecorded.
    pub fn push(&self, txn: &mut Txn, event: Event) -> Result<(), Error> {
        let record = self.record(AuditClass::A, event, 1);
        if self.0.waiting_bytes.load(Ordering::Relaxed) > MAX_BYTES {
            return Err(
                Error::new(Code::Unavailable, "outbox_full", "the audit outbox is full")
                    .hint("see that log/audit.jsonl can be written: creel logs, df"),
            );
        }
        self.put(txn, &record);
        Ok(())
    }

    /// Notes a decision (class B).
    pub fn decided(&self, event: Event) {
        let record = self.record(AuditClass::B, event, 1);
        let mut gathered = self.0.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        if gathered.decisions.len() < MAX_BUFFERED {
            gathered.decisions.push(record)
        } else {
            gathered.lost += 1
        }
        drop(gathered);
        self.0.wake.notify_one();
    }

    /// Notes a refusal (class C).
    pub fn refused(&self, principal: &str, method: &str, reason: &str) {
        self.0.metrics.rpc_refused(reason);
        let mut gathered = self.0.gathered.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (
            principal.to_owned(),
            creel_wire::error::printable(method, 200),
            reason.to_owned(),
        );
        let full = gathered.refusals.len() >= MAX_AGGREGATES && !gathered.refusals.contains_key(&key);
        let key = if full {
            ("_other".into(), "_other".into(), "_other".into())
        } else {
            key
        };
        *gathered.refusals.entry(key).or_insert(0) += 1;
    }

    /// Wakes the shipper after a commit. Forgetting it costs a second, no record.
    pub fn committed(&self) {
        self.0.wake.notify_one();
    }

    /// Ships until the drain, and what is there then.
    pub async fn run(self, file: AuditFile, drain: CancellationToken) {
        let mut aggregate = tokio::time::interval(AGGREGATE);
        aggregate.tick().await;
        loop {
            let stop = tokio::select! {
                () = drain.cancelled() => true,
                _ = aggregate.tick() => { self.close_aggregates(); false }
                () = self.0.wake.notified() => {
                    // Let others of the same second join in.
                    tokio::select! { () = drain.cancelled() => {}, () = tokio::time::sleep(GATHER) => {} }
                    false
                }
            };
            if stop {
                self.close_aggregates();
            }
            self.flush_and_ship(&file).await;
            if stop {
                return;
            }
        }
    }

    async fn flush_and_ship(&self, file: &AuditFile) {
        if let Err(error) = self.flush().await {
            tracing::error!(error = %crate::failure::chain(&error), "audit decisions not committed");
        }
        loop {
            match self.ship(file).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => return tracing::error!(%error, "audit records not shipped; trying again"),
            }
        }
    }

    fn close_aggregates(&self) {
        let refusals = {
            let mut gathered = self.0.gathered.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut gathered.refusals)
        };
        let records: Vec<_> = refusals
            .into_iter()
            .map(|((principal, method, reason), count)| {
                let event = Event::new("call.refused", principal, method).with("reason", reason);
                self.record(AuditClass::C, event, count)
            })
            .collect();
        self.0
            .gathered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .decisions
            .extend(records);
    }

    async fn flush(&self) -> Result<(), creel_store::Error> {
        let mut records = {
            let mut gathered = self.0.gathered.lock().unwrap_or_else(PoisonError::into_inner);
            let lost = std::mem::take(&mut gathered.lost);
            let mut records = std::mem::take(&mut gathered.decisions);
            if lost > 0 {
                records.push(self.record(AuditClass::B, Event::new("audit.lost", "", self.0.service), lost));
            }
            records
        };
        while !records.is_empty() {
            let rest = records.split_off(records.len().min(SHIP));
            let mut txn = Txn::new();
            records.iter().for_each(|record| self.put(&mut txn, record));
            self.0.store.commit(txn).await?;
            records = rest;
        }
        Ok(())
    }

    async fn ship(&self, file: &AuditFile) -> anyhow::Result<usize> {
        let page = self
            .0
            .store
            .scan(FrameKind::Outbox.range(), Page::first(1_000))
            .await?;
        self.0.metrics.outbox_waits(page.entries.len());
        if page.entries.is_empty() {
            return Ok(0);
        }
        // Numbers are given out before commits, so the order of commit is that of revisions.
        let mut entries = page.entries;
        entries.sort_by_key(|entry| (entry.mod_rev, number(&entry.key)));
        let mut records = Vec::with_capacity(entries.len());
        let (mut rev, mut place) = (0, 0);
        for entry in &entries {
            place = if entry.mod_rev == rev { place + 1 } else { 0 };
            rev = entry.mod_rev;
            let mut record = AuditRecord::decode(entry.value.clone())?;
            record.sequence = rev * 128 + place;
            records.push(record);
        }
        let (file, count) = (file.clone(), entries.len());
        tokio::task::spawn_blocking(move || file.append(&records)).await??;
        for chunk in entries.chunks(SHIP) {
            let mut txn = Txn::new();
            for entry in chunk {
                txn.push_delete(entry.key.clone());
                self.0.waiting_bytes.fetch_sub(
                    entry
                        .value
                        .len()
                        .min(self.0.waiting_bytes.load(Ordering::Relaxed)),
                    Ordering::Relaxed,
                );
            }
            self.0.store.commit(txn).await?;
        }
        Ok(count)
    }

    fn record(&self, class: AuditClass, event: Event, count: u64) -> AuditRecord {
        AuditRecord {
            service: self.0.service.to_string(),
            incarnation: self.0.store.incarnation().to_vec(),
            sequence: 0,
            time_unix_ms: self.0.clock.now_ms(),
            class: class.into(),
            action: event.action,
            principal: event.principal,
            object: event.object,
            fields: event.fields.into_iter().collect(),
            count,
            trace_id: String::new(),
        }
    }

    fn put(&self, txn: &mut Txn, record: &AuditRecord) {
        let bytes = record.encode_to_vec();
        self.0.waiting_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        txn.push_put(FrameKind::Outbox.key([be(number)]), bytes);
    }
}

fn number(key: &Key) -> Option<u64> {
    creel_store::kinds::parts(key)?
        .first()
        .and_then(|part| creel_store::from_be(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn outbox(store: &Store) -> Outbox {
        let metrics = Metrics::new(ServiceName::Identity);
        Outbox::open(store.clone(), ServiceName::Identity, Clock::manual(5), metrics)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn what_committed_is_shipped_once_and_in_order_and_what_did_not_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let file = AuditFile::new(path.clone());
        let store = Store::memory();
        let outbox = outbox(&store).await;
        let mut refused = Txn::new().expect_exists(Key::new("nothing"));
        outbox.push(&mut refused, Event::new("never", "p", "o")).unwrap();
        let mut second = Txn::new();
        outbox.push(&mut second, Event::new("second", "p", "o")).unwrap();
        let mut first = Txn::new();
        outbox
            .push(&mut first, Event::new("first", "p", "o").with("k", "v"))
            .unwrap();
        store.commit(first).await.unwrap();
        store.commit(second).await.unwrap();
        assert!(!store.commit(refused).await.unwrap().is_committed());
        assert_eq!(outbox.ship(&file).await.unwrap(), 2);
        assert_eq!(outbox.ship(&file).await.unwrap(), 0);

        // A crash after the append and before the trim: the same records come again and are dropped.
        let again = self::outbox(&store).await;
        let mut third = Txn::new();
        again.push(&mut third, Event::new("third", "p", "o")).unwrap();
        store.commit(third).await.unwrap();
        again.refused("anonymous", "/x/Y", "scope_missing");
        again.refused("anonymous", "/x/Y", "scope_missing");
        again.close_aggregates();
        again.flush_and_ship(&file).await;
        assert_eq!(crate::audit_file::verify(&path).unwrap(), 4);
        let text = std::fs::read_to_string(&path).unwrap();
        let at = |what: &str| text.find(what).unwrap();
        assert!(at("first") < at("second") && at("second") < at("third"));
        assert!(!text.contains("never") && text.contains("\\\"count\\\":2"));
    }

    #[tokio::test]
    async fn a_full_outbox_refuses_the_change() {
        let store = Store::memory();
        let outbox = outbox(&store).await;
        outbox.0.waiting_bytes.store(MAX_BYTES, Ordering::Relaxed);
        outbox.push(&mut Txn::new(), Event::new("a", "p", "o")).unwrap();
        let error = outbox
            .push(&mut Txn::new(), Event::new("a", "p", "o"))
            .unwrap_err();
        assert_eq!(
            (error.code, error.reason.as_ref()),
            (Code::Unavailable, "outbox_full")
        );
    }
}
