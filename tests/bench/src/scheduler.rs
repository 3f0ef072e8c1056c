//! The scheduler alone: real `creeld identity`, `creeld scheduler` and `creeld gateway`, and workers inside the
//! bench that attach with agent-runner's certificate and end each run at once, so that no worker process is
//! measured. Every run is minted an assertion by identity, as always. Jobs are written into the store while the
//! service is down: a person may not have so many.

mod bed;
mod next;
mod seed;
mod worker;

use std::{
    ops::RangeInclusive,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::ValueEnum as _;
use creel_proto::scheduler::v1::{
    ListJobsRequest, Schedule, StatusRequest, admin_service_client::AdminServiceClient,
    job_service_client::JobServiceClient,
};

use self::{
    bed::Bed,
    seed::{at, every},
    worker::{Fleet, Manner},
};
use crate::{Row, Table, disk, number, percentile, stack::cpu_ticks};

/// Runs a worker may hold; what the scheduler allows.
const CAPACITY: u32 = 1_024;

/// An hour that no figure lasts.
const FAR_MS: i64 = 24 * 3_600_000;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Jobs of the large figures.
    pub(crate) jobs: u64,
    /// Jobs due in one instant.
    pub(crate) herd: u64,
    /// Seconds of each load.
    pub(crate) seconds: u64,
}

/// What is measured, a figure or a few that need the same jobs each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Figure {
    Next,
    Fsync,
    Lateness,
    Throughput,
    Herd,
    List,
    Cost,
    Many,
}

/// The figures asked for, or all; one that can't be taken is a row that says why.
pub(crate) fn measure(
    runtime: &tokio::runtime::Runtime,
    bin: &Path,
    size: Size,
    figures: &[Figure],
    table: &mut Table,
) -> anyhow::Result<()> {
    for figure in Figure::value_variants() {
        if !figures.is_empty() && !figures.contains(figure) {
            continue;
        }
        let taken = match figure {
            Figure::Next => next::measure(),
            Figure::Fsync => disk::measure(),
            Figure::Lateness => runtime.block_on(lateness(bin, size)),
            Figure::Throughput => runtime.block_on(throughput(bin, size)),
            Figure::Herd => runtime.block_on(herd(bin, size)),
            Figure::List => runtime.block_on(list(bin)),
            Figure::Cost => runtime.block_on(cost(bin, size)),
            Figure::Many => runtime.block_on(many(bin, size)),
        };
        match taken {
            Ok(taken) => table.extend(taken)?,
            // The other figures are worth having without it.
            Err(error) => {
                let what = figure.to_possible_value();
                let what = what.as_ref().map_or("", |what| what.get_name());
                table.push(Row::new(what, format!("not measured: {error:#}"), ""))?;
            }
        }
    }
    Ok(())
}

/// A thousand fires a second, one each millisecond.
async fn lateness(bin: &Path, size: Size) -> anyhow::Result<Vec<Row>> {
    let mut bed = Bed::new(bin)?;
    let start_ms = bed::now_ms();
    bed.seed(1_000, |n| every(1_000, start_ms + n)).await?;
    bed.start()?;
    let fleet = Fleet::attach(&bed, 2, CAPACITY, Manner::Finish).await?;
    let mut late = settled(&fleet, size.seconds * 4).await;
    let fires = late.len();
    bed.stop()?;
    Ok(vec![Row::new(
        format!("1,000 fires/s: nominal → at the worker ({fires} fires)"),
        format!(
            "p50 {:.1} ms, p99 {:.1} ms",
            percentile(&mut late, 50.0),
            percentile(&mut late, 99.0)
        ),
        "goal p50 ≤ 8 ms, p99 ≤ 25 ms; EventBridge 60 s",
    )])
}

/// Lateness of what comes after the first seconds.
async fn settled(fleet: &Fleet, seconds: u64) -> Vec<f64> {
    tokio::time::sleep(Duration::from_secs(3)).await;
    fleet.forget();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    fleet.lateness()
}

/// What was offered for a while, and done.
struct Offer {
    /// Fires a second.
    rate: u64,
    /// Of those that were due, how many were done.
    share: f64,
    cpu_us: f64,
}

/// Rates that are tried, a second.
const RATES: RangeInclusive<u64> = 1_000..=16_000;
/// How close the search comes.
const RATE_STEP: u64 = 1_000;
/// Of what is due so much has to be done. The rest is a neighbour's burst: a run that is late makes its job skip one.
const DONE: f64 = 0.995;

