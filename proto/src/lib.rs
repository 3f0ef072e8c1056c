//! The wire contract of Creel: messages, service stubs, descriptor sets, and the authorization table
//! that the proto options spell out.
//!
//! It is not a place for behaviour: conversions and checks live with whoever owns the domain type.
//!
//! Invariants: every method has a rule ([`METHODS`] does not build otherwise); field numbers never
//! change meaning (the snapshot in `tests/fields.txt` guards them).

mod rules;
pub mod time;

pub use rules::{Admits, METHODS, Method, method};

/// Generated code of one area; its documentation is in the proto files, its lints are not ours.
macro_rules! area {
    ($area:ident, $package:literal) => {
        #[allow(
            missing_docs,
            unreachable_pub,
            clippy::all,
            clippy::allow_attributes_without_reason
        )]
        #[allow(rustdoc::all, reason = "generated code")]
        pub mod $area {
            pub mod v1 {
                tonic::include_proto!($package);
            }
        }
    };
}

area!(agent, "creel.agent.v1");
area!(audit, "creel.audit.v1");
area!(authz, "creel.authz.v1");
area!(gateway, "creel.gateway.v1");
area!(identity, "creel.identity.v1");
area!(kit, "creel.kit.v1");
area!(scheduler, "creel.scheduler.v1");

/// All files, without comments.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/all.bin"));

/// The same, with only the methods that the edge forwards: what reflection shows outside.
pub const EDGE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/edge.bin"));
