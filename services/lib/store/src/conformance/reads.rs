//! Scans, paging, the clock rule.

use super::{committed, fill, key, numbered, pages, put};
use crate::{Bytes, KeyRange, Page, Store, Txn, limits};

pub(super) async fn run(make: &impl AsyncFn() -> Store) {
    paging(&make().await).await;
    big_pages(&make().await).await;
    whole_ranges(&make().await).await;
    clock(&make().await).await;
    let (one, other) = (make().await, make().await);
    assert_ne!(one.incarnation(), other.incarnation());
    assert_eq!(one.incarnation(), one.clone().incarnation());
}

async fn paging(store: &Store) {
    assert_eq!(pages(store, KeyRange::all(), Page::default()).await, [vec![]]);
    committed(store, Txn::new().put(key("a"), "").put(key("z"), "")).await;
    fill(store, 25).await;
    let range = KeyRange::prefix(b"k");
    for size in [1, 10, 24, 25, 26] {
        let forward = pages(store, range.clone(), Page::first(size)).await;
        let keys: Vec<_> = forward.iter().flatten().map(|e| e.key.clone()).collect();
        assert_eq!(keys, (0..25).map(numbered).collect::<Vec<_>>());
        assert_eq!(forward.len(), 25usize.div_ceil(size), "no empty page at the end");
        let mut backward = pages(store, range.clone(), Page::last(size)).await.concat();
        backward.reverse();
        assert_eq!(backward, forward.concat());
    }
    let inner = KeyRange::new(numbered(3), numbered(6));
    let page = store.scan(inner.clone(), Page::last(2)).await.unwrap();
    assert_eq!(
        page.entries.iter().map(|e| e.key.clone()).collect::<Vec<_>>(),
        [numbered(5), numbered(4)]
    );
    assert_eq!(page.next, Some(KeyRange::new(numbered(3), numbered(4))));
    for empty in [
        KeyRange::new("m", "m"),
        KeyRange::new("z", "a"),
        KeyRange::prefix(b"none"),
    ] {
        for page in [Page::first(5), Page::last(5)] {
            assert_eq!(pages(store, empty.clone(), page).await, [vec![]]);
        }
    }
}

async fn big_pages(store: &Store) {
    let big = Bytes::from(vec![7; limits::VALUE_BYTES]);
    let count = limits::PAGE_BYTES / limits::VALUE_BYTES + 4;
    for n in 0..count {
        put(store, &numbered(n), big.clone()).await;
    }
    for page in [Page::default(), Page::last(limits::PAGE_ENTRIES)] {
        let pages = pages(store, KeyRange::all(), page).await;
        assert_eq!(pages.len(), 2, "a page ends when it is full of bytes");
        assert_eq!(pages.concat().len(), count);
    }
    assert_eq!(
        store
            .scan_all(KeyRange::all(), count)
            .await
            .unwrap()
            .entries
            .len(),
        count
    );
}

async fn whole_ranges(store: &Store) {
    // More than a page, so that one snapshot really spans it.
    let count = limits::PAGE_ENTRIES + 5;
    fill(store, count).await;
    let all = store.scan_all(KeyRange::prefix(b"k"), count).await.unwrap();
    assert_eq!(
        (all.entries.len(), all.next, all.rev),
        (count, None, store.latest_rev().await)
    );
    store
        .clear(KeyRange::new(numbered(1), numbered(count - 1)))
        .await
        .unwrap();
    let left = store.scan_all(KeyRange::all(), 2).await.unwrap().entries;
    assert_eq!(
        left.into_iter().map(|e| e.key).collect::<Vec<_>>(),
        [numbered(0), numbered(count - 1)]
    );
}

async fn clock(store: &Store) {
    assert_eq!(store.last_instant_ms(), None);
    assert_eq!(store.note_time(100), 100);
    assert_eq!(store.note_time(50), 100, "a clock set back doesn't count");
    committed(store, Txn::new().expect_absent(key("a"))).await;
    assert_eq!(
        store.last_instant_ms(),
        None,
        "a transaction that changes nothing commits no instant"
    );
    put(store, &key("a"), "").await;
    assert_eq!(store.last_instant_ms(), Some(100));
    assert_eq!(store.clone().note_time(60), 110, "time goes on all the same");
    assert_eq!(store.note_time(120), 120);
    put(store, &key("a"), "").await;
    assert_eq!(store.clone().last_instant_ms(), Some(120));
}
