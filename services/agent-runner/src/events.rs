//! The events of one turn: a file that its turn extends and any number of subscribers read, each at
//! its own pace; nobody's slowness is kept in memory.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use creel_proto::{
    agent::v1::{TurnEvent, turn_event::Event},
    time::timestamp,
};
use prost::Message as _;

use crate::{
    segment::{LogFile, Reader},
    transcript::Unsynced,
};

/// Where a turn's events lie.
pub(crate) fn path_of(dir: &Path, folder: &str, turn: &str) -> PathBuf {
    dir.join(folder).join(format!("{turn}.log"))
}

/// The events of an open turn.
#[derive(Debug)]
pub(crate) struct EventLog {
    turn: String,
    log: LogFile,
    dir: Option<PathBuf>,
    last: Option<Event>,
}

impl EventLog {
    /// Opens the log of a turn, cutting a torn tail; one that has no event yet gets `first`.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(path: &Path, turn: &str, first: Event, now_ms: i64) -> io::Result<Self> {
        let dir = path.parent().map(Path::to_owned);
        if let Some(dir) = &dir {
            fs::create_dir_all(dir)?;
        }
        let mut newest = Vec::new();
        let log = LogFile::open(path, u64::MAX, |entry| newest = entry)?;
        let last = if log.entries() == 0 {
            None
        } else {
            TurnEvent::decode(newest.as_slice())?.event
        };
        let mut this = Self {
            turn: turn.to_owned(),
            log,
            dir,
            last,
        };
        if this.log.entries() == 0 {
            this.append(first, now_ms)?;
        }
        Ok(this)
    }

    /// The newest event's number.
    pub(crate) const fn sequence(&self) -> u64 {
        self.log.entries()
    }

    /// What it takes, in bytes.
    pub(crate) const fn bytes(&self) -> u64 {
        self.log.bytes()
    }

    /// The newest event.
    pub(crate) const fn last(&self) -> Option<&Event> {
        self.last.as_ref()
    }

    /// Adds an event under the next number.
    ///
    /// # Errors
    /// The system's; nothing was added then.
    pub(crate) fn append(&mut self, event: Event, now_ms: i64) -> io::Result<()> {
        let event = TurnEvent {
            turn_id: self.turn.clone(),
            sequence: self.sequence() + 1,
            time: Some(timestamp(now_ms)),
            event: Some(event),
        };
        self.log.append(&event)?;
        self.last = event.event;
        Ok(())
    }

    /// What has to be synced for all of it to be durable.
    pub(crate) fn unsynced(&self) -> Unsynced {
        Unsynced {
            file: self.log.handle(),
            dir: self.dir.clone(),
        }
    }
}

/// Reads a turn's events from a number on.
#[derive(Debug)]
pub(crate) struct EventReader {
    reader: Reader,
    next: u64,
    /// Read from the file, but not yet visible.
    ahead: Option<TurnEvent>,
}

impl EventReader {
    /// A reader of a turn's log that skips what is before `from` (events count from 1).
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn open(path: &Path, from: u64) -> io::Result<Self> {
        Ok(Self {
            reader: Reader::open(path)?,
            next: from.max(1),
            ahead: None,
        })
    }

    /// The number it gives next.
    pub(crate) const fn next_sequence(&self) -> u64 {
        self.next
    }

    /// The next events up to number `visible`: at most `max`, and none more once they hold `max_bytes`.
    /// Reads the file.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn page(&mut self, visible: u64, max: usize, max_bytes: usize) -> io::Result<Vec<TurnEvent>> {
        let mut page = Vec::new();
        let mut bytes = 0;
        while page.len() < max && bytes < max_bytes {
            let event = match self.ahead.take() {
                Some(event) => event,
                None => match self.reader.next()? {
                    Some(message) => TurnEvent::decode(message.as_slice())?,
                    None => break,
                },
            };
            if event.sequence > visible {
                self.ahead = Some(event);
                break;
            }
            if event.sequence >= self.next {
                self.next = event.sequence + 1;
                bytes += event.encoded_len();
                page.push(event);
            }
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::agent::v1::{Accepted, TextDelta};

    use super::*;

    fn delta(n: u64) -> Event {
        Event::Delta(TextDelta { text: n.to_string() })
    }

    fn accepted() -> Event {
        Event::Accepted(Accepted { queued_behind: 0 })
    }

    #[test]
    fn readers_see_what_is_visible_in_order_from_where_they_ask() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(dir.path(), "f", "t");
        let mut log = EventLog::open(&path, "t", accepted(), 5).unwrap();
        for n in 2..=10 {
            log.append(delta(n), 5).unwrap();
        }
        let numbers = |page: Vec<TurnEvent>| page.iter().map(|event| event.sequence).collect::<Vec<_>>();
        let mut all = EventReader::open(&path, 0).unwrap();
        assert_eq!(numbers(all.page(4, 3, 1 << 20).unwrap()), [1, 2, 3]);
        assert_eq!(numbers(all.page(4, 3, 1 << 20).unwrap()), [4]);
        assert!(all.page(4, 3, 1 << 20).unwrap().is_empty());
        assert_eq!(
            numbers(all.page(10, 99, 1).unwrap()),
            [5],
            "a page is bounded in bytes"
        );
        assert_eq!(numbers(all.page(10, 99, 1 << 20).unwrap()), [6, 7, 8, 9, 10]);
        log.append(delta(11), 5).unwrap();
        assert_eq!(numbers(all.page(11, 99, 1 << 20).unwrap()), [11]);
        let mut late = EventReader::open(&path, 9).unwrap();
        assert_eq!(numbers(late.page(11, 99, 1 << 20).unwrap()), [9, 10, 11]);
    }

    #[test]
    fn an_opened_log_goes_on_where_it_was_and_starts_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(dir.path(), "f", "t");
        EventLog::open(&path, "t", accepted(), 5)
            .unwrap()
            .append(delta(2), 5)
            .unwrap();
        let mut log = EventLog::open(&path, "t", accepted(), 9).unwrap();
        assert_eq!((log.sequence(), log.last()), (2, Some(&delta(2))));
        log.append(delta(3), 9).unwrap();
        let page = EventReader::open(&path, 1).unwrap().page(9, 9, 1 << 20).unwrap();
        assert_eq!(
            page.iter().map(|event| event.sequence).collect::<Vec<_>>(),
            [1, 2, 3]
        );
    }
}
