//! `creel cron calendar`: what will run when, days down and hours across. The scheduler says which jobs there
//! are; the instants are arithmetic, as in `cron next`.

use std::collections::BTreeMap;

use creel_proto::scheduler::v1::Job;
use creel_schedule::{Zone, ZoneSources, Zones};
use creel_wire::error::printable;
use jiff::Timestamp;
use serde::Serialize;

use super::{cron_list, cron_spec};
use crate::{
    context::Context,
    failure::Failure,
    output::aligned,
    times::{self, Local},
    views::schedule::invalid,
};

mod cells;

use cells::{Cell, Drawn, cells, place};

/// Letters of jobs; further ones share the last sign.
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Fewer hours are no habit: late in the evening one is all that is left of a day.
const MANY_HOURS: usize = 6;

/// The sign of a job for which no letter is left.
const NO_LETTER: char = '*';

/// Jobs explained below the picture, and named in the lists under that; of more there is only the number.
const MAX_ROWS: usize = 100;
const MAX_NAMED: usize = 20;

/// All of it.
#[derive(Debug)]
struct Picture {
    zone: Zone,
    now: Timestamp,
    cells: Vec<Cell>,
    jobs: Vec<Drawn>,
    zone_data: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PictureView<'a> {
    zone: &'a str,
    zone_data_version: &'a str,
    from: Option<String>,
    until: Option<String>,
    jobs: &'a [Drawn],
    days: Vec<DayView>,
}

#[derive(Debug, Serialize)]
struct DayView {
    date: String,
    /// Only hours in which something is due.
    hours: Vec<HourView>,
}

#[derive(Debug, Serialize)]
struct HourView {
    hour: i8,
    /// When the hour begins.
    at: Option<String>,
    jobs: Vec<String>,
}

pub(super) async fn run(
    context: &mut Context,
    days: u8,
    zone: Option<&str>,
    prefix: Option<String>,
) -> Result<(), Failure> {
    let local = context.local();
    let name = zone.map_or_else(|| cron_spec::own_zone(&local), |zone| Ok(zone.to_owned()))?;
    let zones = Zones::load(&ZoneSources::of_this_machine());
    let zone = zones
        .get(&name)
        .map_err(|error| invalid("tz", &error, Some(error.hint())))?;
    let client = context.client().await?;
    let jobs = cron_list::all(&client, prefix.unwrap_or_default(), &[], "").await?;
    let picture = Picture::draw(&jobs, days, zone, &zones, local.now)?;
    if context.out.is_json() {
        return context.out.json(&picture.view());
    }
    for line in picture.lines(&local) {
        context.out.line(&line)?;
    }
    if jobs.is_empty() {
        context
            .out
            .note("no jobs; next: creel cron add briefing \"0 7 * * *\" \"Summarise my inbox\"");
    }
    Ok(())
}

impl Picture {
    fn draw(jobs: &[Job], days: u8, zone: Zone, zones: &Zones, now: Timestamp) -> Result<Self, Failure> {
        let cells = cells(&zone, now, days)?;
        let mut drawn: Vec<Drawn> = jobs.iter().map(|job| place(job, &cells, zones, now)).collect();
        drawn.sort_by(|a, b| {
            let key = |job: &Drawn| (job.cells.first().copied().unwrap_or(usize::MAX), job.name.clone());
            key(a).cmp(&key(b))
        });
        // The hour that runs now may be due no more.
        let whole = |cell: &Cell| cell.from < cell.until && cell.from > now;
        let to_come = cells.iter().filter(|cell| whole(cell)).count();
        let mut letters = LETTERS.chars();
        for job in &mut drawn {
            let due = job.cells.iter().filter(|index| whole(&cells[**index])).count();
            job.every_hour = due == to_come && due >= MANY_HOURS;
            if !job.every_hour && !job.cells.is_empty() {
                job.letter = Some(letters.next().unwrap_or(NO_LETTER));
            }
        }
        Ok(Self {
            zone,
            now,
            cells,
            jobs: drawn,
            zone_data: zones.zone_data_version().to_string(),
        })
    }

