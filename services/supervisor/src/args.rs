//! The command line of `creeld`.

use clap::{Parser, Subcommand, ValueEnum};
use creel_wire::ServiceName;

/// Creel's supervisor and its services.
#[derive(Debug, Parser)]
#[command(name = "creeld", version, about, disable_help_subcommand = true)]
pub(crate) struct Args {
    /// Which stack: its directory is ~/.creel-NAME (~/.creel for `default`), or CREEL_HOME.
    #[arg(long, global = true, value_name = "NAME", env = "CREEL_PROFILE")]
    pub(crate) profile: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start all services and keep them running.
    Up {
        /// Return when everything is ready, and keep it running.
        #[arg(long)]
        detach: bool,
        /// The process that `--detach` starts.
        #[arg(long, hide = true, conflicts_with = "detach")]
        detached: bool,
    },
    /// End a running stack, and return when nothing is left of it.
    Down,
    /// Run the edge.
    Gateway,
    /// Run the certificate authority, devices and grants.
    Identity,
    /// Run jobs and fires.
    Scheduler,
    /// Run contexts and turns.
    AgentRunner,
    /// Whether a service (all, without a name) serves: 0 if it does.
    Health {
        /// The service; asked by its own certificate.
        service: Option<ServiceName>,
    },
    /// Check something without a running stack.
    Check {
        /// What.
        what: Check,
    },
    /// Version and build time.
    Version,
}

/// What can be checked.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Check {
    /// creel.toml of the profile.
    Config,
    /// Schedules: JSON cases on stdin, a verdict for each on stdout.
    Cron,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Args::command().debug_assert();
        let args = Args::try_parse_from(["creeld", "health", "gateway", "--profile", "work"]).unwrap();
        assert_eq!(args.profile.as_deref(), Some("work"));
        assert!(matches!(
            args.command,
            Command::Health {
                service: Some(ServiceName::Gateway)
            }
        ));
        assert!(Args::try_parse_from(["creeld", "health", "gatway"]).is_err());
        assert!(Args::try_parse_from(["creeld", "up", "--detach", "--detached"]).is_err());
    }
}
