//! Proleptic Gregorian arithmetic on whole numbers.
//!
//! jiff's civil types check and carry nanoseconds on every step; the day scan of [`crate::fields`] needs a
//! few thousand million of these steps per simulated century, so it works on plain day and second counts.
//! A *civil second* is the number of seconds a wall clock shows since it showed 1970-01-01 00:00:00.

use jiff::civil::DateTime;

/// Seconds of a civil day.
pub(crate) const DAY_SECONDS: i64 = 86_400;

/// Seconds of 400 Gregorian years: after that many, dates and weekdays repeat exactly.
pub(crate) const CYCLE_SECONDS: i64 = 146_097 * DAY_SECONDS;

const CYCLE_DAYS: i64 = 146_097;

/// Days from 0000-03-01 to 1970-01-01. Years are counted from March so that the leap day comes last.
const EPOCH_FROM_MARCH: i64 = 719_468;

/// Days since 1970-01-01 of a date; `month` is 1 to 12, `day` may run past the month's end.
pub(crate) fn day_number(year: i64, month: u32, day: u32) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let cycle = year.div_euclid(400);
    let year = year.rem_euclid(400);
    let in_year = i64::from((153 * month + 2) / 5) + i64::from(day) - 1;
    cycle * CYCLE_DAYS + year * 365 + year / 4 - year / 100 + in_year - EPOCH_FROM_MARCH
}

/// Year, month (1 to 12) and day (1 to 31) of a day number.
pub(crate) fn date_of(day_number: i64) -> (i64, u32, u32) {
    let days = day_number + EPOCH_FROM_MARCH;
    let cycle = days.div_euclid(CYCLE_DAYS);
    let days = days.rem_euclid(CYCLE_DAYS);
    // Remove the leap days passed so far; what is left counts in years of 365.
    let year = (days - days / 1_460 + days / 36_524 - days / 146_096) / 365;
    let in_year = days - (365 * year + year / 4 - year / 100);
    let month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month + 2) / 5 + 1;
    let year = cycle * 400 + year;
    // In range by construction: month is 0..=11 and day is 1..=31.
    if month < 10 {
        (year, month as u32 + 3, day as u32)
    } else {
        (year + 1, month as u32 - 9, day as u32)
    }
}

/// Days of a month, 28 to 31.
pub(crate) fn month_length(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Weekday of a day number, 0 = Sunday.
pub(crate) fn weekday_of(day_number: i64) -> u32 {
    // 1970-01-01 was a Thursday; rem_euclid(7) is 0..=6.
    (day_number + 4).rem_euclid(7) as u32
}

/// The civil second a clock reading stands for; fractions of a second are dropped.
pub(crate) fn civil_second(reading: DateTime) -> i64 {
    let month = u32::from(reading.month().unsigned_abs());
    let day = u32::from(reading.day().unsigned_abs());
    day_number(i64::from(reading.year()), month, day) * DAY_SECONDS
        + i64::from(reading.hour()) * 3_600
        + i64::from(reading.minute()) * 60
        + i64::from(reading.second())
}

/// The clock reading of a civil second, or `None` outside the years -9999 to 9999.
pub(crate) fn reading_of(civil_second: i64) -> Option<DateTime> {
    let day = civil_second.div_euclid(DAY_SECONDS);
    let in_day = civil_second.rem_euclid(DAY_SECONDS);
    let (year, month, date) = date_of(day);
    DateTime::new(
        i16::try_from(year).ok()?,
        i8::try_from(month).ok()?,
        i8::try_from(date).ok()?,
        i8::try_from(in_day / 3_600).ok()?,
        i8::try_from(in_day / 60 % 60).ok()?,
        i8::try_from(in_day % 60).ok()?,
        0,
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn every_day_of_five_centuries_agrees_with_jiff() {
        let mut expected = date(1799, 12, 30);
        let mut number = day_number(1799, 12, 30);
        while expected.year() < 2300 {
            let (year, month, day) = date_of(number);
            assert_eq!(
                (year, month as i8, day as i8),
                (expected.year().into(), expected.month(), expected.day())
            );
            assert_eq!(day_number(year, month, day), number);
            assert_eq!(
                weekday_of(number),
                u32::from(expected.weekday().to_sunday_zero_offset().unsigned_abs())
            );
            assert_eq!(month_length(year, month) as i8, expected.days_in_month());
            expected = expected.tomorrow().unwrap();
            number += 1;
        }
    }

    #[test]
    fn readings_survive_the_round_trip() {
        for reading in [
            date(-9999, 1, 1).at(0, 0, 0, 0),
            date(1970, 1, 1).at(0, 0, 0, 0),
            date(9999, 12, 31).at(23, 59, 59, 0),
        ] {
            assert_eq!(reading_of(civil_second(reading)), Some(reading));
        }
        assert_eq!(civil_second(date(1970, 1, 2).at(0, 0, 1, 0)), 86_401);
        assert_eq!(reading_of(i64::MAX), None);
    }
}
