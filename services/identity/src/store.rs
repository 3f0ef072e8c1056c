//! The keys identity owns.

creel_store::kinds! {
    /// What identity keeps.
    pub(crate) enum Kind {
        /// A device, by id.
        Device = b"dv",
        /// The id of the device that has a name, by name.
        DeviceName = b"dn",
        /// An enrolled service, by name.
        Service = b"sv",
        /// Marks of the profile: `first-operator`.
        Mark = b"mk",
        /// Guesses of the recovery code.
        Recovery = b"rc",
    }
}
