//! `creel cron …`: jobs. Adding, running and previewing have files of their own.

use creel_proto::{
    scheduler::v1::{
        BackfillJobRequest, DeleteJobRequest, GrantAgentRequest, Job, PauseJobRequest, ResumeJobRequest,
    },
    time,
};
use serde_json::json;

use super::{cron_runs, cron_spec};
use crate::{
    args::cron::Cron,
    context::{Context, request_id},
    failure::Failure,
    shell::quoted,
    stubs,
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
        } => super::cron_list::run(context, prefix.unwrap_or_default(), &phase, soonest, names).await,
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
        Cron::Next(_) => Err(Failure::usage("this command needs no stack")),
    }
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
        None if view.phase == "paused" => format!("creel cron resume {} lets it run again", quoted(name)),
        None => "nothing is due any more".to_owned(),
    };
    // How it went before is no answer to `resume`.
    let phase = match view.phase.as_str() {
        phase @ ("paused" | "quarantined" | "completed") => phase,
        _ => "runs by its schedule",
    };
    context.out.line(&format!("{name}: {phase}{reason}; {then}"))
}
