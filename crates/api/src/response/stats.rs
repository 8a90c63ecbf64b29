//! Counters of the whole switch, and the balance of its frames.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Drops, PortCounters, TenantCounters};

/// GET [`crate::paths::STATS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Every port.
    pub ports: Vec<PortStats>,
    /// The switch itself, where it has an address in a network: `rx` counts what it made, which is `originated` in the balance
    /// and not `received`; `tx` what it took, which is `consumed`; drops are of what it would have made or taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<PortCounters>,
    /// Every network.
    pub networks: Vec<NetworkStats>,
    /// Every tenant: the sums over its networks, and over the ports that are its alone.
    pub tenants: Vec<TenantStats>,
    /// Frames dropped by the whole switch, ports that are gone included.
    pub drops: Drops,
    /// What each reason in `drops` means, in words.
    pub reasons: BTreeMap<String, String>,
    /// The balance of frames.
    pub conservation: Conservation,
}

/// Counters of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortStats {
    /// The port.
    pub name: String,
    /// What it counted.
    #[serde(flatten)]
    pub counters: PortCounters,
}

/// Counters of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkStats {
    /// The network.
    pub name: String,
    /// Its owner.
    pub tenant: Option<String>,
    /// What was admitted to it.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// Counters of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantStats {
    /// The tenant.
    pub name: String,
    /// What was counted for it.
    #[serde(flatten)]
    pub counters: TenantCounters,
}

/// What was admitted to a network or to all networks of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Traffic {
    /// Frames.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames of them that were flooded.
    pub flooded: u64,
}

/// The balance of frames over the whole switch: once traffic is quiet,
/// `received + originated + replicated = transmitted + consumed + dropped`, exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Conservation {
    /// Frames that came in.
    pub received: u64,
    /// Frames that the switch itself made.
    pub originated: u64,
    /// Copies and segments made beyond the frames that came in.
    pub replicated: u64,
    /// Frames that left.
    pub transmitted: u64,
    /// Frames that the switch itself took.
    pub consumed: u64,
    /// Frames dropped, for any reason.
    pub dropped: u64,
}

impl Conservation {
    /// Both sides are equal.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let came = u128::from(self.received) + u128::from(self.originated) + u128::from(self.replicated);
        let went = u128::from(self.transmitted) + u128::from(self.consumed) + u128::from(self.dropped);
        came == went
    }
}
