//! Which guards of a state machine are in force: all of them, but in a model, which leaves one out and must
//! then break exactly the invariant that this guard holds (`design/formal.md`).

use std::marker::PhantomData;

/// The guards in force of a machine whose guards are `G`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guards<G> {
    #[cfg(feature = "test-util")]
    out: Option<G>,
    of: PhantomData<G>,
}

impl<G: Copy + PartialEq> Guards<G> {
    /// All guards.
    #[must_use]
    pub const fn all() -> Self {
        Self {
            #[cfg(feature = "test-util")]
            out: None,
            of: PhantomData,
        }
    }

    /// All guards but one.
    #[cfg(feature = "test-util")]
    #[must_use]
    pub const fn without(guard: G) -> Self {
        Self {
            out: Some(guard),
            of: PhantomData,
        }
    }

    /// Whether a guard is in force.
    #[must_use]
    pub fn on(self, guard: G) -> bool {
        #[cfg(feature = "test-util")]
        return self.out != Some(guard);
        #[cfg(not(feature = "test-util"))]
        {
            let _ = (self.of, guard);
            true
        }
    }
}

impl<G: Copy + PartialEq> Default for Guards<G> {
    fn default() -> Self {
        Self::all()
    }
}
