//! Tunnel: frames in VXLAN (RFC 7348) that come in by the underlay, and frames that leave in it.
//!
//! The underlay is a network like any other; what makes it one is that [`Underlay`] names it. Each other VTEP has a port
//! of its own, with an [`crate::Attachment::Tunnel`] and no device, so that the FDB, limits and isolation need not know of
//! tunnels. A packet to this switch's VTEP is opened by this step, and the frame in it goes through the pipeline once
//! more, as one that came in by the other VTEP's port.

mod encapsulate;
mod lookup;

use alloc::boxed::Box;
use alloc::format;
use core::net::IpAddr;

use vswitch_wire::checksum::Sum;
use vswitch_wire::classify::{IpVersion, Layers, classify, protocol};
use vswitch_wire::{FrameBuf, Mac, Vni, ecn, ipv4, ipv6, udp, vxlan};

use crate::pipeline::{Effects, Stranger};
use crate::vector::{Context, Vector};
use crate::{Attachment, EgressVlan, NetId, PortId, Reason, Snapshot, Verdict};
pub use encapsulate::{Outer, Outgoing, encapsulate};
use lookup::Lookup;

/// This switch's end of its tunnels: its VTEP.
#[derive(Debug, Clone)]
pub struct Underlay {
    /// The network of the packets that tunnels are made of.
    pub network: NetId,
    /// The port by which they leave.
    pub port: PortId,
    /// The VTEP's MAC...
    pub mac: Mac,
    /// ...and address.
    pub address: IpAddr,
    /// The UDP port that it listens at.
    pub udp_port: u16,
    peers: Lookup<PortId>,
    networks: Lookup<NetId>,
}

/// Another VTEP.
#[derive(Debug, Clone)]
pub struct Tunnel {
    /// Its address.
    pub address: IpAddr,
    /// What frames to it have in front. `None` while the next hop's MAC is not known.
    pub outer: Option<Outer>,
    /// A bit for each network whose frames may come from it and go there.
    networks: Box<[u64]>,
}

impl Underlay {
    /// The VTEP of these peers and networks. A random and secret `seed` keeps strangers from choosing addresses that all fall
    /// into the same place.
    #[must_use]
    pub fn new(
        (network, port): (NetId, PortId),
        (mac, address, udp_port): (Mac, IpAddr, u16),
        peers: &[(IpAddr, PortId)],
        networks: &[(Vni, NetId)],
        seed: [u64; 2],
    ) -> Self {
        let peers = Lookup::new(peers.iter().map(|&(address, port)| (key(address), port)), seed);
        let networks = networks.iter().map(|&(vni, network)| (u128::from(vni.get()), network));
        let networks = Lookup::new(networks, seed);
        Self { network, port, mac, address, udp_port, peers, networks }
    }
}

impl Tunnel {
    /// The VTEP at `address`, which is a peer of `networks`.
    #[must_use]
    pub fn new(address: IpAddr, networks: impl IntoIterator<Item = NetId>, outer: Option<Outer>) -> Self {
        let mut bits = alloc::vec::Vec::new();
        for network in networks {
            let (word, bit) = place(network);
            if bits.len() <= word {
                bits.resize(word + 1, 0);
            }
            bits[word] |= bit;
        }
        Self { address, outer, networks: bits.into_boxed_slice() }
    }

