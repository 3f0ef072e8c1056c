//! The guards of identity's machines, by name, in one place: a model leaves one out and must then break
//! exactly the invariant that the guard holds (`design/formal.md`).

/// A named guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Guard {
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
}

/// The guards in force: all of them, but in a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(crate) struct Guards {
    #[cfg(test)]
    out: Option<Guard>,
}

impl Guards {
    /// All guards.
    pub(crate) const fn all() -> Self {
        Self {
            #[cfg(test)]
            out: None,
        }
    }

    /// All guards but one.
    #[cfg(test)]
    pub(crate) const fn without(guard: Guard) -> Self {
        Self { out: Some(guard) }
    }

    /// Whether a guard is in force.
    #[cfg(test)]
    pub(crate) fn on(self, guard: Guard) -> bool {
        self.out != Some(guard)
    }

    /// Whether a guard is in force: here, always.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the signature of the model")]
    pub(crate) const fn on(self, _: Guard) -> bool {
        true
    }
}
