//! What is wrong with an expression, where, and what to write instead.

use std::fmt;

/// A field of an expression, in the names of crontab(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Field {
    /// The text as a whole.
    Expression,
    /// Seconds, Quartz only.
    Second,
    /// Minutes.
    Minute,
    /// Hours.
    Hour,
    /// Days of the month.
    DayOfMonth,
    /// Months.
    Month,
    /// Days of the week.
    DayOfWeek,
    /// Years, Quartz only.
    Year,
}

impl Field {
    /// The name in machine-readable answers: `minute`, `day_of_month` and so on.
    pub fn as_str(self) -> &'static str {
        match self {
            Field::Expression => "expression",
            Field::Second => "second",
            Field::Minute => "minute",
            Field::Hour => "hour",
            Field::DayOfMonth => "day_of_month",
            Field::Month => "month",
            Field::DayOfWeek => "day_of_week",
            Field::Year => "year",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::DayOfMonth => "day of month",
            Field::DayOfWeek => "day of week",
            other => other.as_str(),
        })
    }
}

/// An expression that was refused. Display gives field, reason and position; [`ParseError::hint`] what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason} (at byte {position})")]
pub struct ParseError {
    /// The field at fault.
    pub field: Field,
    /// Byte offset in the given text, from 0, of the part at fault; the text's length if something is missing.
    pub position: usize,
    /// What is wrong.
    pub reason: Reason,
    /// What to write instead, if that can be said.
    pub hint: Option<String>,
}

impl ParseError {
    pub(crate) fn new(field: Field, position: usize, reason: Reason) -> ParseError {
        ParseError {
            field,
            position,
            reason,
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> ParseError {
        self.hint = Some(hint.into());
        self
    }
}

/// Why an expression was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// Nothing but blanks.
    #[error("the expression is empty")]
    Empty,
    /// Longer than [`crate::MAX_EXPRESSION_BYTES`].
    #[error("the expression has {bytes} bytes, more than {max}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// A wrong number of fields.
    #[error("{found} fields where {wanted} are expected")]
    FieldCount {
        /// How many there are; counting stops at 8.
        found: usize,
        /// How many there should be.
        wanted: &'static str,
    },
    /// An `@` word that is not one of the seven.
    #[error("unknown nickname `{0}`")]
    Nickname(String),
    /// Nothing between two commas, or before the first or after the last.
    #[error("empty list item")]
    EmptyItem,
    /// Neither a number, a name, a range nor one of the extensions.
    #[error("cannot read `{0}`")]
    Unreadable(String),
    /// A number outside the field's range.
    #[error("{value} is not in {min}-{max}")]
    OutOfRange {
        /// The number as written.
        value: String,
        /// Lowest value of the field.
        min: u32,
        /// Highest value of the field.
        max: u32,
    },
    /// A range that ends before it starts.
    #[error("the range {start}-{end} runs backwards")]
    Reversed {
        /// Its start.
        start: u32,
        /// Its end.
        end: u32,
    },
    /// A step of 0.
    #[error("a step of 0")]
    ZeroStep,
    /// A step after a single value.
    #[error("a step needs `*` or a range before it, not `{0}`")]
    StepNeedsRange(String),
    /// A month or weekday written out.
    #[error("`{0}` is not a three-letter name")]
    LongName(String),
    /// A name where the field has none, or the other field's.
    #[error("the name `{name}` belongs in the {belongs} field")]
    MisplacedName {
        /// The name as written.
        name: String,
        /// Where it would be right.
        belongs: Field,
    },
    /// `w#n` with n outside 1 to 5.
    #[error("`#{0}` is not in #1-#5")]
    Nth(String),
    /// A form that is off by default, or that this field does not have.
    #[error("`{0}` is not supported here")]
    Unsupported(String),
    /// The days named do not exist in the months named.
    #[error("it never fires: no named month has such a day")]
    NeverFires,
    /// The Quartz parser's verdict on the field.
    #[error("not a Quartz field: `{0}`")]
    Quartz(String),
}

/// Something legal that often means something else than its author thinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Warning {
    /// Day of month and day of week are both narrowed and the named one begins with `*`, so a day must match
    /// both; other implementations fire when either matches.
    DaysMustBothMatch {
        /// The field that begins with `*`.
        starred: Field,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::DaysMustBothMatch { starred } => write!(
                f,
                "the {starred} field begins with `*`, so a day must match both day fields; other schedulers fire when either does"
            ),
        }
    }
}