/// The most that can be offered and is done. Offering more shows less: each fire that can't be done is a skip, which
/// is a record, too.
async fn throughput(bin: &Path, size: Size) -> anyhow::Result<Vec<Row>> {
    let (mut kept_up, mut too_much): (Option<Offer>, _) = (None, RATES.end() + RATE_STEP);
    let mut rate = 10_000;
    loop {
        let mut last = offer(bin, size, rate).await?;
        if last.share < DONE {
            // Somebody else may have had the machine.
            last = offer(bin, size, rate).await?;
        }
        if last.share >= DONE {
            kept_up = Some(last);
        } else {
            too_much = rate;
        }
        let least = kept_up.as_ref().map_or(0, |offer| offer.rate);
        rate = (least + too_much) / 2 / RATE_STEP * RATE_STEP;
        if rate <= least {
            break;
        }
    }
    let what = format!(
        "complete durable fires, the most offered for {} s of which 99.5 % were done (search by {RATE_STEP} up to {}, \
         each rate tried twice at most; identity mints each)",
        size.seconds * 4,
        RATES.end(),
    );
    let value = match kept_up {
        Some(Offer { rate, cpu_us, .. }) => {
            format!("{rate}/s, {cpu_us:.0} µs of CPU of identity and scheduler each")
        }
        None => format!("less than {}/s", RATES.start()),
    };
    let beside = "goal ≥ 10,000/s; EventBridge 1,000/s, Temporal 30/s";
    Ok(vec![Row::new(what, value, beside)])
}

/// Offers so many fires each second.
async fn offer(bin: &Path, size: Size, rate: u64) -> anyhow::Result<Offer> {
    let mut bed = Bed::new(bin)?;
    let start_ms = bed::now_ms();
    bed.seed(rate, |n| every(1_000, start_ms + n % 1_000)).await?;
    bed.start()?;
    let fleet = Fleet::attach(&bed, 8, CAPACITY, Manner::Finish).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (before, began, ticks) = (fleet.acked(), Instant::now(), cpu_ticks(&bed.pids()));
    tokio::time::sleep(Duration::from_secs(size.seconds * 4)).await;
    let (done, took) = (fleet.acked() - before, began.elapsed());
    let busy = cpu_ticks(&bed.pids()) - ticks;
    bed.stop()?;
    anyhow::ensure!(done > 0, "nothing fired of {rate} a second");
    let offer = Offer {
        rate,
        share: number(done) / (number(rate) * took.as_secs_f64()),
        cpu_us: number(busy) * 10_000.0 / number(done),
    };
    let Offer { share, cpu_us, .. } = offer;
    eprintln!(
        "  offered {rate}/s: {:.1} % done, {cpu_us:.0} µs of CPU each",
        share * 100.0
    );
    Ok(offer)
}

