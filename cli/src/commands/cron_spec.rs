//! From flags to the parts of a job: for `cron add` from nothing, for `cron edit` over what is there.

use std::time::Duration;

use creel_schedule::{
    DstPolicy, EveryMode, Moment, ScheduleSpec, Syntax, ZoneSources, Zones, expand_hash, has_hash,
    parse_duration, parse_time,
};
use jiff::civil::Date;

use crate::{
    args::cron::{DeleteAfterArg, DstArg, IfMissed, OnStuckArg, OverlapArg, PolicyArgs, SpecArgs, SyntaxArg},
    failure::Failure,
    times::Local,
    views::{
        schedule::invalid,
        spec::{AlertView, CatchUpView, DeliveryView, OverlapView, PayloadView, PolicyView, RetryView},
    },
};

/// Occurrences that `--if-missed all` makes up for; the most the scheduler takes.
pub(super) const CATCH_UP_ALL: u32 = 1_000;

/// One line that can be copied.
const EXAMPLE: &str = "creel cron add briefing \"0 7 * * *\" \"Summarise my inbox\"";

/// A schedule, and whether its zone is that of this machine because nobody named one.
pub(super) type Timed = (ScheduleSpec, bool);

/// When: what the flags name, over what is there. `None`: they name nothing.
///
/// # Errors
/// Exit 2 for flags that don't go together.
pub(super) fn schedule(
    args: &SpecArgs,
    expression: Option<&String>,
    before: Option<&ScheduleSpec>,
    local: &Local,
) -> Result<Option<Timed>, Failure> {
    let cron = match (expression, &args.cron) {
        (Some(_), Some(_)) => return Err(Failure::usage("the expression is given twice: EXPR and --cron")),
        (expression, cron) => expression.or(cron.as_ref()),
    };
    let ours = args.tz.is_none();
    let spec = match (&args.at, args.every, cron) {
        // The zone counts only where the time is a reading; only there its absence is an error.
        (Some(at), None, None) => ScheduleSpec::At {
            time: at.clone(),
            zone: args.tz.clone().or_else(|| local.zone_name()),
        },
        (None, Some(every), None) => ScheduleSpec::Every {
            period_ms: millis(every).unsigned_abs(),
            anchor_ms: None,
            mode: EveryMode::default(),
        },
        (None, None, Some(expr)) => {
            let (zone, dst, syntax) = match before {
                Some(ScheduleSpec::Cron {
                    zone, dst, syntax, ..
                }) => (Some(zone.clone()), *dst, *syntax),
                _ => (None, DstPolicy::default(), Syntax::default()),
            };
            let kept = zone.is_some();
            let zone = match args.tz.clone().or(zone) {
                Some(zone) => zone,
                None => own_zone(local)?,
            };
            let expr = expr.clone();
            let spec = ScheduleSpec::Cron {
                expr,
                zone,
                dst,
                syntax,
            };
            return Ok(Some((refined(spec, args, local)?, ours && !kept)));
        }
        (None, None, None) => match before {
            Some(before) if names_part_of_schedule(args) => {
                let spec = refined(before.clone(), args, local)?;
                return Ok(Some((spec, false)));
            }
            Some(_) => return Ok(None),
            None => return Err(no_schedule()),
        },
        _ => return Err(no_schedule()),
    };
    let ours = ours && matches!(spec, ScheduleSpec::At { .. });
    Ok(Some((refined(spec, args, local)?, ours)))
}

fn no_schedule() -> Failure {
    Failure::usage_hint("say when, once: EXPR, --cron, --every or --at", EXAMPLE)
}

fn names_part_of_schedule(args: &SpecArgs) -> bool {
    args.tz.is_some()
        || args.dst.is_some()
        || args.syntax.is_some()
        || args.anchor.is_some()
        || args.after_end
}

