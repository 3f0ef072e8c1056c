//! Devices that wait to be let in, as a state machine: requested → approved | rejected | expired. Pure:
//! time and ids come in; what to keep comes out, or the limit that refused.
//!
//! Invariants: one waits per device; strangers are bounded, in all and per network, and block nobody who
//! is known; asking again moves no end; nothing is approved at or after its end; one decision each.

use std::collections::BTreeMap;

use creel_wire::{Code, Error};

use crate::{
    grants::Grant,
    guard::{Guard, Guards},
};

/// How many wait, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Limits {
    /// Devices nobody knows yet, in all.
    pub(crate) strangers: usize,
    /// The same, of one network (/24 or /64).
    pub(crate) per_network: usize,
    /// Devices that are let in already and want more. Each was approved once, so they are no strangers;
    /// the bound is for memory.
    pub(crate) known: usize,
    /// How long one waits, in milliseconds.
    pub(crate) life_ms: i64,
}

impl Limits {
    /// Those in force, with the life that `creel.toml` says, within [`LIFE_MS`].
    pub(crate) fn with_life(life_ms: i64) -> Self {
        Self {
            strangers: 20,
            per_network: 5,
            known: 200,
            life_ms: life_ms.clamp(*LIFE_MS.start(), *LIFE_MS.end()),
        }
    }
}

/// How long a request may wait, in milliseconds; the default is an hour.
pub(crate) const LIFE_MS: std::ops::RangeInclusive<i64> = 60_000..=24 * 3_600_000;

/// A device asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Its id.
    pub(crate) device: String,
    /// The network it is counted by.
    pub(crate) network: String,
    /// Whether it is let in already, and wants more.
    pub(crate) known: bool,
    /// What it wants.
    pub(crate) wants: Grant,
}

/// A device waits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Waiting {
    pub(crate) device: String,
    pub(crate) network: String,
    pub(crate) known: bool,
    pub(crate) wants: Grant,
    pub(crate) requested_at_ms: i64,
    pub(crate) expires_at_ms: i64,
}

/// Who waits, by pairing id.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Book(BTreeMap<String, Waiting>);

/// What becomes of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A new request, to be kept under the new id.
    New(Waiting),
    /// The one that waits already, under this id.
    Same(String),
    /// The same, but it now wants something else: to be kept under this id.
    Changed(String, Waiting),
}

/// Which limit refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// So many wait already, of all or of one network; the first of them ends then.
    Full {
        what: String,
        most: usize,
        until_ms: i64,
    },
    /// There is no such request (any more).
    Gone,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full { what, most, .. } => {
                let message = format!("{most} {what} wait to be let in already");
                Self::new(Code::ResourceExhausted, "pairing_full", message)
                    .hint("an operator decides: creel devices requests, then approve or reject")
            }
            Refused::Gone => Self::new(
                Code::NotFound,
                "pairing_gone",
                "no such request waits (any more): it was decided, or it ended",
            )
            .hint("creel devices requests"),
        }
    }
}

impl Book {
    /// A device asks to be let in, or for more. What waits past its end counts no more.
    pub(crate) fn ask(
        &self,
        ask: &Ask,
        limits: &Limits,
        now_ms: i64,
        guards: Guards,
    ) -> Result<Asked, Refused> {
        let live = || self.0.iter().filter(|(_, one)| now_ms < one.expires_at_ms);
        if let Some((id, before)) = live().find(|(_, one)| one.device == ask.device) {
            let end = if guards.on(Guard::NoExtend) {
                before.expires_at_ms
            } else {
                now_ms + limits.life_ms
            };
            if before.wants == ask.wants && before.known == ask.known && end == before.expires_at_ms {
                return Ok(Asked::Same(id.clone()));
            }
            let after = Waiting {
                known: ask.known,
                wants: ask.wants.clone(),
                expires_at_ms: end,
                ..before.clone()
            };
            return Ok(Asked::Changed(id.clone(), after));
        }
        let full = |most: usize, what: String, counts: &dyn Fn(&Waiting) -> bool| {
            let counted: Vec<_> = live().filter(|(_, one)| counts(one)).collect();
            let until_ms = counted.iter().map(|(_, one)| one.expires_at_ms).min();
            match until_ms {
                Some(until_ms) if counted.len() >= most && guards.on(Guard::Cap) => {
                    Err(Refused::Full { what, most, until_ms })
                }
                _ => Ok(()),
            }
        };
        if ask.known {
            full(limits.known, "known devices".to_owned(), &|one| one.known)?;
        } else {
            let network = &ask.network;
            full(limits.per_network, format!("devices of {network}"), &|one| {
                !one.known && one.network == *network
            })?;
            full(limits.strangers, "unknown devices".to_owned(), &|one| !one.known)?;
        }
        Ok(Asked::New(Waiting {
            device: ask.device.clone(),
            network: ask.network.clone(),
            known: ask.known,
            wants: ask.wants.clone(),
            requested_at_ms: now_ms,
            expires_at_ms: now_ms + limits.life_ms,
        }))
    }

