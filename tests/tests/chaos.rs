//! `kill -9` of every service in turn under a load of messages and a one-second job: nothing that was
//! acknowledged is lost, no run has two ids or two ends, and the stack is ready again by itself.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests start processes and read the clock; a test that cannot go on fails"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use creel_proto::{
    agent::v1::{GetTurnRequest, TurnState, turn_service_client::TurnServiceClient},
    gateway::v1::{SendMessageRequest, message_service_client::MessageServiceClient},
    scheduler::v1::{ListRunsRequest, RunState, run_service_client::RunServiceClient},
};
use creel_tests::{Cluster, edge, processes::wait_until};

const SERVICES: [&str; 4] = ["agent-runner", "scheduler", "gateway", "identity"];

fn kills() -> usize {
    std::env::var("CREEL_CHAOS_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(12)
}

/// Sends until told to stop; the ids of messages that were acknowledged, by request id.
async fn load(address: String, dir: std::path::PathBuf, stop: Arc<AtomicBool>) -> BTreeMap<String, String> {
    let mut acknowledged = BTreeMap::new();
    let channel = edge::channel(&address, &dir);
    let mut n = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        n += 1;
        let request_id = format!("load-{n}");
        // The same id again until it is acknowledged: an answer that was lost must not act twice.
        for _ in 0..400 {
            let send = SendMessageRequest {
                request_id: request_id.clone(),
                // Four at a time; new ones before the turns of one are so many that the oldest is forgotten.
                session: format!("load-{}-{}", n / 2_000, n % 4),
                text: format!("message {n}"),
                ..Default::default()
            };
            let mut request = tonic::Request::new(send);
            request.set_timeout(Duration::from_secs(5));
            if let Ok(answer) = MessageServiceClient::new(channel.clone()).send(request).await {
                acknowledged.insert(request_id, answer.into_inner().message_id);
                break;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
    acknowledged
}

#[test]
fn what_was_acknowledged_survives_kill9_of_every_service() {
    let mut cluster = Cluster::start();
    let dir = cluster.home().parent().unwrap().join("load");
    let scopes = ["--scope", "operator.read", "--scope", "operator.write"];
    let arguments = [
        &[
            "devices",
            "cert",
            "--name",
            "load",
            "--out",
            dir.to_str().unwrap(),
        ][..],
        &scopes,
    ]
    .concat();
    cluster.creel(&arguments).ok();
    cluster
        .creel(&["cron", "add", "tick", "--every", "1s", "--message", "tick"])
        .ok();

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let address = cluster.edge().address;
    let sending = runtime.spawn(load(address.clone(), dir.clone(), Arc::clone(&stop)));
    for round in 0..kills() {
        // Moments differ from round to round, and run differently each time.
        let jitter = u64::from(std::process::id()) * 31 + round as u64 * 137;
        std::thread::sleep(Duration::from_millis(100 + jitter % 400));
        cluster.kill9_and_wait(SERVICES[round % SERVICES.len()]);
    }
    stop.store(true, Ordering::SeqCst);
    let acknowledged = runtime.block_on(sending).unwrap();
    assert!(
        acknowledged.len() >= kills(),
        "the load ran: {}",
        acknowledged.len()
    );
    assert_eq!(
        acknowledged.values().collect::<BTreeSet<_>>().len(),
        acknowledged.len(),
        "one turn per message"
    );
    assert!(cluster.is_ready());
    assert_eq!(cluster.edge().address, address, "the edge stays where it was");

    runtime.block_on(async {
        let channel = edge::channel(&cluster.edge().address, &dir);
        let mut turns = TurnServiceClient::new(channel.clone());
        let terminal = |state: TurnState| {
            !matches!(
                state,
                TurnState::Accepted | TurnState::Running | TurnState::Unspecified
            )
        };
        for message in acknowledged.values() {
            let end = std::time::Instant::now() + Duration::from_secs(60);
            loop {
                let turn = turns
                    .get(GetTurnRequest {
                        turn_id: message.clone(),
                    })
                    .await
                    .expect("acknowledged, so there")
                    .into_inner();
                if terminal(turn.state()) {
                    break;
                }
                assert!(std::time::Instant::now() < end, "{turn:?} never ends");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        // Ready again by itself: the job goes on, however long the lease of a killed run holds it up.
        let succeeded = || {
            let runs = cluster.creel(&["cron", "runs", "--job", "tick", "--json"]).json();
            runs.as_array()
                .unwrap()
                .iter()
                .filter(|run| run["status"] == "succeeded")
                .count()
        };
        let before = succeeded();
        wait_until("the job goes on", Duration::from_secs(90), || {
            succeeded() >= before + 2
        });
        cluster.creel(&["cron", "pause", "tick"]).ok();
        let mut runs = RunServiceClient::new(channel);
        let mut seen = BTreeMap::new();
        let mut nominal = BTreeSet::new();
        let mut token = String::new();
        loop {
            let page = runs
                .list(ListRunsRequest {
                    job: "tick".into(),
                    page_size: 500,
                    page_token: token,
                    ..Default::default()
                })
                .await
                .unwrap()
                .into_inner();
            for run in page.runs {
                assert!(
                    seen.insert(run.run_id.clone(), run.state()).is_none(),
                    "a run id twice: {run:?}"
                );
                if run.state() != RunState::Skipped {
                    let at = run.nominal_at.unwrap();
                    assert!(
                        nominal.insert((at.seconds, at.nanos)),
                        "two runs of one instant: {run:?}"
                    );
                }
            }
            token = page.next_page_token;
            if token.is_empty() {
                break;
            }
        }
        assert!(
            seen.values()
                .filter(|state| **state == RunState::Succeeded)
                .count()
                >= 2,
            "{seen:?}"
        );
    });
}
