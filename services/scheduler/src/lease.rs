//! Who has a run: one attempt at a time, for as long as it is renewed, ended once
//! (`reference/scheduler.md` §3.1, §3.4). Pure; leases and timeouts count monotonic milliseconds, so that a
//! suspended machine loses no lease.
//!
//! Invariants: only the newest attempt's result counts (LEA-1, guard `fence`); a run ends once (LEA-2,
//! `terminal_once`); an attempt leaves the house only after its record is durable (LEA-3, `fence_durable`); an
//! attempt that is not renewed ends (LEA-4, `expire`); what may have begun is not given away again without a report of
//! it (LEA-5, `not_begun`).

use crate::guard::{Guard, Guards};

/// How long things take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Times {
    /// An attempt that was not renewed for so long is lost.
    pub lease_ms: i64,
    /// A worker that was asked to stop has so long to answer.
    pub cancel_ms: i64,
}

/// The lease of one run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease {
    attempt: u32,
    /// The newest attempt whose being given away is durable.
    durable: u32,
    state: State,
    /// Attempts whose results were taken.
    accepted: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum State {
    /// No worker has it.
    Free,
    Held(Box<Held>),
    /// It waits for a person: no worker has it, and none gets it.
    Parked,
    /// It has ended.
    Over,
}

/// The attempt is a worker's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Held {
    /// The stream it is on; `None` while the worker is away.
    pub stream: Option<u64>,
    /// It left the house.
    pub sent: bool,
    /// How far its worker may have come.
    pub start: Start,
    /// Lost after this.
    pub until_ms: i64,
    /// Asked to stop after this.
    pub deadline_ms: i64,
    /// Asked to stop: answer until then.
    pub answer_by_ms: Option<i64>,
}

/// How far the worker of an attempt may have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Start {
    /// It was not let begin: nothing was done, and nothing will be.
    Waits,
    /// It was let begin; or a crash of ours forgot whether it was.
    May,
    /// It said that it has begun.
    Began,
}

/// What became of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It counts; what follows is to be persisted before it is acknowledged.
    Taken,
    /// It was answered before: this was the answer.
    Repeated {
        /// Whether it counted.
        accepted: bool,
    },
    /// A newer attempt, or the end of the run, came before it.
    Fenced,
}

/// What the passing of time did to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// Its worker is gone.
    Lost,
    /// It took too long: the worker is to be asked to stop.
    TimedOut,
    /// The worker was asked to stop and did not answer.
    Unanswered,
}

impl Default for Lease {
    fn default() -> Self {
        Self {
            attempt: 1,
            durable: 0,
            state: State::Free,
            accepted: Vec::new(),
        }
    }
}

impl Lease {
    /// As read from the store: `held` if its record says that a worker has it. The worker has a whole lease to
    /// come back, and `left_ms` of its timeout.
    #[must_use]
    pub fn restored(
        attempt: u32,
        accepted: Vec<u32>,
        held: bool,
        left_ms: i64,
        now_ms: i64,
        times: Times,
    ) -> Self {
        let state = if held {
            State::Held(Box::new(Held {
                stream: None,
                sent: true,
                start: Start::May,
                until_ms: now_ms + times.lease_ms,
                deadline_ms: now_ms + left_ms,
                answer_by_ms: None,
            }))
        } else {
            State::Free
        };
        let attempt = attempt.max(1);
        let durable = if held { attempt } else { attempt - 1 };
        Self {
            attempt,
            durable,
            state,
            accepted,
        }
    }

    /// The attempt, from 1: the fence.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Attempts whose results were taken.
    #[must_use]
    pub fn accepted(&self) -> &[u32] {
        &self.accepted
    }

    /// The worker's side of it, if a worker has it.
    #[must_use]
    pub fn held(&self) -> Option<&Held> {
        match &self.state {
            State::Held(held) => Some(held),
            State::Free | State::Parked | State::Over => None,
        }
    }

