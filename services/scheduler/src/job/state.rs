//! How a job is, and its record.

use creel_proto::scheduler::v1::{JobStateRecord, RunState};

use super::{Alert, Last};
use crate::{
    backfill::Backfill,
    health::{Durations, Recent},
    part::part,
    store::RunRef,
};

/// How a job is: what every job needs, and behind it what only some need. A herd's jobs have a run that waits and
/// nothing else: that has to be small, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Counts changes by people.
    pub(crate) version: u64,
    pub(crate) cursor_ms: i64,
    pub(super) rare: Option<Box<Rare>>,
}

/// What a job has none of while it waits for its first instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rare {
    /// Runs that have not ended, oldest first.
    pub(crate) active: Vec<RunRef>,
    past: Option<Box<Past>>,
}

/// What a job has none of that never ran to an end and is not held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Past {
    pub(crate) completed: bool,
    pub(crate) pause: Option<String>,
    pub(crate) quarantine: Option<Quarantine>,
    pub(crate) failures: u32,
    pub(crate) last: Option<Last>,
    pub(crate) manual_runs: u64,
    pub(crate) last_success: Option<RunRef>,
    pub(crate) last_failure: Option<RunRef>,
    pub(crate) recent: Recent,
    pub(crate) durations: Durations,
    /// After failures: no scheduled run before.
    pub(crate) backoff_until_ms: Option<i64>,
    pub(crate) alert: Option<Box<Alert>>,
    pub(crate) backfill: Option<Box<Backfill>>,
    /// Counts how often the job began anew after a clock that was set back.
    pub(crate) bumps: u64,
    /// It is deleted once whoever is told of its failure is told.
    pub(crate) doomed: bool,
}

impl Rare {
    const NONE: Self = Self {
        active: Vec::new(),
        past: None,
    };
}

impl Past {
    const NONE: Self = Self {
        completed: false,
        pause: None,
        quarantine: None,
        failures: 0,
        last: None,
        manual_runs: 0,
        last_success: None,
        last_failure: None,
        recent: Recent::NONE,
        durations: Durations::NONE,
        backoff_until_ms: None,
        alert: None,
        backfill: None,
        bumps: 0,
        doomed: false,
    };
}

part!(State.rare: Rare);
part!(Rare.past: Past);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quarantine {
    pub(crate) until_ms: i64,
    pub(crate) level: u32,
}

impl State {
    /// A person changed or released the job: its failures so far say nothing any more.
    pub(crate) fn start_afresh(&mut self) {
        self.failures = 0;
        self.quarantine = None;
        self.recent = Recent::default();
        self.backoff_until_ms = None;
        self.doomed = false;
    }

    /// Takes out the runs that have not ended. A job that has none is left without a place for them.
    pub(crate) fn take_active(&mut self) -> Vec<RunRef> {
        let rare = self.rare.as_mut();
        rare.map(|rare| std::mem::take(&mut rare.active))
            .unwrap_or_default()
    }

    pub(crate) fn record(&self) -> JobStateRecord {
        let last = self.last.as_ref();
        let (recent_failures, recent_count) = self.recent.record();
        JobStateRecord {
            version: self.version,
            cursor_unix_ms: self.cursor_ms,
            paused: self.pause.is_some(),
            paused_reason: self.pause.clone().unwrap_or_default(),
            completed: self.completed,
            quarantined_until_unix_ms: self.quarantine.map_or(0, |quarantine| quarantine.until_ms),
            quarantine_level: self.quarantine.map_or(0, |quarantine| quarantine.level),
            consecutive_failures: self.failures,
            last_run_at_unix_ms: last.map_or(0, |last| last.at_ms),
            last_state: last.map_or(0, |last| last.state.into()),
            last_duration_ms: last.map_or(0, Last::duration_ms),
            last_error: last.map(|last| last.error.clone()).unwrap_or_default(),
            last_finished_at_unix_ms: last.map_or(0, |last| last.finished_ms),
            manual_runs: self.manual_runs,
            active: self.active.iter().map(|one| one.record()).collect(),
            last_success: self.last_success.map(RunRef::record),
            last_failure: self.last_failure.map(RunRef::record),
            recent_failures,
            recent_count,
            durations_ms: self.durations.record(),
            backoff_until_unix_ms: self.backoff_until_ms.unwrap_or(0),
            alert: self.alert.as_ref().map(|alert| alert.record()),
            backfill: self.backfill.as_ref().map(|backfill| backfill.record()),
            incarnation_bumps: self.bumps,
            doomed: self.doomed,
        }
    }

    /// A job that was just made.
    pub(crate) fn new(cursor_ms: i64) -> Self {
        Self {
            version: 1,
            cursor_ms,
            ..Self::default()
        }
    }

    pub(crate) fn of_record(record: &JobStateRecord) -> Self {
        let reference = |one: &Option<_>| one.as_ref().and_then(RunRef::of_record);
        let past = Past {
            completed: record.completed,
            pause: record.paused.then(|| record.paused_reason.clone()),
            quarantine: (record.quarantined_until_unix_ms != 0).then_some(Quarantine {
                until_ms: record.quarantined_until_unix_ms,
                level: record.quarantine_level,
            }),
            failures: record.consecutive_failures,
            last: (record.last_state != 0).then(|| Last {
                at_ms: record.last_run_at_unix_ms,
                finished_ms: record.last_finished_at_unix_ms,
                state: RunState::try_from(record.last_state).unwrap_or(RunState::Unspecified),
                error: record.last_error.clone(),
            }),
            manual_runs: record.manual_runs,
            last_success: reference(&record.last_success),
            last_failure: reference(&record.last_failure),
            recent: Recent::of_record(record.recent_failures, record.recent_count),
            durations: Durations::of_record(&record.durations_ms),
            backoff_until_ms: Some(record.backoff_until_unix_ms).filter(|until| *until != 0),
            alert: record.alert.as_ref().and_then(Alert::of_record).map(Box::new),
            backfill: record.backfill.as_ref().map(Backfill::of_record).map(Box::new),
            bumps: record.incarnation_bumps,
            doomed: record.doomed,
        };
        let rare = Rare {
            active: record.active.iter().filter_map(RunRef::of_record).collect(),
            past: Some(past).filter(|past| *past != Past::NONE).map(Box::new),
        };
        Self {
            version: record.version,
            cursor_ms: record.cursor_unix_ms,
            rare: Some(rare).filter(|rare| *rare != Rare::NONE).map(Box::new),
        }
    }
}
