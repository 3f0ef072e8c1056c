//! A store that fails: nothing is believed that is not in it, and the service goes on when it comes back.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use creel_proto::scheduler::v1::{
    CreateJobRequest, GetJobRequest, UpdateJobRequest, job_service_server::JobService as _,
};
use creel_store::{Error, Fate, Outcome, fated};
use creel_wire::Code;
use futures_util::future::BoxFuture;

use super::*;
use crate::testing::asked;

const SOUND: u8 = 0;
/// Nothing is written.
const FULL: u8 = 1;
/// Everything is written, and the answer is lost.
const DEAF: u8 = 2;

/// What happens to what is written.
struct Fault(AtomicU8);

#[tonic::async_trait]
impl Fate for Fault {
    async fn meet(&self, commit: BoxFuture<'_, Result<Outcome, Error>>) -> Result<Outcome, Error> {
        match self.0.load(Ordering::SeqCst) {
            FULL => Err(Error::Unavailable {
                what: "disk full".into(),
                hint: "free some".into(),
                cause: None,
            }),
            DEAF => {
                commit.await?;
                Err(Error::Indeterminate {
                    what: "cut".into(),
                    cause: None,
                })
            }
            _ => commit.await,
        }
    }
}

fn faulty() -> (World, Arc<Fault>) {
    let fault = Arc::new(Fault(AtomicU8::new(SOUND)));
    (World::on(fated(&fault), 50), fault)
}

#[tokio::test(start_paused = true)]
async fn what_was_not_written_did_not_happen_and_comes_later() {
    let (world, fault) = faulty();
    let stack = world.start().await;
    stack.create(every("job", 60)).await;
    let mut worker = stack.worker("one", &[]).await;
    fault.0.store(FULL, Ordering::SeqCst);
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
    fault.0.store(SOUND, Ordering::SeqCst);
    let mut worker = stack.worker("one", &[]).await;
    assert_eq!(
        unix_ms(&worker.succeed().await.nominal_at.unwrap()),
        START_MS + 60_000
    );
    let created = stack.api.create(asked(request)).await.unwrap().into_inner();
    assert!(!created.unchanged);
    stack.stop().await;
}

/// The original changed the job in memory first, and kept that when it could not be written.
#[tokio::test(start_paused = true)]
async fn an_update_that_was_not_written_changes_nothing() {
    let (world, fault) = faulty();
    let stack = world.start().await;
    stack.create(every("job", 60)).await;
    let look = || {
        let request = GetJobRequest { job: "job".into() };
        stack.api.get(asked(request))
    };
    let before = look().await.unwrap().into_inner();
    let update = UpdateJobRequest {
        job: "job".into(),
        spec: Some(every("job", 10)),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["schedule".into()],
        }),
        ..Default::default()
    };
    fault.0.store(FULL, Ordering::SeqCst);
    let refused = creel_wire::Error::of_status(&stack.api.update(asked(update.clone())).await.unwrap_err());
    assert_eq!(refused.code, Code::Unavailable);
    fault.0.store(SOUND, Ordering::SeqCst);
    sleep(SECOND).await;
    let after = look().await.unwrap().into_inner();
    assert_eq!((after.spec, after.etag), (before.spec, before.etag.clone()));
    let mut worker = stack.worker("one", &[]).await;
    assert_eq!(
        unix_ms(&worker.succeed().await.nominal_at.unwrap()),
        START_MS + 60_000,
        "by its old schedule"
    );
    let changed = stack.api.update(asked(update)).await.unwrap().into_inner();
    assert_ne!(changed.etag, before.etag);
    stack.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_written_without_an_answer_is_found_and_not_done_again() {
    let (world, fault) = faulty();
    let stack = world.start().await;
    stack.create(every("job", 60)).await;
    let mut worker = stack.worker("one", &[]).await;
    let work = worker.work().await;
    fault.0.store(DEAF, Ordering::SeqCst);
    worker.finish(&of(&work), RunState::Succeeded).await;
    assert!(
        worker.down.recv().await.is_none(),
        "no ack for what is not known to be durable"
    );
    fault.0.store(SOUND, Ordering::SeqCst);
    let mut worker = stack.worker("one", &[of(&work)]).await;
    assert_eq!(worker.cancelled().await.reason, "fenced");
    worker.finish(&of(&work), RunState::Failed).await;
    assert!(worker.acked().await.accepted, "the stored answer");
    let records = world.records().await;
    assert_eq!((records.len(), records[0].state()), (1, RunState::Succeeded));
    stack.stop().await;
}
