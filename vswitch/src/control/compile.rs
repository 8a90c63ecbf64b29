//! Desired state and the state of devices -> the snapshot that workers read.

use std::collections::HashMap;
use std::sync::Arc;

use vswitch_api::Topology;
use vswitch_api::topology;
use vswitch_dataplane::counters::NetworkCounters;
use vswitch_dataplane::{
    Attachment, Fdb, NetId, Network, Port, PortCounters, Snapshot, Storm, Trunk, TrunkEntry,
};
use vswitch_io::Facts;
use vswitch_wire::{Caps, Vid};

use super::ids::Ids;
use super::tenant::Tenants;

/// Bytes of an Ethernet header, which an MTU does not count.
const ETHERNET_HEADER: u32 = 14;

/// What a snapshot needs to know of a port beyond its configuration.
pub(super) struct PortInput<'a> {
    pub(super) config: &'a topology::Port,
    pub(super) counters: Arc<[PortCounters]>,
    /// `None` while the port waits for its netdev.
    pub(super) device: Option<DeviceInput<'a>>,
    /// Interface index of its netdev, where frames may pass in the kernel.
    pub(super) shortcut_ifindex: Option<u32>,
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

/// Compiles a checked topology. Every network and port of it has a number.
pub(super) fn snapshot<'a>(
    desired: &Topology,
    ports: impl Iterator<Item = (u16, PortInput<'a>)>,
    port_ids: &Ids,
    net_ids: &Ids,
    tenants: &Tenants,
    net_counters: impl Fn(&str) -> Arc<[NetworkCounters]>,
    fdb: &Arc<Fdb>,
) -> Snapshot {
    let mut networks = vec![None; net_ids.span()];
    let mut known = HashMap::with_capacity(desired.network.len());
    let tenants = tenants.compile(desired);
    for network in &desired.network {
        let Some(id) = net_ids.get(&network.name) else { continue };
        known.insert(network.name.as_str(), (NetId(id), network.vlan));
        let owner = network.tenant.as_deref().and_then(|name| tenants.get(name).copied());
        let compiled = Network::new(network.max_macs, network.ageing, net_counters(&network.name));
        networks[usize::from(id)] = Some(compiled.owned_by(owner.unwrap_or_default()));
    }
    let mut compiled = vec![None; port_ids.span()];
    for (id, input) in ports {
        compiled[usize::from(id)] = Some(port(input, &known));
    }
    Snapshot::new(compiled, networks, Arc::clone(fdb))
}

/// A network's number, and its own VLAN ID, by its name.
type Known<'a> = HashMap<&'a str, (NetId, Option<Vid>)>;

fn port(input: PortInput<'_>, networks: &Known<'_>) -> Port {
    let config = input.config;
    let device = input.device;
    // A port that waits takes no frame; the usual MTU is for `trace` alone.
    let mtu = device.as_ref().map_or(1500, |d| effective_mtu(config, d));
    Port {
        attachment: attachment(config, networks),
        isolated: config.isolated,
        up: device.as_ref().is_some_and(|d| d.up),
        max_frame: mtu + ETHERNET_HEADER,
        caps: device.as_ref().map_or(Caps::NONE, |d| d.facts.caps),
        shortcut_ifindex: input.shortcut_ifindex,
        max_macs: config.max_macs.unwrap_or(u32::MAX),
        storm: Storm {
            broadcast: config.storm.broadcast.map(|r| r.0),
            multicast: config.storm.multicast.map(|r| r.0),
            unknown: config.storm.unknown.map(|r| r.0),
        },
        counters: input.counters,
    }
}

fn attachment(config: &topology::Port, networks: &Known<'_>) -> Attachment {
    let id = |name: &str| networks.get(name).map(|&(id, _)| id);
    if let Some(network) = config.access.as_deref().and_then(id) {
        return Attachment::Access(network);
    }
    let native = config.native.as_deref().and_then(id);
    let entry = |entry: &topology::TrunkEntry| {
        let &(network, own) = networks.get(entry.network.as_str())?;
        Some(TrunkEntry { vid: entry.vlan.or(own)?, network })
    };
    let entries: Vec<TrunkEntry> = config.trunk.iter().filter_map(entry).collect();
    if entries.is_empty() && native.is_none() {
        return Attachment::None;
    }
    Attachment::Trunk(Arc::new(Trunk::new(&entries, native)))
}
