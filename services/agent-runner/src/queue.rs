//! Which turn runs next, pure: turns of one context in the order of their acceptance, contexts beside
//! each other, owners in turn so that a busy one delays others by little. Everything bounded.
//!
//! Invariants ([`Queue::holds`]): at most one running turn per context; never more running than the
//! limit; a waiting turn is never overtaken by a later one of its context.

use std::collections::{BTreeMap, VecDeque};

use creel_wire::{Code, Error};

/// Waiting turns of one context.
pub(crate) const MAX_PER_CONTEXT: usize = 64;

/// How much there may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Turns that run.
    pub(crate) running: usize,
    /// Turns that wait.
    pub(crate) waiting: usize,
}

impl Limits {
    /// Running turns of one owner: a quarter of the places is always for others.
    const fn running_of_owner(self) -> usize {
        let most = self.running - self.running / 4;
        if most == 0 { 1 } else { most }
    }

    /// Waiting turns of one owner: half of the room, or all of a tiny one.
    const fn waiting_of_owner(self) -> usize {
        if self.waiting < 2 {
            self.waiting
        } else {
            self.waiting / 2
        }
    }
}

/// A turn that wants to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) turn: String,
    /// The session.
    pub(crate) context: String,
    /// A person, or the jobs of one.
    pub(crate) owner: String,
}

/// Why a turn is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Context,
    Owner,
    All,
}

impl From<Full> for Error {
    fn from(full: Full) -> Self {
        let (reason, message, hint) = match full {
            Full::Context => (
                "context_queue_full",
                "too many turns of this session wait",
                "wait for one, or end the present one: creel abort",
            ),
            Full::Owner => (
                "owner_queue_full",
                "too many turns of this owner wait",
                "wait until some have run",
            ),
            Full::All => (
                "queue_full",
                "too many turns wait",
                "wait, or raise agent.max_waiting_turns in creel.toml",
            ),
        };
        Self::new(Code::ResourceExhausted, reason, message).hint(hint)
    }
}

#[derive(Debug, Default)]
struct Context {
    running: Option<Ticket>,
    waiting: VecDeque<Ticket>,
}

/// The waiting room.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: Limits,
    contexts: BTreeMap<String, Context>,
    /// Owners with waiting turns, the next one first; bounded by the number of waiting turns.
    order: VecDeque<String>,
    waiting: usize,
    running: usize,
    /// Per owner: waiting, running. Only owners with either.
    counts: BTreeMap<String, (usize, usize)>,
}

impl Queue {
    pub(crate) const fn new(limits: Limits) -> Self {
        Self {
            limits,
            contexts: BTreeMap::new(),
            order: VecDeque::new(),
            waiting: 0,
            running: 0,
            counts: BTreeMap::new(),
        }
    }

    /// Takes a turn in; how many of its context are before it.
    ///
    /// # Errors
    /// [`Full`], which limit is reached.
    pub(crate) fn admit(&mut self, ticket: Ticket) -> Result<u32, Full> {
        let of_context = self
            .contexts
            .get(&ticket.context)
            .map_or(0, |context| context.waiting.len());
        let of_owner = self.counts.get(&ticket.owner).map_or(0, |(waiting, _)| *waiting);
        if self.waiting >= self.limits.waiting {
            return Err(Full::All);
        }
        if of_owner >= self.limits.waiting_of_owner() {
            return Err(Full::Owner);
        }
        if of_context >= MAX_PER_CONTEXT {
            return Err(Full::Context);
        }
        Ok(self.restore(ticket))
    }

    /// Takes a turn in that was accepted by an earlier process: the limits were kept then.
    pub(crate) fn restore(&mut self, ticket: Ticket) -> u32 {
        let context = self.contexts.entry(ticket.context.clone()).or_default();
        let before = context.waiting.len() + usize::from(context.running.is_some());
        self.waiting += 1;
        self.counts.entry(ticket.owner.clone()).or_default().0 += 1;
        if !self.order.contains(&ticket.owner) {
            self.order.push_back(ticket.owner.clone());
        }
        context.waiting.push_back(ticket);
        u32::try_from(before).unwrap_or(u32::MAX)
    }

