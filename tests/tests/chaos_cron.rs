//! The scheduler under `kill -9` and with a damaged store, against a model that knows every occurrence.
//!
//! `CREEL_CHAOS_KILLS` says how many kills (12 in `make test`, 200 in `make chaos`), `CREEL_CHAOS_SEED` repeats
//! the moments of a run.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "tests start processes and read the clock; a test that cannot go on fails"
)]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use creel_proto::{
    scheduler::v1::{GetJobRequest, job_service_client::JobServiceClient},
    scheduler::v1::{Job, JobRecord, ListRunsRequest, Run, RunState, run_service_client::RunServiceClient},
    time::unix_ms,
};
use creel_tests::{
    Cluster, edge,
    occurrences::{Grid, account},
    processes::wait_until,
};
use creel_wire::ServiceName;
use prost::Message as _;

/// 2026-01-01, on whole seconds.
const ANCHOR: &str = "2026-01-01T00:00:00Z";
const ANCHOR_MS: i64 = 1_767_225_600_000;

/// How long the last runs may take to end: a lost worker's lease is 30 s.
const SETTLE: Duration = Duration::from_secs(150);

/// A turn that takes long enough to be killed in the middle.
const SLOW: &str = r#"
[agent]
max_running_turns = 256
backend = "slow"
[backends.slow]
kind = "command"
argv = ["sh", "-c", "sleep 0.4; echo '{\"type\":\"final\",\"text\":\"ok\"}'"]
"#;

const JOBS: [(&str, i64); 3] = [("one", 1_000), ("two", 2_000), ("three", 3_000)];

