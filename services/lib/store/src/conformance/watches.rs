//! Watches: what they see, how they resume, when they are told they missed something.

use super::{committed, key, put};
use crate::{Bytes, Event, HistoryBounds, Key, KeyRange, Page, Rev, Store, Txn, WatchItem, limits};
use futures_util::FutureExt as _;
use std::collections::BTreeMap;

pub(super) async fn run(make: &impl AsyncFn() -> Store) {
    events(&make().await).await;
    resuming(&make().await).await;
    scan_then_watch(make().await).await;
    compacted(&make().await).await;
}

fn set(name: &str, value: &'static str) -> Event {
    Event {
        key: key(name),
        value: Some(Bytes::from_static(value.as_bytes())),
    }
}

fn gone(name: &str) -> Event {
    Event {
        key: key(name),
        value: None,
    }
}

async fn events(store: &Store) {
    let mut all = store.watch(KeyRange::all(), 0);
    let mut some = store.watch(KeyRange::prefix(b"b"), 0);
    assert!(some.next().now_or_never().is_none(), "nothing happened yet");
    committed(
        store,
        Txn::new()
            .put(key("b"), "1")
            .put(key("a"), "0")
            .put(key("a"), "1"),
    )
    .await;
    committed(store, Txn::new().put(key("a"), "2")).await;
    committed(
        store,
        Txn::new().put(key("c"), "").delete(key("c")).delete(key("gone")),
    )
    .await;
    committed(
        store,
        Txn::new().delete_range(KeyRange::all()).put(key("b2"), "2"),
    )
    .await;
    assert_eq!(
        all.next_events().await.unwrap(),
        (1, vec![set("a", "1"), set("b", "1")]),
        "once per key, in order"
    );
    assert_eq!(all.next_events().await.unwrap(), (2, vec![set("a", "2")]));
    assert_eq!(
        all.next_events().await.unwrap(),
        (3, vec![gone("a"), gone("b"), set("b2", "2")])
    );
    assert_eq!(some.next_events().await.unwrap(), (1, vec![set("b", "1")]));
    assert_eq!(
        some.next_events().await.unwrap(),
        (3, vec![gone("b"), set("b2", "2")])
    );
    assert!(all.next().now_or_never().is_none() && some.next().now_or_never().is_none());
    // A watch that already waits is woken.
    let b3 = key("b3");
    let (item, _) = tokio::join!(some.next(), put(store, &b3, "3"));
    assert_eq!(
        item,
        WatchItem::Events {
            rev: 4,
            events: vec![set("b3", "3")]
        }
    );
}

async fn resuming(store: &Store) {
    for n in 1..=10u8 {
        put(store, &key("k"), vec![n]).await;
    }
    for from in 0..=10 {
        let mut watch = store.watch(KeyRange::all(), from);
        for rev in from + 1..=10 {
            assert_eq!(watch.next_events().await.unwrap().0, rev);
        }
        assert!(
            watch.next().now_or_never().is_none(),
            "from {from}: exactly the rest"
        );
    }
    // From a revision that is still to come.
    let mut ahead = store.watch(KeyRange::all(), 12);
    for _ in 0..3 {
        put(store, &key("k"), "").await;
    }
    assert_eq!(ahead.next_events().await.unwrap().0, 13);
}

/// A scan and a watch from its revision rebuild the state, whatever is written meanwhile.
async fn scan_then_watch(store: Store) {
    const WRITERS: u8 = 4;
    const WRITES: u8 = 50;
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0..WRITES {
                let (name, old) = (Key::new(vec![writer, n % 7]), Key::new(vec![writer, (n + 3) % 7]));
                committed(&store, Txn::new().put(name, vec![n]).delete(old)).await;
                tokio::task::yield_now().await;
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let last = Rev::from(WRITERS) * Rev::from(WRITES);
    for _ in 0..8 {
        let start = store.scan(KeyRange::all(), Page::default()).await.unwrap();
        let mut state: BTreeMap<_, _> = start.entries.into_iter().map(|e| (e.key, e.value)).collect();
        let mut watch = store.watch(KeyRange::all(), start.rev);
        for expected in start.rev + 1..=last {
            let (rev, events) = watch.next_events().await.unwrap();
            assert_eq!(rev, expected, "no gap and no duplicate");
            for event in events {
                match event.value {
                    Some(value) => drop(state.insert(event.key, value)),
                    None => drop(state.remove(&event.key)),
                }
            }
        }
        let end = store.scan(KeyRange::all(), Page::default()).await.unwrap();
        assert_eq!(state, end.entries.into_iter().map(|e| (e.key, e.value)).collect());
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

async fn compacted(store: &Store) {
    let mut lagging = store.watch(KeyRange::all(), 0);
    let mut elsewhere = store.watch(KeyRange::prefix(b"other"), 0);
    let enough = HistoryBounds::default().bytes / limits::VALUE_BYTES + 2;
    for _ in 0..enough {
        put(store, &key("big"), vec![1; limits::VALUE_BYTES]).await;
    }
    let WatchItem::Compacted { oldest } = lagging.next().await else {
        panic!("the history is bounded")
    };
    assert_eq!(
        lagging.next().await,
        WatchItem::Compacted { oldest },
        "until it is resumed"
    );
    assert_eq!(
        elsewhere.next().await,
        WatchItem::Compacted { oldest },
        "it can't know that it missed nothing"
    );
    assert_eq!(
        store.watch(KeyRange::all(), oldest - 1).next().await,
        WatchItem::Compacted { oldest }
    );
    lagging.resume(oldest);
    for rev in oldest + 1..=store.latest_rev().await {
        assert_eq!(lagging.next_events().await.unwrap().0, rev);
    }
}
