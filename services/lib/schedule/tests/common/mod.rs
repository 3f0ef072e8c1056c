//! The rule of `reference/scheduler.md` §3.2 a second time, as plainly as it can be written: sets by listing,
//! days by asking jiff, firing minute by minute. Slow, and nothing in common with the code under test.

#![allow(dead_code, reason = "every test binary uses a part of it")]

pub(crate) mod random;

use creel_schedule::DstPolicy;
use jiff::Timestamp;
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;

const MONTHS: &str = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC";
const WEEKDAYS: &str = "SUN MON TUE WED THU FRI SAT";

/// Zones whose clocks do something special, and some that don't.
pub(crate) const SPECIAL_ZONES: [&str; 18] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Europe/Dublin",
    "Australia/Lord_Howe", // half an hour
    "Pacific/Apia",        // left out 2011-12-30
    "Antarctica/Troll",    // two hours
    "Africa/Casablanca",   // twice a year for Ramadan, listed to 2087
    "America/Sao_Paulo",   // at midnight, until 2019
    "America/Havana",      // at midnight
    "Africa/Cairo",        // at midnight, again since 2023
    "Asia/Tehran",         // at midnight, until 2022
    "America/Santiago",    // at midnight
    "America/St_Johns",    // at 00:01 until 2011
    "Pacific/Chatham",     // at 02:45
    "Asia/Pyongyang",      // half an hour before midnight, 2018
    "America/Caracas",     // half an hour, 2016
    "Asia/Kathmandu",      // +05:45
];

/// An expression as the rule sees it.
pub(crate) struct Rule {
    pub(crate) minutes: [bool; 60],
    pub(crate) hours: [bool; 24],
    pub(crate) fixed: bool,
    fields: Vec<String>,
}

impl Rule {
    /// Reads a valid five-field expression.
    pub(crate) fn of(expr: &str) -> Rule {
        let fields: Vec<String> = expr.split_whitespace().map(str::to_uppercase).collect();
        let mut minutes = [false; 60];
        let mut hours = [false; 24];
        listed(&fields[0], 0, 59, "")
            .iter()
            .for_each(|value| minutes[*value] = true);
        listed(&fields[1], 0, 23, "")
            .iter()
            .for_each(|value| hours[*value] = true);
        let fixed = !fields[0].starts_with('*') && !fields[1].starts_with('*');
        Rule {
            minutes,
            hours,
            fixed,
            fields,
        }
    }

    pub(crate) fn matches_day(&self, day: Date) -> bool {
        let month = listed(&self.fields[3], 1, 12, MONTHS).contains(&(day.month() as usize));
        let by_date = self.fields[2].split(',').any(|item| match item {
            "L" => day == day.last_of_month(),
            "LW" => {
                let workday = |day: &Date| !matches!(day.weekday().to_sunday_zero_offset(), 0 | 6);
                let last = (1..=31)
                    .rev()
                    .filter_map(|d| Date::new(day.year(), day.month(), d).ok())
                    .find(workday);
                Some(day) == last
            }
            item => listed(item, 1, 31, "").contains(&(day.day() as usize)),
        });
        let weekday = day.weekday().to_sunday_zero_offset() as usize;
        let same_weekday = |text: &str| {
            listed(text, 0, 7, WEEKDAYS)
                .iter()
                .any(|value| value % 7 == weekday)
        };
        let by_weekday = self.fields[4].split(',').any(|item| {
            if let Some((which, nth)) = item.split_once('#') {
                same_weekday(which) && (day.day() - 1) / 7 + 1 == nth.parse::<i8>().unwrap()
            } else if let Some(which) = item.strip_suffix('L') {
                same_weekday(which) && day.day() + 7 > day.days_in_month()
            } else {
                same_weekday(item)
            }
        });
        let both = self.fields[2].starts_with('*') || self.fields[4].starts_with('*');
        month
            && if both {
                by_date && by_weekday
            } else {
                by_date || by_weekday
            }
    }

