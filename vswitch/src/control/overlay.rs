//! Tunnels: the underlay as a network that no user sees, and a port without a device for each other VTEP.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use vswitch_api::Topology;
use vswitch_api::topology::{PEERS_MAX, Underlay};
use vswitch_dataplane::tunnel::{self, Outer, Outgoing};
use vswitch_dataplane::{Attachment, NetId, Port, PortCounters, PortId, TrunkEntry, Tunnel};
use vswitch_wire::{Instant, Mac, Vni};

use super::compile::{self, ETHERNET_HEADER};
use super::ids::Ids;
use super::report::Totals;
use super::stale::Stale;
use crate::host::NextHops;

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

/// A VTEP as a peer of a network by name, which nobody configured: it sent a frame.
type Guest = (IpAddr, String);

/// Which networks each peer is one of, ascending.
type Memberships = BTreeMap<IpAddr, Vec<NetId>>;

/// The least time between two snapshots for the sake of next hops.
const PACE: Duration = Duration::from_millis(50);

/// Seconds that a guest stays with nothing known behind it.
const GUEST_IDLE: u32 = 60;

/// The most peers of one network that nobody configured.
const GUESTS_MAX: usize = 256;

/// What next hops are resolved by: where one of these differs, nothing is known of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    underlay: Underlay,
    mac: Mac,
}

/// The peers of all networks.
#[derive(Default)]
pub(super) struct Overlay {
    /// What no stranger can guess: which addresses are looked for in the same place.
    pub(super) seed: [u64; 2],
    place: Option<Place>,
    /// How often the place has changed.
    pub(super) generation: u64,
    /// What is known of next hops is not in the published snapshot.
    is_news: bool,
    published_at: Instant,
    peers: BTreeMap<IpAddr, Arc<[PortCounters]>>,
    /// The networks of each, ascending.
    networks: Memberships,
    /// The MACs of next hops, where they are known.
    hops: BTreeMap<IpAddr, Mac>,
    /// What is told to the station on the underlay, and by it.
    pub(super) shared: Rc<RefCell<NextHops>>,
    /// Where the FDB has the VTEP.
    pub(super) own_entry: Option<(NetId, Mac)>,
    /// Those that became peers by themselves, and how long nothing was known behind each, in seconds.
    guests: BTreeMap<Guest, u32>,
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
    /// No peers. `seed` is one that nobody can guess.
    pub(super) fn new(seed: [u64; 2]) -> Self {
        Self { seed, ..Self::default() }
    }

    /// The networks of each peer, where there is an underlay.
    fn memberships(&self, topology: &Topology, net_ids: &Ids) -> Memberships {
        let mut all = Memberships::new();
        for network in topology.network.iter().filter(|_| topology.underlay.is_some()) {
            let Some(id) = net_ids.get(&network.name) else { continue };
            network.peers.iter().for_each(|peer| all.entry(*peer).or_default().push(NetId(id)));
        }
        for (peer, network) in self.guests.keys() {
            all.entry(*peer).or_default().extend(net_ids.get(network).map(NetId));
        }
        all.values_mut().for_each(|networks| networks.sort_unstable());
        all
    }

    /// Whether the VTEP may become a peer of the network without being asked.
    fn is_welcome(topology: &Topology, (peer, network): &Guest) -> bool {
        let network = topology.network.iter().find(|n| n.name == *network);
        network.is_some_and(|n| n.peers_any && n.vni.is_some() && !n.peers.contains(peer))
            && topology.underlay.as_ref().is_some_and(|underlay| underlay.may_reach(*peer))
    }

    /// Takes a VTEP in that nobody configured; false where it is none, or there are too many.
    pub(super) fn admit(&mut self, topology: &Topology, peer: IpAddr, network: &str) -> bool {
        let guest = (peer, network.to_owned());
        let is_known = self.peers.contains_key(&peer);
        let of_network = self.guests.keys().filter(|(_, other)| other == network).count();
        let has_room = of_network < GUESTS_MAX && (is_known || self.peers.len() < PEERS_MAX);
        if !has_room || !Self::is_welcome(topology, &guest) {
            return false;
        }
        self.guests.insert(guest, 0).is_none()
    }

    /// A second has passed: guests with nothing behind them for long leave; true when one did. `learnt` says how many MACs are
    /// known at a port.
    pub(super) fn age_guests(&mut self, port_ids: &Ids, learnt: impl Fn(PortId) -> u32) -> bool {
        let port = |peer: &IpAddr| port_ids.get(&port_name(*peer)).map(PortId);
        let before = self.guests.len();
        self.guests.retain(|(peer, _), idle| {
            let is_used = port(peer).is_some_and(|port| learnt(port) > 0);
            *idle = if is_used { 0 } else { *idle + 1 };
            *idle <= GUEST_IDLE
        });
        self.guests.len() < before
    }

