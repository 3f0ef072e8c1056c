//! News of devices' standings from identity (REV-1, REV-2): followed over every loss of the watch. What they mean is
//! for [`crate::connections::Book`] to say.

use std::time::Duration;

use creel_proto::{identity::v1::EpochEvent, time};
use futures_util::{Stream, StreamExt as _};
use tonic::Status;

use crate::connections::{Connections, REFUSE_AFTER_MS};

/// A watch that says nothing for so long is left, and another one asked for.
const PATIENCE: Duration = Duration::from_millis(REFUSE_AFTER_MS.unsigned_abs());
/// Between two looks at what may not stay open, and two attempts to watch.
const TICK: Duration = Duration::from_secs(1);

/// Follows identity's watch, opened by `watch`, and closes what may not stay open; never ends.
pub(crate) async fn follow<F, R, S>(connections: Connections, watch: F)
where
    F: Fn() -> R,
    R: Future<Output = Result<S, Status>>,
    S: Stream<Item = Result<EpochEvent, Status>> + Unpin,
{
    // Apart, so that no identity that hangs, however it does, keeps connections open.
    tokio::join!(listen(&connections, watch), expire(&connections));
}

async fn expire(connections: &Connections) {
    let mut tick = ticks();
    loop {
        tick.tick().await;
        let closed = connections.expire();
        if closed > 0 {
            tracing::warn!(closed, "connections closed: no news from identity");
        }
    }
}

async fn listen<F, R, S>(connections: &Connections, watch: F)
where
    F: Fn() -> R,
    R: Future<Output = Result<S, Status>>,
    S: Stream<Item = Result<EpochEvent, Status>> + Unpin,
{
    let mut tick = ticks();
    loop {
        tick.tick().await;
        // Before it is asked: the snapshot can't be older than this.
        let asked_ms = connections.now_ms();
        let Ok(Ok(mut news)) = tokio::time::timeout(PATIENCE, watch()).await else {
            continue;
        };
        while let Ok(Some(Ok(event))) = tokio::time::timeout(PATIENCE, news.next()).await {
            take(connections, &event, asked_ms);
            // So late that it no longer lets anybody in: a new watch starts with how things are now.
            if connections.sees().is_err() {
                break;
            }
        }
    }
}

/// One event of a watch that was asked for at `asked_ms`.
fn take(connections: &Connections, event: &EpochEvent, asked_ms: i64) {
    let changed: Vec<_> = event
        .changes
        .iter()
        .filter_map(|change| change.device_id.parse().ok())
        .collect();
    let since_ms = event.since_snapshot.as_ref().map_or(0, time::duration_ms);
    let closed = connections.heard(&changed, asked_ms.saturating_add(since_ms));
    if closed > 0 {
        tracing::info!(
            closed,
            devices = changed.len(),
            "connections closed: their device's standing changed"
        );
    }
}

fn ticks() -> tokio::time::Interval {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tick
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use creel_proto::identity::v1::DeviceEpoch;
    use creel_wire::DeviceId;
    use futures_util::stream::{self, BoxStream};
    use tokio::time::advance;
    use tokio_util::sync::CancellationToken;

    use super::*;

    type News = BoxStream<'static, Result<EpochEvent, Status>>;

    fn event(since_ms: i64, changed: &[&DeviceId]) -> EpochEvent {
        let changes = changed
            .iter()
            .map(|device| DeviceEpoch {
                device_id: device.to_string(),
                ..DeviceEpoch::default()
            })
            .collect();
        EpochEvent {
            changes,
            since_snapshot: Some(time::duration(since_ms)),
            ..EpochEvent::default()
        }
    }

    fn device() -> DeviceId {
        DeviceId::of_public_key(&[1; 32])
    }

    /// A connection, the token that closes it, and whether it was closed after so many seconds.
    async fn closed_after(seconds: u64, connections: &Connections) -> bool {
        let close = CancellationToken::new();
        let _live = connections.open(&device(), 1, close.clone()).unwrap();
        for _ in 0..seconds * 10 {
            advance(Duration::from_millis(100)).await;
            tokio::task::yield_now().await;
        }
        close.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn an_identity_that_takes_the_call_and_never_answers_keeps_nothing_open() {
        for seconds in [14, 16] {
            let connections = Connections::new(1);
            let hanging = || std::future::pending::<Result<News, Status>>();
            let following = tokio::spawn(follow(connections.clone(), hanging));
            assert_eq!(closed_after(seconds, &connections).await, seconds > 15);
            assert_eq!(connections.sees().unwrap_err().reason, "identity_silent");
            following.abort();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn news_that_come_later_and_later_do_not_pass_for_fresh_ones() {
        let connections = Connections::new(1);
        // A heartbeat each second, that arrives only every fourth: it tells less and less of now.
        let late = || async {
            let beats = stream::unfold(0, |beat| async move {
                tokio::time::sleep(Duration::from_secs(4)).await;
                Some((Ok(event(beat * 1_000, &[])), beat + 1))
            });
            Ok::<News, Status>(beats.boxed())
        };
        let mut news = late().await.unwrap();
        for _ in 0..2 {
            take(&connections, &news.next().await.unwrap().unwrap(), 0);
        }
        assert_eq!(connections.sees().unwrap_err().reason, "identity_silent");
        // Followed, such a watch is left for a new one each time, so connections do not pile up behind it.
        let asked = Arc::new(AtomicUsize::new(0));
        let counting = {
            let asked = Arc::clone(&asked);
            move || {
                asked.fetch_add(1, Ordering::Relaxed);
                late()
            }
        };
        let following = tokio::spawn(follow(connections.clone(), counting));
        closed_after(30, &connections).await;
        assert!(asked.load(Ordering::Relaxed) >= 3);
        following.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_closes_at_once_and_heartbeats_keep_the_others() {
        let connections = Connections::new(1);
        let other = DeviceId::of_public_key(&[2; 32]);
        let kept = CancellationToken::new();
        let _kept = connections.open(&other, 2, kept.clone()).unwrap();
        let watch = || async {
            let start = tokio::time::Instant::now();
            let beats = stream::unfold(true, move |first| async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let since = i64::try_from(start.elapsed().as_millis()).unwrap();
                let changed = device();
                let changed = if first { vec![&changed] } else { vec![] };
                Some((Ok(event(since, &changed)), false))
            });
            Ok::<News, Status>(beats.boxed())
        };
        let following = tokio::spawn(follow(connections.clone(), watch));
        assert!(closed_after(2, &connections).await);
        let close = CancellationToken::new();
        let _again = connections.open(&device(), 3, close.clone()).unwrap();
        for _ in 0..400 {
            advance(Duration::from_millis(100)).await;
            tokio::task::yield_now().await;
        }
        assert!(!close.is_cancelled() && !kept.is_cancelled() && connections.sees().is_ok());
        following.abort();
    }
}
