//! The desired state of the switch, as a value.
//!
//! A topology says what there should be, never what there is: a port whose netdev is missing is still a
//! port. Every command edits such a value, every file is one, and `dump` writes one.
//!
//! Parse ([`load`]) -> [`check`] -> compile (the daemon's) -> [`diff`] -> apply (the daemon's). Everything
//! here is pure, but for [`read`], which loads a file. Field names are snake_case in JSON and kebab-case in TOML.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use vswitch_wire::{Mac, Vid, Vni};

use crate::value::{self, Cidr, Pps};

mod acl;
mod check;
mod diff;
mod file;
mod keys;
mod own;
mod security;
mod tenant;
mod trunk;
mod underlay;

pub use acl::{
    ACL_RULES_MAX, ACL_RULES_TOTAL_MAX, ACLS_MAX, Acl, AclAction, AclRule, AclUse, EtherType, IpPrefix,
    MacMask, PortRange, Protocol, TcpFlags,
};
pub use check::check;
pub use diff::{Action, Entry, actions, diff};
pub use file::{FileProblem, ReadError, load, read, to_toml};
pub use own::{OWN_PORT, own_mac};
pub use security::{SECURITY_MAX, Security};
pub use tenant::Tenant;
pub use trunk::TrunkEntry;
pub use underlay::{PEER_ENTRIES_MAX, PEERS_MAX, Underlay, is_host};

/// The most ports of one switch.
pub const PORTS_MAX: usize = 4096;
/// The most networks of one switch.
pub const NETWORKS_MAX: usize = 16_384;
/// The most tenants of one switch: as many as networks.
pub const TENANTS_MAX: usize = NETWORKS_MAX;
/// The most networks of one trunk: there are no more VLAN IDs (IEEE 802.1Q-2022 table 9-2).
pub const TRUNK_MAX: usize = 4094;
/// The most networks of all trunks together: as many as 256 trunks with every VLAN have. A snapshot holds each.
pub const TRUNK_ENTRIES_MAX: usize = 1 << 20;
/// The most static FDB entries: a sixteenth of the FDB, so that they cannot keep others from being learnt.
pub const STATIC_ENTRIES_MAX: usize = 65_536;
/// The most addresses of the switch itself in one network.
pub const NETWORK_ADDRESSES_MAX: usize = 7;
/// The most networks in which the switch itself has an address: each has a VLAN ID of the switch's own port, and some are
/// for other purposes.
pub const ADDRESSED_NETWORKS_MAX: usize = 4000;
/// The most CPUs, and so workers, of one switch.
pub const CPUS_MAX: usize = 256;
/// The most mistakes that a check tells one by one; the others are counted.
pub const PROBLEMS_MAX: usize = 100;
/// The longest path of a Unix socket in bytes: the kernel's `sun_path` less its NUL (unix(7)).
pub const SOCKET_PATH_MAX: usize = 107;
/// Queue pairs of a port of kind `vhost-user`.
pub const QUEUES_RANGE: RangeInclusive<u16> = 1..=64;
/// The range of an MTU in bytes: from the least of IPv4 (RFC 791) to the most of a netdev.
pub const MTU_RANGE: RangeInclusive<u32> = 68..=65535;
/// The range of an ageing time; the upper end is that of IEEE 802.1Q-2022 table 8-11.
pub const AGEING_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(1_000_000);
/// How long an unused FDB entry lives, unless told otherwise (IEEE 802.1Q-2022 table 8-11).
pub const AGEING_DEFAULT: Duration = Duration::from_secs(300);
/// Most MACs learnt in one network, unless told otherwise.
pub const NETWORK_MACS_DEFAULT: u32 = 8192;

/// A whole topology: `topologies/*.toml`, `apply`, `dump`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Topology {
    /// The switch itself.
    pub switch: Switch,
    /// Limits of tenants.
    pub tenant: Vec<Tenant>,
    /// Layer-2 broadcast domains.
    pub network: Vec<Network>,
    /// Attachment points.
    pub port: Vec<Port>,
    /// Where tunnels to other switches begin; absent: there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub underlay: Option<Underlay>,
    /// Filters, which ports and networks use.
    pub acl: Vec<Acl>,
    /// Static entries of the forwarding database.
    pub fdb: Vec<StaticEntry>,
    /// Hosts of a lab. The daemon ignores them; `vswitchctl lab` makes a network namespace of each.
    pub host: Vec<Host>,
}

/// What concerns the whole switch. A change of any key but `name` is refused while the
/// daemon runs: start it anew with the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Switch {
    /// Its name, as `status` shows it.
    pub name: String,
    /// One worker pinned to each of these CPUs. None: one worker, not pinned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u32>,
    /// What idle workers do.
    pub polling: Polling,
    /// Busy flows pass in the kernel, past the workers, where the kernel lets them.
    #[serde(skip_serializing_if = "is_true")]
    pub shortcut: bool,
}

