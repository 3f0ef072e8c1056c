//! What `kill -9` and damaged logs leave.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests; the exemption covers only the tests themselves"
)]

use creel_store::{Error, Key, KeyRange, Page, Store, Txn};
use creel_store_rocksdb::{Options, open};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

const DIR: &str = "CREEL_STORE_TEST_DIR";
const WRITERS: u64 = 8;

fn opened(path: &Path) -> Store {
    open(path, Options::default()).unwrap()
}

fn key(writer: u64, n: u64) -> Key {
    [creel_store::be(writer), creel_store::be(n)].concat().into()
}

/// Run by the test below in a process of its own, which is killed.
#[tokio::test]
#[ignore = "the process that kill_nine_loses_nothing kills"]
async fn child_that_commits() {
    let Ok(dir) = std::env::var(DIR) else { return };
    // Small buffers: kills also hit flushes and log switches.
    let store = open(
        Path::new(&dir),
        Options {
            write_buffer_mb: 1,
            ..Options::default()
        },
    )
    .unwrap();
    let writers = (0..WRITERS).map(|writer| {
        let store = store.clone();
        async move {
            for n in 0.. {
                let txn = Txn::new()
                    .expect_absent(key(writer, n))
                    .put(key(writer, n), vec![7; 2000]);
                let outcome = store
                    .commit(txn.put(Key::from("last"), n.to_string()))
                    .await
                    .unwrap();
                println!("acked {writer} {n} {}", outcome.rev());
            }
        }
    });
    futures_util::future::join_all(writers).await;
}

#[expect(
    clippy::disallowed_methods,
    reason = "a process to kill is the point; lib/sandbox is not below this crate"
)]
fn child(dir: &Path) -> std::process::Child {
    std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_commits", "--ignored", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn kill_nine_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = BTreeMap::new();
    for kill_after in [1, 40, 700, 2500] {
        let store_dir = dir.path().join(kill_after.to_string());
        let mut child = child(&store_dir);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        acked.clear();
        let mut line = String::new();
        // Goes on after the kill with what was printed before it; a last line without its end doesn't count.
        while lines.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
            if let Some((_, ack)) = line.split_once("acked ") {
                let numbers: Vec<u64> = ack.split_whitespace().map(|n| n.parse().unwrap()).collect();
                acked.insert((numbers[0], numbers[1]), numbers[2]);
                if acked.len() == kill_after {
                    child.kill().unwrap();
                }
            }
            line.clear();
        }
        child.wait().unwrap();
        assert!(acked.len() >= kill_after);

        let store = opened(&store_dir);
        for ((writer, n), rev) in &acked {
            let entry = store.get(&key(*writer, *n)).await.unwrap();
            let entry = entry.unwrap_or_else(|| panic!("{writer} {n}, answered at {rev}, is gone"));
            assert_eq!((entry.mod_rev, entry.value.len()), (*rev, 2000));
        }
        // No transaction is there by halves: the revision counts the puts, and `last` was written by the last.
        let last = store.get(&Key::from("last")).await.unwrap().unwrap();
        assert_eq!(last.mod_rev, store.latest_rev().await);
        let mut puts = 0;
        let mut rest = Some(KeyRange::new(key(0, 0), key(WRITERS, 0)));
        while let Some(range) = rest {
            let page = store.scan(range, Page::default()).await.unwrap();
            puts += page.entries.len() as u64;
            rest = page.next;
        }
        assert_eq!(puts, store.latest_rev().await);
    }
}

fn log(store: &Path) -> PathBuf {
    let files = fs::read_dir(store.join("db"))
        .unwrap()
        .map(|file| file.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|ext| ext == "log"))
        .max()
        .unwrap()
}

/// Ten commits, each across several blocks of the log; returns the lengths of the log after each, and the mark before the last.
async fn ten_commits(path: &Path) -> (Vec<usize>, Vec<u8>) {
    let store = opened(path);
    let (mut lengths, mut mark) = (Vec::new(), Vec::new());
    for n in 1..=10u64 {
        mark = fs::read(path.join("acked")).unwrap();
        store
            .commit(Txn::new().put(key(0, n), vec![n as u8; 20_000]))
            .await
            .unwrap();
        lengths.push(fs::metadata(log(path)).unwrap().len() as usize);
    }
    (lengths, mark)
}

async fn count(store: &Store) -> usize {
    store.scan_all(KeyRange::all(), 100).await.unwrap().entries.len()
}

/// What a power failure leaves of a write that was never answered: a part, or a part and noise.
#[tokio::test]
async fn a_torn_write_does_not_keep_the_store_from_opening() {
    type Tear = fn(&mut Vec<u8>, &[usize]);
    let tears: [(&str, Tear); 5] = [
        ("cut", |log, ends| log.truncate(ends[9] - 5)),
        ("cut in the header", |log, ends| log.truncate(ends[8] + 3)),
        ("noise", |log, ends| log[ends[9] - 40..].fill(0xa5)),
        ("zeros", |log, ends| log[ends[8] + 20..].fill(0)),
        ("only zeros", |log, ends| log[ends[8]..].fill(0)),
    ];
    for (name, tear) in tears {
        let dir = tempfile::tempdir().unwrap();
        let (ends, mark) = ten_commits(dir.path()).await;
        // The tenth was on its way: not answered, so not marked.
        fs::write(dir.path().join("acked"), &mark).unwrap();
        let mut bytes = fs::read(log(dir.path())).unwrap();
        tear(&mut bytes, &ends);
        fs::write(log(dir.path()), bytes).unwrap();
        let store = opened(dir.path());
        assert_eq!((count(&store).await, store.latest_rev().await), (9, 9), "{name}");
        store.commit(Txn::new().put(key(0, 10), "again")).await.unwrap();
        drop(store);
        assert_eq!(count(&opened(dir.path())).await, 10, "{name}");
    }
}

/// Noise after the last record costs nothing.
#[tokio::test]
async fn noise_after_the_log_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    ten_commits(dir.path()).await;
    let mut bytes = fs::read(log(dir.path())).unwrap();
    bytes.extend((0..50u8).map(|n| n.wrapping_mul(7)));
    fs::write(log(dir.path()), bytes).unwrap();
    assert_eq!(count(&opened(dir.path())).await, 10);
}

/// The same damage to answered commits is said, and only opened over when the owner decides so.
#[tokio::test]
async fn lost_answers_are_refused_with_the_way_on() {
    type Damage = fn(&mut Vec<u8>, &[usize]);
    let damages: [(usize, Damage); 3] = [
        (9, |log, ends| log.truncate(ends[9] - 5)),
        (9, |log, ends| log[ends[9] - 40..].fill(0xa5)),
        (4, |log, ends| log[ends[4] - 40..ends[4] - 20].fill(0xa5)),
    ];
    for (left, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let (ends, _) = ten_commits(dir.path()).await;
        let mut bytes = fs::read(log(dir.path())).unwrap();
        damage(&mut bytes, &ends);
        fs::write(log(dir.path()), bytes).unwrap();
        for _ in 0..2 {
            let err = open(dir.path(), Options::default()).unwrap_err();
            assert!(matches!(err, Error::Corrupt { .. }), "{err}");
            assert!(
                err.to_string()
                    .ends_with(&format!("committed revisions {}..=10 are missing", left + 1))
            );
            assert!(err.hint().unwrap().contains("acked"));
        }
        fs::remove_file(dir.path().join("acked")).unwrap();
        assert_eq!(count(&opened(dir.path())).await, left);
    }
}
