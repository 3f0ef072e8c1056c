//! Runs as they change, over restarts of the stack: what was cut is taken up where it ended.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    mem,
};

use creel_proto::{
    scheduler::v1::{GetRunRequest, Run, RunState, TailRunsRequest, WatchRunsRequest},
    time,
};
use futures_util::{StreamExt as _, stream};
use tonic::Streaming;

use super::cron_runs::show_each;
use crate::{
    client::{Client, Following, Messages},
    context::Context,
    failure::Failure,
    stubs,
    views::run::{is_over, status},
};

/// Runs asked for again after a cut: the most the scheduler gives at once.
const CATCH_UP: i32 = 500;

/// Runs remembered as shown.
const MAX_SHOWN: usize = 1_024;

/// News may arrive in another order than it happened, by so much.
const SLACK_MS: i64 = 2_000;

pub(super) async fn watch(client: &Client, job: &str) -> Result<Streaming<Run>, Failure> {
    let request = WatchRunsRequest { job: job.to_owned() };
    client
        .call(&request, |channel, request| async move {
            stubs::runs(channel).watch(request).await
        })
        .await
}

pub(super) async fn tail(
    client: &Client,
    job: &str,
    wanted: RunState,
    last: i32,
) -> Result<Streaming<Run>, Failure> {
    let request = TailRunsRequest {
        job: job.to_owned(),
        state: wanted.into(),
        last,
    };
    client
        .call(&request, |channel, request| async move {
            stubs::runs(channel).tail(request).await
        })
        .await
}

/// Shows each run as it changes, without end. `shown`: what stands there already.
pub(super) async fn follow(
    context: &mut Context,
    client: &Client,
    job: &str,
    wanted: RunState,
    runs: Streaming<Run>,
    shown: Shown,
) -> Result<(), Failure> {
    let tail = Tail {
        context,
        job,
        wanted,
        first: Some(runs),
        resumed: false,
        told: false,
        shown,
    };
    match client.resume(tail).await? {}
}

/// Runs of a job as they change.
struct Tail<'a> {
    context: &'a mut Context,
    job: &'a str,
    wanted: RunState,
    /// What was asked for before the first were shown.
    first: Option<Streaming<Run>>,
    resumed: bool,
    /// Whether the cut was spoken of since the last news.
    told: bool,
    shown: Shown,
}

impl Following for Tail<'_> {
    type Message = Run;
    type Found = Infallible;

    async fn open(&mut self, client: &Client) -> Result<Messages<Run>, Failure> {
        if let Some(first) = self.first.take() {
            return Ok(first.boxed());
        }
        self.resumed = true;
        if !mem::replace(&mut self.told, true) {
            self.context
                .out
                .note("the connection ended; it goes on when the stack answers");
        }
        let runs = tail(client, self.job, self.wanted, CATCH_UP).await?;
        Ok(runs.boxed())
    }

    fn take(&mut self, run: Run) -> Result<Option<Infallible>, Failure> {
        self.told = false;
        let wanted = self.wanted == RunState::Unspecified || run.state() == self.wanted;
        if wanted && (self.shown.take(&run) || !self.resumed) {
            show_each(self.context, &[run])?;
        }
        Ok(None)
    }
}

/// Waits until a run has ended, or waits for a person.
pub(super) async fn end_of(context: &mut Context, client: &Client, run: Run) -> Result<Run, Failure> {
    client.resume(End { context, seen: run }).await
}

/// One run on the way to its end.
struct End<'a> {
    context: &'a mut Context,
    seen: Run,
}

impl Following for End<'_> {
    type Message = Run;
    type Found = Run;

    async fn open(&mut self, client: &Client) -> Result<Messages<Run>, Failure> {
        let changes = watch(client, &self.seen.job_id).await?;
        // What happened before the watch began.
        let request = GetRunRequest {
            run_id: self.seen.run_id.clone(),
        };
        let now = client
            .call(&request, |channel, request| async move {
                stubs::runs(channel).get(request).await
            })
            .await?;
        Ok(stream::iter([Ok(now)]).chain(changes).boxed())
    }

    fn take(&mut self, run: Run) -> Result<Option<Run>, Failure> {
        if run.run_id != self.seen.run_id {
            return Ok(None);
        }
        tell(self.context, &self.seen, &run);
        self.seen = run;
        Ok(is_over(&self.seen).then(|| self.seen.clone()))
    }
}

