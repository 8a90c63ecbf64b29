//! Whoever is about to take an address asks before whether somebody has it, on behalf of no address: by an ARP probe (RFC
//! 5227 section 2.1.1) or a neighbour solicitation (RFC 4862 section 5.4). It is told that we do.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_wire::ndisc::{Flags, Kind};
use vswitch_wire::{Mac, arp, ethernet, ipv6, ndisc};

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
        ethernet::TYPE_ARP if is_asked => {
            let Some((asker, ip)) = arp_probe(body).filter(|(_, ip)| is_own((*ip).into())) else {
                return false;
            };
            send(&arp::reply((mac, ip), (asker, Ipv4Addr::UNSPECIFIED)));
            true
        }
        ethernet::TYPE_IPV6 if is_asked => {
            let Some(ip) = solicited(body).filter(|ip| is_own((*ip).into())) else { return false };
            // To all nodes, as this one has no address, and not as asked for (RFC 4861 section 7.2.4).
            let all = (ipv6::group_mac(ipv6::ALL_NODES), ipv6::ALL_NODES);
            send(&ndisc::advertisement((mac, ip), all, Flags { overrides: true, ..Flags::default() }));
            true
        }
        _ => false,
    }
}

/// Who asks, and for what.
fn arp_probe(body: &[u8]) -> Option<(Mac, Ipv4Addr)> {
    let packet = arp::Packet::new_checked(body).ok()?;
    let is_probe = packet.operation() == arp::REQUEST
        && packet.sender_ip().is_unspecified()
        && packet.sender_mac().is_unicast();
    is_probe.then(|| (packet.sender_mac(), packet.target_ip()))
}

/// What a node asks for that has no address.
fn solicited(body: &[u8]) -> Option<Ipv6Addr> {
    let packet = ndisc::Packet::new_checked(body).ok()?;
    let is_probe = packet.message.kind() == Kind::NeighbourSolicitation && packet.source.is_unspecified();
    is_probe.then_some(packet.target)
}
