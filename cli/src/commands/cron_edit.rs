//! `creel cron edit`: a job changed by flags, from a file, or in the person's editor.

use std::{io::Read as _, path::Path};

use creel_proto::scheduler::v1::{GetJobRequest, Job, UpdateJobRequest};
use creel_wire::{Code, Error};
use prost_types::FieldMask;
use serde::Serialize;

mod spelling;

use super::{cron_add, cron_spec};
use crate::{
    args::cron::{Edit, Format},
    client::Client,
    context::{Context, request_id},
    editor::Draft,
    failure::Failure,
    shell::quoted,
    stubs,
    times::Local,
    views::{job::JobView, spec::SpecView},
};

/// The longest spec read, in bytes.
const MAX_SPEC: u64 = 1 << 20;

/// Stands over the text in the editor.
const HEADER: &str = "# Change what you like, save, and leave the editor. Nothing changed: nothing is done.\n\
                      # schedule: kind = \"cron\" (expr, zone), \"every\" (every = \"1h30m\") or \"at\" (at, zone)\n\
                      # payload:  kind = \"agentTurn\" (message), \"systemEvent\" (text)\n\n";

pub(super) async fn run(context: &mut Context, args: &Edit) -> Result<(), Failure> {
    let local = context.local();
    let client = context.client().await?;
    let request = GetJobRequest {
        job: args.job.clone(),
    };
    let job = client
        .call(&request, |channel, request| async move {
            stubs::jobs(channel).get(request).await
        })
        .await?;
    let Some(spec) = &job.spec else {
        let message = format!("the record of `{}` can't be read", args.job);
        return Err(Error::new(Code::FailedPrecondition, "invalid_record", message)
            .hint(format!(
                "creel cron rm {0}, then creel cron add {0} …",
                quoted(&args.job)
            ))
            .into());
    };
    let before = SpecView::from(spec);
    if args.wants_editor() {
        return in_editor(context, &client, args, &job, &before).await;
    }
    let (after, zone_is_ours) = match &args.file {
        Some(file) => {
            let text = read(file)?;
            (parse(&text, format_of(&text)).map_err(refused)?, false)
        }
        None => flagged(args, &before, &local)?,
    };
    let change = Change {
        args,
        job: &job,
        before: &before,
        after: &after,
        zone_is_ours,
    };
    apply(context, &client, &change).await
}

/// What is to be done.
struct Change<'a> {
    args: &'a Edit,
    job: &'a Job,
    before: &'a SpecView,
    after: &'a SpecView,
    zone_is_ours: bool,
}

/// A job, and whether anything was to be changed.
#[derive(Debug, Serialize)]
struct EditedView {
    #[serde(flatten)]
    job: JobView,
    unchanged: bool,
    warnings: Vec<String>,
}

async fn apply(context: &mut Context, client: &Client, change: &Change<'_>) -> Result<(), Failure> {
    let local = context.local();
    let paths = changed(change.before, change.after);
    let unchanged = paths.is_empty();
    let dry_run = change.args.checked.dry_run;
    let edited;
    let job = if unchanged {
        change.job
    } else {
        let if_match = change.args.versioned.if_match.clone();
        let request = UpdateJobRequest {
            request_id: request_id(&change.args.repeatable),
            validate_only: dry_run,
            // What was edited is what is replaced.
            if_match: if_match.unwrap_or_else(|| change.job.etag.clone()),
            job: change.job.job_id.clone(),
            spec: Some(change.after.wire(local.now)?),
            update_mask: Some(FieldMask { paths }),
        };
        edited = client
            .call(&request, |channel, request| async move {
                stubs::jobs(channel).update(request).await
            })
            .await?;
        &edited
    };
    for warning in &job.warnings {
        context.out.note(&format!("note: {warning}"));
    }
    if context.out.is_json() {
        return context.out.json(&EditedView {
            job: JobView::from(job),
            unchanged,
            warnings: job.warnings.clone(),
        });
    }
    if dry_run {
        context.out.note("dry run: nothing was written");
    }
    let summary = cron_add::summary(job, unchanged, change.zone_is_ours, &local);
    context.out.line(&summary)
}

/// The fields that differ, as the scheduler names them.
fn changed(before: &SpecView, after: &SpecView) -> Vec<String> {
    let fields = [
        ("name", before.name != after.name),
        ("description", before.description != after.description),
        ("schedule", before.schedule != after.schedule),
        ("target", before.target != after.target),
        ("payload", before.payload != after.payload),
        ("policy", before.policy != after.policy),
        ("delivery", before.delivery != after.delivery),
        ("disabled", before.enabled != after.enabled),
        (
            "delete_after_run",
            before.delete_after_run != after.delete_after_run,
        ),
        ("delete_after", before.delete_after != after.delete_after),
    ];
    fields
        .iter()
        .filter(|(_, differs)| *differs)
        .map(|(field, _)| (*field).to_owned())
        .collect()
}

/// The job with what the flags name.
fn flagged(args: &Edit, before: &SpecView, local: &Local) -> Result<(SpecView, bool), Failure> {
    let flags = &args.spec;
    let mut after = before.clone();
    let mut zone_is_ours = false;
    if let Some((schedule, ours)) = cron_spec::schedule(flags, None, before.schedule.as_ref(), local)? {
        after.schedule = Some(cron_spec::spread(schedule, &before.name)?);
        zone_is_ours = ours;
    }
    if let Some(payload) = cron_spec::payload(flags, None, before.payload.as_ref())? {
        after.payload = Some(payload);
    }
    if let Some(name) = &args.rename {
        after.name.clone_from(name);
    }
    if let Some(target) = &flags.target {
        after.target = Some(cron_spec::session(target)?);
    }
    if let Some(to) = &flags.deliver {
        after.delivery = Some(cron_spec::delivery(to)?);
    }
    if let Some(description) = &flags.description {
        after.description = Some(description.clone()).filter(|text| !text.is_empty());
    }
    after.policy = cron_spec::policy(&args.policy, after.policy)?;
    if args.enable || args.disable {
        after.enabled = args.enable;
    }
    if flags.delete_after_run || args.keep_after_run {
        after.delete_after_run = flags.delete_after_run;
        after.delete_after = None;
    }
    if let Some(word) = cron_spec::delete_after(flags) {
        after.delete_after = Some(word);
        after.delete_after_run = false;
    }
    Ok((after, zone_is_ours))
}

