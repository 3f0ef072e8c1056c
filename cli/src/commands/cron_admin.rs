//! `creel cron backfill`, and the scheduler itself: `creel cron status`, `creel cron accept-clock`.

use creel_proto::scheduler::v1::{
    AcceptClockRequest, BackfillJobRequest, ClockState, SchedulerStatus, StatusRequest, WorkKind,
};
use serde::Serialize;
use serde_json::json;

use crate::{
    context::Context,
    failure::Failure,
    stubs, times,
    times::Local,
    views::{
        at, at_ms,
        job::{BackfillView, JobView},
        lasting_ms, word,
    },
};

#[derive(Debug, Serialize)]
struct BackfilledView {
    #[serde(flatten)]
    backfill: Option<BackfillView>,
    job: Option<JobView>,
}

pub(super) async fn backfill(context: &mut Context, request: BackfillJobRequest) -> Result<(), Failure> {
    let client = context.client().await?;
    let answer = client
        .call(&request, |channel, request| async move {
            stubs::jobs(channel).backfill(request).await
        })
        .await?;
    if context.out.is_json() {
        return context.out.json(&BackfilledView {
            backfill: answer.backfill.as_ref().map(BackfillView::from),
            job: answer.job.as_ref().map(JobView::from),
        });
    }
    if request.validate_only {
        context.out.note("dry run: nothing was written");
    }
    let local = context.local();
    let fill = answer.backfill.unwrap_or_default();
    let (from, until) = (
        local.show_opt(at_ms(fill.from.as_ref())),
        local.show_opt(at_ms(fill.until.as_ref())),
    );
    let job = &request.job;
    let line = if request.stop {
        format!(
            "{job}: backfill ended with {} of {} started",
            fill.admitted, fill.total
        )
    } else {
        format!(
            "{job}: {} run{} from {from} to {until}, {} at once",
            fill.total,
            if fill.total == 1 { "" } else { "s" },
            fill.at_once
        )
    };
    context.out.line(&line)?;
    if !request.stop && !request.validate_only {
        context.out.note(&format!("next: creel cron tail {job}"));
    }
    Ok(())
}

/// See [`SchedulerStatus`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusView {
    clock: String,
    clock_since: Option<String>,
    clock_since_ms: Option<i64>,
    clock_jump_ms: Option<i64>,
    now: Option<String>,
    now_ms: Option<i64>,
    jobs: u64,
    invalid_jobs: Vec<String>,
    runs_waiting: u64,
    runs_with_workers: u64,
    runs_parked: u64,
    workers: Vec<WorkerView>,
    zone_data_version: String,
    catch_up_from: Option<String>,
    catch_up_from_ms: Option<i64>,
    next_due_at: Option<String>,
    next_due_at_ms: Option<i64>,
}

#[derive(Debug, Serialize)]
struct WorkerView {
    instance: String,
    kinds: Vec<String>,
    capacity: u32,
    holding: u32,
}

impl From<&SchedulerStatus> for StatusView {
    fn from(status: &SchedulerStatus) -> Self {
        let workers = status.workers.iter().map(|worker| WorkerView {
            instance: worker.instance.clone(),
            kinds: worker
                .kinds()
                .map(|kind: WorkKind| word(kind.as_str_name(), "WORK_KIND_"))
                .collect(),
            capacity: worker.capacity,
            holding: worker.holding,
        });
        Self {
            clock: word(status.clock().as_str_name(), "CLOCK_STATE_"),
            clock_since: at(status.clock_since.as_ref()),
            clock_since_ms: at_ms(status.clock_since.as_ref()),
            clock_jump_ms: lasting_ms(status.clock_jump.as_ref()),
            now: at(status.now.as_ref()),
            now_ms: at_ms(status.now.as_ref()),
            jobs: status.jobs,
            invalid_jobs: status.invalid_jobs.clone(),
            runs_waiting: status.runs_waiting,
            runs_with_workers: status.runs_with_workers,
            runs_parked: status.runs_parked,
            workers: workers.collect(),
            zone_data_version: status.zone_data_version.clone(),
            catch_up_from: at(status.catch_up_from.as_ref()),
            catch_up_from_ms: at_ms(status.catch_up_from.as_ref()),
            next_due_at: at(status.next_due_at.as_ref()),
            next_due_at_ms: at_ms(status.next_due_at.as_ref()),
        }
    }
}

pub(super) async fn status(context: &mut Context) -> Result<(), Failure> {
    let client = context.client().await?;
    let status = client
        .call(&StatusRequest {}, |channel, request| async move {
            stubs::scheduler(channel).status(request).await
        })
        .await?;
    let view = StatusView::from(&status);
    if context.out.is_json() {
        return context.out.json(&view);
    }
    let local = context.local();
    for (name, value) in facts(&view, status.clock(), &local) {
        context.out.line(&format!("{name:<12}{value}"))?;
    }
    if status.clock() == ClockState::Suspect {
        context
            .out
            .note("nothing fires by this clock; next: set it right, or creel cron accept-clock");
    }
    Ok(())
}

