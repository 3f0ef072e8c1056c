//! Makes the work of an attempt: the job's text from the store, the assertion from identity.

use std::time::Duration;

use creel_proto::{
    identity::v1::JobSubject,
    scheduler::v1::{
        Delivery, JobRecord, JobSpec, NoDelivery, Payload, SystemEventPayload, Work, WorkRef, delivery,
        payload,
    },
    time::{duration_ms, timestamp},
};
use creel_store::Store;
use tokio::time::timeout;

use crate::{
    id::{JobId, RunId},
    ledger::Prepared,
    mint::{MintError, Minter},
    spec::{resolved_delivery, session},
    store,
};

/// Identity answers within this, or the run waits.
const MINT_TIME: Duration = Duration::from_secs(5);

/// Which attempt.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) job: JobId,
    pub(crate) run: RunId,
    pub(crate) attempt: u32,
    pub(crate) nominal_ms: i64,
    /// It carries an alert, that says this.
    pub(crate) alert: Option<String>,
}

/// Makes the work of an attempt. It goes out only if the attempt is still a worker's then.
pub(crate) async fn prepare(store: &Store, minter: &dyn Minter, attempt: Attempt) -> Prepared {
    let record = match store::job(store, attempt.job).await {
        Ok(Some(record)) => record,
        Ok(None) => return Prepared::NoJob,
        Err(error) => return Prepared::Refused(MintError::Unavailable(error.to_string())),
    };
    let subject = JobSubject {
        job_id: record.job_id.clone(),
        run_id: attempt.run.to_string(),
        owner: record.owner.clone(),
        scopes: record.scopes.clone(),
    };
    match timeout(MINT_TIME, minter.mint(subject)).await {
        Ok(Ok(assertion)) => work(record, attempt, assertion),
        Ok(Err(error)) => Prepared::Refused(error),
        Err(_) => Prepared::Refused(MintError::Unavailable(
            "identity did not answer in time".to_owned(),
        )),
    }
}

fn work(record: JobRecord, attempt: Attempt, assertion: Vec<u8>) -> Prepared {
    let Some(spec) = record.spec else {
        return Prepared::NoJob;
    };
    let (payload, target, delivery) = match attempt.alert {
        Some(text) => alert(&spec, text),
        None => (
            spec.payload.clone(),
            spec.target.clone(),
            resolved_delivery(&spec),
        ),
    };
    let limit_ms = match payload.as_ref().and_then(|payload| payload.kind.as_ref()) {
        Some(payload::Kind::AgentTurn(turn)) => turn.timeout.as_ref().map(duration_ms),
        _ => None,
    };
    let work = Work {
        r#ref: Some(WorkRef {
            run_id: attempt.run.to_string(),
            attempt: attempt.attempt,
        }),
        job_id: record.job_id,
        job_name: spec.name.clone(),
        nominal_at: Some(timestamp(attempt.nominal_ms)),
        target: session(&target, "target").map_or(target, |key| key.to_string()),
        delivery: Some(delivery),
        payload,
        // What only the ledger knows is filled in there.
        timeout: None,
        resumed: None,
        kind: 0,
        owner: record.owner,
        assertion,
    };
    Prepared::Ready(Box::new(work), limit_ms)
}

/// An alert is an event of its session.
fn alert(spec: &JobSpec, text: String) -> (Option<Payload>, String, Delivery) {
    let alert = spec.policy.as_ref().and_then(|policy| policy.alert.as_ref());
    let payload = Payload {
        kind: Some(payload::Kind::SystemEvent(SystemEventPayload { text })),
    };
    let none = Delivery {
        to: Some(delivery::To::None(NoDelivery {})),
    };
    let session = alert.map(|alert| alert.session.clone()).unwrap_or_default();
    (Some(payload), session, none)
}