async fn in_editor(
    context: &mut Context,
    client: &Client,
    args: &Edit,
    job: &Job,
    before: &SpecView,
) -> Result<(), Failure> {
    let (text, extension) = match args.format {
        Format::Toml => (format!("{HEADER}{}", toml_of(before)?), "toml"),
        Format::Json => (json_of(before)?, "json"),
    };
    let draft = Draft::new(&text, extension)?;
    loop {
        let edited = draft.edit()?;
        let says = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        if edited == text || !edited.lines().any(says) {
            draft.discard();
            let empty = if edited == text { "" } else { ": the text is empty" };
            context.out.note(&format!("nothing changed{empty}"));
            return Ok(());
        }
        let failure = match parse(&edited, args.format) {
            Ok(after) => {
                let change = Change {
                    args,
                    job,
                    before,
                    after: &after,
                    zone_is_ours: false,
                };
                match apply(context, client, &change).await {
                    Ok(()) => {
                        draft.discard();
                        return Ok(());
                    }
                    Err(failure) => placed(failure, &edited),
                }
            }
            Err(why) => refused(why),
        };
        let again = context.out.can_ask() && {
            context.out.report(&failure);
            context.out.ask("Edit again?")?
        };
        if !again {
            let hint = format!(
                "your text is kept: mend {0}, then creel cron edit {1} --file {0}",
                draft.path().display(),
                quoted(&args.job)
            );
            return Err(failure.with_hint(&hint));
        }
    }
}

fn toml_of(view: &SpecView) -> Result<String, Failure> {
    toml::to_string_pretty(view)
        .map(|text| spelling::for_people(&text))
        .map_err(|error| Failure::internal("the job as TOML", &error))
}

fn json_of(view: &SpecView) -> Result<String, Failure> {
    serde_json::to_string_pretty(view)
        .map(|text| text + "\n")
        .map_err(|error| Failure::internal("the job as JSON", &error))
}

/// JSON begins with a brace; no line of TOML does.
fn format_of(text: &str) -> Format {
    if text.trim_start().starts_with('{') {
        Format::Json
    } else {
        Format::Toml
    }
}

/// The job in a text; the error names the line.
fn parse(text: &str, format: Format) -> Result<SpecView, String> {
    let view: SpecView = match format {
        Format::Toml => toml::from_str(&spelling::of_people(text)?)
            .map_err(|error| error.to_string().trim_end().to_owned())?,
        Format::Json => {
            // As `cron show --json` prints it, too: with what stands beside the spec.
            let mut value: serde_json::Value =
                serde_json::from_str(text).map_err(|error| error.to_string())?;
            if let Some(object) = value.as_object_mut() {
                JobView::BESIDE_SPEC.iter().for_each(|key| {
                    object.remove(*key);
                });
            }
            // Read again from text, for the line of what does not fit; the keys beside stand on none.
            let whole: Result<SpecView, _> = serde_json::from_str(text);
            match (whole, serde_json::from_value(value)) {
                (Ok(view), _) | (Err(_), Ok(view)) => view,
                (Err(error), Err(_)) => return Err(error.to_string()),
            }
        }
    };
    if view.schedule.is_none() || view.payload.is_none() {
        return Err("a job needs `schedule` and `payload`".to_owned());
    }
    Ok(view)
}

fn refused(why: String) -> Failure {
    Failure::usage_hint(
        format!("the spec can't be read: {why}"),
        "creel cron show NAME --json prints one",
    )
}

/// A refusal of the scheduler, with the line that it is about.
fn placed(failure: Failure, text: &str) -> Failure {
    let Some(error) = failure.error() else {
        return failure;
    };
    let Some((number, line)) = error.field.as_ref().and_then(|field| line_of(text, field)) else {
        return failure;
    };
    let mut error = error.clone();
    error.message = format!("line {number}, `{}`: {}", line.trim(), error.message);
    Failure::from(error)
}

/// The line of a field such as `spec.schedule.cron.expression`, counted from 1.
fn line_of<'a>(text: &'a str, field: &str) -> Option<(usize, &'a str)> {
    let last = field.rsplit('.').next()?;
    let key = match last {
        "expression" => "expr".to_owned(),
        "period" => "every".to_owned(),
        "time" => "at".to_owned(),
        "disabled" => "enabled".to_owned(),
        other => camel(other),
    };
    text.lines().zip(1..).find_map(|(line, number)| {
        let word: String = line
            .trim_start()
            .trim_start_matches(['"', '['])
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        (word == key || word.strip_suffix("Ms") == Some(&key)).then_some((number, line))
    })
}

fn camel(snake: &str) -> String {
    let mut words = snake.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut out, word| {
        let mut chars = word.chars();
        out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
        out.push_str(chars.as_str());
        out
    })
}

fn read(file: &Path) -> Result<String, Failure> {
    if file.as_os_str() == "-" {
        return cron_add::read("-");
    }
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(MAX_SPEC).read_to_string(&mut text));
    read.map_err(|error| Failure::file("read", file, &error))?;
    Ok(text)
}

#[cfg(test)]
mod tests;
