//! `creel cron list`: all jobs, a row each.

use creel_proto::scheduler::v1::{Job, ListJobsRequest, Phase};

use super::{MAX_ROWS, PAGE};
use crate::{
    args::cron::PhaseArg, client::Client, context::Context, failure::Failure, stubs, times::Local,
    views::job::JobView,
};

pub(super) async fn run(
    context: &mut Context,
    name_prefix: String,
    phases: &[PhaseArg],
    soonest: bool,
    names: bool,
) -> Result<(), Failure> {
    let client = context.client().await?;
    let order_by = if soonest { "next_run" } else { "" };
    let jobs = all(&client, name_prefix, phases, order_by).await?;
    let jobs: Vec<JobView> = jobs.iter().map(JobView::from).collect();
    if names {
        let names = jobs
            .iter()
            .filter_map(|job| job.spec.as_ref())
            .map(|spec| spec.name.as_str());
        if context.out.is_json() {
            return context.out.json(&names.collect::<Vec<_>>());
        }
        for name in names {
            context.out.line(name)?;
        }
        return Ok(());
    }
    if context.out.is_json() {
        return context.out.json(&jobs);
    }
    if jobs.is_empty() {
        context
            .out
            .note("no jobs; next: creel cron add briefing \"0 7 * * *\" \"Summarise my inbox\"");
        return Ok(());
    }
    let local = context.local();
    let rows: Vec<Vec<String>> = jobs.iter().map(|job| row(job, &local)).collect();
    context
        .out
        .table(&["NAME", "SCHEDULE", "NEXT", "LAST", "STATUS", "PHASE"], &rows)
}

/// All jobs, page by page.
pub(super) async fn all(
    client: &Client,
    name_prefix: String,
    phases: &[PhaseArg],
    order_by: &str,
) -> Result<Vec<Job>, Failure> {
    let phases: Vec<i32> = phases.iter().map(|phase| phase_of(*phase).into()).collect();
    let mut jobs = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListJobsRequest {
            page_size: PAGE,
            page_token,
            name_prefix: name_prefix.clone(),
            phases: phases.clone(),
            order_by: order_by.to_owned(),
        };
        let page = client
            .call(&request, |channel, request| async move {
                stubs::jobs(channel).list(request).await
            })
            .await?;
        jobs.extend(page.jobs);
        page_token = page.next_page_token;
        if page_token.is_empty() || jobs.len() >= MAX_ROWS {
            return Ok(jobs);
        }
    }
}

const fn phase_of(phase: PhaseArg) -> Phase {
    match phase {
        PhaseArg::Scheduled => Phase::Scheduled,
        PhaseArg::Running => Phase::Running,
        PhaseArg::Parked => Phase::Parked,
        PhaseArg::Succeeded => Phase::Succeeded,
        PhaseArg::Failed => Phase::Failed,
        PhaseArg::Stuck => Phase::Stuck,
        PhaseArg::Quarantined => Phase::Quarantined,
        PhaseArg::Paused => Phase::Paused,
        PhaseArg::Completed => Phase::Completed,
    }
}

fn row(job: &JobView, local: &Local) -> Vec<String> {
    vec![
        job.spec
            .as_ref()
            .map_or_else(|| job.id.clone(), |spec| spec.name.clone()),
        job.when(local),
        local.show_opt(job.state.next_run_at_ms),
        local.show_opt(job.state.last_run_at_ms),
        job.state.last_status.clone().unwrap_or_else(|| "-".to_owned()),
        match &job.phase_reason {
            Some(reason) => format!("{} ({reason})", job.phase),
            None => job.phase.clone(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{times::tests::berlin, views::job::tests::job};

    #[test]
    fn a_job_is_one_row() {
        let row = row(&JobView::from(&job()), &berlin());
        assert_eq!(
            row,
            [
                "tick",
                "every minute",
                "Wed 28 Jan 08:00 CET",
                "Tue 27 Jan 06:00 CET",
                "succeeded",
                "succeeded"
            ]
        );
    }
}
