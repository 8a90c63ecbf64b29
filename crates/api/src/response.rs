//! What the switch answers.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vswitch_wire::{Mac, Vid};

use crate::topology::{Kind, Storm, TrunkEntry};
use crate::value;

/// GET [`crate::paths::STATUS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The switch's name.
    pub name: String,
    /// The daemon's version.
    pub version: String,
    /// The daemon's process ID.
    pub pid: u32,
    /// Whole seconds since it started.
    pub uptime_seconds: u64,
    /// The threads that move frames.
    pub workers: Vec<Worker>,
    /// How many ports there are, by state.
    pub ports: PortTotals,
    /// Networks.
    pub networks: u64,
    /// The forwarding database.
    pub fdb: FdbTotals,
    /// Health of every part.
    pub health: Vec<Health>,
}

/// A worker thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Worker {
    /// Its number.
    pub index: u32,
    /// The CPU it is pinned to.
    pub cpu: Option<u32>,
    /// Receive queues it serves.
    pub queues: u32,
    /// Asleep, until a frame comes.
    pub asleep: bool,
}

/// Ports by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortTotals {
    /// All.
    pub total: u64,
    /// Attached, with a carrier.
    pub up: u64,
    /// Attached, without one.
    pub down: u64,
    /// Not attached.
    pub waiting: u64,
}

/// How full the forwarding database is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FdbTotals {
    /// Entries now.
    pub entries: u64,
    /// Entries it has room for.
    pub capacity: u64,
}

/// Health of one part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// The part, as in `worker 0`, `netlink`, `port web1`.
    pub part: String,
    /// It does what it should.
    pub ok: bool,
    /// In words: what it does, or what is wrong and how to mend it.
    pub text: String,
}

/// State of a port's attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// Attached, and the netdev has a carrier.
    Up,
    /// Attached, without a carrier.
    Down,
    /// Not attached: the netdev is missing, or cannot be attached now.
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
    /// The network device.
    pub netdev: String,
    /// Its state.
    pub state: LinkState,
    /// Why it is not up, in words.
    pub reason: Option<String>,
    /// The driver's mode, as in `native, copy`; absent while it waits.
    pub mode: Option<String>,
    /// Why this kind and mode were chosen, in words; absent while it waits.
    pub why: Option<String>,
    /// Receive queues of the netdev that are served.
    pub queues: u32,
    /// Unfinished work of frames that it can carry.
    pub offloads: Offloads,
    /// The MTU enforced, in bytes; absent while it waits.
    pub mtu: Option<u32>,
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
    /// MACs in the FDB at this port.
    pub macs: u64,
    /// Most of them that may be learnt; absent: only the networks' limits apply.
    pub max_macs: Option<u32>,
    /// Limits of flooded traffic.
    pub storm: Storm,
    /// What it counted.
    pub counters: PortCounters,
}

/// Unfinished work of frames, as words: `csum`, `tso4`, `tso6`, `uso`, and so on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Offloads {
    /// Work that may be left to the netdev or the peer when a frame leaves.
    pub tx: Vec<String>,
    /// Work that may be left undone in frames that come in.
    pub rx: Vec<String>,
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
    /// Frames that came in and were flooded.
    pub flooded: u64,
    /// Source MACs that were not learnt since a limit was reached.
    pub learn_refused: u64,
    /// Frames that the kernel dropped before the switch saw them. No part of the conservation.
    pub missed: u64,
    /// Frames dropped: the sum of `drops`.
    pub dropped: u64,
    /// Frames dropped by reason: of ingress where they came in, of egress where they should have left.
    pub drops: Drops,
}

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

/// GET [`crate::paths::STATS`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Every port.
    pub ports: Vec<PortStats>,
    /// Every network.
    pub networks: Vec<NetworkStats>,
    /// Every tenant: the sums over its networks.
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
    /// What was admitted to its networks.
    #[serde(flatten)]
    pub traffic: Traffic,
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

