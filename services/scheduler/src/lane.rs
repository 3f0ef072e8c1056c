//! Which runs come before which, by what their jobs did last. Pure.
//!
//! A job that hangs, floods or crashes must not be felt by others, and often all belong to one owner. So the runs
//! of an owner wait in lanes, better ones first, and the last places of every worker are held back for the better
//! ones. Nobody gets into the first lane by a promise, and one slow run leads out again. It all follows from the
//! record of a job, so a restart changes nothing.

use creel_proto::scheduler::v1::{RunKind, RunState, WorkKind};

use crate::{job::Job, run::Run};

/// A run that took at most this long was over soon.
const PROMPT_MS: i64 = 60_000;
/// Places of a worker are held back by such parts of them.
const PARTS: usize = 8;
/// A run whose instant is not longer ago has just come up.
pub(crate) const NEW_MS: i64 = 5_000;
/// The part of a worker's places that is for runs that have just come up is given away in so long at least.
const NEW_PART_MS: i64 = 15_000;

/// Where a run waits, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Its job's last run succeeded soon.
    Prompt,
    /// It may be anything.
    Unknown,
    /// Its job's last run, or its own last attempt, did not end well.
    Unruly,
}

impl Lane {
    /// The best first.
    pub(crate) const ALL: [Self; 3] = [Self::Prompt, Self::Unknown, Self::Unruly];

    /// The lane of a job's next run.
    pub(crate) fn of(job: &Job) -> Self {
        let Some(last) = &job.state.last else {
            return Self::Unknown;
        };
        match last.state {
            // One run at a time is trusted: what begins to hang takes one place with it.
            RunState::Succeeded if last.duration_ms() <= PROMPT_MS && job.state.active.len() <= 1 => {
                Self::Prompt
            }
            RunState::Failed | RunState::TimedOut | RunState::Stuck => Self::Unruly,
            _ => Self::Unknown,
        }
    }

    /// The lane of a run, of a job in this one.
    pub(crate) fn for_run(self, run: &Run) -> Self {
        // They only put a text into a queue.
        let told = run.kind == RunKind::Alert || run.work == WorkKind::SystemEvent;
        // The first is the one it waits for.
        match run.attempts_used() {
            0 | 1 if told => Self::Prompt,
            0 | 1 => self,
            _ => Self::Unruly,
        }
    }

    /// A worker of so many places that holds so many runs is given none of this lane.
    pub(crate) const fn most_held(self, places: usize) -> usize {
        let parts = match self {
            Self::Prompt => 0,
            Self::Unknown => 2,
            Self::Unruly => 3,
        };
        places - parts * part(places)
    }

    /// How long a worker of so many places that holds so many runs waits between runs that have just come up, of jobs
    /// that may be anything. `None`: it takes none beside what [`Self::most_held`] says.
    ///
    /// What comes alone into a backlog that hangs is begun soon, and a herd that comes at once gets a part of the part.
    pub(crate) const fn new_every_ms(places: usize, held: usize) -> Option<i64> {
        let (least, part) = (Self::Unknown.most_held(places), part(places));
        if held >= least && held < least + part {
            Some(NEW_PART_MS / part as i64)
        } else {
            None
        }
    }

    /// How often a lane is passed over in favour of better ones.
    pub(crate) const fn patience(self) -> u8 {
        match self {
            Self::Prompt => 0,
            Self::Unknown => 3,
            Self::Unruly => 7,
        }
    }
}

/// A part of a worker's places; a small worker holds none back.
const fn part(places: usize) -> usize {
    if places < PARTS { 0 } else { places.div_ceil(PARTS) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::JobId, job::Last};

    #[test]
    fn the_last_run_decides() {
        let mut job = Job::unreadable(JobId::new(0, &[0; 10]), String::new());
        assert_eq!(Lane::of(&job), Lane::Unknown, "it never ran");
        let lanes = [
            (RunState::Succeeded, 0, Lane::Prompt),
            (RunState::Succeeded, PROMPT_MS, Lane::Prompt),
            (RunState::Succeeded, PROMPT_MS + 1, Lane::Unknown),
            (RunState::Cancelled, 0, Lane::Unknown),
            (RunState::Failed, 0, Lane::Unruly),
            (RunState::TimedOut, 0, Lane::Unruly),
            (RunState::Stuck, 0, Lane::Unruly),
        ];
        for (state, took_ms, lane) in lanes {
            job.state.last = Some(Last::new(5, 5 + took_ms, state, ""));
            assert_eq!(Lane::of(&job), lane, "{state:?} after {took_ms} ms");
        }
    }

    #[test]
    fn every_worker_takes_all_lanes_and_keeps_room_for_the_better_ones() {
        for places in 1..2_000 {
            let [best, middle, last] = Lane::ALL.map(|lane| lane.most_held(places));
            assert!(best == places && last > places / 4, "{places}");
            let part = middle - last;
            assert!(best - middle == 2 * part && part <= places / 4, "{places}");
            let new = (0..=places).filter(|held| Lane::new_every_ms(places, *held).is_some());
            assert!(new.eq(middle..best - part), "{places}");
        }
        assert_eq!(Lane::ALL.map(|lane| lane.most_held(7)), [7; 3]);
        assert_eq!(Lane::ALL.map(|lane| lane.most_held(768)), [768, 576, 480]);
        assert_eq!(Lane::new_every_ms(48, 36), Some(2_500));
    }
}
