//! The RPC edge of identity: proto to domain and back; decides nothing.

pub(crate) mod assertion;
pub(crate) mod ca;
pub(crate) mod device;
pub(crate) mod local;
pub(crate) mod people;
pub(crate) mod sender;
