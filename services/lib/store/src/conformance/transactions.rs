//! Compares, branches, the order of operations, revisions.

use super::{committed, conflict, key, put, value};
use crate::{Cmp, Entry, KeyRange, Op, Store, Txn};

pub(super) async fn run(make: &impl AsyncFn() -> Store) {
    revisions(&make().await).await;
    compares(&make().await).await;
    otherwise(&make().await).await;
    nothing_changes(&make().await).await;
    order_of_operations(&make().await).await;
    ranges(&make().await).await;
}

async fn revisions(store: &Store) {
    let (a, b) = (key("a"), key("b"));
    assert_eq!(store.latest_rev().await, 0);
    assert_eq!(store.get(&a).await.unwrap(), None);
    assert_eq!(put(store, &a, "1").await, 1);
    let two = Txn::new().put(a.clone(), "2").put(b.clone(), "2");
    assert_eq!(
        committed(store, two).await,
        2,
        "one revision per transaction, not per key"
    );
    assert_eq!(store.latest_rev().await, 2);
    let entry = store.get(&a).await.unwrap().unwrap();
    assert_eq!(
        entry,
        Entry {
            key: a.clone(),
            value: "2".into(),
            mod_rev: 2
        }
    );
    assert_eq!(committed(store, Txn::new().delete(a.clone())).await, 3);
    assert_eq!(store.get(&a).await.unwrap(), None);
    put(store, &a, "").await;
    let entry = store.get(&a).await.unwrap().unwrap();
    assert_eq!(
        (entry.mod_rev, entry.value.len()),
        (4, 0),
        "a new life, an empty value"
    );
}

async fn compares(store: &Store) {
    let (here, gone) = (key("here"), key("gone"));
    put(store, &here, "0").await;
    let rev = put(store, &here, "1").await;
    let cases = [
        (Cmp::Exists(here.clone()), true),
        (Cmp::Exists(gone.clone()), false),
        (Cmp::Absent(gone.clone()), true),
        (Cmp::Absent(here.clone()), false),
        (Cmp::ModRev(here.clone(), rev), true),
        (Cmp::ModRev(here.clone(), rev - 1), false),
        (Cmp::ModRev(here.clone(), rev + 1), false),
        (Cmp::ModRev(gone.clone(), rev), false),
        (Cmp::ModRev(gone.clone(), 0), false),
    ];
    for (cmp, holds) in cases {
        let mut txn = Txn::new();
        txn.push_cmp(cmp.clone());
        let outcome = store.commit(txn).await.unwrap();
        assert_eq!(outcome.is_committed(), holds, "{cmp:?}");
        assert_eq!(outcome.rev(), rev);
    }
    // One failing compare among many is enough, and the branch isn't applied.
    let txn = Txn::new()
        .expect_exists(here.clone())
        .expect_absent(gone.clone())
        .expect_rev(here.clone(), 1);
    conflict(store, txn.put(here.clone(), "no")).await;
    assert_eq!(value(store, &here).await.unwrap(), "1");
    let txn = Txn::new()
        .expect_exists(here.clone())
        .expect_absent(gone.clone())
        .expect_rev(here.clone(), rev);
    committed(store, txn.put(here.clone(), "yes")).await;
    assert_eq!(value(store, &here).await.unwrap(), "yes");
}

async fn otherwise(store: &Store) {
    let (lock, waiters, old) = (key("lock"), key("waiters"), key("old"));
    let rev = committed(store, Txn::new().put(lock.clone(), "first").put(old.clone(), "")).await;
    let txn = Txn::new()
        .expect_absent(lock.clone())
        .put(lock.clone(), "second")
        .otherwise_put(waiters.clone(), "second")
        .otherwise_delete(old.clone());
    assert_eq!(
        conflict(store, txn).await,
        rev + 1,
        "the other branch has a revision of its own"
    );
    assert_eq!(value(store, &lock).await.unwrap(), "first");
    assert_eq!(value(store, &waiters).await.unwrap(), "second");
    assert_eq!(value(store, &old).await, None);
    let txn = Txn::new()
        .expect_exists(lock.clone())
        .otherwise_delete_range(KeyRange::all());
    committed(store, txn).await;
    assert_eq!(
        value(store, &lock).await.unwrap(),
        "first",
        "not applied when the compares hold"
    );
    conflict(
        store,
        Txn::new()
            .expect_absent(lock.clone())
            .otherwise_delete_range(KeyRange::all()),
    )
    .await;
    assert_eq!(value(store, &lock).await, None);
}

async fn nothing_changes(store: &Store) {
    let rev = put(store, &key("a"), "").await;
    let gone = key("gone");
    assert_eq!(committed(store, Txn::new()).await, rev);
    assert_eq!(committed(store, Txn::new().delete(gone.clone())).await, rev);
    assert_eq!(
        committed(store, Txn::new().delete_range(KeyRange::prefix(b"g"))).await,
        rev
    );
    assert_eq!(
        committed(store, Txn::new().put(gone.clone(), "x").delete(gone.clone())).await,
        rev
    );
    assert_eq!(
        conflict(store, Txn::new().expect_exists(gone.clone()).put(gone, "x")).await,
        rev
    );
    assert_eq!(
        put(store, &key("a"), "").await,
        rev + 1,
        "a put counts even if the value is the same"
    );
}

async fn order_of_operations(store: &Store) {
    let (a, b) = (key("a"), key("b"));
    committed(store, Txn::new().put(a.clone(), "1").put(a.clone(), "2")).await;
    assert_eq!(value(store, &a).await.unwrap(), "2");
    committed(
        store,
        Txn::new()
            .put(a.clone(), "3")
            .put(b.clone(), "3")
            .delete_range(KeyRange::prefix(b"a")),
    )
    .await;
    assert_eq!(value(store, &a).await, None);
    assert_eq!(value(store, &b).await.unwrap(), "3");
    let rev = committed(
        store,
        Txn::new().delete_range(KeyRange::all()).put(b.clone(), "4"),
    )
    .await;
    let entry = store.get(&b).await.unwrap().unwrap();
    assert_eq!((entry.value, entry.mod_rev), ("4".into(), rev));
    // Compares see the state before the transaction.
    committed(
        store,
        Txn::new()
            .expect_absent(a.clone())
            .put(a.clone(), "5")
            .delete(b.clone()),
    )
    .await;
    assert_eq!(value(store, &a).await.unwrap(), "5");
    assert_eq!(value(store, &b).await, None);
}

async fn ranges(store: &Store) {
    let names = ["a", "b", "b1", "b\u{7f}", "c"];
    let mut txn = Txn::new();
    for name in names {
        txn.push_put(key(name), name);
    }
    committed(store, txn).await;
    for empty in [KeyRange::new("b", "b"), KeyRange::new("c", "a")] {
        committed(store, Txn::new().delete_range(empty)).await;
    }
    assert_eq!(
        store.scan_all(KeyRange::all(), 10).await.unwrap().entries.len(),
        names.len()
    );
    let then = vec![
        Op::DeleteRange(KeyRange::new("b", "b\u{7f}")),
        Op::DeleteRange(KeyRange::prefix(b"c")),
    ];
    committed(
        store,
        Txn {
            then,
            ..Txn::default()
        },
    )
    .await;
    let left = store.scan_all(KeyRange::all(), 10).await.unwrap().entries;
    assert_eq!(
        left.into_iter().map(|e| e.key).collect::<Vec<_>>(),
        [key("a"), key("b\u{7f}")]
    );
}
