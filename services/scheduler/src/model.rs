//! The two machines in a small world that crashes between every two steps: what tests explore exhaustively, and
//! what `creel-formal` puts under stateright. The machines are the ones that ship; only disk, network, clock and
//! workers are made up.
//!
//! Each invariant is one function of a state; each guard left out breaks the one it stands for.

mod fires;
mod leases;

pub use fires::{Fire, Fires, fir_1, fir_2, fir_3};
pub use leases::{Leases, Step, lea_1, lea_2, lea_3, lea_4, lea_5};

#[cfg(test)]
mod tests;
