//! Prints what `next`, `parse` and a zone cost: `cargo run --release -p creel-schedule --example speed`.
//!
//! Random instants from 2000 to 2040, best of five rounds; the worst single answer is shown beside it, with the
//! clock's own cost taken off. Neighbours on the machine show in the worst, rarely in the best.

#![expect(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "a program that prints and may stop at once"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use creel_schedule::{Cron, CronExpr, DstPolicy, Schedule, Syntax, Zones};
use jiff::Timestamp;

const ROUNDS: usize = 5;
const INSTANTS: u64 = 4_096;

fn main() {
    let zones = Zones::bundled();
    let began = Instant::now();
    let all: Vec<_> = zones
        .names()
        .iter()
        .map(|name| zones.get(name).expect("a listed name"))
        .collect();
    println!(
        "{} zones read in {:.0?}, zone data {}",
        all.len(),
        began.elapsed(),
        zones.zone_data_version()
    );

    let mut seed = 7u64;
    let instants: Vec<Timestamp> = (0..INSTANTS)
        .map(|_| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let second = 946_684_800 + (seed >> 33) % (40 * 31_557_600);
            Timestamp::from_second(second.cast_signed()).expect("before 2041")
        })
        .collect();

    let clock = (0..1_000).map(|_| timed(|| ()).1).min().unwrap_or_default();
    println!(
        "{:32} {:24} {:>9} {:>9} {:>9}",
        "expression", "zone", "next", "worst", "parse"
    );
    let cases = [
        ("* * * * *", "Europe/Berlin", Syntax::Unix),
        ("0 * * * *", "Europe/Berlin", Syntax::Unix),
        ("0 19 * * *", "Europe/Berlin", Syntax::Unix),
        ("0 9 * * 1-5", "Europe/Berlin", Syntax::Unix),
        ("0 8 28 1 *", "Europe/Berlin", Syntax::Unix),
        ("0 0 29 2 *", "Europe/Berlin", Syntax::Unix),
        ("0 0 29 2 */7", "Europe/Berlin", Syntax::Unix),
        ("*/30 0 29 2 */7", "Africa/Casablanca", Syntax::Unix),
        ("0 0 * * 1#5", "Australia/Lord_Howe", Syntax::Unix),
        ("* 2 * 3 7L", "Europe/Berlin", Syntax::Unix),
        ("30 2 * * *", "UTC", Syntax::Unix),
        ("0 30 7 ? * MON-FRI", "Europe/Berlin", Syntax::Quartz),
        ("*/10 * * * * ?", "Europe/Berlin", Syntax::Quartz),
    ];
    for (text, zone, syntax) in cases {
        let Ok(expr) = CronExpr::parse(text, syntax) else {
            continue;
        };
        let zone = zones.get(zone).expect("a listed name");
        let schedule = Schedule::Cron(Cron {
            expr,
            zone: zone.clone(),
            dst: DstPolicy::Vixie,
        });
        let round = || {
            timed(|| {
                instants.iter().for_each(|after| {
                    black_box(schedule.next(black_box(*after)));
                })
            })
            .1
        };
        let best = (0..ROUNDS).map(|_| round()).min().unwrap_or_default() / INSTANTS as u32;
        let single = |after: &Timestamp| {
            (0..ROUNDS)
                .map(|_| timed(|| schedule.next(black_box(*after))).1)
                .min()
        };
        let worst = instants
            .iter()
            .filter_map(single)
            .max()
            .unwrap_or_default()
            .saturating_sub(clock);
        let parse =
            timed(|| (0..1_000).for_each(|_| drop(black_box(CronExpr::parse(black_box(text), syntax))))).1
                / 1_000;
        println!(
            "{text:32} {:24} {best:>9.0?} {worst:>9.0?} {parse:>9.0?}",
            zone.name()
        );
    }
    for text in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 30,31 2 */2"] {
        let refuse = timed(|| {
            (0..1_000).for_each(|_| drop(black_box(CronExpr::parse(black_box(text), Syntax::Unix))))
        })
        .1 / 1_000;
        println!("refusing `{text}` as never firing: {refuse:.0?}");
    }
    println!(
        "{} bytes a schedule, {} bytes an occurrence",
        size_of::<Schedule>(),
        size_of::<Option<creel_schedule::Occurrence>>()
    );
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let done = work();
    (done, began.elapsed())
}
