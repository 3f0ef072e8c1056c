//! `creel nodes …` as it is typed.

use clap::Subcommand;

use super::Repeatable;

#[derive(Debug, Subcommand)]
pub(crate) enum Nodes {
    /// Companion devices; those that are away only if you may pair
    List,
    /// What one of them is, and what it can be asked for
    #[command(after_help = "Example:
  creel nodes describe attic")]
    Describe {
        /// Its name, id, or the first 8 or more digits of it
        node: String,
    },
    /// Ask a node for a command and print its answer
    #[command(after_help = "Examples:
  creel nodes invoke attic system.which --params '{\"bins\":[\"git\"]}'
  creel nodes invoke attic device.status --json

Four gates: the node offers the command, an operator approved it, the policy for its platform allows it, and the node has the permission it needs. --timeout is how long the node may take (30s).")]
    Invoke {
        /// Its name, id, or the first 8 or more digits of it
        node: String,
        /// For example system.which
        command: String,
        /// What the command takes, as JSON; `-` reads stdin
        #[arg(long, value_name = "JSON", default_value = "")]
        params: String,
        #[command(flatten)]
        repeatable: Repeatable,
    },
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Connect {
    /// The lines for OpenClaw's own config and command line
    Openclaw,
}
