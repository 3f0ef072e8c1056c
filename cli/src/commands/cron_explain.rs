//! `creel cron explain`: why a job ran, why it did not, and what is next.

use creel_proto::{
    scheduler::v1::{ExplainJobRequest, ExplainJobResponse, Explained, Finding, Instant, Run, RunKind},
    time,
};
use creel_wire::{Code, Error, error::printable};
use serde::Serialize;

use super::{cron_runs, cron_spec};
use crate::{
    context::Context,
    failure::Failure,
    stubs, times,
    times::Local,
    views::{
        at, at_ms,
        job::JobView,
        run::{RunView, duration_ms, status},
        text,
    },
};

/// See [`ExplainJobResponse`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExplainView {
    job: Option<JobView>,
    occurrence: Option<OccurrenceView>,
    findings: Vec<FindingView>,
    next: Vec<InstantView>,
    newest: Option<RunView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OccurrenceView {
    nominal_at: Option<String>,
    nominal_at_ms: Option<i64>,
    outcome: String,
    reason: Option<String>,
    text: String,
    run: Option<RunView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FindingView {
    reason: String,
    text: String,
    hint: Option<String>,
    until: Option<String>,
    until_ms: Option<i64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct InstantView {
    nominal_at: Option<String>,
    nominal_at_ms: Option<i64>,
    fires_at: Option<String>,
    fires_at_ms: Option<i64>,
    civil: Option<String>,
    reason: String,
    text: Option<String>,
}

pub(super) async fn run(context: &mut Context, job: String, at: Option<&str>) -> Result<(), Failure> {
    let local = context.local();
    let at = at
        .map(|text| cron_spec::instant(text, "at", &local))
        .transpose()?;
    let request = ExplainJobRequest {
        job,
        at: at.map(time::timestamp),
    };
    let client = context.client().await?;
    let answer = client
        .call(&request, |channel, request| async move {
            stubs::jobs(channel).explain(request).await
        })
        .await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(failure) => {
            let last = cron_runs::of_deleted(&client, &request.job, failure).await?;
            return Err(deleted(&last, &local));
        }
    };
    if context.out.is_json() {
        return context.out.json(&view(&answer));
    }
    for line in lines(&answer, &local) {
        context.out.line(&line)?;
    }
    Ok(())
}

/// Of a job that is not there any more only its runs are left.
fn deleted(last: &Run, local: &Local) -> Failure {
    let due = last.nominal_at.as_ref().map(time::unix_ms);
    let message = format!(
        "`{}` was deleted; its last run, due {}, {}",
        printable(&last.job_name, 128),
        due.map_or_else(|| "-".to_owned(), |due| local.show_seconds(due)),
        status(last)
    );
    Error::new(Code::NotFound, "job_deleted", message)
        .hint(format!("creel cron runs --job {}", last.job_id))
        .into()
}

fn view(answer: &ExplainJobResponse) -> ExplainView {
    ExplainView {
        job: answer.job.as_ref().map(JobView::from),
        occurrence: answer.occurrence.as_ref().map(|one| OccurrenceView {
            nominal_at: at(one.nominal_at.as_ref()),
            nominal_at_ms: at_ms(one.nominal_at.as_ref()),
            outcome: one.outcome.clone(),
            reason: text(&one.reason),
            text: one.text.clone(),
            run: one.run.as_ref().map(RunView::from),
        }),
        findings: answer
            .findings
            .iter()
            .map(|finding| FindingView {
                reason: finding.reason.clone(),
                text: finding.text.clone(),
                hint: text(&finding.hint),
                until: at(finding.until.as_ref()),
                until_ms: at_ms(finding.until.as_ref()),
            })
            .collect(),
        next: answer
            .next
            .iter()
            .map(|one| InstantView {
                nominal_at: at(one.nominal_at.as_ref()),
                nominal_at_ms: at_ms(one.nominal_at.as_ref()),
                fires_at: at(one.fires_at.as_ref()),
                fires_at_ms: at_ms(one.fires_at.as_ref()),
                civil: text(&one.civil),
                reason: one.reason.clone(),
                text: text(&one.text),
            })
            .collect(),
        newest: answer.newest.as_ref().map(RunView::from),
    }
}

fn lines(answer: &ExplainJobResponse, local: &Local) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(job) = &answer.job {
        let name = job
            .spec
            .as_ref()
            .map_or(job.job_id.as_str(), |spec| spec.name.as_str());
        lines.push(format!("{name}: {}", JobView::from(job).when(local)));
    }
    match &answer.occurrence {
        Some(one) => lines.extend(occurrence(one, local)),
        None if answer.newest.is_some() => lines.push("It has not been due yet.".to_owned()),
        None => lines.push("It has never been due.".to_owned()),
    }
    lines.extend(answer.newest.iter().flat_map(|run| newest(run, local)));
    if answer.findings.is_empty() {
        lines.push("Nothing keeps it from running.".to_owned());
    }
    for one in &answer.findings {
        lines.extend(finding(one, local));
    }
    if answer.next.is_empty() {
        lines.push("Nothing is to come.".to_owned());
    } else {
        lines.push("Next:".to_owned());
    }
    lines.extend(answer.next.iter().map(|one| next(one, local)));
    lines
}

