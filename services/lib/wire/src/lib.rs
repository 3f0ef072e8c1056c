//! How Creel's processes talk: TLS with proven identities, the accept loop of every server, channels
//! to every service, and the one layer that decides who may call what.
//!
//! It is not a place for business rules: rows are judged in the domain, methods here. It stores
//! nothing and mints nothing (assertions are signed by `identity` alone).
//!
//! Invariants: a handler sees a [`Caller`] only after [`authz::decide`] let it in, and a `Caller` can
//! be made nowhere else; no privilege comes from an address, a header or a host name; every
//! handshake, connection and header block has a bound.

pub mod accept;
pub mod assertion;
pub mod authz;
pub mod caller;
pub mod channel;
pub mod complete;
pub mod error;
mod guards;
pub mod names;
pub mod observe;
mod opening;
pub mod phrase;
pub mod proof;
pub mod secret;
pub mod session_key;
pub mod source;
pub mod tls;
mod verified;

pub use caller::{Caller, Principal};
pub use error::{Code, Error};
pub use guards::Guards;
pub use names::{DeviceId, Scope, Scopes, ServiceName, SpiffeId, TrustDomain};
pub use secret::Secret;
pub use session_key::SessionKey;
pub use source::Source;

/// Installs the one TLS provider of the process. Call it first in `main` and in test harnesses;
/// calling it again does nothing.
pub fn install_crypto() {
    // Err means that it is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
