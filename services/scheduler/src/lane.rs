//! Which runs come before which, by what their jobs did last. Pure.
//!
//! A job that hangs, floods or crashes must not be felt by others, and often all belong to one owner. So the runs
//! of an owner wait in lanes, better ones first, and the last places of every worker are held back for the better
//! ones. Nobody is taken for prompt by a promise, and one slow run ends it again. It all follows from the
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
    /// It tells somebody that a job goes wrong.
    Alert,
    /// Its job's last run succeeded soon.
    Prompt,
    /// It may be anything.
    Unknown,
    /// Its job's last run, or its own last attempt, did not end well.
    Unruly,
}

impl Lane {
    /// The best first.
    pub(crate) const ALL: [Self; 4] = [Self::Alert, Self::Prompt, Self::Unknown, Self::Unruly];

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
        // The first attempt is the one it waits for.
        match run.attempts_used() {
            0 | 1 if run.kind == RunKind::Alert => Self::Alert,
            // It only puts a text into a queue.
            0 | 1 if run.work == WorkKind::SystemEvent => Self::Prompt,
            0 | 1 => self,
            _ => Self::Unruly,
        }
    }

    /// A worker of so many places that holds so many runs is given none of this lane.
    pub(crate) const fn most_held(self, places: usize) -> usize {
        let part = part(places);
        let kept = match (self, places) {
            (Self::Alert | Self::Prompt, _) => 0,
            (Self::Unknown, PARTS..) => 2 * part,
            (Self::Unruly, PARTS..) => 3 * part,
            // A small worker has no whole part. Whatever fails leaves a place to the others; what may be anything
            // does, too, where that is not a third of all.
            (Self::Unknown, 4..) => 1,
            (Self::Unruly, 4..) => 2,
            (Self::Unruly, 2..) => 1,
            (Self::Unknown | Self::Unruly, _) => 0,
        };
        places - kept
    }

    /// How many runs of this lane a worker of so many places is given at once.
    ///
    /// What ended soon until now may begin to hang with all others of its kind, in one instant. Then a part of the
    /// places is left for those who say so.
    pub(crate) const fn most_at_once(self, places: usize) -> usize {
        match self {
            Self::Prompt => places - part(places),
            Self::Alert | Self::Unknown | Self::Unruly => places,
        }
    }

    /// The lane of which a worker of so many places is given one more run that has just come up, beside what
    /// [`Self::most_held`] and [`Self::most_at_once`] say, and how long after the one before. It holds so many, of
    /// which so many are [`Self::Prompt`].
    ///
    /// What comes alone into a backlog that hangs is begun soon, and a herd that comes at once gets a part of the part.
    pub(crate) const fn new_of(places: usize, held: usize, prompt: usize) -> Option<(Self, i64)> {
        let (least, part) = (Self::Unknown.most_held(places), part(places));
        let lane = if prompt >= Self::Prompt.most_at_once(places) && held < places {
            Self::Prompt
        } else if held >= least && held < least + part {
            Self::Unknown
        } else {
            return None;
        };
        // Without a part the first is all of them, and the second none.
        if part == 0 {
            None
        } else {
            Some((lane, NEW_PART_MS / part as i64))
        }
    }

    /// How often a lane is passed over in favour of better ones.
    pub(crate) const fn patience(self) -> u8 {
        match self {
            Self::Alert => 0,
            Self::Prompt => 1,
            Self::Unknown => 3,
            Self::Unruly => 7,
        }
    }
}

/// A part of a worker's places; a small worker has none.
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
        for places in PARTS..2_000 {
            let [alert, best, middle, last] = Lane::ALL.map(|lane| lane.most_held(places));
            assert!(alert == places && best == places && last > places / 4, "{places}");
            let part = middle - last;
            assert!(best - middle == 2 * part && part <= places / 4, "{places}");
            let new = |held| Lane::new_of(places, held, 0).map(|(lane, _)| lane);
            let unknown = (0..=places).filter(|held| new(*held) == Some(Lane::Unknown));
            assert!(unknown.eq(middle..best - part), "{places}");
            let hangs = Lane::Prompt.most_at_once(places);
            assert!(hangs == best - part && hangs >= middle, "{places}");
            let new = |held| Lane::new_of(places, held, hangs).map(|(lane, _)| lane);
            assert!(
                (hangs..best).all(|held| new(held) == Some(Lane::Prompt)),
                "{places}"
            );
            assert_eq!(new(best), None, "{places}");
        }
        let small = [
            [1; 3],
            [2, 2, 1],
            [3, 3, 2],
            [4, 3, 2],
            [5, 4, 3],
            [6, 5, 4],
            [7, 6, 5],
            [8, 6, 5],
        ];
        for (places, most) in (1..).zip(small) {
            let [_, rest @ ..] = Lane::ALL.map(|lane| lane.most_held(places));
            assert_eq!(rest, most, "{places}");
            assert_eq!(Lane::new_of(places, places, places), None, "{places}");
        }
        assert_eq!(Lane::ALL.map(|lane| lane.most_held(768)), [768, 768, 576, 480]);
        assert_eq!(Lane::new_of(48, 36, 0), Some((Lane::Unknown, 2_500)));
        assert_eq!(Lane::new_of(48, 42, 42), Some((Lane::Prompt, 2_500)));
        assert_eq!(
            Lane::new_of(7, 6, 6),
            None,
            "a small worker has no part of a part"
        );
    }
}