    /// Cell → the jobs due in it, in the order of their letters.
    fn by_cell(&self) -> BTreeMap<usize, Vec<&Drawn>> {
        let mut by_cell: BTreeMap<usize, Vec<&Drawn>> = BTreeMap::new();
        for job in &self.jobs {
            for cell in &job.cells {
                by_cell.entry(*cell).or_default().push(job);
            }
        }
        by_cell
    }

    fn lines(&self, local: &Local) -> Vec<String> {
        let (Some(first), Some(last)) = (self.cells.first(), self.cells.last()) else {
            return Vec::new();
        };
        let (from, to) = (
            first.date.strftime("%a %-d %b"),
            last.date.strftime("%a %-d %b %Y"),
        );
        let days = if first.date == last.date {
            to.to_string()
        } else {
            format!("{from} to {to}")
        };
        let mut lines = vec![format!("{days}, {}", self.zone.name())];
        let hours: String = (0..24).map(|hour| format!("{hour:02} ")).collect();
        lines.push(format!("       {}", hours.trim_end()));
        let by_cell = self.by_cell();
        for (day, cells) in self.cells.chunks(24).enumerate() {
            let date = cells.first().map(|cell| cell.date).unwrap_or_default();
            let mut line = format!("{} ", date.strftime("%a %e"));
            for (hour, cell) in cells.iter().enumerate() {
                let due = by_cell.get(&(day * 24 + hour)).map_or(&[][..], Vec::as_slice);
                line.push_str(&self.sign(cell, due));
            }
            lines.push(line.trim_end().to_owned());
        }
        lines.push(String::new());
        // By the clocks of the picture, not those of this machine.
        let clocks = Local {
            zone: self.zone.time_zone().clone(),
            now: local.now,
        };
        let drawn = self.jobs.iter().filter_map(|job| {
            let when = job.at_ms.map_or(job.schedule_text.as_str(), |_| "once");
            let next = clocks.show_opt(job.next_run_at_ms);
            Some(vec![
                job.letter?.to_string(),
                printable(&job.name, 20),
                printable(when, 29),
                next,
            ])
        });
        let rows: Vec<_> = drawn.clone().take(MAX_ROWS).collect();
        lines.extend(aligned(&rows));
        let more = drawn.skip(MAX_ROWS).count();
        if more > 0 {
            lines.push(format!("and {more} more: creel cron list --soonest"));
        }
        let named = |mut jobs: Vec<String>, what: &str| {
            let more = jobs.len().saturating_sub(MAX_NAMED);
            if more > 0 {
                jobs.truncate(MAX_NAMED);
                jobs.push(format!("and {more} more"));
            }
            (!jobs.is_empty()).then(|| format!("{what}: {}", jobs.join(", ")))
        };
        let every_hour = self.jobs.iter().filter(|job| job.every_hour);
        let every_hour = every_hour
            .map(|job| {
                format!(
                    "{} ({})",
                    printable(&job.name, 40),
                    printable(&job.schedule_text, 40)
                )
            })
            .collect();
        lines.extend(named(every_hour, "every hour"));
        let idle = self.jobs.iter().filter(|job| job.cells.is_empty());
        let idle = idle
            .map(|job| {
                let when = job
                    .next_run_at_ms
                    .map_or_else(|| job.phase.clone(), |at| format!("next {}", clocks.show(at)));
                format!("{} ({when})", printable(&job.name, 40))
            })
            .collect();
        lines.extend(named(idle, "not due"));
        lines
    }

    /// Three characters.
    fn sign(&self, cell: &Cell, due: &[&Drawn]) -> String {
        if cell.from >= cell.until {
            return "-- ".to_owned();
        }
        if cell.until <= self.now {
            return "   ".to_owned();
        }
        let mut letters: Vec<char> = due.iter().filter_map(|job| job.letter).collect();
        letters.dedup();
        match letters.as_slice() {
            [] => "·  ".to_owned(),
            [one] => format!("{one}  "),
            [one, two] => format!("{one}{two} "),
            [one, ..] => format!("{one}+ "),
        }
    }

