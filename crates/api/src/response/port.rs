//! Ports: what was asked for, what came of it, and what they counted.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vswitch_wire::Mac;

use crate::topology::{AclUse, Kind, Role, Security, Storm, TrunkEntry};
use crate::value;

/// State of a port's attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// Attached, and the netdev has a carrier, or the guest's rings run.
    Up,
    /// Attached, without a carrier or a guest.
    Down,
    /// Not attached: the netdev is missing, or netdev or socket cannot be had now.
    Waiting,
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Waiting => "waiting",
        })
    }
}

/// A port: what was asked for, what came of it, and what it counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortState {
    /// Its name.
    pub name: String,
    /// The kind in use; while it waits, the kind asked for.
    pub kind: Kind,
    /// The kind asked for.
    pub configured_kind: Kind,
    /// The network device; absent for a port of kind `vhost-user`.
    pub netdev: Option<String>,
    /// The socket of a port of kind `vhost-user`.
    pub socket: Option<String>,
    /// Who listens on the socket; absent for other kinds.
    pub role: Option<Role>,
    /// Its state.
    pub state: LinkState,
    /// Why it is not up, in words.
    pub reason: Option<String>,
    /// The driver's mode, as in `native, copy`; absent while it waits.
    pub mode: Option<String>,
    /// Why this kind and mode were chosen, in words; absent while it waits.
    pub why: Option<String>,
    /// Receive queues that are served; at a port of kind `vhost-user` the queue pairs that the guest may use (those that
    /// run: `front_end.queue_pairs`).
    pub queues: u32,
    /// Unfinished work of frames that it can carry; at a guest's port what the guest has agreed to.
    pub offloads: Offloads,
    /// The front end of a port of kind `vhost-user`; absent for other kinds and while it waits.
    pub front_end: Option<FrontEnd>,
    /// The MTU enforced, in bytes; absent while it waits.
    pub mtu: Option<u32>,
    /// The MTU asked for, in bytes: more than the netdev's own is not enforced. Absent: the netdev's.
    pub configured_mtu: Option<u32>,
    /// The largest MTU that kind and netdev can carry, in bytes; absent while it waits.
    pub mtu_limit: Option<u32>,
    /// The network of an access port.
    pub access: Option<String>,
    /// The networks of a trunk, each with its VLAN ID.
    pub trunk: Vec<TrunkEntry>,
    /// The network of untagged frames on a trunk.
    pub native: Option<String>,
    /// Frames between two isolated ports are dropped.
    pub isolated: bool,
    /// Its filters.
    #[serde(default, skip_serializing_if = "AclUse::is_none")]
    pub acl: AclUse,
    /// MACs in the FDB at this port.
    pub macs: u64,
    /// Most of them that may be learnt; absent: only the networks' limits apply.
    pub max_macs: Option<u32>,
    /// Limits of flooded traffic.
    pub storm: Storm,
    /// What its frames may claim to be.
    pub security: Security,
    /// DHCP servers and routers may be there.
    pub trusted: bool,
    /// Addresses that it has learnt from DHCP, and may claim too.
    pub leases: Vec<Lease>,
    /// What it counted.
    pub counters: PortCounters,
}

/// An address that a DHCP server has given to a station behind a guarded port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lease {
    /// In which network.
    pub network: String,
    /// To whom.
    #[serde(with = "value::text")]
    #[schema(value_type = String, example = "02:00:00:00:00:11")]
    pub mac: Mac,
    /// The address.
    #[schema(value_type = String, example = "10.0.0.11")]
    pub address: IpAddr,
    /// For how many seconds more; absent: for ever.
    pub seconds: Option<u64>,
}

/// Unfinished work of frames, as words: `csum`, `tso4`, `tso6`, `uso`, and so on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Offloads {
    /// Work that may be left to the netdev or the peer when a frame leaves.
    pub tx: Vec<String>,
    /// Work that may be left undone in frames that come in.
    pub rx: Vec<String>,
}

/// Who speaks for a guest at a port of kind `vhost-user`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FrontEnd {
    /// It is there.
    pub connected: bool,
    /// The virtio features that it has agreed to, by their names in the standard; none while it is not there.
    pub features: Vec<String>,
    /// What it costs that it has not agreed to more, a sentence each.
    pub slow: Vec<String>,
    /// Queue pairs that run.
    pub queue_pairs: u32,
    /// Why a ring rests until the guest resets it, in words.
    pub broken: Option<String>,
    /// Front ends that came since the port was attached.
    pub sessions: u64,
    /// How many of them were sent away since they broke the protocol.
    pub refused: u64,
    /// Why the last of those was, in words.
    pub last_refusal: Option<String>,
}

/// Frames dropped, by reason; a reason without any is left out.
pub type Drops = BTreeMap<String, u64>;

/// What one port counted. Bytes are those of frames without FCS, tag included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortCounters {
    /// Frames that came in.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames that left.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Times that the netdev or the guest took no more frames: it is slower than what comes for it.
    pub tx_stalls: u64,
    /// Frames that came in and were flooded.
    pub flooded: u64,
    /// Source MACs that were not learnt since a limit was reached.
    pub learn_refused: u64,
    /// Frames of those that came in that passed in the kernel, from netdev to netdev, past the workers.
    pub shortcut: u64,
    /// Frames that the kernel dropped before the switch saw them. No part of the conservation.
    pub missed: u64,
    /// Frames dropped: the sum of `drops`.
    pub dropped: u64,
    /// Frames dropped by reason: of ingress where they came in, of egress where they should have left.
    pub drops: Drops,
}
