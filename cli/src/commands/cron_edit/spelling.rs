//! Durations and anchors as people write them, for the editor: `every = "1h30m"` where the job's JSON has
//! `"everyMs": 5400000`. Only the words that differ are exchanged; all else, and every line, stays where it is.

use std::ops::Range;

use creel_schedule::{parse_duration, spell_duration};
use toml::de::{DeTable, DeValue};

/// The durations of a job, as their keys stand in TOML.
const DURATIONS: [&str; 9] = [
    "every",
    "timeout",
    "window",
    "jitter",
    "expected",
    "keepFor",
    "backoff",
    "maxBackoff",
    "coolDown",
];

/// What stands instead of what is there.
struct Exchange {
    at: Range<usize>,
    text: String,
}

/// The job's TOML for people.
pub(super) fn for_people(text: &str) -> String {
    exchanged(text, &|key, value| {
        let number = value.as_integer()?;
        let ms = i64::from_str_radix(number.as_str(), number.radix()).ok()?;
        let bare = key.strip_suffix("Ms")?;
        let spelled = match bare {
            "anchor" => crate::times::rfc3339(ms)?,
            _ if DURATIONS.contains(&bare) => spell_duration(u64::try_from(ms).ok()?),
            _ => return None,
        };
        Some(Ok((bare.to_owned(), format!("\"{spelled}\""))))
    })
    // What was just written is TOML, and nothing in it is refused.
    .unwrap_or_else(|_| text.to_owned())
}

/// The TOML of people as the job has it; what is there already stays.
///
/// # Errors
/// The line, and why its duration can't be read.
pub(super) fn of_people(text: &str) -> Result<String, String> {
    exchanged(text, &|key, value| {
        if !DURATIONS.contains(&key) {
            return None;
        }
        Some(match value {
            DeValue::String(spelled) => parse_duration(spelled)
                .map(|duration| (format!("{key}Ms"), duration.as_millis().to_string()))
                .map_err(|error| format!("`{key}`: {error}")),
            _ => Err(format!(
                "`{key}`: a duration is a text, as in `{key} = \"1h30m\"`"
            )),
        })
    })
}

/// Key and value, exchanged; `None`: they stay.
type Exchanged<'a> = &'a dyn Fn(&str, &DeValue<'_>) -> Option<Result<(String, String), String>>;

fn exchanged(text: &str, of: Exchanged<'_>) -> Result<String, String> {
    // What is no TOML is told by whoever reads it as a job.
    let Ok(table) = DeTable::parse(text) else {
        return Ok(text.to_owned());
    };
    let mut exchanges = Vec::new();
    let wrong = collect(table.get_ref(), of, &mut exchanges);
    if let Some((at, why)) = wrong {
        let line = text[..at].matches('\n').count() + 1;
        return Err(format!("line {line}: {why}"));
    }
    exchanges.sort_by_key(|exchange| std::cmp::Reverse(exchange.at.start));
    let mut text = text.to_owned();
    for exchange in exchanges {
        text.replace_range(exchange.at, &exchange.text);
    }
    Ok(text)
}

/// All exchanges of a table and those in it, or the place of one that is refused.
fn collect(table: &DeTable<'_>, of: Exchanged<'_>, found: &mut Vec<Exchange>) -> Option<(usize, String)> {
    for (key, value) in table {
        if let DeValue::Table(inner) = value.get_ref() {
            let wrong = collect(inner, of, found);
            if wrong.is_some() {
                return wrong;
            }
        }
        match of(key.get_ref(), value.get_ref()) {
            None => {}
            Some(Err(why)) => return Some((key.span().start, why)),
            Some(Ok((key_text, value_text))) => {
                let pairs = [(key.span(), key_text), (value.span(), value_text)];
                found.extend(pairs.map(|(at, text)| Exchange { at, text }));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "name = \"a\"\n\n[schedule]\nkind = \"every\"\neveryMs = 5400000\nanchorMs = 1795866582561\n\n\
                       [policy]\njitterMs = 500\nkeepForMs = 2592000000\n\n[policy.retry]\nattempts = 3\n\
                       backoffMs = 30000\n";

    #[test]
    fn durations_are_words_and_come_back() {
        let shown = for_people(JOB);
        let expected = "name = \"a\"\n\n[schedule]\nkind = \"every\"\nevery = \"1h30m\"\n\
                        anchor = \"2026-11-28T11:49:42.561Z\"\n\n[policy]\njitter = \"500ms\"\nkeepFor = \"30d\"\n\n\
                        [policy.retry]\nattempts = 3\nbackoff = \"30s\"\n";
        assert_eq!(shown, expected);
        let back = of_people(&shown).unwrap();
        assert_eq!(
            back,
            JOB.replace(
                "anchorMs = 1795866582561",
                "anchor = \"2026-11-28T11:49:42.561Z\""
            )
        );
        assert_eq!(of_people(JOB).unwrap(), JOB, "milliseconds are read as well");
    }

    #[test]
    fn any_spelling_of_toml_is_found_and_texts_stay() {
        let text = "schedule = { every = '1d' } # every = \"1h\"\npolicy.\"timeout\" = \"5m\"\n\
                    payload = { kind = \"agentTurn\", message = \"every = \\\"1h\\\"\" }\n";
        let expected = "schedule = { everyMs = 86400000 } # every = \"1h\"\npolicy.timeoutMs = 300000\n\
                        payload = { kind = \"agentTurn\", message = \"every = \\\"1h\\\"\" }\n";
        assert_eq!(of_people(text).unwrap(), expected);
    }

    #[test]
    fn what_is_no_duration_is_told_with_its_line() {
        for (value, part) in [
            ("\"1.5h\"", "unit"),
            ("\"\"", "empty"),
            ("90", "a duration is a text"),
            ("\"99999999999999999999d\"", "too large"),
        ] {
            let why = of_people(&format!("[policy]\n# rules\ntimeout = {value}\n")).unwrap_err();
            assert!(
                why.starts_with("line 3: `timeout`: ") && why.contains(part),
                "{why}"
            );
        }
        assert_eq!(of_people("a = = 1").unwrap(), "a = = 1");
    }
}