    /// The next turn that may run, if one may: it counts as running from now on.
    pub(crate) fn next(&mut self) -> Option<Ticket> {
        if self.running >= self.limits.running {
            return None;
        }
        for place in 0..self.order.len() {
            let owner = self.order[place].clone();
            if self
                .counts
                .get(&owner)
                .is_some_and(|(_, running)| *running >= self.limits.running_of_owner())
            {
                continue;
            }
            let Some(ticket) = self.take_of(&owner) else {
                continue;
            };
            // Whoever got a place goes to the end of the line.
            self.order.remove(place);
            if self.counts.get(&owner).is_some_and(|(waiting, _)| *waiting > 0) {
                self.order.push_back(owner);
            }
            return Some(ticket);
        }
        None
    }

    /// The first waiting turn of an owner whose context is free.
    fn take_of(&mut self, owner: &str) -> Option<Ticket> {
        // The one accepted first: ids are ordered by time.
        let (_, name) = self
            .contexts
            .iter()
            .filter(|(_, context)| context.running.is_none())
            .filter_map(|(name, context)| context.waiting.front().map(|ticket| (ticket, name)))
            .filter(|(ticket, _)| ticket.owner == owner)
            .map(|(ticket, name)| (ticket.turn.clone(), name.clone()))
            .min()?;
        let context = self.contexts.get_mut(&name)?;
        let ticket = context.waiting.pop_front()?;
        context.running = Some(ticket.clone());
        self.waiting -= 1;
        self.running += 1;
        if let Some((waiting, running)) = self.counts.get_mut(owner) {
            *waiting -= 1;
            *running += 1;
        }
        Some(ticket)
    }

    /// A turn that ran is over and gone.
    pub(crate) fn finished(&mut self, turn: &str, context: &str) {
        let Some(slot) = self.contexts.get_mut(context) else {
            return;
        };
        if let Some(ticket) = slot.running.take_if(|running| running.turn == turn) {
            self.running -= 1;
            if let Some((_, running)) = self.counts.get_mut(&ticket.owner) {
                *running -= 1;
            }
            self.tidy(context, &ticket.owner);
        }
    }

    /// Takes a waiting turn out; whether it was there.
    pub(crate) fn withdraw(&mut self, turn: &str, context: &str) -> bool {
        let Some(slot) = self.contexts.get_mut(context) else {
            return false;
        };
        let Some(place) = slot.waiting.iter().position(|ticket| ticket.turn == turn) else {
            return false;
        };
        let Some(ticket) = slot.waiting.remove(place) else {
            return false;
        };
        self.waiting -= 1;
        if let Some((waiting, _)) = self.counts.get_mut(&ticket.owner) {
            *waiting -= 1;
            if *waiting == 0 {
                self.order.retain(|owner| *owner != ticket.owner);
            }
        }
        self.tidy(context, &ticket.owner);
        true
    }

    /// The turns of a context: the running one, and those that wait in order.
    pub(crate) fn of_context(&self, context: &str) -> (Option<&str>, Vec<String>) {
        let Some(slot) = self.contexts.get(context) else {
            return (None, Vec::new());
        };
        (
            slot.running.as_ref().map(|t| t.turn.as_str()),
            slot.waiting.iter().map(|t| t.turn.clone()).collect(),
        )
    }

    /// Running turns.
    pub(crate) const fn running(&self) -> usize {
        self.running
    }

    fn tidy(&mut self, context: &str, owner: &str) {
        if self
            .contexts
            .get(context)
            .is_some_and(|c| c.running.is_none() && c.waiting.is_empty())
        {
            self.contexts.remove(context);
        }
        if self.counts.get(owner) == Some(&(0, 0)) {
            self.counts.remove(owner);
        }
    }

