//! Versions, migrations, the way back, and stores that can't be opened.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; the exemption covers only the tests themselves"
)]

use creel_store::{Entry, Error, Key, KeyRange, Store, Txn};
use creel_store_rocksdb::{Migration, Options, open, restore, snapshots};
use std::path::Path;

fn version(schema_version: u32) -> Options {
    let upper = Migration {
        from: 1,
        name: "values in upper case, `drop` dropped",
        apply: |before, changes| {
            for entry in before.entries(&KeyRange::all()) {
                let entry = entry?;
                if entry.key == Key::from("drop") {
                    changes.delete(entry.key)?;
                } else {
                    changes.put(entry.key, entry.value.to_ascii_uppercase())?;
                }
            }
            assert_eq!(before.entries(&KeyRange::new("b", "a")).count(), 0);
            changes.put(Key::from("new"), "2")
        },
    };
    let nothing = Migration {
        from: 2,
        name: "nothing",
        apply: |_, _| Ok(()),
    };
    Options {
        schema_version,
        migrations: vec![upper, nothing],
        ..Options::default()
    }
}

async fn entries(store: &Store) -> Vec<Entry> {
    store.scan_all(KeyRange::all(), 100).await.unwrap().entries
}

async fn version_one(path: &Path) -> Vec<Entry> {
    let store = open(path, version(1)).unwrap();
    store
        .commit(Txn::new().put("a".into(), "one").put("drop".into(), "me"))
        .await
        .unwrap();
    store.commit(Txn::new().put("a".into(), "two")).await.unwrap();
    entries(&store).await
}

#[tokio::test]
async fn a_newer_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), version(3)).unwrap());
    let err = open(dir.path(), version(2)).unwrap_err();
    assert!(
        matches!(
            err,
            Error::NewerSchema {
                found: 3,
                supported: 2
            }
        ),
        "{err}"
    );
    assert!(err.hint().unwrap().contains("snapshot"));
    assert_eq!(
        open(dir.path(), version(3)).unwrap().schema_version(),
        3,
        "and left alone"
    );
}

#[tokio::test]
async fn an_older_store_is_snapshotted_and_migrated() {
    let dir = tempfile::tempdir().unwrap();
    let old = version_one(dir.path()).await;
    let store = open(dir.path(), version(3)).unwrap();
    assert_eq!(store.schema_version(), 3);
    assert_eq!(store.latest_rev().await, 3, "one step changed something");
    let entry = |key: &str, value: &'static str, mod_rev| Entry {
        key: key.into(),
        value: value.into(),
        mod_rev,
    };
    assert_eq!(
        entries(&store).await,
        [entry("a", "TWO", 3), entry("new", "2", 3)]
    );
    let incarnation = store.incarnation();
    store.commit(Txn::new().put("later".into(), "")).await.unwrap();
    drop(store);

    // The snapshot is a whole store of the old version, which the old program opens.
    let found = snapshots(dir.path()).unwrap();
    assert_eq!(found, [dir.path().join("snapshots/schema-1-rev-2")]);
    restore(dir.path(), &found[0]).unwrap();
    let store = open(dir.path(), version(1)).unwrap();
    assert_eq!((store.schema_version(), store.latest_rev().await), (1, 2));
    assert_eq!(entries(&store).await, old);
    assert_ne!(store.incarnation(), incarnation, "revision 3 will be another one");
    drop(store);
    // What was replaced is kept, and the snapshot can be used again.
    assert!(dir.path().join("db.replaced/CURRENT").exists());
    assert_eq!(snapshots(dir.path()).unwrap(), found);
    assert_eq!(open(dir.path(), version(3)).unwrap().latest_rev().await, 3);
}

#[tokio::test]
async fn a_failed_migration_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let old = version_one(dir.path()).await;
    let mut options = version(3);
    options.migrations[0].apply = |_, changes| {
        changes.put(Key::from("half"), "done")?;
        changes.put(Key::new(vec![0; 2000]), "")
    };
    let err = open(dir.path(), options).unwrap_err();
    assert!(
        matches!(
            err,
            Error::Limit {
                limit: 1024,
                got: 2000,
                ..
            }
        ),
        "{err}"
    );
    options = version(3);
    options.migrations.pop();
    let err = open(dir.path(), options).unwrap_err();
    assert!(
        err.to_string()
            .contains("no migration from schema version 2 to 3"),
        "{err}"
    );
    let store = open(dir.path(), version(1)).unwrap();
    assert_eq!((entries(&store).await, store.latest_rev().await), (old, 2));
    drop(store);
    // The snapshot of the failed attempt is not in the way of the next.
    assert_eq!(open(dir.path(), version(3)).unwrap().schema_version(), 3);
}

#[tokio::test]
async fn only_the_newest_snapshots_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    drop(version_one(dir.path()).await);
    for old in ["schema-0-rev-9", "schema-1-rev-1", "not-a-snapshot"] {
        std::fs::create_dir_all(dir.path().join("snapshots").join(old)).unwrap();
    }
    drop(open(dir.path(), version(2)).unwrap());
    let kept = ["schema-1-rev-1", "schema-1-rev-2"].map(|name| dir.path().join("snapshots").join(name));
    assert_eq!(snapshots(dir.path()).unwrap(), kept);
    assert!(dir.path().join("snapshots/not-a-snapshot").exists());
}

#[tokio::test]
async fn a_store_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), version(1)).unwrap();
    for err in [
        open(dir.path(), version(1)).unwrap_err(),
        restore(dir.path(), dir.path()).unwrap_err(),
    ] {
        assert!(matches!(err, Error::Unavailable { .. }));
        assert!(err.to_string().contains("already open"), "{err}");
    }
    drop(store);
    open(dir.path(), version(1)).unwrap();
}

#[tokio::test]
async fn restoring_nothing_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let old = version_one(dir.path()).await;
    assert!(restore(dir.path(), &dir.path().join("no-such-snapshot")).is_err());
    std::fs::create_dir(dir.path().join("empty")).unwrap();
    let err = restore(dir.path(), &dir.path().join("empty")).unwrap_err();
    assert!(matches!(err, Error::Corrupt { .. }), "{err}");
    assert_eq!(entries(&open(dir.path(), version(1)).unwrap()).await, old);
}

/// The state between the two renames of a restore: it can be told from a store that is new.
#[tokio::test]
async fn an_interrupted_restore_is_finished_by_another() {
    let dir = tempfile::tempdir().unwrap();
    let old = version_one(dir.path()).await;
    drop(open(dir.path(), version(2)).unwrap());
    std::fs::rename(dir.path().join("db"), dir.path().join("db.replaced")).unwrap();
    let err = open(dir.path(), version(1)).unwrap_err();
    assert!(matches!(err, Error::Corrupt { .. }), "{err}");
    assert!(!dir.path().join("db").exists(), "no empty store takes its place");
    restore(dir.path(), &snapshots(dir.path()).unwrap()[0]).unwrap();
    assert_eq!(entries(&open(dir.path(), version(1)).unwrap()).await, old);
    assert!(
        dir.path().join("db.replaced/CURRENT").exists(),
        "what was replaced first is still there"
    );
}

#[tokio::test]
async fn foreign_and_damaged_directories_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    drop(version_one(dir.path()).await);
    std::fs::write(dir.path().join("db/CURRENT"), "MANIFEST-999999\n").unwrap();
    let err = open(dir.path(), version(1)).unwrap_err();
    assert!(err.hint().is_some(), "{err}");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let err = open(&file.join("store"), version(1)).unwrap_err();
    assert!(matches!(err, Error::Unavailable { .. }), "{err}");
}
