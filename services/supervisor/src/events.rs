//! What the supervisor's tasks tell its loop.

use creel_wire::{ServiceName, tls::Tls};
use tokio::sync::mpsc;

use crate::restart::End;

/// Events that wait; whoever has more waits too.
const QUEUE: usize = 256;

/// Something happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// A service printed a line on stderr.
    Line { name: ServiceName, line: String },
    /// A process ended.
    Ended {
        name: ServiceName,
        generation: u64,
        end: End,
    },
    /// Health of a process changed: `None` serves, else why not.
    Health {
        name: ServiceName,
        generation: u64,
        trouble: Option<String>,
    },
    /// `creel.toml` was written, moved or removed.
    ConfigFile,
    /// The supervisor has its certificate.
    Certified(std::sync::Arc<Tls>),
    /// The supervisor has none, and tries again.
    NotCertified(String),
}

/// The sending end.
#[derive(Debug, Clone)]
pub(crate) struct Events(mpsc::Sender<Event>);

impl Events {
    /// A queue.
    pub(crate) fn queue() -> (Self, mpsc::Receiver<Event>) {
        let (send, receive) = mpsc::channel(QUEUE);
        (Self(send), receive)
    }

    /// Sends an event from a thread; false when nobody listens any more.
    pub(crate) fn send_blocking(&self, event: Event) -> bool {
        self.0.blocking_send(event).is_ok()
    }

    /// Sends an event, when there is room.
    pub(crate) async fn send(&self, event: Event) {
        // Nobody listens any more: the supervisor is at its end.
        let _ = self.0.send(event).await;
    }
}
