//! What clients send.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use vswitch_wire::{Mac, Vid};

use crate::topology::Port;
use crate::value;

/// Query of PUT [`crate::paths::CONFIG`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ApplyQuery {
    /// Says what would change, and changes nothing.
    pub dry_run: bool,
    /// Attaches even the netdev that carries the default route or the caller's session.
    pub force: bool,
    /// Where the caller's own session comes from, as SSH tells: the netdev towards it is protected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub session: Option<std::net::IpAddr>,
}

/// Query of POST [`crate::paths::PORTS`] and PATCH [`crate::paths::PORT`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ForceQuery {
    /// Attaches even the netdev that carries the default route or the caller's session.
    pub force: bool,
    /// Where the caller's own session comes from, as SSH tells: the netdev towards it is protected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub session: Option<std::net::IpAddr>,
}

/// Which FDB entries: query of GET [`crate::paths::FDB`], body of POST [`crate::paths::FDB_FLUSH`]. Both conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FdbQuery {
    /// Of this network only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// At this port only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
}

/// One FDB entry: query of DELETE [`crate::paths::FDB`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FdbKey {
    /// The network.
    pub network: String,
    /// The address.
    #[serde(with = "value::text")]
    #[param(value_type = String, example = "02:00:00:00:00:11")]
    pub mac: Mac,
}

/// Body of POST [`crate::paths::PEERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPeer {
    /// The other VTEP.
    #[schema(value_type = String, example = "192.0.2.2")]
    pub address: std::net::IpAddr,
}

/// A port as in a topology file, or with `vlan` in place of `access`: the network with that VLAN ID, which is
/// made as `vlan<VID>` where there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct NewPort {
    /// The port.
    #[serde(flatten)]
    pub port: Port,
    /// The VLAN ID of its access network.
    #[serde(with = "value::vid", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 4094)]
    pub vlan: Option<Vid>,
}

impl<'de> Deserialize<'de> for NewPort {
    // By hand, since serde's flatten would let unknown fields of the port through.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        let vlan = fields.remove("vlan").unwrap_or_default();
        let vlan = value::vid::deserialize(vlan).map_err(serde::de::Error::custom)?;
        let port = serde_json::from_value(Value::Object(fields)).map_err(serde::de::Error::custom)?;
        Ok(Self { port, vlan })
    }
}

/// What to change of a port: a JSON merge patch (RFC 7396) over it. An absent field stays, `null` sets it back to its default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub struct PortPatch(pub Map<String, Value>);

/// What to change of a network: a JSON merge patch (RFC 7396), as [`PortPatch`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub struct NetworkPatch(pub Map<String, Value>);

/// Query of POST [`crate::paths::ACL_RULES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RuleQuery {
    /// Where the new rule is to be, from 1; at the end unless told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<u32>,
}

/// What to change of a tenant's limits: a JSON merge patch (RFC 7396) over its `[[tenant]]`, which is made where there is
/// none. An absent field stays, `null` lifts the limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub struct TenantPatch(pub Map<String, Value>);

/// Body of POST [`crate::paths::TRACE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// The port that the frame comes in by.
    pub port: String,
    /// The frame from the destination MAC on, without FCS, in hexadecimal digits.
    #[schema(example = "ffffffffffff02000000001108060001080006040001")]
    pub frame: String,
}