/// A schedule with its smaller parts as the flags name them; each has its kind.
fn refined(mut spec: ScheduleSpec, args: &SpecArgs, local: &Local) -> Result<ScheduleSpec, Failure> {
    let foreign = |flag: &str, with: &str| Err(Failure::usage(format!("{flag} goes with {with}")));
    match &mut spec {
        ScheduleSpec::Cron {
            zone, dst, syntax, ..
        } => {
            if args.anchor.is_some() || args.after_end {
                return foreign("--anchor and --after-end", "--every");
            }
            if let Some(name) = &args.tz {
                zone.clone_from(name);
            }
            let (named_dst, named_syntax) = reading_rules(args.dst, args.syntax);
            *dst = named_dst.unwrap_or(*dst);
            *syntax = named_syntax.unwrap_or(*syntax);
        }
        ScheduleSpec::Every { anchor_ms, mode, .. } => {
            if args.tz.is_some() {
                return Err(Failure::usage(
                    "--tz goes with --cron and --at: an interval has no zone",
                ));
            }
            if args.dst.is_some() || args.syntax.is_some() {
                return foreign("--dst and --syntax", "--cron");
            }
            if let Some(text) = &args.anchor {
                *anchor_ms = Some(instant(text, "anchor", local)?);
            }
            if args.after_end {
                *mode = EveryMode::FixedDelay;
            }
        }
        ScheduleSpec::At { zone, .. } => {
            if args.dst.is_some() || args.syntax.is_some() || args.anchor.is_some() || args.after_end {
                return foreign("--dst, --syntax, --anchor and --after-end", "--cron or --every");
            }
            if let Some(name) = &args.tz {
                *zone = Some(name.clone());
            }
        }
    }
    Ok(spec)
}

/// A schedule whose `H`s are drawn from the name of its job: what is kept is an ordinary expression.
///
/// # Errors
/// Exit 2 for an `H` that can't be read.
pub(super) fn spread(mut spec: ScheduleSpec, name: &str) -> Result<ScheduleSpec, Failure> {
    if let ScheduleSpec::Cron {
        expr,
        syntax: Syntax::Unix,
        ..
    } = &mut spec
        && has_hash(expr)
    {
        *expr = expand_hash(expr, name).map_err(|error| invalid("expression", &error, error.hint.clone()))?;
    }
    Ok(spec)
}

/// How an expression is read, as far as flags name it.
pub(super) fn reading_rules(
    dst: Option<DstArg>,
    syntax: Option<SyntaxArg>,
) -> (Option<DstPolicy>, Option<Syntax>) {
    let dst = dst.map(|dst| match dst {
        DstArg::Vixie => DstPolicy::Vixie,
        DstArg::Skip => DstPolicy::Skip,
        DstArg::Both => DstPolicy::Both,
    });
    let syntax = syntax.map(|syntax| match syntax {
        SyntaxArg::Unix => Syntax::Unix,
        SyntaxArg::Quartz => Syntax::Quartz,
    });
    (dst, syntax)
}

/// An instant in Unix milliseconds. Readings and dates are those of this machine's clock, a clock's reading alone is
/// of today; `3d ago` counts back.
///
/// # Errors
/// Exit 2, naming the flag.
pub(super) fn instant(text: &str, flag: &str, local: &Local) -> Result<i64, Failure> {
    let text = text.trim();
    let beyond = || Failure::usage(format!("--{flag} lies beyond the years that can be counted"));
    if let Some(before) = text.strip_suffix(" ago") {
        let delay = parse_duration(before).map_err(|error| invalid(flag, &error, None))?;
        let at = local.now.checked_sub(delay).map_err(|_| beyond())?;
        return Ok(at.as_millisecond());
    }
    // Elsewhere a date alone is refused, since a job at midnight is seldom meant; a range from a date is clear.
    let text = if is_date(text) {
        format!("{text} 00:00")
    } else if text.bytes().all(|b| b.is_ascii_digit() || b == b':') {
        // Of a job to come it would be the next one; here people look back as well.
        format!("today {text}")
    } else {
        text.to_owned()
    };
    let zone = match local.zone_name() {
        // Zone data is opened only for a reading.
        Some(name) if parse_time(&text, local.now, None).is_err() => {
            Zones::load(&ZoneSources::of_this_machine()).get(&name).ok()
        }
        _ => None,
    };
    let moment = parse_time(&text, local.now, zone.as_ref())
        .map_err(|error| invalid(flag, &error, Some(error.hint())))?;
    Moment::instant(&moment)
        .map(|at| at.as_millisecond())
        .ok_or_else(beyond)
}

/// Whether a text is a date alone.
pub(super) fn is_date(text: &str) -> bool {
    text.parse::<Date>().is_ok_and(|_| !text.contains(':'))
}

/// The zone of this machine by name, as the scheduler needs it.
///
/// # Errors
/// Exit 2 where it has none.
pub(super) fn own_zone(local: &Local) -> Result<String, Failure> {
    local.zone_name().ok_or_else(|| {
        Failure::usage_hint(
            "this machine's time zone has no IANA name",
            "add --tz, for example --tz Europe/Berlin",
        )
    })
}

