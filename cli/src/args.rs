//! The command line as it is typed. What it means is resolved in `commands`.

pub(crate) mod cron;
pub(crate) mod devices;
pub(crate) mod nodes;
pub(crate) mod people;

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use creel_schedule::parse_duration;

/// Creel holds a personal AI agent: who may talk to it, when it runs, what it may touch.
#[derive(Debug, Parser)]
#[command(
    name = "creel",
    version = creel_kit::VERSION,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  creel status
  creel send \"What is on my list today?\"
  creel cron add briefing \"0 7 * * *\" \"Summarise my inbox\"
  creel cron runs --job briefing --json

Data goes to stdout, everything else to stderr. Exit status: 0 ok, 1 failed, 2 usage, 3 not found, 4 denied, 5 unavailable, 6 conflict, 7 waiting for approval, 78 bad config."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The stack: `default`, or the NAME of ~/.creel-NAME (also CREEL_PROFILE)
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// JSON on stdout, and errors as JSON on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The edge to call, instead of that of the profile (also CREEL_ENDPOINT)
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub(crate) endpoint: Option<String>,
    /// How long to wait: 5s, 2m30s, 500ms; 30s a call without
    #[arg(id = "timeout", long, global = true, value_name = "D", value_parser = parse_duration)]
    pub(crate) timeout: Option<Duration>,
    /// Don't ask before what can't be undone
    #[arg(long, short = 'y', global = true)]
    pub(crate) yes: bool,
}

/// A mutation that can be repeated without doing it twice.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Repeatable {
    /// Names this change: repeating it under the same ID answers as the first time
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
}

/// A mutation that can be checked only.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Checked {
    /// Check everything, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// A mutation of something that has versions.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Versioned {
    /// Only if the etag is still this one (it stands in what `show` or `list` prints with --json)
    #[arg(long, value_name = "ETAG")]
    pub(crate) if_match: Option<String>,
}

