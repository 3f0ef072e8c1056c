//! A store that fails: nothing is believed that is not in it, and the service goes on when it comes back.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use creel_proto::scheduler::v1::{CreateJobRequest, job_service_server::JobService as _};
use creel_store::{
    Engine, Entry, Error, History, HistoryBounds, Identity, Key, KeyRange, Outcome, Page, ScanBounds,
    ScanPage, Store,
};
use creel_wire::Code;

use super::*;
use crate::testing::asked;

const SOUND: u8 = 0;
/// Nothing is written.
const FULL: u8 = 1;
/// Everything is written, and the answer is lost.
const DEAF: u8 = 2;

/// The memory engine with faults.
struct Faulty {
    inner: Store,
    history: Arc<History>,
    fault: Arc<AtomicU8>,
}

#[tonic::async_trait]
impl Engine for Faulty {
    fn identity(&self) -> Identity {
        Identity {
            incarnation: self.inner.incarnation(),
            schema_version: 1,
        }
    }

    fn last_instant_ms(&self) -> i64 {
        self.inner.last_instant_ms().unwrap_or(i64::MIN)
    }

    fn history(&self) -> &Arc<History> {
        &self.history
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.inner.get(key).await
    }

    async fn scan(&self, range: KeyRange, bounds: ScanBounds) -> Result<ScanPage, Error> {
        self.inner
            .scan(
                range,
                Page {
                    limit: bounds.entries.min(1_000),
                    reverse: bounds.reverse,
                },
            )
            .await
    }

    async fn commit(&self, txn: Txn, _: i64) -> Result<Outcome, Error> {
        match self.fault.load(Ordering::SeqCst) {
            FULL => Err(Error::Unavailable {
                what: "disk full".into(),
                hint: "free some".into(),
                cause: None,
            }),
            DEAF => {
                self.inner.commit(txn).await?;
                Err(Error::Indeterminate {
                    what: "cut".into(),
                    cause: None,
                })
            }
            _ => self.inner.commit(txn).await,
        }
    }
}

fn faulty() -> (World, Arc<AtomicU8>) {
    let fault = Arc::new(AtomicU8::new(SOUND));
    let history = History::new(0, HistoryBounds::default());
    let engine = Faulty {
        inner: Store::memory(),
        history,
        fault: Arc::clone(&fault),
    };
    (World::on(Store::new(Arc::new(engine)), 50), fault)
}

#[tokio::test(start_paused = true)]
async fn what_was_not_written_did_not_happen_and_comes_later() {
    let (world, fault) = faulty();
    let stack = world.start().await;
    stack.create(every("job", 60)).await;
    let mut worker = stack.worker("one", &[]).await;
    fault.store(FULL, Ordering::SeqCst);
    let request = CreateJobRequest {
        spec: Some(every("refused", 60)),
        ..Default::default()
    };
    let refused = creel_wire::Error::of_status(&stack.api.create(asked(request.clone())).await.unwrap_err());
    assert_eq!(
        (refused.code, refused.reason.as_ref()),
        (Code::Unavailable, "store")
    );
    assert!(
        worker.down.recv().await.is_none(),
        "its stream ended with the ledger"
    );
    sleep(70 * SECOND).await;
    assert_eq!(world.records().await, []);
    fault.store(SOUND, Ordering::SeqCst);
    let mut worker = stack.worker("one", &[]).await;
    assert_eq!(
        unix_ms(&worker.succeed().await.nominal_at.unwrap()),
        START_MS + 60_000
    );
    let created = stack.api.create(asked(request)).await.unwrap().into_inner();
    assert!(!created.unchanged);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_written_without_an_answer_is_found_and_not_done_again() {
    let (world, fault) = faulty();
    let stack = world.start().await;
    stack.create(every("job", 60)).await;
    let mut worker = stack.worker("one", &[]).await;
    let work = worker.work().await;
    fault.store(DEAF, Ordering::SeqCst);
    worker.finish(&of(&work), RunState::Succeeded).await;
    assert!(
        worker.down.recv().await.is_none(),
        "no ack for what is not known to be durable"
    );
    fault.store(SOUND, Ordering::SeqCst);
    let mut worker = stack.worker("one", &[of(&work)]).await;
    assert_eq!(worker.cancelled().await.reason, "fenced");
    worker.finish(&of(&work), RunState::Failed).await;
    assert!(worker.acked().await.accepted, "the stored answer");
    let records = world.records().await;
    assert_eq!((records.len(), records[0].state()), (1, RunState::Succeeded));
    stack.stop().await;
}
