//! The open connections of the door: who is present, and events to those they are for. What a connection
//! takes too slowly ends it: nothing is buffered without end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use tokio::sync::{SetOnce, mpsc};

use super::machine::{Ending, Event};

/// Events that wait for one connection.
pub(crate) const MAX_WAITING: usize = 256;
/// Connections that are shown; more are there, but not in the list.
const MAX_SHOWN: usize = 200;
/// Sessions that one connection follows; one more forgets the first.
const MAX_SESSIONS: usize = 32;

/// The way to one connection. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    events: mpsc::Sender<Arc<Event>>,
    ending: Arc<SetOnce<Ending>>,
}

/// A connection's end of its line.
#[derive(Debug)]
pub(crate) struct Inbox {
    pub(crate) events: mpsc::Receiver<Arc<Event>>,
    /// Passes what waits.
    pub(crate) ending: Arc<SetOnce<Ending>>,
}

/// Makes a line.
pub(crate) fn line() -> (Line, Inbox) {
    let (events_in, events) = mpsc::channel(MAX_WAITING);
    let ending = Arc::new(SetOnce::new());
    let line = Line {
        events: events_in,
        ending: Arc::clone(&ending),
    };
    (line, Inbox { events, ending })
}

impl Line {
    /// Hands an event over; a connection that has no room for it is ended.
    pub(crate) fn send(&self, event: Arc<Event>) -> bool {
        match self.events.try_send(event) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.end(Ending::Slow);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// Hands an event over if there is room: for news that the next one makes old.
    fn offer(&self, event: Arc<Event>) {
        let _ = self.events.try_send(event);
    }

    /// Ends the connection; the first reason counts.
    pub(crate) fn end(&self, ending: Ending) {
        let _ = self.ending.set(ending);
    }
}

#[derive(Debug)]
struct Entry {
    line: Line,
    presence: Option<Value>,
    sessions: BTreeSet<String>,
    /// In the order they came.
    order: Vec<String>,
}

/// All open connections. Cheap to clone. Bounded by the door's own limit of connections.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hub(Arc<Mutex<BTreeMap<u64, Entry>>>);

/// A connection's place; dropping it takes it out.
#[derive(Debug)]
pub(crate) struct Present {
    hub: Hub,
    connection: u64,
}

impl Hub {
    /// A connection was opened. Those that come for one call, as a command line does, show no presence: every
    /// change of it is told to all.
    pub(crate) fn join(&self, connection: u64, line: Line, presence: Option<Value>) -> Present {
        let shown = presence.is_some();
        let entry = Entry {
            line,
            presence,
            sessions: BTreeSet::new(),
            order: Vec::new(),
        };
        self.lock().insert(connection, entry);
        if shown {
            self.presence_changed();
        }
        Present {
            hub: self.clone(),
            connection,
        }
    }

    /// To everyone it is for; the connection itself judges that.
    pub(crate) fn publish(&self, event: Event) {
        let event = Arc::new(event);
        for entry in self.lock().values() {
            entry.line.send(Arc::clone(&event));
        }
    }

    /// To those who follow a session.
    pub(crate) fn publish_to(&self, session: &str, event: Event) {
        let event = Arc::new(event);
        for entry in self
            .lock()
            .values()
            .filter(|entry| entry.sessions.contains(session))
        {
            entry.line.send(Arc::clone(&event));
        }
    }

    /// From now on the connection gets the session's events.
    pub(crate) fn follow(&self, connection: u64, session: &str) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&connection) else {
            return;
        };
        if !entry.sessions.insert(session.to_owned()) {
            return;
        }
        entry.order.push(session.to_owned());
        if entry.order.len() > MAX_SESSIONS {
            let first = entry.order.remove(0);
            entry.sessions.remove(&first);
        }
    }

    /// Who is here.
    pub(crate) fn presence(&self) -> Vec<Value> {
        let entries = self.lock();
        entries
            .values()
            .filter_map(|entry| entry.presence.clone())
            .take(MAX_SHOWN)
            .collect()
    }

    fn presence_changed(&self) {
        let entries = self.lock();
        let presence: Vec<&Value> = entries
            .values()
            .filter_map(|entry| entry.presence.as_ref())
            .take(MAX_SHOWN)
            .collect();
        let event = Arc::new(Event {
            name: "presence",
            payload: json!({ "presence": presence }),
            audience: super::machine::Audience::Operators(creel_wire::Scope::Read),
        });
        for entry in entries.values() {
            entry.line.offer(Arc::clone(&event));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let gone = self.hub.lock().remove(&self.connection);
        if gone.is_some_and(|entry| entry.presence.is_some()) {
            self.hub.presence_changed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::machine::Audience, *};

    fn event(name: &'static str) -> Event {
        Event {
            name,
            payload: Value::Null,
            audience: Audience::Anyone,
        }
    }

    fn names(inbox: &mut Inbox) -> Vec<&'static str> {
        std::iter::from_fn(|| inbox.events.try_recv().ok().map(|event| event.name)).collect()
    }

    #[test]
    fn events_reach_all_or_those_who_follow_the_session() {
        let hub = Hub::default();
        let ((one, mut first), (two, mut second)) = (line(), line());
        let here = hub.join(1, one, Some(json!("one")));
        let _also = hub.join(2, two, Some(json!("two")));
        assert_eq!(hub.presence(), [json!("one"), json!("two")]);
        names(&mut first);
        names(&mut second);
        hub.follow(1, "main");
        hub.publish_to("main", event("chat"));
        hub.publish(event("tick"));
        assert_eq!(names(&mut first), ["chat", "tick"]);
        assert_eq!(names(&mut second), ["tick"]);
        drop(here);
        assert_eq!(names(&mut second), ["presence"]);
        assert_eq!(hub.presence(), [json!("two")]);
    }

    #[test]
    fn a_connection_that_takes_nothing_is_ended_at_its_bound() {
        let hub = Hub::default();
        let (slow, inbox) = line();
        let _here = hub.join(1, slow, None);
        for _ in 0..MAX_WAITING {
            hub.publish(event("chat"));
        }
        assert_eq!(inbox.ending.get(), None);
        // News that the next one makes old is left out instead.
        hub.presence_changed();
        assert_eq!(inbox.ending.get(), None);
        hub.publish(event("chat"));
        assert_eq!(inbox.ending.get(), Some(&Ending::Slow));
    }

    #[test]
    fn a_connection_follows_so_many_sessions_and_forgets_the_first() {
        let hub = Hub::default();
        let (one, mut inbox) = line();
        let _here = hub.join(1, one, None);
        for n in 0..=MAX_SESSIONS {
            hub.follow(1, &n.to_string());
        }
        names(&mut inbox);
        hub.publish_to("0", event("chat"));
        assert!(names(&mut inbox).is_empty());
        hub.publish_to("1", event("chat"));
        assert_eq!(names(&mut inbox), ["chat"]);
    }
}
