//! The five-field grammar, `reference/scheduler.md` §3.2 rules 1 to 4.
//!
//! ```text
//! field = item *("," item)
//! item  = "*" | value | value "-" value | "*" "/" step | value "-" value "/" step
//!       | "L" | "LW" | day "W"            day of month; the last with Dialect::Compat only
//!       | weekday "L" | weekday "#" 1-5   day of week
//!       | "?"                             both day fields, Dialect::Compat only
//! ```

use super::{Field, ParseError, Reason, Token, Warning, has_hash, tokens};
use crate::fields::{Days, Fields, Join};

/// Which of the forms that cron daemons reject are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Strict,
    Compat,
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [&str; 7] = [
    "sunday",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
];

/// The nicknames of crontab(5) but `@reboot`, which is not a time.
const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// Parses five fields or a nickname.
pub(super) fn parse(text: &str, dialect: Dialect) -> Result<(Fields, Option<Warning>), ParseError> {
    let tokens = tokens(text);
    match tokens.as_slice() {
        [] => Err(ParseError::new(Field::Expression, 0, Reason::Empty)
            .hint("five fields: minute hour day month weekday")),
        [word] if word.text.starts_with('@') => match NICKNAMES.iter().find(|(name, _)| *name == word.text) {
            Some((_, fields)) => parse(fields, Dialect::Strict),
            None => Err(unknown_nickname(*word)),
        },
        [minute, hour, date, month, weekday] => five(*minute, *hour, *date, *month, *weekday, dialect),
        other => Err(wrong_count(text, other)),
    }
}

fn five(
    minute: Token<'_>,
    hour: Token<'_>,
    date: Token<'_>,
    month: Token<'_>,
    weekday: Token<'_>,
    dialect: Dialect,
) -> Result<(Fields, Option<Warning>), ParseError> {
    let read = |field, token| {
        FieldReader {
            field,
            dialect,
            set: Set::default(),
        }
        .read(token)
    };
    let minutes = read(Field::Minute, minute)?;
    let hours = read(Field::Hour, hour)?;
    let dates = read(Field::DayOfMonth, date)?;
    let months = read(Field::Month, month)?;
    let weekdays = read(Field::DayOfWeek, weekday)?;

    let starred = |token: Token<'_>| token.text.starts_with(['*', '?']);
    let join = if starred(date) || starred(weekday) {
        Join::And
    } else {
        Join::Or
    };
    // The readers admit only values of their field, so every narrowing below keeps all bits.
    let days = Days {
        join,
        dates: dates.values as u32,
        nearest: dates.nearest,
        last: dates.last,
        last_workday: dates.last_workday,
        weekdays: (weekdays.values as u8 | (weekdays.values >> 7) as u8) & 0x7f,
        nth: weekdays.nth,
        last_weekdays: weekdays.last_weekdays,
    };
    let fields = Fields {
        seconds: 1,
        minutes: minutes.values,
        hours: hours.values as u32,
        months: months.values as u16,
        days,
        years: None,
        wildcard: starred(minute) || starred(hour),
    };
    if !fields.ever() {
        return Err(ParseError::new(Field::DayOfMonth, date.at, Reason::NeverFires));
    }
    let every = |token: Token<'_>| matches!(token.text, "*" | "?");
    let warning =
        (join == Join::And && !every(date) && !every(weekday)).then(|| Warning::DaysMustBothMatch {
            starred: if starred(date) {
                Field::DayOfMonth
            } else {
                Field::DayOfWeek
            },
        });
    Ok((fields, warning))
}

/// What the items of one field add up to.
#[derive(Default)]
struct Set {
    values: u64,
    nearest: u32,
    last: bool,
    last_workday: bool,
    nth: [u8; 5],
    last_weekdays: u8,
}

struct FieldReader {
    field: Field,
    dialect: Dialect,
    set: Set,
}

impl FieldReader {
    fn read(mut self, token: Token<'_>) -> Result<Set, ParseError> {
        let mut at = token.at;
        for text in token.text.split(',') {
            self.item(Token { at, text })?;
            at += text.len() + 1;
        }
        Ok(self.set)
    }

