//! `creel cron …` as it is typed.

mod spec;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

pub(crate) use self::spec::{
    DeleteAfterArg, DstArg, IfMissed, OnStuckArg, OverlapArg, PolicyArgs, SpecArgs, SyntaxArg,
};
use super::{Checked, Repeatable, Versioned};

#[derive(Debug, Subcommand)]
pub(crate) enum Cron {
    /// Add a job
    Add(Box<Add>),
    /// Change a job: by flags, from a file, or in your editor
    Edit(Box<Edit>),
    /// All jobs: when next, how last
    #[command(after_help = "Examples:
  creel cron list --soonest
  creel cron list --phase failed,quarantined")]
    List {
        /// Only names that start with this
        #[arg(long, value_name = "TEXT")]
        prefix: Option<String>,
        /// Only jobs in one of these phases
        #[arg(long, value_name = "PHASE", value_enum, value_delimiter = ',')]
        phase: Vec<PhaseArg>,
        /// By when they run next, instead of by name
        #[arg(long)]
        soonest: bool,
        /// Only their names, one a line
        #[arg(long)]
        names: bool,
    },
    /// One job
    #[command(after_help = "Example:
  creel cron show briefing")]
    Show {
        /// Its name or id
        name: String,
    },
    /// Run a job now, beside its schedule
    #[command(after_help = "Example:
  creel cron run briefing --wait")]
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
    #[command(after_help = "Examples:
  creel cron runs --job briefing -n 10
  creel cron runs --status failed --json")]
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
    /// What will run when, as a picture: days down, hours across
    #[command(after_help = "Examples:
  creel cron calendar
  creel cron calendar --days 14 --tz America/New_York --json

Each job has a letter. Jobs that are due in every hour stand below the picture.")]
    Calendar {
        /// How many days, today first
        #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u8).range(1..=31))]
        days: u8,
        /// The clocks it is drawn by; those of this machine without
        #[arg(long, value_name = "Z")]
        tz: Option<String>,
        /// Only jobs whose names start with this
        #[arg(long, value_name = "TEXT")]
        prefix: Option<String>,
    },
    /// Take over jobs: Clawdbot's or OpenClaw's jobs.json, or specs as JSON
    #[command(after_help = "Examples:
  creel cron import ~/.clawdbot/cron/jobs.json --dry-run
  creel cron import ~/.openclaw/cron/jobs.json
  creel cron list --json | creel cron import - --profile work

Prints what was taken and what was refused, and why. Importing the same file again changes nothing.
Exit status: 0 when every job was taken, 1 when some were refused.")]
    Import {
        /// The file, or - for stdin
        file: PathBuf,
        /// Zone of expressions that name none; that of this machine without
        #[arg(long, value_name = "Z")]
        tz: Option<String>,
        /// `--late ok`: one-shots of the past run at once
        #[arg(long, value_name = "ok", value_enum)]
        late: Option<Late>,
        #[command(flatten)]
        checked: Checked,
    },
    /// Delete a job; its runs stay in the log until they are pruned
    #[command(after_help = "Example:
  creel cron rm briefing")]
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
    Next(Next),
    /// Why a job ran, or why it did not, and what is next
    #[command(after_help = "Examples:
  creel cron explain briefing
  creel cron explain briefing --at 07:00
  creel cron explain briefing --at \"2026-11-23 07:00\"")]
    Explain {
        /// Its name or id
        name: String,
        /// About the occurrence at this instant, or the last one before: `2026-11-23 07:00`, `07:00` (today), `3h ago`
        #[arg(long, value_name = "T")]
        at: Option<String>,
    },
    /// Run the occurrences of a range of the past, oldest first, beside the schedule
    #[command(after_help = "Examples:
  creel cron backfill report --from 2026-11-01 --to 2026-11-08 --dry-run
  creel cron backfill report --from \"2026-11-01 00:00\" --at-once 4
  creel cron backfill report --stop")]
    Backfill {
        /// Its name or id
        name: String,
        /// From this instant on: `2026-11-01`, `2026-11-01 07:00`, `3d ago`
        #[arg(long, value_name = "T", required_unless_present = "stop")]
        from: Option<String>,
        /// Up to this one, itself left out; now without
        #[arg(long, value_name = "T")]
        to: Option<String>,
        /// So many runs at once
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
        at_once: u32,
        /// End the one that is running; what it started goes on
        #[arg(long, conflicts_with_all = ["from", "to", "at_once"])]
        stop: bool,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
        #[command(flatten)]
        versioned: Versioned,
    },
    /// End a run: its worker is asked to stop
    #[command(after_help = "Example:
  creel cron cancel 16488c7d0d790e665c05823f7a29856f --reason \"wrong inbox\"")]
    Cancel {
        /// The run's id, or 8 or more characters of either end of it
        run: String,
        /// Kept in the record
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        repeatable: Repeatable,
    },
    /// Take a stuck run away from its worker, without waiting for an answer
    #[command(after_help = "Example:
  creel cron reset 16488c7d0d790e665c05823f7a29856f --retry

What the worker still says is not taken. Without --retry the run ends as cancelled.")]
    Reset {
        /// The run's id, or 8 or more characters of either end of it
        run: String,
        /// Make its next attempt at once
        #[arg(long)]
        retry: bool,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
    },
    /// The last runs, then runs as they change; with --json one object per line
    #[command(after_help = "Example:
  creel cron tail briefing")]
    Tail {
        /// Of one job, by name or id
        job: Option<String>,
        /// How many to begin with
        #[arg(short = 'n', value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=500))]
        last: u16,
        /// Only runs in this state
        #[arg(long, value_name = "S", value_enum)]
        status: Option<RunStatus>,
    },
    /// The scheduler itself: its clock, its workers, what waits
    Status,
    /// The wall clock is right as it is: let jobs run by it again
    #[command(after_help = "Example:
  creel cron accept-clock --dry-run")]
    AcceptClock {
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
    },
    /// Let agents of a conversation make jobs that need no approval; without a name, list where they may
    #[command(after_help = "Examples:
  creel cron grant main
  creel cron grant agent:default:main --revoke
  creel cron grant

