//! Port security: whose a port is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vswitch_wire::Mac;

use crate::value::{self, Prefix};

/// The most MACs, and the most addresses and prefixes, of one port.
pub const SECURITY_MAX: usize = 64;

/// What frames that come in by a port may claim to be. An empty list is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Security {
    /// Source MACs: individual, not zero; at most 64.
    #[serde(default, with = "value::texts", skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, example = json!(["02:00:00:00:00:11"]))]
    pub mac: Vec<Mac>,
    /// Source addresses, single ones or prefixes; at most 64. None of a network, with `guard`: those that a DHCP server at
    /// a trusted port gives to these MACs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ip: Vec<Prefix>,
    /// Holds all that is said here to these MACs and addresses: ARP and neighbour discovery too. Neither DHCP server nor
    /// router may be here, unless the port is trusted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub guard: bool,
}

impl Security {
    /// Nothing is held.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}