fn is_true(value: &bool) -> bool {
    *value
}

impl Default for Switch {
    fn default() -> Self {
        Self { name: "vswitch".to_owned(), cpus: Vec::new(), polling: Polling::Adaptive, shortcut: true }
    }
}

/// What an idle worker does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Polling {
    /// Polls while there is traffic, sleeps when there is none.
    #[default]
    Adaptive,
    /// Never sleeps: the lowest latency, a whole CPU for each worker.
    Busy,
}

/// One layer-2 broadcast domain, with its own FDB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Unique among networks; 1 to 32 letters, digits, `.`, `_`, `-`, the first a letter or a digit.
    pub name: String,
    /// Its owner. Two tenants may use the same VLAN ID, on different trunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The 802.1Q VLAN ID on trunks, 1 to 4094, unless a trunk's entry says otherwise.
    #[serde(default, with = "value::vid", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 4094)]
    pub vlan: Option<Vid>,
    /// The VXLAN network identifier, 0 to 16777215: what tells its frames from others in a tunnel.
    #[serde(default, with = "value::vni", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, maximum = 16_777_215)]
    pub vni: Option<Vni>,
    /// The other VTEPs of the network: what is flooded goes to each of them, and nobody else's frames are taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, example = json!(["192.0.2.2"]))]
    pub peers: Vec<IpAddr>,
    /// Whoever sends frames with the network's VNI to this VTEP becomes a peer, until nothing is known behind it any more. Its
    /// first frame is dropped.
    /// Anyone on the underlay can then hear and speak in the network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub peers_any: bool,
    /// MACs behind other VTEPs are learnt from the frames that come from there. Without it static entries alone say what is
    /// behind which.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    #[schema(default = true)]
    pub remote_learning: bool,
    /// The switch's own addresses here, 7 at most, each with the length of its network's prefix: it answers ARP, neighbour
    /// discovery and pings for them, from inside of this network alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub address: Vec<Cidr>,
    /// Most MACs learnt here. Beyond it the largest port's oldest entries make room.
    #[serde(default = "network_macs_default", skip_serializing_if = "is_network_macs_default")]
    #[schema(minimum = 1)]
    pub max_macs: u32,
    /// How long an unused FDB entry lives, 1 s to 1000000 s.
    #[serde(default = "ageing_default", with = "value::duration", skip_serializing_if = "is_ageing_default")]
    #[schema(value_type = String, example = "300s")]
    pub ageing: Duration,
    /// Filters of what enters and leaves the network, by whatever port.
    #[serde(default, skip_serializing_if = "AclUse::is_none")]
    pub acl: AclUse,
}

impl Network {
    /// A network of this name, everything else as it is by default.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            tenant: None,
            vlan: None,
            vni: None,
            peers: Vec::new(),
            peers_any: false,
            remote_learning: true,
            address: Vec::new(),
            max_macs: NETWORK_MACS_DEFAULT,
            ageing: AGEING_DEFAULT,
            acl: AclUse::default(),
        }
    }
}

fn yes() -> bool {
    true
}

fn network_macs_default() -> u32 {
    NETWORK_MACS_DEFAULT
}

fn is_network_macs_default(max_macs: &u32) -> bool {
    *max_macs == NETWORK_MACS_DEFAULT
}

fn ageing_default() -> Duration {
    AGEING_DEFAULT
}

fn is_ageing_default(ageing: &Duration) -> bool {
    *ageing == AGEING_DEFAULT
}

