//! A schedule in a few words, for summaries: `daily 07:00 Europe/Berlin`.
//!
//! Only shapes that can be said without loss are put into words; everything else is shown as its expression.

use crate::expr::{CronExpr, Syntax};
use crate::fields::{ALL_DATES, ALL_MONTHS, ALL_WEEKDAYS, Fields, Join, bits};
use crate::schedule::{Cron, DstPolicy, Every, EveryMode, Moment, Schedule};

const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Most times of day listed one by one.
const MAX_TIMES: u32 = 4;

impl Schedule {
    /// The schedule in words, or its expression if no words are exact.
    pub fn describe(&self) -> String {
        match self {
            Schedule::At(Moment::Instant(instant)) => format!("once {instant}"),
            Schedule::At(Moment::Civil { reading, zone }) => {
                let format = if reading.second() == 0 {
                    "%Y-%m-%d %H:%M"
                } else {
                    "%Y-%m-%d %H:%M:%S"
                };
                format!("once {} {zone}", reading.strftime(format))
            }
            Schedule::Every(every) => describe_every(every),
            Schedule::Cron(cron) => describe_cron(cron),
        }
    }
}

/// A time span in words, whole milliseconds: `1 h 30 min`; `0 s` for none.
#[must_use]
pub fn describe_span(ms: u64) -> String {
    let mut rest = ms;
    let mut parts = Vec::new();
    for (unit, unit_ms) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("min", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ] {
        if rest >= unit_ms {
            parts.push(format!("{} {unit}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    if parts.is_empty() {
        parts.push("0 s".to_owned());
    }
    parts.join(" ")
}

fn describe_every(every: &Every) -> String {
    let period = describe_span(every.period_ms());
    match every.mode() {
        EveryMode::FixedRate => format!("every {period}"),
        EveryMode::FixedDelay => format!("{period} after each run"),
    }
}

fn describe_cron(cron: &Cron) -> String {
    let words = in_words(&cron.expr).unwrap_or_else(|| {
        let syntax = if cron.expr.syntax() == Syntax::Quartz {
            "quartz"
        } else {
            "cron"
        };
        format!("{syntax} `{}`", cron.expr)
    });
    let dst = match cron.dst {
        DstPolicy::Vixie => "",
        DstPolicy::Skip => ", skipped by clock changes",
        DstPolicy::Both => ", twice when clocks go back",
    };
    // Wildcard expressions do the same under every policy.
    let dst = if cron.expr.is_fixed() { dst } else { "" };
    format!("{words} {}{dst}", cron.zone)
}

fn in_words(expr: &CronExpr) -> Option<String> {
    let fields = expr.fields();
    if fields.years.is_some() || fields.seconds != 1 {
        return None;
    }
    let days = days(fields)?;
    if fields.wildcard {
        // A repetition through the day; saying the days too would leave doubt which binds.
        return (days == "daily").then(|| repetition(fields)).flatten();
    }
    Some(format!("{days} {}", times(fields)?))
}

/// `every 15 min`, `hourly at :30`, `every 6 h at :00`.
fn repetition(fields: &Fields) -> Option<String> {
    let all_hours = (1 << 24) - 1;
    let minute_step = step(fields.minutes, 60);
    let one_minute = (fields.minutes.count_ones() == 1).then(|| fields.minutes.trailing_zeros());
    match (minute_step, one_minute, fields.hours) {
        (Some(1), _, hours) if hours == all_hours => Some("every minute".to_owned()),
        (Some(step), None, hours) if hours == all_hours => Some(format!("every {step} min")),
        (_, Some(minute), hours) if hours == all_hours => Some(format!("hourly at :{minute:02}")),
        (_, Some(minute), hours) => {
            let step = step(u64::from(hours), 24).filter(|step| *step < 24)?;
            Some(format!("every {step} h at :{minute:02}"))
        }
        _ => None,
    }
}

/// The n of "every n-th from 0" if the set is that and n divides the field.
fn step(set: u64, size: u32) -> Option<u32> {
    (1..=size).find(|step| {
        size.is_multiple_of(*step)
            && set
                == (0..size)
                    .step_by(*step as usize)
                    .fold(0, |set, value| set | 1 << value)
    })
}

/// `07:00`, `07:00, 19:00`.
fn times(fields: &Fields) -> Option<String> {
    if fields.hours.count_ones() * fields.minutes.count_ones() > MAX_TIMES {
        return None;
    }
    let times = bits(u64::from(fields.hours))
        .flat_map(|hour| bits(fields.minutes).map(move |minute| format!("{hour:02}:{minute:02}")));
    Some(times.collect::<Vec<_>>().join(", "))
}

/// `daily`, `Mon-Fri`, `monthly on 1, 15`, `yearly on 28 Jan`.
fn days(fields: &Fields) -> Option<String> {
    let days = &fields.days;
    let extended = days.nearest != 0 || days.last_workday || days.nth != [0; 5] || days.last_weekdays != 0;
    let all_dates = days.dates == ALL_DATES;
    let all_weekdays = days.weekdays == ALL_WEEKDAYS;
    let all_months = fields.months == ALL_MONTHS;
    if extended || (days.join == Join::Or && !(all_dates && all_weekdays)) {
        return None;
    }
    match (all_dates, all_weekdays, all_months) {
        (true, true, true) => Some("daily".to_owned()),
        (true, false, true) => Some(weekday_list(days.weekdays)),
        (false, true, true) => {
            let mut dates: Vec<String> = bits(u64::from(days.dates)).map(|date| date.to_string()).collect();
            if days.last {
                dates.push("the last day".to_owned());
            }
            Some(format!("monthly on {}", dates.join(", ")))
        }
        (false, true, false)
            if !days.last && days.dates.count_ones() == 1 && fields.months.count_ones() == 1 =>
        {
            // One bit of 1 to 12.
            let month = MONTHS[fields.months.trailing_zeros() as usize - 1];
            Some(format!("yearly on {} {month}", days.dates.trailing_zeros()))
        }
        _ => None,
    }
}

/// Runs of three or more as ranges, Monday first.
fn weekday_list(weekdays: u8) -> String {
    let order = [1, 2, 3, 4, 5, 6, 0];
    let mut parts: Vec<String> = Vec::new();
    let mut run: Vec<&str> = Vec::new();
    for day in order.map(Some).into_iter().chain([None]) {
        match day.filter(|day| weekdays >> day & 1 == 1) {
            Some(day) => run.push(WEEKDAYS[day]),
            None => match run.as_slice() {
                [first, _, .., last] => {
                    parts.push(format!("{first}-{last}"));
                    run.clear();
                }
                _ => parts.extend(run.drain(..).map(str::to_owned)),
            },
        }
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use crate::{ScheduleSpec, Zones};
    use jiff::Timestamp;

    fn described(json: &str) -> String {
        let spec: ScheduleSpec = serde_json::from_str(json).unwrap();
        spec.resolve(&Zones::bundled(), Timestamp::UNIX_EPOCH)
            .unwrap()
            .describe()
    }

    #[test]
    fn expressions() {
        let cases = [
            ("0 7 * * *", "daily 07:00"),
            ("@daily", "daily 00:00"),
            ("30 7,19 * * *", "daily 07:30, 19:30"),
            ("0 9 * * 1-5", "Mon-Fri 09:00"),
            ("0 9 * * SAT,SUN", "Sat, Sun 09:00"),
            ("0 9 * * 0-3", "Mon-Wed, Sun 09:00"),
            ("0 9 * * 1", "Mon 09:00"),
            ("0 6 1,15 * *", "monthly on 1, 15 06:00"),
            ("0 6 L * *", "monthly on the last day 06:00"),
            ("0 8 28 1 *", "yearly on 28 Jan 08:00"),
            ("* * * * *", "every minute"),
            ("*/15 * * * *", "every 15 min"),
            ("5 * * * *", "hourly at :05"),
            ("0 */6 * * *", "every 6 h at :00"),
            // Not sayable in words without loss.
            ("*/7 * * * *", "cron `*/7 * * * *`"),
            ("0 */7 * * *", "cron `0 */7 * * *`"),
            ("*/15 9-17 * * 1-5", "cron `*/15 9-17 * * 1-5`"),
            ("0 9 13 * 5", "cron `0 9 13 * 5`"),
            ("0 9 LW * *", "cron `0 9 LW * *`"),
            ("0 9 * * 5#3", "cron `0 9 * * 5#3`"),
            ("0 9 * 1-3 1", "cron `0 9 * 1-3 1`"),
            ("0 0-23 * * *", "cron `0 0-23 * * *`"),
        ];
        for (expr, expected) in cases {
            let json = format!(r#"{{"expr":"{expr}","tz":"Europe/Berlin"}}"#);
            assert_eq!(described(&json), format!("{expected} Europe/Berlin"));
        }
    }

    #[test]
    fn other_schedules() {
        let cases = [
            (r#"{"everyMs":1000}"#, "every 1 s"),
            (r#"{"everyMs":300000}"#, "every 5 min"),
            (
                r#"{"everyMs":5400000,"mode":"fixed_delay"}"#,
                "1 h 30 min after each run",
            ),
            (r#"{"everyMs":86401500}"#, "every 1 d 1 s 500 ms"),
            (
                r#"{"at":"2026-12-01 07:00","zone":"Europe/Berlin"}"#,
                "once 2026-12-01 07:00 Europe/Berlin",
            ),
            (r#"{"at":"2026-12-01T07:00:00Z"}"#, "once 2026-12-01T07:00:00Z"),
            (
                r#"{"expr":"0 7 * * *","tz":"UTC","dst":"both"}"#,
                "daily 07:00 UTC, twice when clocks go back",
            ),
            (
                r#"{"expr":"* * * * *","tz":"UTC","dst":"both"}"#,
                "every minute UTC",
            ),
            (
                r#"{"expr":"0 0 7 ? * MON-FRI","tz":"UTC","syntax":"quartz"}"#,
                "Mon-Fri 07:00 UTC",
            ),
            (
                r#"{"expr":"*/5 0 7 ? * 2","tz":"UTC","syntax":"quartz"}"#,
                "quartz `*/5 0 7 ? * 2` UTC",
            ),
        ];
        for (json, expected) in cases {
            assert_eq!(described(json), expected);
        }
    }
}
