//! Networks and their FDB.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

use vswitch_wire::{Mac, Vid, Vni};

use crate::topology::AclUse;
use crate::value::{self, Cidr};

/// A network: what was asked for and what is in it. GET [`crate::paths::NETWORKS`] answers a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkState {
    /// Its name.
    pub name: String,
    /// Its owner.
    pub tenant: Option<String>,
    /// Its VLAN ID on trunks.
    #[serde(default, with = "value::vid")]
    #[schema(value_type = Option<u16>)]
    pub vlan: Option<Vid>,
    /// What its frames have in tunnels.
    #[serde(default, with = "value::vni")]
    #[schema(value_type = Option<u32>)]
    pub vni: Option<Vni>,
    /// The other VTEPs of the network.
    #[schema(value_type = Vec<String>)]
    pub peers: Vec<IpAddr>,
    /// The switch's own addresses in it.
    #[serde(default)]
    pub address: Vec<Cidr>,
    /// The MAC that they have; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "02:00:00:00:00:11")]
    pub own_mac: Option<String>,
    /// How long an unused FDB entry lives.
    #[schema(example = "300s")]
    pub ageing: String,
    /// MACs in its FDB.
    pub macs: u64,
    /// Most of them that may be learnt.
    pub max_macs: u32,
    /// Ports that carry it, by name.
    pub ports: Vec<String>,
    /// Its filters.
    #[serde(default, skip_serializing_if = "AclUse::is_none")]
    pub acl: AclUse,
}

/// An entry of the FDB. GET [`crate::paths::FDB`] answers a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FdbEntry {
    /// The network.
    pub network: String,
    /// The address.
    #[serde(with = "value::text")]
    #[schema(value_type = String, example = "02:00:00:00:00:11")]
    pub mac: Mac,
    /// The port where it is; absent for one behind another VTEP.
    pub port: Option<String>,
    /// The VTEP behind which it is.
    #[schema(value_type = Option<String>)]
    pub vtep: Option<IpAddr>,
    /// Set by the user: never ages, never moves.
    #[serde(rename = "static")]
    pub is_static: bool,
    /// Held at its port by the MAC-flap guard.
    pub held: bool,
    /// Whole seconds since a frame with this source was last seen; 0 for a static one.
    pub idle_seconds: u64,
}

/// POST [`crate::paths::FDB_FLUSH`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flushed {
    /// Entries taken out.
    pub flushed: u64,
}
