//! The harness of the tests that start real processes: a stack in a temporary profile on free ports,
//! the command line, clients with certificates, and what is looked up about processes.
//!
//! It is not a mock of anything: binaries are those that `cargo build --bins` left, transport is mutual
//! TLS, the engine is RocksDB. Logs of a stack whose test failed are kept and their place is printed.
#![expect(
    clippy::disallowed_methods,
    reason = "tests start processes, dial, and read the clock"
)]
#![expect(clippy::print_stderr, reason = "tests tell what they skip")]
#![expect(clippy::expect_used, reason = "a test that can't go on fails")]
#![allow(missing_docs, reason = "test support; names say it")]

pub mod bed;
pub mod cluster;
pub mod door;
pub mod edge;
pub mod netns;
pub mod occurrences;
pub mod openclaw;
pub mod processes;
pub mod relay;
pub mod strangers;
pub mod tools;

pub use cluster::{Cluster, Output};
