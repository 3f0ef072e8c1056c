//! What each command does, one file per noun.

mod completions;
mod config;
mod contexts;
mod cron;
mod cron_add;
mod cron_admin;
mod cron_calendar;
mod cron_edit;
mod cron_explain;
mod cron_follow;
mod cron_grant;
mod cron_import;
mod cron_list;
mod cron_next;
mod cron_runs;
mod cron_show;
mod cron_spec;
mod device_cert;
mod device_invite;
mod device_invites;
mod device_requests;
mod device_show;
mod devices;
mod doctor;
mod health;
mod join;
mod logs;
mod nodes;
mod pairing;
mod people;
mod send;
mod sessions;
mod status;
mod version;

use crate::{
    args::{Command, cron::Cron},
    context::Context,
    failure::Failure,
};

/// The most rows a list gathers over its pages.
const MAX_ROWS: usize = 10_000;

/// Rows asked for at once; the most a page may have.
const PAGE: i32 = 500;

/// Runs a command to its end.
pub(crate) fn run(context: &mut Context, command: Command) -> Result<(), Failure> {
    // There --timeout is the limit of each run, and must not be that of the call as well.
    if matches!(command, Command::Cron(Cron::Add(_) | Cron::Edit(_))) {
        context.global.timeout = None;
    }
    match command {
        // These need no stack, so no runtime either.
        Command::Version => version::version(context),
        Command::Completions { shell } => completions::run(context, shell),
        Command::Config(command) => config::run(context, command),
        Command::Use { name } => contexts::switch(context, &name),
        Command::Leave { name } => contexts::leave(context, &name),
        Command::Contexts => contexts::list(context),
        Command::Cron(Cron::Next(args)) => cron_next::run(context, &args),
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::internal("the runtime", &error))?;
            // Boxed: the union of all commands is too large for the stack of a small thread.
            let outcome = runtime.block_on(Box::pin(online(context, command)));
            // Nothing is worth waiting for once the command is done.
            runtime.shutdown_background();
            outcome
        }
    }
}

async fn online(context: &mut Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Status => status::run(context).await,
        Command::Health => health::run(context).await,
        Command::Doctor => doctor::run(context).await,
        Command::Send(args) => send::run(context, args).await,
        Command::Sessions(command) => sessions::run(context, command).await,
        Command::Cron(command) => cron::run(context, command).await,
        Command::Devices(command) => devices::run(context, command).await,
        Command::People(command) => people::run(context, command).await,
        Command::Pairing(command) => pairing::run(context, command).await,
        Command::Join(args) => join::run(context, args).await,
        Command::Nodes(command) => nodes::run(context, command).await,
        Command::Connect(to) => nodes::connect(context, to).await,
        Command::Logs(args) => logs::run(context, &args).await,
        Command::Whoami => devices::whoami(context).await,
        Command::Version
        | Command::Completions { .. }
        | Command::Config(_)
        | Command::Use { .. }
        | Command::Leave { .. }
        | Command::Contexts => Err(Failure::usage("this command needs no stack")),
    }
}
