//! The guards of identity's machines, by name, in one place: a model leaves one out and must then break
//! exactly the invariant that the guard holds (`design/formal.md`).

/// A named guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guard {
    /// No more wait than the limit says (PAI-1).
    Cap,
    /// Nothing is approved at or after its end (PAI-2).
    Ttl,
    /// Asking again moves no end (PAI-3).
    NoExtend,
    /// A code lets in whom it was made for (PAI-4).
    BindSender,
    /// Wrong codes are bounded (PAI-5).
    GuessLimit,
    /// Of what was asked for (ATT-1).
    Requested,
    /// Of what the approver chose (ATT-1).
    Chosen,
    /// Of what the approver has (ATT-1).
    Own,
    /// A node holds no operator scope, a legacy device none that lets others in (ATT-3).
    RoleCap,
    /// A nonce opens one connection.
    OneUse,
    /// A nonce ends.
    NonceTtl,
    /// A nonce is for the connection it was given to.
    BindConnection,
    /// Nothing is said of a device that is unknown or revoked (REV-1).
    Standing,
    /// No assertion lives longer than it may (REV-3).
    AssertionTtl,
    /// What was said of a device is said again only while its epoch is the same (REV-3).
    NoReissue,
}

/// The guards in force: all of them, but in a model.
pub type Guards = creel_wire::Guards<Guard>;
