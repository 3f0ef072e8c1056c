//! `creel cron …`: jobs. Adding, running and previewing have files of their own.

use creel_proto::{
    scheduler::v1::{
        BackfillJobRequest, DeleteJobRequest, GrantAgentRequest, Job, ListJobsRequest, PauseJobRequest,
        Phase, ResumeJobRequest,
    },
    time,
};
use serde_json::json;

use super::{MAX_ROWS, PAGE, cron_runs, cron_spec};
use crate::{
    args::cron::{Cron, PhaseArg},
    client::Client,
    context::{Context, request_id},
    failure::Failure,
    stubs,
    times::Local,
    views::job::JobView,
};

pub(super) async fn run(context: &mut Context, command: Cron) -> Result<(), Failure> {
    match command {
        Cron::Add(args) => super::cron_add::run(context, &args).await,
        Cron::Edit(args) => super::cron_edit::run(context, &args).await,
        Cron::List {
            prefix,
            phase,
            soonest,
            names,
        } => list(context, prefix.unwrap_or_default(), &phase, soonest, names).await,
        Cron::Show { name } => super::cron_show::run(context, name).await,
        Cron::Run {
            name,
            wait,
            checked,
            repeatable,
        } => cron_runs::trigger(context, name, wait, checked.dry_run, request_id(&repeatable)).await,
        Cron::Runs {
            job,
            limit,
            status,
            follow,
        } => cron_runs::list(context, job.unwrap_or_default(), limit, status, follow).await,
        Cron::Tail { job, last, status } => {
            cron_runs::tail(context, job.unwrap_or_default(), last, status).await
        }
        Cron::Cancel {
            run,
            reason,
            repeatable,
        } => cron_runs::cancel(context, run, reason, request_id(&repeatable)).await,
        Cron::Reset {
            run,
            retry,
            checked,
            repeatable,
        } => cron_runs::reset(context, run, retry, checked.dry_run, request_id(&repeatable)).await,
        Cron::Calendar { days, tz, prefix } => {
            super::cron_calendar::run(context, days, tz.as_deref(), prefix).await
        }
        Cron::Import {
            file,
            tz,
            late,
            checked,
        } => super::cron_import::run(context, &file, tz.as_deref(), late.is_some(), checked.dry_run).await,
        Cron::Explain { name, at } => super::cron_explain::run(context, name, at.as_deref()).await,
        Cron::Backfill {
            name,
            from,
            to,
            at_once,
            stop,
            checked,
            repeatable,
            versioned,
        } => {
            let local = context.local();
            let instant = |text: Option<String>, flag: &str| {
                text.map(|text| cron_spec::instant(&text, flag, &local))
                    .transpose()
            };
            let (from, until) = (instant(from, "from")?, instant(to, "to")?);
            let request = BackfillJobRequest {
                request_id: request_id(&repeatable),
                validate_only: checked.dry_run,
                if_match: versioned.if_match.unwrap_or_default(),
                job: name,
                from: from.map(time::timestamp),
                until: (!stop).then(|| time::timestamp(until.unwrap_or(local.now.as_millisecond()))),
                at_once,
                stop,
            };
            super::cron_admin::backfill(context, request).await
        }
        Cron::Status => super::cron_admin::status(context).await,
        Cron::AcceptClock { checked, repeatable } => {
            super::cron_admin::accept_clock(context, request_id(&repeatable), checked.dry_run).await
        }
        Cron::Grant { session: None, .. } => super::cron_grant::list(context).await,
        Cron::Grant {
            session: Some(session),
            revoke,
            checked,
            repeatable,
        } => {
            let request = GrantAgentRequest {
                request_id: request_id(&repeatable),
                validate_only: checked.dry_run,
                session,
                revoke,
            };
            super::cron_grant::set(context, request).await
        }
        Cron::Rm {
            name,
            checked,
            repeatable,
            versioned,
        } => {
            let request = DeleteJobRequest {
                request_id: request_id(&repeatable),
                validate_only: checked.dry_run,
                if_match: versioned.if_match.unwrap_or_default(),
                job: name,
            };
            remove(context, request).await
        }
        Cron::Pause {
            name,
            reason,
            checked,
            repeatable,
            versioned,
        } => {
            let request = PauseJobRequest {
                request_id: request_id(&repeatable),
                validate_only: checked.dry_run,
                if_match: versioned.if_match.unwrap_or_default(),
                job: name,
                reason,
            };
            let client = context.client().await?;
            let job = client
                .call(&request, |channel, request| async move {
                    stubs::jobs(channel).pause(request).await
                })
                .await?;
            changed(context, &job, request.validate_only)
        }
        Cron::Resume {
            name,
            checked,
            repeatable,
            versioned,
        } => {
            let request = ResumeJobRequest {
                request_id: request_id(&repeatable),
                validate_only: checked.dry_run,
                if_match: versioned.if_match.unwrap_or_default(),
                job: name,
            };
            let client = context.client().await?;
            let job = client
                .call(&request, |channel, request| async move {
                    stubs::jobs(channel).resume(request).await
                })
                .await?;
            changed(context, &job, request.validate_only)
        }
        // Needs no stack, so it is done before there is one.
        Cron::Next { .. } => Err(Failure::usage("this command needs no stack")),
    }
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

async fn list(
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

async fn remove(context: &mut Context, request: DeleteJobRequest) -> Result<(), Failure> {
    let yes = context.global.yes || request.validate_only;
    context
        .out
        .confirm(yes, &format!("Delete the job `{}`?", request.job))?;
    let client = context.client().await?;
    let answer = client
        .call(&request, |channel, request| async move {
            stubs::jobs(channel).delete(request).await
        })
        .await?;
    if context.out.is_json() {
        return context
            .out
            .json(&json!({ "id": answer.job_id, "deleted": !request.validate_only }));
    }
    let done = if request.validate_only {
        "would be deleted (dry run)"
    } else {
        "deleted"
    };
    context.out.line(&format!("{}: {done}", request.job))
}

fn changed(context: &mut Context, job: &Job, dry_run: bool) -> Result<(), Failure> {
    let view = JobView::from(job);
    if context.out.is_json() {
        return context.out.json(&view);
    }
    if dry_run {
        context.out.note("dry run: nothing was written");
    }
    let local = context.local();
    let name = view
        .spec
        .as_ref()
        .map_or(view.id.as_str(), |spec| spec.name.as_str());
    let reason = view
        .phase_reason
        .as_ref()
        .map_or_else(String::new, |reason| format!(" ({reason})"));
    let then = match view.state.next_run_at_ms {
        Some(at) => format!("next {}", view.on_its_clock(at, &local)),
        None if view.phase == "paused" => format!("creel cron resume {name} lets it run again"),
        None => "nothing is due any more".to_owned(),
    };
    // How it went before is no answer to `resume`.
    let phase = match view.phase.as_str() {
        phase @ ("paused" | "quarantined" | "completed") => phase,
        _ => "runs by its schedule",
    };
    context.out.line(&format!("{name}: {phase}{reason}; {then}"))
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
