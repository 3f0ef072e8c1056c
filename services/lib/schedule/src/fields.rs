//! The bit sets of an expression and the search for the next matching civil second.
//!
//! Nothing here knows zones or grammars: the parsers fill [`Fields`], the walk asks [`Fields::next`]. The search
//! goes by month masks, so it is bounded by the calendar (400 years) and typically ends in the first month.

use crate::calendar::{DAY_SECONDS, date_of, day_number, month_length, weekday_of};

/// How the day-of-month and day-of-week sets are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    /// Both must hold: one of the two fields begins with `*` (Vixie's star flag), and always in Quartz.
    And,
    /// Either may hold: both fields are restricted.
    Or,
}

/// The days of a month an expression names. Bit `d` of a day set is day `d`; weekday bits start at Sunday = 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Days {
    pub(crate) join: Join,
    /// Plain days, bits 1 to 31.
    pub(crate) dates: u32,
    /// `nW`: the weekday (Monday to Friday) nearest to day n within the month, bits 1 to 31.
    pub(crate) nearest: u32,
    /// `L`: the last day.
    pub(crate) last: bool,
    /// `LW`: the last day from Monday to Friday.
    pub(crate) last_workday: bool,
    /// Plain weekdays, bits 0 to 6.
    pub(crate) weekdays: u8,
    /// `w#n`: weekday sets by n - 1.
    pub(crate) nth: [u8; 5],
    /// `wL`: the last such weekday of the month.
    pub(crate) last_weekdays: u8,
}

impl Days {
    /// Every day.
    pub(crate) const ALL: Days = Days {
        join: Join::And,
        dates: ALL_DATES,
        nearest: 0,
        last: false,
        last_workday: false,
        weekdays: ALL_WEEKDAYS,
        nth: [0; 5],
        last_weekdays: 0,
    };

    /// The matching days of a month that has `length` days and begins on weekday `first`.
    fn mask(&self, length: u32, first: u32) -> u32 {
        let mut dates = self.dates;
        if self.last {
            dates |= 1 << length;
        }
        if self.last_workday {
            dates |= 1 << workday_near(length, length, first);
        }
        for day in bits(u64::from(self.nearest)).take_while(|day| *day <= length) {
            dates |= 1 << workday_near(day, length, first);
        }

        // One week of weekday bits, turned so that bit 0 is the first of the month, repeated five times.
        let week = turned(self.weekdays, first);
        let mut weekdays = (week * FIVE_WEEKS * 2) as u32;
        for (index, set) in (0u32..).zip(self.nth) {
            weekdays |= ((turned(set, first) << (7 * index)) * 2) as u32;
        }
        if self.last_weekdays != 0 {
            let start = length - 6;
            weekdays |= (turned(self.last_weekdays, (first + start - 1) % 7) << start) as u32;
        }

        let joined = match self.join {
            Join::And => dates & weekdays,
            Join::Or => dates | weekdays,
        };
        joined & (((1u64 << (length + 1)) - 2) as u32)
    }
}

/// Multiplying seven bits by this repeats them five times: bits 0, 7, 14, 21 and 28.
const FIVE_WEEKS: u64 = 0x1020_4081;
/// Bits 1 to 31.
pub(crate) const ALL_DATES: u32 = 0xffff_fffe;
/// Bits 0 to 6.
pub(crate) const ALL_WEEKDAYS: u8 = 0x7f;
/// Bits 1 to 12.
pub(crate) const ALL_MONTHS: u16 = 0x1ffe;

/// Years 1970 to 2100 as Quartz text names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Years([u64; 3]);

impl Years {
    const FIRST: i64 = 1970;
    /// The last year that can be named.
    pub(crate) const LAST: i64 = 2100;

    /// The set of the given years; those outside 1970 to 2100 are dropped.
    pub(crate) fn of(years: impl Iterator<Item = u32>) -> Years {
        let mut set = [0; 3];
        for year in years
            .map(i64::from)
            .filter(|year| (Self::FIRST..=Self::LAST).contains(year))
        {
            let index = (year - Self::FIRST) as usize;
            set[index / 64] |= 1 << (index % 64);
        }
        Years(set)
    }

    /// The first member that is `year` or later.
    fn from(&self, year: i64) -> Option<i64> {
        (year.max(Self::FIRST)..=Self::LAST).find(|year| {
            let index = (year - Self::FIRST) as usize;
            self.0[index / 64] >> (index % 64) & 1 == 1
        })
    }
}

/// A parsed expression as sets. The time sets and `months` are never empty (the parsers see to it).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) seconds: u64,
    pub(crate) minutes: u64,
    pub(crate) hours: u32,
    pub(crate) months: u16,
    pub(crate) days: Days,
    /// `None`: every year.
    pub(crate) years: Option<Years>,
    /// Whether minute or hour (in Quartz also second) text begins with `*`: the expression then follows real
    /// time instead of naming fixed civil times.
    pub(crate) wildcard: bool,
}

