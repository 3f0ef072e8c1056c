//! The events of a turn as a stream: what was, then what comes, to the turn's end. Each subscriber reads
//! the file at its own pace; a slow one costs one page of memory.

use std::collections::VecDeque;

use creel_proto::agent::v1::TurnEvent;
use creel_wire::{Code, Error};
use futures_util::{Stream, stream};
use tokio::sync::watch;
use tonic::Status;

use crate::{
    contexts::blocking,
    events::{self, EventReader},
    runner::{Progress, Runner},
};

/// A page, in events and bytes.
const PAGE: (usize, usize) = (64, 256 << 10);

struct Following {
    /// Away while a page is read.
    reader: Option<EventReader>,
    progress: Source,
    page: VecDeque<TurnEvent>,
}

enum Source {
    /// The turn is open.
    Open(watch::Receiver<Progress>),
    /// It has ended with this event.
    Ended(u64),
}

/// The events of a turn from a number on (0 and 1 are the first).
///
/// # Errors
/// `NotFound`; `FailedPrecondition` for a number that an ended turn never reached.
pub(crate) async fn events(
    runner: Runner,
    turn: &str,
    from: u64,
) -> Result<impl Stream<Item = Result<TurnEvent, Status>> + Send + 'static, Error> {
    // In this order: a turn that is not open any more has its end in the record.
    let follow = runner.follow(turn);
    let record = runner.turn_record(turn).await?;
    let progress = match follow {
        Some(follow) => Source::Open(follow),
        None => Source::Ended(record.last_sequence),
    };
    if let Source::Ended(last) = progress
        && from > last + 1
    {
        let message = format!("the turn has ended with event {last}");
        return Err(Error::new(Code::FailedPrecondition, "sequence_ahead", message)
            .field("from_sequence")
            .hint(format!("subscribe from {last} to see the last event")));
    }
    let path = events::path_of(&runner.dirs.events, &record.folder, &record.turn_id);
    let reader = blocking(move || match EventReader::open(&path, from) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    });
    let reader = reader
        .await?
        .ok_or_else(|| Error::not_found("events of turn", turn))?;
    let state = Following {
        reader: Some(reader),
        progress,
        page: VecDeque::new(),
    };
    Ok(stream::unfold(state, |mut state| async move {
        match state.next().await {
            Ok(Some(event)) => Some((Ok(event), state)),
            Ok(None) => None,
            Err(error) => {
                state.reader = None;
                Some((Err(Status::from(error)), state))
            }
        }
    }))
}

impl Following {
    async fn next(&mut self) -> Result<Option<TurnEvent>, Error> {
        loop {
            if let Some(event) = self.page.pop_front() {
                return Ok(Some(event));
            }
            let Some(mut reader) = self.reader.take() else {
                return Ok(None);
            };
            let now = self.now();
            if reader.next_sequence() > now.visible {
                if now.ended {
                    return Ok(None);
                }
                self.reader = Some(reader);
                self.changed().await;
                continue;
            }
            let (reader, page) = blocking(move || {
                let page = reader.page(now.visible, PAGE.0, PAGE.1)?;
                Ok((reader, page))
            })
            .await?;
            if page.is_empty() && now.ended {
                // The file holds less than was promised: it was damaged, or deleted and remade.
                return Err(Error::new(
                    Code::Unavailable,
                    "events_missing",
                    "the rest of the events can't be read",
                ));
            }
            if page.is_empty() {
                tokio::task::yield_now().await;
            }
            self.reader = Some(reader);
            self.page = page.into();
        }
    }

    fn now(&mut self) -> Progress {
        match &mut self.progress {
            Source::Open(follow) => *follow.borrow_and_update(),
            Source::Ended(last) => Progress {
                visible: *last,
                ended: true,
            },
        }
    }

    async fn changed(&mut self) {
        if let Source::Open(follow) = &mut self.progress
            && follow.changed().await.is_err()
        {
            // The last word was said before the sender went.
            let last = follow.borrow().visible;
            self.progress = Source::Ended(last);
        }
    }
}