fn occurrence(one: &Explained, local: &Local) -> Vec<String> {
    let at =
        at_ms(one.nominal_at.as_ref()).map_or_else(String::new, |ms| format!("{}: ", local.show_seconds(ms)));
    let mut lines = vec![format!("{at}{}", told(&one.text, &one.outcome))];
    lines.extend(one.run.iter().flat_map(ran));
    lines
}

/// A run that is not that of the occurrence, and why there is one.
fn newest(run: &Run, local: &Local) -> Vec<String> {
    let why = match run.kind() {
        RunKind::Manual => "it was run by hand",
        RunKind::Backfill => "a run of a backfill",
        RunKind::Probe => "it was tried after its quarantine",
        RunKind::Scheduled | RunKind::Alert | RunKind::Unspecified => "a run of its schedule",
    };
    let at = at_ms(run.admitted_at.as_ref()).map_or_else(|| "-".to_owned(), |ms| local.show_seconds(ms));
    let mut lines = vec![format!("Newest, {at}: {why}.")];
    lines.extend(ran(run));
    lines
}

/// What became of a run.
fn ran(run: &Run) -> Vec<String> {
    let took = duration_ms(run).map_or_else(String::new, |ms| format!(" in {}", times::took(ms)));
    let late = late_ms(run)
        .filter(|ms| *ms >= 1_000)
        .map_or_else(String::new, |ms| format!(", {} late", times::took(ms)));
    let mut lines = vec![format!("  run {}: {}{took}{late}", run.run_id, status(run))];
    if !run.error.is_empty() {
        lines.push(format!("  {}", printable(&run.error, 400)));
    }
    lines
}

/// How long after its time a run began.
fn late_ms(run: &Run) -> Option<i64> {
    Some(at_ms(run.started_at.as_ref())?.saturating_sub(at_ms(run.nominal_at.as_ref())?))
}

fn finding(one: &Finding, local: &Local) -> Vec<String> {
    let until = at_ms(one.until.as_ref()).map_or_else(String::new, |ms| {
        format!(" (until {}, {})", local.show_seconds(ms), local.distance(ms))
    });
    let mut lines = vec![format!("! {}{until}", told(&one.text, &one.reason))];
    if !one.hint.is_empty() {
        lines.push(format!("  next: {}", one.hint));
    }
    lines
}

fn next(one: &Instant, local: &Local) -> String {
    let nominal = at_ms(one.nominal_at.as_ref());
    let at = if one.civil.is_empty() {
        nominal.map_or_else(|| "-".to_owned(), |ms| local.show_seconds(ms))
    } else {
        one.civil.clone()
    };
    let distance = nominal.map_or_else(String::new, |ms| format!(" ({})", local.distance(ms)));
    // Jitter and backoff move the start, not the occurrence.
    let fires = at_ms(one.fires_at.as_ref())
        // Less than a second later is no news.
        .filter(|fires| nominal.is_none_or(|nominal| fires - nominal >= 1_000))
        .map_or_else(String::new, |ms| format!(", starts {}", local.show_seconds(ms)));
    let remark = match one.reason.as_str() {
        "due" => String::new(),
        reason => format!(": {}", told(&one.text, reason)),
    };
    format!("  {at}{distance}{fires}{remark}")
}

