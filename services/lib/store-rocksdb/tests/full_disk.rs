//! A disk that fills up, and gets space again. The disk is a small tmpfs in a mount namespace of its own, so the
//! test needs Linux with user namespaces; elsewhere it says that it is skipped.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; the exemption covers only the tests themselves"
)]
#![cfg(target_os = "linux")]

use creel_store::{Error, Key, KeyRange, Outcome, Store, Txn};
use creel_store_rocksdb::{Options, open};
use std::fs;
use std::path::Path;
use std::time::Duration;

const DIR: &str = "CREEL_STORE_TEST_DIR";

#[expect(
    clippy::disallowed_methods,
    reason = "the namespace belongs to a process; lib/sandbox is not below this crate"
)]
fn in_small_disk(dir: &Path, then: &[&str]) -> std::process::Output {
    std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
        .args([
            r#"mount -t tmpfs -o size=12m small "$CREEL_STORE_TEST_DIR" && exec "$@""#,
            "sh",
        ])
        .args(then)
        .env(DIR, dir)
        .output()
        .unwrap()
}

#[test]
fn goes_on_when_there_is_space_again() {
    let dir = tempfile::tempdir().unwrap();
    if !in_small_disk(dir.path(), &["true"]).status.success() {
        eprintln!("SKIPPED: no user namespace with a tmpfs on this machine; nothing was tested");
        return;
    }
    let me = std::env::current_exe().unwrap();
    let test = [
        me.to_str().unwrap(),
        "--exact",
        "child_on_a_small_disk",
        "--ignored",
        "--nocapture",
    ];
    let output = in_small_disk(dir.path(), &test);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

fn put(n: u32) -> Txn {
    // Noise, so that compression doesn't make it small.
    let noise: Vec<u8> = (0..60_000).map(|_| rand::random()).collect();
    Txn::new().put(key(n), noise)
}

fn key(n: u32) -> Key {
    n.to_be_bytes().to_vec().into()
}

/// Commits `from`, `from + 1`, … until one isn't taken; its number and why.
async fn until_full(store: &Store, from: u32) -> (u32, Error) {
    for n in from.. {
        match store.commit(put(n)).await {
            Ok(outcome) => assert!(outcome.is_committed()),
            Err(err) => return (n, err),
        }
    }
    unreachable!("the disk is small")
}

#[tokio::test]
#[ignore = "run by goes_on_when_there_is_space_again, on a disk of its own"]
async fn child_on_a_small_disk() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let (ballast, path) = (Path::new(&dir).join("ballast"), Path::new(&dir).join("store"));
    fs::write(&ballast, vec![1; 5 << 20]).unwrap();
    let options = || Options {
        write_buffer_mb: 1,
        ..Options::default()
    };
    let store = open(&path, options()).unwrap();

    let (refused, err) = until_full(&store, 0).await;
    assert!(matches!(err, Error::Unavailable { .. }), "{err:?}");
    assert!(err.hint().unwrap().contains("free disk space"), "{err:?}");
    assert!(refused > 10, "there was space for some");
    // Refusing goes on, reading too, and what was refused isn't there.
    let again = store.commit(put(refused)).await.unwrap_err();
    assert!(matches!(again, Error::Unavailable { .. }), "{again:?}");
    assert_eq!(store.get(&key(refused)).await.unwrap(), None);
    let before = store.scan_all(KeyRange::all(), 1000).await.unwrap();
    assert_eq!(
        (before.entries.len() as u64, before.rev),
        (u64::from(refused), u64::from(refused))
    );

    fs::remove_file(&ballast).unwrap();
    // RocksDB looks for space every few seconds; there is no event for it but that a commit succeeds.
    let recovered = async {
        loop {
            match store.commit(put(refused)).await {
                Ok(outcome) => return outcome,
                Err(err) => assert!(matches!(err, Error::Unavailable { .. }), "{err:?}"),
            }
            tokio::task::yield_now().await;
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(60), recovered)
        .await
        .unwrap();
    assert_eq!(
        outcome,
        Outcome::Committed { rev: before.rev + 1 },
        "refused commits took no revision"
    );
    drop(store);

    let store = open(&path, options()).unwrap();
    let after = store.scan_all(KeyRange::all(), 1000).await.unwrap();
    assert_eq!(after.entries[..before.entries.len()], before.entries);
    assert_eq!(after.entries.len(), before.entries.len() + 1);
}
