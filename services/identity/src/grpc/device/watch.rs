//! What watchers of devices hear: epochs, for those who hold connections open; changes, for people.

use std::{pin::Pin, sync::Arc, time::Duration};

use creel_proto::{
    identity::v1::{DeviceEpoch, DeviceEvent, DeviceEventKind, EpochEvent, PairingState},
    time,
};
use futures_util::{Stream, StreamExt as _};
use tokio::{
    sync::broadcast::error::{RecvError, TryRecvError},
    time::Instant,
};
use tonic::Status;

use super::Devices;
use crate::device;

/// Watchers hear at least this often, so that silence means that the watch is dead.
const HEARTBEAT: Duration = Duration::from_secs(1);

pub(super) type EpochStream = Pin<Box<dyn Stream<Item = Result<EpochEvent, Status>> + Send>>;
pub(super) type EventStream = Pin<Box<dyn Stream<Item = Result<DeviceEvent, Status>> + Send>>;

impl Devices {
    pub(super) async fn epochs(&self) -> EpochStream {
        // Subscribed before the snapshot is taken, so that no change falls between.
        let mut changes = self.registry.watch();
        let taken = Instant::now();
        let out = self
            .registry
            .list()
            .into_iter()
            .filter(|entry| device::is_revoked(&entry.record))
            .map(|entry| DeviceEpoch {
                device_id: entry.record.device_id,
                epoch: entry.record.epoch,
                state: entry.record.state,
            })
            .collect();
        let revision = self.store.latest_rev().await;
        let snapshot = EpochEvent {
            changes: out,
            snapshot: true,
            revision,
            since_snapshot: Some(time::duration(0)),
        };
        let (store, drain) = (self.store.clone(), self.drain.clone());
        let live = async_stream(move |sender| async move {
            loop {
                let received = tokio::select! {
                    received = tokio::time::timeout(HEARTBEAT, changes.recv()) => received,
                    () = drain.cancelled() => return,
                };
                // What was committed until here waits to be received.
                let since_ms = i64::try_from(taken.elapsed().as_millis()).unwrap_or(i64::MAX);
                let mut news = match received {
                    Err(_) => vec![],
                    Ok(Ok(change)) => vec![change],
                    // Too far behind, or identity ends: the watcher starts again with a snapshot.
                    Ok(Err(RecvError::Lagged(_) | RecvError::Closed)) => return,
                };
                loop {
                    match changes.try_recv() {
                        Ok(change) => news.push(change),
                        Err(TryRecvError::Empty) => break,
                        Err(TryRecvError::Lagged(_) | TryRecvError::Closed) => return,
                    }
                }
                let event = EpochEvent {
                    changes: news,
                    snapshot: false,
                    revision: store.latest_rev().await,
                    since_snapshot: Some(time::duration(since_ms)),
                };
                if sender.send(Ok(event)).await.is_err() {
                    return;
                }
            }
        });
        let stream = futures_util::stream::once(async move { Ok(snapshot) }).chain(live);
        Box::pin(stream)
    }

    /// Those that wait, `ready`, then every change; ends when the watcher is too slow: it starts again.
    pub(super) fn events(&self) -> EventStream {
        let mut news = self.registry.news();
        let now = self.now();
        let mut first: Vec<_> = self
            .pairings
            .list(now)
            .iter()
            .map(|entry| DeviceEvent {
                kind: DeviceEventKind::Requested.into(),
                request: Some(self.pairings.show(entry, PairingState::Pending)),
                ..DeviceEvent::default()
            })
            .collect();
        first.push(DeviceEvent {
            kind: DeviceEventKind::Ready.into(),
            ..DeviceEvent::default()
        });
        let drain = self.drain.clone();
        let live = async_stream(move |sender| async move {
            loop {
                let event = tokio::select! {
                    event = news.recv() => event,
                    () = drain.cancelled() => return,
                    () = sender.closed() => return,
                };
                match event {
                    Ok(event) => {
                        if sender.send(Ok(Arc::unwrap_or_clone(event))).await.is_err() {
                            return;
                        }
                    }
                    Err(RecvError::Lagged(_) | RecvError::Closed) => return,
                }
            }
        });
        Box::pin(futures_util::stream::iter(first.into_iter().map(Ok)).chain(live))
    }
}

/// A stream fed by a task; the task ends when the stream is dropped.
fn async_stream<T, F, R>(feed: F) -> impl Stream<Item = T>
where
    T: Send + 'static,
    F: FnOnce(tokio::sync::mpsc::Sender<T>) -> R,
    R: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    tokio::spawn(feed(sender));
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}
