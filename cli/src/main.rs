//! `creel`: the command line of Creel. It asks the stack through its edge, like any other device, and
//! shows the answers.
//!
//! It is not a part of the stack: it links no service and no engine, decides nothing, and writes
//! nothing but its own credentials, `creel.toml` on `config set`, and what `devices cert` was told to. It
//! starts no program but the person's editor.
//!
//! Invariants: stdout is data and stderr is everything else; every failure has a stable reason and an
//! exit status; text from outside can't steer a terminal; a mutation carries a request id, so that a
//! repeat after a lost answer changes nothing.

mod args;
mod client;
mod commands;
mod context;
mod contexts;
mod credentials;
mod editor;
mod failure;
mod invite_code;
mod logfiles;
mod output;
mod reach;
mod shell;
mod stubs;
mod times;
mod views;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{args::Cli, context::Context, output::Out};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(Out::for_errors().usage(&error)),
    };
    creel_wire::install_crypto();
    let mut context = Context::new(cli.global);
    let status = match commands::run(&mut context, cli.command) {
        Ok(()) => 0,
        Err(failure) => context.out.report(&failure),
    };
    ExitCode::from(status)
}
