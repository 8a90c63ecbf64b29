//! The immutable forwarding state that workers read: one per configuration change, compiled by control.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use vswitch_wire::{Caps, Vid, Vni};

use crate::acl::Acls;
use crate::counters::NetworkCounters;
use crate::{Fdb, NetId, PortCounters, PortId, Reason, Security, TenantId, Tunnel, Underlay};

/// One consistent state of the switch.
#[derive(Debug)]
pub struct Snapshot {
    ports: Vec<Option<Port>>,
    networks: Vec<Option<Network>>,
    /// A network has a list of rules.
    filters_networks: bool,
    tenants: Tenants,
    fdb: Arc<Fdb>,
    underlay: Option<Underlay>,
    /// Some port learns its addresses from DHCP.
    learns: bool,
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
    /// What may pass.
    pub acl: Acls,
    /// What its frames may claim to be; `None`: anything.
    pub security: Option<Arc<Security>>,
    /// What DHCP servers and routers say may come in by it, however it is guarded.
    pub trusted: bool,
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
    /// Another VTEP: untagged frames, in a tunnel. No device is behind such a port; it stands in the FDB for the way there.
    Tunnel(Arc<Tunnel>),
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
    /// One of them learns its addresses from DHCP.
    learns: bool,
    /// Most MACs learnt in this network.
    pub max_macs: u32,
    /// Whose it is.
    pub tenant: Tenant,
    /// How long an unused entry of the FDB lives.
    pub ageing: Duration,
    /// What its frames have in tunnels.
    pub vni: Option<Vni>,
    /// Sources of frames out of tunnels are learnt.
    pub learns_remote: bool,
    /// VTEPs that are no peers yet are to become some ([`crate::Pipeline::take_stranger`]).
    pub any_peer: bool,
    /// What may pass, by whatever port.
    pub acl: Acls,
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
    /// A port that is up and takes finished frames of `max_frame` bytes; without limits and filters.
    #[must_use]
    pub fn new(attachment: Attachment, max_frame: u32, counters: Arc<[PortCounters]>) -> Self {
        Self {
            attachment,
            isolated: false,
            up: true,
            max_frame,
            caps: Caps::NONE,
            shortcut_ifindex: None,
            max_macs: u32::MAX,
            storm: Storm::default(),
            acl: Acls::default(),
            security: None,
            trusted: false,
            counters,
        }
    }

    /// How frames of `network` leave by this port.
    #[inline]
    #[must_use]
    pub fn egress_vlan(&self, network: NetId) -> EgressVlan {
        match &self.attachment {
            Attachment::Access(own) if *own == network => EgressVlan::Untagged,
            Attachment::Trunk(trunk) => trunk.by_net.get(network.index()).copied().unwrap_or_default(),
            Attachment::Tunnel(tunnel) if tunnel.carries(network) => EgressVlan::Untagged,
            Attachment::Access(_) | Attachment::Tunnel(_) | Attachment::None => EgressVlan::NotMember,
        }
    }

    /// Whether frames from this port may leave by `to`, as far as the two ports alone say.
    ///
    /// # Errors
    /// Why not: both are isolated, or VTEPs, which reach each other without this one.
    #[inline]
    pub fn may_reach(&self, to: &Self) -> Result<(), Reason> {
        let is_tunnel = |port: &Self| matches!(port.attachment, Attachment::Tunnel(_));
        if self.isolated && to.isolated {
            Err(Reason::Isolated)
        } else if is_tunnel(self) && is_tunnel(to) {
            Err(Reason::SplitHorizon)
        } else {
            Ok(())
        }
    }

    /// Every network whose frames pass by it, once.
    fn for_each_network(&self, mut is_of: impl FnMut(NetId)) {
        match &self.attachment {
            Attachment::None => {}
            Attachment::Access(network) => is_of(*network),
            Attachment::Trunk(trunk) => {
                let members =
                    trunk.by_net.iter().enumerate().filter(|(_, vlan)| **vlan != EgressVlan::NotMember);
                members.for_each(|(n, _)| is_of(NetId(n as u16)));
            }
            Attachment::Tunnel(tunnel) => tunnel.networks().for_each(is_of),
        }
    }

    /// It learns its addresses from DHCP.
    #[must_use]
    pub fn learns(&self) -> bool {
        self.security.as_ref().is_some_and(|security| security.learns())
    }
}

impl Network {
    /// A network with no member yet, which [`Snapshot::new`] fills in, and neither tenant nor filter.
    #[must_use]
    pub fn new(max_macs: u32, ageing: Duration, counters: Arc<[NetworkCounters]>) -> Self {
        Self {
            members: Box::default(),
            max_macs,
            tenant: Tenant::default(),
            ageing,
            vni: None,
            learns_remote: true,
            any_peer: false,
            acl: Acls::default(),
            learns: false,
            counters,
        }
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

    /// One of its ports learns its addresses from DHCP.
    #[inline]
    #[must_use]
    pub fn learns(&self) -> bool {
        self.learns
    }
}

impl Snapshot {
    /// Compiles the membership of every network. `ports` and `networks` are indexed by their IDs.
    #[must_use]
    pub fn new(ports: Vec<Option<Port>>, mut networks: Vec<Option<Network>>, fdb: Arc<Fdb>) -> Self {
        let mut members = alloc::vec![Vec::new(); networks.len()];
        for (p, port) in ports.iter().enumerate() {
            let Some(port) = port else { continue };
            port.for_each_network(|network| {
                if let Some(members) = members.get_mut(network.index()) {
                    members.push(PortId(p as u16));
                }
            });
        }
        for (network, members) in networks.iter_mut().zip(members) {
            if let Some(network) = network {
                network.learns =
                    members.iter().any(|id| ports[id.index()].as_ref().is_some_and(Port::learns));
                network.members = members.into_boxed_slice();
            }
        }
        let learns = ports.iter().flatten().any(Port::learns);
        let filters = |n: &Network| n.acl.ingress.is_some() || n.acl.egress.is_some();
        let filters_networks = networks.iter().flatten().any(filters);
        let tenants = Tenants::of(&networks);
        Self { ports, networks, filters_networks, learns, tenants, fdb, underlay: None }
    }

    /// The same switch with tunnels.
    #[must_use]
    pub fn with_underlay(self, underlay: Option<Underlay>) -> Self {
        Self { underlay, ..self }
    }

    /// This switch's end of its tunnels.
    #[inline]
    #[must_use]
    pub fn underlay(&self) -> Option<&Underlay> {
        self.underlay.as_ref()
    }

    /// Some port learns its addresses from DHCP, so what servers say is to be heard.
    #[inline]
    #[must_use]
    pub fn learns(&self) -> bool {
        self.learns
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

    /// Whether a network has a list of rules.
    #[inline]
    #[must_use]
    pub fn filters_networks(&self) -> bool {
        self.filters_networks
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
    /// `ingress`, that it may reach.
    pub fn flood(&self, network: NetId, ingress: PortId) -> impl Iterator<Item = PortId> {
        let members = self.network(network).map_or(&[][..], Network::members);
        let from = self.port(ingress);
        let is_reached = move |to: &Port| to.up && from.is_none_or(|from| from.may_reach(to).is_ok());
        members.iter().copied().filter(move |&id| id != ingress && self.port(id).is_some_and(is_reached))
    }
}