    fn item(&mut self, item: Token<'_>) -> Result<(), ParseError> {
        if item.text.is_empty() {
            return Err(self.error(item, Reason::EmptyItem));
        }
        if self.question_mark(item)? || self.date_form(item)? || self.weekday_form(item)? {
            return Ok(());
        }
        let (base, step) = match split(item, '/') {
            None => (item, 1),
            Some((base, step)) => (base, self.step(step)?),
        };
        let (start, end) = if base.text == "*" {
            let (min, max) = self.limits();
            // Sunday must not count as two values of a step.
            (min, if self.field == Field::DayOfWeek { 6 } else { max })
        } else if let Some((start, end)) = split(base, '-') {
            self.range(base, start, end)?
        } else {
            let value = self.value(base)?;
            if base.text.len() != item.text.len() {
                let hint = format!("from {value} on: `{value}-{}/{step}`", self.limits().1);
                return Err(self
                    .error(base, Reason::StepNeedsRange(quoted(base.text)))
                    .hint(hint));
            }
            (value, value)
        };
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        for value in (start..=end).step_by(step) {
            self.set.values |= 1 << value;
        }
        Ok(())
    }

    fn question_mark(&mut self, item: Token<'_>) -> Result<bool, ParseError> {
        if item.text != "?" {
            return Ok(false);
        }
        let day_field = matches!(self.field, Field::DayOfMonth | Field::DayOfWeek);
        if !day_field || self.dialect == Dialect::Strict {
            return Err(self
                .error(item, Reason::Unsupported("?".into()))
                .hint("write `*`"));
        }
        let (min, max) = self.limits();
        self.set.values |= (min..=max).fold(0, |set, value| set | 1 << value);
        Ok(true)
    }