    /// Whether it is a peer of this network.
    #[inline]
    #[must_use]
    pub fn carries(&self, network: NetId) -> bool {
        let (word, bit) = place(network);
        self.networks.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// The networks that it is a peer of.
    pub fn networks(&self) -> impl Iterator<Item = NetId> {
        let bits = |(n, bits): (usize, &u64)| {
            let bits = *bits;
            (0..64).filter(move |bit| bits >> bit & 1 != 0).map(move |bit| NetId((n * 64 + bit) as u16))
        };
        self.networks.iter().enumerate().flat_map(bits)
    }
}

/// The tunnel to the VTEP that the port stands for.
#[inline]
#[must_use]
pub fn of(snapshot: &Snapshot, peer: PortId) -> Option<&Tunnel> {
    match &snapshot.port(peer)?.attachment {
        Attachment::Tunnel(tunnel) => Some(tunnel),
        _ => None,
    }
}

const fn place(network: NetId) -> (usize, u64) {
    (network.index() / 64, 1 << (network.index() % 64))
}

/// Both families in one space, as RFC 4291 section 2.5.5.2 does it.
#[inline]
const fn key(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

pub(crate) fn run<F: FrameBuf>(cx: &Context<'_>, vector: &mut Vector<'_, F>, effects: &mut impl Effects) {
    let Some(underlay) = cx.snapshot.underlay() else { return };
    if cx.port.egress_vlan(underlay.network) == EgressVlan::NotMember {
        return;
    }
    for (frame, slot) in vector.undecided() {
        if slot.network != Some(underlay.network) || slot.destination != underlay.mac {
            continue;
        }
        match open(cx.snapshot, underlay, frame, effects) {
            Ok(None) => {}
            Ok(Some((network, peer))) => {
                slot.verdict = Verdict::Decapsulated { network, peer };
                effects.say("tunnel", || {
                    format!("in VXLAN from {{port {}}}, of {{network {}}}: taken out", peer.0, network.0)
                });
            }
            Err(reason) => slot.drop("tunnel", reason, effects),
        }
    }
}

/// Takes the frame out of a packet to the VTEP; `None` for packets that are not UDP to its address.
#[inline]
fn open<F: FrameBuf>(
    snapshot: &Snapshot,
    underlay: &Underlay,
    frame: &mut F,
    effects: &mut impl Effects,
) -> Result<Option<(NetId, PortId)>, Reason> {
    let bytes = frame.bytes();
    let Ok(layers) = classify(bytes) else { return Ok(None) };
    let Some(outer) = addressed(underlay, bytes, &layers)? else { return Ok(None) };
    let datagram = bytes.get(layers.l4..layers.end).unwrap_or_default();
    let header = udp::Header::new_checked(datagram).map_err(|_| Reason::VxlanBadHeader)?;
    if header.destination_port() != underlay.udp_port {
        return Err(Reason::VxlanUdpPort);
    }
    let payload = datagram.get(udp::HEADER_LEN..header.len()).unwrap_or_default();
    let vni = vxlan::vni(payload).map_err(|_| Reason::VxlanBadHeader)?;
    let network = underlay.networks.get(u128::from(vni.get())).ok_or(Reason::VxlanUnknownVni)?;
    let is_of_network =
        |peer: &PortId| snapshot.port(*peer).is_some_and(|p| p.egress_vlan(network) != EgressVlan::NotMember);
    let Some(peer) = underlay.peers.get(key(outer.source)).filter(is_of_network) else {
        if snapshot.network(network).is_some_and(|n| n.any_peer) {
            effects.meet(Stranger { address: outer.source, network });
        }
        return Err(Reason::VxlanUnknownPeer);
    };
    let start = layers.l4 + udp::HEADER_LEN + vxlan::HEADER_LEN;
    let end = layers.l4 + header.len();
    take_out(frame, start, end)?;
    ecn::decapsulate(outer.class, frame.bytes_mut()).map_err(|_| Reason::VxlanCongested)?;
    Ok(Some((network, peer)))
}

/// What is wanted of an outer IP header.
struct OuterIp {
    source: IpAddr,
    /// TOS or traffic class.
    class: u8,
}

/// The header of a whole UDP packet to the VTEP's address.
#[inline]
fn addressed(underlay: &Underlay, bytes: &[u8], layers: &Layers) -> Result<Option<OuterIp>, Reason> {
    let packet = bytes.get(layers.l3..).unwrap_or_default();
    let (source, destination, class) = match layers.version {
        IpVersion::V4 => {
            let Ok(header) = ipv4::Header::new_checked(packet) else { return Ok(None) };
            (IpAddr::V4(header.source()), IpAddr::V4(header.destination()), packet.get(1).copied())
        }
        IpVersion::V6 => {
            let Ok(header) = ipv6::Header::new_checked(packet) else { return Ok(None) };
            let class = packet.first_chunk().map(|word| (u16::from_be_bytes(*word) >> 4) as u8);
            (IpAddr::V6(header.source()), IpAddr::V6(header.destination()), class)
        }
    };
    if destination != underlay.address || layers.protocol != protocol::UDP {
        return Ok(None);
    }
    if layers.fragment {
        return Err(Reason::VxlanFragment);
    }
    // RFC 1122 section 3.2.1.2. A header in IPv6 has no checksum.
    let header = bytes.get(layers.l3..layers.l4).unwrap_or_default();
    if layers.version == IpVersion::V4 && Sum::of(header).checksum() != 0 {
        return Err(Reason::VxlanBadHeader);
    }
    Ok(Some(OuterIp { source, class: class.unwrap_or(0) }))
}

/// Leaves of a frame what is between `start` and `end`. What was left to do with the outer headers is void; what is left
/// to do with the inner ones remains.
#[inline]
fn take_out<F: FrameBuf>(frame: &mut F, start: usize, end: usize) -> Result<(), Reason> {
    frame.truncate(end);
    frame.shrink_front(start);
    let meta = frame.meta_mut();
    meta.tag = None;
    let Some(csum) = meta.offload.csum else { return Ok(()) };
    if usize::from(csum.start) >= start {
        meta.offload.shift_back(start as u16);
    } else if meta.offload.gso.is_some() {
        // Several packets of the tunnel in one frame (USO): nobody who makes tunnels does that.
        return Err(Reason::BadOffload);
    } else {
        meta.offload.csum = None;
    }
    Ok(())
}
