//! News of revocations from identity, and what happens without them (REV-1, REV-2): a live watch closes
//! a revoked device's connections at once; silent for 5 s, no new calls; for 15 s, all are closed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use creel_kit::Deps;
use creel_proto::identity::v1::{WatchEpochsRequest, device_service_client::DeviceServiceClient};
use creel_wire::{Code, Error, ServiceName};
use tokio::time::Instant;

use crate::connections::Connections;

/// Silent for so long: no new calls.
pub(crate) const REFUSE_AFTER: Duration = Duration::from_secs(5);
/// Silent for so long: nothing stays open.
pub(crate) const CLOSE_AFTER: Duration = Duration::from_secs(15);

/// When identity was last heard of. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    start: Instant,
    heard_ms: Arc<AtomicU64>,
    changes: Arc<AtomicU64>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            heard_ms: Arc::default(),
            changes: Arc::default(),
        }
    }

    /// How many changes of standings came so far. Who let somebody in by what identity said before the last
    /// one has to ask again: the news may have passed before there was a connection to close.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn heard(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(now, Ordering::Relaxed);
    }

    fn silent_for(&self) -> Duration {
        self.start
            .elapsed()
            .saturating_sub(Duration::from_millis(self.heard_ms.load(Ordering::Relaxed)))
    }

    /// Whether new calls may pass.
    pub(crate) fn admit(&self) -> Result<(), Error> {
        let silent = self.silent_for();
        if silent < REFUSE_AFTER {
            return Ok(());
        }
        let message = format!(
            "identity has not been heard of for {} s, so nobody's standing is known",
            silent.as_secs()
        );
        Err(Error::new(Code::Unavailable, "identity_silent", message).hint("creel status"))
    }
}

/// Follows identity's watch until the drain, over every loss of it.
pub(crate) async fn follow(deps: Deps, watch: Watch, connections: Connections) {
    let channel = match deps.peers.channel(ServiceName::Identity) {
        Ok(channel) => channel,
        Err(error) => return tracing::error!(%error, "identity can't be dialled"),
    };
    let mut client = DeviceServiceClient::new(channel);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let opened = tokio::select! {
            () = deps.drain.cancelled() => return,
            opened = client.watch_epochs(WatchEpochsRequest {}) => opened,
        };
        if let Ok(stream) = opened {
            let mut stream = stream.into_inner();
            loop {
                let message = tokio::select! {
                    () = deps.drain.cancelled() => return,
                    message = tokio::time::timeout(REFUSE_AFTER, stream.message()) => message,
                };
                let Ok(Ok(Some(event))) = message else { break };
                let news = u64::try_from(event.changes.len()).unwrap_or(u64::MAX);
                watch.changes.fetch_add(news, Ordering::AcqRel);
                for change in &event.changes {
                    // Whatever changed: the next connection is judged afresh.
                    if let Ok(device) = change.device_id.parse() {
                        let closed = connections.close(&device);
                        if closed > 0 {
                            tracing::info!(%device, closed, "connections closed: the device's standing changed");
                        }
                    }
                }
                watch.heard();
            }
        }
        tokio::select! {
            () = deps.drain.cancelled() => return,
            _ = tick.tick() => {}
        }
        if watch.silent_for() >= CLOSE_AFTER && connections.count() > 0 {
            let closed = connections.close_all();
            tracing::warn!(closed, "connections closed: no news from identity");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_refuses_after_five_seconds_to_the_millisecond() {
        let watch = Watch::new();
        tokio::time::advance(REFUSE_AFTER - Duration::from_millis(1)).await;
        assert!(watch.admit().is_ok());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(watch.admit().unwrap_err().reason, "identity_silent");
        watch.heard();
        assert!(watch.admit().is_ok());
    }
}
