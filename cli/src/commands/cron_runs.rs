//! `creel cron run`, `runs`, `tail`, `cancel`, `reset`: occurrences of jobs, asked for, looked at, ended.

use creel_proto::scheduler::v1::{
    CancelRunRequest, ListRunsRequest, ResetRunRequest, Run, RunState, TriggerJobRequest,
};
use creel_wire::{Code, Error};

use super::{
    PAGE,
    cron_follow::{self, Shown, end_of},
};
use crate::{
    args::cron::RunStatus,
    client::Client,
    context::Context,
    failure::Failure,
    stubs, times,
    times::Local,
    views::run::{RunView, duration_ms, is_over, status},
};

/// How many runs of all jobs are looked through for those of one that was deleted.
const LOOK_BACK: u32 = 2_000;

const HEADER: [&str; 6] = ["DUE", "JOB", "STATUS", "TOOK", "RUN", "SAID"];

pub(super) async fn list(
    context: &mut Context,
    job: String,
    limit: u32,
    state: Option<RunStatus>,
    follow: bool,
) -> Result<(), Failure> {
    let wanted = state.map_or(RunState::Unspecified, run_state);
    let client = context.client().await?;
    // Watching begins before listing, so that no change falls between.
    let watch = if follow {
        Some(cron_follow::watch(&client, &job).await?)
    } else {
        None
    };
    let mut runs = match fetch(&client, &job, limit, wanted).await {
        Err(failure) => {
            let last = of_deleted(&client, &job, failure).await?;
            context.out.note(&format!("`{job}` was deleted; what it ran:"));
            fetch(&client, &last.job_id, limit, wanted).await?
        }
        runs => runs?,
    };
    let Some(watch) = watch else {
        return show(context, &runs);
    };
    runs.reverse();
    show_each(context, &runs)?;
    let shown = Shown::of(&runs);
    cron_follow::follow(context, &client, &job, wanted, watch, shown).await
}

/// The last run of a job that is not there any more, if it stands among the newest of all: a one-shot that deletes
/// itself is asked for by its name all the same.
///
/// # Errors
/// `failure`, if it says something else, or there is no such run.
pub(super) async fn of_deleted(client: &Client, job: &str, failure: Failure) -> Result<Run, Failure> {
    if failure.code() != Some(Code::NotFound) {
        return Err(failure);
    }
    let newest = fetch(client, "", LOOK_BACK, RunState::Unspecified).await?;
    newest.into_iter().find(|run| run.job_name == job).ok_or(failure)
}

/// The newest runs, newest first.
async fn fetch(client: &Client, job: &str, limit: u32, state: RunState) -> Result<Vec<Run>, Failure> {
    let limit = limit as usize;
    let mut runs: Vec<Run> = Vec::new();
    let mut page_token = String::new();
    loop {
        let page_size = i32::try_from(limit - runs.len()).map_or(PAGE, |left| left.min(PAGE));
        let request = ListRunsRequest {
            job: job.to_owned(),
            state: state.into(),
            page_size,
            page_token,
        };
        let page = client
            .call(&request, |channel, request| async move {
                stubs::runs(channel).list(request).await
            })
            .await?;
        runs.extend(page.runs);
        page_token = page.next_page_token;
        if page_token.is_empty() || runs.len() >= limit {
            runs.truncate(limit);
            return Ok(runs);
        }
    }
}

pub(super) async fn trigger(
    context: &mut Context,
    job: String,
    wait: bool,
    dry_run: bool,
    request_id: String,
) -> Result<(), Failure> {
    let client = context.client().await?;
    let request = TriggerJobRequest {
        request_id,
        validate_only: dry_run,
        job: job.clone(),
    };
    let mut run = client
        .call(&request, |channel, request| async move {
            stubs::jobs(channel).trigger(request).await
        })
        .await?;
    if dry_run {
        context.out.note(&format!("dry run: `{job}` would run"));
    } else if wait {
        let limit = context.global.timeout;
        let waiting = end_of(context, &client, run);
        run = match limit {
            None => waiting.await?,
            Some(limit) => tokio::time::timeout(limit, waiting)
                .await
                .unwrap_or_else(|_| Err(too_slow(&job)))?,
        };
    }
    if context.out.is_json() {
        context.out.json(&RunView::from(&run))?;
    } else if !dry_run {
        let took = duration_ms(&run).map_or_else(String::new, |ms| format!(" in {}", times::took(ms)));
        context.out.line(&format!(
            "{}: {}{took}, run {}",
            run.job_name,
            status(&run),
            run.run_id
        ))?;
        if wait && !run.summary.is_empty() {
            context.out.line(&run.summary)?;
        }
    }
    if wait && !dry_run { outcome(&run) } else { Ok(()) }
}

