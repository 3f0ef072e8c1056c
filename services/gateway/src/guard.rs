//! The guards of the gateway's machines, by name, in one place: a model leaves one out and must then break exactly
//! the invariant that the guard holds (`design/formal.md`).

/// A named guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Guard {
    /// News of a device reach its connections, and those that are just being let in (REV-1).
    Epoch,
    /// Without news nothing new passes, then nothing stays open (REV-2).
    Deadline,
    /// A connection whose device's standing changed is closed (REV-4).
    Close,
}

/// The guards in force: all of them, but in a model.
pub(crate) type Guards = creel_wire::Guards<Guard>;
