//! What the switch answers.

mod acl;
mod changes;
mod error;
mod network;
mod port;
mod stats;
mod status;
mod tenant;
mod trace;
mod vxlan;

pub use acl::{AclRuleState, AclState, AclSummary, AclUser};
pub use changes::{Change, Changes, FieldChange, Item, Op};
pub use error::{ErrorBody, ErrorCode, Problem};
pub use network::{FdbEntry, Flushed, NetworkState};
pub use port::{Drops, FrontEnd, Lease, LinkState, Offloads, PortCounters, PortState};
pub use stats::{Conservation, NetworkStats, PortStats, Stats, TenantStats, Traffic};
pub use status::{FdbTotals, Health, PortTotals, Status, Worker};
pub use tenant::{TenantCounters, TenantPort, TenantState};
pub use trace::{Outcome, TraceResult, TraceStep};
pub use vxlan::{Peer, Reach, TunnelledNetwork, UnderlayState, VxlanState};
