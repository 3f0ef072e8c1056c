//! A store that rests lets go of what it holds in memory, and of nothing else.

use std::path::Path;

use creel_store::{Key, Txn};
use creel_store_rocksdb::{Options, open};

#[expect(
    clippy::unwrap_used,
    reason = "a helper of tests; the exemption covers only the tests themselves"
)]
fn tables(store: &Path) -> usize {
    let files = std::fs::read_dir(store.join("db")).unwrap();
    files
        .filter(|file| {
            let path = file.as_ref().unwrap().path();
            path.extension().is_some_and(|kind| kind == "sst")
        })
        .count()
}

#[tokio::test]
async fn much_goes_to_the_disk_and_little_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Options::default()).unwrap();
    let put = async |name: &str, bytes: usize| {
        let txn = Txn::new().put(Key::from(name), vec![7; bytes]);
        assert!(store.commit(txn).await.unwrap().is_committed());
    };
    put("little", 1_000).await;
    store.rest().await;
    assert_eq!(tables(dir.path()), 0);
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        put(name, 200_000).await;
    }
    store.rest().await;
    assert_eq!(tables(dir.path()), 1);
    let found = store.get(&Key::from("h")).await.unwrap().unwrap();
    assert_eq!(found.value.len(), 200_000);
    let rev = store.latest_rev().await;
    drop(store);
    let store = open(dir.path(), Options::default()).unwrap();
    assert_eq!(store.latest_rev().await, rev);
    assert!(store.get(&Key::from("little")).await.unwrap().is_some());
}
