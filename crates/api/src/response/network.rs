//! Networks and their FDB.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vswitch_wire::{Mac, Vid};

use crate::topology::AclUse;
use crate::value;

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
    /// Where it is.
    pub port: String,
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