fn kills() -> usize {
    std::env::var("CREEL_CHAOS_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(12)
}

/// A small generator, so that a run can be repeated.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let given = std::env::var("CREEL_CHAOS_SEED")
            .ok()
            .and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            now.as_secs() ^ u64::from(std::process::id()) << 32
        });
        eprintln!("CREEL_CHAOS_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// A stack, and a certificate to ask it with.
struct Bed {
    cluster: Cluster,
    dir: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Bed {
    fn start() -> Self {
        let mut cluster = Cluster::new().config(SLOW);
        cluster.up();
        let dir = cluster.home().parent().unwrap().join("script");
        let out = dir.to_str().unwrap();
        let scopes = ["--scope", "operator.read", "--scope", "operator.write"];
        cluster
            .creel(&[&["devices", "cert", "--name", "chaos", "--out", out][..], &scopes].concat())
            .ok();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Self {
            cluster,
            dir,
            runtime,
        }
    }

    /// A job whose every occurrence must have a run of its own: nothing is left out, nothing backs off.
    fn add(&self, name: &str, period_ms: i64) {
        let every = format!("{period_ms}ms");
        let rules = [
            "cron",
            "add",
            name,
            "--every",
            &every,
            "--anchor",
            ANCHOR,
            "--message",
            "tick",
            "--deliver",
            "none",
            "--if-missed",
            "all",
            "--window",
            "1h",
            "--overlap",
            "allow",
            "--overlap-max",
            "1000",
            "--retries",
            "1",
            "--backoff",
            "0s",
            "--quarantine-after",
            "1000",
            "--no-alert",
            "--keep-runs",
            "10000",
        ];
        self.cluster.creel(&rules).ok();
    }

    fn job(&self, name: &str) -> Job {
        let (address, dir) = (self.cluster.edge().address, &self.dir);
        self.runtime.block_on(async {
            let mut jobs = JobServiceClient::new(edge::channel(&address, dir));
            let request = GetJobRequest { job: name.into() };
            jobs.get(request).await.unwrap().into_inner()
        })
    }

    /// The whole log of a job, newest first.
    fn runs(&self, job: &str, state: RunState) -> Vec<Run> {
        let (address, dir) = (self.cluster.edge().address, &self.dir);
        self.runtime.block_on(async {
            let mut client = RunServiceClient::new(edge::channel(&address, dir));
            let (mut runs, mut page_token) = (Vec::new(), String::new());
            loop {
                let request = ListRunsRequest {
                    job: job.into(),
                    state: state.into(),
                    page_size: 500,
                    page_token,
                };
                let page = client.list(request).await.unwrap().into_inner();
                runs.extend(page.runs);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    return runs;
                }
            }
        })
    }

    /// Waits until a job has been given an occurrence at or after this instant.
    fn wait_for(&self, job: &str, at_ms: i64) {
        wait_until(&format!("{job} goes on"), SETTLE, || {
            let newest = self
                .cluster
                .creel(&["cron", "runs", "--job", job, "--limit", "1", "--json"])
                .json();
            newest[0]["nominalAtMs"]
                .as_i64()
                .is_some_and(|nominal| nominal >= at_ms)
        });
    }

    /// Pauses a job, waits until its runs are over, and lays its log over the model.
    #[track_caller]
    fn settle(&self, job: &str, period_ms: i64, until_ms: i64) {
        self.wait_for(job, until_ms);
        self.cluster.creel(&["cron", "pause", job]).ok();
        wait_until(&format!("the runs of {job} end"), SETTLE, || {
            [
                RunState::Pending,
                RunState::Dispatched,
                RunState::Running,
                RunState::Stuck,
            ]
            .iter()
            .all(|state| {
                self.runs(job, *state)
                    .iter()
                    .all(creel_tests::occurrences::is_over)
            })
        });
        let created_ms = self.job(job).created_at.as_ref().map(unix_ms).unwrap();
        let grid = Grid {
            anchor_ms: ANCHOR_MS,
            period_ms,
        };
        match account(grid, created_ms, until_ms, &self.runs(job, RunState::Unspecified)) {
            Ok(account) => eprintln!("{job}: {account:?}"),
            Err(wrong) => panic!("{job}: {} breaches:\n{}", wrong.len(), wrong.join("\n")),
        }
    }

    /// The database of the scheduler.
    fn store(&self) -> PathBuf {
        self.cluster.profile.state(ServiceName::Scheduler).join("db")
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

#[test]
fn no_occurrence_is_lost_or_doubled_by_kill9_of_scheduler_and_worker() {
    let mut random = Random::new();
    let mut bed = Bed::start();
    for (name, period_ms) in JOBS {
        bed.add(name, period_ms);
    }
    for _ in 0..kills() {
        std::thread::sleep(Duration::from_millis(random.below(1_200)));
        let victims: &[&str] = match random.below(3) {
            0 => &["scheduler"],
            1 => &["agent-runner"],
            _ => &["scheduler", "agent-runner"],
        };
        bed.cluster.kill9_all_and_wait(victims);
    }
    // All that was due while something was down is asked for, too.
    let until_ms = now_ms();
    for (name, period_ms) in JOBS {
        bed.settle(name, period_ms, until_ms);
    }
}

/// A directory under which nothing can be written while this lives: a read-only mount of itself.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn cover(dir: &Path) -> Option<Self> {
        let mount = |arguments: &[&str]| {
            let done = Command::new("mount").args(arguments).arg(dir).output();
            done.is_ok_and(|output| output.status.success())
        };
        if !mount(&["--bind", dir.to_str()?]) {
            return None;
        }
        let covered = Self(dir.to_owned());
        mount(&["-o", "remount,bind,ro"]).then_some(covered)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

#[test]
fn a_read_only_disk_is_told_given_up_on_without_a_loop_and_costs_nothing() {
    let bed = Bed::start();
    bed.add("one", 1_000);
    bed.wait_for("one", now_ms() + 1_000);
    let state = bed.cluster.profile.state(ServiceName::Scheduler);
    let Some(cover) = ReadOnly::cover(&state) else {
        eprintln!("SKIPPED: a read-only disk, since nothing can be mounted here; nothing was tested");
        return;
    };
    creel_tests::processes::kill9(bed.cluster.pid_of("scheduler"));
    let shown = || {
        let status = bed.cluster.status();
        let one = status.and_then(|status| status.services.into_iter().find(|one| one.name == "scheduler"));
        one.unwrap_or_else(|| panic!("no scheduler in status.json"))
    };
    wait_until("it is given up", SETTLE, || shown().state == "failed");
    let told = format!("{}\n{}", shown().detail, bed.cluster.said()).to_lowercase();
    assert!(told.contains("read-only file system"), "{told}");
    // Given up, it is left alone; the rest goes on.
    let restarts = shown().restarts;
    bed.cluster.creel(&["send", "hello"]).ok();
    assert_eq!(shown().restarts, restarts);

    drop(cover);
    creel_tests::processes::signal(bed.cluster.supervisor_pid(), rustix::process::Signal::HUP);
    wait_until("it is there again", SETTLE, || shown().state == "ready");
    let until_ms = now_ms();
    bed.settle("one", 1_000, until_ms);
}

#[test]
fn a_torn_log_costs_nothing_and_a_cut_one_is_told() {
    let mut bed = Bed::start();
    bed.add("one", 1_000);
    bed.wait_for("one", now_ms() + 1_000);

    // A batch whose write a power failure cut short: a header that promises more than follows.
    bed.cluster.kill9_stack();
    let log = newest_log(&bed.store());
    let mut torn = fs::OpenOptions::new().append(true).open(&log).unwrap();
    torn.write_all(&[0x13, 0x57, 0x9b, 0xdf, 0x00, 0x02, 0x01])
        .unwrap();
    torn.write_all(&[0xa5; 100]).unwrap();
    drop(torn);
    bed.cluster.up();
    let until_ms = now_ms() + 1_000;
    bed.settle("one", 1_000, until_ms);

    // What was answered is gone from the log: that is no torn write, and must not pass for one.
    bed.cluster
        .creel(&["cron", "add", "late", "--every", "1h", "--message", "m"])
        .ok();
    bed.cluster.kill9_stack();
    let whole = bed.cluster.home().join("whole");
    copy_dir(&bed.store(), &whole);
    let log = newest_log(&bed.store());
    let length = fs::metadata(&log).unwrap().len();
    let cut = fs::OpenOptions::new().write(true).open(&log).unwrap();
    cut.set_len(length - 40).unwrap();
    drop(cut);
    bed.cluster.spawn_up();
    wait_until("the scheduler refuses", Duration::from_secs(60), || {
        bed.cluster.said().contains("committed revisions")
            || bed.cluster.status().is_some_and(|status| {
                status
                    .services
                    .iter()
                    .any(|one| one.detail.contains("committed revisions"))
            })
    });
    bed.cluster.kill9_stack();

    // Nothing was made worse by the refusal.
    fs::remove_dir_all(bed.store()).unwrap();
    copy_dir(&whole, &bed.store());
    bed.cluster.up();
    assert_eq!(
        bed.cluster.creel(&["cron", "show", "late", "--json"]).json()["name"],
        "late"
    );
}

#[test]
fn one_unreadable_job_costs_nothing_else() {
    let mut bed = Bed::start();
    bed.add("good", 1_000);
    bed.add("bad", 1_000);
    bed.wait_for("good", now_ms() + 1_000);
    assert_eq!(bed.cluster.stop(), 0);
    bed.runtime.block_on(damage(&bed.store(), "bad"));
    bed.cluster.up();
    let until_ms = now_ms() + 2_000;
    bed.wait_for("good", until_ms);
    let jobs = bed.cluster.creel(&["cron", "list", "--json"]).json();
    let phases: Vec<&str> = jobs
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|job| job["phase"].as_str())
        .collect();
    assert_eq!(jobs.as_array().unwrap().len(), 2, "{jobs}");
    assert_eq!(
        phases.iter().filter(|phase| **phase == "quarantined").count(),
        1,
        "{jobs}"
    );
    let told = bed.cluster.creel(&["cron", "status", "--json"]).json();
    let invalid = told["invalidJobs"].as_array().unwrap();
    assert_eq!(invalid.len(), 1, "{told}");
    // It can be thrown away by its id, and made anew.
    let id = invalid[0].as_str().unwrap().to_owned();
    bed.cluster.creel(&["cron", "rm", &id, "--yes"]).ok();
    bed.add("bad", 1_000);
    bed.wait_for("bad", now_ms());
    bed.settle("good", 1_000, until_ms);
}

/// Writes nonsense over the record of a job, in a store that nobody has open.
async fn damage(store: &Path, name: &str) {
    let store = creel_store_rocksdb::open(store, creel_store_rocksdb::Options::default()).unwrap();
    let range = creel_store::kinds::range_of(*b"jb", [] as [&[u8]; 0]);
    let page = store.scan(range, creel_store::Page::default()).await.unwrap();
    let entry = page
        .entries
        .into_iter()
        .find(|entry| {
            JobRecord::decode(entry.value.clone())
                .is_ok_and(|record| record.spec.is_some_and(|spec| spec.name == name))
        })
        .expect("the job's record");
    let nonsense = creel_store::Txn::new().put(entry.key, vec![0xff_u8; 40]);
    assert!(store.commit(nonsense).await.unwrap().is_committed());
}

/// The write-ahead log that was written last.
fn newest_log(store: &Path) -> PathBuf {
    let mut logs = Vec::new();
    find_logs(store, &mut logs);
    logs.sort();
    logs.pop().expect("a write-ahead log").1
}

fn find_logs(dir: &Path, into: &mut Vec<(u64, PathBuf)>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find_logs(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "log")
            && let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok())
        {
            into.push((number, path));
        }
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