fn facts(view: &StatusView, clock: ClockState, local: &Local) -> Vec<(&'static str, String)> {
    let jumped = view
        .clock_jump_ms
        .filter(|_| clock != ClockState::Trusted)
        .map(|ms| {
            let way = if ms < 0 { "back" } else { "forward" };
            let since = local.show_opt(view.clock_since_ms);
            let by = times::took(i64::try_from(ms.unsigned_abs()).unwrap_or(i64::MAX));
            format!(": set {way} by {by}, seen {since}")
        });
    let mut facts = vec![
        ("clock", format!("{}{}", view.clock, jumped.unwrap_or_default())),
        ("jobs", view.jobs.to_string()),
        (
            "next due",
            view.next_due_at_ms.map_or_else(
                || "-".to_owned(),
                |ms| format!("{} ({})", local.show_seconds(ms), local.distance(ms)),
            ),
        ),
        (
            "runs",
            format!(
                "{} waiting, {} with workers, {} parked",
                view.runs_waiting, view.runs_with_workers, view.runs_parked
            ),
        ),
    ];
    if view.workers.is_empty() {
        facts.push(("workers", "none: nothing runs until one attaches".to_owned()));
    }
    facts.extend(view.workers.iter().map(|worker| {
        let what = format!(
            "{}: {} of {}",
            worker.kinds.join(", "),
            worker.holding,
            worker.capacity
        );
        ("worker", what)
    }));
    if !view.invalid_jobs.is_empty() {
        facts.push(("unreadable", view.invalid_jobs.join(", ")));
    }
    if let Some(from) = view.catch_up_from_ms {
        facts.push(("catch-up", format!("held until {}", local.show_seconds(from))));
    }
    facts.push(("zone data", view.zone_data_version.clone()));
    facts
}

pub(super) async fn accept_clock(
    context: &mut Context,
    request_id: String,
    validate_only: bool,
) -> Result<(), Failure> {
    let yes = context.global.yes || validate_only;
    context
        .out
        .confirm(yes, "Is the clock of this machine right? Jobs will run by it.")?;
    let request = AcceptClockRequest {
        request_id,
        validate_only,
    };
    let client = context.client().await?;
    let answer = client
        .call(&request, |channel, request| async move {
            stubs::scheduler(channel).accept_clock(request).await
        })
        .await?;
    if context.out.is_json() {
        return context.out.json(&json!({ "jobsMoved": answer.jobs_moved }));
    }
    if validate_only {
        context.out.note("dry run: nothing was written");
    }
    context.out.line(&format!(
        "the clock is accepted; {} jobs began anew",
        answer.jobs_moved
    ))
}

#[cfg(test)]
mod tests {
    use creel_proto::{
        scheduler::v1::WorkerStatus,
        time::{duration, timestamp},
    };

    use super::*;
    use crate::times::tests::berlin;

    #[test]
    fn a_suspect_clock_and_missing_workers_are_said() {
        let status = SchedulerStatus {
            clock: ClockState::Suspect.into(),
            clock_since: Some(timestamp(1_795_341_600_000)),
            clock_jump: Some(duration(-7_200_000)),
            jobs: 3,
            invalid_jobs: vec!["x".into()],
            runs_waiting: 2,
            zone_data_version: "2026f".into(),
            ..SchedulerStatus::default()
        };
        let view = StatusView::from(&status);
        let told: Vec<String> = facts(&view, ClockState::Suspect, &berlin())
            .into_iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        assert_eq!(
            told,
            [
                "clock: suspect: set back by 2h00m, seen Sun 22 Nov 11:00 CET",
                "jobs: 3",
                "next due: -",
                "runs: 2 waiting, 0 with workers, 0 parked",
                "workers: none: nothing runs until one attaches",
                "unreadable: x",
                "zone data: 2026f",
            ]
        );
        let well = SchedulerStatus {
            clock: ClockState::Trusted.into(),
            workers: vec![WorkerStatus {
                instance: "i".into(),
                kinds: vec![WorkKind::AgentTurn.into(), WorkKind::SystemEvent.into()],
                capacity: 4,
                holding: 1,
            }],
            ..SchedulerStatus::default()
        };
        let facts = facts(&StatusView::from(&well), ClockState::Trusted, &berlin());
        assert_eq!(facts[0].1, "trusted");
        assert_eq!(
            facts[4],
            ("worker", "agent_turn, system_event: 1 of 4".to_owned())
        );
    }
}