impl Fields {
    /// The first matching civil second at or after `from`, or `None` if the years end or none comes in 400 years.
    pub(crate) fn next(&self, from: i64) -> Option<i64> {
        let day = from.div_euclid(DAY_SECONDS);
        let (mut year, mut month, mut date) = date_of(day);
        let mut month_start = day - i64::from(date) + 1;
        if self.year_from(year)? == year && self.months >> month & 1 == 1 {
            let days = self.days.mask(month_length(year, month), weekday_of(month_start));
            if days >> date & 1 == 1
                && let Some(time) = self.time_from(from.rem_euclid(DAY_SECONDS))
            {
                return Some(day * DAY_SECONDS + time);
            }
            date += 1;
            let later = if date < 32 { days >> date << date } else { 0 };
            if later != 0 {
                return Some(self.first_of(month_start, later));
            }
        }
        let horizon = year + 400;
        loop {
            (year, month) = match bit_from(u64::from(self.months), month + 1) {
                Some(month) if self.year_from(year)? == year => (year, month),
                _ => (self.year_from(year + 1)?, u64::from(self.months).trailing_zeros()),
            };
            if year > horizon {
                return None;
            }
            month_start = day_number(year, month, 1);
            let days = self.days.mask(month_length(year, month), weekday_of(month_start));
            if days != 0 {
                return Some(self.first_of(month_start, days));
            }
        }
    }

    /// How many matching civil seconds lie in `from..until`.
    pub(crate) fn count(&self, from: i64, until: i64) -> u64 {
        let mut total = 0;
        let mut at = from;
        while let Some(found) = self.next(at).filter(|found| *found < until) {
            let day_end = (found.div_euclid(DAY_SECONDS) + 1) * DAY_SECONDS;
            let end = day_end.min(until);
            let ends_inside = if end == day_end {
                DAY_SECONDS
            } else {
                end.rem_euclid(DAY_SECONDS)
            };
            total += self.times_before(ends_inside) - self.times_before(found.rem_euclid(DAY_SECONDS));
            at = day_end;
        }
        total
    }

    /// Whether the calendar ever has a matching day. 28 years without a century seam hold all 14 kinds of year.
    pub(crate) fn ever(&self) -> bool {
        let has_day = |year: i64| {
            bits(u64::from(self.months)).any(|month| {
                let first = weekday_of(day_number(year, month, 1));
                self.days.mask(month_length(year, month), first) != 0
            })
        };
        match &self.years {
            None => (2001..=2028).any(has_day),
            Some(years) => {
                std::iter::successors(years.from(Years::FIRST), |year| years.from(year + 1)).any(has_day)
            }
        }
    }

    fn year_from(&self, year: i64) -> Option<i64> {
        match &self.years {
            None => Some(year),
            Some(years) => years.from(year),
        }
    }

    /// The first matching second of the first day in `days` of the month that starts at day `month_start`.
    fn first_of(&self, month_start: i64, days: u32) -> i64 {
        let day = month_start + i64::from(days.trailing_zeros()) - 1;
        let hour = i64::from(self.hours.trailing_zeros());
        let minute = i64::from(self.minutes.trailing_zeros());
        day * DAY_SECONDS + hour * 3_600 + minute * 60 + i64::from(self.seconds.trailing_zeros())
    }

    /// The first matching second of the day at or after `second`.
    fn time_from(&self, second: i64) -> Option<i64> {
        let (hour, minute, second) = clock(second);
        let at = |hour: u32, minute: u32, second: u32| i64::from(hour * 3_600 + minute * 60 + second);
        let first_second = self.seconds.trailing_zeros();
        if self.hours >> hour & 1 == 1 {
            if self.minutes >> minute & 1 == 1
                && let Some(second) = bit_from(self.seconds, second)
            {
                return Some(at(hour, minute, second));
            }
            if let Some(minute) = bit_from(self.minutes, minute + 1) {
                return Some(at(hour, minute, first_second));
            }
        }
        let hour = bit_from(u64::from(self.hours), hour + 1)?;
        Some(at(hour, self.minutes.trailing_zeros(), first_second))
    }

    /// How many matching times of day come before `second` (0 to 86,400).
    fn times_before(&self, second: i64) -> u64 {
        let (hour, minute, second) = clock(second);
        let below = |set: u64, bit: u32| u64::from((set & ((1u64 << bit) - 1)).count_ones());
        let per_minute = u64::from(self.seconds.count_ones());
        let per_hour = u64::from(self.minutes.count_ones()) * per_minute;
        let mut total = below(u64::from(self.hours), hour) * per_hour;
        if u64::from(self.hours) >> hour & 1 == 1 {
            total += below(self.minutes, minute) * per_minute;
            if self.minutes >> minute & 1 == 1 {
                total += below(self.seconds, second);
            }
        }
        total
    }
}

/// Hour (0 to 24), minute and second of a second of the day.
fn clock(second: i64) -> (u32, u32, u32) {
    let second = second as u32; // 0..=86,400 by the callers
    (second / 3_600, second / 60 % 60, second % 60)
}

/// The lowest set bit at or above `from`.
fn bit_from(set: u64, from: u32) -> Option<u32> {
    let rest = set.checked_shr(from).unwrap_or(0);
    (rest != 0).then(|| from + rest.trailing_zeros())
}

/// The set bits, ascending.
pub(crate) fn bits(mut set: u64) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        (set != 0).then(|| {
            let bit = set.trailing_zeros();
            set &= set - 1;
            bit
        })
    })
}

/// A weekday set turned so that bit 0 is weekday `first`.
fn turned(weekdays: u8, first: u32) -> u64 {
    let set = u64::from(weekdays);
    (set >> first | set << (7 - first)) & u64::from(ALL_WEEKDAYS)
}

/// The day from Monday to Friday nearest to `day`, never leaving a month of `length` days that begins on
/// weekday `first`.
fn workday_near(day: u32, length: u32, first: u32) -> u32 {
    match (first + day - 1) % 7 {
        6 if day > 1 => day - 1,
        6 => day + 2,
        0 if day < length => day + 1,
        0 => day - 2,
        _ => day,
    }
}
