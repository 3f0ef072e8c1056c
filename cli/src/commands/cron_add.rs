//! `creel cron add`: from words to a job's spec, and back to two lines that say what will happen.

use std::{io::Read as _, path::Path};

use creel_proto::scheduler::v1::{CatchUpMode, CreateJobRequest, CreateJobResponse, Job, JobSpec, schedule};
use creel_proto::time;
use serde::Serialize;
use serde_json::Value;

use super::cron_spec::{self, CATCH_UP_ALL, own_zone};
use crate::{
    args::cron::{Add, Late},
    context::{Context, request_id},
    failure::Failure,
    shell::quoted,
    stubs,
    times::{self, Local},
    views::{
        job::JobView,
        spec::{PolicyView, SpecView},
    },
};

/// How far back is caught up unless the spec says otherwise, milliseconds.
const CATCH_UP_WINDOW_MS: i64 = 24 * 3_600_000;

/// Failures in a row until somebody is told unless the spec says otherwise.
const ALERT_AFTER: u32 = 3;

/// The longest spec read, in bytes.
const MAX_SPEC: u64 = 1 << 20;

pub(super) async fn run(context: &mut Context, args: &Add) -> Result<(), Failure> {
    let local = context.local();
    let Plan { spec, zone_is_ours } = plan(args, &local)?;
    let request = CreateJobRequest {
        request_id: request_id(&args.repeatable),
        validate_only: args.checked.dry_run,
        spec: Some(spec),
        late_ok: args.late == Some(Late::Ok),
    };
    let client = context.client().await?;
    let answer = client
        .call(&request, |channel, request| async move {
            stubs::jobs(channel).create(request).await
        })
        .await?;
    let CreateJobResponse {
        job,
        unchanged,
        warnings,
    } = answer;
    for warning in &warnings {
        context.out.note(&format!("note: {warning}"));
    }
    let job = job.unwrap_or_default();
    if context.out.is_json() {
        return context.out.json(&AddedView {
            job: JobView::from(&job),
            unchanged,
            warnings,
        });
    }
    if args.checked.dry_run {
        context.out.note("dry run: nothing was written");
    }
    context.out.line(&summary(&job, unchanged, zone_is_ours, &local))
}

/// The job, and what adding it was.
#[derive(Debug, Serialize)]
struct AddedView {
    #[serde(flatten)]
    job: JobView,
    unchanged: bool,
    warnings: Vec<String>,
}

/// What is sent.
#[derive(Debug)]
struct Plan {
    spec: JobSpec,
    /// Nobody named the zone: it is that of this machine, and is shown as such.
    zone_is_ours: bool,
}

fn plan(args: &Add, local: &Local) -> Result<Plan, Failure> {
    let (view, zone_is_ours) = match &args.json_spec {
        Some(source) => given(args, &read(source)?, local)?,
        None => spelled(args, local)?,
    };
    Ok(Plan {
        spec: view.wire(local.now)?,
        zone_is_ours,
    })
}

/// From flags.
fn spelled(args: &Add, local: &Local) -> Result<(SpecView, bool), Failure> {
    let flags = &args.spec;
    let (schedule, zone_is_ours) =
        cron_spec::schedule(flags, args.expression.as_ref(), None, local)?.ok_or_else(nothing)?;
    let payload = cron_spec::payload(flags, args.text.as_ref(), None)?.ok_or_else(nothing)?;
    let name = args.name.clone().unwrap_or_default();
    let schedule = cron_spec::spread(schedule, &name)?;
    let view = SpecView {
        name,
        description: flags.description.clone(),
        schedule: Some(schedule),
        target: Some(cron_spec::session(flags.target.as_deref().unwrap_or("main"))?),
        payload: Some(payload),
        policy: cron_spec::policy(&args.policy, PolicyView::default())?,
        delivery: flags.deliver.as_deref().map(cron_spec::delivery).transpose()?,
        enabled: !args.disabled,
        delete_after_run: flags.delete_after_run,
        delete_after: cron_spec::delete_after(flags),
    };
    Ok((view, zone_is_ours))
}

/// Without something there already, flags that name nothing are refused before.
fn nothing() -> Failure {
    Failure::usage("say when and what")
}

/// From JSON, as `cron show --json` prints it or as a person writes it.
fn given(args: &Add, text: &str, local: &Local) -> Result<(SpecView, bool), Failure> {
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::usage_hint(
            format!("the spec can't be read: {error}"),
            "creel cron show NAME --json prints one; a list, or jobs of OpenClaw's: creel cron import -",
        )
    };
    let mut value: Value = serde_json::from_str(text).map_err(|error| wrong(&error))?;
    let object = value
        .as_object_mut()
        .ok_or_else(|| wrong(&"it is not an object"))?;
    for key in JobView::BESIDE_SPEC {
        object.remove(*key);
    }
    if let Some(name) = &args.name {
        object.insert("name".to_owned(), name.clone().into());
    }
    // The original's jobs may leave the zone out and mean that of the machine.
    let mut zone_is_ours = false;
    if let Some(schedule) = object.get_mut("schedule").and_then(Value::as_object_mut)
        && (schedule.contains_key("expr") || schedule.get("at").is_some_and(Value::is_string))
        && !schedule.contains_key("tz")
        && !schedule.contains_key("zone")
    {
        zone_is_ours = true;
        schedule.insert("zone".to_owned(), own_zone(local)?.into());
    }
    let view: SpecView = serde_json::from_value(value).map_err(|error| wrong(&error))?;
    if view.schedule.is_none() || view.payload.is_none() {
        return Err(wrong(&"it needs `schedule` and `payload`"));
    }
    Ok((view, zone_is_ours))
}

