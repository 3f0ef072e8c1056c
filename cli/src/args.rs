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
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    const SPEC: &str = "--at --every --cron --tz --dst --syntax --anchor --after-end --event --message --backend \
        --command --cwd --audit --target --deliver --delete-after-run --delete-after --description";

    const RULES: &str = "--if-missed --window --overlap --overlap-max --jitter --timeout --expected --retries \
        --backoff --max-backoff --past-next --on-stuck --quarantine-after --alert-after --alert-to --alert-every \
        --no-alert --keep-runs --keep-for";

    /// The whole surface in one list, so that a change of it is seen.
    #[test]
    fn the_surface() {
        fn walk(command: &clap::Command, path: &str, into: &mut Vec<String>) {
            for sub in command.get_subcommands() {
                let path = format!("{path}{}", sub.get_name());
                let flags = sub
                    .get_opts()
                    .filter(|arg| !arg.is_global_set())
                    .filter_map(|arg| arg.get_long());
                let mut line = path.clone();
                flags.for_each(|flag| line.push_str(&format!(" --{flag}")));
                if !sub.has_subcommands() || !line.ends_with(&path) {
                    into.push(line);
                }
                walk(sub, &format!("{path} "), into);
            }
        }
        let mut surface = Vec::new();
        walk(&Cli::command(), "", &mut surface);
        let expected = "\
status
health
doctor
send --session --backend --follow --as --no-wait --request-id
sessions list --prefix
sessions show --limit
sessions abort --reason --request-id
cron add {SPEC} {RULES} --disabled --late --json-spec --dry-run --request-id
cron edit {SPEC} {RULES} --rename --enable --disable --keep-after-run --file --format --dry-run --request-id --if-match
cron list --prefix --phase --soonest --names
cron show
cron run --wait --dry-run --request-id
cron runs --job --limit --status --follow
cron calendar --days --tz --prefix
cron import --tz --late --dry-run
cron rm --dry-run --request-id --if-match
cron next --tz --after
cron explain --at
cron backfill --from --to --at-once --stop --dry-run --request-id --if-match
cron cancel --reason --request-id
cron reset --retry --dry-run --request-id
cron tail --status
cron status
cron accept-clock --dry-run --request-id
cron grant --revoke --dry-run --request-id
cron pause --reason --dry-run --request-id --if-match
cron resume --dry-run --request-id --if-match
devices list --all
devices show
devices requests --follow
devices approve --name --scope --command --cap --person --dry-run --request-id --if-match
devices reject --reason --dry-run --request-id
devices rotate --scope --dry-run --request-id
devices invite --name --role --scope --command --minutes --address --person --no-qr --dry-run --request-id
devices invites
devices uninvite --dry-run --request-id
devices cert --name --scope --days --out --dry-run --request-id
devices cert renew --force
devices revoke --reason --dry-run --request-id --if-match
devices rename --dry-run --request-id --if-match
devices recover --code-file
people list
people add --display-name --dry-run --request-id
people link --dry-run --request-id --if-match
people unlink --dry-run --request-id --if-match
people rm --dry-run --request-id --if-match
pairing list
pairing approve --request-id
pairing allow --dry-run --request-id
pairing remove --dry-run --request-id
join --context --address
use
contexts
nodes list
nodes describe
nodes invoke --params --request-id
connect openclaw
logs --follow --lines
config check
config schema
config get
config set --dry-run
completions
version
whoami";
        // What a job is, and its rules: the same for making and changing one.
        let expected = expected.replace("{SPEC}", SPEC).replace("{RULES}", RULES);
        assert_eq!(surface.join("\n"), expected);
    }

    /// All commands that do something, with their words.
    fn leaves(command: &clap::Command, path: &str, visit: &mut impl FnMut(&str, &clap::Command)) {
        for sub in command.get_subcommands() {
            let path = format!("{path} {}", sub.get_name());
            visit(&path, sub);
            leaves(sub, &path, visit);
        }
    }

    #[test]
    fn every_argument_says_what_it_is_and_every_command_that_takes_some_shows_how() {
        leaves(&Cli::command(), "creel", &mut |path, command| {
            let own: Vec<_> = command
                .get_arguments()
                .filter(|arg| !arg.is_global_set())
                .collect();
            for arg in &own {
                let said = arg.get_help().is_some_and(|help| !help.to_string().is_empty());
                assert!(said, "{path}: {} has no help", arg.get_id());
            }
            let help = command
                .get_after_help()
                .map_or_else(String::new, ToString::to_string);
            assert!(
                own.is_empty() || help.contains("Example"),
                "{path} has no example"
            );
        });
    }

    /// A sentence that is broken by hand is broken again by a narrow terminal.
    #[test]
    fn paragraphs_of_help_are_one_line_each() {
        leaves(&Cli::command(), "creel", &mut |path, command| {
            let help = command
                .get_after_help()
                .map_or_else(String::new, ToString::to_string);
            let lines: Vec<&str> = help.lines().collect();
            for pair in lines.windows(2) {
                let prose = |line: &str| !line.is_empty() && !line.starts_with(' ');
                let goes_on = prose(pair[0]) && prose(pair[1]) && !pair[0].ends_with(['.', ':']);
                assert!(!goes_on, "{path}: a sentence goes on after `{}`", pair[0]);
            }
        });
    }

    /// What an example of the help says can be typed.
    #[test]
    fn every_example_is_understood() {
        let check = |path: &str, command: &clap::Command| {
            let help = command
                .get_after_help()
                .map_or_else(String::new, ToString::to_string);
            for line in help.lines().filter_map(|line| line.strip_prefix("  creel ")) {
                let line = line.split(" | ").next().unwrap_or_default();
                let line = line.split(" > ").next().unwrap_or_default();
                let line = line.split(" #").next().unwrap_or_default();
                let words = std::iter::once("creel".to_owned()).chain(words(line));
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("{path}: `creel {line}`: {error}");
                }
            }
        };
        check("creel", &Cli::command());
        leaves(&Cli::command(), "creel", &mut |path, command| {
            check(path, command)
        });
    }

    /// As a shell splits them: quotes keep blanks.
    fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        let (mut word, mut quote, mut begun) = (String::new(), None, false);
        for c in line.chars() {
            match (c, quote) {
                (c, Some(open)) if c == open => quote = None,
                ('"' | '\'', None) => (quote, begun) = (Some(c), true),
                (' ', None) => {
                    if begun {
                        words.push(std::mem::take(&mut word));
                    }
                    begun = false;
                }
                (c, _) => {
                    word.push(c);
                    begun = true;
                }
            }
        }
        if begun {
            words.push(word);
        }
        words
    }

    #[test]
    fn every_command_says_what_it_does() {
        fn walk(command: &clap::Command) {
            for sub in command.get_subcommands() {
                assert!(sub.get_about().is_some(), "{} has no help", sub.get_name());
                walk(sub);
            }
        }
        walk(&Cli::command());
        let help = Cli::command().render_help().to_string();
        for part in [
            "Examples:",
            "--profile",
            "Global options:",
            "cron",
            "78 bad config",
        ] {
            assert!(help.contains(part), "{part} is missing in:\n{help}");
        }
    }

    #[test]
    fn scopes_may_be_short() {
        for (text, whole) in [
            ("read", "operator.read"),
            ("operator.admin", "operator.admin"),
            ("", ""),
        ] {
            assert_eq!(scope(text).unwrap(), whole);
        }
    }

    #[test]
    fn global_flags_stand_anywhere_and_bad_ones_are_usage() {
        let cli = Cli::try_parse_from(["creel", "status", "--json", "--timeout", "2m30s"]).unwrap();
        assert!(cli.global.json);
        assert_eq!(cli.global.timeout, Some(Duration::from_secs(150)));
        for bad in [
            vec!["creel", "status", "--timeout", "5"],
            vec!["creel", "statsu"],
            vec!["creel", "send"],
        ] {
            assert_eq!(Cli::try_parse_from(bad).unwrap_err().exit_code(), 2);
        }
        assert_eq!(
            Cli::try_parse_from(["creel", "--help"]).unwrap_err().exit_code(),
            0
        );
    }
}
