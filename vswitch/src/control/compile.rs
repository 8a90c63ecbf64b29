//! Desired state and the state of devices -> the snapshot that workers read.

use std::collections::HashMap;
use std::sync::Arc;

use vswitch_api::Topology;
use vswitch_api::topology;
use vswitch_dataplane::counters::NetworkCounters;
use vswitch_dataplane::{
    Attachment, Fdb, Learnt, NetId, Network, Port, PortCounters, PortId, Security, Snapshot, Storm, Trunk,
    TrunkEntry,
};
use vswitch_io::Facts;
use vswitch_wire::{Caps, Vid};

use super::acl::Filters;
use super::ids::Ids;
use super::overlay::{self, Overlay, Uplink};
use super::tenant::Tenants;

/// Bytes of an Ethernet header, which an MTU does not count.
pub(super) const ETHERNET_HEADER: u32 = 14;

/// Most MACs that are learnt of the underlay: nobody is looked up there but the VTEP itself.
const UNDERLAY_MACS: u32 = 256;

/// What a snapshot needs to know of a port beyond its configuration.
pub(super) struct PortInput<'a> {
    pub(super) config: &'a topology::Port,
    pub(super) counters: Arc<[PortCounters]>,
    /// `None` while the port waits for its netdev.
    pub(super) device: Option<DeviceInput<'a>>,
    /// Interface index of its netdev, where frames may pass in the kernel.
    pub(super) shortcut_ifindex: Option<u32>,
    /// Addresses that it has learnt.
    pub(super) learnt: Vec<Learnt>,
}

/// The device of an attached port.
pub(super) struct DeviceInput<'a> {
    pub(super) facts: &'a Facts,
    pub(super) up: bool,
    /// The netdev's MTU in bytes.
    pub(super) mtu: u32,
}

/// The MTU that a port enforces, in bytes: what was asked for, or the netdev's, and never more than netdev and driver
/// can carry. A tap's netdev is given what was asked for; where it is out of sight, its own MTU is not known. Nor is a
/// guest's.
pub(super) fn effective_mtu(config: &topology::Port, device: &DeviceInput<'_>) -> u32 {
    use vswitch_io::Kind;
    let mtu = match config.mtu {
        Some(mtu) if matches!(device.facts.kind, Kind::Tap | Kind::VhostUser) => mtu,
        Some(mtu) => mtu.min(device.mtu),
        None => device.mtu,
    };
    mtu.min(device.facts.mtu_limit)
}

/// One counter block for each worker.
pub(super) fn counters<T: Default>(workers: usize) -> Arc<[T]> {
    (0..workers).map(|_| T::default()).collect()
}

/// What a snapshot is made of beside the topology and its ports.
pub(super) struct Parts<'a> {
    /// The switch's own port, where there is one.
    pub(super) own: Option<(PortId, Port)>,
    pub(super) port_ids: &'a Ids,
    pub(super) net_ids: &'a Ids,
    pub(super) acls: &'a Filters,
    pub(super) tenants: &'a Tenants,
    pub(super) tunnels: Option<(&'a Overlay, &'a Uplink)>,
}

/// Compiles a checked topology. Every network and port of it has a number. The `pseudo` ports are in no topology, and
/// compiled already.
pub(super) fn snapshot<'a>(
    desired: &Topology,
    ports: impl Iterator<Item = (u16, PortInput<'a>)>,
    parts: Parts<'_>,
    net_counters: impl Fn(&str) -> Arc<[NetworkCounters]>,
    fdb: &Arc<Fdb>,
) -> Snapshot {
    let Parts { own, port_ids, net_ids, acls, tenants, tunnels } = parts;
    let mut networks = vec![None; net_ids.span()];
    let mut known = HashMap::with_capacity(desired.network.len());
    let tenants = tenants.compile(desired);
    for network in &desired.network {
        let Some(id) = net_ids.get(&network.name) else { continue };
        known.insert(network.name.as_str(), (NetId(id), network.vlan));
        let mut made = Network::new(network.max_macs, network.ageing, net_counters(&network.name));
        (made.vni, made.learns_remote) = (network.vni, network.remote_learning);
        made.any_peer = network.peers_any;
        made.acl = acls.of(&network.acl);
        let owner = network.tenant.as_deref().and_then(|name| tenants.get(name).copied());
        networks[usize::from(id)] = Some(made.owned_by(owner.unwrap_or_default()));
    }
    let underlay = desired.underlay.as_ref().zip(net_ids.get(overlay::NETWORK).map(NetId));
    if let Some((_, id)) = underlay {
        let counters = net_counters(overlay::NETWORK);
        networks[id.index()] = Some(Network::new(UNDERLAY_MACS, topology::AGEING_DEFAULT, counters));
    }
    let mut compiled = vec![None; port_ids.span()];
    for (id, input) in ports {
        compiled[usize::from(id)] = Some(port(input, &known, underlay, acls));
    }
    if let Some((id, port)) = own {
        if compiled.len() <= id.index() {
            compiled.resize_with(id.index() + 1, || None);
        }
        compiled[id.index()] = Some(port);
    }
    let Some((overlay, uplink)) = tunnels else {
        return Snapshot::new(compiled, networks, Arc::clone(fdb));
    };
    let mut peers = Vec::new();
    for (id, peer, port) in overlay.ports(desired, uplink, port_ids, net_ids) {
        compiled[id.index()] = Some(port);
        peers.push((peer, id));
    }
    let vtep = overlay::vtep(desired, uplink, &peers, net_ids, overlay.seed);
    Snapshot::new(compiled, networks, Arc::clone(fdb)).with_underlay(vtep)
}

