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
        /// A device that waits, by pairing id.
        Pairing = b"pq",
        /// An invite, by the SHA-256 of its secret.
        Invite = b"iv",
        /// A person, by name.
        Person = b"pe",
        /// The person a sender speaks for, by (channel, account, platform id).
        SenderLink = b"sl",
        /// A sender that may write directly, by (channel, account, platform id).
        AllowedSender = b"as",
        /// A sender with a code, by (channel, account, platform id).
        PendingSender = b"ps",
        /// Wrong codes of one approver, by principal.
        Guesses = b"gu",
    }
}
