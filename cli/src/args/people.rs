//! `creel people …`, `creel pairing …` as they are typed.

use clap::Subcommand;

use super::{Checked, Repeatable, Versioned};

#[derive(Debug, Subcommand)]
pub(crate) enum People {
    /// Who owns devices, and which chat senders speak for whom
    List,
    /// A new person
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
        person: String,
        sender: String,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
        #[command(flatten)]
        versioned: Versioned,
    },
    /// It speaks for nobody any more
    Unlink {
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
    Rm {
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
    List {
        /// One channel; all of them without
        channel: Option<String>,
    },
    /// Let in the sender who was shown this code
    Approve {
        /// For example telegram
        channel: String,
        /// 8 characters, in any case
        code: String,
        #[command(flatten)]
        repeatable: Repeatable,
    },
    /// Let a sender in without a code
    Allow {
        channel: String,
        /// The platform's own id of the sender; `ACCOUNT:ID` for another account than `default`
        id: String,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
    },
    /// A sender may not write any more
    Remove {
        channel: String,
        /// The platform's own id of the sender; `ACCOUNT:ID` for another account than `default`
        id: String,
        #[command(flatten)]
        checked: Checked,
        #[command(flatten)]
        repeatable: Repeatable,
    },
}