/// The sentence, or the word where there is none.
fn told<'a>(text: &'a str, word: &'a str) -> &'a str {
    if text.is_empty() { word } else { text }
}

#[cfg(test)]
mod tests {
    use creel_proto::{
        scheduler::v1::{Run, RunState},
        time::timestamp,
    };

    use super::*;
    use crate::{times::tests::berlin, views::job::tests::job};

    fn at(text: &str) -> Option<prost_types::Timestamp> {
        Some(timestamp(
            text.parse::<jiff::Timestamp>().unwrap().as_millisecond(),
        ))
    }

    fn answer() -> ExplainJobResponse {
        let run = Run {
            run_id: "ab".into(),
            state: RunState::Failed.into(),
            nominal_at: at("2026-11-22T06:00:00Z"),
            started_at: at("2026-11-22T06:31:00Z"),
            finished_at: at("2026-11-22T06:31:02Z"),
            error: "exit 3".into(),
            ..Run::default()
        };
        ExplainJobResponse {
            job: Some(job()),
            occurrence: Some(Explained {
                nominal_at: at("2026-11-22T06:00:00Z"),
                outcome: "ran".into(),
                reason: "backend_exited".into(),
                text: "It ran late: the machine was asleep.".into(),
                run: Some(run),
            }),
            findings: vec![Finding {
                reason: "backoff".into(),
                text: "It failed 2 times in a row.".into(),
                hint: "creel cron run tick".into(),
                until: at("2026-11-22T10:05:00Z"),
            }],
            next: vec![
                Instant {
                    nominal_at: at("2026-11-22T10:01:00Z"),
                    fires_at: at("2026-11-22T10:05:00Z"),
                    reason: "due".into(),
                    ..Instant::default()
                },
                Instant {
                    nominal_at: at("2027-03-28T01:00:00Z"),
                    fires_at: at("2027-03-28T01:00:00Z"),
                    civil: "2027-03-28 03:00 CEST".into(),
                    reason: "moved".into(),
                    text: "the clocks leave out 02:30".into(),
                },
            ],
            newest: None,
        }
    }

    #[test]
    fn an_answer_says_what_was_what_hinders_and_what_comes() {
        let expected = "\
tick: every minute
Sun 22 Nov 07:00:00 CET: It ran late: the machine was asleep.
  run ab: failed in 2.0s, 31m00s late
  exit 3
! It failed 2 times in a row. (until Sun 22 Nov 11:05:00 CET, in 5m)
  next: creel cron run tick
Next:
  Sun 22 Nov 11:01:00 CET (in 60s), starts Sun 22 Nov 11:05:00 CET
  2027-03-28 03:00 CEST (in 125d): the clocks leave out 02:30";
        assert_eq!(lines(&answer(), &berlin()).join("\n"), expected);
        let quiet = ExplainJobResponse::default();
        let told = lines(&quiet, &berlin()).join(" ");
        assert_eq!(
            told,
            "It has never been due. Nothing keeps it from running. Nothing is to come."
        );
        let tried = ExplainJobResponse {
            newest: Some(Run {
                kind: RunKind::Manual.into(),
                admitted_at: at("2026-11-22T06:00:00Z"),
                run_id: "cd".into(),
                state: RunState::Failed.into(),
                error: "exit 3".into(),
                ..Run::default()
            }),
            ..quiet
        };
        let told = lines(&tried, &berlin()).join("\n");
        let expected = "\
It has not been due yet.
Newest, Sun 22 Nov 07:00:00 CET: it was run by hand.
  run cd: failed
  exit 3
";
        assert!(told.starts_with(expected), "{told}");
        assert_eq!(
            serde_json::to_value(view(&tried)).unwrap()["newest"]["runId"],
            "cd"
        );
        let json = serde_json::to_value(view(&answer())).unwrap();
        assert_eq!(json["occurrence"]["run"]["durationMs"], 2_000);
        assert_eq!(json["findings"][0]["untilMs"], json["next"][0]["firesAtMs"]);
    }
}
