//! The immutable forwarding state that workers read: one per configuration change, compiled by control.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use vswitch_wire::{Caps, Vid};

use crate::counters::NetworkCounters;
use crate::{Fdb, NetId, PortCounters, PortId, TenantId};

/// One consistent state of the switch.
#[derive(Debug)]
pub struct Snapshot {
    ports: Vec<Option<Port>>,
    networks: Vec<Option<Network>>,
    tenants: Tenants,
    fdb: Arc<Fdb>,
}

/// A port as the workers see it.
#[derive(Debug, Clone)]
pub struct Port {
    /// Where its frames belong.
    pub attachment: Attachment,
    /// Frames between two isolated ports are dropped.
    pub isolated: bool,
    /// Attached to its device, and the device's link is up.
    pub up: bool,
    /// The longest frame it takes, in bytes from the destination MAC on, without tag and FCS: MTU + 14.
    pub max_frame: u32,
    /// The unfinished work it can send on.
    pub caps: Caps,
    /// Where frames may pass without a worker ([`crate::shortcut`]): the interface index of the port's netdev.
    pub shortcut_ifindex: Option<u32>,
    /// Most MACs learnt at this port, over its networks.
    pub max_macs: u32,
    /// Limits of flooded traffic that comes in by this port.
    pub storm: Storm,
    /// One for each worker, in their order. The same allocation over all snapshots of a port's life.
    pub counters: Arc<[PortCounters]>,
}

/// Limits of flooded traffic, in packets per second; `None` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Storm {
    /// Frames to ff:ff:ff:ff:ff:ff.
    pub broadcast: Option<u32>,
    /// Frames to other group addresses.
    pub multicast: Option<u32>,
    /// Frames to a MAC that is not in the FDB.
    pub unknown: Option<u32>,
}

/// Which network a frame of the port belongs to, and how it looks on the wire there.
#[derive(Debug, Clone)]
pub enum Attachment {
    /// No network: nothing passes.
    None,
    /// Untagged (or priority-tagged) frames belong to the one network, and leave untagged.
    /// An 802.1ad tag is payload.
    Access(NetId),
    /// Tagged frames belong to the network of their VLAN ID, untagged ones to the native network if any.
    Trunk(Arc<Trunk>),
}

/// The VLANs of a trunk.
#[derive(Debug, Clone)]
pub struct Trunk {
    by_vid: Box<[Option<NetId>; 4096]>,
    /// Indexed by network.
    by_net: Box<[EgressVlan]>,
    native: Option<NetId>,
}

/// One network that a trunk carries under a VLAN ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrunkEntry {
    /// The VLAN ID on this trunk.
    pub vid: Vid,
    /// The network it stands for.
    pub network: NetId,
}

/// How a network's frames leave by a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EgressVlan {
    /// The port does not belong to the network.
    #[default]
    NotMember,
    /// Without an 802.1Q tag.
    Untagged,
    /// With this VLAN ID.
    Tagged(Vid),
}

/// A network as the workers see it.
#[derive(Debug, Clone)]
pub struct Network {
    /// Ports that belong to it, ascending.
    members: Box<[PortId]>,
    /// Most MACs learnt in this network.
    pub max_macs: u32,
    /// Whose it is.
    pub tenant: Tenant,
    /// How long an unused entry of the FDB lives.
    pub ageing: Duration,
    /// One for each worker, in their order.
    pub counters: Arc<[NetworkCounters]>,
}

/// Whose a network is, and what holds for all networks of that tenant: each of them says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tenant {
    /// Its number.
    pub id: TenantId,
    /// Most MACs learnt in its networks.
    pub max_macs: u32,
}

impl Default for Tenant {
    /// Of a network without a tenant.
    fn default() -> Self {
        Self { id: TenantId::NOBODY, max_macs: u32::MAX }
    }
}

/// The networks of each tenant.
#[derive(Debug, Default)]
struct Tenants {
    /// By the tenants' numbers; ascending.
    networks: Vec<Vec<NetId>>,
    /// How many of them have a network.
    count: usize,
}

impl Tenants {
    fn of(networks: &[Option<Network>]) -> Self {
        let mut tenants = Self::default();
        for (n, network) in networks.iter().enumerate() {
            let Some(network) = network else { continue };
            let at = network.tenant.id.index();
            if tenants.networks.len() <= at {
                tenants.networks.resize_with(at + 1, Vec::new);
            }
            tenants.count += usize::from(tenants.networks[at].is_empty());
            tenants.networks[at].push(NetId(n as u16));
        }
        tenants
    }
}

