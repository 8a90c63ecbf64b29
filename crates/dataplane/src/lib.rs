//! The switch: frames in, one named verdict per frame out.
//!
//! Pure forwarding: no system call, no clock, no allocation per packet, no unsafe code outside the table.
//! One pipeline step is one file, and the order of [`pipeline`]'s steps is the order a frame sees:
//! parse > admit > vlan > tunnel > guard > acl > storm > locate > learn > forward > egress. Workers read one immutable
//! [`Snapshot`] per batch;
//! everything that changes per packet lives in the [`Pipeline`] (owned by one worker), in the shared
//! [`Fdb`] (lock-free readers) or in [`counters`] (one writer each).

#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(any(test, loom))]
extern crate std;

pub mod acl;
mod admit;
pub mod counters;
pub mod egress;
mod explain;
pub mod fdb;
mod forward;
pub mod guard;
pub mod id;
mod learn;
pub mod lease;
mod locate;
mod offload;
mod parse;
pub mod pipeline;
pub mod reason;
pub mod shortcut;
pub mod snapshot;
mod storm;
mod sync;
mod table;
pub mod too_big;
pub mod tunnel;
mod vector;
mod vlan;

pub use acl::{Acl, Acls};
pub use counters::{Counter, NetworkCounters, PortCounters};
pub use egress::Egress;
pub use explain::{Explained, Step, explain};
pub use fdb::Fdb;
pub use guard::{Learnt, Security};
pub use id::{NetId, PortId, TenantId};
pub use lease::Lease;
pub use pipeline::{BATCH_MAX, Batch, Pipeline, Stranger, Verdict};
pub use reason::Reason;
pub use snapshot::{Attachment, EgressVlan, Network, Port, Snapshot, Storm, Tenant, Trunk, TrunkEntry};
pub use tunnel::{Tunnel, Underlay};
