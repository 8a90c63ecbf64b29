//! The tunnels that a sender makes itself, as far as checksums and GSO reach into them: VXLAN, Geneve, GRE, IP in IP.

use crate::classify::{Layers, packet, protocol};
use crate::{Malformed, ethernet, udp};

pub(crate) use crate::vxlan::UDP_PORT as VXLAN;
/// What Linux takes for VXLAN when no port is given.
pub(crate) const VXLAN_LINUX: u16 = 8472;
/// RFC 8926 section 3.3.
pub(crate) const GENEVE: u16 = 6081;

/// Bytes of a VXLAN header, and of a Geneve header without options.
const UDP_TUNNEL_LEN: usize = 8;

/// Offset of the checksum in a GRE header that has one (RFC 2784 section 2.1), in bytes.
pub(crate) const GRE_CHECKSUM_OFFSET: u16 = 4;
const GRE_CHECKSUM: u16 = 0x8000;
const GRE_SEQUENCE: u16 = 0x1000;

/// Whether UDP datagrams to this port are a tunnel.
#[inline]
pub(crate) const fn is_port(destination: u16) -> bool {
    matches!(destination, VXLAN | VXLAN_LINUX | GENEVE)
}

/// Whether the GRE header at the front of `gre` has a checksum.
pub(crate) fn has_gre_checksum(gre: &[u8]) -> bool {
    gre_flags(gre) & GRE_CHECKSUM != 0
}

/// Whether the GRE header at the front of `gre` has a sequence number (RFC 2890 section 2.2).
pub(crate) fn has_gre_sequence(gre: &[u8]) -> bool {
    gre_flags(gre) & GRE_SEQUENCE != 0
}

fn gre_flags(gre: &[u8]) -> u16 {
    gre.first_chunk().map_or(0, |flags| u16::from_be_bytes(*flags))
}

/// The packet inside the packet `outer`, one level deep. Any UDP port may be one of VXLAN, since hosts may choose theirs:
/// whoever has no other sign of a tunnel asks [`is_port`] first.
pub(crate) fn inner(bytes: &[u8], outer: &Layers) -> Result<Layers, Malformed> {
    let l4 = bytes.get(outer.l4..outer.end).ok_or(Malformed::Truncated)?;
    let (ether_type, offset) = match outer.protocol {
        protocol::IPV4 => (ethernet::TYPE_IPV4, 0),
        protocol::IPV6 => (ethernet::TYPE_IPV6, 0),
        protocol::GRE => gre_payload(l4)?,
        protocol::UDP => udp_payload(l4)?,
        _ => return Err(Malformed::NotIp),
    };
    let start = outer.l4 + offset;
    let (ether_type, l3) = if ether_type == ethernet::TYPE_TEB {
        let frame = bytes.get(start..).ok_or(Malformed::Truncated)?;
        ethernet::payload(frame).map(|(ether_type, l3)| (ether_type, start + l3))?
    } else {
        (ether_type, start)
    };
    let inner = packet(bytes, ether_type, l3)?;
    if inner.end > outer.end { Err(Malformed::Truncated) } else { Ok(inner) }
}

/// EtherType and offset of what a GRE header carries (RFC 2784 section 2.1, RFC 2890 section 2).
fn gre_payload(gre: &[u8]) -> Result<(u16, usize), Malformed> {
    let [flags_hi, flags_lo, type_hi, type_lo] = *gre.first_chunk().ok_or(Malformed::Truncated)?;
    let flags = u16::from_be_bytes([flags_hi, flags_lo]);
    // Checksum, key and sequence number take four bytes each; routing and versions other than 0 are obsolete.
    if flags & 0x4007 != 0 {
        return Err(Malformed::Version);
    }
    Ok((u16::from_be_bytes([type_hi, type_lo]), 4 + 4 * (flags & 0xb000).count_ones() as usize))
}

/// EtherType and offset, from the UDP header on, of what VXLAN or Geneve carries.
fn udp_payload(datagram: &[u8]) -> Result<(u16, usize), Malformed> {
    let header = udp::Header::new_checked(datagram)?;
    let tunnel = datagram.get(udp::HEADER_LEN..).and_then(<[u8]>::first_chunk).ok_or(Malformed::Truncated)?;
    let [first, _, type_hi, type_lo, ..]: [u8; UDP_TUNNEL_LEN] = *tunnel;
    let header_len = udp::HEADER_LEN + UDP_TUNNEL_LEN;
    match header.destination_port() {
        // Two bits of version, six of the options' length in words.
        GENEVE if first >> 6 == 0 => {
            Ok((u16::from_be_bytes([type_hi, type_lo]), header_len + 4 * usize::from(first & 0x3f)))
        }
        // The I flag: the VNI is valid.
        port if port != GENEVE && first & 0x08 != 0 => Ok((ethernet::TYPE_TEB, header_len)),
        _ => Err(Malformed::NotIp),
    }
}
