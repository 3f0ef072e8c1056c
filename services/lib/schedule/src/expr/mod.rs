//! Cron expressions: text in, bit sets out.

mod error;
mod hash;
mod quartz;
mod unix;

use std::fmt;
use std::sync::Arc;

pub use error::{Field, ParseError, Reason, Warning};
pub use hash::{expand_hash, has_hash};

use crate::fields::Fields;

/// Longest accepted expression. Five fields that list every value take 370 bytes.
pub const MAX_EXPRESSION_BYTES: usize = 1_024;

/// The grammar of an expression.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Syntax {
    /// Five fields as crontab(5), strict, with `L`, `LW`, `5L` and `5#3` (`reference/scheduler.md` §3.2).
    #[default]
    Unix,
    /// [`Syntax::Unix`] plus what croner accepts and cron daemons do not: `?` for `*` in the two day fields and
    /// `nW`, the weekday nearest to day n.
    UnixCompat,
    /// Six or seven fields with seconds first, weekdays 1 = Sunday, and day of month AND day of week, as the
    /// crate `cron` reads them.
    Quartz,
}

impl Syntax {
    /// The name in JSON and flags.
    pub fn as_str(self) -> &'static str {
        match self {
            Syntax::Unix => "unix",
            Syntax::UnixCompat => "unix_compat",
            Syntax::Quartz => "quartz",
        }
    }
}

/// A checked expression: it parses and its days exist. Cloning shares it.
#[derive(Clone, PartialEq, Eq)]
pub struct CronExpr(Arc<Parsed>);

#[derive(PartialEq, Eq)]
struct Parsed {
    text: Box<str>,
    syntax: Syntax,
    fields: Fields,
    warning: Option<Warning>,
}

impl CronExpr {
    /// Parses an expression.
    ///
    /// Blanks around and between fields may be any Unicode white space. An expression that can never fire (30
    /// February) is an error; one that never fires *in a given zone* shows only in [`crate::Schedule::next`].
    ///
    /// # Errors
    /// [`ParseError`] with the field, the byte offset and the reason.
    pub fn parse(text: &str, syntax: Syntax) -> Result<CronExpr, ParseError> {
        if text.len() > MAX_EXPRESSION_BYTES {
            let reason = Reason::TooLong {
                bytes: text.len(),
                max: MAX_EXPRESSION_BYTES,
            };
            return Err(ParseError::new(Field::Expression, MAX_EXPRESSION_BYTES, reason));
        }
        let (fields, warning) = match syntax {
            Syntax::Unix => unix::parse(text, unix::Dialect::Strict)?,
            Syntax::UnixCompat => unix::parse(text, unix::Dialect::Compat)?,
            Syntax::Quartz => (quartz::parse(text)?, None),
        };
        Ok(CronExpr(Arc::new(Parsed {
            text: text.trim().into(),
            syntax,
            fields,
            warning,
        })))
    }

    /// The text it was parsed from, without the blanks around it.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The grammar it was parsed with.
    pub fn syntax(&self) -> Syntax {
        self.0.syntax
    }

    /// Whether it names fixed civil times (neither minute nor hour begins with `*`), which fire once each
    /// whatever the clocks do, rather than following real time.
    pub fn is_fixed(&self) -> bool {
        !self.0.fields.wildcard
    }

    /// What its author should be told before it is saved.
    pub fn warning(&self) -> Option<Warning> {
        self.0.warning
    }

    pub(crate) fn fields(&self) -> &Fields {
        &self.0.fields
    }
}

impl fmt::Debug for CronExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CronExpr({:?}, {})", self.text(), self.syntax().as_str())
    }
}

impl fmt::Display for CronExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// A blank-separated part of an expression and its byte offset.
#[derive(Clone, Copy)]
struct Token<'a> {
    at: usize,
    text: &'a str,
}

/// Fields beyond the seventh only matter as "too many".
const MAX_TOKENS: usize = 8;

/// Splits at white space, at most [`MAX_TOKENS`] tokens.
fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::with_capacity(MAX_TOKENS);
    let mut at = 0;
    for part in text.split(char::is_whitespace) {
        if !part.is_empty() && found.len() < MAX_TOKENS {
            found.push(Token { at, text: part });
        }
        // Step over the part and the white space that ended it, whose width in bytes varies.
        at += part.len();
        at += text[at..].chars().next().map_or(0, char::len_utf8);
    }
    found
}
