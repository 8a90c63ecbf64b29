//! Tunnels: the underlay as a network that no user sees, and a port without a device for each other VTEP.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use vswitch_api::Topology;
use vswitch_api::topology::Underlay;
use vswitch_dataplane::tunnel::{self, Outer, Outgoing};
use vswitch_dataplane::{Attachment, NetId, Port, PortCounters, PortId, Storm, TrunkEntry, Tunnel};
use vswitch_wire::{Caps, Mac, Vni};

use super::compile::{self, ETHERNET_HEADER};
use super::ids::Ids;
use super::report::Totals;
use super::stale::Stale;

/// What the underlay's network is called inside. No user's name has brackets.
pub(super) const NETWORK: &str = "(underlay)";

/// What the port that stands for a peer is called inside. No user's name has a space.
pub(super) fn port_name(peer: IpAddr) -> String {
    format!("vtep {peer}")
}

/// The peer whose port is called so.
pub(super) fn peer_of(port_name: &str) -> Option<IpAddr> {
    port_name.strip_prefix("vtep ")?.parse().ok()
}

/// The VTEPs that are peers of any network, where there is an underlay.
fn peers_of(topology: &Topology) -> BTreeSet<IpAddr> {
    let networks = topology.network.iter().filter(|_| topology.underlay.is_some());
    networks.flat_map(|network| network.peers.iter().copied()).collect()
}

/// The peers of all networks.
#[derive(Default)]
pub(super) struct Overlay {
    peers: BTreeMap<IpAddr, Arc<[PortCounters]>>,
    /// The MACs of next hops, where they are known.
    hops: BTreeMap<IpAddr, Mac>,
}

/// The underlay's port, as far as tunnels depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uplink {
    /// Its number.
    pub(super) port: PortId,
    /// The VTEP's MAC.
    pub(super) mac: Mac,
    /// It is up.
    pub(super) up: bool,
    /// Its MTU in bytes; `None` while it waits.
    pub(super) mtu: Option<u32>,
}

impl Uplink {
    /// Bytes of the largest packet that fits into a tunnel, without its Ethernet header.
    pub(super) fn inner_mtu(&self, underlay: &Underlay) -> Option<u32> {
        Some(self.mtu?.saturating_sub(underlay.overhead()))
    }
}

impl Overlay {
    /// Gives every peer of `next` a port's number, and counters.
    pub(super) fn add_peers(&mut self, next: &Topology, port_ids: &mut Ids, workers: usize) {
        for peer in peers_of(next) {
            port_ids.acquire(&port_name(peer));
            self.peers.entry(peer).or_insert_with(|| compile::counters(workers));
        }
    }

    /// What was learnt behind peers that go, or that leave a network, is stale.
    pub(super) fn mark_stale(stale: &mut Stale, old: &Topology, new: &Topology, ports: &Ids, networks: &Ids) {
        let port = |peer: &IpAddr| ports.get(&port_name(*peer)).map(PortId);
        let after = peers_of(new);
        peers_of(old).difference(&after).filter_map(port).for_each(|gone| stale.on_end(gone));
        let now: BTreeMap<&str, &[IpAddr]> =
            new.network.iter().map(|n| (n.name.as_str(), n.peers.as_slice())).collect();
        for before in &old.network {
            let (Some(now), Some(network)) = (now.get(before.name.as_str()), networks.get(&before.name))
            else {
                continue;
            };
            let left = before.peers.iter().filter(|peer| !now.contains(peer)).filter_map(port);
            left.for_each(|port| stale.on_leaving(port, NetId(network)));
        }
    }

    /// Forgets the peers that are none of `desired`, which no worker knows any more. What they counted goes to `retired`.
    pub(super) fn forget_peers(&mut self, desired: &Topology, port_ids: &mut Ids, retired: &mut Totals) {
        let kept = peers_of(desired);
        let gone: Vec<IpAddr> = self.peers.keys().filter(|peer| !kept.contains(peer)).copied().collect();
        for peer in gone {
            if let Some(counters) = self.peers.remove(&peer) {
                retired.add_peer(&counters);
            }
            port_ids.release(&port_name(peer));
        }
    }

    /// Every peer, and what it counted.
    pub(super) fn peers(&self) -> impl Iterator<Item = (IpAddr, &[PortCounters])> {
        self.peers.iter().map(|(peer, counters)| (*peer, &**counters))
    }

