//! `creel people …`, `creel pairing …` as they are typed.

use clap::Subcommand;

use super::{Checked, Repeatable, Versioned};

#[derive(Debug, Subcommand)]
pub(crate) enum People {
    /// Who owns devices, and which chat senders speak for whom
    List,
    /// A new person
    #[command(after_help = "Example:
  creel people add anna --display-name \"Anna Müller\"")]
    Add {
        /// Lower-case: a letter, then letters, digits, `_`, `-`
        person: String,
        /// For people
        #[arg(long, value_name = "TEXT", default_value = "")]
        display_name: String,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
    },
    /// A chat sender speaks for a person from now on
    #[command(after_help = "Example:
  creel people link anna telegram:123456

SENDER is CHANNEL:ID or CHANNEL:ACCOUNT:ID, by the platform's own id, never a display name.")]
    Link {
        /// Its id, as `creel people list` shows it
        person: String,
        /// CHANNEL:ID or CHANNEL:ACCOUNT:ID
        sender: String,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
        #[command(flatten)]
        versioned: Versioned,
    },
    /// It speaks for nobody any more
    #[command(after_help = "Example:
  creel people unlink anna telegram:123456")]
    Unlink {
        /// Its id, as `creel people list` shows it
        person: String,
        /// CHANNEL:ID or CHANNEL:ACCOUNT:ID
        sender: String,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
        #[command(flatten)]
        versioned: Versioned,
    },
    /// Remove a person that has no device any more
    #[command(after_help = "Example:
  creel people rm anna")]
    Rm {
        /// Its id, as `creel people list` shows it
        person: String,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
        #[command(flatten)]
        versioned: Versioned,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Pairing {
    /// Chat senders that wait with a code, and those that are let in
    #[command(after_help = "Example:
  creel pairing list telegram")]
    List {
        /// One channel; all of them without
        channel: Option<String>,
    },
    /// Let in the sender who was shown this code
    #[command(after_help = "Example:
  creel pairing approve telegram K7WQ2MZD")]
    Approve {
        /// For example telegram
        channel: String,
        /// 8 characters, in any case
        code: String,
        #[command(flatten)]
        repeatable: Repeatable,
    },
    /// Let a sender in without a code
    #[command(after_help = "Example:
  creel pairing allow telegram 123456")]
    Allow {
        /// For example telegram
        channel: String,
        /// The platform's own id of the sender; `ACCOUNT:ID` for another account than `default`
        id: String,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
    },
    /// A sender may not write any more
    #[command(after_help = "Example:
  creel pairing remove telegram 123456")]
    Remove {
        /// For example telegram
        channel: String,
        /// The platform's own id of the sender; `ACCOUNT:ID` for another account than `default`
        id: String,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
    },
}
