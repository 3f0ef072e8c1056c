//! The guards of the lease and fire machines, by name, in one place: a model leaves one out and must then break
//! exactly the invariant that the guard holds (`design/formal.md`).

/// A named guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guard {
    /// An instant is looked at only above the cursor, whatever the clock says (FIR-1).
    Slot,
    /// The cursor passes only what was admitted or skipped (FIR-2).
    Cursor,
    /// Nothing is given away before its record is durable (FIR-3).
    SyncFirst,
    /// Only the newest attempt's result counts (LEA-1).
    Fence,
    /// A run ends once (LEA-2).
    TerminalOnce,
    /// An attempt is used only after it is durable (LEA-3).
    FenceDurable,
    /// A lease that is not renewed ends (LEA-4).
    Expire,
    /// Only an attempt that has not begun is given away again (LEA-5).
    NotBegun,
}

impl Guard {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Slot,
        Self::Cursor,
        Self::SyncFirst,
        Self::Fence,
        Self::TerminalOnce,
        Self::FenceDurable,
        Self::Expire,
        Self::NotBegun,
    ];

    /// The name in specs and `claims.toml`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slot => "slot",
            Self::Cursor => "cursor",
            Self::SyncFirst => "sync_first",
            Self::Fence => "fence",
            Self::TerminalOnce => "terminal_once",
            Self::FenceDurable => "fence_durable",
            Self::Expire => "expire",
            Self::NotBegun => "not_begun",
        }
    }
}

/// The guards in force: all of them, but in a model.
pub type Guards = creel_wire::Guards<Guard>;
