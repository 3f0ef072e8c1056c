//! Quartz expressions: the crate `cron` reads the grammar, its field sets are copied into ours.
//!
//! Only its parser is used. Its `upcoming` skips and repeats instants at clock changes (`reference/scheduler.md`
//! §4.1), so firing goes through the same walk as five-field expressions, by the same rule.

use std::str::FromStr;

use cron::TimeUnitSpec;

use super::unix::quoted;
use super::{Field, ParseError, Reason, Token, tokens};
use crate::fields::{ALL_DATES, ALL_MONTHS, ALL_WEEKDAYS, Days, Fields, Join, Years};

const FIELDS: [Field; 7] = [
    Field::Second,
    Field::Minute,
    Field::Hour,
    Field::DayOfMonth,
    Field::Month,
    Field::DayOfWeek,
    Field::Year,
];

/// Parses six or seven fields, or one of the crate's nicknames.
pub(super) fn parse(text: &str) -> Result<Fields, ParseError> {
    let tokens = tokens(text);
    let starred = |index: usize| tokens.get(index).is_some_and(|token| token.text.starts_with('*'));
    let (joined, wildcard) = match tokens.as_slice() {
        [] => return Err(ParseError::new(Field::Expression, 0, Reason::Empty)),
        [word] if word.text.starts_with('@') => (word.text.to_owned(), word.text == "@hourly"),
        found if matches!(found.len(), 6 | 7) => {
            for (field, token) in FIELDS.into_iter().zip(found) {
                check(field, *token)?;
            }
            (
                found.iter().map(|token| token.text).collect::<Vec<_>>().join(" "),
                (0..3).any(starred),
            )
        }
        found => {
            let reason = Reason::FieldCount {
                found: found.len(),
                wanted: "6 or 7",
            };
            let position = found.get(7).map_or(text.len(), |extra| extra.at);
            let error = ParseError::new(Field::Expression, position, reason);
            return Err(if found.len() == 5 {
                error.hint("five fields are the syntax `unix`; Quartz has seconds first")
            } else {
                error.hint("second minute hour day month weekday [year]")
            });
        }
    };
    let Ok(schedule) = cron::Schedule::from_str(&joined) else {
        let position = tokens.first().map_or(0, |token| token.at);
        return Err(ParseError::new(
            Field::Expression,
            position,
            Reason::Quartz(quoted(text.trim())),
        ));
    };
    let fields = fields_of(&schedule, wildcard);
    if !fields.ever() {
        let position = tokens.get(3).map_or(0, |token| token.at);
        return Err(ParseError::new(Field::DayOfMonth, position, Reason::NeverFires));
    }
    Ok(fields)
}

/// Refuses a field the crate would refuse, or join with its neighbour: it lets blanks stand around commas.
fn check(field: Field, token: Token<'_>) -> Result<(), ParseError> {
    let whole = |c: char| c.is_ascii_alphanumeric() || matches!(c, '*' | '?');
    let error = || ParseError::new(field, token.at, Reason::Quartz(quoted(token.text)));
    if !token.text.starts_with(whole) || !token.text.ends_with(whole) {
        return Err(error());
    }
    let alone = FIELDS
        .map(|other| if other == field { token.text } else { "*" })
        .join(" ");
    match cron::Schedule::from_str(&alone) {
        Ok(_) => Ok(()),
        Err(_)
            if token.text.contains(['L', 'W', '#'])
                && matches!(field, Field::DayOfMonth | Field::DayOfWeek) =>
        {
            Err(error().hint("L, W and # are read in five-field expressions only"))
        }
        Err(_) if field == Field::Year => Err(error().hint("years go from 1970 to 2100")),
        Err(_) => Err(error()),
    }
}

fn fields_of(schedule: &cron::Schedule, wildcard: bool) -> Fields {
    let set = |unit: &dyn Fn() -> Vec<u32>, all: u64| {
        unit()
            .into_iter()
            .filter(|value| *value < 64)
            .fold(0u64, |set, value| set | 1 << value)
            & all
    };
    let all_sixty = (1 << 60) - 1;
    let dates = set(
        &|| schedule.days_of_month().iter().collect(),
        u64::from(ALL_DATES),
    );
    let months = set(&|| schedule.months().iter().collect(), u64::from(ALL_MONTHS));
    // Quartz counts weekdays from Sunday = 1.
    let weekdays = set(
        &|| schedule.days_of_week().iter().map(|day| day - 1).collect(),
        u64::from(ALL_WEEKDAYS),
    );
    Fields {
        seconds: set(&|| schedule.seconds().iter().collect(), all_sixty),
        minutes: set(&|| schedule.minutes().iter().collect(), all_sixty),
        // The masks above leave at most the width each field has.
        hours: set(&|| schedule.hours().iter().collect(), (1 << 24) - 1) as u32,
        months: months as u16,
        days: Days {
            join: Join::And,
            dates: dates as u32,
            weekdays: weekdays as u8,
            ..Days::ALL
        },
        years: (!schedule.years().is_all()).then(|| Years::of(schedule.years().iter())),
        wildcard,
    }
}