/// A network's number, and its own VLAN ID, by its name.
type Known<'a> = HashMap<&'a str, (NetId, Option<Vid>)>;

/// The underlay's configuration, and its network.
type UnderlayInput<'a> = Option<(&'a topology::Underlay, NetId)>;

fn port(input: PortInput<'_>, networks: &Known<'_>, underlay: UnderlayInput<'_>, acls: &Filters) -> Port {
    let config = input.config;
    let device = input.device;
    // A port that waits takes no frame; the usual MTU is for `trace` alone.
    let mtu = device.as_ref().map_or(1500, |d| effective_mtu(config, d));
    Port {
        attachment: attachment(config, networks, underlay.filter(|(u, _)| has_tags(u, device.as_ref()))),
        isolated: config.isolated,
        up: device.as_ref().is_some_and(|d| d.up),
        max_frame: mtu + ETHERNET_HEADER,
        caps: device.as_ref().map_or(Caps::NONE, |d| d.facts.caps),
        shortcut_ifindex: input.shortcut_ifindex,
        max_macs: config.max_macs.unwrap_or(u32::MAX),
        acl: acls.of(&config.acl),
        storm: Storm {
            broadcast: config.storm.broadcast.map(|r| r.0),
            multicast: config.storm.multicast.map(|r| r.0),
            unknown: config.storm.unknown.map(|r| r.0),
        },
        security: security(&config.security, input.learnt),
        trusted: config.trusted,
        counters: input.counters,
    }
}

/// Whether the underlay can be told from others by its tag, where it has one.
pub(super) fn has_tags(underlay: &topology::Underlay, device: Option<&DeviceInput<'_>>) -> bool {
    underlay.vlan.is_none() || device.is_none_or(|d| d.facts.vlan.is_ok())
}

fn security(config: &topology::Security, learnt: Vec<Learnt>) -> Option<Arc<Security>> {
    let prefixes: Vec<_> = config.ip.iter().map(|ip| (ip.address(), ip.len())).collect();
    Security::new(&config.mac, &prefixes, config.guard, learnt).map(Arc::new)
}

fn attachment(config: &topology::Port, networks: &Known<'_>, underlay: UnderlayInput<'_>) -> Attachment {
    let id = |name: &str| networks.get(name).map(|&(id, _)| id);
    let access = config.access.as_deref().and_then(id);
    let underlay = underlay.filter(|(underlay, _)| underlay.port == config.name);
    if let (Some(network), None) = (access, underlay) {
        return Attachment::Access(network);
    }
    let native = config.native.as_deref().and_then(id);
    let entry = |entry: &topology::TrunkEntry| {
        let &(network, own) = networks.get(entry.network.as_str())?;
        Some(TrunkEntry { vid: entry.vlan.or(own)?, network })
    };
    let entries: Vec<TrunkEntry> = config.trunk.iter().filter_map(entry).collect();
    if let Some((underlay, network)) = underlay {
        return overlay::attach(underlay, network, access.or(native), entries);
    }
    if entries.is_empty() && native.is_none() {
        return Attachment::None;
    }
    Attachment::Trunk(Arc::new(Trunk::new(&entries, native)))
}
