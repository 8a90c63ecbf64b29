//! Tenants.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Drops, LinkState, Traffic};

/// A tenant: its limits, what it has, and what was counted for it. GET [`crate::paths::TENANTS`] answers a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantState {
    /// Its name.
    pub name: String,
    /// Its networks, by name.
    pub networks: Vec<String>,
    /// Ports that carry any of its networks.
    pub ports: Vec<TenantPort>,
    /// Most of them; absent: no limit.
    pub max_ports: Option<u32>,
    /// MACs in the FDBs of its networks.
    pub macs: u64,
    /// Those of them that were learnt.
    pub learnt: u64,
    /// Most that may be learnt; absent: only the networks' and ports' limits apply.
    pub max_macs: Option<u32>,
    /// What was counted for it.
    #[serde(flatten)]
    pub counters: TenantCounters,
}

/// A port that carries a network of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantPort {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: LinkState,
    /// It carries networks that are not this tenant's, too.
    pub shared: bool,
}

/// What was counted for a tenant: in its networks, and at the ports that carry no other networks. What a shared port
/// refuses and drops is nobody's alone, and mostly of no network at all: it is the port's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantCounters {
    /// What was admitted to its networks.
    #[serde(flatten)]
    pub traffic: Traffic,
    /// Source MACs that were not learnt at its own ports since a limit was reached.
    pub learn_refused: u64,
    /// Frames dropped at its own ports: the sum of `drops`.
    pub dropped: u64,
    /// Frames dropped at its own ports, by reason.
    pub drops: Drops,
}