/// What: as the flags name it, over what is there. `None`: they name nothing.
///
/// # Errors
/// Exit 2 for flags that don't go together.
pub(super) fn payload(
    args: &SpecArgs,
    text: Option<&String>,
    before: Option<&PayloadView>,
) -> Result<Option<PayloadView>, Failure> {
    let mut named = Vec::new();
    for message in [text, args.message.as_ref()].into_iter().flatten() {
        let backend = match before {
            Some(PayloadView::AgentTurn { backend, .. }) => backend.clone(),
            _ => None,
        };
        named.push(PayloadView::AgentTurn {
            message: message.clone(),
            backend,
            timeout_ms: None,
        });
    }
    if let Some(text) = &args.event {
        named.push(PayloadView::SystemEvent { text: text.clone() });
    }
    let cwd = match before {
        Some(PayloadView::Command { cwd, .. }) => cwd.clone(),
        _ => None,
    };
    if let Some(line) = &args.command {
        named.push(PayloadView::Command {
            argv: Vec::new(),
            text: Some(line.clone()),
            cwd: cwd.clone(),
        });
    }
    if !args.argv.is_empty() {
        named.push(PayloadView::Command {
            argv: args.argv.clone(),
            text: None,
            cwd,
        });
    }
    if args.audit {
        named.push(PayloadView::Audit {});
    }
    let modified = args.backend.is_some() || args.cwd.is_some();
    let mut payload = match (named.pop(), before) {
        (Some(one), _) if named.is_empty() => one,
        (None, Some(before)) if modified => before.clone(),
        (None, Some(_)) => return Ok(None),
        _ => {
            return Err(Failure::usage_hint(
                "say what to do, once: MESSAGE, --message or --event",
                EXAMPLE,
            ));
        }
    };
    if let Some(named) = &args.backend {
        let PayloadView::AgentTurn { backend, .. } = &mut payload else {
            return Err(Failure::usage(
                "--backend goes with --message: nothing else has one",
            ));
        };
        *backend = Some(named.clone());
    }
    if let Some(named) = &args.cwd {
        let PayloadView::Command { cwd, .. } = &mut payload else {
            return Err(Failure::usage("--cwd goes with --command: nothing else has one"));
        };
        *cwd = Some(named.clone());
    }
    Ok(Some(payload))
}

/// A session as the scheduler takes it.
///
/// # Errors
/// Exit 2 for what is no session.
pub(super) fn session(text: &str) -> Result<String, Failure> {
    match text {
        "main" => Ok("main".to_owned()),
        other => Ok(super::sessions::key(other)?.to_string()),
    }
}

/// Where the summary goes.
///
/// # Errors
/// Exit 2 for what is neither a session nor a URL.
pub(super) fn delivery(text: &str) -> Result<DeliveryView, Failure> {
    match text {
        "none" => Ok(DeliveryView::None {}),
        url if url.contains("://") => Ok(DeliveryView::Webhook { url: url.to_owned() }),
        other => Ok(DeliveryView::Session {
            session: session(other)?,
        }),
    }
}

