//! `creel cron …` as it is typed.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use creel_schedule::parse_duration;

use super::{Checked, Repeatable, Versioned};

#[derive(Debug, Subcommand)]
pub(crate) enum Cron {
    /// Add a job
    Add(Box<Add>),
    /// All jobs: when next, how last
    List {
        /// Only names that start with this
        #[arg(long, value_name = "TEXT")]
        prefix: Option<String>,
    },
    /// One job
    Show {
        /// Its name or id
        name: String,
    },
    /// Run a job now, beside its schedule
    Run {
        /// Its name or id
        name: String,
        /// Wait until the run has ended; exit 1 unless it succeeded
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
    },
    /// What ran, newest first
    Runs {
        /// Of one job, by name or id
        #[arg(long, value_name = "NAME")]
        job: Option<String>,
        /// How many
        #[arg(long, short = 'n', value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Only runs in this state
        #[arg(long, value_name = "S", value_enum)]
        status: Option<RunStatus>,
        /// Go on with runs as they change; with --json one object per line
        #[arg(long)]
        follow: bool,
    },
    /// Delete a job; its runs stay in the log until they are pruned
    Rm {
        /// Its name or id
        name: String,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
        #[command(flatten)]
        versioned: Versioned,
    },
    /// When an expression is due, without asking the stack
    #[command(after_help = "Examples:
  creel cron next \"0 7 * * *\"
  creel cron next \"30 2 * * *\" --tz Europe/Berlin -n 3 --after 2027-03-27T00:00:00Z")]
    Next {
        /// Five fields, or a nickname as @daily
        #[arg(value_name = "EXPR")]
        expression: String,
        /// IANA zone, for example Europe/Berlin; that of this machine without
        #[arg(long, value_name = "Z")]
        tz: Option<String>,
        /// How many
        #[arg(short = 'n', value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
        count: u16,
        /// Instants after this one: 2027-03-27T00:00:00Z, `2027-03-27 00:00` in the zone, or `in 2d`
        #[arg(long, value_name = "T")]
        after: Option<String>,
    },
    /// Keep a job from running
    Pause {
        /// Its name or id
        name: String,
        /// Kept in the record
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
        #[command(flatten)]
        versioned: Versioned,
    },
    /// Let a paused or quarantined job run again
    Resume {
        /// Its name or id
        name: String,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
        #[command(flatten)]
        versioned: Versioned,
    },
}

#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:
  creel cron add briefing \"0 7 * * *\" \"Summarise my inbox\"
  creel cron add tea --at \"in 4m\" --event \"Tea is ready\" --delete-after-run
  creel cron add pulse --every 30m --message \"Anything urgent?\" --overlap forbid --timeout 5m
  creel cron add report --cron \"0 9 * * MON\" --tz Europe/Berlin --message \"Write the weekly report\"
  creel cron show briefing --json | creel cron add copy --json-spec -

--message starts a turn in a fresh context and delivers its summary to the target; --event goes into
the target session itself. Adding the same job again changes nothing.")]
pub(crate) struct Add {
    /// The job's name
    #[arg(required_unless_present = "json_spec")]
    pub(crate) name: Option<String>,
    /// Short form: the cron expression …
    #[arg(value_name = "EXPR")]
    pub(crate) expression: Option<String>,
    /// … and the message
    #[arg(value_name = "MESSAGE")]
    pub(crate) text: Option<String>,
    /// Once: `2026-12-01 07:00`, an RFC 3339 time, or `in 20m`
    #[arg(long, value_name = "T")]
    pub(crate) at: Option<String>,
    /// Again and again, this far apart: 30s, 5m, 1d
    #[arg(long, value_name = "D", value_parser = parse_duration)]
    pub(crate) every: Option<Duration>,
    /// By the calendar: five fields, or a nickname as @daily
    #[arg(long, value_name = "E")]
    pub(crate) cron: Option<String>,
    /// IANA zone of --cron and --at; that of this machine without
    #[arg(long, value_name = "Z")]
    pub(crate) tz: Option<String>,
    /// Text into the target session
    #[arg(long, value_name = "TEXT")]
    pub(crate) event: Option<String>,
    /// Message of a turn in a fresh context
    #[arg(long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// Where the event or the summary goes: `main`, a name, or a session key
    #[arg(long, value_name = "S")]
    pub(crate) target: Option<String>,
    /// Delete the job after its first success
    #[arg(long)]
    pub(crate) delete_after_run: bool,
    /// The limit of each run (here not that of the call), for example 5m
    #[arg(id = "timeout", long, value_name = "D", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// When it is due while it still runs
    #[arg(long, value_name = "MODE", value_enum)]
    pub(crate) overlap: Option<OverlapArg>,
    /// When it was due while the stack slept
    #[arg(long, value_name = "MODE", value_enum)]
    pub(crate) if_missed: Option<IfMissed>,
    /// `--late ok`: an --at in the past runs at once
    #[arg(long, value_name = "ok", value_enum)]
    pub(crate) late: Option<Late>,
    /// The backend of --message, instead of the configured one
    #[arg(long, value_name = "B")]
    pub(crate) backend: Option<String>,
    /// More attempts after a failure
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) retries: Option<u32>,
    /// For people
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// The whole job as `cron show --json` prints it: JSON, @FILE, or - for stdin
    #[arg(long, value_name = "JSON", conflicts_with_all = [
        "expression", "at", "every", "cron", "tz", "event", "message", "target", "delete_after_run", "timeout",
        "overlap", "if_missed", "backend", "retries", "description",
    ])]
    pub(crate) json_spec: Option<String>,
    #[command(flatten)]
    pub(crate) checked: Checked,
    #[command(flatten)]
    pub(crate) repeatable: Repeatable,
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

/// See `--late`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Late {
    /// Run at once
    Ok,
}

/// States of a run, as they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum RunStatus {
    Pending,
    Dispatched,
    Running,
    Succeeded,
    Failed,
    TimedOut,
    Cancelled,
    Stuck,
    Skipped,
    Parked,
}
