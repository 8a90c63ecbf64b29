//! Putting a frame into a tunnel.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_wire::checksum::Sum;
use vswitch_wire::classify::protocol;
use vswitch_wire::{Csum, FrameBuf, Mac, Offload, Vni, ecn, ethernet, flow, ipv4, ipv6, udp, vxlan};

use crate::egress;
use crate::{Egress, NetId, PortId, Reason, Snapshot};

/// Bytes of the longest headers: Ethernet, IPv6, UDP and VXLAN.
const HEADERS_MAX: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + udp::HEADER_LEN + vxlan::HEADER_LEN;
/// Sources of tunnels' packets are of the dynamic ports, 49152 to 65535 (RFC 7348 section 5).
const SOURCE_PORTS: u16 = 0xc000;

/// What the packets of a tunnel have in common.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The VTEP's MAC.
    pub source_mac: Mac,
    /// The next hop's.
    pub next_hop: Mac,
    /// The VTEP's address.
    pub source: IpAddr,
    /// The other's, of the same family.
    pub destination: IpAddr,
    /// The UDP port that the other listens at.
    pub udp_port: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// 6 bits.
    pub dscp: u8,
    /// UDP has a checksum over IPv6 (RFC 6935). Over IPv4 it has none (RFC 7348 section 5).
    pub checksum: bool,
}

/// The headers that frames to one VTEP have in front.
#[derive(Debug, Clone)]
pub struct Outer {
    bytes: [u8; HEADERS_MAX],
    len: usize,
    /// Of the IPv4 header, or of the pseudo-header of IPv6's UDP; without what differs by frame.
    sum: Sum,
    checksum: bool,
}

