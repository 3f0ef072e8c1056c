//! Durations and times as people type them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::ToSpan as _;
use jiff::civil::{DateTime, Time};

use crate::schedule::Moment;
use crate::zone::Zone;

/// Longest text read; the longest sensible one is a third of it.
const MAX_TEXT_BYTES: usize = 128;

/// Units in descending size, with their milliseconds.
const UNITS: [(&str, u64); 6] = [
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Why a duration could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DurationError {
    /// Nothing but blanks.
    #[error("the duration is empty")]
    Empty,
    /// Too long to be one.
    #[error("the duration is longer than {MAX_TEXT_BYTES} bytes")]
    TooLong,
    /// No digits where a number should be.
    #[error("expected a whole number at byte {position}, as in `30s`, `5m` or `2h30m`")]
    Number {
        /// Byte offset of what stands there.
        position: usize,
    },
    /// A number without a unit.
    #[error("the whole number before byte {position} has no unit, as in `30s`, `5m` or `1h30m`")]
    NoUnit {
        /// Byte offset where the unit should be.
        position: usize,
    },
    /// Letters that are no unit.
    #[error("unknown unit `{unit}` at byte {position}: there are w, d, h, m, s, ms")]
    Unit {
        /// What was given.
        unit: String,
        /// Its byte offset.
        position: usize,
    },
    /// Units not in descending order, or one twice.
    #[error("the unit at byte {position} is out of order")]
    Order {
        /// Its byte offset.
        position: usize,
    },
    /// More than can be counted.
    #[error("the duration is too large")]
    TooLarge,
}

/// Why a time could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimeError {
    /// Neither RFC 3339 nor a reading nor `in …`.
    #[error("cannot read the time `{0}`")]
    Unreadable(String),
    /// The part after `in`.
    #[error("cannot read the duration after `in`")]
    Delay(#[source] DurationError),
    /// A clock reading without a zone.
    #[error("`{0}` is a clock reading and needs a zone")]
    ZoneMissing(String),
    /// Beyond the year 9999.
    #[error("the time is later than can be counted: the last is 9999-12-30T22:00Z")]
    OutOfRange,
}

impl TimeError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            TimeError::ZoneMissing(_) => {
                "add a zone such as `Europe/Berlin`, or an offset to the time".to_owned()
            }
            _ => {
                "write `07:00`, `tomorrow 07:00`, `2026-12-01 07:00`, `2026-12-01T07:00:00+01:00` or `in 20m`"
                    .to_owned()
            }
        }
    }
}

