//! Tunnels: this switch's VTEP, its networks and its peers.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vswitch_wire::{Mac, Vid, Vni};

use super::PortCounters;
use crate::value::{self, Cidr};

/// GET [`crate::paths::VXLAN`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VxlanState {
    /// This switch's VTEP; absent without `[underlay]`.
    pub underlay: Option<UnderlayState>,
    /// The networks that have a VNI.
    pub networks: Vec<TunnelledNetwork>,
    /// The VTEPs that are peers of any network.
    pub peers: Vec<Peer>,
}

/// This switch's VTEP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnderlayState {
    /// Its address.
    pub address: Cidr,
    /// Its MAC.
    #[serde(with = "value::text")]
    #[schema(value_type = String)]
    pub mac: Mac,
    /// The port that carries it.
    pub port: String,
    /// The VLAN ID on that port; absent: untagged.
    #[serde(default, with = "value::vid")]
    #[schema(value_type = Option<u16>)]
    pub vlan: Option<Vid>,
    /// The way to peers that are not on the link.
    #[schema(value_type = Option<String>)]
    pub gateway: Option<IpAddr>,
    /// The UDP port of VXLAN.
    pub udp_port: u16,
    /// The port is up.
    pub up: bool,
    /// The underlay's MTU in bytes; absent while the port waits.
    pub mtu: Option<u32>,
}

/// A network that is in tunnels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TunnelledNetwork {
    /// Its name.
    pub name: String,
    /// What its frames have in tunnels.
    #[serde(with = "value::vni")]
    #[schema(value_type = Option<u32>)]
    pub vni: Option<Vni>,
    /// Its peers.
    #[schema(value_type = Vec<String>)]
    pub peers: Vec<IpAddr>,
    /// The largest packet in bytes that fits into a tunnel, without its Ethernet header: what stations of the network should
    /// have as their MTU. Absent while the underlay's port waits.
    pub mtu: Option<u32>,
}

/// What is known of the way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// The next hop's MAC is known.
    Resolved,
    /// It is asked for; a few frames wait for it.
    Resolving,
    /// The underlay's port is not up.
    Down,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Resolved => "resolved",
            Self::Resolving => "resolving",
            Self::Down => "down",
        })
    }
}

/// Another VTEP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Peer {
    /// Its address.
    #[schema(value_type = String)]
    pub address: IpAddr,
    /// What is known of the way to it.
    pub reach: Reach,
    /// Who its packets are handed to on the link: the peer itself or the gateway.
    #[schema(value_type = Option<String>)]
    pub next_hop: Option<IpAddr>,
    /// The next hop's MAC.
    #[schema(value_type = Option<String>)]
    pub mac: Option<String>,
    /// Networks that it is a peer of.
    pub networks: u64,
    /// MACs in the FDB behind it.
    pub macs: u64,
    /// Frames that came from it and went to it, without what tunnels put around them. They are counted at the underlay's port
    /// too, and there they are part of the conservation; drops are counted here only.
    pub counters: PortCounters,
}
