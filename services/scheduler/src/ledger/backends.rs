//! What the workers that are attached say of the backends they run turns with.

use std::{collections::BTreeSet, sync::Arc};

use creel_proto::scheduler::v1::WorkKind;
use creel_wire::error::printable;

use super::Ledger;
use crate::spec::MAX_BACKEND_BYTES;

/// Names shown at most.
const MAX_SHOWN: usize = 16;

/// Whether turns can be run with a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Backend {
    /// A worker has it.
    There,
    /// Nobody can say: no worker that runs turns is attached, or one does not say what it has.
    Unknown,
    /// No worker has it; they have these.
    Missing(BTreeSet<Arc<str>>),
}

impl Ledger {
    pub(crate) fn backend(&self, name: &str) -> Backend {
        let turns = i32::from(WorkKind::AgentTurn);
        let mut there = BTreeSet::new();
        let mut silent = false;
        for worker in self
            .workers
            .values()
            .filter(|worker| worker.kinds.contains(&turns))
        {
            if worker.backends.contains(name) {
                return Backend::There;
            }
            silent |= worker.backends.is_empty();
            there.extend(worker.backends.iter().cloned());
        }
        if silent || there.is_empty() {
            Backend::Unknown
        } else {
            Backend::Missing(there)
        }
    }
}

/// Some of them, in words.
pub(crate) fn listed(names: &BTreeSet<Arc<str>>) -> String {
    let shown: Vec<_> = names
        .iter()
        .take(MAX_SHOWN)
        .map(|name| printable(name, MAX_BACKEND_BYTES))
        .collect();
    let more = match names.len().saturating_sub(MAX_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", shown.join(", "))
}