    /// Whether no worker has it.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.state == State::Free
    }

    /// Whether it waits for a person.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.state == State::Parked
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Gives a free attempt to a stream. It leaves the house with [`Self::send`], after the record of this is
    /// durable. False: it was not free.
    pub fn take(&mut self, stream: u64) -> bool {
        let free = self.is_free();
        if free {
            self.state = State::Held(Box::new(Held {
                stream: Some(stream),
                sent: false,
                start: Start::Waits,
                until_ms: i64::MAX,
                deadline_ms: i64::MAX,
                answer_by_ms: None,
            }));
        }
        free
    }

    /// The record that says a worker has `attempt` is durable.
    pub fn persisted(&mut self, attempt: u32) {
        self.durable = self.durable.max(attempt);
    }

    /// Lets the attempt out, if it is still that stream's and its record is durable. From now on the lease
    /// counts.
    ///
    /// # Errors
    /// The guard that holds it back.
    pub fn send(
        &mut self,
        guards: Guards,
        attempt: u32,
        now_ms: i64,
        timeout_ms: i64,
        times: Times,
    ) -> Result<u64, Guard> {
        if guards.on(Guard::FenceDurable) && self.durable < attempt {
            return Err(Guard::FenceDurable);
        }
        match &mut self.state {
            State::Held(held) if self.attempt == attempt && !held.sent => {
                let stream = held.stream.ok_or(Guard::Fence)?;
                held.sent = true;
                held.until_ms = now_ms + times.lease_ms;
                held.deadline_ms = now_ms.saturating_add(timeout_ms);
                Ok(stream)
            }
            _ => Err(Guard::Fence),
        }
    }

    /// Frees an attempt that nobody began: the next one follows. Its number is not used again even if it never left
    /// the house, since its record may become durable late, and must not pass for that of another taking.
    ///
    /// # Errors
    /// It may have begun, or nobody had it.
    pub fn take_back(&mut self, guards: Guards) -> Result<(), Guard> {
        match &self.state {
            State::Held(held) if held.start > Start::Waits && guards.on(Guard::NotBegun) => {
                Err(Guard::NotBegun)
            }
            State::Held(_) => {
                self.again();
                Ok(())
            }
            State::Free | State::Parked | State::Over => Err(Guard::Fence),
        }
    }

    /// The worker is on another stream, or away. False: it isn't the holder of this attempt.
    pub fn moved(&mut self, attempt: u32, to: Option<u64>) -> bool {
        match &mut self.state {
            State::Held(held) if self.attempt == attempt => {
                held.stream = to;
                true
            }
            _ => false,
        }
    }

    /// A sign of life, from a worker that has come so far. False: it isn't the holder, and may not begin.
    pub fn renew(&mut self, stream: u64, attempt: u32, start: Start, now_ms: i64, times: Times) -> bool {
        match &mut self.state {
            State::Held(held) if self.attempt == attempt && held.stream == Some(stream) && held.sent => {
                held.until_ms = now_ms + times.lease_ms;
                held.start = held.start.max(start);
                true
            }
            _ => false,
        }
    }

    /// Judges a result. After [`Verdict::Taken`] comes [`Self::end`] or [`Self::again`].
    #[must_use]
    pub fn finish(&mut self, guards: Guards, attempt: u32) -> Verdict {
        if guards.on(Guard::TerminalOnce) && self.accepted.contains(&attempt) {
            return Verdict::Repeated { accepted: true };
        }
        let newest = self.attempt == attempt || !guards.on(Guard::Fence);
        let open = match &self.state {
            State::Held(held) => held.sent,
            State::Free => !guards.on(Guard::Fence),
            // What parked it was its result; there is none until it goes on.
            State::Parked => false,
            State::Over => !guards.on(Guard::TerminalOnce),
        };
        if !newest || !open {
            return Verdict::Fenced;
        }
        self.accepted.push(attempt);
        Verdict::Taken
    }

    /// The run has ended, whatever its worker says later.
    pub fn end(&mut self) {
        self.state = State::Over;
    }

    /// The attempt is given back to wait for a person: after [`Verdict::Taken`]. It goes on with [`Self::again`].
    pub fn park(&mut self) {
        self.state = State::Parked;
    }

    /// The next attempt; results of the one before are fenced.
    pub fn again(&mut self) {
        self.attempt += 1;
        self.state = State::Free;
    }

    /// Asks the worker to stop. `None`: no worker has it. `Some(None)`: it has not left the house or its worker
    /// is away.
    pub fn cancel(&mut self, now_ms: i64, times: Times) -> Option<Option<u64>> {
        let State::Held(held) = &mut self.state else {
            return None;
        };
        if held.answer_by_ms.is_none() {
            held.answer_by_ms = Some(now_ms + times.cancel_ms);
        }
        Some(held.stream.filter(|_| held.sent))
    }

    /// When [`Self::expired`] has something to say at the earliest.
    #[must_use]
    pub fn next_ms(&self) -> Option<i64> {
        let held = self
            .held()
            .filter(|held| held.sent || held.answer_by_ms.is_some())?;
        let asked = held.answer_by_ms.unwrap_or(held.deadline_ms);
        Some(held.until_ms.min(asked))
    }

    /// What time did to it. A lease is over at `until_ms`, not before.
    #[must_use]
    pub fn expired(&self, guards: Guards, now_ms: i64) -> Option<Expiry> {
        let held = self.held().filter(|_| guards.on(Guard::Expire))?;
        if held.answer_by_ms.is_some_and(|by| now_ms >= by) {
            Some(Expiry::Unanswered)
        } else if held.sent && now_ms >= held.until_ms {
            Some(Expiry::Lost)
        } else if held.sent && held.answer_by_ms.is_none() && now_ms >= held.deadline_ms {
            Some(Expiry::TimedOut)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        lease_ms: 30,
        cancel_ms: 10,
    };
    const ALL: Guards = Guards::all();

    fn running() -> Lease {
        let mut lease = Lease::default();
        assert!(lease.take(7));
        lease.persisted(1);
        assert_eq!(lease.send(ALL, 1, 0, 100, TIMES), Ok(7));
        lease
    }

    #[test]
    fn nothing_leaves_before_it_is_durable_and_once_only() {
        let mut lease = Lease::default();
        assert!(lease.take(7) && !lease.take(8));
        assert_eq!(lease.send(ALL, 1, 0, 100, TIMES), Err(Guard::FenceDurable));
        lease.persisted(1);
        assert_eq!(lease.send(ALL, 1, 0, 100, TIMES), Ok(7));
        assert_eq!(lease.send(ALL, 1, 0, 100, TIMES), Err(Guard::Fence));
    }

    #[test]
    fn only_what_nobody_began_is_given_away_again() {
        let mut unsent = Lease::default();
        assert_eq!(unsent.take_back(ALL), Err(Guard::Fence), "nobody has it");
        assert!(unsent.take(7) && unsent.take_back(ALL).is_ok());
        assert_eq!((unsent.is_free(), unsent.attempt()), (true, 2));
        unsent.persisted(1);
        assert!(unsent.take(8));
        assert_eq!(unsent.send(ALL, 2, 0, 100, TIMES), Err(Guard::FenceDurable));

        let mut waits = running();
        assert!(waits.renew(7, 1, Start::Waits, 10, TIMES) && waits.take_back(ALL).is_ok());
        assert_eq!((waits.is_free(), waits.attempt()), (true, 2));
        assert!(!waits.renew(7, 1, Start::May, 10, TIMES), "too late to begin");
        assert_eq!(waits.finish(ALL, 1), Verdict::Fenced);

        let mut begun = running();
        assert!(begun.renew(7, 1, Start::May, 10, TIMES));
        assert_eq!(begun.take_back(ALL), Err(Guard::NotBegun));
        // What the worker did before our crash is not known.
        let mut restored = Lease::restored(1, vec![], true, 60, 0, TIMES);
        assert_eq!(restored.take_back(ALL), Err(Guard::NotBegun));
    }

    #[test]
    fn leases_end_unless_renewed_and_long_runs_are_asked_to_stop() {
        let mut lease = running();
        assert_eq!(lease.expired(ALL, 29), None);
        assert_eq!(lease.expired(ALL, 30), Some(Expiry::Lost));
        assert!(lease.renew(7, 1, Start::Began, 20, TIMES) && !lease.renew(8, 1, Start::Began, 20, TIMES));
        assert_eq!((lease.expired(ALL, 49), lease.next_ms()), (None, Some(50)));
        assert!(lease.renew(7, 1, Start::Waits, 90, TIMES));
        assert_eq!(lease.expired(ALL, 100), Some(Expiry::TimedOut));
        assert_eq!(lease.cancel(100, TIMES), Some(Some(7)));
        assert_eq!(
            (lease.expired(ALL, 109), lease.expired(ALL, 110)),
            (None, Some(Expiry::Unanswered))
        );
    }

    #[test]
    fn a_result_counts_once_and_a_repeated_one_gets_the_same_answer() {
        let mut lease = running();
        assert_eq!(lease.finish(ALL, 1), Verdict::Taken);
        lease.again();
        assert_eq!(lease.finish(ALL, 1), Verdict::Repeated { accepted: true });
        assert_eq!(lease.finish(ALL, 2), Verdict::Fenced, "nobody has it");
        assert!(lease.take(9));
        lease.persisted(2);
        assert_eq!(lease.send(ALL, 2, 0, 100, TIMES), Ok(9));
        assert_eq!(lease.finish(ALL, 2), Verdict::Taken);
        lease.end();
        assert_eq!(lease.finish(ALL, 2), Verdict::Repeated { accepted: true });
        assert_eq!(lease.finish(ALL, 3), Verdict::Fenced);
    }

    #[test]
    fn a_lost_attempt_is_fenced() {
        let mut lease = running();
        lease.again();
        assert_eq!(lease.finish(ALL, 1), Verdict::Fenced);
        let mut ended = running();
        ended.end();
        assert_eq!(ended.finish(ALL, 1), Verdict::Fenced);
    }

    #[test]
    fn a_parked_run_is_nobodys_until_it_goes_on_with_the_next_attempt() {
        let mut lease = running();
        assert_eq!(lease.finish(ALL, 1), Verdict::Taken);
        lease.park();
        assert!(lease.is_parked() && !lease.is_free() && !lease.take(8));
        assert_eq!((lease.next_ms(), lease.expired(ALL, i64::MAX)), (None, None));
        assert_eq!(lease.finish(ALL, 1), Verdict::Repeated { accepted: true });
        assert_eq!(lease.finish(ALL, 2), Verdict::Fenced);
        assert_eq!(lease.cancel(0, TIMES), None, "nobody is there to be asked");
        lease.again();
        assert!(lease.take(8) && lease.attempt() == 2);
    }

    #[test]
    fn a_restored_lease_waits_for_its_worker() {
        let mut lease = Lease::restored(2, vec![1], true, 60, 1_000, TIMES);
        assert!(lease.moved(2, Some(4)) && !lease.moved(1, Some(4)));
        assert!(lease.renew(4, 2, Start::Began, 1_020, TIMES));
        assert_eq!(
            (lease.expired(ALL, 1_049), lease.expired(ALL, 1_050)),
            (None, Some(Expiry::Lost))
        );
        assert_eq!(lease.finish(ALL, 1), Verdict::Repeated { accepted: true });
        let mut free = Lease::restored(2, vec![1], false, 60, 1_000, TIMES);
        assert!(free.take(1));
        assert_eq!(
            free.send(ALL, 2, 0, 9, TIMES),
            Err(Guard::FenceDurable),
            "the record says pending"
        );
    }
}
