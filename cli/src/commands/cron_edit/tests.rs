//! What an edit changes, and where a wrong one is wrong.

use clap::Parser as _;

use super::*;
use crate::{
    args::{Cli, Command, cron::Cron},
    times::tests::berlin,
    views::{job::tests::job, spec::PayloadView},
};

fn args(flags: &[&str]) -> Edit {
    let args = [&["creel", "cron", "edit", "tick"], flags].concat();
    match Cli::try_parse_from(args).unwrap().command {
        Command::Cron(Cron::Edit(edit)) => *edit,
        other => panic!("{other:?}"),
    }
}

fn before() -> SpecView {
    SpecView::from(&job().spec.unwrap())
}

/// The fields that flags change.
fn fields(flags: &[&str]) -> Vec<String> {
    let (after, _) = flagged(&args(flags), &before(), &berlin()).unwrap();
    changed(&before(), &after)
}

#[test]
fn flags_change_what_they_name_and_nothing_else() {
    for (flags, expected) in [
        (&["--cron", "0 7 * * *"][..], &["schedule"][..]),
        (&["--tz", "UTC"], &["schedule"]),
        (&["--message", "m"], &["payload"]),
        (&["--if-missed", "skip", "--timeout", "5m"], &["policy"]),
        (&["--rename", "tock", "--disable"], &["name", "disabled"]),
        (
            &["--deliver", "none", "--target", "anna"],
            &["target", "delivery"],
        ),
        (&["--delete-after", "always"], &["delete_after"]),
        (
            &["--description", "d", "--delete-after-run"],
            &["description", "delete_after_run"],
        ),
        (&["--enable"], &[]),
        (&["--event", "tick"], &[]),
    ] {
        assert_eq!(fields(flags), expected, "{flags:?}");
    }
    let (after, ours) = flagged(&args(&["--cron", "0 7 * * *"]), &before(), &berlin()).unwrap();
    assert!(!ours, "the zone that was there stays");
    let (drawn, _) = flagged(&args(&["--cron", "H 7 * * *"]), &before(), &berlin()).unwrap();
    let Some(creel_schedule::ScheduleSpec::Cron { expr, .. }) = drawn.schedule else {
        panic!("no expression")
    };
    assert!(expr.ends_with(" 7 * * *") && !expr.starts_with('H'), "{expr}");
    assert_eq!(after.policy, before().policy);
}

#[test]
fn rules_are_laid_over_those_that_are_there() {
    let first = args(&[
        "--if-missed",
        "all",
        "--retries",
        "2",
        "--backoff",
        "10s",
        "--alert-after",
        "2",
    ]);
    let (once, _) = flagged(&first, &before(), &berlin()).unwrap();
    let second = args(&["--window", "1h", "--retries", "4", "--alert-to", "main"]);
    let (twice, _) = flagged(&second, &once, &berlin()).unwrap();
    let policy = serde_json::to_value(&twice.policy).unwrap();
    let expected = serde_json::json!({
        "catchUp": { "mode": "all", "max": 1_000, "windowMs": 3_600_000 },
        "retry": { "attempts": 5, "backoffMs": 10_000 },
        "alert": { "after": 2, "session": "main" },
    });
    assert_eq!(policy, expected);
    for bad in [
        &["--backoff", "10s"][..],
        &["--overlap", "allow"],
        &["--overlap", "forbid", "--overlap-max", "2"],
        &["--backend", "py"],
        &["--cwd", "/"],
        &["--after-end"],
        &["--message", "m", "--event", "e"],
        &["--deliver", ":"],
    ] {
        let failure = flagged(&args(bad), &before(), &berlin()).unwrap_err();
        assert_eq!(failure.code(), Some(Code::InvalidArgument), "{bad:?}");
    }
}

#[test]
fn a_job_survives_both_spellings() {
    let mut view = before();
    view.policy = cron_spec::policy(
        &args(&["--if-missed", "all", "--jitter", "5s", "--no-alert"]).policy,
        view.policy,
    )
    .unwrap();
    view.payload = Some(PayloadView::AgentTurn {
        message: "several\nlines and \"quotes\"".into(),
        backend: None,
        timeout_ms: None,
    });
    view.schedule = Some(creel_schedule::ScheduleSpec::Every {
        period_ms: 5_400_000,
        anchor_ms: Some(17),
        mode: creel_schedule::EveryMode::FixedDelay,
    });
    let toml = format!("{HEADER}{}", toml_of(&view).unwrap());
    assert!(
        toml.contains("every = \"1h30m\"\n") && toml.contains("jitter = \"5s\"\n"),
        "{toml}"
    );
    assert_eq!(parse(&toml, Format::Toml).unwrap(), view, "{toml}");
    let json = json_of(&view).unwrap();
    assert_eq!(parse(&json, Format::Json).unwrap(), view);
    assert_eq!((format_of(&toml), format_of(&json)), (Format::Toml, Format::Json));
    let shown = serde_json::to_string(&JobView::from(&job())).unwrap();
    assert_eq!(
        parse(&shown, Format::Json).unwrap(),
        before(),
        "as `cron show --json` prints it"
    );
}

#[test]
fn what_can_not_be_read_is_told_with_its_line() {
    let toml = toml_of(&before()).unwrap();
    let wrong = toml.replace("expr = ", "exprr = ");
    let why = parse(&wrong, Format::Toml).unwrap_err();
    assert!(why.contains("line ") && why.contains("exprr"), "{why}");
    let json = json_of(&before()).unwrap().replace("\"payload\"", "\"payloads\"");
    let why = parse(&json, Format::Json).unwrap_err();
    assert!(why.contains("line ") && why.contains("payloads"), "{why}");
    assert!(
        parse("name = \"x\"\n", Format::Toml)
            .unwrap_err()
            .contains("schedule")
    );
}

#[test]
fn a_refusal_of_the_scheduler_names_the_line() {
    let toml = toml_of(&before()).unwrap();
    let error = Error::new(
        Code::InvalidArgument,
        "invalid_expression",
        "minute 61 is not in 0-59",
    )
    .field("spec.schedule.cron.expression");
    let placed = placed(error.into(), &toml);
    let message = &placed.error().unwrap().message;
    assert!(
        message.starts_with("line ") && message.contains("`expr = \"* * * * *\"`"),
        "{message}"
    );
    let text = "[policy.catchUp]\nmode = \"all\"\nwindowMs = 5\n";
    assert_eq!(line_of(text, "spec.policy.catch_up.window").unwrap().0, 3);
    for text in ["\nevery = \"1h\"", "\n  \"everyMs\": 5"] {
        assert_eq!(
            line_of(text, "spec.schedule.every.period").unwrap().0,
            2,
            "{text}"
        );
    }
    assert_eq!(
        line_of("{\n  \"deleteAfter\": \"x\"", "spec.delete_after")
            .unwrap()
            .0,
        2
    );
    assert_eq!(line_of(text, "spec.name"), None);
}

#[test]
fn only_a_bare_edit_opens_the_editor() {
    assert!(args(&[]).wants_editor() && args(&["--format", "json", "--dry-run"]).wants_editor());
    assert!(!args(&["--jitter", "1s"]).wants_editor() && !args(&["--file", "-"]).wants_editor());
}