/// An attachment point of the switch. With neither `access` nor `trunk` nor `native` nothing passes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Unique among ports; 1 to 32 letters, digits, `.`, `_`, `-`, the first a letter or a digit.
    pub name: String,
    /// How frames move between it and the switch.
    #[serde(default, skip_serializing_if = "Kind::is_auto")]
    pub kind: Kind,
    /// The network device; the port's name when absent. None for a port of kind `vhost-user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netdev: Option<String>,
    /// The Unix socket of a port of kind `vhost-user`: an absolute path of at most 107 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// Who listens on that socket.
    #[serde(default, skip_serializing_if = "Role::is_server")]
    pub role: Role,
    /// Queue pairs that the guest of a port of kind `vhost-user` may use, 1 to 64. Absent: one. A guest whose hypervisor
    /// gives it no control queue (user-mode Linux) does not start on a port with more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 64)]
    pub queues: Option<u16>,
    /// The one network of an access port: frames are untagged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
    /// The networks of a trunk: frames carry the VLAN ID of theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trunk: Vec<TrunkEntry>,
    /// The network of untagged frames on a trunk. Where it is an entry of `trunk` too, frames with its tag
    /// are taken as well; untagged they leave in both cases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub native: Option<String>,
    /// Frames between two isolated ports are dropped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// Most MACs learnt at this port, over its networks. Absent: only the networks' limits apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub max_macs: Option<u32>,
    /// Filters of what comes in here, and of what leaves.
    #[serde(default, skip_serializing_if = "AclUse::is_none")]
    pub acl: AclUse,
    /// Limits of flooded traffic that comes in here.
    #[serde(default, skip_serializing_if = "Storm::is_unlimited")]
    pub storm: Storm,
    /// What frames that come in here may claim to be.
    #[serde(default, skip_serializing_if = "Security::is_none")]
    pub security: Security,
    /// DHCP servers and routers may be here: guarded ports learn their addresses from leases that come in here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trusted: bool,
    /// The largest packet in bytes, 68 to 65535 (without the Ethernet header, as in `ip link`). Absent: the
    /// netdev's. A tap that the switch creates is given it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 68, maximum = 65535)]
    pub mtu: Option<u32>,
    /// Attach the netdev even though this host's default route or your session goes through it. Without it such a
    /// netdev is refused, and the port waits.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

impl Port {
    /// A port of this name, everything else as it is by default.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The network device's name; none where the port has a socket instead.
    #[must_use]
    pub fn netdev(&self) -> Option<&str> {
        (self.kind != Kind::VhostUser).then(|| self.netdev.as_deref().unwrap_or(&self.name))
    }

    /// The networks whose frames pass by this port; one that is native and of the trunk comes twice.
    pub fn networks(&self) -> impl Iterator<Item = &str> {
        let untagged = self.access.iter().chain(&self.native);
        untagged.chain(self.trunk.iter().map(|e| &e.network)).map(String::as_str)
    }

    /// Frames of `network` pass by this port.
    #[must_use]
    pub fn carries(&self, network: &str) -> bool {
        self.networks().any(|n| n == network)
    }
}

/// How frames move between a port and the switch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The best that the existing netdev can have.
    #[default]
    Auto,
    /// AF_XDP on an existing netdev.
    Xdp,
    /// A tap that the switch creates or opens; it holds the file descriptor.
    Tap,
    /// AF_PACKET with virtio-net headers on an existing netdev: keeps GSO.
    Packet,
    /// A guest's virtio-net rings in shared memory, over a Unix socket.
    VhostUser,
}

impl Kind {
    /// The word in files and commands.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Xdp => "xdp",
            Self::Tap => "tap",
            Self::Packet => "packet",
            Self::VhostUser => "vhost-user",
        }
    }

    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "xdp" => Ok(Self::Xdp),
            "tap" => Ok(Self::Tap),
            "packet" => Ok(Self::Packet),
            "vhost-user" => Ok(Self::VhostUser),
            _ => Err(format!("{text:?} is not a kind of port; use auto, xdp, tap, packet or vhost-user")),
        }
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        value::text::deserialize(deserializer)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Who listens on the socket of a port of kind `vhost-user`; the other connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The switch listens, the guest's front end connects.
    #[default]
    Server,
    /// The guest's front end listens, the switch connects, and again whenever it is lost.
    Client,
}

impl Role {
    /// The word in files and commands.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }

    fn is_server(&self) -> bool {
        *self == Self::Server
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "server" => Ok(Self::Server),
            "client" => Ok(Self::Client),
            _ => Err(format!("{text:?} is not a role; use server or client")),
        }
    }
}

impl<'de> Deserialize<'de> for Role {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        value::text::deserialize(deserializer)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Limits of flooded traffic in packets per second; an absent one is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Storm {
    /// Frames to ff:ff:ff:ff:ff:ff.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<Pps>,
    /// Frames to other group addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multicast: Option<Pps>,
    /// Frames to a MAC that is not in the FDB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<Pps>,
}

impl Storm {
    /// No limit at all.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }
}

/// A static entry of the FDB: never ages, never moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StaticEntry {
    /// The network.
    pub network: String,
    /// The address: individual, not zero.
    #[serde(with = "value::text")]
    #[schema(value_type = String, example = "02:00:00:00:00:11")]
    pub mac: Mac,
    /// Where it is: a port that carries the network...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// ...or a peer of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "192.0.2.2")]
    pub vtep: Option<IpAddr>,
}

/// A host of a lab: a network namespace with a veth into the switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Unique among hosts; 1 to 32 letters, digits, `.`, `_`, `-`, the first a letter or a digit.
    pub name: String,
    /// The port that its veth is the netdev of.
    pub port: String,
    /// Addresses of its interface.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub address: Vec<Cidr>,
    /// A shell command that runs in it as long as the lab is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}