    /// `L`, `LW` and `nW`.
    fn date_form(&mut self, item: Token<'_>) -> Result<bool, ParseError> {
        if self.field != Field::DayOfMonth {
            return Ok(false);
        }
        if item.text.eq_ignore_ascii_case("L") {
            self.set.last = true;
        } else if item.text.eq_ignore_ascii_case("LW") {
            self.set.last_workday = true;
        } else if let Some(text) = item.text.strip_suffix(['W', 'w']).filter(|text| is_number(text)) {
            if self.dialect == Dialect::Strict {
                let hint = "the syntax `unix_compat` has it";
                return Err(self
                    .error(item, Reason::Unsupported(quoted(item.text)))
                    .hint(hint));
            }
            self.set.nearest |= 1 << self.value(Token { at: item.at, text })?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// `wL` and `w#n`.
    fn weekday_form(&mut self, item: Token<'_>) -> Result<bool, ParseError> {
        if self.field != Field::DayOfWeek {
            return Ok(false);
        }
        if let Some((weekday, nth)) = split(item, '#') {
            let bit = 1 << (self.value(weekday)? % 7);
            let index = match nth.text {
                "1" => 0,
                "2" => 1,
                "3" => 2,
                "4" => 3,
                "5" => 4,
                other => return Err(self.error(nth, Reason::Nth(quoted(other)))),
            };
            self.set.nth[index] |= bit;
            return Ok(true);
        }
        match item.text.strip_suffix(['L', 'l']) {
            Some("") => Err(self
                .error(item, Reason::Unsupported(quoted(item.text)))
                .hint("the last Friday of a month is `5L`")),
            Some(text) => {
                self.set.last_weekdays |= 1 << (self.value(Token { at: item.at, text })? % 7);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn range(&self, whole: Token<'_>, start: Token<'_>, end: Token<'_>) -> Result<(u32, u32), ParseError> {
        let first = self.value(start)?;
        let mut last = self.value(end)?;
        // `SAT-SUN`: by name Sunday may close the week, as 7 does.
        if self.field == Field::DayOfWeek && first > 0 && end.text.eq_ignore_ascii_case("SUN") {
            last = 7;
        }
        if first <= last {
            return Ok((first, last));
        }
        let (min, max) = self.limits();
        let max = if self.field == Field::DayOfWeek { 6 } else { max };
        let error = self.error(
            whole,
            Reason::Reversed {
                start: first,
                end: last,
            },
        );
        let part = |from, to| {
            if from == to {
                format!("{from}")
            } else {
                format!("{from}-{to}")
            }
        };
        Err(error.hint(format!("write `{},{}`", part(first, max), part(min, last))))
    }

    fn step(&self, step: Token<'_>) -> Result<u64, ParseError> {
        if !is_number(step.text) {
            return Err(self.error(step, Reason::Unreadable(quoted(step.text))));
        }
        // A step past the end of the field is legal and leaves the first value; so is one past u64.
        match step.text.parse().unwrap_or(u64::MAX) {
            0 => Err(self.error(step, Reason::ZeroStep)),
            step => Ok(step),
        }
    }

    /// A number or three-letter name of this field.
    fn value(&self, token: Token<'_>) -> Result<u32, ParseError> {
        let (min, max) = self.limits();
        if is_number(token.text) {
            let value = token
                .text
                .parse()
                .ok()
                .filter(|value| (min..=max).contains(value));
            return value.ok_or_else(|| {
                self.error(
                    token,
                    Reason::OutOfRange {
                        value: quoted(token.text),
                        min,
                        max,
                    },
                )
            });
        }
        let named = |names: &[&str], short: bool| {
            names.iter().position(|name| {
                let name = if short { &name[..3] } else { name };
                token.text.eq_ignore_ascii_case(name)
            })
        };
        let own: &[&str] = match self.field {
            Field::Month => &MONTHS,
            Field::DayOfWeek => &WEEKDAYS,
            _ => &[],
        };
        // At most 12 names; months count from 1.
        if let Some(index) = named(own, true) {
            return Ok(index as u32 + min);
        }
        let belongs = [(Field::Month, &MONTHS[..]), (Field::DayOfWeek, &WEEKDAYS[..])];
        for (belongs, names) in belongs {
            if belongs != self.field && (named(names, true).is_some() || named(names, false).is_some()) {
                return Err(self.error(
                    token,
                    Reason::MisplacedName {
                        name: quoted(token.text),
                        belongs,
                    },
                ));
            }
        }
        if let Some(index) = named(own, false) {
            let hint = format!("write `{}`", own[index][..3].to_ascii_uppercase());
            return Err(self.error(token, Reason::LongName(quoted(token.text))).hint(hint));
        }
        let error = self.error(token, Reason::Unreadable(quoted(token.text)));
        Err(match token.text {
            "" => error.hint("a value is missing here"),
            text if has_hash(text) => error.hint("`H` is drawn from the name of a job, by creel cron add"),
            _ => error,
        })
    }

    fn limits(&self) -> (u32, u32) {
        match self.field {
            Field::Hour => (0, 23),
            Field::DayOfMonth => (1, 31),
            Field::Month => (1, 12),
            Field::DayOfWeek => (0, 7),
            _ => (0, 59),
        }
    }

    fn error(&self, at: Token<'_>, reason: Reason) -> ParseError {
        ParseError::new(self.field, at.at, reason)
    }
}

fn unknown_nickname(word: Token<'_>) -> ParseError {
    let error = ParseError::new(Field::Expression, word.at, Reason::Nickname(quoted(word.text)));
    let lower = word.text.to_ascii_lowercase();
    match NICKNAMES.iter().find(|(name, _)| *name == lower) {
        Some((name, _)) => error.hint(format!("write `{name}`")),
        None => error.hint(NICKNAMES.map(|(name, _)| name).join(" ")),
    }
}

fn wrong_count(text: &str, found: &[Token<'_>]) -> ParseError {
    let reason = Reason::FieldCount {
        found: found.len(),
        wanted: "5",
    };
    let position = found.get(5).map_or(text.len(), |extra| extra.at);
    let error = ParseError::new(Field::Expression, position, reason);
    let starts = |prefix: &str| found.first().is_some_and(|first| first.text.starts_with(prefix));
    if starts("@") {
        error.hint("a nickname stands alone")
    } else if starts("TZ=") || starts("CRON_TZ=") {
        error.hint("the zone is given beside the expression, not in it")
    } else if matches!(found.len(), 6 | 7) {
        error.hint("with seconds first it is the syntax `quartz`")
    } else {
        error.hint("five fields: minute hour day month weekday")
    }
}

/// Splits a token at the first `separator`.
fn split(token: Token<'_>, separator: char) -> Option<(Token<'_>, Token<'_>)> {
    let (left, right) = token.text.split_once(separator)?;
    let right_at = token.at + left.len() + separator.len_utf8();
    Some((
        Token {
            at: token.at,
            text: left,
        },
        Token {
            at: right_at,
            text: right,
        },
    ))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Text for a message: short, and without control characters that would reach a terminal.
pub(super) fn quoted(text: &str) -> String {
    const MAX_CHARS: usize = 24;
    let mut shown: String = text
        .chars()
        .take(MAX_CHARS)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        shown.push('…');
    }
    shown
}