Such a job is a turn in its own conversation, every five minutes at most; ten in a conversation, none made by a job. Elsewhere a job that an agent makes waits, paused, for `creel cron resume`.")]
    Grant {
        /// The conversation: main, or a session key
        session: Option<String>,
        /// No longer; jobs that were made go on
        #[arg(long, requires = "session")]
        revoke: bool,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
    },
    /// Keep a job from running
    #[command(after_help = "Example:
  creel cron pause briefing --reason \"on holiday\"")]
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
    #[command(after_help = "Example:
  creel cron resume briefing")]
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

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  creel cron next \"0 7 * * *\"
  creel cron next \"30 2 * * *\" --tz Europe/Berlin -n 3 --after 2027-03-27
  creel cron next \"30 2 * * *\" --tz Europe/Berlin --dst skip")]
pub(crate) struct Next {
    /// Five fields, or a nickname as @daily
    #[arg(value_name = "EXPR")]
    pub(crate) expression: String,
    /// IANA zone, for example Europe/Berlin; that of this machine without
    #[arg(long, value_name = "Z")]
    pub(crate) tz: Option<String>,
    /// What is done with times that a clock change leaves out or shows twice; vixie without
    #[arg(long, value_name = "RULE", value_enum)]
    pub(crate) dst: Option<DstArg>,
    /// The grammar; unix without
    #[arg(long, value_name = "S", value_enum)]
    pub(crate) syntax: Option<SyntaxArg>,
    /// How many
    #[arg(short = 'n', value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(crate) count: u16,
    /// Instants after this one: 2027-03-27T00:00:00Z, `2027-03-27` or `2027-03-27 07:00` in the zone, `in 2d`
    #[arg(long, value_name = "T")]
    pub(crate) after: Option<String>,
}

#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:
  creel cron add briefing \"0 7 * * *\" \"Summarise my inbox\"
  creel cron add tea --at \"in 4m\" --event \"Tea is ready\" --delete-after-run
  creel cron add pulse --every 30m --message \"Anything urgent?\" --timeout 5m
  creel cron add report --cron \"0 9 * * MON\" --tz Europe/Berlin --message Report
  creel cron show briefing --json | creel cron add copy --json-spec -

--message starts a turn in a fresh context and delivers its summary to the target; --event goes into the target session itself. Adding the same job again changes nothing.")]
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
    #[command(flatten)]
    pub(crate) spec: SpecArgs,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// Make it paused: it runs only when asked to
    #[arg(long)]
    pub(crate) disabled: bool,
    /// `--late ok`: an --at in the past runs at once
    #[arg(long, value_name = "ok", value_enum)]
    pub(crate) late: Option<Late>,
    /// The whole job as `cron show --json` prints it: JSON, @FILE, or - for stdin
    #[arg(long, value_name = "JSON", conflicts_with_all = ["expression", "SpecArgs", "PolicyArgs", "disabled"])]
    pub(crate) json_spec: Option<String>,
    #[command(flatten)]
    pub(crate) checked: Checked,
    #[command(flatten)]
    pub(crate) repeatable: Repeatable,
}

#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:
  creel cron edit briefing --cron \"30 7 * * MON-FRI\"
  creel cron edit briefing --if-missed skip --timeout 10m
  creel cron edit briefing                 # in $VISUAL or $EDITOR, as TOML
  creel cron edit briefing --file new.toml

What isn't named stays. A job that somebody else changes meanwhile is a conflict, exit 6.")]
pub(crate) struct Edit {
    /// Its name or id
    #[arg(value_name = "NAME")]
    pub(crate) job: String,
    #[command(flatten)]
    pub(crate) spec: SpecArgs,
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// Another name for it
    #[arg(long, value_name = "NAME")]
    pub(crate) rename: Option<String>,
    /// Let the schedule count again
    #[arg(long, conflicts_with = "disable")]
    pub(crate) enable: bool,
    /// Run only when asked to
    #[arg(long)]
    pub(crate) disable: bool,
    /// Keep the job after its first success
    #[arg(long, conflicts_with = "delete_after_run")]
    pub(crate) keep_after_run: bool,
    /// The whole job, from a file or - for stdin: TOML or JSON
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "SpecArgs", "PolicyArgs", "rename", "enable", "disable", "keep_after_run",
    ])]
    pub(crate) file: Option<PathBuf>,
    /// How the editor shows it
    #[arg(long, value_name = "F", value_enum, default_value_t = Format::Toml)]
    pub(crate) format: Format,
    #[command(flatten)]
    pub(crate) checked: Checked,
    #[command(flatten)]
    pub(crate) repeatable: Repeatable,
    #[command(flatten)]
    pub(crate) versioned: Versioned,
}

impl Edit {
    /// Nothing is named, so a person is to say it in an editor.
    pub(crate) fn wants_editor(&self) -> bool {
        self.spec == SpecArgs::default()
            && self.policy == PolicyArgs::default()
            && self.rename.is_none()
            && !(self.enable || self.disable || self.keep_after_run)
            && self.file.is_none()
    }
}

/// See `--format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Toml,
    Json,
}

/// See `--late`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Late {
    /// Run at once
    Ok,
}

/// Phases of a job, as they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PhaseArg {
    Scheduled,
    Running,
    Parked,
    Succeeded,
    Failed,
    Stuck,
    Quarantined,
    Paused,
    Completed,
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
