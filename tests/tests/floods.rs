//! Floods at the WebSocket door, from one machine and from tens of thousands of networks: memory stays flat,
//! nothing is written for strangers beyond their bounded requests, and whoever belongs here gets in meanwhile.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use creel_proto::identity::v1::RenameDeviceRequest;
use creel_tests::{
    Cluster,
    bed::{Bed, runtime},
    cluster::PATIENCE,
    door::{Device, Socket},
    netns::{self, Networks},
};
use serde_json::json;

/// Connections of a flood at once: more than one source may have, fewer than all together.
const LANES: u32 = 128;
/// Requests of strangers that wait at once, at most.
const MAX_WAITING: usize = 20;
/// What identity and the gateway may grow by over a flood, in KiB.
const MAX_GROWTH: u64 = 8 * 1_024;

#[derive(Debug, Clone, Copy)]
enum Flood {
    /// A signature that is wrong.
    BadProof,
    /// A nonce is asked for, and the connection dropped.
    Drop,
    /// A valid proof of a key nobody knows.
    Stranger,
}

/// What comes at least: bad proofs, nonces asked for and dropped, requests nobody asked for.
const FLOODS: [(u32, Flood); 3] = [
    (10_000, Flood::BadProof),
    (10_000, Flood::Drop),
    (1_000, Flood::Stranger),
];
/// Connections of a paired device in the midst of each flood.
const FRIENDS: u32 = 10;
/// Transactions of identity that are the test's own doing, or come by the minute, in one flood from far away.
const OWN_WRITES: u64 = 20;

/// Where a flood goes, and from where.
#[derive(Debug, Clone)]
struct Target {
    address: String,
    ca: PathBuf,
    /// Each connection from another host; else all from this one.
    far: bool,
}

/// Runs handshakes that come to nothing: so many at least, and more until it is `enough`; how many of them were
/// read to their end.
async fn flood(target: &Target, count: u32, kind: Flood, enough: &Arc<AtomicBool>) -> u32 {
    let next = Arc::new(AtomicU32::new(0));
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..LANES {
        let (target, next, enough) = (target.clone(), Arc::clone(&next), Arc::clone(enough));
        set.spawn(async move {
            let mut judged = 0;
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count && enough.load(Ordering::Relaxed) {
                    return judged;
                }
                judged += u32::from(one(&target, n, kind).await);
            }
        });
    }
    set.join_all().await.into_iter().sum()
}

