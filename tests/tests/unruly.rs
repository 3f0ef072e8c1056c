//! Jobs that flood their output or crash their worker, a hundred of each, and as many that hang as leave a worker
//! some room. Listing, adding, other jobs and the main session don't notice.
//!
//! `CREEL_UNRULY=1000` makes it a thousand of each, those that hang included, of a stack that is set up for that many
//! turns, and prints how long listing, adding and a turn of the main session take meanwhile, and how late others are:
//! a job that is due every second, and jobs that are made meanwhile.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests start processes and read the clock; a test that cannot go on fails"
)]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use creel_proto::{
    scheduler::v1::{
        AgentTurnPayload, Alert, At, CreateJobRequest, Delivery, JobSpec, ListJobsRequest, ListRunsRequest,
        NoDelivery, Payload, Policy, RunState, Schedule, at::When, delivery,
        job_service_client::JobServiceClient, payload, run_service_client::RunServiceClient, schedule,
    },
    time::{duration, timestamp},
};
use creel_tests::{Cluster, edge, processes::wait_until};
use tonic::transport::Channel;

/// A hundred of each take a minute on two cores; a thousand are many more processes.
fn patience() -> Duration {
    Duration::from_secs(if count() > 100 { 1_500 } else { 240 })
}

/// Programs instead of a model. `yes` writes as fast as it is read, here 4 KiB a line.
fn config() -> String {
    format!(
        r#"
[agent]
max_running_turns = {}
max_waiting_turns = 4096
[backends.hang]
kind = "command"
argv = ["sleep", "1000000"]
[backends.flood]
kind = "command"
argv = ["yes", '{{"type":"delta","text":"{}"}}']
[backends.crash]
kind = "command"
argv = ["sh", "-c", "kill -SEGV $$"]
"#,
        turns(),
        "more ".repeat(800)
    )
}

fn count() -> usize {
    std::env::var("CREEL_UNRULY")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(100)
}

/// Turns at once: the default, or the most that can be set.
fn turns() -> usize {
    if count() > 100 { 1_024 } else { 64 }
}

/// Whether figures are asked for.
fn told() -> bool {
    std::env::var_os("CREEL_UNRULY").is_some()
}

/// How many hang. Where nobody looks at figures, of the runs that agent-runner takes at once, three quarters of its
/// turns, a third stays for others, so that nobody has to wait for a timeout.
fn hanging() -> usize {
    if told() { count() } else { count().min(turns() / 2) }
}

/// How long a job's run may take. What hangs outlives the test, or most of it; what floods is ended by its limits, at
/// the latest by this one.
fn timeout_ms(backend: &str) -> Option<i64> {
    match backend {
        "hang" => told().then_some(300_000),
        _ => Some(30_000),
    }
}

fn spec(backend: &str, number: usize, at_ms: i64) -> JobSpec {
    let turn = AgentTurnPayload {
        message: "go".into(),
        backend: backend.into(),
        timeout: None,
    };
    JobSpec {
        name: format!("{backend}-{number}"),
        schedule: Some(Schedule {
            kind: Some(schedule::Kind::At(At {
                when: Some(When::Time(timestamp(at_ms))),
            })),
        }),
        target: "main".into(),
        payload: Some(Payload {
            kind: Some(payload::Kind::AgentTurn(turn)),
        }),
        policy: Some(Policy {
            timeout: timeout_ms(backend).map(duration),
            alert: Some(Alert {
                off: true,
                ..Alert::default()
            }),
            ..Policy::default()
        }),
        delivery: Some(Delivery {
            to: Some(delivery::To::None(NoDelivery {})),
        }),
        ..JobSpec::default()
    }
}

/// Runs of the unruly jobs by backend and state.
async fn states(channel: &Channel) -> BTreeMap<(String, RunState), usize> {
    let mut client = RunServiceClient::new(channel.clone());
    let (mut states, mut page_token) = (BTreeMap::new(), String::new());
    loop {
        let request = ListRunsRequest {
            page_size: 500,
            page_token,
            ..ListRunsRequest::default()
        };
        let page = match client.list(request.clone()).await {
            Ok(page) => page,
            // The edge ended a connection on which nothing was said for long; the next call makes a new one.
            Err(_) => client.list(request).await.unwrap(),
        };
        let page = page.into_inner();
        for run in page.runs {
            if let Some((backend, _)) = run.job_name.rsplit_once('-') {
                *states.entry((backend.to_owned(), run.state())).or_insert(0) += 1;
            }
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return states;
        }
    }
}

/// Prints how long things take while jobs hang, flood and crash; nothing depends on it.
fn measure(cluster: &Cluster, runtime: &tokio::runtime::Runtime, channel: &Channel) {
    let timed = |mut act: Box<dyn FnMut(usize) + '_>, times: usize| {
        let mut took: Vec<Duration> = (0..times)
            .map(|n| {
                let began = Instant::now();
                act(n);
                began.elapsed()
            })
            .collect();
        took.sort();
        (took[times / 2], took[times * 99 / 100])
    };
    let list = |_| {
        let mut client = JobServiceClient::new(channel.clone());
        runtime.block_on(client.list(ListJobsRequest::default())).unwrap();
    };
    let add = |n| {
        let mut client = JobServiceClient::new(channel.clone());
        let request = CreateJobRequest {
            spec: Some(spec("echo", n, 4_000_000_000_000)),
            ..CreateJobRequest::default()
        };
        runtime.block_on(client.create(request)).unwrap();
    };
    let send = |n| {
        let text = format!("hello {n}");
        assert_eq!(
            cluster.creel(&["send", &text]).ok().trim(),
            format!("echo: {text}")
        );
    };
    eprintln!("states: {:?}", runtime.block_on(states(channel)));
    eprintln!("(p50, p99) of a list: {:?}", timed(Box::new(list), 300));
    eprintln!("(p50, p99) of an add: {:?}", timed(Box::new(add), 200));
    eprintln!(
        "(p50, p99) of a turn of the main session, with its process: {:?}",
        timed(Box::new(send), 30)
    );
}

