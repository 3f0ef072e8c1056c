//! The conformance suite on RocksDB, and RocksDB against the memory engine.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; the exemption covers only the tests themselves"
)]

use creel_store::{Cmp, Key, KeyRange, Op, Page, Store, Txn, conformance};
use creel_store_rocksdb::{Options, open};
use proptest::prelude::*;
use std::cell::Cell;

/// A fresh store each time, in one directory that goes away at the end.
async fn conforms() {
    let dir = tempfile::tempdir().unwrap();
    let made = Cell::new(0);
    conformance::run(async || {
        made.set(made.get() + 1);
        open(&dir.path().join(made.get().to_string()), Options::default()).unwrap()
    })
    .await;
    conformance::run_durable(async || open(&dir.path().join("durable"), Options::default()).unwrap()).await;
}

#[tokio::test]
async fn conforms_on_one_thread() {
    conforms().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_on_several_threads() {
    conforms().await;
}

/// Buffers so small and writes so big that reads come from flushed and compacted files too.
#[tokio::test]
async fn conforms_across_flushes() {
    let dir = tempfile::tempdir().unwrap();
    let options = || Options {
        write_buffer_mb: 1,
        ..Options::default()
    };
    let store = open(dir.path(), options()).unwrap();
    for round in 0..40u8 {
        let mut txn = Txn::new();
        for n in 0..4u8 {
            let noise: Vec<u8> = (0..64 << 10).map(|_| rand::random()).collect();
            txn.push_put(Key::new(vec![n, round % 8]), noise);
        }
        assert!(
            store
                .commit(txn.delete(Key::new(vec![0, round % 3])))
                .await
                .unwrap()
                .is_committed()
        );
    }
    let before = store.scan_all(KeyRange::all(), 100).await.unwrap();
    drop(store);
    let tables = std::fs::read_dir(dir.path().join("db")).unwrap();
    let tables = tables.filter(|file| {
        file.as_ref()
            .unwrap()
            .path()
            .extension()
            .is_some_and(|ext| ext == "sst")
    });
    assert!(tables.count() > 0, "something was flushed");
    assert_eq!(
        open(dir.path(), options())
            .unwrap()
            .scan_all(KeyRange::all(), 100)
            .await
            .unwrap(),
        before
    );
}

fn any_key() -> impl Strategy<Value = Key> {
    prop::collection::vec(prop::sample::select(vec![0u8, b'a', 0xff]), 1..3).prop_map(Key::from)
}

fn any_range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        (any_key(), any_key()).prop_map(|(a, b)| KeyRange::new(a, b)),
        any_key().prop_map(|k| KeyRange::prefix(k.as_ref())),
    ]
}

fn any_txn() -> impl Strategy<Value = Txn> {
    let cmp = prop_oneof![
        any_key().prop_map(Cmp::Exists),
        any_key().prop_map(Cmp::Absent),
        (any_key(), 0u64..20).prop_map(|(k, rev)| Cmp::ModRev(k, rev)),
    ];
    let op = prop_oneof![
        5 => (any_key(), 0u8..9).prop_map(|(k, v)| Op::Put(k, vec![v].into())),
        2 => any_key().prop_map(Op::Delete),
        2 => any_range().prop_map(Op::DeleteRange),
    ];
    let ops = prop::collection::vec(op, 0..4);
    (prop::collection::vec(cmp, 0..3), ops.clone(), ops).prop_map(|(when, then, otherwise)| Txn {
        when,
        then,
        otherwise,
    })
}

async fn all(store: &Store) -> Vec<creel_store::Entry> {
    store.scan_all(KeyRange::all(), 1000).await.unwrap().entries
}

proptest! {
    // Each case opens a database twice.
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Committed in bursts, so that transactions meet each other's pending changes in one batch.
    #[test]
    fn agrees_with_memory(
        bursts in prop::collection::vec(prop::collection::vec(any_txn(), 1..12), 1..6),
        range in any_range(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        runtime.block_on(async {
            let (rocks, memory) = (open(dir.path(), Options::default()).unwrap(), Store::memory());
            let (mut of_rocks, mut of_memory) = (rocks.watch(range.clone(), 0), memory.watch(range.clone(), 0));
            for burst in bursts {
                let mut expected = Vec::new();
                for txn in burst.clone() {
                    expected.push(memory.commit(txn).await.unwrap());
                }
                let commits = burst.into_iter().map(|txn| rocks.commit(txn));
                let got: Vec<_> =
                    futures_util::future::join_all(commits).await.into_iter().map(Result::unwrap).collect();
                prop_assert_eq!(got, expected);
                let page = Page::last(2);
                prop_assert_eq!(
                    rocks.scan(range.clone(), page).await.unwrap(),
                    memory.scan(range.clone(), page).await.unwrap()
                );
                while let Some(item) = futures_util::FutureExt::now_or_never(of_memory.next()) {
                    prop_assert_eq!(of_rocks.next().await, item);
                }
            }
            prop_assert_eq!(all(&rocks).await, all(&memory).await);
            drop(rocks);
            let reopened = open(dir.path(), Options::default()).unwrap();
            prop_assert_eq!(all(&reopened).await, all(&memory).await);
            prop_assert_eq!(reopened.latest_rev().await, memory.latest_rev().await);
            Ok(())
        })?;
    }
}
