//! `creel devices …` as it is typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Checked, Repeatable, Versioned};

#[derive(Debug, Subcommand)]
pub(crate) enum Devices {
    /// Who may call; `*` marks this machine
    #[command(after_help = "Example:
  creel devices list --all")]
    List {
        /// Revoked ones too
        #[arg(long)]
        all: bool,
    },
    /// One device: what it is, what it may do, its six words
    #[command(after_help = "Example:
  creel devices show anna-phone")]
    Show {
        /// Its name, id, or the first 8 or more digits of it
        name: String,
    },
    /// Devices that wait to be let in
    #[command(after_help = "Example:
  creel devices requests --follow")]
    Requests {
        /// Go on with what changes, one line each
        #[arg(long, short = 'f')]
        follow: bool,
    },
    /// Let a waiting device in
    #[command(after_help = "Examples:
  creel devices approve 3b10ff1b462f
  creel devices approve \"lamp ocean tiger sugar mimic vapor\" --scope read

Compare the six words with those the device shows. Granted is what it asked for, of that what you choose here, of that what you have yourself.")]
    Approve(Approve),
    /// Send a waiting device away
    #[command(after_help = "Example:
  creel devices reject 3b10ff1b462f --reason \"not ours\"")]
    Reject {
        /// Its pairing id, or 8 or more characters of either end of it; or its six words
        pairing: String,
        /// Kept in the audit record
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
    },
    /// A new token for a device that connects without a certificate; the old one ends
    #[command(after_help = "Example:
  creel devices rotate old-laptop --scope read")]
    Rotate {
        /// Its name, id, or the first 8 or more digits of it
        name: String,
        /// Only this of what the token was for; may be given several times
        #[arg(long = "scope", value_name = "SCOPE", value_parser = super::scope)]
        scopes: Vec<String>,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
    },
    /// A code that lets one device in, within minutes
    #[command(after_help = "Examples:
  creel devices invite --name anna-phone
  creel devices invite --name anna-phone --address box.example.net:18789
  creel devices invite --name cam --role node --command camera.snap

On the other machine: creel join CODE. The code works once.")]
    Invite(Invite),
    /// Invites that can still be used
    Invites,
    /// End an invite before it is used
    #[command(after_help = "Example:
  creel devices uninvite anna-phone")]
    Uninvite {
        /// Its id, 8 or more characters of either end of it, or the name it was made for
        invite: String,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
    },
    /// A key and certificate for a script, as files
    Cert(Cert),
    /// End a device: its connections close, its key is never let in again
    #[command(after_help = "Example:
  creel devices revoke anna-phone --reason \"lost on the train\"")]
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
    #[command(after_help = "Example:
  creel devices rename uid0@box kitchen")]
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
    #[command(after_help = "Examples:
  creel devices recover
  creel devices recover --code-file recovery-code.txt

Only on the machine of the stack. The code is asked for, or read from --code-file (`-`: stdin).")]
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
  creel devices cert --name ci --scope read --days 90 --out ./ci-creel

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
    #[arg(long = "scope", value_name = "SCOPE", required = true, value_parser = super::scope)]
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
    #[command(after_help = "Example:
  creel devices cert renew ./ci-creel")]
    Renew {
        /// As written by `devices cert`
        dir: PathBuf,
        /// Now, whatever its age
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Approve {
    /// Its pairing id, or 8 or more characters of either end of it; or its six words
    pub(crate) pairing: String,
    /// The device's name; its own proposal without
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Only this of what it asks for; may be given several times
    #[arg(long = "scope", value_name = "SCOPE", value_parser = super::scope)]
    pub(crate) scopes: Vec<String>,
    /// Only this command of those it offers; may be given several times
    #[arg(long = "command", value_name = "COMMAND")]
    pub(crate) commands: Vec<String>,
    /// Only this capability of those it has; may be given several times
    #[arg(long = "cap", value_name = "CAP")]
    pub(crate) caps: Vec<String>,
    /// Whose device it becomes; yours without
    #[arg(long, value_name = "PERSON")]
    pub(crate) person: Option<String>,
    #[command(flatten)]
    pub(crate) checked: Checked,
    #[command(flatten)]
    pub(crate) repeatable: Repeatable,
    #[command(flatten)]
    pub(crate) versioned: Versioned,
}

#[derive(Debug, Args)]
pub(crate) struct Invite {
    /// The name of the device to come
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// What it will be
    #[arg(long, value_name = "ROLE", value_parser = ["operator", "node"], default_value = "operator")]
    pub(crate) role: String,
    /// What an operator will hold; read and write without; may be given several times
    #[arg(long = "scope", value_name = "SCOPE", value_parser = super::scope)]
    pub(crate) scopes: Vec<String>,
    /// What a node may offer; may be given several times
    #[arg(long = "command", value_name = "COMMAND")]
    pub(crate) commands: Vec<String>,
    /// Minutes until it ends
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub(crate) minutes: u32,
    /// Where the other machine reaches this stack; a name of gateway.names, or the edge's own address without
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) address: Option<String>,
    /// Whose device it becomes; yours without
    #[arg(long, value_name = "PERSON")]
    pub(crate) person: Option<String>,
    /// No QR code
    #[arg(long)]
    pub(crate) no_qr: bool,
    #[command(flatten)]
    pub(crate) checked: Checked,
    #[command(flatten)]
    pub(crate) repeatable: Repeatable,
}
