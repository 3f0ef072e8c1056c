//! Makes the works of attempts: the jobs' texts from the store, the assertions from identity.

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

/// An attempt whose work is made, or can't be.
pub(crate) type Made = (RunId, u32, Prepared);

/// Makes the works of some attempts, with one question to identity. They go out only if the attempts are still
/// a worker's then.
pub(crate) async fn prepare(store: &Store, minter: &dyn Minter, attempts: Vec<Attempt>) -> Vec<Made> {
    let mut made = Vec::with_capacity(attempts.len());
    let (mut known, mut subjects) = (Vec::new(), Vec::new());
    for attempt in attempts {
        let refused = match store::job(store, attempt.job).await {
            Ok(Some(record)) => {
                subjects.push(JobSubject {
                    job_id: record.job_id.clone(),
                    run_id: attempt.run.to_string(),
                    owner: record.owner.clone(),
                    scopes: record.scopes.clone(),
                });
                known.push((attempt, record));
                continue;
            }
            Ok(None) => Prepared::NoJob,
            Err(error) => Prepared::Refused(MintError::Unavailable(error.to_string())),
        };
        made.push((attempt.run, attempt.attempt, refused));
    }
    if known.is_empty() {
        return made;
    }
    let late = || MintError::Unavailable("identity did not answer in time".to_owned());
    let minted = timeout(MINT_TIME, minter.mint(subjects)).await;
    let minted = match minted.unwrap_or_else(|_| Err(late())) {
        Ok(minted) => minted,
        Err(error) => vec![Err(error); known.len()],
    };
    made.extend(known.into_iter().zip(minted).map(|((attempt, record), minted)| {
        let (run, number) = (attempt.run, attempt.attempt);
        let prepared = match minted {
            Ok(assertion) => work(record, attempt, assertion),
            Err(error) => Prepared::Refused(error),
        };
        (run, number, prepared)
    }));
    made
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