pub(super) fn read(source: &str) -> Result<String, Failure> {
    let mut text = String::new();
    match source.strip_prefix('@') {
        Some(path) => {
            let path = Path::new(path);
            let file = std::fs::File::open(path).map_err(|error| Failure::file("read", path, &error))?;
            file.take(MAX_SPEC)
                .read_to_string(&mut text)
                .map_err(|error| Failure::file("read", path, &error))?;
        }
        None if source == "-" => {
            let read = std::io::stdin().lock().take(MAX_SPEC).read_to_string(&mut text);
            read.map_err(|error| Failure::internal("reading stdin", &error))?;
        }
        None => source.clone_into(&mut text),
    }
    Ok(text)
}

/// Two lines: what, and what if not.
pub(super) fn summary(job: &Job, unchanged: bool, zone_is_ours: bool, local: &Local) -> String {
    let default = JobSpec::default();
    let spec = job.spec.as_ref().unwrap_or(&default);
    let has_zone = match spec.schedule.as_ref().and_then(|schedule| schedule.kind.as_ref()) {
        Some(schedule::Kind::Cron(_)) => true,
        Some(schedule::Kind::At(at)) => {
            matches!(at.when, Some(creel_proto::scheduler::v1::at::When::Civil(_)))
        }
        _ => false,
    };
    let ours = if zone_is_ours && has_zone {
        " (from this machine)"
    } else {
        ""
    };
    let view = JobView::from(job);
    let next = match (
        &job.next_run_at,
        spec.schedule.as_ref().and_then(|schedule| schedule.kind.as_ref()),
    ) {
        (Some(at), _) => format!("next {}", view.on_its_clock(time::unix_ms(at), local)),
        // Of a one-shot nothing is left but the run that is there already.
        (None, Some(schedule::Kind::At(_))) if !spec.disabled => "runs now".to_owned(),
        (None, _) if spec.disabled => {
            format!("disabled: creel cron resume {} lets it run", quoted(&spec.name))
        }
        (None, _) => "next never".to_owned(),
    };
    let unchanged = if unchanged { " (unchanged)" } else { "" };
    let first = format!("{}{unchanged}: {}{ours}; {next}", spec.name, view.when(local));
    let (missed, alert) = (missed(spec), alert(spec));
    format!("{first}\n{missed} (--if-missed skip|run|all) · {alert}")
}

/// Who is told when it goes wrong.
fn alert(spec: &JobSpec) -> String {
    let alert = spec
        .policy
        .as_ref()
        .and_then(|policy| policy.alert.clone())
        .unwrap_or_default();
    if alert.off {
        return "nobody is told of failures".to_owned();
    }
    let failures = match alert.after {
        0 => format!("{ALERT_AFTER} failures"),
        1 => "a failure".to_owned(),
        after => format!("{after} failures"),
    };
    let session = if alert.session.is_empty() {
        "main"
    } else {
        &alert.session
    };
    format!("after {failures}: alert to session {session}")
}

fn missed(spec: &JobSpec) -> String {
    let catch_up = spec.policy.as_ref().and_then(|policy| policy.catch_up.as_ref());
    let mode = catch_up.map_or(CatchUpMode::Last, |catch_up| match catch_up.mode() {
        CatchUpMode::Unspecified => CatchUpMode::Last,
        other => other,
    });
    let window = catch_up
        .and_then(|catch_up| catch_up.window.as_ref())
        .map(time::duration_ms);
    let default = match spec.schedule.as_ref().and_then(|schedule| schedule.kind.as_ref()) {
        // A one-shot is never too late.
        Some(schedule::Kind::At(_)) => None,
        Some(schedule::Kind::Every(every)) => {
            Some(every.period.as_ref().map_or(CATCH_UP_WINDOW_MS, |period| {
                time::duration_ms(period).min(CATCH_UP_WINDOW_MS)
            }))
        }
        _ => Some(CATCH_UP_WINDOW_MS),
    };
    let within = window
        .or(default)
        .map_or_else(String::new, |ms| format!(", within {}", times::period(ms)));
    match mode {
        CatchUpMode::Skip => "if asleep then: skipped".to_owned(),
        CatchUpMode::All => {
            let max = catch_up.map_or(CATCH_UP_ALL, |catch_up| catch_up.max);
            format!("if asleep then: each on waking, at most {max}{within}")
        }
        CatchUpMode::Last | CatchUpMode::Unspecified => format!("if asleep then: once on waking{within}"),
    }
}

#[cfg(test)]
mod tests;