/// All due in one instant.
async fn herd(bin: &Path, size: Size) -> anyhow::Result<Vec<Row>> {
    let mut bed = Bed::new(bin)?;
    // Later than seeding takes.
    let due_ms = bed::now_ms() + 20_000 + i64::try_from(size.herd / 10)?;
    bed.seed(size.herd, |_| at(due_ms)).await?;
    bed.start()?;
    let left = due_ms - bed::now_ms();
    anyhow::ensure!(left > 1_000, "writing {} jobs took too long", size.herd);
    let mut admin = AdminServiceClient::new(bed.edge()?);
    tokio::time::sleep(Duration::from_millis(u64::try_from(left)?.saturating_sub(100))).await;
    let ticks = cpu_ticks(&[bed.scheduler_pid()]);
    let limit = Instant::now() + Duration::from_secs(60);
    let admitted_ms = loop {
        let status = admin.status(StatusRequest {}).await?.into_inner();
        if status.runs_waiting + status.runs_with_workers >= size.herd {
            break bed::now_ms() - due_ms;
        }
        anyhow::ensure!(
            Instant::now() < limit,
            "{} of {} after a minute",
            status.runs_waiting,
            size.herd
        );
        // Each question makes the scheduler count its runs.
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let cpu_ms = (cpu_ticks(&[bed.scheduler_pid()]) - ticks) * 10;
    bed.stop()?;
    Ok(vec![Row::new(
        format!("{} jobs due in one instant → all admitted, durable", size.herd),
        format!("{admitted_ms} ms, {cpu_ms} ms of the scheduler's CPU"),
        "goal ≤ 500 ms; Kubernetes: 1,000 in 5 m 53 s",
    )])
}

/// Ten thousand runs that hang; who lists does not notice.
async fn list(bin: &Path) -> anyhow::Result<Vec<Row>> {
    const HANGING: u64 = 10_000;
    let mut bed = Bed::new(bin)?;
    let due_ms = bed::now_ms() + 8_000;
    bed.seed(HANGING, |_| every(FAR_MS, due_ms)).await?;
    bed.start()?;
    // A part of each worker's places is kept from jobs that never ran.
    let fleet = Fleet::attach(&bed, 16, CAPACITY, Manner::Hang).await?;
    let limit = Instant::now() + Duration::from_secs(90);
    while fleet.taken() < HANGING && Instant::now() < limit {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let hanging = fleet.taken();
    let mut jobs = JobServiceClient::new(bed.edge()?).max_decoding_message_size(64 << 20);
    let mut times = Vec::new();
    for _ in 0..500 {
        let asked = Instant::now();
        jobs.list(ListJobsRequest {
            page_size: 100,
            ..Default::default()
        })
        .await?;
        times.push(asked.elapsed().as_secs_f64() * 1e3);
    }
    bed.stop()?;
    Ok(vec![Row::new(
        format!("List of 100 jobs through the edge while {hanging} runs hang"),
        format!(
            "p50 {:.1} ms, p99 {:.1} ms",
            percentile(&mut times, 50.0),
            percentile(&mut times, 99.0)
        ),
        "goal p99 ≤ 5 ms; Clawdbot 12–421 s with one",
    )])
}

/// What a fire costs, however many jobs there are besides.
async fn cost(bin: &Path, size: Size) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for jobs in [10_000, 100_000, size.jobs] {
        let mut bed = Bed::new(bin)?;
        let start_ms = bed::now_ms();
        bed.seed(jobs, |n| {
            if n < 1_000 {
                every(1_000, start_ms + n)
            } else {
                every(FAR_MS, start_ms + FAR_MS / 2 + n)
            }
        })
        .await?;
        bed.start()?;
        let fleet = Fleet::attach(&bed, 2, CAPACITY, Manner::Finish).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (before, ticks) = (fleet.acked(), cpu_ticks(&[bed.scheduler_pid()]));
        tokio::time::sleep(Duration::from_secs(size.seconds * 2)).await;
        let (done, ticks) = (fleet.acked() - before, cpu_ticks(&[bed.scheduler_pid()]) - ticks);
        bed.stop()?;
        anyhow::ensure!(done > 0, "nothing fired among {jobs} jobs");
        rows.push(Row::new(
            format!("CPU of the scheduler per complete fire, {jobs} jobs"),
            format!("{:.0} µs", number(ticks) * 10_000.0 / number(done)),
            "goal: the same for all",
        ));
    }
    Ok(rows)
}

/// A million jobs: memory, idleness, and how soon the first one fires after a kill.
async fn many(bin: &Path, size: Size) -> anyhow::Result<Vec<Row>> {
    let mut bed = Bed::new(bin)?;
    let start_ms = bed::now_ms();
    // Over two hours nothing, so that the idle service is idle.
    bed.seed(size.jobs, |n| every(FAR_MS, start_ms + 2 * 3_600_000 + n))
        .await?;
    let began = Instant::now();
    bed.start()?;
    // It is ready before its jobs are loaded, and answers what concerns them only then.
    AdminServiceClient::new(bed.edge()?)
        .status(StatusRequest {})
        .await?;
    let loading = began.elapsed();
    let idle_for = Duration::from_secs(10);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let ticks = cpu_ticks(&[bed.scheduler_pid()]);
    tokio::time::sleep(idle_for).await;
    let idle = number(cpu_ticks(&[bed.scheduler_pid()]) - ticks) / idle_for.as_secs_f64();
    let rss_mib = bed::rss_mib(bed.scheduler_pid());
    bed.stop_scheduler()?;
    // And a few that are always due.
    bed.seed(20, |n| every(1_000, start_ms + n * 50)).await?;
    bed.start_scheduler()?;
    let fleet = Fleet::attach(&bed, 1, CAPACITY, Manner::Finish).await?;
    let mut firsts = Vec::new();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        bed.kill_scheduler()?;
        let killed = Instant::now();
        fleet.forget();
        bed.spawn_scheduler()?;
        let limit = killed + Duration::from_secs(60);
        while fleet.lateness().is_empty() {
            anyhow::ensure!(
                Instant::now() < limit,
                "nothing fired within a minute of the kill"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        firsts.push(killed.elapsed().as_secs_f64());
    }
    bed.stop()?;
    let jobs = size.jobs;
    Ok(vec![
        Row::new(
            format!("resident memory of the scheduler, {jobs} jobs"),
            format!("{rss_mib:.0} MiB"),
            "goal ≤ 300 MB at 1 M",
        ),
        Row::new(
            format!("start to all loaded, {jobs} jobs"),
            format!("{:.2} s", loading.as_secs_f64()),
            "",
        ),
        Row::new(
            format!("`kill -9` → first fire at a worker, {jobs} jobs"),
            format!("{:.2} s", percentile(&mut firsts, 50.0)),
            "goal ≤ 3 s at 1 M",
        ),
        Row::new(
            format!("idle CPU, {jobs} jobs, none due"),
            format!("{idle:.2} %"),
            "goal ≤ 0.1 %",
        ),
    ])
}

/// What a seeded job does when; by its number.
pub(crate) type When<'a> = &'a (dyn Fn(i64) -> Schedule + Send + Sync);

/// For workers that share what they count.
pub(crate) type Shared<T> = Arc<T>;