impl Trunk {
    /// The trunk that carries `entries`, and untagged frames as `native`. A VLAN ID given twice means the later
    /// network.
    #[must_use]
    pub fn new(entries: &[TrunkEntry], native: Option<NetId>) -> Self {
        let highest = entries.iter().map(|e| e.network).chain(native).map(NetId::index).max();
        let mut by_vid = Box::new([None; 4096]);
        let mut by_net = alloc::vec![EgressVlan::NotMember; highest.map_or(0, |n| n + 1)].into_boxed_slice();
        for entry in entries {
            by_vid[usize::from(entry.vid.get())] = Some(entry.network);
            by_net[entry.network.index()] = EgressVlan::Tagged(entry.vid);
        }
        if let Some(native) = native {
            by_net[native.index()] = EgressVlan::Untagged;
        }
        Self { by_vid, by_net, native }
    }

    /// The network of frames that carry the 12-bit `vid`, other than 0.
    #[inline]
    #[must_use]
    pub fn network_of(&self, vid: u16) -> Option<NetId> {
        self.by_vid[usize::from(vid & 0x0fff)]
    }

    /// The network of untagged and priority-tagged frames.
    #[inline]
    #[must_use]
    pub fn native(&self) -> Option<NetId> {
        self.native
    }
}

impl Port {
    /// How frames of `network` leave by this port.
    #[inline]
    #[must_use]
    pub fn egress_vlan(&self, network: NetId) -> EgressVlan {
        match &self.attachment {
            Attachment::Access(own) if *own == network => EgressVlan::Untagged,
            Attachment::Trunk(trunk) => trunk.by_net.get(network.index()).copied().unwrap_or_default(),
            Attachment::Access(_) | Attachment::None => EgressVlan::NotMember,
        }
    }
}

impl Network {
    /// A network without a tenant, and with no member yet; [`Snapshot::new`] fills them in.
    #[must_use]
    pub fn new(max_macs: u32, ageing: Duration, counters: Arc<[NetworkCounters]>) -> Self {
        Self { members: Box::default(), max_macs, tenant: Tenant::default(), ageing, counters }
    }

    /// The network as one of `tenant`.
    #[must_use]
    pub fn owned_by(self, tenant: Tenant) -> Self {
        Self { tenant, ..self }
    }

    /// Ports that belong to the network, ascending.
    #[must_use]
    pub fn members(&self) -> &[PortId] {
        &self.members
    }
}

impl Snapshot {
    /// Compiles the membership of every network. `ports` and `networks` are indexed by their IDs.
    #[must_use]
    pub fn new(ports: Vec<Option<Port>>, mut networks: Vec<Option<Network>>, fdb: Arc<Fdb>) -> Self {
        for (n, network) in networks.iter_mut().enumerate() {
            let Some(network) = network else { continue };
            let id = NetId(n as u16);
            network.members = ports
                .iter()
                .enumerate()
                .filter(|(_, port)| port.as_ref().is_some_and(|p| p.egress_vlan(id) != EgressVlan::NotMember))
                .map(|(p, _)| PortId(p as u16))
                .collect();
        }
        let tenants = Tenants::of(&networks);
        Self { ports, networks, tenants, fdb }
    }

    /// The port, if there is one of that number.
    #[inline]
    #[must_use]
    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(id.index())?.as_ref()
    }

    /// The network, if there is one of that number.
    #[inline]
    #[must_use]
    pub fn network(&self, id: NetId) -> Option<&Network> {
        self.networks.get(id.index())?.as_ref()
    }

    /// Every port with its number.
    pub fn ports(&self) -> impl Iterator<Item = (PortId, &Port)> {
        self.ports.iter().enumerate().filter_map(|(i, p)| Some((PortId(i as u16), p.as_ref()?)))
    }

    /// Every network with its number.
    pub fn networks(&self) -> impl Iterator<Item = (NetId, &Network)> {
        self.networks.iter().enumerate().filter_map(|(i, n)| Some((NetId(i as u16), n.as_ref()?)))
    }

    /// The networks of a tenant, ascending.
    #[must_use]
    pub fn networks_of(&self, tenant: TenantId) -> &[NetId] {
        self.tenants.networks.get(tenant.index()).map_or(&[], Vec::as_slice)
    }

    /// Every tenant that has a network, with what its networks say of it.
    pub fn tenants(&self) -> impl Iterator<Item = Tenant> {
        let first = self.tenants.networks.iter().filter_map(|networks| networks.first());
        first.filter_map(|&id| Some(self.network(id)?.tenant))
    }

    /// How many tenants have a network.
    #[must_use]
    pub fn tenant_count(&self) -> usize {
        self.tenants.count
    }

    /// The forwarding database, shared by all snapshots.
    #[inline]
    #[must_use]
    pub fn fdb(&self) -> &Fdb {
        &self.fdb
    }

    /// The ports that a frame of `network` from `ingress` is flooded to: members that are up, other than
    /// `ingress`, and not isolated from it.
    pub fn flood(&self, network: NetId, ingress: PortId) -> impl Iterator<Item = PortId> {
        let members = self.network(network).map_or(&[][..], Network::members);
        let isolated = self.port(ingress).is_some_and(|p| p.isolated);
        members.iter().copied().filter(move |&id| {
            id != ingress && self.port(id).is_some_and(|p| p.up && !(isolated && p.isolated))
        })
    }
}
