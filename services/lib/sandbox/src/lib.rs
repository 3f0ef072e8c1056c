//! Processes and the walls around them.
//!
//! This crate is the only place of Creel that starts processes and the only one with `unsafe`. It has three parts:
//!
//! - **Runs**: untrusted programs inside walls. A service starts a [`Spawner`] before it locks itself and hands it
//!   [`Command`]s; each becomes a chain *spawner → init → program* (`spawner.rs`, `init.rs`, `child.rs`).
//! - **Locking**: [`lock_service`], by which a service gives up what it does not need, and [`peer_credentials`] with
//!   [`Confinement`], by which it recognises who has been locked in.
//! - **Children**: [`Child`], trusted programs without walls, for the supervisor.
//!
//! The walls are Landlock, seccomp, resource limits, `no_new_privs` and a subreaper per run: what works without
//! privileges and inside Docker's default profile with every capability dropped. Namespaces and cgroups are not
//! used. It is deliberately not a policy: what a run may touch is the caller's [`Profile`].
//!
//! # Invariants
//! - A wall the profile demands stands before the program's first instruction, or the run is refused and the wall
//!   named ([`Refusal`]). What stood is reported with every run ([`Enforced`]).
//! - No file is both writable and executable for a run; no grant reaches a protected directory but through a
//!   carve-out ([`ProfileError`]). One gap is by nature: code that is *read* can be run by an interpreter, the
//!   dynamic loader included. It is in the same walls.
//! - When a run's end is reported, nothing of it lives; that is at most 6 s after it was told to end. Loss of any
//!   one process of the chain *supervisor → service → spawner → init* ends everything below it: each level is a
//!   subreaper and kills what it inherits.
//! - Everything is bounded: runs, packet sizes, paths, captured output, processes and memory of a run.
//!
//! Linux only (x86_64, aarch64).

#![allow(
    unsafe_code,
    reason = "the one crate that may; every block says why it is sound"
)]
#![warn(clippy::undocumented_unsafe_blocks)]

mod base;
mod caps;
mod capture;
mod child;
mod client;
mod command;
mod exit;
mod gate;
mod heap;
mod init;
mod landlock_wall;
mod lockdown;
mod meter;
mod oneshot;
mod peer;
mod probe;
mod process;
mod profile;
mod report;
mod seccomp;
mod spawner;
mod support;
mod sys;
mod tree;
mod wire;

use std::ffi::OsString;
use std::process::ExitCode;

pub use base::Base;
pub use capture::Captured;
pub use client::{Finished, Run, RunError, Spawner};
pub use command::{Command, DEFAULT_GRACE, Io, MAX_GRACE};
pub use exit::{Cause, Exit, Status};
pub use heap::give_back_heap;
pub use landlock_wall::Ports;
pub use lockdown::{LockError, LockReport, LockSpec, lock_service};
pub use peer::{Confinement, Peer, PeerError, descends_from, is_spawner, peer_credentials};
pub use probe::probe_main;
pub use process::{Child, ChildSpec, MAX_STDIN_BYTES, Target};
pub use profile::{Grants, Limits, MAX_PATHS, Net, Profile, ProfileError, Walls};
pub use report::{Enforced, Level, Refusal, Wall, WallReport};
pub use support::Support;
pub use sys::clock_is_synchronised;
pub use tree::{Strays, become_subreaper, kill_descendants, reap_strays};

/// Runs the helper that `args` (the process's arguments, program name included) ask for, if they do.
///
/// To be the first line of `main`, before any thread, runtime or signal handler: the helpers must be single-threaded.
pub fn dispatch_early(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1);
    match args.next()?.to_str()? {
        "spawner" => Some(spawner::main()),
        "sandbox-init" => Some(oneshot::main(args)),
        "sandbox-probe" => Some(probe::probe_main(args)),
        _ => None,
    }
}
