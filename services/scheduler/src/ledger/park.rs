//! Runs that wait for a person: parked by their worker, so that they hold no process and no slot, and resumed by
//! whoever has the answer.

use creel_proto::{
    scheduler::v1::{RunRecord, RunState, WorkParked, WorkUnpark},
    time::unix_ms,
};

use super::{Ledger, ack_message, flush::Effect, said::Named};
use crate::{
    id::RunId,
    lease::Verdict,
    run::{End, Now, Parking, cut},
};

/// The longest a run waits for a person.
pub(crate) const MAX_PARKED_MS: i64 = 7 * 86_400_000;
const MIN_PARKED_MS: i64 = 1_000;
/// Longest name of an approval, and longest text kept of what it is about, in bytes.
pub(crate) const MAX_APPROVAL_BYTES: usize = 128;
const MAX_TEXT_BYTES: usize = 1_024;

impl Ledger {
    /// A worker gives a run back to wait for a person. False: the run is not known here.
    pub(super) fn work_parked(&mut self, stream: u64, named: Named, parked: &WorkParked, now: Now) -> bool {
        let guards = self.guards;
        let (run_id, attempt) = named;
        let Some(run) = self.runs.get_mut(&run_id) else {
            return false;
        };
        let accepted = match run.lease.finish(guards, attempt) {
            Verdict::Taken => {
                self.park(stream, run_id, attempt, parked, now);
                true
            }
            Verdict::Repeated { accepted } => accepted,
            Verdict::Fenced => false,
        };
        let ack = ack_message(run_id, attempt, accepted);
        self.changes.effect(Effect::Send(stream, Box::new(ack)));
        true
    }

    fn park(&mut self, stream: u64, run_id: RunId, attempt: u32, parked: &WorkParked, now: Now) {
        if let Some(worker) = self.workers.get_mut(&stream) {
            worker.holding.remove(&run_id);
        }
        self.pace(run_id, None);
        let Some(run) = self.runs.get_mut(&run_id) else {
            return;
        };
        // Whoever asked it to stop meant it.
        if let Some(reason) = run.cancel.clone() {
            let state = match reason.as_str() {
                "timeout" => RunState::TimedOut,
                _ => RunState::Cancelled,
            };
            return self.end(run_id, End::new(state, &reason, ""), now);
        }
        run.lease.park();
        let asked_ms = parked.expires_at.as_ref().map_or(0, unix_ms);
        let least_ms = now.wall_ms.saturating_add(MIN_PARKED_MS);
        let expires_ms = asked_ms.clamp(least_ms, now.wall_ms.saturating_add(MAX_PARKED_MS));
        let times = run.parking.as_ref().map_or(0, |parking| parking.times) + 1;
        run.parking = Some(Box::new(Parking {
            approval: cut(&parked.approval_id, MAX_APPROVAL_BYTES),
            text: cut(&parked.text, MAX_TEXT_BYTES),
            parked_ms: now.wall_ms,
            expires_ms,
            attempt,
            times,
        }));
        run.instance = None;
        let id = run.job;
        self.wait_for_person(run_id, now);
        self.changes.run(id, run_id);
        self.watch(run_id);
        // Its slot is free.
        self.enqueue(id, now);
    }

    /// The answer to what a run waits for. False: the run is not known here.
    pub(super) fn work_unparked(&mut self, stream: u64, named: Named, answer: &WorkUnpark, now: Now) -> bool {
        let (run_id, attempt) = named;
        let Some(run) = self.runs.get(&run_id) else {
            return false;
        };
        let kind = run.work as i32;
        let may = self
            .workers
            .get(&stream)
            .is_some_and(|worker| worker.kinds.contains(&kind));
        let named = |parking: &Parking| parking.attempt == attempt && parking.approval == answer.approval_id;
        let meant = may && run.parking.as_deref().is_some_and(named);
        let waits = run.lease.is_parked() && run.end.is_none();
        let accepted = meant && (waits || was_taken(&run.record(), answer));
        if meant && waits {
            self.leave_parking(run_id);
            if answer.granted {
                self.again(run_id, 0, now);
            } else {
                let text = cut(&answer.text, MAX_TEXT_BYTES);
                self.end(run_id, End::new(RunState::Failed, "denied", &text), now);
            }
        }
        let ack = ack_message(run_id, attempt, accepted);
        self.changes.effect(Effect::Send(stream, Box::new(ack)));
        true
    }

    /// Nobody answered in time.
    pub(super) fn parking_over(&mut self, run_id: RunId, now: Now) {
        self.leave_parking(run_id);
        let error = "nobody answered in time";
        self.end(run_id, End::new(RunState::Failed, "approval_expired", error), now);
    }

    /// Puts a parked run into the row of those that wait for a person. The clock may have been set back since it was
    /// said until when.
    pub(super) fn wait_for_person(&mut self, run_id: RunId, now: Now) {
        let run = self.runs.get_mut(&run_id).filter(|run| run.lease.is_parked());
        if let Some(parking) = run.and_then(|run| run.parking.as_mut()) {
            let latest_ms = now.wall_ms.saturating_add(MAX_PARKED_MS);
            parking.expires_ms = parking.expires_ms.min(latest_ms);
            self.parked.insert((parking.expires_ms, run_id));
        }
    }

    /// Takes a run out of the row of those that wait for a person.
    pub(super) fn leave_parking(&mut self, run_id: RunId) {
        if let Some(parking) = self.runs.get(&run_id).and_then(|run| run.parking.as_ref()) {
            self.parked.remove(&(parking.expires_ms, run_id));
        }
    }
}

/// Whether an answer that comes again was taken when it came first: the run went on, or was refused.
pub(crate) fn was_taken(record: &RunRecord, answer: &WorkUnpark) -> bool {
    let attempt = answer.r#ref.as_ref().map_or(0, |r#ref| r#ref.attempt);
    let named = record
        .parking
        .as_ref()
        .is_some_and(|parking| parking.attempt == attempt && parking.approval_id == answer.approval_id);
    named
        && if answer.granted {
            record.attempt > attempt
        } else {
            record.reason == "denied"
        }
}
