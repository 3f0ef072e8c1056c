//! A run that has not ended, as the service holds it, and its record.

use std::sync::Arc;

use creel_proto::{
    scheduler::v1::{
        DeliveryStatus, Parking as Parked, ParkingRecord, Run as Shown, RunKind, RunRecord, RunState,
        WorkFinished, WorkKind,
    },
    time::{timestamp, timestamp_opt},
};

use crate::{
    id::{JobId, RunId},
    lane::Lane,
    lease::{Lease, Start, Times},
    name::Name,
    part::part,
    store::RunRef,
};

/// Longest text kept of what a run said, in bytes.
pub(crate) const MAX_SUMMARY_BYTES: usize = 4 * 1_024;
const MAX_REASON_BYTES: usize = 64;

/// What every run has, and behind it what only some have: those of a herd wait, by the hundred thousand.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) at: RunRef,
    pub(crate) job: JobId,
    pub(crate) incarnation: u64,
    pub(crate) owner: Arc<str>,
    pub(crate) job_name: Name,
    pub(crate) kind: RunKind,
    pub(crate) work: WorkKind,
    pub(crate) nominal_ms: i64,
    pub(crate) lease: Lease,
    pub(crate) end: Option<Box<End>>,
    /// It has no record of its own yet.
    pub(crate) new: bool,
    /// The packed admission that names it instead.
    pub(crate) pack: Option<u64>,
    pub(crate) place: Place,
    /// Counts runs as they came.
    pub(crate) number: u64,
    pub(crate) course: Option<Box<Course>>,
}

/// What a run has none of that waits for its first worker, and for nothing else.
#[derive(Debug)]
pub(crate) struct Course {
    pub(crate) started_ms: i64,
    pub(crate) not_before_ms: i64,
    pub(crate) interruptions: u32,
    /// Attempts that were given to a worker and never begun.
    pub(crate) returned: u32,
    /// The worker that has the attempt.
    pub(crate) instance: Option<Arc<str>>,
    /// Asked to stop, and why.
    pub(crate) cancel: Option<String>,
    pub(crate) session: String,
    /// It waits for a person, or goes on after it did.
    pub(crate) parking: Option<Box<Parking>>,
    /// What only some kinds of runs have.
    pub(crate) extra: Option<Box<Extra>>,
    /// It takes longer than its job's runs do.
    pub(crate) slow: bool,
    /// When it will be slow, monotonic milliseconds.
    pub(crate) slow_at_ms: Option<i64>,
    /// The place of its lease among all.
    pub(crate) expiry_ms: Option<i64>,
}

impl Course {
    const NONE: Self = Self {
        started_ms: 0,
        not_before_ms: 0,
        interruptions: 0,
        returned: 0,
        instance: None,
        cancel: None,
        session: String::new(),
        parking: None,
        extra: None,
        slow: false,
        slow_at_ms: None,
        expiry_ms: None,
    };
}

part!(Run.course: Course);

/// When a run's turn is: the instant it is for, and of one instant the run that came first. So those of a herd, whose
/// ids are in no order, line up one behind the other.
pub(crate) type Turn = (i64, u64);

/// What a run waits for, or waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parking {
    pub(crate) approval: String,
    pub(crate) text: String,
    pub(crate) parked_ms: i64,
    pub(crate) expires_ms: i64,
    /// The attempt that was parked.
    pub(crate) attempt: u32,
    /// How often the run was parked: those attempts did not fail.
    pub(crate) times: u32,
}

/// What makes a run of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Extra {
    /// Of this backfill.
    Backfill(String),
    /// Says this to a session.
    Alert { text: String },
}

/// Where a free run waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nowhere: it is a worker's, or its job's other runs come first.
    None,
    /// For its time.
    Delayed,
    /// For a worker.
    Ready(Lane),
}

/// How a run ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct End {
    pub(crate) state: RunState,
    pub(crate) reason: String,
    pub(crate) error: String,
    pub(crate) summary: String,
    pub(crate) delivery: Option<DeliveryStatus>,
    pub(crate) finished_ms: i64,
    pub(crate) slow: bool,
}

impl End {
    pub(crate) fn new(state: RunState, reason: &str, error: &str) -> Self {
        Self {
            state,
            reason: reason.to_owned(),
            error: error.to_owned(),
            ..Self::default()
        }
    }