/// A scope, also without the word that all have in common: `read` for `operator.read`. Identity says which there
/// are.
fn scope(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(match text {
        "" => String::new(),
        whole if whole.contains('.') => whole.to_owned(),
        short => format!("operator.{short}"),
    })
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What runs, how it is, and what to do about it
    Status,
    /// Whether everything is ready: one line, exit 0 or 5
    Health,
    /// Look for what is wrong or soon will be, with the command that mends it
    #[command(after_help = "Exit status: 0 when nothing failed, 1 otherwise.")]
    Doctor,
    /// Give the agent a message and print its answer
    Send(Send),
    /// What the agent remembers, by conversation
    #[command(subcommand)]
    Sessions(Sessions),
    /// When things run
    #[command(subcommand)]
    Cron(cron::Cron),
    /// Who may call: this machine, scripts, others
    #[command(subcommand)]
    Devices(devices::Devices),
    /// People, and the chat senders that speak for them
    #[command(subcommand)]
    People(people::People),
    /// Chat senders: who waits, who may write
    #[command(subcommand)]
    Pairing(people::Pairing),
    /// Become a device of another stack, by the code of an invite
    Join(Join),
    /// Call that stack from now on; `local` is the one of this machine
    #[command(after_help = "Examples:
  creel use box.example.net
  creel use local")]
    Use {
        /// As `creel contexts` lists them
        name: String,
    },
    /// Forget a stack that was joined: its key is deleted here
    #[command(after_help = "Example:
  creel leave box.example.net

Over there the device stays until it is revoked: creel devices revoke NAME.")]
    Leave {
        /// As `creel contexts` lists them
        name: String,
    },
    /// The stacks this machine can call; `*` marks the one in use
    Contexts,
    /// Companion devices: what they are and can be asked for
    #[command(subcommand)]
    Nodes(nodes::Nodes),
    /// How other programs get here
    #[command(subcommand)]
    Connect(nodes::Connect),
    /// The services' logs
    Logs(Logs),
    /// The deployment: creel.toml
    #[command(subcommand)]
    Config(Config),
    /// Completions for a shell, on stdout
    #[command(after_help = "Example:
  creel completions bash > ~/.local/share/bash-completion/completions/creel")]
    Completions {
        /// Whose
        shell: clap_complete::Shell,
    },
    /// The version of this program
    Version,
    /// Who this machine is to the stack, and what it may do
    Whoami,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  creel send hello
  git diff | creel send - --session review
  creel send \"Plan my day\" --follow

Without --follow the final answer is printed when it is there. With it, text comes as it is written, tool calls go to stderr; with --json one event per line. --timeout ends the waiting, not the turn.

--as tries out who is let in: an unknown sender is shown a code (exit status 7), and answered once `creel pairing approve CHANNEL CODE` let it in.")]
pub(crate) struct Send {
    /// The message; `-` reads stdin
    pub(crate) text: String,
    /// `main`, or a name for a conversation of its own
    #[arg(long, value_name = "S", default_value = "main")]
    pub(crate) session: String,
    /// The backend, instead of the configured one
    #[arg(long, value_name = "B")]
    pub(crate) backend: Option<String>,
    /// Print the answer while it is written
    #[arg(long)]
    pub(crate) follow: bool,
    /// As if this chat sender had written it: CHANNEL:ID or CHANNEL:ACCOUNT:ID (needs operator.admin)
    #[arg(id = "as", long = "as", value_name = "SENDER", conflicts_with = "session")]
    pub(crate) sender: Option<String>,
    /// Print the message's id as soon as it is kept, and leave
    #[arg(long, conflicts_with = "follow")]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) repeatable: Repeatable,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:
  creel join creel1-AbC…

The key is made here and never leaves this machine; the stack is known by its fingerprint in the code.
Compare the six words with those that `creel devices show NAME` shows over there.")]
pub(crate) struct Join {
    /// As `creel devices invite` printed it; `-` reads stdin
    pub(crate) code: String,
    /// What the stack is called here; its host's name without
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Another address than the one in the code
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Sessions {
    /// All conversations and job contexts
    #[command(after_help = "Example:
  creel sessions list --prefix agent:")]
    List {
        /// Only keys that start with this
        #[arg(long, value_name = "TEXT")]
        prefix: Option<String>,
    },
    /// One of them, with its last entries
    #[command(after_help = "Examples:
  creel sessions show main
  creel sessions show review -n 100 --json")]
    Show {
        /// `main`, a name, or a session key
        key: String,
        /// How many entries
        #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(0..=500))]
        limit: u16,
    },
    /// End the turn that runs now
    #[command(after_help = "Example:
  creel sessions abort main --reason \"wrong question\"")]
    Abort {
        /// `main`, a name, a session key, or a turn's id
        #[arg(value_name = "KEY-OR-TURN")]
        which: String,
        /// Kept in the record
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        repeatable: Repeatable,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  creel logs
  creel logs scheduler -n 20 --follow

With --json one object per line. When the stack is down, its files are read instead.")]
pub(crate) struct Logs {
    /// One service; all of them without
    pub(crate) service: Option<String>,
    /// Go on with new lines
    #[arg(long, short = 'f')]
    pub(crate) follow: bool,
    /// How many lines to begin with
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) lines: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Read creel.toml and the environment as the services do; exit 78 if they would refuse it
    #[command(after_help = "Example:
  creel config check ./creel.toml")]
    Check {
        /// Another file
        file: Option<PathBuf>,
    },
    /// The JSON Schema of creel.toml
    Schema,
    /// A value as it is in effect, defaults included
    #[command(after_help = "Examples:
  creel config get gateway.listen
  creel config get agent --json")]
    Get {
        /// Dotted, for example gateway.listen; everything without
        key: Option<String>,
    },
    /// Change one value in creel.toml; comments and order stay
    #[command(after_help = "Examples:
  creel config set agent.turn_timeout_seconds 300
  creel config set gateway.names '[\"box.example.net\"]' --dry-run

VALUE is TOML; what is none is taken as text. The file is checked before it is replaced.")]
    Set {
        /// Dotted, for example gateway.listen
        key: String,
        /// The value
        value: String,
        #[command(flatten)]
        checked: Checked,
    },
}

#[cfg(test)]
mod tests;
