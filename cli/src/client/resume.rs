//! What is followed over cuts: the stack, or a part of it, starts anew, and what was begun there goes on without us.

use std::time::Duration;

use creel_wire::{Code, Error};
use futures_util::{StreamExt as _, stream::BoxStream};
use tokio::time::Instant;
use tonic::Status;

use super::Client;
use crate::{failure::Failure, reach};

/// What was cut is taken up again for so long before it is given up, with pauses that double up to the longest.
const PATIENCE: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a service says, until it ends or is cut.
pub(crate) type Messages<T> = BoxStream<'static, Result<T, Status>>;

/// Something that is read from a stream, and goes on where it was when that is cut.
pub(crate) trait Following {
    type Message;
    /// What is looked for.
    type Found;

    /// Asks for what has not come yet.
    async fn open(&mut self, client: &Client) -> Result<Messages<Self::Message>, Failure>;

    /// Takes what came; what was looked for, if that was it.
    fn take(&mut self, message: Self::Message) -> Result<Option<Self::Found>, Failure>;
}

/// How much longer cuts are borne.
#[derive(Debug)]
struct Patience {
    left: Duration,
    pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            left: PATIENCE,
            pause: FIRST_PAUSE,
        }
    }
}

impl Patience {
    /// How long to wait before it is asked for again; `None` when that has been done for long enough.
    fn next(&mut self) -> Option<Duration> {
        let pause = self.pause;
        self.left = self.left.checked_sub(pause)?;
        self.pause = LONGEST_PAUSE.min(pause * 2);
        Some(pause)
    }
}

impl Client {
    /// Follows to what is looked for. A stack that was ended is not waited for; one that cuts each stream before
    /// anything came is given up after a while.
    pub(crate) async fn resume<F: Following>(&self, mut following: F) -> Result<F::Found, Failure> {
        let mut patience = Patience::default();
        loop {
            let cut = match following.open(self).await {
                Ok(mut stream) => {
                    let opened = Instant::now();
                    let cut = loop {
                        match stream.next().await {
                            Some(Ok(message)) => {
                                patience = Patience::default();
                                if let Some(found) = following.take(message)? {
                                    return Ok(found);
                                }
                            }
                            Some(Err(status)) if reach::is_cut(&status) => break self.judge(&status),
                            Some(Err(status)) => return Err(self.judge(&status)),
                            None => break ended(),
                        }
                    };
                    if opened.elapsed() >= PATIENCE {
                        patience = Patience::default();
                    }
                    cut
                }
                Err(failure) if reach::may_come_back(&failure) => failure,
                Err(failure) => return Err(failure),
            };
            let Some(pause) = patience.next() else {
                return Err(cut);
            };
            tokio::time::sleep(pause).await;
        }
    }
}

fn ended() -> Failure {
    let message = "the stream ended before what was waited for";
    Error::new(Code::Unavailable, "stream_ended", message)
        .hint("creel status")
        .into()
}