    /// What a worker says about the end, cut to its bounds.
    pub(crate) fn reported(finished: &WorkFinished) -> Self {
        let state = match finished.outcome() {
            state @ (RunState::Succeeded | RunState::TimedOut | RunState::Cancelled) => state,
            _ => RunState::Failed,
        };
        Self {
            state,
            reason: cut(&finished.reason, MAX_REASON_BYTES),
            error: cut(&finished.error, MAX_SUMMARY_BYTES),
            summary: cut(&finished.summary, MAX_SUMMARY_BYTES),
            delivery: finished.delivery.as_ref().map(|delivery| DeliveryStatus {
                state: cut(&delivery.state, MAX_REASON_BYTES),
                to: cut(&delivery.to, 1_024),
                error: cut(&delivery.error, 1_024),
            }),
            finished_ms: 0,
            slow: false,
        }
    }
}

impl Run {
    pub(crate) const fn id(&self) -> RunId {
        self.at.run
    }

    /// Its turn among its owner's.
    pub(crate) const fn turn(&self) -> Turn {
        (self.nominal_ms, self.number)
    }

    pub(crate) fn state(&self) -> RunState {
        match (&self.end, self.lease.held()) {
            (Some(end), _) => end.state,
            (None, None) if self.lease.is_parked() => RunState::Parked,
            (None, None) => RunState::Pending,
            (None, Some(held)) if held.start == Start::Began => RunState::Running,
            (None, Some(_)) => RunState::Dispatched,
        }
    }

    /// Whether the overlap of its job counts it.
    pub(crate) const fn overlaps(&self) -> bool {
        !matches!(self.kind, RunKind::Backfill | RunKind::Alert)
    }

    /// The attempts that failed or are under way: those that were parked or never begun are neither.
    pub(crate) fn attempts_used(&self) -> u32 {
        let parked = self.parking.as_ref().map_or(0, |parking| parking.times);
        self.lease.attempt().saturating_sub(parked + self.returned)
    }

    pub(crate) fn record(&self) -> RunRecord {
        let end = self.end.as_deref();
        let (backfill_id, alert_text) = match self.extra.as_deref() {
            Some(Extra::Backfill(id)) => (id.clone(), String::new()),
            Some(Extra::Alert { text }) => (String::new(), text.clone()),
            None => Default::default(),
        };
        let text = |of: fn(&End) -> &String| end.map(of).cloned().unwrap_or_default();
        RunRecord {
            run_id: self.at.run.to_string(),
            job_id: self.job.to_string(),
            job_name: self.job_name.to_string(),
            incarnation: self.incarnation,
            kind: self.kind.into(),
            state: self.state().into(),
            nominal_unix_ms: self.nominal_ms,
            admitted_at_unix_ms: self.at.admitted_ms,
            started_at_unix_ms: self.started_ms,
            finished_at_unix_ms: end.map_or(0, |end| end.finished_ms),
            attempt: self.lease.attempt(),
            reason: text(|end| &end.reason),
            error: text(|end| &end.error),
            summary: text(|end| &end.summary),
            session: self.session.clone(),
            delivery: end.and_then(|end| end.delivery.clone()),
            skipped_count: 0,
            skipped_until_unix_ms: 0,
            owner: self.owner.to_string(),
            not_before_unix_ms: self.not_before_ms,
            instance: self
                .instance
                .as_ref()
                .filter(|_| self.lease.held().is_some())
                .map(ToString::to_string)
                .unwrap_or_default(),
            interruptions: self.interruptions,
            accepted_attempts: self.lease.accepted().to_vec(),
            cancel_reason: self.cancel.clone().unwrap_or_default(),
            slow: self.slow || end.is_some_and(|end| end.slow),
            parking: self.parking.as_ref().map(|parking| ParkingRecord {
                approval_id: parking.approval.clone(),
                text: parking.text.clone(),
                parked_at_unix_ms: parking.parked_ms,
                expires_at_unix_ms: parking.expires_ms,
                attempt: parking.attempt,
                times: parking.times,
            }),
            backfill_id,
            alert_text,
            returned: self.returned,
        }
    }

