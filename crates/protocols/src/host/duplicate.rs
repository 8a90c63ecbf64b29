//! Whoever is about to take an address asks before whether somebody has it, on behalf of no address: by an ARP probe (RFC
//! 5227 section 2.1.1) or a neighbour solicitation (RFC 4862 section 5.4). It is told that we do.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_wire::checksum::Sum;
use vswitch_wire::{Mac, ethernet, ipv6};

const TYPE_ARP: u16 = 0x0806;
const ARP_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
const ARP_LEN: usize = 28;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const ND_LEN: usize = 24;
/// The nodes of a network, as none of them has an address to be told at.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = Mac([0x33, 0x33, 0, 0, 0, 1]);

/// Answers `frame` where it asks for one of our addresses on behalf of none; says whether it did.
pub(super) fn answer(
    frame: &[u8],
    mac: Mac,
    is_own: impl Fn(IpAddr) -> bool,
    send: &mut impl FnMut(&[u8]),
) -> bool {
    let Ok(header) = ethernet::Header::new_checked(frame) else { return false };
    let body = &frame[ethernet::HEADER_LEN..];
    let is_asked =
        header.source() != mac && (header.destination().is_multicast() || header.destination() == mac);
    match header.ether_type() {
        TYPE_ARP if is_asked => {
            let Some((asker, ip)) = arp_probe(body).filter(|(_, ip)| is_own((*ip).into())) else {
                return false;
            };
            send(&arp_reply(mac, ip, asker));
            true
        }
        ethernet::TYPE_IPV6 if is_asked => {
            let Some(ip) = solicited(body).filter(|ip| is_own((*ip).into())) else { return false };
            send(&advertisement(mac, ip));
            true
        }
        _ => false,
    }
}

/// Who asks, and for what.
fn arp_probe(body: &[u8]) -> Option<(Mac, Ipv4Addr)> {
    let packet: &[u8; ARP_LEN] = body.first_chunk()?;
    let asker = Mac::from_slice(&packet[8..]).filter(|mac| mac.is_unicast())?;
    let is_probe = packet[..8] == ARP_REQUEST && packet[14..18] == [0; 4];
    is_probe.then(|| (asker, Ipv4Addr::new(packet[24], packet[25], packet[26], packet[27])))
}

fn arp_reply(mac: Mac, ip: Ipv4Addr, to: Mac) -> [u8; ethernet::HEADER_LEN + ARP_LEN] {
    let mut frame = [0; ethernet::HEADER_LEN + ARP_LEN];
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&mac.0);
    frame[12..14].copy_from_slice(&TYPE_ARP.to_be_bytes());
    frame[14..22].copy_from_slice(&ARP_REQUEST);
    frame[21] = 2;
    frame[22..28].copy_from_slice(&mac.0);
    frame[28..32].copy_from_slice(&ip.octets());
    frame[32..38].copy_from_slice(&to.0);
    frame
}

/// What a node asks for that has no address (RFC 4861 section 7.1.1 says what is valid).
fn solicited(body: &[u8]) -> Option<Ipv6Addr> {
    let header = ipv6::Header::new_checked(body).ok()?;
    let icmp = body.get(ipv6::HEADER_LEN..)?.get(..header.payload_len())?;
    let fixed: &[u8; ND_LEN] = icmp.first_chunk()?;
    let sum = pseudo_header(header.source(), header.destination(), icmp.len()).plus(Sum::of(icmp));
    let is_valid = header.source().is_unspecified()
        && header.destination().is_multicast()
        && header.next_header() == ICMPV6
        && body[7] == 255
        && fixed[..2] == [SOLICITATION, 0]
        && sum.folded() == 0xffff;
    let target = Ipv6Addr::from(*fixed[8..].first_chunk::<16>()?);
    is_valid.then_some(target)
}

/// To all nodes, and not as asked for (RFC 4861 section 7.2.4).
fn advertisement(mac: Mac, ip: Ipv6Addr) -> [u8; ethernet::HEADER_LEN + ipv6::HEADER_LEN + ND_LEN + 8] {
    const OVERRIDE: u8 = 0x20;
    const LEN: usize = ND_LEN + 8;
    let mut frame = [0; ethernet::HEADER_LEN + ipv6::HEADER_LEN + LEN];
    frame[..6].copy_from_slice(&ALL_NODES_MAC.0);
    frame[6..12].copy_from_slice(&mac.0);
    frame[12..14].copy_from_slice(&ethernet::TYPE_IPV6.to_be_bytes());
    let (header, icmp) = frame[ethernet::HEADER_LEN..].split_at_mut(ipv6::HEADER_LEN);
    header[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, LEN as u8, ICMPV6, 255]);
    header[8..24].copy_from_slice(&ip.octets());
    header[24..].copy_from_slice(&ALL_NODES.octets());
    icmp[0] = ADVERTISEMENT;
    icmp[4] = OVERRIDE;
    icmp[8..24].copy_from_slice(&ip.octets());
    icmp[24..26].copy_from_slice(&[2, 1]);
    icmp[26..].copy_from_slice(&mac.0);
    let checksum = pseudo_header(ip, ALL_NODES, LEN).plus(Sum::of(icmp)).checksum();
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// The sum of the pseudo-header of an ICMPv6 message (RFC 8200 section 8.1).
fn pseudo_header(source: Ipv6Addr, destination: Ipv6Addr, len: usize) -> Sum {
    Sum::of(&source.octets())
        .plus(Sum::of(&destination.octets()))
        .plus(Sum::of_word(len as u64 + u64::from(ICMPV6)))
}
