//! `creel cron next`: when an expression is due. Pure arithmetic, no stack.

use creel_schedule::{
    DstPolicy, DstSkip, Moment, OccurrenceKind, ScheduleError, ScheduleSpec, Syntax, ZoneSources, Zones,
    parse_time,
};
use serde::Serialize;

use super::cron_spec;
use crate::{args::cron::Next, context::Context, failure::Failure, times, views::schedule::invalid};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct NextView {
    expression: String,
    zone: String,
    dst: DstPolicy,
    syntax: Syntax,
    schedule_text: String,
    zone_data_version: String,
    next: Vec<InstantView>,
    skips: Vec<SkipView>,
    /// Nothing comes after the last of them.
    ends: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct InstantView {
    at: Option<String>,
    at_ms: i64,
    /// As the zone's clocks show it, with its offset.
    local: String,
    /// `regular`, or what a clock change made of it.
    kind: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SkipView {
    at: Option<String>,
    at_ms: i64,
    gap_start: String,
    gap_end: String,
    count: u64,
}

pub(super) fn run(context: &mut Context, args: &Next) -> Result<(), Failure> {
    let local = context.local();
    let zones = Zones::load(&ZoneSources::of_this_machine());
    let name = match &args.tz {
        Some(zone) => zone.clone(),
        None => cron_spec::own_zone(&local)?,
    };
    let view = view(args, &name, local.now, &zones)?;
    if context.out.is_json() {
        return context.out.json(&view);
    }
    context.out.note(&format!(
        "{} · zone data {}",
        view.schedule_text, view.zone_data_version
    ));
    for skip in &view.skips {
        let (n, from, to) = (skip.count, spaced(&skip.gap_start), spaced(&skip.gap_end));
        context
            .out
            .note(&format!("clocks leave out {from} to {to}: {n} skipped"));
    }
    for one in &view.next {
        let mark = match one.kind {
            "after_gap" => "  (clocks leave its time out)",
            "first_pass" => "  (clocks show it twice: the first)",
            "second_pass" => "  (clocks show it twice: the second)",
            _ => "",
        };
        context.out.line(&format!("{}{mark}", one.local))?;
    }
    if view.next.is_empty() {
        context.out.note("never");
    }
    Ok(())
}

/// A reading as people write it.
fn spaced(reading: &str) -> String {
    let reading = reading.replacen('T', " ", 1);
    reading.strip_suffix(":00").unwrap_or(&reading).to_owned()
}

fn view(args: &Next, zone: &str, now: jiff::Timestamp, zones: &Zones) -> Result<NextView, Failure> {
    let (dst, syntax) = cron_spec::reading_rules(args.dst, args.syntax);
    let (dst, syntax) = (dst.unwrap_or_default(), syntax.unwrap_or_default());
    let spec = ScheduleSpec::Cron {
        expr: args.expression.clone(),
        zone: zone.to_owned(),
        dst,
        syntax,
    };
    let schedule = spec.resolve(zones, now).map_err(|error| {
        let field = if matches!(error, ScheduleError::Zone(_)) {
            "tz"
        } else {
            "expression"
        };
        let hint = error.hint();
        invalid(field, &error, hint)
    })?;
    let zone = zones
        .get(zone)
        .map_err(|error| invalid("tz", &error, Some(error.hint())))?;
    let after = match &args.after {
        None => now,
        Some(text) => {
            let text = text.trim();
            let midnight = if cron_spec::is_date(text) { " 00:00" } else { "" };
            let moment = parse_time(&format!("{text}{midnight}"), now, Some(&zone))
                .map_err(|error| invalid("after", &error, Some(error.hint())))?;
            Moment::instant(&moment).ok_or_else(|| Failure::usage("--after lies beyond the year 9999"))?
        }
    };
    let preview = schedule.preview(after, usize::from(args.count));
    Ok(NextView {
        expression: args.expression.clone(),
        zone: zone.name().to_owned(),
        dst,
        syntax,
        schedule_text: schedule.describe(),
        zone_data_version: zones.zone_data_version().to_string(),
        next: preview
            .occurrences
            .iter()
            .map(|one| {
                let at_ms = one.nominal.as_millisecond();
                let local = zone
                    .at(one.nominal)
                    .strftime("%a %Y-%m-%d %H:%M:%S %:z %Z")
                    .to_string();
                let kind = match one.kind {
                    OccurrenceKind::Regular => "regular",
                    OccurrenceKind::AfterGap => "after_gap",
                    OccurrenceKind::FirstPass => "first_pass",
                    OccurrenceKind::SecondPass => "second_pass",
                };
                InstantView {
                    at: times::rfc3339(at_ms),
                    at_ms,
                    local,
                    kind,
                }
            })
            .collect(),
        skips: preview
            .skips
            .iter()
            .filter(|skip| skip.reason.is_recorded())
            .map(skip)
            .collect(),
        ends: preview.ends,
    })
}

fn skip(skip: &DstSkip) -> SkipView {
    let at_ms = skip.at.as_millisecond();
    SkipView {
        at: times::rfc3339(at_ms),
        at_ms,
        gap_start: skip.gap_start.to_string(),
        gap_end: skip.gap_end.to_string(),
        count: skip.count,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use creel_wire::Code;

    use super::*;
    use crate::args::{Cli, Command, cron::Cron};

    fn next(expression: &str, zone: &str, after: &str) -> Result<Vec<String>, Failure> {
        let now = crate::times::tests::berlin().now;
        let view = view(&args(expression, zone, after, &[]), zone, now, &Zones::bundled())?;
        Ok(view.next.into_iter().filter_map(|one| one.at).collect())
    }

    fn args(expression: &str, zone: &str, after: &str, more: &[&str]) -> Next {
        let args = [
            "creel", "cron", "next", expression, "--tz", zone, "--after", after, "-n", "3",
        ];
        match Cli::try_parse_from(args.iter().chain(more)).unwrap().command {
            Command::Cron(Cron::Next(next)) => next,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_rules_of_a_job_can_be_asked_for() {
        let at = |expression: &str, more: &[&str]| {
            let args = args(expression, "Europe/Berlin", "2027-03-27", more);
            let now = crate::times::tests::berlin().now;
            let view = view(&args, "Europe/Berlin", now, &Zones::bundled()).unwrap();
            (view.next[1].at.clone().unwrap(), view.skips.len())
        };
        assert_eq!(at("30 2 * * *", &[]), ("2027-03-28T01:00:00Z".into(), 0));
        assert_eq!(
            at("30 2 * * *", &["--dst", "skip"]),
            ("2027-03-29T00:30:00Z".into(), 1)
        );
        let quartz = at("15 30 2 * * ?", &["--syntax", "quartz", "--dst", "both"]);
        assert_eq!(quartz, ("2027-03-29T00:30:15Z".into(), 1));
        assert_eq!(spaced("2011-12-30T00:00:00"), "2011-12-30 00:00");
    }

    #[test]
    fn instants_cross_a_clock_change() {
        let found = next("30 2 * * *", "Europe/Berlin", "2027-03-27T00:00:00Z").unwrap();
        assert_eq!(
            found,
            [
                "2027-03-27T01:30:00Z",
                "2027-03-28T01:00:00Z",
                "2027-03-29T00:30:00Z"
            ]
        );
        let same = next("30 2 * * *", "Europe/Berlin", "2027-03-27 01:00").unwrap();
        assert_eq!(found, same, "a reading counts in the zone asked about");
    }

    #[test]
    fn what_can_not_be_right_names_its_field() {
        for (expression, zone, after, field) in [
            ("61 * * * *", "UTC", "in 1h", "expression"),
            ("* * * * *", "Europe/Berln", "in 1h", "tz"),
            ("* * * * *", "UTC", "soon", "after"),
        ] {
            let failure = next(expression, zone, after).unwrap_err();
            let error = failure.error().unwrap();
            assert_eq!(
                (error.code, error.field.as_deref()),
                (Code::InvalidArgument, Some(field))
            );
            assert!(error.hint.is_some() || field == "expression", "{error:?}");
        }
    }
}