/// Where a run is on its way; its end is told by whoever waits.
fn tell(context: &mut Context, before: &Run, now: &Run) {
    if now.state() != before.state() && !is_over(now) {
        context.out.note(&format!("{}: {}", now.job_name, status(now)));
    }
}

/// The newest runs that were shown, so that nothing is shown twice after a cut.
#[derive(Debug, Default)]
pub(super) struct Shown {
    last: BTreeMap<String, (RunState, u32, String)>,
    order: VecDeque<String>,
    latest_ms: Option<i64>,
}

impl Shown {
    pub(super) fn of(runs: &[Run]) -> Self {
        let mut shown = Self::default();
        for run in runs {
            shown.take(run);
        }
        shown
    }

    /// Takes a run as shown from now on; whether it is news.
    fn take(&mut self, run: &Run) -> bool {
        let delivery = run
            .delivery
            .as_ref()
            .map_or_else(String::new, |to| to.state.clone());
        let now = (run.state(), run.attempt, delivery);
        let at_ms = changed_ms(run);
        if let Some(before) = self.last.get_mut(&run.run_id) {
            let news = *before != now;
            *before = now;
            self.latest_ms = self.latest_ms.max(at_ms);
            return news;
        }
        // Older than what was asked for at first.
        if self
            .latest_ms
            .is_some_and(|latest| at_ms.is_some_and(|at| at < latest - SLACK_MS))
        {
            return false;
        }
        self.last.insert(run.run_id.clone(), now);
        self.order.push_back(run.run_id.clone());
        if self.order.len() > MAX_SHOWN
            && let Some(oldest) = self.order.pop_front()
        {
            self.last.remove(&oldest);
        }
        self.latest_ms = self.latest_ms.max(at_ms);
        true
    }
}

/// When a run came to be as it is.
fn changed_ms(run: &Run) -> Option<i64> {
    let at = [&run.admitted_at, &run.started_at, &run.finished_at];
    at.into_iter().flatten().map(time::unix_ms).max()
}

#[cfg(test)]
mod tests {
    use creel_proto::time::timestamp;

    use super::*;

    fn run(id: &str, state: RunState, at_ms: i64) -> Run {
        Run {
            run_id: id.to_owned(),
            state: state.into(),
            attempt: 1,
            admitted_at: Some(timestamp(1_000)),
            finished_at: Some(timestamp(at_ms)),
            ..Run::default()
        }
    }

    #[test]
    fn after_a_cut_only_news_is_shown() {
        let mut shown = Shown::of(&[
            run("a", RunState::Succeeded, 10_000),
            run("b", RunState::Running, 20_000),
        ]);
        assert!(
            !shown.take(&run("a", RunState::Succeeded, 10_000)),
            "it stands there already"
        );
        assert!(
            !shown.take(&run("old", RunState::Failed, 5_000)),
            "it was before what was asked for"
        );
        assert!(
            shown.take(&run("b", RunState::Succeeded, 21_000)),
            "it ended meanwhile"
        );
        assert!(
            shown.take(&run("c", RunState::Failed, 20_500)),
            "it came meanwhile, told late"
        );
        assert!(!shown.take(&run("c", RunState::Failed, 20_500)));
        let retried = Run {
            attempt: 2,
            ..run("c", RunState::Failed, 22_000)
        };
        assert!(shown.take(&retried), "another attempt");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut shown = Shown::default();
        for n in 0..3 * MAX_SHOWN {
            shown.take(&run(&n.to_string(), RunState::Succeeded, 1_000));
        }
        assert_eq!((shown.last.len(), shown.order.len()), (MAX_SHOWN, MAX_SHOWN));
    }
}
