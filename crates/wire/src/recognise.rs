//! Finding unfinished checksums in frames that come without metadata.
//!
//! A veth or tap gives AF_XDP the bytes of a frame whose checksum the sender's kernel has left to "the
//! device", without saying so. But the bytes tell:
//!
//! * TCP and UDP: the field holds the folded sum of the pseudo-header. A finished checksum has this value
//!   in one frame of 65536, and finishing it once more gives the value that it has.
//! * SCTP: the field is zero (see [`crate::sctp`]), as it is by chance once in 2^32.
//! * GRE with a checksum: the field is zero; Linux sums the whole of it later.
//!
//! A sender's own tunnel (VXLAN, Geneve, GRE, IP in IP) leaves either the inner checksum unfinished, the
//! outer one being finished already for what the inner one will be, or the outer one over a finished inner.
//! When the outer one looks unfinished while the inner one does too, one of them does so by chance, and nothing tells
//! which: the inner one is finished on the spot, which is right in both cases, and after it the outer one may be.
//! Were it left at one of them, a flow whose outer checksum looks so (it is the same in each frame of a flow
//! and a length) would be lost for ever.

use crate::classify::{Layers, classify, packet, protocol};
use crate::{Csum, Malformed, complete, ethernet, sctp, tcp, udp};

/// The unfinished checksum of a frame that came without metadata, if it has one.
///
/// Writes only where both the checksum of a tunnel and the one inside it look unfinished, and then the inner
/// one. Fragments and packets with bytes other than zero behind them never have one.
#[inline]
pub fn recognise(bytes: &mut [u8]) -> Option<Csum> {
    let layers = classify(bytes).ok()?;
    let outer = unfinished(bytes, &layers);
    if is_plain(bytes, &layers) { outer } else { tunnelled(bytes, &layers, outer) }
}

/// TCP, or UDP that is no tunnel: nearly every frame.
#[inline]
fn is_plain(bytes: &[u8], layers: &Layers) -> bool {
    match layers.protocol {
        protocol::TCP => true,
        protocol::UDP => match bytes.get(layers.l4 + 2..).and_then(<[u8]>::first_chunk) {
            Some(port) => !matches!(u16::from_be_bytes(*port), VXLAN | VXLAN_LINUX | GENEVE),
            None => true,
        },
        _ => false,
    }
}

/// The checksum of this packet itself.
#[inline]
fn unfinished(bytes: &[u8], layers: &Layers) -> Option<Csum> {
    let offset = match layers.protocol {
        protocol::TCP => tcp::CHECKSUM_OFFSET,
        protocol::UDP => udp::CHECKSUM_OFFSET,
        protocol::SCTP => sctp::CHECKSUM_OFFSET,
        protocol::GRE => GRE_CHECKSUM_OFFSET,
        _ => return None,
    };
    let l4 = bytes.get(layers.l4..layers.end)?;
    let field = u16::from_be_bytes(*l4.get(usize::from(offset)..)?.first_chunk()?);
    let csum = Csum { start: u16::try_from(layers.l4).ok()?, offset };
    let matches = match layers.protocol {
        protocol::SCTP => field == 0 && is_unfinished_sctp(l4) && layers.end == bytes.len(),
        protocol::GRE => field == 0 && gre_flags(l4)? & GRE_CHECKSUM != 0,
        _ => field == layers.pseudo_header().folded() && !layers.routed,
    };
    // The kernel sums to the frame's end, so what is behind the packet must not count.
    (matches && !layers.fragment && bytes.get(layers.end..)?.iter().all(|b| *b == 0)).then_some(csum)
}

#[cold]
fn tunnelled(bytes: &mut [u8], layers: &Layers, outer: Option<Csum>) -> Option<Csum> {
    if layers.fragment {
        return None;
    }
    let inner = inner_packet(bytes, layers).ok().and_then(|inner| unfinished(bytes, &inner));
    match (outer, inner) {
        (Some(outer), Some(inner)) => {
            // Cannot fail: `unfinished` has read the field.
            complete(bytes, inner).ok()?;
            Some(outer)
        }
        (outer, inner) => outer.or(inner),
    }
}

/// RFC 7348 section 5, and the port that Linux takes when none is given.
const VXLAN: u16 = 4789;
const VXLAN_LINUX: u16 = 8472;
/// RFC 8926 section 3.3.
const GENEVE: u16 = 6081;

const GRE_CHECKSUM: u16 = 0x8000;
const GRE_CHECKSUM_OFFSET: u16 = 4;

fn is_unfinished_sctp(l4: &[u8]) -> bool {
    l4.get(8..12).is_some_and(|field| field == [0; 4])
}

fn gre_flags(gre: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*gre.first_chunk()?))
}

/// The packet inside a tunnel's packet, one level deep.
fn inner_packet(bytes: &[u8], outer: &Layers) -> Result<Layers, Malformed> {
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
    let [first, _, type_hi, type_lo, ..]: [u8; 8] = *tunnel;
    match header.destination_port() {
        // The I flag: the VNI is valid.
        VXLAN | VXLAN_LINUX if first & 0x08 != 0 => Ok((ethernet::TYPE_TEB, udp::HEADER_LEN + 8)),
        // Two bits of version, six of options' length in words.
        GENEVE if first >> 6 == 0 => {
            Ok((u16::from_be_bytes([type_hi, type_lo]), udp::HEADER_LEN + 8 + 4 * usize::from(first & 0x3f)))
        }
        _ => Err(Malformed::NotIp),
    }
}
