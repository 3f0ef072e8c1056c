//! `creel cron import`: jobs of Clawdbot and OpenClaw (`jobs.json`), of the seed's spelling, and our own
//! (`cron list --json`), with a table of what was taken and what was refused, and why.

mod convert;

use std::{collections::BTreeSet, io::Read as _, path::Path};

use creel_proto::scheduler::v1::{CreateJobRequest, CreateJobResponse};
use creel_wire::{Code, Error, error::printable};
use serde::Serialize;
use serde_json::{Map, Value};

use self::convert::{Origin, Taken};
use super::cron_spec;
use crate::{client::Client, context::Context, failure::Failure, stubs};

/// The largest file, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// Jobs of one file; no owner may have more.
const MAX_JOBS: usize = 10_000;

/// What stands in a file where a job should: an object, or the shape of something else.
type Entry = Result<Map<String, Value>, String>;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ImportView<'a> {
    dry_run: bool,
    taken: usize,
    unchanged: usize,
    refused: usize,
    jobs: &'a [Row],
}

/// What became of a job.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    id: Option<String>,
    outcome: Outcome,
    schedule_text: Option<String>,
    /// Why it was refused.
    reason: Option<String>,
    /// What was taken otherwise than it was written.
    notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Taken,
    Unchanged,
    Refused,
}

pub(super) async fn run(
    context: &mut Context,
    file: &Path,
    zone: Option<&str>,
    late_ok: bool,
    dry_run: bool,
) -> Result<(), Failure> {
    let local = context.local();
    let entries = entries(&read(file)?)?;
    let origin = Origin {
        zone: zone.map_or_else(|| cron_spec::own_zone(&local), |zone| Ok(zone.to_owned()))?,
        zone_is_ours: zone.is_none(),
        now: local.now,
        late_ok,
    };
    let client = context.client().await?;
    let mut names = BTreeSet::new();
    let mut rows = Vec::new();
    let mut broken = None;
    let nothing = Map::new();
    for (number, entry) in (1..).zip(&entries) {
        // One that is no job at all costs the others nothing.
        let (entry, taken) = match entry {
            Ok(entry) => (entry, convert::job(entry, number, &origin)),
            Err(shape) => (&nothing, Err(format!("it is {shape}, not a job"))),
        };
        let taken = taken.map(|taken| unique(taken, entry, &mut names));
        match one(&client, taken, entry, number, &origin, dry_run).await {
            Ok(row) => rows.push(row),
            // Not about this job: the rest would fare no better.
            Err(failure) => {
                broken = Some(failure);
                break;
            }
        }
    }
    show(context, &rows, dry_run)?;
    match broken {
        Some(failure) => Err(failure),
        None => verdict(&rows),
    }
}

/// Names of the original need not differ; here they must. The same file gives the same names again.
fn unique(mut taken: Taken, entry: &Map<String, Value>, names: &mut BTreeSet<String>) -> Taken {
    if !names.insert(taken.spec.name.clone()) {
        let id = entry.get("id").and_then(Value::as_str).unwrap_or_default();
        let short: String = id.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        let mut name = format!("{} {short}", taken.spec.name).trim_end().to_owned();
        let mut count = 2;
        while !names.insert(name.clone()) {
            name = format!("{} {count}", taken.spec.name);
            count += 1;
        }
        taken.notes.push(format!("`{}` was there twice", taken.spec.name));
        taken.spec.name = name;
    }
    taken
}

/// Creates one job; a refusal of it is its row, anything else ends the import.
async fn one(
    client: &Client,
    taken: Result<Taken, String>,
    entry: &Map<String, Value>,
    number: usize,
    origin: &Origin,
    dry_run: bool,
) -> Result<Row, Failure> {
    let refused = |name: String, reason: String, notes| Row {
        name,
        id: None,
        outcome: Outcome::Refused,
        schedule_text: None,
        reason: Some(reason),
        notes,
    };
    let Taken { spec, notes } = match taken {
        Ok(taken) => taken,
        Err(reason) => return Ok(refused(convert::name(entry, number), reason, Vec::new())),
    };
    let wire = match spec.wire(origin.now) {
        Ok(wire) => wire,
        Err(failure) => return Ok(refused(spec.name.clone(), message(&failure), notes)),
    };
    let request = CreateJobRequest {
        request_id: uuid::Uuid::now_v7().to_string(),
        validate_only: dry_run,
        spec: Some(wire),
        late_ok: origin.late_ok,
    };
    let answer = client
        .call(&request, |channel, request| async move {
            stubs::jobs(channel).create(request).await
        })
        .await;
    match answer {
        Ok(CreateJobResponse {
            job,
            unchanged,
            warnings,
        }) => {
            let job = job.unwrap_or_default();
            Ok(Row {
                name: spec.name,
                id: Some(job.job_id),
                outcome: if unchanged {
                    Outcome::Unchanged
                } else {
                    Outcome::Taken
                },
                schedule_text: Some(job.schedule_text),
                reason: None,
                notes: notes.into_iter().chain(warnings).collect(),
            })
        }
        Err(failure) if is_about_the_job(&failure) => Ok(refused(spec.name, message(&failure), notes)),
        Err(failure) => Err(failure),
    }
}

