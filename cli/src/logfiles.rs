//! Log files read directly, for when the stack that would serve them is down; and one log line as text.

use std::{
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use creel_kit::Profile;
use creel_wire::{ServiceName, error::printable};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{failure::Failure, times::Local};

/// How much of a file's end is read.
const TAIL_BYTES: u64 = 4 << 20;

/// The longest value shown, in characters.
const MAX_VALUE: usize = 2_000;

/// A line, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) service: String,
    pub(crate) json: String,
}

/// The last lines of one service's file or of all, in order of time.
pub(crate) fn tail(
    profile: &Profile,
    service: Option<ServiceName>,
    count: usize,
) -> Result<Vec<Line>, Failure> {
    let services = service.map_or_else(|| ServiceName::ALL.to_vec(), |one| vec![one]);
    let mut lines = Vec::new();
    for name in services {
        let path = profile.log_file(name);
        let text = end_of(&path).map_err(|error| Failure::file("read", &path, &error))?;
        let own: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        let from = own.len().saturating_sub(count);
        lines.extend(own[from..].iter().map(|line| Line {
            service: name.to_string(),
            json: (*line).to_owned(),
        }));
    }
    // Stable, so that lines of one instant stay as their service wrote them.
    lines.sort_by_key(|line| {
        fields(&line.json)
            .and_then(|fields| time_of(&fields))
            .unwrap_or(Timestamp::MIN)
    });
    let from = lines.len().saturating_sub(count);
    Ok(lines.split_off(from))
}

/// A file's end, from the first whole line on; a file that isn't there is empty.
fn end_of(path: &Path) -> io::Result<String> {
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let start = file.metadata()?.len().saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if start == 0 {
        return Ok(text);
    }
    Ok(text
        .split_once('\n')
        .map_or_else(String::new, |(_, whole)| whole.to_owned()))
}

/// The line as one JSON object that names its service.
pub(crate) fn object(line: &Line) -> Value {
    let mut all = Map::new();
    all.insert("service".to_owned(), line.service.clone().into());
    match fields(&line.json) {
        Some(fields) => all.extend(fields.into_iter().filter(|(key, _)| key != "service")),
        None => {
            all.insert("message".to_owned(), line.json.clone().into());
        }
    }
    Value::Object(all)
}

/// The line as people read it: `22:10:05 WARN  scheduler: what happened  job=tick`.
pub(crate) fn text(line: &Line, local: &Local) -> String {
    let Some(fields) = fields(&line.json) else {
        return format!("{}: {}", line.service, printable(&line.json, MAX_VALUE));
    };
    let get = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default();
    let when = time_of(&fields).map_or_else(
        || get("timestamp").to_owned(),
        |at| local.show_seconds(at.as_millisecond()),
    );
    let mut out = format!(
        "{when} {:<5} {}: {}",
        get("level"),
        line.service,
        printable(get("message"), MAX_VALUE)
    );
    let shown = [
        "timestamp",
        "level",
        "message",
        "target",
        "span",
        "spans",
        "service",
    ];
    for (key, value) in fields.iter().filter(|(key, _)| !shown.contains(&key.as_str())) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        out.push_str(&format!(
            "  {}={}",
            printable(key, 64),
            printable(&value, MAX_VALUE)
        ));
    }
    out
}

fn fields(json: &str) -> Option<Map<String, Value>> {
    match serde_json::from_str(json) {
        Ok(Value::Object(fields)) => Some(fields),
        _ => None,
    }
}

fn time_of(fields: &Map<String, Value>) -> Option<Timestamp> {
    fields.get("timestamp")?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::times::tests::berlin;

    fn line(json: &str) -> Line {
        Line {
            service: "scheduler".into(),
            json: json.into(),
        }
    }

    #[test]
    fn files_are_merged_by_time_and_cut_to_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let profile = Profile::at("default", dir.path()).unwrap();
        fs::create_dir(profile.logs()).unwrap();
        let at = |second: u32| {
            format!("{{\"timestamp\":\"2026-11-22T10:00:{second:02}Z\",\"message\":\"{second}\"}}\n")
        };
        fs::write(profile.log_file(ServiceName::Gateway), [at(1), at(4)].concat()).unwrap();
        fs::write(
            profile.log_file(ServiceName::Identity),
            [at(2), at(3), at(5)].concat(),
        )
        .unwrap();
        let said = |lines: Vec<Line>| -> Vec<String> {
            lines
                .iter()
                .map(|line| object(line)["message"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(said(tail(&profile, None, 3).unwrap()), ["3", "4", "5"]);
        assert_eq!(
            said(tail(&profile, Some(ServiceName::Gateway), 9).unwrap()),
            ["1", "4"]
        );
        assert!(tail(&profile, Some(ServiceName::Auditor), 9).unwrap().is_empty());
    }

    #[test]
    fn a_line_is_text_for_people_and_an_object_for_programs() {
        let one = line(
            r#"{"timestamp":"2026-11-22T10:00:05Z","level":"WARN","message":"late\u001b[2J","target":"x","job":"tick","n":3}"#,
        );
        assert_eq!(
            text(&one, &berlin()),
            "Sun 22 Nov 11:00:05 CET WARN  scheduler: late\\u{1b}[2J  job=tick  n=3"
        );
        assert_eq!(object(&one)["service"], "scheduler");
        assert_eq!(
            text(&line("panicked at x"), &berlin()),
            "scheduler: panicked at x"
        );
        assert_eq!(object(&line("panicked"))["message"], "panicked");
    }
}
