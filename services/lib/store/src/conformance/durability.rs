//! What survives closing and opening again.

use super::{committed, fill, key, put};
use crate::{KeyRange, Store, Txn, WatchItem};

pub(super) async fn run(open: &impl AsyncFn() -> Store) {
    let store = open().await;
    let incarnation = store.incarnation();
    fill(&store, 200).await;
    put(&store, &key("again"), "1").await;
    put(&store, &key("again"), "2").await;
    store.note_time(1000);
    committed(&store, Txn::new().delete(key("k00000"))).await;
    let before = store.scan_all(KeyRange::all(), 300).await.unwrap();
    assert_eq!(before.entries.len(), 200);
    drop(store);

    let store = open().await;
    assert_eq!(store.incarnation(), incarnation);
    assert_eq!(store.latest_rev().await, before.rev);
    assert_eq!(
        store.scan_all(KeyRange::all(), 300).await.unwrap(),
        before,
        "with all revisions"
    );
    assert_eq!(store.note_time(10), 1000, "the clock rule outlives a restart");
    let mut old = store.watch(KeyRange::all(), before.rev - 1);
    assert_eq!(old.next().await, WatchItem::Compacted { oldest: before.rev });
    let mut current = store.watch(KeyRange::all(), before.rev);
    let rev = put(&store, &key("again"), "3").await;
    assert_eq!(rev, before.rev + 1, "revisions go on");
    assert_eq!(current.next_events().await.unwrap().0, rev);
    drop(store);

    // A watch doesn't keep the store open, so this opening succeeds while both still live.
    let store = open().await;
    let entry = store.get(&key("again")).await.unwrap().unwrap();
    assert_eq!((entry.value, entry.mod_rev), ("3".into(), rev));
    drop((old, current));
}
