//! Events that wait for the next turn of a context, pure: bounded, and coalesced by key.

use creel_proto::agent::v1::QueuedEventRecord;
use creel_wire::{Code, Error};

/// Events that wait, of one context.
pub(crate) const MAX_EVENTS: usize = 64;
/// Their texts together, in bytes: they fit the record of the turn that takes them.
pub(crate) const MAX_BYTES: usize = 128 << 10;

/// The inbox of a context, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Inbox(Vec<QueuedEventRecord>);

/// What an event did to the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Put {
    /// It waits.
    Added,
    /// It took the place of an earlier one of the same key, by that one's id.
    Replaced(String),
}

impl Inbox {
    pub(crate) const fn of(events: Vec<QueuedEventRecord>) -> Self {
        Self(events)
    }

    pub(crate) fn events(&self) -> &[QueuedEventRecord] {
        &self.0
    }

    /// Puts an event in. One with the key of a waiting one takes over its count and goes to the end.
    ///
    /// # Errors
    /// `ResourceExhausted` when the inbox is full; it has not changed then.
    pub(crate) fn put(&mut self, mut event: QueuedEventRecord) -> Result<Put, Error> {
        let same = |waiting: &QueuedEventRecord| {
            !event.coalesce_key.is_empty() && waiting.coalesce_key == event.coalesce_key
        };
        let place = self.0.iter().position(same);
        let freed = place.map_or(0, |place| self.0[place].text.len());
        let bytes: usize = self.0.iter().map(|waiting| waiting.text.len()).sum();
        if (place.is_none() && self.0.len() >= MAX_EVENTS) || bytes - freed + event.text.len() > MAX_BYTES {
            let message = format!("{MAX_EVENTS} events or {MAX_BYTES} bytes of them wait in this session");
            return Err(Error::new(Code::ResourceExhausted, "event_queue_full", message)
                .hint("a turn in the session takes them: creel send"));
        }
        event.count = event.count.max(1);
        let replaced = place.map(|place| self.0.remove(place));
        let put = match replaced {
            Some(earlier) => {
                event.count = event.count.saturating_add(earlier.count);
                Put::Replaced(earlier.event_id)
            }
            None => Put::Added,
        };
        self.0.push(event);
        Ok(put)
    }

    /// Takes all of them.
    pub(crate) fn take(&mut self) -> Vec<QueuedEventRecord> {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: usize, key: &str, bytes: usize) -> QueuedEventRecord {
        QueuedEventRecord {
            event_id: id.to_string(),
            coalesce_key: key.to_owned(),
            text: "x".repeat(bytes),
            ..Default::default()
        }
    }

    #[test]
    fn it_takes_its_number_and_not_one_more() {
        let mut inbox = Inbox::default();
        for n in 0..MAX_EVENTS {
            assert_eq!(inbox.put(event(n, "", 1)).unwrap(), Put::Added);
        }
        assert_eq!(
            inbox.put(event(99, "", 1)).unwrap_err().reason,
            "event_queue_full"
        );
        assert_eq!(inbox.events().len(), MAX_EVENTS);
        assert_eq!(inbox.take().len(), MAX_EVENTS);
        assert!(inbox.put(event(99, "", 1)).is_ok());
    }

    #[test]
    fn it_takes_its_bytes_and_not_one_more() {
        let mut inbox = Inbox::default();
        inbox.put(event(0, "k", MAX_BYTES - 1)).unwrap();
        inbox.put(event(1, "", 1)).unwrap();
        assert!(inbox.put(event(2, "", 1)).is_err());
        assert!(
            inbox.put(event(3, "k", MAX_BYTES - 1)).is_ok(),
            "it frees what it replaces"
        );
    }

    #[test]
    fn events_of_one_key_are_one_and_counted_even_when_full() {
        let mut inbox = Inbox::default();
        for n in 0..MAX_EVENTS {
            inbox.put(event(n, &n.to_string(), 1)).unwrap();
        }
        assert_eq!(inbox.put(event(100, "0", 2)).unwrap(), Put::Replaced("0".into()));
        inbox.put(event(101, "0", 3)).unwrap();
        let last = inbox.events().last().unwrap();
        assert_eq!(
            (last.event_id.as_str(), last.count, inbox.events().len()),
            ("101", 3, MAX_EVENTS)
        );
        inbox.take();
        inbox.put(event(1, "", 1)).unwrap();
        inbox.put(event(2, "", 1)).unwrap();
        assert_eq!(inbox.events().len(), 2, "without a key nothing is coalesced");
    }
}