/// Reads `1s`, `5m`, `2h30m`, `1d`, `500ms`, `1w`: whole numbers with units in descending order, blanks between
/// parts allowed.
///
/// # Errors
/// [`DurationError`] with the byte offset from 0.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(DurationError::TooLong);
    }
    let mut total_ms: u64 = 0;
    let mut last_unit = u64::MAX;
    let mut rest = text.trim_start();
    if rest.is_empty() {
        return Err(DurationError::Empty);
    }
    while !rest.is_empty() {
        let position = text.len() - rest.len();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err(DurationError::Number { position });
        }
        let (number, after) = rest.split_at(digits);
        let letters = after
            .chars()
            .take_while(|c| c.is_alphabetic())
            .map(char::len_utf8)
            .sum();
        let (unit, after) = after.split_at(letters);
        let position = position + digits;
        if unit.is_empty() {
            return Err(DurationError::NoUnit { position });
        }
        let (_, unit_ms) = UNITS
            .into_iter()
            .find(|(name, _)| unit.eq_ignore_ascii_case(name))
            .ok_or_else(|| DurationError::Unit {
                unit: unit.to_owned(),
                position,
            })?;
        if unit_ms >= last_unit {
            return Err(DurationError::Order { position });
        }
        last_unit = unit_ms;
        total_ms = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(unit_ms))
            .and_then(|part_ms| total_ms.checked_add(part_ms))
            .ok_or(DurationError::TooLarge)?;
        rest = after.trim_start();
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes a number of milliseconds as [`parse_duration`] reads it, in days and smaller units: `1h30m`, `7d`, `0s`.
#[must_use]
pub fn spell_duration(ms: u64) -> String {
    let mut rest = ms;
    let mut text = String::new();
    // People count in days: a week is `7d`.
    for (unit, unit_ms) in UNITS.into_iter().filter(|(unit, _)| *unit != "w") {
        if rest >= unit_ms {
            text.push_str(&format!("{}{unit}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Reads the time of a one-shot: RFC 3339 (an instant), `2026-12-01 07:00` (a reading in `zone`; `T` and seconds
/// optional), `today 07:00`, `tomorrow 07:00`, `07:00` (the next time clocks there show it), or `in 20m` (counted
/// from `now`).
///
/// # Errors
/// [`TimeError`]; a reading without a `zone` is one.
pub fn parse_time(text: &str, now: Timestamp, zone: Option<&Zone>) -> Result<Moment, TimeError> {
    let trimmed = text.trim();
    let unreadable = || TimeError::Unreadable(trimmed.chars().filter(|c| !c.is_control()).take(48).collect());
    if trimmed.len() > MAX_TEXT_BYTES {
        return Err(unreadable());
    }
    if let Some(delay) = trimmed.strip_prefix("in ") {
        let delay = parse_duration(delay).map_err(TimeError::Delay)?;
        let instant = now.checked_add(delay).map_err(|_| TimeError::OutOfRange)?;
        return Ok(Moment::Instant(instant));
    }
    // jiff reads a timestamp only with an offset or `Z`, so a bare reading cannot pass for an instant here. Its
    // own `[Zone]` suffix is refused: the zone has a place of its own, where it is checked.
    if trimmed.contains('[') {
        return Err(unreadable());
    }
    if let Ok(instant) = trimmed.parse::<Timestamp>() {
        return Ok(Moment::Instant(instant));
    }
    let reading = if let Some((day, clock)) = day_and_clock(trimmed) {
        let zone = zone.ok_or_else(|| TimeError::ZoneMissing(trimmed.to_owned()))?;
        let today = zone.at(now).datetime();
        let days = match day {
            Day::Today => 0,
            Day::Tomorrow => 1,
            Day::Next => i64::from(clock <= today.time()),
        };
        let date = today
            .date()
            .checked_add(days.days())
            .map_err(|_| TimeError::OutOfRange)?;
        date.to_datetime(clock)
    } else {
        // A date alone would silently mean midnight.
        let reading = trimmed.parse::<DateTime>().ok();
        reading.filter(|_| trimmed.contains(':')).ok_or_else(unreadable)?
    };
    match zone {
        Some(zone) => Ok(Moment::Civil {
            reading,
            zone: zone.clone(),
        }),
        None => Err(TimeError::ZoneMissing(reading.to_string())),
    }
}

/// Which day a clock reading alone is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Day {
    Today,
    Tomorrow,
    /// The first that has it still to come.
    Next,
}

/// `today 07:00`, `tomorrow 07:00`, `07:00`.
fn day_and_clock(text: &str) -> Option<(Day, Time)> {
    let (day, clock) = match text.split_once(' ') {
        Some(("today", clock)) => (Day::Today, clock.trim_start()),
        Some(("tomorrow", clock)) => (Day::Tomorrow, clock.trim_start()),
        _ => (Day::Next, text),
    };
    // jiff would also read the clock out of a date and time.
    let plain = clock.contains(':') && clock.bytes().all(|b| b.is_ascii_digit() || b == b':');
    plain
        .then(|| clock.parse().ok())
        .flatten()
        .map(|clock| (day, clock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Zones;
    use jiff::civil::date;

    #[test]
    fn durations() {
        let cases = [
            ("1s", 1_000),
            ("5m", 300_000),
            ("2h30m", 9_000_000),
            (" 2h 30m ", 9_000_000),
            ("1d", 86_400_000),
            ("1w2d", 777_600_000),
            ("500MS", 500),
            ("1m1ms", 60_001),
            ("0s", 0),
        ];
        for (text, ms) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for (ms, text) in [
            (0, "0s"),
            (1, "1ms"),
            (5_400_000, "1h30m"),
            (86_400_000, "1d"),
            (604_861_500, "7d1m1s500ms"),
            (u64::MAX, "213503982334d14h25m51s615ms"),
        ] {
            assert_eq!(spell_duration(ms), text);
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)));
        }
        let unit = |unit: &str, position| DurationError::Unit {
            unit: unit.to_owned(),
            position,
        };
        let refused = [
            ("", DurationError::Empty),
            ("  ", DurationError::Empty),
            ("5", DurationError::NoUnit { position: 1 }),
            ("m", DurationError::Number { position: 0 }),
            ("-1s", DurationError::Number { position: 0 }),
            ("1.5h", DurationError::NoUnit { position: 1 }),
            ("1h -5m", DurationError::Number { position: 3 }),
            ("1fortnight", unit("fortnight", 1)),
            ("1µs", unit("µs", 1)),
            ("30m2h", DurationError::Order { position: 4 }),
            ("1s1s", DurationError::Order { position: 3 }),
            ("٥s", DurationError::Number { position: 0 }),
            ("18446744073709551616ms", DurationError::TooLarge),
            ("99999999999999w", DurationError::TooLarge),
        ];
        for (text, error) in refused {
            assert_eq!(parse_duration(text), Err(error), "{text}");
        }
        assert_eq!(parse_duration(&"1".repeat(200)), Err(DurationError::TooLong));
    }

    #[test]
    fn times() {
        let zone = Zones::bundled().get("Europe/Berlin").unwrap();
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let read = |text: &str| parse_time(text, now, Some(&zone));
        let instant = |text: &str| Ok(Moment::Instant(text.parse().unwrap()));
        let seven = Moment::Civil {
            reading: date(2026, 12, 1).at(7, 0, 0, 0),
            zone: zone.clone(),
        };
        assert_eq!(read("2026-12-01T07:00:00+01:00"), instant("2026-12-01T06:00:00Z"));
        assert_eq!(read("2026-12-01T06:00:00Z"), instant("2026-12-01T06:00:00Z"));
        assert_eq!(read("in 1h30m"), instant("2026-11-22T11:30:00Z"));
        assert_eq!(read(" 2026-12-01 07:00 "), Ok(seven.clone()));
        assert_eq!(read("2026-12-01T07:00:00"), Ok(seven.clone()));
        assert_eq!(seven.instant(), Some("2026-12-01T06:00:00Z".parse().unwrap()));
        assert!(matches!(
            parse_time("2026-12-01 07:00", now, None),
            Err(TimeError::ZoneMissing(_))
        ));
        assert!(matches!(read("in"), Err(TimeError::Unreadable(_))));
        assert!(matches!(
            read("in 5"),
            Err(TimeError::Delay(DurationError::NoUnit { .. }))
        ));
        assert!(matches!(read("in 9999999w"), Err(TimeError::OutOfRange)));
        // It is 11:00 there.
        for (text, day) in [
            ("12:00", 22),
            ("11:00", 23),
            ("07:00:30", 23),
            ("today 07:00", 22),
            ("tomorrow 12:00", 23),
        ] {
            let Ok(Moment::Civil { reading, .. }) = read(text) else {
                panic!("{text}: {:?}", read(text))
            };
            let clock = text.rsplit(' ').next().unwrap().parse().unwrap();
            assert_eq!(reading, date(2026, 11, day).to_datetime(clock), "{text}");
        }
        assert!(matches!(
            parse_time("07:00", now, None),
            Err(TimeError::ZoneMissing(_))
        ));
        for text in [
            "",
            "soon",
            "tomorrow",
            "tomorrow noon",
            "25:00",
            "7:00",
            "2026-12-01",
            "2026-02-30 07:00",
            "2026-12-01T07:00+01:00[Europe/Paris]",
        ] {
            assert!(matches!(read(text), Err(TimeError::Unreadable(_))), "{text}");
        }
    }
}
