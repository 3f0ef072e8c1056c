//! `creel devices …` as it is typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Checked, Repeatable, Versioned};

#[derive(Debug, Subcommand)]
pub(crate) enum Devices {
    /// Who may call; `*` marks this machine
    List {
        /// Revoked ones too
        #[arg(long)]
        all: bool,
    },
    /// A key and certificate for a script, as files
    Cert(Cert),
    /// End a device: its connections close, its key is never let in again
    Revoke {
        /// Its name, id, or the first 8 or more digits of it
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
    /// Give a device another name
    Rename {
        /// Its name, id, or the first 8 or more digits of it
        name: String,
        /// The new name
        new_name: String,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
        #[command(flatten)]
        versioned: Versioned,
    },
    /// All scopes for this machine, by the recovery code of the first start
    #[command(
        after_help = "Only on the machine of the stack. The code is asked for, or read from --code-file (`-`: stdin)."
    )]
    Recover {
        /// A file that holds the code
        #[arg(long, value_name = "FILE")]
        code_file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example:
  creel devices cert --name ci --scope operator.read --days 90 --out ./ci-creel

Writes ca.pem, cert.pem, key.pem and env.sh to DIR. `. DIR/env.sh` makes creel itself use them, too.
Scopes: operator.read, operator.write, operator.admin, operator.approvals, operator.pairing.
Nobody can hand on more than they have."
)]
pub(crate) struct Cert {
    #[command(subcommand)]
    pub(crate) renew: Option<CertCommand>,
    /// The device's name
    #[arg(long, value_name = "NAME", required = true)]
    pub(crate) name: Option<String>,
    /// What it may do; may be given several times
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    pub(crate) scopes: Vec<String>,
    /// Days until it ends
    #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=800))]
    pub(crate) days: u32,
    /// Where the files go
    #[arg(long, value_name = "DIR", required = true)]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) checked: Checked,
    #[command(flatten)]
    pub(crate) repeatable: Repeatable,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// A new certificate for the key in DIR once half its life is over; safe in a cron job
    Renew {
        /// As written by `devices cert`
        dir: PathBuf,
        /// Now, whatever its age
        #[arg(long)]
        force: bool,
    },
}
