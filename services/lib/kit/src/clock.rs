//! Wall-clock time as a value that is passed around. The only place that reads the system's clock.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use jiff::Timestamp;

/// Tells the time. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until it is set, for tests.
    #[must_use]
    pub fn manual(unix_ms: i64) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(unix_ms))))
    }

    /// Sets a manual clock; a system clock does not change.
    pub fn set(&self, unix_ms: i64) {
        if let Source::Manual(value) = &self.0 {
            value.store(unix_ms, Ordering::SeqCst);
        }
    }

    /// Moves a manual clock; a system clock does not change.
    pub fn advance(&self, ms: i64) {
        if let Source::Manual(value) = &self.0 {
            value.fetch_add(ms, Ordering::SeqCst);
        }
    }

    /// Now, in Unix milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.now().as_millisecond()
    }

    /// Now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => Timestamp::now(),
            Source::Manual(value) => {
                Timestamp::from_millisecond(value.load(Ordering::SeqCst)).unwrap_or_default()
            }
        }
    }

    /// Whether the clock is at or after the build of this program. Before it, nothing signed is valid.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        self.now().as_second() >= crate::BUILT_AT_UNIX
    }

    /// As a function, for the authorization layer.
    #[must_use]
    pub fn now_fn(&self) -> Arc<dyn Fn() -> i64 + Send + Sync> {
        let clock = self.clone();
        Arc::new(move || clock.now_ms())
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}
