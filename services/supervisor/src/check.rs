//! `creeld check`: what can be told without a running stack.

use std::{
    io::{self, BufRead as _, BufWriter, Read as _},
    process::ExitCode,
};

use creel_kit::{Config, Profile, service::EXIT_CONFIG};
use creel_schedule::{ZoneSources, Zones, check};

use crate::args::Check;

/// Longer lines are refused by the check; this much of one is kept, in bytes.
const MAX_LINE: u64 = 1 << 17;

/// Checks what was asked for.
pub(crate) fn run(profile: &Profile, what: Check) -> ExitCode {
    match what {
        Check::Config => config(profile),
        Check::Cron => cron(),
    }
}

/// Reads `creel.toml` as a start would.
fn config(profile: &Profile) -> ExitCode {
    let path = profile.config_file();
    match Config::load(&path) {
        Ok(_) => {
            let missing = if path.exists() {
                ""
            } else {
                " (it isn't there: all defaults)"
            };
            crate::say(&format!("{} is fine{missing}", path.display()));
            ExitCode::SUCCESS
        }
        Err(error) => crate::fail(EXIT_CONFIG, &crate::chain(&error)),
    }
}

/// Answers schedule cases, a line each; fails if one differs from what it expects.
fn cron() -> ExitCode {
    match answer(io::stdin().lock(), BufWriter::new(io::stdout().lock())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever reads has enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => crate::fail(1, &error.to_string()),
    }
}

fn answer(mut cases: impl io::BufRead, mut verdicts: impl io::Write) -> io::Result<bool> {
    let zones = Zones::load(&ZoneSources::of_this_machine());
    let mut all = true;
    for number in 1.. {
        let mut line = Vec::new();
        if cases.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if !line.ends_with(b"\n") {
            // The rest of it is no line of its own.
            cases.skip_until(b'\n')?;
        }
        let text = String::from_utf8_lossy(&line);
        // Editors on Windows begin a file with a byte-order mark.
        let text = if number == 1 {
            text.trim_start_matches('\u{feff}')
        } else {
            &*text
        };
        if text.trim().is_empty() {
            continue;
        }
        let verdict = check::run(text.trim_end(), number, &zones);
        writeln!(verdicts, "{}", verdict.json)?;
        all &= verdict.ok;
    }
    verdicts.flush()?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_gets_a_verdict_and_one_wrong_one_fails() {
        let right = r#"{"expr":"0 7 * * *","tz":"UTC","from":"2026-11-22T10:00:00Z","next":["2026-11-23T07:00:00Z"]}"#;
        let wrong = r#"{"expr":"0 7 * * *","tz":"UTC","from":"2026-11-22T10:00:00Z","next":["2026-11-24T07:00:00Z"]}"#;
        let mut out = Vec::new();
        assert!(answer(format!("{right}\n\n{right}").as_bytes(), &mut out).unwrap());
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), 2);
        assert!(!answer(format!("{wrong}\n").as_bytes(), Vec::new()).unwrap());
        assert!(!answer(&b"not a case\n"[..], Vec::new()).unwrap());
    }

    #[test]
    fn a_line_of_any_length_is_one_line() {
        let right = r#"{"expr":"0 7 * * *","tz":"UTC","from":"2026-11-22T10:00:00Z"}"#;
        let long = "x".repeat(3 << 20);
        let mut out = Vec::new();
        let cases = format!("\u{feff}{right}\r\n{long}\n{right}\n{long}");
        assert!(!answer(cases.as_bytes(), &mut out).unwrap());
        let verdicts: Vec<serde_json::Value> = String::from_utf8(out)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let told: Vec<_> = verdicts
            .iter()
            .map(|verdict| (verdict["id"].as_u64(), verdict.get("next").is_some()))
            .collect();
        assert_eq!(
            told,
            [
                (Some(1), true),
                (Some(2), false),
                (Some(3), true),
                (Some(4), false)
            ]
        );
    }
}