fn is_about_the_job(failure: &Failure) -> bool {
    matches!(
        failure.code(),
        Some(
            Code::InvalidArgument
                | Code::Conflict
                | Code::FailedPrecondition
                | Code::ResourceExhausted
                | Code::Unimplemented
        )
    )
}

fn message(failure: &Failure) -> String {
    failure.error().map_or_else(String::new, |error| {
        let field = error
            .field
            .as_ref()
            .filter(|field| !error.message.contains(field.as_str()));
        let field = field.map_or_else(String::new, |field| format!(" ({field})"));
        format!("{}{field}", error.message)
    })
}

fn show(context: &mut Context, rows: &[Row], dry_run: bool) -> Result<(), Failure> {
    let count = |outcome| rows.iter().filter(|row| row.outcome == outcome).count();
    let (taken, unchanged, refused) = (
        count(Outcome::Taken),
        count(Outcome::Unchanged),
        count(Outcome::Refused),
    );
    if context.out.is_json() {
        return context.out.json(&ImportView {
            dry_run,
            taken,
            unchanged,
            refused,
            jobs: rows,
        });
    }
    if rows.is_empty() {
        context.out.note("no jobs in there");
        return Ok(());
    }
    let cells: Vec<Vec<String>> = rows.iter().map(|row| cells(row, dry_run)).collect();
    context
        .out
        .table(&["NAME", "OUTCOME", "SCHEDULE", "WHY"], &cells)?;
    context.out.note(&format!(
        "{taken} taken, {unchanged} unchanged, {refused} refused"
    ));
    if dry_run {
        context.out.note("dry run: nothing was written");
    }
    Ok(())
}

fn cells(row: &Row, dry_run: bool) -> Vec<String> {
    let outcome = match row.outcome {
        Outcome::Taken if dry_run => "would be taken",
        Outcome::Taken => "taken",
        Outcome::Unchanged => "unchanged",
        Outcome::Refused => "refused",
    };
    let why: Vec<&str> = row.reason.iter().chain(&row.notes).map(String::as_str).collect();
    vec![
        row.name.clone(),
        outcome.to_owned(),
        row.schedule_text.clone().unwrap_or_else(|| "-".to_owned()),
        why.join("; "),
    ]
}

fn verdict(rows: &[Row]) -> Result<(), Failure> {
    let refused = rows.iter().filter(|row| row.outcome == Outcome::Refused).count();
    if refused == 0 {
        return Ok(());
    }
    let message = format!("{refused} of {} jobs were refused", rows.len());
    let error = Error::new(Code::FailedPrecondition, "partly_refused", message);
    Err(Failure::failed(error.hint(
        "mend them in the file and import it again (what was taken is left alone), or creel cron add them",
    )))
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_FILE).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::file("read", file, &error))?;
    Ok(text)
}

/// The jobs in a text: `{"jobs": […]}`, a list, one job, or one a line. What stands among them and is none is
/// there with its shape.
fn entries(text: &str) -> Result<Vec<Entry>, Failure> {
    let wrong = |why: String| {
        Failure::usage_hint(
            format!("no jobs can be read: {why}"),
            "give a jobs.json, or what creel cron list --json prints",
        )
    };
    let mut values = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        match value.map_err(|error| wrong(error.to_string()))? {
            Value::Array(list) => values.extend(list),
            Value::Object(mut object) => match object.remove("jobs") {
                Some(Value::Array(list)) => values.extend(list),
                // The older store keeps them by id.
                Some(Value::Object(by_id)) => values.extend(by_id.into_iter().map(|(_, job)| job)),
                Some(other) => return Err(wrong(format!("`jobs` is {}", shape(&other)))),
                None => values.push(Value::Object(object)),
            },
            other => return Err(wrong(format!("there is {}", shape(&other)))),
        }
    }
    if values.len() > MAX_JOBS {
        return Err(wrong(format!("{} jobs are more than {MAX_JOBS}", values.len())));
    }
    let objects = values.into_iter().map(|value| match value {
        Value::Object(object) => Ok(convert::unwrapped(object)),
        other => Err(shape(&other)),
    });
    Ok(objects.collect())
}

fn shape(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        other => printable(&other.to_string(), 32),
    }
}

#[cfg(test)]
mod tests;