    /// The request that is to be decided now.
    pub(crate) fn decide(&self, id: &str, now_ms: i64, guards: Guards) -> Result<&Waiting, Refused> {
        self.0
            .get(id)
            .filter(|one| now_ms < one.expires_at_ms || !guards.on(Guard::Ttl))
            .ok_or(Refused::Gone)
    }

    /// Keeps a request, once it is durable.
    pub(crate) fn put(&mut self, id: &str, waiting: Waiting) {
        self.0.insert(id.to_owned(), waiting);
    }

    /// Takes a request out, once its end is durable.
    pub(crate) fn remove(&mut self, id: &str) {
        self.0.remove(id);
    }

    /// Those past their end.
    pub(crate) fn ended(&self, now_ms: i64) -> Vec<String> {
        let ended = self.0.iter().filter(|(_, one)| now_ms >= one.expires_at_ms);
        ended.map(|(id, _)| id.clone()).collect()
    }

    /// The request of a device, over or not.
    pub(crate) fn of_device(&self, device: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(_, one)| one.device == device)
            .map(|(id, _)| id.as_str())
    }

    /// All of them.
    #[cfg(test)]
    pub(crate) fn all(&self) -> impl Iterator<Item = (&String, &Waiting)> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: i64 = 3_600_000;

    fn limits() -> Limits {
        Limits::with_life(LIFE)
    }

    fn ask(device: usize, network: &str) -> Ask {
        Ask {
            device: format!("d{device}"),
            network: network.to_owned(),
            known: false,
            wants: Grant::default(),
        }
    }

    fn put(book: &mut Book, ask: &Ask, now: i64) -> Result<(), Refused> {
        match book.ask(ask, &limits(), now, Guards::all())? {
            Asked::New(waiting) => book.put(&format!("p-{}", ask.device), waiting),
            Asked::Changed(id, waiting) => book.put(&id, waiting),
            Asked::Same(_) => {}
        }
        Ok(())
    }

    #[test]
    fn strangers_are_bounded_per_network_and_in_all_and_block_nobody_who_is_known() {
        let mut book = Book::default();
        for n in 0..limits().per_network {
            put(&mut book, &ask(n, "a"), 0).unwrap();
        }
        let refused = put(&mut book, &ask(99, "a"), 0).unwrap_err();
        assert!(
            matches!(&refused, Refused::Full { what, until_ms, .. } if what.contains(" a") && *until_ms == LIFE)
        );
        put(&mut book, &ask(0, "a"), 0).expect("it waits already");
        for n in limits().per_network..limits().strangers {
            put(&mut book, &ask(n, &format!("n{n}")), 0).unwrap();
        }
        let full = put(&mut book, &ask(100, "elsewhere"), 0).unwrap_err();
        assert!(matches!(full, Refused::Full { most: 20, .. }));
        let known = Ask {
            known: true,
            ..ask(101, "a")
        };
        put(&mut book, &known, 0).expect("strangers block strangers alone");
        assert!(put(&mut book, &ask(100, "a"), LIFE - 1).is_err());
        put(&mut book, &ask(100, "a"), LIFE).expect("what has ended counts no more");
    }

    #[test]
    fn a_request_waits_from_a_minute_to_a_day() {
        const DAY: i64 = 24 * 3_600_000;
        for (said, waits) in [
            (0, 60_000),
            (59_999, 60_000),
            (60_000, 60_000),
            (LIFE, LIFE),
            (DAY, DAY),
            (DAY + 1, DAY),
        ] {
            assert_eq!(Limits::with_life(said).life_ms, waits, "{said}");
        }
    }

    #[test]
    fn asking_again_changes_what_is_asked_and_no_end() {
        let mut book = Book::default();
        put(&mut book, &ask(1, "a"), 0).unwrap();
        assert_eq!(
            book.ask(&ask(1, "elsewhere"), &limits(), 5, Guards::all()),
            Ok(Asked::Same("p-d1".into()))
        );
        let mut more = ask(1, "elsewhere");
        more.wants.commands.insert("system.run".into());
        let Ok(Asked::Changed(id, waiting)) = book.ask(&more, &limits(), 5, Guards::all()) else {
            panic!("changed")
        };
        assert_eq!((id.as_str(), waiting.expires_at_ms), ("p-d1", LIFE));
        assert_eq!(waiting.network, "a", "it stays counted where it began");
        assert!(book.decide("p-d1", LIFE - 1, Guards::all()).is_ok());
        assert_eq!(book.decide("p-d1", LIFE, Guards::all()), Err(Refused::Gone));
        assert_eq!((book.ended(LIFE - 1).len(), book.ended(LIFE).len()), (0, 1));
        // After its end the same device starts anew.
        assert!(matches!(
            book.ask(&ask(1, "a"), &limits(), LIFE, Guards::all()),
            Ok(Asked::New(_))
        ));
    }
}
