//! `[underlay]`: where this switch's tunnels begin.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vswitch_wire::{Vid, vxlan};

use crate::value::{self, Cidr};

/// The most VTEPs that are peers of any network.
pub const PEERS_MAX: usize = 4096;
/// The most peers of all networks together: as many as 1,024 VTEPs in 4,094 networks. A snapshot holds each.
pub const PEER_ENTRIES_MAX: usize = 1 << 22;

/// The switch's own VXLAN tunnel end point (RFC 7348) on the network between hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Underlay {
    /// The VTEP's address, with the length of the prefix that is on the link. Peers are of the same family.
    pub address: Cidr,
    /// The port by which tunnels leave, and come in.
    pub port: String,
    /// The VLAN ID of the underlay on that port. Absent: untagged, and then the port carries no other network untagged.
    #[serde(default, with = "value::vid", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u16>, minimum = 1, maximum = 4094)]
    pub vlan: Option<Vid>,
    /// The way to peers that are not on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "192.0.2.254")]
    pub gateway: Option<IpAddr>,
    /// The UDP port of VXLAN, here and at the peers.
    #[serde(default = "udp_port_default", skip_serializing_if = "is_udp_port_default")]
    #[schema(minimum = 1, default = 4789)]
    pub udp_port: u16,
    /// Over IPv6, packets of tunnels have a UDP checksum. Without it they are faster, and peers must take them so (RFC
    /// 6935). Over IPv4 they never have one (RFC 7348 section 5).
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    #[schema(default = true)]
    pub udp_checksum: bool,
    /// TTL or hop limit of packets of tunnels.
    #[serde(default = "ttl_default", skip_serializing_if = "is_ttl_default")]
    #[schema(minimum = 1, default = 64)]
    pub ttl: u8,
    /// Their DSCP, 0 to 63. It is not the inner packet's: tenants have no say in the underlay's priorities.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schema(maximum = 63)]
    pub dscp: u8,
}

fn udp_port_default() -> u16 {
    vxlan::UDP_PORT
}

fn is_udp_port_default(port: &u16) -> bool {
    *port == vxlan::UDP_PORT
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

fn ttl_default() -> u8 {
    64
}

fn is_ttl_default(ttl: &u8) -> bool {
    *ttl == ttl_default()
}

fn is_zero(dscp: &u8) -> bool {
    *dscp == 0
}

impl Underlay {
    /// The underlay of this VTEP at this port, everything else as it is by default.
    #[must_use]
    pub fn new(address: Cidr, port: impl Into<String>) -> Self {
        Self {
            address,
            port: port.into(),
            vlan: None,
            gateway: None,
            udp_port: udp_port_default(),
            udp_checksum: true,
            ttl: ttl_default(),
            dscp: 0,
        }
    }

    /// Bytes that a tunnel puts in front of a frame's IP packet: outer IP, UDP and VXLAN headers, and the inner Ethernet
    /// header. What the underlay's MTU has beyond them is the MTU inside.
    #[must_use]
    pub fn overhead(&self) -> u32 {
        if self.address.address.is_ipv4() { 50 } else { 70 }
    }

    /// Who a packet to `peer` is handed to on the link: the peer, or the gateway. `None` without a way.
    #[must_use]
    pub fn next_hop(&self, peer: IpAddr) -> Option<IpAddr> {
        if self.address.contains(peer) { Some(peer) } else { self.gateway }
    }

    /// Whether there may be another VTEP at this address, and a way to it.
    #[must_use]
    pub fn may_reach(&self, peer: IpAddr) -> bool {
        let own = self.address.address;
        let is_on_way = self.next_hop(peer).is_some() && !self.is_of_link(peer);
        own != peer && own.is_ipv4() == peer.is_ipv4() && is_host(peer) && is_on_way
    }

    /// The address of the link itself, or its broadcast address (RFC 1122 section 3.2.1.3).
    fn is_of_link(&self, peer: IpAddr) -> bool {
        let IpAddr::V4(v4) = peer else { return false };
        let hosts = u32::MAX.checked_shr(u32::from(self.address.prefix)).unwrap_or(0);
        let part = v4.to_bits() & hosts;
        // A link of two has neither (RFC 3021).
        self.address.contains(peer) && hosts > 1 && (part == 0 || part == hosts)
    }
}

/// Whether it may be the address of one host.
#[must_use]
pub fn is_host(address: IpAddr) -> bool {
    let is_of_none = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    // 0.0.0.0/8 is "this network", and from 240.0.0.0 on all is reserved (RFC 6890 section 2.2.2).
    let is_reserved = matches!(address, IpAddr::V4(v4) if v4.octets()[0] == 0 || v4.octets()[0] >= 240);
    !is_of_none && !is_reserved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_be_another_vtep() {
        let underlay = |gateway: Option<&str>| Underlay {
            gateway: gateway.map(|g| g.parse().unwrap()),
            ..Underlay::new("192.0.2.1/24".parse().unwrap(), "uplink")
        };
        let reaches = |underlay: &Underlay, peer: &str| underlay.may_reach(peer.parse().unwrap());
        let (link, routed) = (underlay(None), underlay(Some("192.0.2.254")));
        assert!(reaches(&link, "192.0.2.2") && !reaches(&link, "198.51.100.1"));
        assert!(reaches(&routed, "198.51.100.1"));
        for none in [
            "192.0.2.1",
            "255.255.255.255",
            "240.0.0.1",
            "224.0.0.1",
            "127.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "2001:db8::1",
        ] {
            assert!(!reaches(&routed, none), "{none}");
        }
    }
}
