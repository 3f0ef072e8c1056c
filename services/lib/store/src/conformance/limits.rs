//! Each limit at n and at n + 1.

use super::{committed, fill, key, numbered};
use crate::{Bytes, Error, Key, KeyRange, Page, Store, Txn, limits};

pub(super) async fn run(make: &impl AsyncFn() -> Store) {
    keys_and_values(&make().await).await;
    transactions(&make().await).await;
    pages(&make().await).await;
    deleted_ranges(&make().await).await;
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>, at: usize) {
    match result {
        Err(Error::Limit { limit, got, .. }) => assert_eq!((limit, got), (at as u64, at as u64 + 1)),
        other => panic!("expected the limit {at}, got {other:?}"),
    }
}

fn long(bytes: usize) -> Key {
    Key::new(vec![b'k'; bytes])
}

async fn keys_and_values(store: &Store) {
    let n = limits::KEY_BYTES;
    committed(store, Txn::new().put(long(n), "long")).await;
    assert_eq!(store.get(&long(n)).await.unwrap().unwrap().value, "long");
    let after = KeyRange::new(long(n).successor(), "z");
    assert_eq!(store.scan(after, Page::default()).await.unwrap().entries, []);
    refused(store.commit(Txn::new().put(long(n + 1), "")).await, n);
    refused(store.commit(Txn::new().delete(long(n + 1))).await, n);
    refused(store.commit(Txn::new().expect_absent(long(n + 1))).await, n);
    refused(store.commit(Txn::new().otherwise_put(long(n + 1), "")).await, n);
    refused(store.get(&long(n + 1)).await, n);
    refused(
        store.scan(KeyRange::new(long(n + 2), "z"), Page::default()).await,
        n + 1,
    );
    refused(
        store
            .commit(Txn::new().delete_range(KeyRange::new("a", long(n + 2))))
            .await,
        n + 1,
    );
    refused(store.commit(Txn::new().put(Key::new(vec![]), "")).await, 0);
    let value = |bytes| Bytes::from(vec![1; bytes]);
    committed(store, Txn::new().put(key("v"), value(limits::VALUE_BYTES))).await;
    refused(
        store
            .commit(Txn::new().put(key("v"), value(limits::VALUE_BYTES + 1)))
            .await,
        limits::VALUE_BYTES,
    );
    assert_eq!(store.latest_rev().await, 2, "what was refused left nothing");
}

async fn transactions(store: &Store) {
    let n = limits::TXN_OPS;
    let mut full = Txn::new();
    for i in 0..n {
        full = full
            .expect_absent(numbered(i))
            .put(numbered(i), "")
            .otherwise_delete(numbered(i));
    }
    let more = |change: fn(Txn) -> Txn| store.commit(change(full.clone()));
    refused(more(|txn| txn.expect_absent(key("x"))).await, n);
    refused(more(|txn| txn.put(key("x"), "")).await, n);
    refused(more(|txn| txn.otherwise_delete(key("x"))).await, n);
    committed(store, full).await;

    // Values of the largest size but one, which fills up to the last byte.
    let mut bytes = Txn::new();
    for name in ["a", "b", "c"] {
        bytes.push_put(key(name), vec![1; limits::VALUE_BYTES]);
    }
    let rest = limits::TXN_BYTES - bytes.size_bytes() - 1;
    refused(
        store.commit(bytes.clone().put(key("d"), vec![1; rest + 1])).await,
        limits::TXN_BYTES,
    );
    refused(
        store
            .commit(bytes.clone().put(key("d"), vec![1; rest]).delete(key("e")))
            .await,
        limits::TXN_BYTES,
    );
    committed(store, bytes.put(key("d"), vec![1; rest])).await;
}

async fn pages(store: &Store) {
    fill(store, 3).await;
    let scan = |limit| store.scan(KeyRange::all(), Page::first(limit));
    assert_eq!(scan(limits::PAGE_ENTRIES).await.unwrap().entries.len(), 3);
    refused(scan(limits::PAGE_ENTRIES + 1).await, limits::PAGE_ENTRIES);
    refused(scan(0).await, 0);
    assert_eq!(store.scan_all(KeyRange::all(), 3).await.unwrap().entries.len(), 3);
    refused(store.scan_all(KeyRange::all(), 2).await, 2);
}

async fn deleted_ranges(store: &Store) {
    let n = limits::RANGE_KEYS;
    fill(store, n + 1).await;
    let rev = store.latest_rev().await;
    refused(store.commit(Txn::new().delete_range(KeyRange::all())).await, n);
    let halves = || Txn::new().delete_range(KeyRange::new("a", numbered(n / 2)));
    refused(
        store
            .commit(halves().delete_range(KeyRange::new(numbered(n / 2), "z")))
            .await,
        n,
    );
    assert_eq!(store.latest_rev().await, rev);
    committed(store, halves().delete_range(KeyRange::new("a", numbered(n)))).await;
    assert_eq!(
        store.scan_all(KeyRange::all(), 1).await.unwrap().entries[0].key,
        numbered(n)
    );
}
