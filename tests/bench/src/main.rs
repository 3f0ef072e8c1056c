//! Creel beside its peers on this machine: start, memory, the cost of the edge, the speed of a turn.
//!
//! It is no test: nothing here passes or fails. Every figure is the median of several rounds of one run,
//! peers interleaved; only ratios within a run mean something on a machine that is shared.
#![expect(
    clippy::disallowed_methods,
    reason = "a bench starts processes, dials and reads the clock"
)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "its output is its purpose"
)]
#![allow(missing_docs, reason = "a program, not a library")]

mod echo;
mod load;
mod nginx;
mod peers;
mod scheduler;
mod stack;
mod turns;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum};

#[derive(Parser)]
#[command(about = "Creel beside its peers: medians of one run")]
struct Args {
    /// The directory of `creel` and `creeld`.
    #[arg(long, default_value = "bin")]
    bin: PathBuf,
    /// Also write the table here.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Rounds of each figure.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each load.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Seconds that the idle stack is watched.
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Only this section.
    #[arg(long, value_enum)]
    only: Option<Section>,
    /// Jobs of the scheduler's large figures.
    #[arg(long, default_value_t = 1_000_000)]
    jobs: u64,
    /// Jobs that are due in one instant.
    #[arg(long, default_value_t = 230_000)]
    herd: u64,
    #[command(subcommand)]
    command: Option<Command>,
}

/// A part of the table.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Start, memory, turns, and the cost of the edge beside its peers.
    Stack,
    /// When things run.
    Scheduler,
}

#[derive(Subcommand)]
enum Command {
    /// The peer: a bare tonic server with mutual TLS (started by the bench itself).
    #[command(hide = true)]
    Echo { dir: PathBuf, port: u16 },
}

/// One line of the table.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) value: String,
    pub(crate) beside: String,
}

impl Row {
    pub(crate) fn new(what: impl Into<String>, value: impl Into<String>, beside: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            value: value.into(),
            beside: beside.into(),
        }
    }
}

fn main() -> anyhow::Result<()> {
    creel_wire::install_crypto();
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    if let Some(Command::Echo { dir, port }) = args.command {
        // As many threads as the gateway has, so that neither gets more of the machine.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        return runtime.block_on(echo::serve(&dir, port));
    }
    let mut rows = Vec::new();
    let bin = std::path::absolute(&args.bin)?;
    if args.only.is_none_or(|only| only == Section::Stack) {
        rows.extend(whole_stack(&runtime, &bin, &args)?);
    }
    if args.only.is_none_or(|only| only == Section::Scheduler) {
        let size = scheduler::Size {
            jobs: args.jobs,
            herd: args.herd,
            seconds: args.seconds,
        };
        rows.extend(scheduler::measure(&runtime, &bin, size));
    }
    let table = table(&rows);
    println!("{table}");
    if let Some(path) = args.markdown {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(path, table)?;
    }
    Ok(())
}

fn whole_stack(runtime: &tokio::runtime::Runtime, bin: &Path, args: &Args) -> anyhow::Result<Vec<Row>> {
    let mut rows = stack::starts(bin, args.rounds)?;
    let stack = stack::Stack::start(bin)?;
    rows.push(stack.status_time(args.rounds * 4)?);
    rows.extend(stack.idle(Duration::from_secs(args.idle))?);
    rows.extend(runtime.block_on(turns::measure(&stack))?);
    rows.extend(peers::measure(
        runtime,
        &stack,
        args.rounds,
        Duration::from_secs(args.seconds),
    )?);
    stack.stop()?;
    Ok(rows)
}

fn table(rows: &[Row]) -> String {
    let mut out = String::from("| what | Creel | beside |\n|---|---|---|\n");
    for row in rows {
        out.push_str(&format!("| {} | {} | {} |\n", row.what, row.value, row.beside));
    }
    out
}

/// The median; the values are sorted by it.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    percentile(values, 50.0)
}

/// The value below which so many percent lie.
pub(crate) fn percentile(values: &mut [f64], percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let at = ((values.len().saturating_sub(1)) as f64 * percent / 100.0).round() as usize;
    values.get(at).copied().unwrap_or(f64::NAN)
}
