//! Many writers at once.

use super::{key, put};
use crate::{Outcome, Store, Txn};
use std::collections::BTreeMap;

const WORKERS: u64 = 8;
const EACH: u64 = 25;

pub(super) async fn run(make: &impl AsyncFn() -> Store) {
    counter(make().await).await;
    one_winner(make().await).await;
}

/// Compare-and-set increments: each counts once, in the order of the revisions, and is seen by the next read.
async fn counter(store: Store) {
    put(&store, &key("n"), "0").await;
    let workers = (0..WORKERS).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut done = Vec::new();
            while done.len() < EACH as usize {
                let entry = store.get(&key("n")).await.unwrap().unwrap();
                let next: u64 = std::str::from_utf8(&entry.value).unwrap().parse::<u64>().unwrap() + 1;
                tokio::task::yield_now().await;
                let txn = Txn::new()
                    .expect_rev(key("n"), entry.mod_rev)
                    .put(key("n"), next.to_string());
                if let Outcome::Committed { rev } = store.commit(txn).await.unwrap() {
                    let seen = store.get(&key("n")).await.unwrap().unwrap();
                    assert!(
                        seen.mod_rev >= rev && store.latest_rev().await >= rev,
                        "an answer is visible"
                    );
                    done.push((rev, next));
                }
            }
            done
        })
    });
    let workers: Vec<_> = workers.collect();
    let mut done = BTreeMap::new();
    for worker in workers {
        done.extend(worker.await.unwrap());
    }
    assert_eq!(
        done.into_values().collect::<Vec<_>>(),
        (1..=WORKERS * EACH).collect::<Vec<_>>()
    );
}

/// Transactions committed together are evaluated one after the other, not all against the same old state.
async fn one_winner(store: Store) {
    let tries = (0..WORKERS).map(|n| {
        let txn = Txn::new()
            .expect_absent(key("lock"))
            .put(key("lock"), n.to_string());
        let txn = txn.otherwise_put(key(&format!("loser{n}")), "");
        async { store.commit(txn).await.unwrap() }
    });
    let outcomes = futures_util::future::join_all(tries).await;
    assert_eq!(
        outcomes.iter().filter(|outcome| outcome.is_committed()).count(),
        1
    );
    let mut revs: Vec<_> = outcomes.iter().map(|outcome| outcome.rev()).collect();
    revs.sort_unstable();
    assert_eq!(revs, (1..=WORKERS).collect::<Vec<_>>(), "one revision each");
}