    fn view(&self) -> PictureView<'_> {
        let by_cell = self.by_cell();
        let ms = |at: Timestamp| times::rfc3339(at.as_millisecond());
        let days = self.cells.chunks(24).enumerate().map(|(day, cells)| DayView {
            date: cells
                .first()
                .map(|cell| cell.date.to_string())
                .unwrap_or_default(),
            hours: cells
                .iter()
                .enumerate()
                .filter_map(|(hour, cell)| {
                    let due = by_cell.get(&(day * 24 + hour))?;
                    Some(HourView {
                        hour: cell.hour,
                        at: ms(cell.from),
                        jobs: due.iter().map(|job| job.name.clone()).collect(),
                    })
                })
                .collect(),
        });
        PictureView {
            zone: self.zone.name(),
            zone_data_version: &self.zone_data,
            from: self.cells.first().and_then(|cell| ms(cell.from)),
            until: self.cells.last().and_then(|cell| ms(cell.until)),
            jobs: &self.jobs,
            days: days.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use creel_proto::{
        scheduler::v1::{Cron, Every, JobSpec, Phase, Schedule as ProtoSchedule, schedule::Kind},
        time::{duration, timestamp},
    };
    use jiff::SignedDuration;

    use super::*;
    use crate::times::tests::berlin;

    fn job(name: &str, kind: Kind, phase: Phase, text: &str, next: Option<&str>) -> Job {
        Job {
            job_id: format!("id-{name}"),
            spec: Some(JobSpec {
                name: name.into(),
                schedule: Some(ProtoSchedule { kind: Some(kind) }),
                ..JobSpec::default()
            }),
            phase: phase.into(),
            schedule_text: text.into(),
            next_run_at: next.map(|at| timestamp(at.parse::<Timestamp>().unwrap().as_millisecond())),
            ..Job::default()
        }
    }

    fn cron(expression: &str) -> Kind {
        Kind::Cron(Cron {
            expression: expression.into(),
            zone: "Europe/Berlin".into(),
            ..Cron::default()
        })
    }

    fn every(ms: i64) -> Kind {
        Kind::Every(Every {
            period: Some(duration(ms)),
            ..Every::default()
        })
    }

    fn picture(jobs: &[Job], days: u8, now: &str) -> Picture {
        let zones = Zones::bundled();
        let zone = zones.get("Europe/Berlin").unwrap();
        Picture::draw(jobs, days, zone, &zones, now.parse().unwrap()).unwrap()
    }

    #[test]
    fn a_week_is_a_picture_of_eighty_columns() {
        let jobs = [
            job(
                "pulse",
                every(1_800_000),
                Phase::Succeeded,
                "every 30 min",
                Some("2026-11-22T10:30:00Z"),
            ),
            job(
                "report",
                cron("0 9 * * MON"),
                Phase::Scheduled,
                "Mon 09:00 Europe/Berlin",
                Some("2026-11-23T08:00:00Z"),
            ),
            job(
                "briefing",
                cron("0 7 * * *"),
                Phase::Scheduled,
                "daily 07:00 Europe/Berlin",
                Some("2026-11-23T06:00:00Z"),
            ),
            job(
                "inbox",
                cron("*/10 9-11 * * MON-FRI"),
                Phase::Failed,
                "every 10 minutes",
                Some("2026-11-23T08:00:00Z"),
            ),
            job(
                "ninth",
                cron("30 9 * * *"),
                Phase::Scheduled,
                "daily 09:30",
                Some("2026-11-23T08:30:00Z"),
            ),
            job("old", cron("0 1 * * *"), Phase::Paused, "daily 01:00", None),
        ];
        let picture = picture(&jobs, 3, "2026-11-22T10:00:00Z");
        let lines = picture.lines(&berlin());
        let expected = "\
Sun 22 Nov to Tue 24 Nov 2026, Europe/Berlin
       00 01 02 03 04 05 06 07 08 09 10 11 12 13 14 15 16 17 18 19 20 21 22 23
Sun 22                                  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·
Mon 23 ·  ·  ·  ·  ·  ·  ·  a  ·  b+ b  b  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·
Tue 24 ·  ·  ·  ·  ·  ·  ·  a  ·  bc b  b  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·  ·

a  briefing  daily 07:00 Europe/Berlin  Mon 23 Nov 07:00 CET
b  inbox     every 10 minutes           Mon 23 Nov 09:00 CET
c  ninth     daily 09:30                Mon 23 Nov 09:30 CET
d  report    Mon 09:00 Europe/Berlin    Mon 23 Nov 09:00 CET
every hour: pulse (every 30 min)
not due: old (paused)";
        assert_eq!(lines.join("\n"), expected);
        assert!(lines.iter().all(|line| line.chars().count() <= 80));
        let view = serde_json::to_value(picture.view()).unwrap();
        assert_eq!(view["days"][1]["date"], "2026-11-23");
        let nine = view["days"][1]["hours"]
            .as_array()
            .unwrap()
            .iter()
            .find(|hour| hour["hour"] == 9)
            .unwrap();
        assert_eq!(
            nine["jobs"],
            serde_json::json!(["pulse", "inbox", "ninth", "report"])
        );
        assert_eq!(nine["at"], "2026-11-23T08:00:00Z");
    }

    #[test]
    fn the_legend_goes_by_the_clocks_of_the_picture() {
        let next = Some("2026-11-23T06:00:00Z");
        let jobs = [job(
            "briefing",
            cron("0 7 * * *"),
            Phase::Scheduled,
            "daily 07:00",
            next,
        )];
        let zones = Zones::bundled();
        let zone = zones.get("America/New_York").unwrap();
        let picture = Picture::draw(&jobs, 2, zone, &zones, "2026-11-22T10:00:00Z".parse().unwrap()).unwrap();
        let lines = picture.lines(&berlin());
        assert_eq!(
            lines.last().unwrap(),
            "a  briefing  daily 07:00  Mon 23 Nov 01:00 EST"
        );
    }

    #[test]
    fn of_a_thousand_jobs_the_picture_stays_one() {
        let jobs = |expression: &'static str| {
            (0..1_000).map(move |n| {
                job(
                    &format!("{expression}{n:03}"),
                    cron(expression),
                    Phase::Scheduled,
                    "x",
                    None,
                )
            })
        };
        let jobs: Vec<Job> = jobs("0 7 * * *")
            .chain(jobs("0 * * * *"))
            .chain(jobs("0 0 1 1 *"))
            .collect();
        let lines = picture(&jobs, 1, "2026-11-22T00:00:00Z").lines(&berlin());
        assert_eq!(lines.len(), 3 + 1 + MAX_ROWS + 3);
        assert_eq!(lines[0], "Sun 22 Nov 2026, Europe/Berlin");
        assert!(lines.contains(&"and 900 more: creel cron list --soonest".to_owned()));
        for line in &lines[lines.len() - 2..] {
            assert!(line.ends_with(", and 980 more") && line.len() < 1_000, "{line}");
        }
    }

