//! What a service does when a busy time is over: it gives back the memory that it took. Nothing is done while it is
//! busy, and nothing again while it idles on.

use std::{mem, time::Duration};

use creel_store::Store;
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

/// How often the time spent is looked at.
const PERIOD: Duration = Duration::from_secs(20);
/// Who spends more of the processor in a period is busy: one percent.
const BUSY: Duration = Duration::from_millis(200);

/// Tells when a busy time is over.
#[derive(Debug)]
struct Rest {
    spent: Duration,
    busy: bool,
}

impl Rest {
    /// A start is a busy time.
    const fn new() -> Self {
        Self {
            spent: Duration::ZERO,
            busy: true,
        }
    }

    /// Of a process that has `spent` so much time on the processor, a period after it was last asked: whether it has
    /// just become idle.
    fn begins(&mut self, spent: Duration) -> bool {
        let used = spent.saturating_sub(mem::replace(&mut self.spent, spent));
        let was_busy = mem::replace(&mut self.busy, used > BUSY);
        was_busy && !self.busy
    }
}

/// Runs until the drain.
pub(crate) async fn run(store: Store, drain: CancellationToken) {
    let mut rest = Rest::new();
    loop {
        tokio::select! {
            () = drain.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        if rest.begins(spent()) {
            store.rest().await;
            creel_sandbox::give_back_heap();
        }
    }
}

/// Time that this process has spent on the processor.
fn spent() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime)
        .try_into()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_begins_once_after_each_busy_time() {
        let mut rest = Rest::new();
        let ms = Duration::from_millis;
        let spent = [60, 61, 262, 900, 1_100, 1_101, 1_102, 2_000, 2_000];
        let begins = spent.map(|spent| rest.begins(ms(spent)));
        let expected = [true, false, false, false, true, false, false, false, true];
        assert_eq!(begins, expected);
    }
}