/// The last runs, then each as it changes. The scheduler leaves nothing out between.
pub(super) async fn tail(
    context: &mut Context,
    job: String,
    last: u16,
    state: Option<RunStatus>,
) -> Result<(), Failure> {
    let wanted = state.map_or(RunState::Unspecified, run_state);
    let client = context.client().await?;
    let runs = cron_follow::tail(&client, &job, wanted, last.into()).await?;
    cron_follow::follow(context, &client, &job, wanted, runs, Shown::default()).await
}

pub(super) async fn cancel(
    context: &mut Context,
    run_id: String,
    reason: String,
    request_id: String,
) -> Result<(), Failure> {
    let request = CancelRunRequest {
        request_id,
        run_id,
        reason,
    };
    let client = context.client().await?;
    let run = client
        .call(&request, |channel, request| async move {
            stubs::runs(channel).cancel(request).await
        })
        .await?;
    let asked = if is_over(&run) { "" } else { ", asked to stop" };
    told(context, &run, asked)
}

pub(super) async fn reset(
    context: &mut Context,
    run_id: String,
    retry: bool,
    dry_run: bool,
    request_id: String,
) -> Result<(), Failure> {
    let request = ResetRunRequest {
        request_id,
        validate_only: dry_run,
        run_id,
        retry,
    };
    let client = context.client().await?;
    let run = client
        .call(&request, |channel, request| async move {
            stubs::runs(channel).reset(request).await
        })
        .await?;
    if dry_run {
        context.out.note("dry run: nothing was written");
    }
    told(context, &run, "")
}

/// One run, after something was done to it.
fn told(context: &mut Context, run: &Run, more: &str) -> Result<(), Failure> {
    if context.out.is_json() {
        return context.out.json(&RunView::from(run));
    }
    let attempt = if run.attempt > 1 {
        format!(", attempt {}", run.attempt)
    } else {
        String::new()
    };
    context.out.line(&format!(
        "{}: {}{attempt}{more}, run {}",
        run.job_name,
        status(run),
        run.run_id
    ))
}

/// A run that did not succeed, as a failure.
fn outcome(run: &Run) -> Result<(), Failure> {
    let reason = if run.reason.is_empty() {
        status(run)
    } else {
        run.reason.clone()
    };
    let why = if run.error.is_empty() {
        String::new()
    } else {
        format!(": {}", run.error)
    };
    let message = format!("the run of `{}` {}{why}", run.job_name, phrase(run));
    let hint = if run.session.is_empty() {
        format!("creel cron runs --job {}", run.job_name)
    } else {
        format!("creel sessions show {}", run.session)
    };
    match run.state() {
        RunState::Succeeded => Ok(()),
        RunState::Parked => Err(Failure::waiting(
            Error::new(Code::FailedPrecondition, reason, message).hint(hint),
        )),
        _ => Err(Failure::failed(
            Error::new(Code::Internal, reason, message).hint(hint),
        )),
    }
}

fn phrase(run: &Run) -> &'static str {
    match run.state() {
        RunState::TimedOut => "took too long",
        RunState::Cancelled => "was cancelled",
        RunState::Skipped => "was skipped",
        RunState::Stuck => "is stuck: its worker is gone",
        RunState::Parked => "waits for an approval",
        _ => "failed",
    }
}

fn too_slow(job: &str) -> Failure {
    Error::new(
        Code::DeadlineExceeded,
        "timeout",
        "the run has not ended yet; it goes on",
    )
    .hint(format!("creel cron runs --job {job} --follow"))
    .into()
}

fn show(context: &mut Context, runs: &[Run]) -> Result<(), Failure> {
    if context.out.is_json() {
        return context
            .out
            .json(&runs.iter().map(RunView::from).collect::<Vec<_>>());
    }
    if runs.is_empty() {
        context.out.note("no runs");
        return Ok(());
    }
    let local = context.local();
    let rows: Vec<Vec<String>> = runs.iter().map(|run| row(run, &local)).collect();
    context.out.table(&HEADER, &rows)
}