    /// A run of its record; `None` for one that has ended or names nothing.
    pub(crate) fn load(
        record: &RunRecord,
        job: JobId,
        (kind, work): (RunKind, WorkKind),
        timeout_ms: i64,
        now: Now,
        times: Times,
    ) -> Option<Self> {
        let state = RunState::try_from(record.state).ok()?;
        let held = match state {
            RunState::Pending | RunState::Parked => false,
            RunState::Dispatched | RunState::Running => true,
            _ => return None,
        };
        let run: RunId = record.run_id.parse().ok()?;
        let used_ms = now
            .wall_ms
            .saturating_sub(record.started_at_unix_ms)
            .clamp(0, timeout_ms);
        let mut lease = Lease::restored(
            record.attempt,
            record.accepted_attempts.clone(),
            held,
            timeout_ms - used_ms,
            now.mono_ms,
            times,
        );
        if state == RunState::Parked {
            lease.park();
        }
        let cancel = Some(&record.cancel_reason)
            .filter(|reason| !reason.is_empty())
            .cloned();
        if cancel.is_some() {
            lease.cancel(now.mono_ms, times);
        }
        Some(Self {
            at: RunRef {
                admitted_ms: record.admitted_at_unix_ms,
                run,
            },
            job,
            incarnation: record.incarnation,
            owner: record.owner.as_str().into(),
            job_name: record.job_name.as_str().into(),
            kind,
            work,
            nominal_ms: record.nominal_unix_ms,
            lease,
            end: None,
            new: false,
            pack: None,
            place: Place::None,
            number: 0,
            course: Some(Box::new(Course {
                started_ms: record.started_at_unix_ms,
                not_before_ms: record.not_before_unix_ms,
                interruptions: record.interruptions,
                returned: record.returned,
                instance: Some(record.instance.as_str())
                    .filter(|instance| !instance.is_empty())
                    .map(Into::into),
                cancel,
                session: record.session.clone(),
                parking: record.parking.as_ref().map(|parking| {
                    Box::new(Parking {
                        approval: parking.approval_id.clone(),
                        text: parking.text.clone(),
                        parked_ms: parking.parked_at_unix_ms,
                        expires_ms: parking.expires_at_unix_ms,
                        attempt: parking.attempt,
                        times: parking.times,
                    })
                }),
                extra: Extra::of_record(record).map(Box::new),
                slow: record.slow,
                slow_at_ms: None,
                expiry_ms: None,
            })),
        })
    }
}

impl Extra {
    fn of_record(record: &RunRecord) -> Option<Self> {
        match RunKind::try_from(record.kind) {
            Ok(RunKind::Backfill) => Some(Self::Backfill(record.backfill_id.clone())),
            Ok(RunKind::Alert) => Some(Self::Alert {
                text: record.alert_text.clone(),
            }),
            _ => None,
        }
    }
}

/// The moment of a step: wall clock, and monotonic time for leases and timeouts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// Unix milliseconds.
    pub(crate) wall_ms: i64,
    /// Milliseconds since the engine started, without the time a machine was suspended.
    pub(crate) mono_ms: i64,
}

/// A record as it is shown.
pub(crate) fn shown(record: &RunRecord) -> Shown {
    Shown {
        run_id: record.run_id.clone(),
        job_id: record.job_id.clone(),
        job_name: record.job_name.clone(),
        kind: record.kind,
        state: record.state,
        nominal_at: Some(timestamp(record.nominal_unix_ms)),
        admitted_at: timestamp_opt(record.admitted_at_unix_ms),
        started_at: timestamp_opt(record.started_at_unix_ms),
        finished_at: timestamp_opt(record.finished_at_unix_ms),
        attempt: record.attempt,
        reason: record.reason.clone(),
        error: record.error.clone(),
        summary: record.summary.clone(),
        session: record.session.clone(),
        delivery: record.delivery.clone(),
        skipped_count: record.skipped_count,
        skipped_until: timestamp_opt(record.skipped_until_unix_ms),
        slow: record.slow,
        parking: record.parking.as_ref().map(|parking| Parked {
            approval_id: parking.approval_id.clone(),
            text: parking.text.clone(),
            parked_at: timestamp_opt(parking.parked_at_unix_ms),
            expires_at: timestamp_opt(parking.expires_at_unix_ms),
        }),
        not_before: timestamp_opt(record.not_before_unix_ms),
        backfill_id: record.backfill_id.clone(),
    }
}

/// Whether a record's run has ended.
pub(crate) fn has_ended(record: &RunRecord) -> bool {
    !matches!(
        RunState::try_from(record.state),
        Ok(RunState::Pending | RunState::Dispatched | RunState::Running | RunState::Parked)
    )
}

/// The word for a state in metrics, JSON and the CLI.
pub(crate) const fn state_name(state: RunState) -> &'static str {
    match state {
        RunState::Unspecified => "",
        RunState::Pending => "pending",
        RunState::Dispatched => "dispatched",
        RunState::Running => "running",
        RunState::Succeeded => "succeeded",
        RunState::Failed => "failed",
        RunState::TimedOut => "timed_out",
        RunState::Cancelled => "cancelled",
        RunState::Stuck => "stuck",
        RunState::Skipped => "skipped",
        RunState::Parked => "parked",
    }
}

/// The longest start of a text that has at most so many bytes.
pub(crate) fn cut(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}
