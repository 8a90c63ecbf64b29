//! Frames that claim something: by ARP, neighbour discovery and DHCP.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_wire::testing::frame;
use vswitch_wire::{Mac, ethernet, ipv6};

use super::{A, B, access, port};
use vswitch_dataplane::{Learnt, Port, Security};

pub const OWN4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const OTHER4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
pub const OTHER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

/// Next headers and ICMPv6 types.
pub const HOP_BY_HOP: u8 = 0;
pub const UDP: u8 = 17;
pub const FRAGMENT: u8 = 44;
pub const ICMPV6: u8 = 58;
pub const OPTIONS: u8 = 60;
pub const ROUTER_SOLICITATION: u8 = 133;
pub const ROUTER_ADVERTISEMENT: u8 = 134;
pub const SOLICITATION: u8 = 135;
pub const ADVERTISEMENT: u8 = 136;
pub const REDIRECT: u8 = 137;

/// Ports in one network: one that is A's, with A's addresses, and one that nobody cares for.
pub fn guarded() -> Vec<Port> {
    secured(&[A], &[OWN4.into(), OWN6.into()], true, Vec::new())
}

/// The same, its first port held to what is given.
pub fn secured(macs: &[Mac], ips: &[IpAddr], guard: bool, learnt: Vec<Learnt>) -> Vec<Port> {
    let prefixes: Vec<_> = ips.iter().map(|ip| (*ip, if ip.is_ipv4() { 32 } else { 128 })).collect();
    let security = Security::new(macs, &prefixes, guard, learnt).map(Into::into);
    vec![Port { security, ..port(access(0)) }, port(access(0))]
}

/// Any payload behind A's header.
pub fn raw(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    frame(B, A).ether_type(ether_type).payload(payload).bytes()
}

/// An ARP message from A.
pub fn arp(operation: u16, (mac, ip): (Mac, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let [high, low] = operation.to_be_bytes();
    let head = [0, 1, 8, 0, 6, 4, high, low];
    raw(ethernet::TYPE_ARP, &[&head[..], &mac.0, &ip.octets(), &B.0, &target.octets()].concat())
}

/// UDP over IPv4 from A.
pub fn udp4(source: Ipv4Addr, (from, to): (u16, u16), payload: &[u8]) -> Vec<u8> {
    frame(B, A).ip(source, Ipv4Addr::BROADCAST).udp(from, to).payload(payload).bytes()
}

/// What a DHCP client with this MAC says.
pub fn discover(client: Mac) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[28..34].copy_from_slice(&client.0);
    message
}

/// UDP over IPv6 from A.
pub fn udp6(source: Ipv6Addr, (from, to): (u16, u16)) -> Vec<u8> {
    frame(B, A).ip(source, OTHER6).udp(from, to).payload(&[0; 8]).bytes()
}

/// An IPv6 packet from A whose payload begins with a header of the type `next`.
pub fn v6(source: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame(B, A).ip(source, OTHER6).payload(payload).bytes();
    bytes[ethernet::HEADER_LEN + 6] = next;
    bytes
}

/// A message of neighbour discovery, or of other ICMPv6, with one option that says a MAC.
pub fn nd(icmp_type: u8, target: Ipv6Addr, option: Option<(u8, Mac)>) -> Vec<u8> {
    let mut message = vec![icmp_type, 0, 0, 0, 0, 0, 0, 0];
    match icmp_type {
        ROUTER_ADVERTISEMENT => message.extend([0; 8]),
        SOLICITATION | ADVERTISEMENT => message.extend(target.octets()),
        REDIRECT => message.extend([target.octets(), OTHER6.octets()].concat()),
        _ => {}
    }
    message.extend(option.into_iter().flat_map(|(kind, Mac(mac))| [&[kind, 1][..], &mac].concat()));
    message
}

/// The link-local address that A makes of its MAC.
pub fn own_link_local() -> Ipv6Addr {
    ipv6::link_local_of(A)
}