/// One line each, since more come later.
pub(super) fn show_each(context: &mut Context, runs: &[Run]) -> Result<(), Failure> {
    let local = context.local();
    for run in runs {
        if context.out.is_json() {
            context.out.json_line(&RunView::from(run))?;
        } else {
            context.out.line(&row(run, &local).join("  "))?;
        }
    }
    Ok(())
}

fn row(run: &Run, local: &Local) -> Vec<String> {
    let view = RunView::from(run);
    let why = view.reason.map(|reason| {
        if run.state() == RunState::Skipped {
            skipped(&reason).to_owned()
        } else {
            reason
        }
    });
    let said = view.error.or(why).or(view.summary).unwrap_or_default();
    // What did not come from the schedule is marked: an alert is not the job.
    let kind = match view.kind.as_str() {
        "scheduled" | "unknown" => String::new(),
        other => format!(" ({other})"),
    };
    let times_skipped = if run.skipped_count > 1 {
        format!(" × {}", run.skipped_count)
    } else {
        String::new()
    };
    vec![
        view.nominal_at_ms
            .map_or_else(|| "-".to_owned(), |ms| local.show_seconds(ms)),
        format!("{}{kind}", run.job_name),
        format!("{}{times_skipped}", view.status),
        view.duration_ms.map_or_else(|| "-".to_owned(), times::took),
        run.run_id.clone(),
        creel_wire::error::printable(said.lines().next().unwrap_or_default(), 60),
    ]
}

/// Why an occurrence did not run, in a few words; `creel cron explain` has more.
fn skipped(reason: &str) -> &str {
    match reason {
        "coalesced" => "a later one made up for it",
        "overlap" => "another run was not over",
        "paused" => "the job was paused",
        "window" => "too late by the time it could run",
        "quarantined" => "the job was quarantined",
        "dst" => "its time was left out by a clock change",
        "backoff" => "the job waited after failures",
        other => other,
    }
}

const fn run_state(status: RunStatus) -> RunState {
    match status {
        RunStatus::Pending => RunState::Pending,
        RunStatus::Dispatched => RunState::Dispatched,
        RunStatus::Running => RunState::Running,
        RunStatus::Succeeded => RunState::Succeeded,
        RunStatus::Failed => RunState::Failed,
        RunStatus::TimedOut => RunState::TimedOut,
        RunStatus::Cancelled => RunState::Cancelled,
        RunStatus::Stuck => RunState::Stuck,
        RunStatus::Skipped => RunState::Skipped,
        RunStatus::Parked => RunState::Parked,
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::time::timestamp;

    use super::*;
    use crate::times::tests::berlin;

    fn run(state: RunState) -> Run {
        Run {
            run_id: "ab".into(),
            job_name: "tick".into(),
            state: state.into(),
            nominal_at: Some(timestamp(1_795_341_600_000)),
            ..Run::default()
        }
    }

    fn exit(failure: Failure) -> u8 {
        crate::output::Out::new(true).report(&failure)
    }

    #[test]
    fn only_success_is_success_and_a_parked_run_waits() {
        assert!(outcome(&run(RunState::Succeeded)).is_ok());
        assert_eq!(exit(outcome(&run(RunState::Failed)).unwrap_err()), 1);
        assert_eq!(exit(outcome(&run(RunState::Skipped)).unwrap_err()), 1);
        assert_eq!(exit(outcome(&run(RunState::Parked)).unwrap_err()), 7);
        let failed = Run {
            reason: "backend_exited".into(),
            error: "exit 3".into(),
            ..run(RunState::Failed)
        };
        let failure = outcome(&failed).unwrap_err();
        let error = failure.error().unwrap();
        assert_eq!(
            (error.reason.as_ref(), error.message.as_str()),
            ("backend_exited", "the run of `tick` failed: exit 3")
        );
    }

    #[test]
    fn a_run_is_one_row() {
        let skipped = Run {
            skipped_count: 3,
            reason: "coalesced".into(),
            ..run(RunState::Skipped)
        };
        let row = row(&skipped, &berlin());
        assert_eq!(
            row,
            [
                "Sun 22 Nov 11:00:00 CET",
                "tick",
                "skipped × 3",
                "-",
                "ab",
                "a later one made up for it"
            ]
        );
        let alert = Run {
            kind: creel_proto::scheduler::v1::RunKind::Alert.into(),
            ..run(RunState::Succeeded)
        };
        assert_eq!(super::row(&alert, &berlin())[1], "tick (alert)");
    }
}