/// The rules, over those that are there.
///
/// # Errors
/// Exit 2 for flags that don't go together.
pub(super) fn policy(args: &PolicyArgs, mut view: PolicyView) -> Result<PolicyView, Failure> {
    if args.if_missed.is_some() || args.window.is_some() {
        let before = view.catch_up.take();
        let window_ms = args
            .window
            .map(millis)
            .or(before.as_ref().and_then(|before| before.window_ms));
        let (mode, max) = match (args.if_missed, before) {
            (Some(IfMissed::Skip), _) => ("skip".to_owned(), None),
            (Some(IfMissed::Run), _) => ("last".to_owned(), None),
            (Some(IfMissed::All), _) => ("all".to_owned(), Some(CATCH_UP_ALL)),
            (None, Some(before)) => (before.mode, before.max),
            (None, None) => ("last".to_owned(), None),
        };
        view.catch_up = Some(CatchUpView { mode, max, window_ms });
    }
    match (args.overlap, args.overlap_max) {
        (None, None) => {}
        (Some(OverlapArg::Allow), None) => {
            return Err(Failure::usage_hint(
                "--overlap allow needs to know how many runs may be at once",
                "add --overlap-max, for example --overlap allow --overlap-max 4",
            ));
        }
        (Some(OverlapArg::Allow), max) => view.overlap = Some(overlap("allow", max)),
        (Some(OverlapArg::Forbid), None) => view.overlap = Some(overlap("forbid", None)),
        (Some(OverlapArg::BufferOne), None) => view.overlap = Some(overlap("buffer_one", None)),
        (Some(OverlapArg::Replace), None) => view.overlap = Some(overlap("replace", None)),
        (None, max)
            if view
                .overlap
                .as_ref()
                .is_some_and(|overlap| overlap.mode == "allow") =>
        {
            view.overlap = Some(overlap("allow", max));
        }
        _ => return Err(Failure::usage("--overlap-max goes with --overlap allow")),
    }
    let put = |into: &mut Option<i64>, value: Option<Duration>| {
        if let Some(value) = value {
            *into = Some(millis(value));
        }
    };
    put(&mut view.jitter_ms, args.jitter);
    put(&mut view.timeout_ms, args.timeout);
    put(&mut view.expected_ms, args.expected);
    put(&mut view.keep_for_ms, args.keep_for);
    if args.retries.is_some() || args.backoff.is_some() || args.max_backoff.is_some() {
        let mut retry = view.retry.take().unwrap_or(RetryView {
            attempts: 1,
            backoff_ms: None,
            max_backoff_ms: None,
            past_next: false,
        });
        if let Some(retries) = args.retries {
            retry.attempts = retries + 1;
        }
        put(&mut retry.backoff_ms, args.backoff);
        put(&mut retry.max_backoff_ms, args.max_backoff);
        if retry.attempts < 2 && (args.backoff.is_some() || args.max_backoff.is_some()) {
            return Err(Failure::usage_hint(
                "--backoff goes with --retries: there is no second attempt",
                "add --retries, for example --retries 3 --backoff 30s",
            ));
        }
        view.retry = Some(retry);
    }
    if let Some(mode) = args.on_stuck {
        let word = match mode {
            OnStuckArg::Fail => "fail",
            OnStuckArg::Retry => "retry",
        };
        view.on_stuck = Some(word.to_owned());
    }
    if args.past_next {
        let Some(retry) = view.retry.as_mut().filter(|retry| retry.attempts > 1) else {
            return Err(Failure::usage("--past-next goes with --retries"));
        };
        retry.past_next = true;
    }
    if args.no_alert {
        view.alert = Some(AlertView {
            off: true,
            ..AlertView::default()
        });
    } else if args.alert_after.is_some() || args.alert_to.is_some() || args.alert_every.is_some() {
        let mut alert = view.alert.take().unwrap_or_default();
        alert.off = false;
        alert.after = args.alert_after.or(alert.after);
        put(&mut alert.cool_down_ms, args.alert_every);
        if let Some(to) = &args.alert_to {
            alert.session = Some(session(to)?);
        }
        view.alert = Some(alert);
    }
    view.quarantine_after = args.quarantine_after.or(view.quarantine_after);
    view.keep_runs = args.keep_runs.or(view.keep_runs);
    Ok(view)
}

fn overlap(mode: &str, max: Option<u32>) -> OverlapView {
    OverlapView {
        mode: mode.to_owned(),
        max,
    }
}

/// The word of `--delete-after`.
pub(super) fn delete_after(args: &SpecArgs) -> Option<String> {
    let word = match args.delete_after? {
        DeleteAfterArg::Never => "never",
        DeleteAfterArg::OnSuccess => "on_success",
        DeleteAfterArg::Always => "always",
    };
    Some(word.to_owned())
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::times::{rfc3339, tests::berlin};

    #[test]
    fn instants_look_back_as_well() {
        // It is 11:00 in Berlin.
        for (text, at) in [
            ("07:00", "2026-11-22T06:00:00Z"),
            ("12:00", "2026-11-22T11:00:00Z"),
            ("2026-11-20", "2026-11-19T23:00:00Z"),
            ("2026-11-20 07:00", "2026-11-20T06:00:00Z"),
            ("tomorrow 07:00", "2026-11-23T06:00:00Z"),
            ("1h ago", "2026-11-22T09:00:00Z"),
            ("in 1h", "2026-11-22T11:00:00Z"),
        ] {
            let read = instant(text, "at", &berlin()).unwrap();
            assert_eq!(rfc3339(read).as_deref(), Some(at), "{text}");
        }
        for text in ["", "soon", "25:00", "::"] {
            assert!(instant(text, "at", &berlin()).is_err(), "{text}");
        }
    }
}
