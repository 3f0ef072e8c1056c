//! `H`: spreading by name instead of everybody at minute 0.
//!
//! An `H` is replaced by a number drawn from a seed (the job's name) before parsing, so the stored expression is an
//! ordinary one: it reads the same everywhere and cannot move when this code changes.

use super::unix::quoted;
use super::{Field, ParseError, Reason, tokens};

const FIELDS: [(Field, u32, u32); 5] = [
    (Field::Minute, 0, 59),
    (Field::Hour, 0, 23),
    // 28, so that no month is left out.
    (Field::DayOfMonth, 1, 28),
    (Field::Month, 1, 12),
    (Field::DayOfWeek, 0, 6),
];

/// Whether [`expand_hash`] has something to replace. No name of a month or weekday begins so.
#[must_use]
pub fn has_hash(text: &str) -> bool {
    text.split(|c: char| c.is_whitespace() || c == ',')
        .any(|item| item.starts_with('H'))
}

/// Replaces the `H` of a five-field expression: `H` by one value of the field, `H(a-b)` by one of that range,
/// `H/n` and `H(a-b)/n` by every n-th from a start below n. Same text and seed, same answer, for good.
///
/// The result still has to be parsed. Text without `H` comes back with single blanks.
///
/// # Errors
/// [`ParseError`] if the text has not five fields or an `H` form is malformed.
pub fn expand_hash(text: &str, seed: &str) -> Result<String, ParseError> {
    let tokens = tokens(text);
    if tokens.len() != FIELDS.len() {
        let reason = Reason::FieldCount {
            found: tokens.len(),
            wanted: "5",
        };
        return Err(ParseError::new(Field::Expression, text.len(), reason));
    }
    let mut expanded = Vec::with_capacity(FIELDS.len());
    for (token, (field, min, max)) in tokens.iter().zip(FIELDS) {
        let mut at = token.at;
        let mut items = Vec::new();
        for item in token.text.split(',') {
            let drawn = match item.strip_prefix('H') {
                None => item.to_owned(),
                Some(form) => draw(form, min, max, hash(seed, field)).ok_or_else(|| {
                    ParseError::new(field, at, Reason::Unreadable(quoted(item)))
                        .hint("H, H(a-b), H/n or H(a-b)/n")
                })?,
            };
            items.push(drawn);
            at += item.len() + 1;
        }
        expanded.push(items.join(","));
    }
    Ok(expanded.join(" "))
}

/// The text for what follows an `H`, or `None` if that is not one of the forms.
fn draw(form: &str, min: u32, max: u32, hash: u64) -> Option<String> {
    let (range, step) = match form.split_once('/') {
        Some((range, step)) => (range, Some(step.parse::<u64>().ok().filter(|step| *step > 0)?)),
        None => (form, None),
    };
    let (start, end) = match range {
        "" => (min, max),
        range => {
            let (start, end) = range.strip_prefix('(')?.strip_suffix(')')?.split_once('-')?;
            (start.parse().ok()?, end.parse().ok()?)
        }
    };
    if start < min || end > max || start > end {
        return None;
    }
    let width = u64::from(end - start) + 1;
    // The remainder is below the range's width, which is at most 60.
    let from = |width: u64| start + (hash % width) as u32;
    Some(match step {
        None => from(width).to_string(),
        Some(step) => format!("{}-{end}/{step}", from(width.min(step))),
    })
}

/// FNV-1a over field and seed, then a finaliser, because FNV's low bits alone spread short names badly.
fn hash(seed: &str, field: Field) -> u64 {
    let bytes = field.as_str().bytes().chain([0]).chain(seed.bytes());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}