    /// Those through whom the peers are reached.
    pub(super) fn next_hops(&self, underlay: &Underlay) -> BTreeSet<IpAddr> {
        self.peers.keys().filter_map(|peer| underlay.next_hop(*peer)).collect()
    }

    /// Where a next hop is, if that is known.
    pub(super) fn next_hop_mac(&self, hop: IpAddr) -> Option<Mac> {
        self.hops.get(&hop).copied()
    }

    /// A next hop is there from now on, or nowhere that is known; true when that is news.
    pub(super) fn set_next_hop(&mut self, hop: IpAddr, mac: Option<Mac>) -> bool {
        let before = match mac {
            Some(mac) => self.hops.insert(hop, mac),
            None => self.hops.remove(&hop),
        };
        before != mac
    }

    /// The ports that stand for the peers of `desired`, with their numbers.
    pub(super) fn ports(
        &self,
        desired: &Topology,
        uplink: &Uplink,
        port_ids: &Ids,
        net_ids: &Ids,
    ) -> Vec<(PortId, IpAddr, Port)> {
        let Some(underlay) = &desired.underlay else { return Vec::new() };
        let mut networks: BTreeMap<IpAddr, Vec<NetId>> = BTreeMap::new();
        for network in desired.network.iter().filter(|network| network.vni.is_some()) {
            let Some(id) = net_ids.get(&network.name) else { continue };
            network.peers.iter().for_each(|peer| networks.entry(*peer).or_default().push(NetId(id)));
        }
        let mtu = uplink.inner_mtu(underlay).unwrap_or_default();
        let port = |(peer, counters): (&IpAddr, &Arc<[PortCounters]>)| {
            let id = PortId(port_ids.get(&port_name(*peer))?);
            let tunnel = Tunnel::new(*peer, networks.remove(peer)?, self.outer(underlay, uplink, *peer));
            let port = Port {
                attachment: Attachment::Tunnel(Arc::new(tunnel)),
                isolated: false,
                up: uplink.up,
                max_frame: mtu + ETHERNET_HEADER,
                caps: Caps::NONE,
                shortcut_ifindex: None,
                max_macs: u32::MAX,
                storm: Storm::default(),
                counters: Arc::clone(counters),
            };
            Some((id, *peer, port))
        };
        self.peers.iter().filter_map(port).collect()
    }

    /// What frames to the peer have in front, if the next hop is known.
    fn outer(&self, underlay: &Underlay, uplink: &Uplink, peer: IpAddr) -> Option<Outer> {
        let next_hop = self.next_hop_mac(underlay.next_hop(peer)?)?;
        Outer::new(&Outgoing {
            source_mac: uplink.mac,
            next_hop,
            source: underlay.address.address,
            destination: peer,
            udp_port: underlay.udp_port,
            ttl: underlay.ttl,
            dscp: underlay.dscp,
            checksum: underlay.udp_checksum,
        })
    }
}

/// What packets of tunnels are known by.
pub(super) fn vtep(
    desired: &Topology,
    uplink: &Uplink,
    peers: &[(IpAddr, PortId)],
    net_ids: &Ids,
) -> Option<tunnel::Underlay> {
    let underlay = desired.underlay.as_ref()?;
    let vnis: Vec<(Vni, NetId)> = (desired.network.iter())
        .filter_map(|network| Some((network.vni?, NetId(net_ids.get(&network.name)?))))
        .collect();
    let own = (uplink.mac, underlay.address.address, underlay.udp_port);
    let at = (NetId(net_ids.get(NETWORK)?), uplink.port);
    Some(tunnel::Underlay::new(at, own, peers, &vnis))
}

/// Adds the underlay to what its port carries otherwise. The check has seen to it that there is room.
pub(super) fn attach(
    underlay: &Underlay,
    network: NetId,
    native: Option<NetId>,
    mut trunk: Vec<TrunkEntry>,
) -> Attachment {
    match underlay.vlan {
        None if trunk.is_empty() => Attachment::Access(network),
        None => Attachment::Trunk(Arc::new(vswitch_dataplane::Trunk::new(&trunk, Some(network)))),
        Some(vid) => {
            trunk.push(TrunkEntry { vid, network });
            Attachment::Trunk(Arc::new(vswitch_dataplane::Trunk::new(&trunk, native)))
        }
    }
}
