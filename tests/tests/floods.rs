//! Floods at the WebSocket door from one machine: memory stays flat, nothing is written for strangers beyond
//! their bounded requests, and whoever belongs here gets in after.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use creel_proto::identity::v1::RenameDeviceRequest;
use creel_tests::{
    bed::{Bed, runtime},
    cluster::PATIENCE,
    door::{Device, Socket},
};
use serde_json::json;

/// Connections of a flood at once: more than one source may have, fewer than all together.
const LANES: u32 = 128;
/// Requests of strangers that wait at once, at most.
const MAX_WAITING: usize = 20;
/// What identity and the gateway may grow by over a flood, in KiB.
const MAX_GROWTH: u64 = 24 * 1_024;

#[derive(Debug, Clone, Copy)]
enum Flood {
    /// A signature that is wrong.
    BadProof,
    /// A nonce is asked for, and the connection dropped.
    Drop,
    /// A valid proof of a key nobody knows.
    Stranger,
}

/// Where a flood goes, and from where.
#[derive(Debug, Clone)]
struct Target {
    address: String,
    ca: PathBuf,
}

/// Runs so many handshakes that come to nothing; how many of them were read to their end.
async fn flood(target: &Target, count: u32, kind: Flood) -> u32 {
    let left = Arc::new(AtomicU32::new(count));
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..LANES {
        let (target, left) = (target.clone(), Arc::clone(&left));
        set.spawn(async move {
            let mut judged = 0;
            let next = |left: &AtomicU32| {
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            };
            while let Ok(n) = next(&left) {
                judged += u32::from(one(&target, n, kind).await);
            }
            judged
        });
    }
    let mut judged = 0;
    while let Some(done) = set.join_next().await {
        judged += done.unwrap();
    }
    judged
}

async fn one(target: &Target, n: u32, kind: Flood) -> bool {
    let opened = Socket::open(&target.address, &target.ca).await;
    // Refused before anything is parsed is refused, too.
    let Ok(mut socket) = opened else { return false };
    let Ok(challenge) = socket.next().await else {
        return false;
    };
    let device = Device::numbered(n, "operator", &["operator.read"]);
    let mut connect = device.connect(&challenge["payload"]);
    match kind {
        Flood::Drop => return true,
        Flood::Stranger => {}
        Flood::BadProof => connect["params"]["device"]["signature"] = json!("A".repeat(86)),
    }
    socket.send(&connect).await;
    let answer = socket.next().await.unwrap();
    assert_eq!(answer["ok"], false, "{answer}");
    true
}

/// Memory, writes and bytes of what a flood meets.
#[derive(Debug)]
struct Measure {
    gateway_kib: u64,
    identity_kib: u64,
    /// The revision of identity's store: one more for each transaction.
    revision: u64,
    bytes: u64,
}

impl Measure {
    async fn of(bed: &Bed, device: &Device, name: &str) -> Self {
        let state = bed.cluster.home().join("state/identity");
        let request = RenameDeviceRequest {
            request_id: name.to_owned(),
            device: device.id(),
            name: name.to_owned(),
            ..RenameDeviceRequest::default()
        };
        let renamed = bed.devices().rename(request).await.unwrap().into_inner();
        Self {
            gateway_kib: rss_kib(bed.cluster.pid_of("gateway")),
            identity_kib: rss_kib(bed.cluster.pid_of("identity")),
            revision: renamed.etag.parse().unwrap(),
            bytes: bytes_in(&state),
        }
    }

    /// Checks what a flood left behind.
    fn flat_since(&self, before: &Self) {
        let grown = |before: u64, after: u64| after.saturating_sub(before);
        for (what, kib) in [
            ("gateway", grown(before.gateway_kib, self.gateway_kib)),
            ("identity", grown(before.identity_kib, self.identity_kib)),
        ] {
            assert!(kib < MAX_GROWTH, "{what} grew by {kib} KiB: {before:?} {self:?}");
        }
        // The requests that wait, each asked and later swept, refusals counted by the minute, this and that of
        // those who got in: nothing that grows with the flood.
        let writes = self.revision - before.revision;
        assert!(writes < 200, "{writes} transactions: {before:?} {self:?}");
        let bytes = grown(before.bytes, self.bytes);
        assert!(bytes < 1 << 20, "{bytes} bytes: {before:?} {self:?}");
    }
}

/// Resident memory of a process, in KiB.
fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

fn bytes_in(dir: &Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        // A file of the engine may go while this looks.
        let Ok(meta) = entry.metadata() else { continue };
        sum += if meta.is_dir() {
            bytes_in(&entry.path())
        } else {
            meta.len()
        };
    }
    sum
}

/// A friend's proof is good, if it has to wait its turn.
async fn gets_in(address: &str, ca: &Path, friend: &Device) -> Socket {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Ok(mut socket) = Socket::open(address, ca).await {
            socket.prove(friend).await.unwrap();
            return socket;
        }
        assert!(Instant::now() < end, "a friend never gets in");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn all(target: &Target) -> u32 {
    flood(target, 10_000, Flood::BadProof).await
        + flood(target, 10_000, Flood::Drop).await
        + flood(target, 1_000, Flood::Stranger).await
}

#[test]
fn one_machine_that_floods_moves_nothing() {
    let bed = Bed::new();
    let target = Target {
        address: bed.address.clone(),
        ca: bed.ca.clone(),
    };
    runtime().block_on(async {
        let mut friend = Device::new(5, "operator", &["operator.read"]);
        let mut socket = bed.paired(&mut friend).await;
        // Warm: what the first hundreds need, stays.
        flood(&target, 200, Flood::BadProof).await;
        let before = Measure::of(&bed, &friend, "before").await;
        let flooding = tokio::spawn(async move { all(&target).await });
        // A friend's connection is what it was all along.
        while !flooding.is_finished() {
            socket.call("health", json!({})).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        flooding.await.unwrap();
        Measure::of(&bed, &friend, "after").await.flat_since(&before);
        assert!(bed.waiting().await.len() <= MAX_WAITING);
        gets_in(&bed.address, &bed.ca, &friend).await;
    });
}
