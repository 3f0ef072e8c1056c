//! Capabilities: none, for good.

use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities,
};

/// Gives up every capability but those in `keep`, also for whatever is executed later.
///
/// Where the bounding set can't be narrowed (no CAP_SETPCAP, as in a container) `no_new_privs` does its work: with
/// it, exec grants no more than is permitted now. The caller sets that flag.
pub(crate) fn drop_all_but(keep: CapabilitySet) -> rustix::io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if keep.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            Err(rustix::io::Errno::INVAL) => break, // past the last one this kernel has
            Err(rustix::io::Errno::PERM) | Ok(()) => {}
            Err(e) => return Err(e),
        }
    }
    match clear_ambient_capability_set() {
        Err(rustix::io::Errno::INVAL) | Ok(()) => {} // INVAL: a kernel without ambient capabilities
        Err(e) => return Err(e),
    }
    let kept = rustix::thread::capabilities(None)?.permitted & keep;
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )
}