    /// The invariants.
    #[cfg(test)]
    fn holds(&self) -> bool {
        let running = self.contexts.values().filter(|c| c.running.is_some()).count();
        let waiting: usize = self.contexts.values().map(|c| c.waiting.len()).sum();
        let in_line: std::collections::BTreeSet<_> = self.order.iter().collect();
        running == self.running
            && waiting == self.waiting
            && running <= self.limits.running
            && in_line.len() == self.order.len()
            && self.counts.iter().all(|(owner, (waiting, running))| {
                let of = |ticket: &&Ticket| ticket.owner == *owner;
                *running <= self.limits.running_of_owner()
                    && *waiting == self.contexts.values().flat_map(|c| &c.waiting).filter(of).count()
                    && *running
                        == self
                            .contexts
                            .values()
                            .filter_map(|c| c.running.as_ref())
                            .filter(of)
                            .count()
                    && (*waiting > 0) == in_line.contains(owner)
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ticket(turn: usize, context: &str, owner: &str) -> Ticket {
        Ticket {
            turn: format!("{turn:04}"),
            context: context.to_owned(),
            owner: owner.to_owned(),
        }
    }

    #[test]
    fn each_limit_takes_exactly_its_number() {
        let mut queue = Queue::new(Limits {
            running: 1,
            waiting: 4,
        });
        for n in 0..2 {
            queue.admit(ticket(n, &n.to_string(), "a")).unwrap();
        }
        assert_eq!(queue.admit(ticket(2, "2", "a")), Err(Full::Owner));
        for n in 3..5 {
            queue.admit(ticket(n, &n.to_string(), "b")).unwrap();
        }
        assert_eq!(queue.admit(ticket(5, "5", "c")), Err(Full::All));
        assert!(queue.withdraw("0000", "0") && !queue.withdraw("0000", "0"));
        queue.admit(ticket(6, "6", "c")).unwrap();

        let mut queue = Queue::new(Limits {
            running: 1,
            waiting: 1_000,
        });
        for n in 0..MAX_PER_CONTEXT {
            assert_eq!(queue.admit(ticket(n, "c", "a")), Ok(u32::try_from(n).unwrap()));
        }
        assert_eq!(queue.admit(ticket(999, "c", "a")), Err(Full::Context));
        let error = Error::from(Full::Context);
        assert!(error.code == Code::ResourceExhausted && error.hint.is_some());
    }

    #[test]
    fn a_busy_owner_delays_another_by_one_turn() {
        let mut queue = Queue::new(Limits {
            running: 1,
            waiting: 100,
        });
        for n in 0..10 {
            queue.admit(ticket(n, &n.to_string(), "busy")).unwrap();
        }
        queue.admit(ticket(50, "other", "quiet")).unwrap();
        let first = queue.next().unwrap();
        assert_eq!(first.owner, "busy");
        assert_eq!(queue.next(), None, "one runs at a time here");
        queue.finished(&first.turn, &first.context);
        assert_eq!(queue.next().unwrap().owner, "quiet");
    }

    #[test]
    fn one_owner_never_takes_the_last_places() {
        let mut queue = Queue::new(Limits {
            running: 4,
            waiting: 100,
        });
        for n in 0..10 {
            queue.admit(ticket(n, &n.to_string(), "busy")).unwrap();
        }
        assert_eq!(std::iter::from_fn(|| queue.next()).count(), 3);
        queue.admit(ticket(50, "other", "quiet")).unwrap();
        assert_eq!(queue.next().unwrap().owner, "quiet");
    }

    proptest! {
        #[test]
        fn contexts_are_serial_and_in_order_and_nothing_is_forgotten(
            steps in prop::collection::vec((0u8..4, 0usize..4, 0usize..3), 1..120)
        ) {
            let mut queue = Queue::new(Limits { running: 3, waiting: 20 });
            let (mut number, mut alive, mut running) = (0, Vec::new(), Vec::<Ticket>::new());
            let mut started: BTreeMap<String, String> = BTreeMap::new();
            for (step, context, owner) in steps {
                match step {
                    0 | 1 => {
                        let ticket = ticket(number, &context.to_string(), &owner.to_string());
                        number += 1;
                        if queue.admit(ticket.clone()).is_ok() { alive.push(ticket) }
                    }
                    2 => if let Some(ticket) = queue.next() {
                        prop_assert!(running.iter().all(|r| r.context != ticket.context));
                        let earlier = started.insert(ticket.context.clone(), ticket.turn.clone());
                        prop_assert!(earlier.is_none_or(|earlier| earlier < ticket.turn), "overtaken");
                        running.push(ticket);
                    },
                    _ => if !running.is_empty() {
                        let ticket = running.remove(context % running.len());
                        queue.finished(&ticket.turn, &ticket.context);
                        alive.retain(|t| *t != ticket);
                    },
                }
                prop_assert!(queue.holds(), "{:?}", queue);
                prop_assert_eq!(queue.waiting + queue.running, alive.len());
            }
            // Left alone, everything that was taken in gets its turn.
            loop {
                running.extend(std::iter::from_fn(|| queue.next()));
                let Some(ticket) = running.pop() else { break };
                queue.finished(&ticket.turn, &ticket.context);
                alive.retain(|t| *t != ticket);
            }
            prop_assert!(alive.is_empty(), "{alive:?}");
            prop_assert!(queue.contexts.is_empty() && queue.counts.is_empty() && queue.order.is_empty());
        }
    }
}
