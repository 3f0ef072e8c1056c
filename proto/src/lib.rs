//! The wire contract of Creel: messages, service stubs, descriptor sets, and the authorization table
//! that the proto options spell out.
//!
//! It is not a place for behaviour: conversions and checks live with whoever owns the domain type.
//!
//! Invariants: every method has a rule ([`METHODS`] does not build otherwise); field numbers never
//! change meaning (the snapshot in `tests/fields.txt` guards them).

#![allow(missing_docs, reason = "generated code; the proto files carry the documentation")]
#![allow(unreachable_pub, clippy::large_futures, clippy::doc_markdown, reason = "generated code")]

mod rules;
pub mod time;

pub use rules::{Admits, METHODS, Method, method};

/// Principals and rules as messages.
pub mod authz {
    pub mod v1 {
        tonic::include_proto!("creel.authz.v1");
    }
}
pub mod agent {
    pub mod v1 {
        tonic::include_proto!("creel.agent.v1");
    }
}
pub mod audit {
    pub mod v1 {
        tonic::include_proto!("creel.audit.v1");
    }
}
pub mod gateway {
    pub mod v1 {
        tonic::include_proto!("creel.gateway.v1");
    }
}
pub mod identity {
    pub mod v1 {
        tonic::include_proto!("creel.identity.v1");
    }
}
pub mod kit {
    pub mod v1 {
        tonic::include_proto!("creel.kit.v1");
    }
}
pub mod scheduler {
    pub mod v1 {
        tonic::include_proto!("creel.scheduler.v1");
    }
}

/// All files, without comments.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/all.bin"));

/// The same, with only the methods that the edge forwards: what reflection shows outside.
pub const EDGE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/edge.bin"));