async fn one(target: &Target, n: u32, kind: Flood) -> bool {
    let opened = if target.far {
        Socket::open_from(netns::host(n), &target.address, &target.ca).await
    } else {
        Socket::open(&target.address, &target.ca).await
    };
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

    /// Checks what a flood left behind: memory as it was, and no more transactions than that.
    fn flat_since(&self, before: &Self, most_writes: u64) {
        let grown = |before: u64, after: u64| after.saturating_sub(before);
        for (what, kib) in [
            ("gateway", grown(before.gateway_kib, self.gateway_kib)),
            ("identity", grown(before.identity_kib, self.identity_kib)),
        ] {
            assert!(kib < MAX_GROWTH, "{what} grew by {kib} KiB: {before:?} {self:?}");
        }
        let writes = self.revision - before.revision;
        assert!(
            writes <= most_writes,
            "{writes} transactions: {before:?} {self:?}"
        );
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

/// One who was invited comes in.
fn joins(cluster: &Cluster, name: &str) {
    let made = cluster
        .creel(&["devices", "invite", "--name", name, "--json"])
        .json();
    let home = cluster.home().parent().unwrap().join(name);
    std::fs::create_dir(&home).unwrap();
    let mut join = cluster.command("creel");
    join.env("CREEL_HOME", &home)
        .args(["join", made["code"].as_str().unwrap(), "--json"]);
    cluster.run(&mut join).ok();
}

#[test]
fn one_machine_that_floods_moves_nothing() {
    let bed = Bed::new();
    let target = Target {
        address: bed.address.clone(),
        ca: bed.ca.clone(),
        far: false,
    };
    runtime().block_on(async {
        let mut friend = Device::new(5, "operator", &["operator.read"]);
        let mut socket = bed.paired(&mut friend).await;
        let enough = Arc::new(AtomicBool::new(true));
        // Warm: what the first hundreds need, stays.
        flood(&target, 200, Flood::BadProof, &enough).await;
        let before = Measure::of(&bed, &friend, "before").await;
        let flooding = tokio::spawn(async move {
            for (count, kind) in FLOODS {
                flood(&target, count, kind, &enough).await;
            }
        });
        // A friend's connection is what it was all along.
        while !flooding.is_finished() {
            socket.call("health", json!({})).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        flooding.await.unwrap();
        // The requests that wait, each asked and later swept, refusals counted by the minute.
        let after = Measure::of(&bed, &friend, "after").await;
        after.flat_since(&before, 200);
        assert!(bed.waiting().await.len() <= MAX_WAITING);
        gets_in(&bed.address, &bed.ca, &friend).await;
    });
}

#[test]
fn floods_from_many_networks_move_nothing_and_keep_nobody_out() {
    let Some(networks) = Networks::make("floods_from_many_networks") else {
        return;
    };
    networks.near(|| {
        let listen = format!("{}:18789", netns::STACK);
        let names = format!("names = [\"{}\"]\n", netns::STACK);
        let bed = Bed::of(Cluster::new().config(&names).env("CREEL_LISTEN", &listen));
        let runtime = runtime();
        let mut friend = Device::new(5, "operator", &["operator.read"]);
        let mut socket = runtime.block_on(bed.paired(&mut friend));
        let enough = Arc::new(AtomicBool::new(true));
        let target = Target {
            address: bed.address.clone(),
            ca: bed.ca.clone(),
            far: true,
        };
        let run = |count, kind, enough: &Arc<AtomicBool>| {
            let far = || creel_tests::bed::runtime().block_on(flood(&target, count, kind, enough));
            networks.far(far)
        };
        assert_eq!(run(500, Flood::BadProof, &enough), 500, "to warm up");
        for (count, kind) in FLOODS {
            let before = runtime.block_on(Measure::of(&bed, &friend, &format!("before {kind:?}")));
            enough.store(false, Ordering::Relaxed);
            let judged = std::thread::scope(|scope| {
                let flooding = scope.spawn(|| run(count, kind, &enough));
                // All this happens while it is flooded: it goes on until told.
                joins(&bed.cluster, &format!("guest-{kind:?}"));
                for _ in 0..FRIENDS {
                    runtime.block_on(async {
                        gets_in(&bed.address, &bed.ca, &friend).await;
                        // What it says is the services' own matter, which have little of the machine now.
                        socket.call("health", json!({})).await.unwrap();
                    });
                }
                enough.store(true, Ordering::Relaxed);
                flooding.join().unwrap()
            });
            // They come from so many places that none is slowed down.
            assert!(
                judged >= count - count / 100,
                "{judged} of {count} {kind:?} were judged"
            );
            let after = runtime.block_on(Measure::of(&bed, &friend, &format!("after {kind:?}")));
            // The guest's invite and device, our own changes, and refusals counted by the minute; each is shipped.
            let waiting = runtime.block_on(bed.waiting()).len();
            let asked = match kind {
                Flood::BadProof | Flood::Drop => 0,
                Flood::Stranger => MAX_WAITING,
            };
            assert_eq!(waiting, asked, "{kind:?}");
            after.flat_since(&before, OWN_WRITES + asked as u64);
        }
    });
}

#[test]
fn hosts_far_away_are_of_many_networks() {
    let network = |n: u32| -> [u8; 3] { netns::host(n).octets()[..3].try_into().unwrap() };
    assert_eq!(netns::host(0), Ipv4Addr::new(10, 128, 0, 1));
    assert_eq!(netns::host(32_767), Ipv4Addr::new(10, 255, 255, 1));
    assert_ne!(network(0), network(1));
    assert_eq!(netns::host(32_768), Ipv4Addr::new(10, 128, 0, 2));
}
