//! The frame a service stands in: profile, config, clock, logs, metrics, health, certificates, audit
//! outbox, idempotency, lockdown, drain. A service brings routes and a loop; the frame does the rest.
//!
//! It is not a place for anything only one service needs, and it links no engine: `creeld` passes in
//! how a store is opened.
//!
//! Invariants: a part with bad config refuses to start and says where; a service is ready only with an
//! open store and a valid certificate; class A audit records commit with the change they tell of.

pub mod audit_file;
pub mod cert;
pub mod clock;
pub mod config;
pub mod drain;
pub mod failure;
pub mod idempotency;
pub mod logs;
pub mod metrics;
pub mod outbox;
pub mod page;
pub mod peers;
pub mod profile;
mod rest;
pub mod service;
mod serving;

pub use clock::Clock;
pub use config::Config;
pub use profile::Profile;
pub use service::{Built, Deps};

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// When this build was made, Unix seconds: no honest clock is earlier.
pub const BUILT_AT_UNIX: i64 = {
    // Parsed at compile time from what build.rs wrote.
    let text = env!("CREEL_BUILT_AT").as_bytes();
    let (mut value, mut i) = (0_i64, 0);
    while i < text.len() {
        value = value * 10 + (text[i] - b'0') as i64;
        i += 1;
    }
    value
};
