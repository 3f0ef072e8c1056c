//! The local socket: which processes of this machine may speak without a certificate
//! (`architecture.md` §4). The same user, no more confined than identity was when it started, and not
//! descended from a spawner: so a terminal passes, a sandboxed run never does.

use std::sync::Arc;

use creel_sandbox::{Confinement, descends_from, is_spawner, peer_credentials};
use creel_wire::{accept::JudgeLocal, caller::LocalPeer};

/// The judge, with identity's own confinement of this moment as the measure.
pub(crate) fn judge() -> anyhow::Result<JudgeLocal> {
    let baseline = Confinement::of_self()?;
    let own_uid = rustix::process::geteuid().as_raw();
    Ok(Arc::new(move |stream| {
        let refused = |why: &str| {
            // No news: services come here too, locked, and show certificates. Who wants more than that is
            // refused there, with a warning.
            tracing::debug!(why, "not taken for a local process");
            None
        };
        let Ok(peer) = peer_credentials(stream) else {
            return refused("unknown peer");
        };
        if peer.uid != own_uid {
            return refused("another user");
        }
        // Ancestry first: `of_peer` then says whether it was still the same process.
        let spawned = descends_from(peer.pid, is_spawner);
        let Ok(confinement) = Confinement::of_peer(&peer) else {
            return refused("it is gone");
        };
        if spawned {
            return refused("it was started by the agent");
        }
        if confinement.is_more_confined_than(&baseline) {
            return refused("it is confined");
        }
        Some(LocalPeer {
            pid: peer.pid,
            uid: peer.uid,
        })
    }))
}
