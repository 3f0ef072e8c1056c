//! What a worker says, as much at once as came: one step of the ledger for all of it.

use std::collections::VecDeque;

use creel_proto::scheduler::v1::{WorkFinished, WorkParked, WorkUnpark};

use super::Ledger;
use crate::{id::RunId, run::Now};

/// An attempt of a run.
pub(crate) type Named = (RunId, u32);

/// What a worker says after its hello, checked.
#[derive(Debug)]
pub(crate) enum Said {
    /// It lives, and holds these.
    Alive(Vec<Named>),
    /// It would begin.
    Ready(Named),
    /// It began, in this session.
    Started(Named, String),
    Finished(Named, WorkFinished),
    Parked(Named, WorkParked),
    Unpark(Named, WorkUnpark),
}

/// A result of a run that is not known here: the store knows how it ended, if it ever was.
#[derive(Debug)]
pub(crate) struct Unknown {
    pub(crate) named: Named,
    /// It was the answer to what a run waits for.
    pub(crate) unpark: Option<WorkUnpark>,
}

impl Ledger {
    /// Takes what a worker said, in order. Answers what is not known here, and what is left: it is to be said
    /// again once the changes so far are on their way.
    pub(crate) fn hear(
        &mut self,
        stream: u64,
        mut said: VecDeque<Said>,
        now: Now,
    ) -> (Vec<Unknown>, VecDeque<Said>) {
        let mut unknown = Vec::new();
        while !self.is_full()
            && let Some(one) = said.pop_front()
        {
            let (known, named, unpark) = match one {
                Said::Alive(refs) => {
                    self.heartbeat(stream, &refs, now);
                    continue;
                }
                Said::Ready(named) => {
                    self.work_ready(stream, named, now);
                    continue;
                }
                Said::Started((run, attempt), session) => {
                    self.work_started(stream, run, attempt, &session, now);
                    continue;
                }
                Said::Finished(named, finished) => {
                    (self.work_finished(stream, named, &finished, now), named, None)
                }
                Said::Parked(named, parked) => (self.work_parked(stream, named, &parked, now), named, None),
                Said::Unpark(named, answer) => (
                    self.work_unparked(stream, named, &answer, now),
                    named,
                    Some(answer),
                ),
            };
            if !known {
                unknown.push(Unknown { named, unpark });
            }
        }
        // Who ended something has room.
        self.assign(now);
        (unknown, said)
    }
}
