//! The memory engine against the conformance suite, and against a model that knows nothing of its code.

use creel_store::{Cmp, Key, KeyRange, Op, Outcome, Page, Rev, Store, Txn, conformance};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[tokio::test]
async fn conforms() {
    conformance::run(async || Store::memory()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_on_several_threads() {
    conformance::run(async || Store::memory()).await;
}

/// The specification in its plainest form: apply the operations one by one to a copy, keep the copy.
#[derive(Default)]
struct Model {
    rev: Rev,
    /// Value, revision.
    map: BTreeMap<Vec<u8>, (Vec<u8>, Rev)>,
}

impl Model {
    fn commit(&mut self, txn: &Txn) -> Outcome {
        let holds = |cmp: &Cmp| match cmp {
            Cmp::Exists(k) => self.map.contains_key(k.as_ref()),
            Cmp::Absent(k) => !self.map.contains_key(k.as_ref()),
            Cmp::ModRev(k, rev) => self.map.get(k.as_ref()).is_some_and(|e| e.1 == *rev),
        };
        let matched = txn.when.iter().all(holds);
        let mut values: BTreeMap<_, _> = self.map.iter().map(|(k, e)| (k.clone(), e.0.clone())).collect();
        let mut touched = Vec::new();
        for op in if matched { &txn.then } else { &txn.otherwise } {
            match op {
                Op::Put(k, v) => {
                    touched.push(k.as_ref().to_vec());
                    values.insert(k.as_ref().to_vec(), v.to_vec());
                }
                Op::Delete(k) => drop(values.remove(k.as_ref())),
                Op::DeleteRange(range) => values.retain(|k, _| !range.contains(k)),
            }
        }
        let removed = self.map.keys().any(|k| !values.contains_key(k));
        let put = touched.iter().any(|k| values.contains_key(k));
        if removed || put {
            self.rev += 1;
        }
        let old = std::mem::take(&mut self.map);
        for (k, v) in values {
            let before = old.get(&k).map_or(self.rev, |e| e.1);
            let rev = if touched.contains(&k) { self.rev } else { before };
            self.map.insert(k, (v, rev));
        }
        match matched {
            true => Outcome::Committed { rev: self.rev },
            false => Outcome::Conflict { rev: self.rev },
        }
    }
}

fn any_key() -> impl Strategy<Value = Key> {
    prop::collection::vec(prop::sample::select(vec![0u8, b'a', b'b', 0xff]), 1..3).prop_map(Key::from)
}

fn any_range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        (any_key(), any_key()).prop_map(|(a, b)| KeyRange::new(a, b)),
        any_key().prop_map(|k| KeyRange::prefix(k.as_ref())),
        Just(KeyRange::all()),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (any_key(), 0u8..9).prop_map(|(k, v)| Op::Put(k, vec![v].into())),
        2 => any_key().prop_map(Op::Delete),
        1 => any_range().prop_map(Op::DeleteRange),
    ]
}

fn any_txn() -> impl Strategy<Value = Txn> {
    let cmp = prop_oneof![
        any_key().prop_map(Cmp::Exists),
        any_key().prop_map(Cmp::Absent),
        (any_key(), 0u64..20).prop_map(|(k, rev)| Cmp::ModRev(k, rev)),
    ];
    let ops = || prop::collection::vec(any_op(), 0..4);
    (prop::collection::vec(cmp, 0..3), ops(), ops()).prop_map(|(when, then, otherwise)| Txn {
        when,
        then,
        otherwise,
    })
}

proptest! {
    #[test]
    fn agrees_with_the_model(txns in prop::collection::vec(any_txn(), 1..30), range in any_range(), limit in 1usize..5) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (store, mut model) = (Store::memory(), Model::default());
            let mut watch = store.watch(KeyRange::all(), 0);
            let mut watched = BTreeMap::new();
            for txn in txns {
                let before = model.rev;
                let expected = model.commit(&txn);
                prop_assert_eq!(store.commit(txn).await.unwrap(), expected);
                if expected.rev() > before {
                    let (rev, events) = watch.next_events().await.unwrap();
                    prop_assert_eq!(rev, expected.rev());
                    for event in events {
                        match event.value {
                            Some(value) => watched.insert(event.key, value),
                            None => watched.remove(&event.key),
                        };
                    }
                }
            }
            for reverse in [false, true] {
                let (mut got, mut rest) = (Vec::new(), Some(range.clone()));
                while let Some(range) = rest {
                    let page = store.scan(range, Page { limit, reverse }).await.unwrap();
                    prop_assert!(page.entries.len() <= limit);
                    got.extend(page.entries);
                    rest = page.next;
                }
                let mut expected: Vec<_> = model.map.iter().filter(|(k, _)| range.contains(k)).collect();
                if reverse {
                    expected.reverse();
                }
                let got: Vec<_> = got.iter().map(|e| (e.key.as_ref(), &e.value[..], e.mod_rev)).collect();
                let expected: Vec<_> = expected.iter().map(|(k, e)| (&k[..], &e.0[..], e.1)).collect();
                prop_assert_eq!(got, expected);
            }
            let state = store.scan_all(KeyRange::all(), 1000).await.unwrap().entries;
            prop_assert_eq!(watched, state.into_iter().map(|e| (e.key, e.value)).collect());
            Ok(())
        })?;
    }
}