/// POST [`crate::paths::TRACE`]: what the switch would do with a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceResult {
    /// Each decision, in its order.
    pub steps: Vec<TraceStep>,
    /// What comes of the frame.
    pub outcome: Outcome,
    /// Its network, where it got one.
    pub network: Option<String>,
    /// The ports that it leaves by.
    pub ports: Vec<String>,
    /// Why it is dropped: the counter's name.
    pub reason: Option<String>,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceStep {
    /// The step of the pipeline, as in `vlan`.
    pub stage: String,
    /// What was decided and why, in words.
    pub text: String,
}

/// What comes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Leaves by one port.
    Unicast,
    /// Leaves by every other port of its network that may have it.
    Flood,
    /// Dropped.
    Drop,
}

/// PUT [`crate::paths::CONFIG`], POST [`crate::paths::CONFIG_DIFF`], and every command that changes the topology.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changes {
    /// What changed, or would change; empty when nothing does.
    pub changes: Vec<Change>,
}

/// One difference between two topologies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// What happens to the item.
    pub op: Op,
    /// What it is.
    pub item: Item,
    /// Its name; for a static FDB entry, network and MAC.
    pub name: String,
    /// The fields in question, for `add` those that are not the default's.
    pub fields: Vec<FieldChange>,
}

/// What happens to an item of the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// It is new.
    Add,
    /// It goes.
    Remove,
    /// It stays, with other fields.
    Change,
}

/// An item of the topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Item {
    /// `[switch]`.
    Switch,
    /// `[[network]]`.
    Network,
    /// `[[port]]`.
    Port,
    /// `[[fdb]]`.
    Fdb,
    /// `[[host]]`.
    Host,
}

impl fmt::Display for Change {
    /// As in `~ port web1: access red -> blue, mtu 9000 -> default`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, item) = (self.op.sign(), self.item.name());
        write!(f, "{sign} {item} {}", self.name)?;
        for (i, field) in self.fields.iter().enumerate() {
            f.write_str(if i == 0 { ": " } else { ", " })?;
            let to = field.to.as_deref().unwrap_or("default");
            match (self.op, &field.from) {
                (Op::Add, _) => write!(f, "{} {to}", field.key)?,
                (_, from) => write!(f, "{} {} -> {to}", field.key, from.as_deref().unwrap_or("default"))?,
            }
        }
        Ok(())
    }
}

impl Op {
    const fn sign(self) -> char {
        match self {
            Self::Add => '+',
            Self::Remove => '-',
            Self::Change => '~',
        }
    }
}

impl Item {
    const fn name(self) -> &'static str {
        match self {
            Self::Switch => "switch",
            Self::Network => "network",
            Self::Port => "port",
            Self::Fdb => "fdb",
            Self::Host => "host",
        }
    }
}

/// A field of an item that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldChange {
    /// The key, as in a topology file.
    pub key: String,
    /// Its value before, as text; absent where it had none.
    pub from: Option<String>,
    /// Its value after, as text; absent where it has none.
    pub to: Option<String>,
}

/// The body of every answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The kind of failure.
    pub code: ErrorCode,
    /// What was refused and why, in one line.
    pub message: String,
    /// How to mend it, in one line; empty where nothing can be said.
    pub mend: String,
    /// Each mistake in the topology that was sent.
    #[serde(default)]
    pub problems: Vec<Problem>,
}

/// The kind of a failure; each has one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request cannot be read, or the topology has mistakes.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// There is such a thing already, or it is in use.
    Conflict,
    /// It would cut off the operator; `force` is needed.
    NeedsForce,
    /// The kernel or the machine refused it.
    Failed,
    /// A mistake of the switch.
    Internal,
}

impl ErrorCode {
    /// The HTTP status (RFC 9110 section 15).
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::NeedsForce => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Failed => 422,
            Self::Internal => 500,
        }
    }
}

/// One mistake in a topology.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Where, as keys of a topology file: `port[2].access`.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub mend: String,
}

impl Problem {
    /// Stands at the end of a list that would be too long.
    pub(crate) fn that_counts(more: usize) -> Option<Self> {
        (more > 0).then(|| Self {
            path: String::new(),
            what: format!("{more} more mistakes are not listed"),
            mend: "mend these first".to_owned(),
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)?;
        if self.mend.is_empty() { Ok(()) } else { write!(f, "; {}", self.mend) }
    }
}
