//! Creel beside its peers on this machine: start, memory, the cost of the edge, the speed of a turn, the WebSocket
//! door, certificates and assertions, when things run.
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

mod disk;
mod door;
mod echo;
mod identity;
mod load;
mod nginx;
mod peers;
mod scheduler;
mod stack;
mod turns;

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand};

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
    /// Only these parts of the table; none: all.
    #[arg(value_enum, long = "only")]
    sections: Vec<Section>,
    /// The load client of the WebSocket door's figures; they are left out without it.
    #[arg(long)]
    wsload: Option<PathBuf>,
    /// Jobs of the scheduler's large figures.
    #[arg(long, default_value_t = 1_000_000)]
    jobs: u64,
    /// Jobs that are due in one instant.
    #[arg(long, default_value_t = 230_000)]
    herd: u64,
    /// Only these figures of the scheduler; none: all.
    #[arg(value_enum, long = "figure")]
    figures: Vec<scheduler::Figure>,
    #[command(subcommand)]
    command: Option<Command>,
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
    let bin = std::path::absolute(&args.bin)?;
    let mut table = Table::create(args.markdown.as_deref())?;
    let all = args.sections.is_empty();
    let wanted = |section| all || args.sections.contains(&section);
    if wanted(Section::Start) {
        table.extend(stack::starts(&bin, args.rounds)?)?;
    }
    if [Section::Idle, Section::Turns, Section::Edge, Section::Door]
        .into_iter()
        .any(wanted)
    {
        let stack = stack::Stack::start(&bin)?;
        if wanted(Section::Idle) {
            table.push(stack.status_time(args.rounds * 4)?)?;
            table.extend(stack.idle(Duration::from_secs(args.idle))?)?;
        }
        if wanted(Section::Turns) {
            table.extend(runtime.block_on(turns::measure(&stack))?)?;
        }
        if wanted(Section::Edge) {
            let time = Duration::from_secs(args.seconds);
            peers::measure(&runtime, &stack, args.rounds, time, &mut table)?;
        }
        if wanted(Section::Door) {
            table.extend(door::measure(&stack, args.wsload.as_deref(), args.rounds)?)?;
        }
        stack.stop()?;
    }
    if wanted(Section::Identity) {
        table.extend(runtime.block_on(identity::measure(&bin))?)?;
    }
    if wanted(Section::Scheduler) {
        let size = scheduler::Size {
            jobs: args.jobs,
            herd: args.herd,
            seconds: args.seconds,
        };
        scheduler::measure(&runtime, &bin, size, &args.figures, &mut table)?;
    }
    Ok(())
}

/// What is measured, a part of the table each.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Section {
    /// `up` to ready, cold and warm.
    Start,
    /// Memory and CPU of a stack that does nothing; `creel status`.
    Idle,
    /// Turns of the `echo` backend.
    Turns,
    /// One RPC through the edge, beside bare tonic and nginx.
    Edge,
    /// The WebSocket door beside OpenClaw's own gateway.
    Door,
    /// Certificates and assertions, on a stack of their own.
    Identity,
    /// When things run.
    Scheduler,
}

/// The table, shown and written row by row: what is measured is not lost when a later part fails.
pub(crate) struct Table {
    file: Option<std::fs::File>,
}

impl Table {
    fn create(path: Option<&std::path::Path>) -> anyhow::Result<Self> {
        let file = path
            .map(|path| {
                std::fs::create_dir_all(path.parent().unwrap_or(std::path::Path::new(".")))?;
                std::fs::File::create(path)
            })
            .transpose()?;
        let mut table = Self { file };
        table.line("| what | Creel | beside |\n|---|---|---|")?;
        Ok(table)
    }

    pub(crate) fn push(&mut self, row: Row) -> anyhow::Result<()> {
        self.line(&format!("| {} | {} | {} |", row.what, row.value, row.beside))
    }

    pub(crate) fn extend(&mut self, rows: Vec<Row>) -> anyhow::Result<()> {
        rows.into_iter().try_for_each(|row| self.push(row))
    }

    fn line(&mut self, line: &str) -> anyhow::Result<()> {
        println!("{line}");
        if let Some(file) = &mut self.file {
            std::io::Write::write_all(file, format!("{line}\n").as_bytes())?;
        }
        Ok(())
    }
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

#[expect(clippy::cast_precision_loss, reason = "counts of a bench stay far below 2^52")]
pub(crate) fn number(count: u64) -> f64 {
    count as f64
}
