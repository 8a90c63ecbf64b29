//! Where a frame's headers are.

use crate::{Malformed, checksum::Sum, ethernet, ipv4, ipv6};

/// Protocol numbers (IANA "Protocol Numbers").
pub mod protocol {
    /// IPv4 in IP.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// GRE.
    pub const GRE: u8 = 47;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// Extension headers that are followed; RFC 8200 section 4.1 names six in its order.
const MAX_EXTENSIONS: usize = 8;

/// The version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The headers of an IP packet. Offsets are in bytes from the frame's start; `l3 < l4 <= end`, and `end` is
/// inside the frame.
#[derive(Clone, Copy, Debug)]
pub struct Layers {
    /// Version of IP.
    pub version: IpVersion,
    /// Offset of the IP header.
    pub l3: usize,
    /// Offset of what follows the IP header with its options or extension headers.
    pub l4: usize,
    /// Offset of the packet's end; what follows is padding.
    pub end: usize,
    /// What is at `l4`: an IPv4 protocol or an IPv6 next header.
    pub protocol: u8,
    /// A part of a fragmented packet: `l4` may hold no header, and checksums cover more than this part.
    pub fragment: bool,
    /// The IPv6 destination is not the final one, which checksums are over (RFC 8200 section 8.1).
    pub routed: bool,
    address_sum: Sum,
}

impl Layers {
    /// Bytes from the L4 header to the packet's end.
    #[inline]
    #[must_use]
    pub const fn l4_len(&self) -> usize {
        self.end - self.l4
    }

    /// The sum of the pseudo-header that TCP and UDP checksums cover (RFC 9293 section 3.1, RFC 8200 section 8.1).
    #[inline]
    #[must_use]
    pub const fn pseudo_header(&self) -> Sum {
        self.address_sum.plus(Sum::of_word(((self.protocol as u64) << 32) | self.l4_len() as u64))
    }
}

/// Finds the headers of a frame, whose bytes start at the destination MAC and may have tags in them.
///
/// # Errors
/// Why it is no whole IP packet.
#[inline]
pub fn classify(bytes: &[u8]) -> Result<Layers, Malformed> {
    let (ether_type, l3) = ethernet::payload(bytes)?;
    packet(bytes, ether_type, l3)
}

/// Finds the headers of the packet of this EtherType at offset `l3`.
///
/// # Errors
/// Why it is no whole IP packet.
#[inline]
pub fn packet(bytes: &[u8], ether_type: u16, l3: usize) -> Result<Layers, Malformed> {
    let packet = bytes.get(l3..).ok_or(Malformed::Truncated)?;
    match ether_type {
        ethernet::TYPE_IPV4 => {
            let header = ipv4::Header::new_checked(packet)?;
            Ok(Layers {
                version: IpVersion::V4,
                l3,
                l4: l3 + header.header_len(),
                end: l3 + header.total_len(),
                protocol: header.protocol(),
                fragment: header.is_fragment(),
                routed: false,
                address_sum: header.address_sum(),
            })
        }
        ethernet::TYPE_IPV6 => {
            let header = ipv6::Header::new_checked(packet)?;
            let layers = Layers {
                version: IpVersion::V6,
                l3,
                l4: l3 + ipv6::HEADER_LEN,
                end: l3 + ipv6::HEADER_LEN + header.payload_len(),
                protocol: header.next_header(),
                fragment: false,
                routed: false,
                address_sum: header.address_sum(),
            };
            if matches!(layers.protocol, protocol::TCP | protocol::UDP) {
                Ok(layers)
            } else {
                skip_extensions(bytes, layers)
            }
        }
        _ => Err(Malformed::NotIp),
    }
}

/// Moves `l4` behind the extension headers (RFC 8200 section 4). What is not known ends the search, as a protocol.
fn skip_extensions(bytes: &[u8], mut layers: Layers) -> Result<Layers, Malformed> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    for _ in 0..MAX_EXTENSIONS {
        if !matches!(layers.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
            return Ok(layers);
        }
        let header =
            bytes.get(layers.l4..layers.end).and_then(<[u8]>::first_chunk).ok_or(Malformed::Truncated)?;
        let [next, len, offset_or_type, segments_left, ..]: [u8; 8] = *header;
        match layers.protocol {
            // Section 4.5: 13 bits of offset, two reserved, "more fragments".
            FRAGMENT => {
                layers.fragment |= u16::from_be_bytes([offset_or_type, segments_left]) & !0b110 != 0;
                layers.l4 += 8;
            }
            extension => {
                layers.routed |= extension == ROUTING && segments_left != 0;
                layers.l4 += (usize::from(len) + 1) * 8;
            }
        }
        if layers.l4 > layers.end {
            return Err(Malformed::Truncated);
        }
        layers.protocol = next;
        // A later fragment begins in the middle of the payload.
        if layers.fragment {
            return Ok(layers);
        }
    }
    Err(Malformed::TooDeep)
}