impl Outer {
    /// The headers of these packets. `None` when the addresses are not of one family.
    #[must_use]
    pub fn new(packets: &Outgoing) -> Option<Self> {
        let mut bytes = [0; HEADERS_MAX];
        bytes[..6].copy_from_slice(&packets.next_hop.0);
        bytes[6..12].copy_from_slice(&packets.source_mac.0);
        let l3 = ethernet::HEADER_LEN;
        let (ether_type, l4, sum) = match (packets.source, packets.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = v4(packets, source, destination);
                bytes[l3..l3 + ipv4::HEADER_LEN].copy_from_slice(&header);
                (ethernet::TYPE_IPV4, l3 + ipv4::HEADER_LEN, Sum::of(&header))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = v6(packets, source, destination);
                bytes[l3..l3 + ipv6::HEADER_LEN].copy_from_slice(&header);
                let pseudo = Sum::of(&header[8..]).plus(Sum::of_word(u64::from(protocol::UDP)));
                (ethernet::TYPE_IPV6, l3 + ipv6::HEADER_LEN, pseudo)
            }
            _ => return None,
        };
        bytes[12..14].copy_from_slice(&ether_type.to_be_bytes());
        bytes[l4 + 2..l4 + 4].copy_from_slice(&packets.udp_port.to_be_bytes());
        let len = l4 + udp::HEADER_LEN + vxlan::HEADER_LEN;
        let checksum = packets.checksum && packets.destination.is_ipv6();
        Some(Self { bytes, len, sum, checksum })
    }

    /// Puts the headers in front of a frame whose work is all done.
    #[inline]
    fn put<F: FrameBuf>(&self, vni: Vni, frame: &mut F) -> Result<(), Reason> {
        let inner = frame.bytes();
        let source_port = SOURCE_PORTS | (flow::hash(inner) >> 16) as u16;
        let ecn = ecn::of_frame(inner);
        frame.grow_front(self.len).map_err(|_| Reason::NoHeadroom)?;
        let bytes = frame.bytes_mut();
        let whole = bytes.len();
        let Some(headers) = bytes.get_mut(..self.len) else { return Err(Reason::NoHeadroom) };
        headers.copy_from_slice(&self.bytes[..self.len]);
        let l4 = self.len - udp::HEADER_LEN - vxlan::HEADER_LEN;
        let udp_len = u16::try_from(whole - l4).map_err(|_| Reason::TooBigEgress)?;
        self.put_ip(headers, ecn, udp_len);
        let (udp, vxlan) = headers[l4..].split_at_mut(udp::HEADER_LEN);
        udp[..2].copy_from_slice(&source_port.to_be_bytes());
        udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
        vxlan.copy_from_slice(&vxlan::header(vni));
        if self.checksum {
            let pseudo = self.sum.plus(Sum::of_word(u64::from(udp_len))).folded();
            udp[6..8].copy_from_slice(&pseudo.to_be_bytes());
            let csum = Csum { start: l4 as u16, offset: udp::CHECKSUM_OFFSET };
            frame.meta_mut().offload = Offload { csum: Some(csum), gso: None };
        }
        Ok(())
    }

    /// What differs by frame in the IP header.
    #[inline]
    fn put_ip(&self, headers: &mut [u8], ecn: u8, udp_len: u16) {
        let l3 = ethernet::HEADER_LEN;
        if self.bytes[12..14] == ethernet::TYPE_IPV6.to_be_bytes() {
            headers[l3 + 1] |= ecn << 4;
            headers[l3 + 4..l3 + 6].copy_from_slice(&udp_len.to_be_bytes());
            return;
        }
        let len = ipv4::HEADER_LEN as u16 + udp_len;
        let checksum = self.sum.plus(Sum::of_word(u64::from(len) + u64::from(ecn))).checksum();
        headers[l3 + 1] |= ecn;
        headers[l3 + 2..l3 + 4].copy_from_slice(&len.to_be_bytes());
        headers[l3 + 10..l3 + 12].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Without lengths, ECN and checksum. It must not be fragmented (RFC 7348 section 4.3), so it needs no identification (RFC
/// 6864 section 4.1).
fn v4(packets: &Outgoing, source: Ipv4Addr, destination: Ipv4Addr) -> [u8; ipv4::HEADER_LEN] {
    let mut header = [
        0x45,
        packets.dscp << 2,
        0,
        0,
        0,
        0,
        0x40,
        0,
        packets.ttl,
        protocol::UDP,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    header[12..16].copy_from_slice(&source.octets());
    header[16..].copy_from_slice(&destination.octets());
    header
}

/// Without lengths and ECN.
fn v6(packets: &Outgoing, source: Ipv6Addr, destination: Ipv6Addr) -> [u8; ipv6::HEADER_LEN] {
    let mut header = [0; ipv6::HEADER_LEN];
    let class = u16::from(packets.dscp) << 6;
    header[..2].copy_from_slice(&(0x6000 | class).to_be_bytes());
    header[6..8].copy_from_slice(&[protocol::UDP, packets.ttl]);
    header[8..24].copy_from_slice(&source.octets());
    header[24..].copy_from_slice(&destination.octets());
    header
}

/// Puts a frame of `network` that [`egress::prepare`] has made ready for the tunnel `peer` into it, and makes it ready to
/// leave by the underlay; `worker` counts what filters there rule. `Ok(None)`: it has to wait, since the next hop is not known yet; it is unchanged.
///
/// # Errors
/// The reason to drop it; the caller counts it at `peer`.
#[inline]
pub fn encapsulate<F: FrameBuf>(
    snapshot: &Snapshot,
    network: NetId,
    peer: PortId,
    frame: &mut F,
    worker: Option<usize>,
) -> Result<Option<PortId>, Reason> {
    let underlay = snapshot.underlay().ok_or(Reason::PortGone)?;
    let tunnel = super::of(snapshot, peer).ok_or(Reason::PortGone)?;
    if !tunnel.carries(network) {
        return Err(Reason::NotMember);
    }
    let Some(outer) = &tunnel.outer else { return Ok(None) };
    let vni = snapshot.network(network).and_then(|n| n.vni).ok_or(Reason::NotMember)?;
    outer.put(vni, frame)?;
    match egress::prepare(snapshot, underlay.network, peer, underlay.port, frame, worker)? {
        Egress::Ready => Ok(Some(underlay.port)),
        // No packet of a tunnel is one for segmentation, and no tunnel is in another.
        Egress::Segment | Egress::Encapsulate => Err(Reason::BadSegmentation),
    }
}