    #[test]
    fn an_hour_that_clocks_jump_over_is_no_hour_and_a_repeated_one_is_long() {
        let jobs = [job(
            "night",
            cron("30 2 * * *"),
            Phase::Scheduled,
            "daily 02:30",
            None,
        )];
        let spring = picture(&jobs, 1, "2027-03-27T23:30:00Z");
        let row = spring.lines(&berlin())[2].clone();
        assert!(row.starts_with("Sun 28 ·  ·  -- a  ·"), "{row}");
        let autumn = picture(&jobs, 1, "2026-10-24T22:30:00Z");
        assert_eq!(autumn.jobs[0].cells, [2], "once, in the first pass");
        let cell = autumn.cells[2];
        assert_eq!(
            cell.until.duration_since(cell.from),
            SignedDuration::from_hours(2)
        );
    }

    #[test]
    fn many_jobs_run_out_of_letters_and_not_of_room() {
        let jobs: Vec<Job> = (0..60)
            .map(|n| {
                job(
                    &format!("{n:02}"),
                    cron("0 7 * * *"),
                    Phase::Scheduled,
                    "daily",
                    None,
                )
            })
            .collect();
        let picture = picture(&jobs, 2, "2026-11-22T10:00:00Z");
        assert_eq!(
            picture
                .jobs
                .iter()
                .filter(|job| job.letter == Some(NO_LETTER))
                .count(),
            8
        );
        assert!(picture.lines(&berlin())[3].contains("a+ "));
    }
}
