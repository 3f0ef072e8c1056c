//! What a job is, as flags: shared by `cron add` and `cron edit`.

use std::time::Duration;

use clap::{Args, ValueEnum};
use creel_schedule::parse_duration;

/// When, what, where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct SpecArgs {
    /// Once: `07:00`, `tomorrow 07:00`, `2026-12-01 07:00`, an RFC 3339 time, or `in 20m`
    #[arg(long, value_name = "T", help_heading = "When")]
    pub(crate) at: Option<String>,
    /// Again and again, this far apart: 30s, 5m, 1d; at least 1s
    #[arg(long, value_name = "D", value_parser = parse_duration, help_heading = "When")]
    pub(crate) every: Option<Duration>,
    /// By the calendar: five fields as `0 7 * * MON-FRI`, or a nickname as @daily; `H 7 * * *` is a minute that
    /// the job's name draws
    #[arg(long, value_name = "E", help_heading = "When")]
    pub(crate) cron: Option<String>,
    /// IANA zone of --cron and --at, as Europe/Berlin; that of this machine without
    #[arg(long, value_name = "Z", help_heading = "When")]
    pub(crate) tz: Option<String>,
    /// What --cron does with times that a clock change leaves out or shows twice; vixie without
    #[arg(long, value_name = "RULE", value_enum, help_heading = "When")]
    pub(crate) dst: Option<DstArg>,
    /// The grammar of --cron; unix without
    #[arg(long, value_name = "S", value_enum, help_heading = "When")]
    pub(crate) syntax: Option<SyntaxArg>,
    /// Where the grid of --every starts, as `2026-12-01 07:00`; when the job is made without
    #[arg(long, value_name = "T", help_heading = "When")]
    pub(crate) anchor: Option<String>,
    /// --every counts from the end of a run, not from its start
    #[arg(long, help_heading = "When")]
    pub(crate) after_end: bool,

    /// Text into the target session
    #[arg(long, value_name = "TEXT", help_heading = "What")]
    pub(crate) event: Option<String>,
    /// Message of a turn in a fresh context
    #[arg(long, value_name = "TEXT", help_heading = "What")]
    pub(crate) message: Option<String>,
    /// The backend of --message, instead of the configured one
    #[arg(long, value_name = "B", help_heading = "What")]
    pub(crate) backend: Option<String>,
    /// A command line, decided by the exec policy at every fire
    // Shown when exec-approver is there.
    #[arg(long, hide = true, value_name = "LINE", help_heading = "What")]
    pub(crate) command: Option<String>,
    /// The same as words, after `--`
    #[arg(last = true, hide = true, value_name = "ARG", help_heading = "What")]
    pub(crate) argv: Vec<String>,
    /// Where a command runs
    #[arg(long, hide = true, value_name = "DIR", help_heading = "What")]
    pub(crate) cwd: Option<String>,
    /// The security audit
    #[arg(long, hide = true, help_heading = "What")]
    pub(crate) audit: bool,

    /// Where the event or the summary goes: `main`, a name, or a session key; main without
    #[arg(long, value_name = "S", help_heading = "Where")]
    pub(crate) target: Option<String>,
    /// Where the summary goes instead: `none`, `main`, a name, or a session key
    #[arg(long, value_name = "TO", help_heading = "Where")]
    pub(crate) deliver: Option<String>,
    /// Delete the job after its first success
    #[arg(long, conflicts_with = "delete_after")]
    pub(crate) delete_after_run: bool,
    /// The same, more exactly; never without
    #[arg(long, value_name = "WHEN", value_enum)]
    pub(crate) delete_after: Option<DeleteAfterArg>,
    /// For people
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
}

/// By which rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Rules")]
pub(crate) struct PolicyArgs {
    /// When it was due while the stack slept; run without
    #[arg(long, value_name = "MODE", value_enum)]
    pub(crate) if_missed: Option<IfMissed>,
    /// What is missed longer than this is left out: 24h, of --every one period of it; never, of --at
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub(crate) window: Option<Duration>,
    /// When it is due while it still runs; forbid without
    #[arg(long, value_name = "MODE", value_enum)]
    pub(crate) overlap: Option<OverlapArg>,
    /// Of --overlap allow: so many at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) overlap_max: Option<u32>,
    /// Start up to this much later, the same for the same occurrence: 5m; not at all without
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub(crate) jitter: Option<Duration>,
    /// The limit of each run (here not that of the call): 5m; 1h without
    #[arg(id = "timeout", long, value_name = "D", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Longer runs are marked slow: 2m; three times the median of the last 20 without
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub(crate) expected: Option<Duration>,
    /// More attempts after a failure; 0 without
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=19))]
    pub(crate) retries: Option<u32>,
    /// Before the second attempt, and doubled before each further one; 30s without
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub(crate) backoff: Option<Duration>,
    /// The backoff grows up to this; 1h without
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub(crate) max_backoff: Option<Duration>,
    /// A retry may come after the next occurrence
    #[arg(long)]
    pub(crate) past_next: bool,
    /// When its worker is lost in the middle; fail without
    #[arg(long, value_name = "MODE", value_enum)]
    pub(crate) on_stuck: Option<OnStuckArg>,
    /// Failures in a row until it is quarantined; 5 without
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) quarantine_after: Option<u32>,
    /// Failures in a row until somebody is told; 3 without
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) alert_after: Option<u32>,
    /// Who is told: `main`, a name, or a session key; main without
    #[arg(long, value_name = "S")]
    pub(crate) alert_to: Option<String>,
    /// At least so long between two alerts; 1h without
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub(crate) alert_every: Option<Duration>,
    /// Nobody is told
    #[arg(long, conflicts_with_all = ["alert_after", "alert_to", "alert_every"])]
    pub(crate) no_alert: bool,
    /// Runs kept in the log; 200 without
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) keep_runs: Option<u32>,
    /// How long they are kept: 7d; 30d without
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub(crate) keep_for: Option<Duration>,
}

/// See `--overlap`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OverlapArg {
    /// Skip it
    Forbid,
    /// Run it once afterwards
    BufferOne,
    /// Run it beside
    Allow,
    /// Cancel the one that runs
    Replace,
}

/// See `--if-missed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IfMissed {
    /// Leave them out
    Skip,
    /// Run once on waking
    Run,
    /// Run each
    All,
}

/// See `--on-stuck`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnStuckArg {
    /// The run has failed: nobody knows how far it went
    Fail,
    /// Try again: the job does no harm when done twice
    Retry,
}

/// See `--delete-after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DeleteAfterArg {
    /// Keep it
    Never,
    /// After the first run that succeeds
    OnSuccess,
    /// After the first run, however it ends
    Always,
}

/// See `--dst`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DstArg {
    /// Once each: after the gap, in the first pass
    Vixie,
    /// At most once: not in a gap
    Skip,
    /// As the clock shows it: twice in an overlap
    Both,
}

/// See `--syntax`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SyntaxArg {
    /// Five fields
    Unix,
    /// Six or seven fields, with seconds; 1 is Sunday
    Quartz,
}
