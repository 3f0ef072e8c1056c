//! The reference model of a job's occurrences: which there must be, and what the run log may say of each.
//! It knows nothing of the scheduler but what is promised: every occurrence of the grid has one record that is
//! over, a run's or a skip's, and no run id stands twice.

use std::collections::{BTreeMap, BTreeSet};

use creel_proto::{
    scheduler::v1::{Run, RunKind, RunState},
    time::unix_ms,
};

/// When an interval is due: `anchor + k · period`.
#[derive(Debug, Clone, Copy)]
pub struct Grid {
    pub anchor_ms: i64,
    pub period_ms: i64,
}

impl Grid {
    /// The occurrences after `from` up to and including `until`.
    pub fn between(self, from_ms: i64, until_ms: i64) -> impl Iterator<Item = i64> {
        let first = (from_ms - self.anchor_ms).div_euclid(self.period_ms) + 1;
        (first..)
            .map(move |k| self.anchor_ms + k * self.period_ms)
            .take_while(move |at| *at <= until_ms)
    }
}

/// How many occurrences ended how.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Account {
    pub by_state: BTreeMap<String, u64>,
    pub occurrences: u64,
}

/// Lays the run log over the grid. Every occurrence after `from_ms` up to `until_ms` must be there once, and over.
///
/// # Errors
/// Every breach of the promise, in words.
pub fn account(grid: Grid, from_ms: i64, until_ms: i64, runs: &[Run]) -> Result<Account, Vec<String>> {
    let mut wrong = Vec::new();
    let mut ids = BTreeSet::new();
    let mut told: BTreeMap<i64, &Run> = BTreeMap::new();
    let mut account = Account::default();
    for run in runs.iter().filter(|run| run.kind() == RunKind::Scheduled) {
        let (nominal, id) = (run.nominal_at.as_ref().map_or(0, unix_ms), &run.run_id);
        if !ids.insert(id) {
            wrong.push(format!("run {id} stands twice"));
        }
        if (nominal - grid.anchor_ms).rem_euclid(grid.period_ms) != 0 {
            wrong.push(format!("run {id} is at {nominal}, which is no occurrence"));
        }
        let last = match run.state() {
            RunState::Skipped => run.skipped_until.as_ref().map_or(nominal, unix_ms),
            _ => nominal,
        };
        let covered: Vec<i64> = grid.between(nominal - 1, last).collect();
        if run.state() == RunState::Skipped && covered.len() as u64 != run.skipped_count.max(1) {
            let (says, is) = (run.skipped_count, covered.len());
            wrong.push(format!("skip {id} says {says} and is over {is} occurrences"));
        }
        if !is_over(run) {
            wrong.push(format!("run {id} at {nominal} is not over: {:?}", run.state()));
        }
        for at in covered {
            if let Some(other) = told.insert(at, run) {
                wrong.push(format!("{at} has two records: {} and {id}", other.run_id));
            }
        }
    }
    for at in grid.between(from_ms, until_ms) {
        match told.get(&at) {
            None => wrong.push(format!("{at} is lost")),
            Some(run) => {
                let reason = if run.reason.is_empty() {
                    String::new()
                } else {
                    format!("({})", run.reason)
                };
                let state = run
                    .state()
                    .as_str_name()
                    .trim_start_matches("RUN_STATE_")
                    .to_lowercase();
                *account.by_state.entry(format!("{state}{reason}")).or_default() += 1;
                account.occurrences += 1;
            }
        }
    }
    if wrong.is_empty() { Ok(account) } else { Err(wrong) }
}

/// Whether a run's record is its last word.
#[must_use]
pub fn is_over(run: &Run) -> bool {
    match run.state() {
        RunState::Succeeded
        | RunState::Failed
        | RunState::TimedOut
        | RunState::Cancelled
        | RunState::Skipped => true,
        RunState::Stuck => run.finished_at.is_some(),
        RunState::Pending
        | RunState::Dispatched
        | RunState::Running
        | RunState::Parked
        | RunState::Unspecified => false,
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::time::timestamp;

    use super::*;

    const GRID: Grid = Grid {
        anchor_ms: 500,
        period_ms: 1_000,
    };

    fn run(id: &str, nominal_ms: i64, state: RunState) -> Run {
        Run {
            run_id: id.into(),
            kind: RunKind::Scheduled.into(),
            state: state.into(),
            nominal_at: Some(timestamp(nominal_ms)),
            ..Run::default()
        }
    }

    fn skip(id: &str, nominal_ms: i64, until_ms: i64, count: u64) -> Run {
        Run {
            skipped_until: Some(timestamp(until_ms)),
            skipped_count: count,
            reason: "coalesced".into(),
            ..run(id, nominal_ms, RunState::Skipped)
        }
    }

    #[test]
    fn a_whole_log_is_accounted_for() {
        let log = [
            run("a", 1_500, RunState::Succeeded),
            skip("b", 2_500, 4_500, 3),
            run("c", 5_500, RunState::Failed),
            Run {
                kind: RunKind::Manual.into(),
                ..run("m", 7, RunState::Running)
            },
        ];
        let account = account(GRID, 500, 5_500, &log).unwrap();
        assert_eq!(account.occurrences, 5);
        let states: Vec<_> = account
            .by_state
            .iter()
            .map(|(state, n)| format!("{state} {n}"))
            .collect();
        assert_eq!(states, ["failed 1", "skipped(coalesced) 3", "succeeded 1"]);
    }

    #[test]
    fn every_breach_is_seen() {
        let good = || vec![run("a", 1_500, RunState::Succeeded), skip("b", 2_500, 4_500, 3)];
        let breach = |log: &[Run]| account(GRID, 500, 4_500, log).unwrap_err().join(", ");
        assert!(account(GRID, 500, 4_500, &good()).is_ok());
        assert!(breach(&good()[..1]).contains("2500 is lost"));
        let mut twice = good();
        twice.push(run("a", 5_500, RunState::Succeeded));
        assert!(breach(&twice).contains("run a stands twice"));
        let mut two = good();
        two.push(run("c", 3_500, RunState::Succeeded));
        assert!(breach(&two).contains("3500 has two records"));
        let mut open = good();
        open[0] = run("a", 1_500, RunState::Running);
        assert!(breach(&open).contains("not over"));
        let mut short = good();
        short[1] = skip("b", 2_500, 4_500, 2);
        assert!(breach(&short).contains("says 2 and is over 3"));
        let mut off = good();
        off[0] = run("a", 1_501, RunState::Succeeded);
        assert!(breach(&off).contains("no occurrence"));
    }
}