    /// Gives every peer of `next`, whose networks have numbers, a port's number and counters.
    pub(super) fn add_peers(&mut self, next: &Topology, port_ids: &mut Ids, net_ids: &Ids, workers: usize) {
        for peer in self.memberships(next, net_ids).into_keys() {
            port_ids.acquire(&port_name(peer));
            self.peers.entry(peer).or_insert_with(|| compile::counters(workers));
        }
    }

    /// The topology becomes `new`, or a guest came. What was learnt behind peers that go, or that leave a network, is stale.
    pub(super) fn on_change(&mut self, stale: &mut Stale, new: &Topology, ports: &Ids, networks: &Ids) {
        self.guests.retain(|guest, _| Self::is_welcome(new, guest));
        let after = self.memberships(new, networks);
        for (peer, before) in std::mem::take(&mut self.networks) {
            let Some(port) = ports.get(&port_name(peer)).map(PortId) else { continue };
            let Some(now) = after.get(&peer) else {
                stale.on_end(port);
                continue;
            };
            let left = before.iter().filter(|network| now.binary_search(network).is_err());
            left.for_each(|network| stale.on_leaving(port, *network));
        }
        self.networks = after;
    }

    /// Forgets the peers that are none of any network, which no worker knows any more. What they counted goes to `retired`.
    pub(super) fn forget_peers(&mut self, port_ids: &mut Ids, retired: &mut Totals) {
        let gone: Vec<IpAddr> =
            self.peers.keys().filter(|peer| !self.networks.contains_key(peer)).copied().collect();
        for peer in gone {
            if let Some(counters) = self.peers.remove(&peer) {
                retired.add_peer(&counters);
            }
            port_ids.release(&port_name(peer));
        }
    }

    /// How many networks the peer is one of.
    pub(super) fn networks_of(&self, peer: IpAddr) -> usize {
        self.networks.get(&peer).map_or(0, Vec::len)
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

    /// The underlay is there from now on. Where it has moved, nothing is known of next hops any more.
    pub(super) fn move_to(&mut self, at: Option<(&Underlay, Mac)>) {
        let place = at.map(|(underlay, mac)| Place { underlay: underlay.clone(), mac });
        if self.place != place {
            self.place = place;
            self.generation += 1;
            self.hops.clear();
        }
    }

    /// Takes in what the station on the underlay says of next hops; true when a snapshot is due. One makes room for many:
    /// the underlay's stations do not say how often there is a new one.
    pub(super) fn take_news(&mut self, now: Instant) -> bool {
        let news = self.shared.borrow_mut().take_news();
        for (hop, mac) in news {
            self.is_news |= self.set_next_hop(hop, mac);
        }
        let is_due = self.is_news && now.since(self.published_at) >= PACE;
        if is_due {
            self.is_news = false;
            self.published_at = now;
        }
        is_due
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
        let with_vni: BTreeSet<NetId> = (desired.network.iter().filter(|n| n.vni.is_some()))
            .filter_map(|n| net_ids.get(&n.name).map(NetId))
            .collect();
        let ids =
            |peer: &IpAddr| Some(self.networks.get(peer)?.iter().copied().filter(|id| with_vni.contains(id)));
        let mtu = uplink.inner_mtu(underlay).unwrap_or_default();
        let port = |(peer, counters): (&IpAddr, &Arc<[PortCounters]>)| {
            let id = PortId(port_ids.get(&port_name(*peer))?);
            let tunnel = Tunnel::new(*peer, ids(peer)?, self.outer(underlay, uplink, *peer));
            let attachment = Attachment::Tunnel(Arc::new(tunnel));
            let port = Port::new(attachment, mtu + ETHERNET_HEADER, Arc::clone(counters));
            let port = Port { up: uplink.up, ..port };
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
    seed: [u64; 2],
) -> Option<tunnel::Underlay> {
    let underlay = desired.underlay.as_ref()?;
    let vnis: Vec<(Vni, NetId)> = (desired.network.iter())
        .filter_map(|network| Some((network.vni?, NetId(net_ids.get(&network.name)?))))
        .collect();
    let own = (uplink.mac, underlay.address.address, underlay.udp_port);
    let at = (NetId(net_ids.get(NETWORK)?), uplink.port);
    Some(tunnel::Underlay::new(at, own, peers, &vnis, seed))
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
