//! What the disk does: the floor of everything durable.

use std::{fs, io::Write as _, time::Instant};

use crate::{Row, percentile};

const SYNCS: usize = 300;

/// Appends of 4 KiB with fdatasync, where the store would lie.
pub(crate) fn measure() -> anyhow::Result<Vec<Row>> {
    let dir = tempfile::Builder::new()
        .prefix("creel-bench-")
        .tempdir_in("/tmp")?;
    let mut file = fs::File::create(dir.path().join("log"))?;
    let block = [0x5a_u8; 4_096];
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(vec![Row::new(
        format!("this disk: append 4 KiB and fdatasync ({SYNCS} times)"),
        format!(
            "p50 {:.1} ms, p99 {:.1} ms",
            percentile(&mut times, 50.0),
            percentile(&mut times, 99.0)
        ),
        "the floor of what follows",
    )])
}
