//! `creel cron add`: from words to a job's spec, and back to two lines that say what will happen.

use std::{io::Read as _, path::Path, time::Duration};

use creel_proto::scheduler::v1::{CatchUpMode, CreateJobRequest, CreateJobResponse, Job, JobSpec, schedule};
use creel_proto::time;
use creel_schedule::{DstPolicy, EveryMode, ScheduleSpec, Syntax};
use serde::Serialize;
use serde_json::Value;

use crate::{
    args::cron::{Add, IfMissed, Late, OverlapArg},
    context::{Context, request_id},
    failure::Failure,
    stubs,
    times::{self, Local},
    views::{
        job::JobView,
        spec::{CatchUpView, OverlapView, PayloadView, PolicyView, RetryView, SpecView},
    },
};

/// Occurrences that `--if-missed all` makes up for; the most the scheduler takes.
const CATCH_UP_ALL: u32 = 1_000;

/// How far back is caught up unless the spec says otherwise, milliseconds.
const CATCH_UP_WINDOW_MS: i64 = 24 * 3_600_000;

/// Failures in a row until a job is quarantined unless the spec says otherwise.
const QUARANTINE_AFTER: u32 = 5;

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
    let (schedule, zone_is_ours) = schedule_of(args, local)?;
    let payload = match (&args.text, &args.message, &args.event) {
        (Some(message), None, None) | (None, Some(message), None) => PayloadView::AgentTurn {
            message: message.clone(),
            backend: args.backend.clone(),
            timeout_ms: None,
        },
        (None, None, Some(text)) if args.backend.is_none() => PayloadView::SystemEvent { text: text.clone() },
        (None, None, Some(_)) => {
            return Err(Failure::usage(
                "--backend goes with --message: an event has none of its own",
            ));
        }
        _ => {
            return Err(Failure::usage_hint(
                "say what to do, once: MESSAGE, --message or --event",
                EXAMPLE,
            ));
        }
    };
    let target = match args.target.as_deref() {
        None | Some("main") => "main".to_owned(),
        Some(text) => super::sessions::key(text)?.to_string(),
    };
    let view = SpecView {
        name: args.name.clone().unwrap_or_default(),
        description: args.description.clone(),
        schedule: Some(schedule),
        target: Some(target),
        payload: Some(payload),
        policy: policy(args),
        delivery: None,
        enabled: true,
        delete_after_run: args.delete_after_run,
    };
    Ok((view, zone_is_ours))
}

/// One line that can be copied.
const EXAMPLE: &str = "creel cron add briefing \"0 7 * * *\" \"Summarise my inbox\"";

fn schedule_of(args: &Add, local: &Local) -> Result<(ScheduleSpec, bool), Failure> {
    let cron = match (&args.expression, &args.cron) {
        (Some(_), Some(_)) => return Err(Failure::usage("the expression is given twice: EXPR and --cron")),
        (expression, cron) => expression.as_ref().or(cron.as_ref()),
    };
    let ours = args.tz.is_none();
    let zone = || args.tz.clone().map_or_else(|| own_zone(local), Ok);
    match (&args.at, args.every, cron) {
        // The zone counts only where the time is a reading; only there its absence is an error.
        (Some(at), None, None) => {
            let zone = args.tz.clone().or_else(|| local.zone_name());
            Ok((
                ScheduleSpec::At {
                    time: at.clone(),
                    zone,
                },
                ours,
            ))
        }
        (None, Some(_), None) if !ours => Err(Failure::usage(
            "--tz goes with --cron and --at: an interval has no zone",
        )),
        (None, Some(every), None) => Ok((
            ScheduleSpec::Every {
                period_ms: millis(every).unsigned_abs(),
                anchor_ms: None,
                mode: EveryMode::default(),
            },
            false,
        )),
        (None, None, Some(expr)) => {
            let (dst, syntax) = (DstPolicy::default(), Syntax::Unix);
            Ok((
                ScheduleSpec::Cron {
                    expr: expr.clone(),
                    zone: zone()?,
                    dst,
                    syntax,
                },
                ours,
            ))
        }
        _ => Err(Failure::usage_hint(
            "say when, once: EXPR, --cron, --every or --at",
            EXAMPLE,
        )),
    }
}

fn policy(args: &Add) -> PolicyView {
    PolicyView {
        catch_up: args.if_missed.map(|mode| CatchUpView {
            mode: match mode {
                IfMissed::Skip => "skip",
                IfMissed::Run => "last",
                IfMissed::All => "all",
            }
            .to_owned(),
            max: (mode == IfMissed::All).then_some(CATCH_UP_ALL),
            window_ms: None,
        }),
        overlap: args.overlap.map(|mode| OverlapView {
            mode: match mode {
                OverlapArg::Forbid => "forbid",
                OverlapArg::BufferOne => "buffer_one",
                OverlapArg::Allow => "allow",
                OverlapArg::Replace => "replace",
            }
            .to_owned(),
            max: None,
        }),
        timeout_ms: args.timeout.map(millis),
        retry: args.retries.map(|retries| RetryView {
            attempts: retries + 1,
            backoff_ms: None,
            max_backoff_ms: None,
        }),
        ..PolicyView::default()
    }
}

/// From JSON, as `cron show --json` prints it or as a person writes it.
fn given(args: &Add, text: &str, local: &Local) -> Result<(SpecView, bool), Failure> {
    let wrong = |error: &dyn std::fmt::Display| {
        Failure::usage_hint(
            format!("the spec can't be read: {error}"),
            "creel cron show NAME --json prints one",
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

fn read(source: &str) -> Result<String, Failure> {
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

/// The zone of this machine by name, as the scheduler needs it.
fn own_zone(local: &Local) -> Result<String, Failure> {
    local.zone_name().ok_or_else(|| {
        Failure::usage_hint(
            "this machine's time zone has no IANA name",
            "add --tz, for example --tz Europe/Berlin",
        )
    })
}

/// Two lines: what, and what if not.
fn summary(job: &Job, unchanged: bool, zone_is_ours: bool, local: &Local) -> String {
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
    let next = job
        .next_run_at
        .as_ref()
        .map_or_else(|| "never".to_owned(), |at| local.show(time::unix_ms(at)));
    let unchanged = if unchanged { " (unchanged)" } else { "" };
    let first = format!(
        "{}{unchanged}: {}{ours}; next {next}",
        spec.name, job.schedule_text
    );
    let quarantine = spec.policy.as_ref().map_or(0, |policy| policy.quarantine_after);
    let quarantine = if quarantine == 0 {
        QUARANTINE_AFTER
    } else {
        quarantine
    };
    let missed = missed(spec);
    format!(
        "{first}\n{missed} (--if-missed skip|run|all) · after {quarantine} failures in a row: quarantined"
    )
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

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
