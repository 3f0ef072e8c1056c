//! A disk that fills up and gets space again, and one whose writes fail. The full disk is a small tmpfs in a mount
//! namespace of its own, so its test needs Linux with user namespaces; elsewhere it says that it is skipped. The
//! failing writes are those past a limit on file sizes.
#![cfg(target_os = "linux")]

use creel_store::{Error, Key, KeyRange, Outcome, Store, Txn};
use creel_store_rocksdb::{Options, open};
use std::fs;
use std::path::Path;
use std::time::Duration;

const DIR: &str = "CREEL_STORE_TEST_DIR";

/// Runs a test of this file, or `true`, in a process of its own, by a shell script that ends in `exec "$@"`.
#[expect(
    clippy::disallowed_methods,
    reason = "disks and limits belong to a process; lib/sandbox is not below us"
)]
fn run(program: &str, args: &[&str], script: &str, dir: &Path, test: Option<&str>) -> Result<(), String> {
    let me = std::env::current_exe().map_err(|err| err.to_string())?;
    let mut process = std::process::Command::new(program);
    process.args(args).args(["-c", script, "sh"]).env(DIR, dir);
    match test {
        Some(test) => process
            .arg(me)
            .args(["--exact", test, "--ignored", "--nocapture"]),
        None => process.arg("true"),
    };
    let output = process.output().map_err(|err| err.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    match output.status.success() && (test.is_none() || text.contains("1 passed")) {
        true => Ok(()),
        false => Err(text.into_owned()),
    }
}

#[test]
fn goes_on_when_there_is_space_again() {
    let dir = tempfile::tempdir().unwrap();
    let unshare = ["--user", "--map-root-user", "--mount", "sh"];
    let script = r#"mount -t tmpfs -o size=12m small "$CREEL_STORE_TEST_DIR" && exec "$@""#;
    if run("unshare", &unshare, script, dir.path(), None).is_err() {
        eprintln!("SKIPPED: no user namespace with a tmpfs on this machine; nothing was tested");
        return;
    }
    run(
        "unshare",
        &unshare,
        script,
        dir.path(),
        Some("child_on_a_small_disk"),
    )
    .unwrap();
}

#[tokio::test]
async fn refuses_to_write_after_an_error_until_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    // The signal that comes with the error is ignored, so that it is an error.
    let script = r#"trap "" XFSZ; ulimit -f 2000; exec "$@""#;
    run("sh", &[], script, dir.path(), Some("child_with_failing_writes")).unwrap();
    // Here writing works again. What was answered is there, what was left open is there or not, refused is gone.
    let store = open(&dir.path().join("store"), Options::default()).unwrap();
    let left_open: u32 = fs::read_to_string(dir.path().join("indeterminate"))
        .unwrap()
        .parse()
        .unwrap();
    let rev = store.latest_rev().await;
    assert!(
        rev == u64::from(left_open) || rev == u64::from(left_open) + 1,
        "{rev}"
    );
    for n in 0..left_open {
        assert!(store.get(&key(n)).await.unwrap().is_some(), "{n} was answered");
    }
    assert_eq!(store.get(&key(left_open + 1)).await.unwrap(), None);
    assert_eq!(
        store.commit(put(left_open + 1)).await.unwrap(),
        Outcome::Committed { rev: rev + 1 }
    );
}

#[tokio::test]
#[ignore = "run by refuses_to_write_after_an_error_until_opened_again, under a limit on file sizes"]
async fn child_with_failing_writes() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let store = open(&Path::new(&dir).join("store"), Options::default()).unwrap();
    let (failed, err) = until_full(&store, 0).await;
    assert!(matches!(err, Error::Indeterminate { .. }), "{err:?}");
    assert!(failed > 2, "some were written");
    let later = store.commit(put(failed + 1)).await.unwrap_err();
    assert!(matches!(later, Error::Unavailable { .. }), "{later:?}");
    assert!(later.hint().unwrap().contains("restart"), "{later:?}");
    // Reading goes on, and so do transactions that only compare.
    assert!(store.get(&key(0)).await.unwrap().is_some());
    let compare = Txn::new().expect_exists(key(0));
    assert_eq!(
        store.commit(compare).await.unwrap(),
        Outcome::Committed {
            rev: u64::from(failed)
        }
    );
    fs::write(Path::new(&dir).join("indeterminate"), failed.to_string()).unwrap();
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