    /// Whether any day of 28 years without a century seam matches: those years are all kinds of year.
    pub(crate) fn ever(&self) -> bool {
        date(2001, 1, 1)
            .series(jiff::Span::new().days(1))
            .take(28 * 366)
            .any(|day| self.matches_day(day))
    }
}

/// The values a field text lists.
fn listed(text: &str, min: usize, max: usize, names: &str) -> Vec<usize> {
    let value = |text: &str| {
        let named = names
            .split(' ')
            .position(|name| name == text)
            .map(|index| index + min);
        named.unwrap_or_else(|| text.parse().unwrap())
    };
    let mut values = Vec::new();
    for item in text.split(',') {
        let (base, step) = item.split_once('/').unwrap_or((item, "1"));
        let (start, mut end) = match base.split_once('-') {
            _ if base == "*" => (min, max),
            Some((start, end)) => (value(start), value(end)),
            None => (value(base), value(base)),
        };
        if end < start && base.ends_with("SUN") {
            end = 7;
        }
        // Sunday is one value of a stepped `*`, not two.
        let end = if base == "*" && max == 7 { 6 } else { end };
        values.extend((start..=end).step_by(step.parse().unwrap()));
    }
    values
}

/// Longest gap after which a fixed time is still made up for, in minutes.
const LONGEST_SHIFT: i64 = 180;

/// Walks every minute of `start..end` (whole minutes) in a zone and reports those at which the rules fire. Start
/// at least 27 hours early: what was read before is not known.
pub(crate) fn walk(
    zone: &TimeZone,
    rules: &[(&Rule, DstPolicy)],
    start: Timestamp,
    end: Timestamp,
    mut fire: impl FnMut(usize, i64),
) {
    let minutes = start.as_second() / 60..end.as_second() / 60;
    // Civil minutes a clock has shown or jumped over, from two days before the first.
    let base = minutes.start - 2_880;
    let mut passed = vec![false; (minutes.end - base + 2_880) as usize];
    let mut last_civil = None;
    let mut day = i64::MIN;
    let mut day_matches = vec![false; rules.len()];
    let matches_on = |day: i64| {
        let date = date(1970, 1, 1).checked_add(jiff::Span::new().days(day)).unwrap();
        rules
            .iter()
            .map(|(rule, _)| rule.matches_day(date))
            .collect::<Vec<bool>>()
    };
    let matches_time = |rule: &Rule, civil: i64| {
        rule.minutes[civil.rem_euclid(60) as usize]
            && rule.hours[civil.div_euclid(60).rem_euclid(24) as usize]
    };

    for minute in minutes {
        let offset = zone
            .to_offset(Timestamp::from_second(minute * 60).unwrap())
            .seconds();
        assert_eq!(offset % 60, 0, "this walk reads whole minutes");
        let civil = minute + i64::from(offset / 60);
        let jumped = last_civil.map_or(0..0, |last: i64| last + 1..civil);
        let seen = passed[(civil - base) as usize];
        if civil.div_euclid(1_440) != day {
            day = civil.div_euclid(1_440);
            day_matches = matches_on(day);
        }
        for (index, (rule, dst)) in rules.iter().enumerate() {
            let shows = day_matches[index] && matches_time(rule, civil);
            if !shows && jumped.is_empty() {
                continue;
            }
            let once = rule.fixed && *dst != DstPolicy::Both;
            let missed = once
                && *dst == DstPolicy::Vixie
                && jumped.end - jumped.start <= LONGEST_SHIFT
                && jumped.clone().any(|civil| {
                    !passed[(civil - base) as usize]
                        && matches_time(rule, civil)
                        && matches_on(civil.div_euclid(1_440))[index]
                });
            if missed || (shows && !(once && seen)) {
                fire(index, minute * 60);
            }
        }
        jumped.for_each(|civil| passed[(civil - base) as usize] = true);
        passed[(civil - base) as usize] = true;
        last_civil = Some(civil);
    }
}