/// Prints how late the runs of other jobs begin.
fn lateness(cluster: &Cluster, jobs: &[String]) {
    let late = |run: &serde_json::Value| Some(run["startedAtMs"].as_i64()? - run["nominalAtMs"].as_i64()?);
    let mut all = Vec::new();
    for job in jobs {
        let runs = cluster
            .creel(&["cron", "runs", "--job", job, "-n", "500", "--json"])
            .json();
        all.extend(runs.as_array().unwrap().iter().filter_map(late));
    }
    all.sort_unstable();
    let at = |part: usize| all.get(all.len() * part / 100).copied();
    eprintln!(
        "lateness of the start of {} and such, ms: p50 {:?}, p99 {:?}, worst {:?}, of {}",
        jobs[0],
        at(50),
        at(99),
        all.last(),
        all.len()
    );
}

#[test]
fn jobs_that_hang_flood_and_crash_disturb_nobody() {
    let mut cluster = Cluster::new().config(&config());
    cluster.up();
    let dir = cluster.home().parent().unwrap().join("script");
    let scopes = ["--scope", "operator.read", "--scope", "operator.write"];
    let cert = [
        "devices",
        "cert",
        "--name",
        "unruly",
        "--out",
        dir.to_str().unwrap(),
    ];
    cluster.creel(&[&cert[..], &scopes].concat()).ok();
    let pids = ["scheduler", "agent-runner", "gateway"].map(|service| cluster.pid_of(service));

    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (count, channel) = (count(), {
        let _inside = runtime.enter();
        edge::channel(&cluster.edge().address, &dir)
    });
    runtime.block_on(async {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let mut jobs = JobServiceClient::new(channel.clone());
        for (backend, count) in [("hang", hanging()), ("flood", count), ("crash", count)] {
            for number in 0..count {
                let request = CreateJobRequest {
                    spec: Some(spec(
                        backend,
                        number,
                        i64::try_from(now.as_millis()).unwrap() + 3_000,
                    )),
                    late_ok: true,
                    ..CreateJobRequest::default()
                };
                jobs.create(request).await.unwrap();
            }
        }
    });
    let states = || runtime.block_on(states(&channel));
    let of = |backend: &str, state| states().get(&(backend.to_owned(), state)).copied().unwrap_or(0);
    wait_until("all that hang do", patience(), || {
        of("hang", RunState::Running) >= hanging().min(turns() / 2)
    });

    // While they hang, and while others flood and crash:
    cluster
        .creel(&[
            "cron",
            "add",
            "other",
            "--every",
            "1s",
            "--message",
            "tick",
            "--deliver",
            "none",
        ])
        .ok();
    let answer = cluster.creel(&["send", "hello"]);
    assert_eq!(answer.ok().trim(), "echo: hello", "the main session answers");
    let listed = cluster.creel(&["cron", "list", "--json"]).json();
    assert!(listed.as_array().unwrap().len() > count, "all are listed");
    let succeeded = || {
        let runs = cluster
            .creel(&[
                "cron",
                "runs",
                "--job",
                "other",
                "--status",
                "succeeded",
                "-n",
                "500",
                "--json",
            ])
            .json();
        runs.as_array().unwrap().len()
    };
    let mut others = 3;
    if told() {
        measure(&cluster, &runtime, &channel);
        let fresh: Vec<_> = (0..20).map(|n| format!("fresh-{n}")).collect();
        for job in &fresh {
            let text = ["--message", "tick", "--deliver", "none"];
            cluster
                .creel(&[&["cron", "add", job, "--every", "1h"], &text[..]].concat())
                .ok();
            cluster.creel(&["cron", "run", job]).ok();
        }
        others = 100;
        wait_until("another job runs often", patience(), || succeeded() >= others);
        lateness(&cluster, &["other".to_owned()]);
        lateness(&cluster, &fresh);
        eprintln!("states: {:?}", states());
    }
    wait_until("another job runs", patience(), || succeeded() >= others);

    // On a machine that is slow enough they are ended by their timeout before their end is seen.
    let ended = |backend: &str| of(backend, RunState::Failed) + of(backend, RunState::TimedOut);
    for backend in ["crash", "flood"] {
        wait_until(&format!("all that {backend} have failed"), patience(), || {
            ended(backend) == count
        });
    }
    if told() {
        wait_until("all that hang are timed out", patience(), || {
            ended("hang") == count
        });
    } else {
        assert_eq!(
            of("hang", RunState::Running),
            hanging(),
            "nobody ended those that hang"
        );
    }
    let after = ["scheduler", "agent-runner", "gateway"].map(|service| cluster.pid_of(service));
    assert_eq!(pids, after, "no service fell over");
    eprintln!("{:?}", states());
}
