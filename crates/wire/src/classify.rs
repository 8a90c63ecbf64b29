//! Where a frame's headers are.

use crate::{Malformed, checksum::Sum, ethernet, ipv4, ipv6};

/// Protocol numbers (IANA "Protocol Numbers").
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// IPv4 in IP.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// GRE.
    pub const GRE: u8 = 47;
    /// IPsec's authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
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
        self.pseudo_header_of(self.l4_len())
    }

    /// As [`Layers::pseudo_header`], were `l4_len` bytes behind the IP header.
    #[inline]
    pub(crate) const fn pseudo_header_of(&self, l4_len: usize) -> Sum {
        self.address_sum.plus(Sum::of_word(((self.protocol as u64) << 32) | l4_len as u64))
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
    use protocol::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING};
    for _ in 0..MAX_EXTENSIONS {
        if !matches!(layers.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS) {
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

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{FrameBuilder, frame};
    use crate::vlan::TPID_8021AD;
    use crate::{Mac, Tag, tcp, udp};

    fn v4() -> FrameBuilder {
        frame(Mac([2; 6]), Mac([4; 6])).ip([10, 0, 0, 1], [10, 0, 0, 2])
    }

    fn v6() -> FrameBuilder {
        frame(Mac([2; 6]), Mac([4; 6])).ip([0xfd; 16], [0xfe; 16])
    }

    /// A UDP frame over IPv6 whose payload begins with these extension headers.
    fn extended(next: u8, extensions: &[u8]) -> Vec<u8> {
        let mut bytes = v6().payload(&[extensions, &[0, 1, 0, 2, 0, 8, 0, 0]].concat()).bytes();
        bytes[20] = next;
        bytes
    }

    #[test]
    fn offsets_and_truncations() {
        for (tags, builder) in [(0, v4()), (1, v4()), (2, v4()), (0, v6()), (3, v6())] {
            let tagged = (0..tags).fold(builder, |b, i| b.tag(Tag { tpid: TPID_8021AD, tci: i }));
            let bytes = tagged.tcp(1, 2, 0x10).payload(&[9; 5]).bytes();
            let layers = classify(&bytes).unwrap();
            let l3 = 14 + 4 * usize::from(tags);
            let l4 = l3 + if layers.version == IpVersion::V4 { 20 } else { 40 };
            assert_eq!((layers.l3, layers.l4, layers.end), (l3, l4, bytes.len()));
            assert_eq!((layers.protocol, layers.fragment, layers.l4_len()), (protocol::TCP, false, 25));
            for len in 0..bytes.len() {
                assert_eq!(classify(&bytes[..len]).unwrap_err(), Malformed::Truncated, "{len} bytes");
            }
            let padded = [&bytes[..], &[0; 6]].concat();
            assert_eq!(classify(&padded).unwrap().end, bytes.len());
        }
    }

    #[test]
    fn what_is_no_ip_packet() {
        let change = |at: usize, value: u8| {
            let mut bytes = v4().udp(1, 2).bytes();
            bytes[at] = value;
            classify(&bytes).unwrap_err()
        };
        assert_eq!(change(13, 6), Malformed::NotIp); // ARP
        assert_eq!(change(14, 0x65), Malformed::Version);
        assert_eq!(change(14, 0x44), Malformed::Length);
        assert_eq!(change(17, 19), Malformed::Length);
        let tags = |n| (0..n).fold(v4(), |b, _| b.tag(Tag::dot1q(1))).bytes();
        assert!(classify(&tags(ethernet::MAX_TAGS)).is_ok());
        assert_eq!(classify(&tags(ethernet::MAX_TAGS + 1)).unwrap_err(), Malformed::TooDeep);
    }

    #[test]
    fn extension_headers() {
        // Hop-by-hop of 8 bytes, destination options of 16, then UDP.
        let bytes = extended(0, &[[60, 0, 1, 4, 0, 0, 0, 0], [17, 1, 1, 12, 0, 0, 0, 0], [0; 8]].concat());
        let layers = classify(&bytes).unwrap();
        assert_eq!((layers.protocol, layers.l4, layers.l4_len()), (protocol::UDP, 54 + 24, 8));
        assert!(!layers.fragment && !layers.routed);
        // A first and a later fragment, and an "atomic" one (RFC 6946).
        for (offset, fragment) in [([0, 1], true), ([5, 0], true), ([0, 0], false)] {
            let layers = classify(&extended(44, &[17, 0, offset[0], offset[1], 0, 0, 0, 1])).unwrap();
            assert_eq!((layers.protocol, layers.l4, layers.fragment), (protocol::UDP, 62, fragment));
        }
        // One that is longer than the packet, and too many.
        assert_eq!(classify(&extended(60, &[17, 9, 0, 0, 0, 0, 0, 0])).unwrap_err(), Malformed::Truncated);
        let many = [60, 0, 1, 4, 0, 0, 0, 0].repeat(MAX_EXTENSIONS);
        assert_eq!(classify(&extended(60, &many)).unwrap_err(), Malformed::TooDeep);
    }

    #[test]
    fn header_views_read_what_was_written() {
        let bytes = v4().tcp(0x0102, 0x0304, 0x55).bytes();
        let l2 = ethernet::Header::new_checked(&bytes).unwrap();
        assert_eq!((l2.destination(), l2.source(), l2.ether_type()), (Mac([2; 6]), Mac([4; 6]), 0x0800));
        let ip = ipv4::Header::new_checked(&bytes[14..]).unwrap();
        assert_eq!((ip.source().octets(), ip.destination().octets()), ([10, 0, 0, 1], [10, 0, 0, 2]));
        assert_eq!(ip.checksum(), u16::from_be_bytes([bytes[24], bytes[25]]));
        let l4 = tcp::Header::new_checked(&bytes[34..]).unwrap();
        assert_eq!((l4.source_port(), l4.destination_port(), l4.flags()), (0x0102, 0x0304, 0x55));
        assert_eq!(l4.checksum(), u16::from_be_bytes([bytes[50], bytes[51]]));
        let bytes = v6().udp(0x0102, 0x0304).bytes();
        let ip = ipv6::Header::new_checked(&bytes[14..]).unwrap();
        assert_eq!((ip.source().octets(), ip.destination().octets()), ([0xfd; 16], [0xfe; 16]));
        let l4 = udp::Header::new_checked(&bytes[54..]).unwrap();
        assert_eq!((l4.source_port(), l4.destination_port(), l4.len()), (0x0102, 0x0304, 8));
        assert_eq!(l4.checksum(), u16::from_be_bytes([bytes[60], bytes[61]]));
        for len in 0..20 {
            assert!(tcp::Header::new_checked(&[0x50; 20][..len]).is_err());
            assert!(tcp::Header::new_checked_mut(&mut [0x50; 20][..len]).is_err());
            assert!(ipv4::Header::new_checked_mut(&mut [0x45; 20][..len]).is_err());
        }
        assert_eq!(tcp::Header::new_checked(&[0x60; 20]).unwrap_err(), Malformed::Truncated);
        assert_eq!(tcp::Header::new_checked(&[0x40; 20]).unwrap_err(), Malformed::Length);
        assert_eq!(udp::Header::new_checked(&[0; 8]).unwrap_err(), Malformed::Length);
        assert_eq!(udp::Header::new_checked(&[1; 8]).unwrap_err(), Malformed::Truncated);
        assert!(udp::Header::new_checked_mut(&mut [1; 7]).is_err());
        assert!(ipv6::Header::new_checked_mut(&mut [0x60; 39]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            if let Ok(layers) = classify(&bytes) {
                prop_assert!(layers.l3 < layers.l4 && layers.l4 <= layers.end && layers.end <= bytes.len());
            }
        }
    }

    /// With each byte of some packets changed in every way.
    #[test]
    fn agrees_with_etherparse() {
        let packets = [
            v4().tag(Tag::dot1q(5)).tcp(1, 2, 0).payload(&[0; 16]).bytes(),
            v6().udp(1, 2).payload(&[0; 16]).bytes(),
            extended(0, &[43, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0]),
            extended(44, &[17, 0, 0, 1, 0, 0, 0, 1]),
        ];
        let mut compared = 0;
        for packet in packets {
            for (at, byte) in (12..packet.len()).flat_map(|at| (0..=255).map(move |byte| (at, byte))) {
                let mut bytes = packet.clone();
                bytes[at] = byte;
                compared += usize::from(compare_with_etherparse(&bytes));
            }
        }
        assert!(compared > 10_000, "{compared}");
    }

    /// Whether there was something to compare: a transport header that etherparse has found.
    fn compare_with_etherparse(bytes: &[u8]) -> bool {
        // A double tag of no standard, which is none to us.
        if bytes[12..14] == [0x91, 0] {
            return false;
        }
        let Ok(packet) = SlicedPacket::from_ethernet(bytes) else { return false };
        let l4 = match &packet.transport {
            Some(TransportSlice::Tcp(slice)) => slice.slice(),
            Some(TransportSlice::Udp(slice)) => slice.slice(),
            _ => return false,
        };
        // To etherparse a length of 0 is that of a jumbogram, and goes to the end of the frame. It is one only with an
        // option that says so (RFC 2675 section 2), which none has here.
        let is_v4 = match &packet.net {
            Some(NetSlice::Ipv6(ip)) if ip.header().payload_length() == 0 => return false,
            net => matches!(net, Some(NetSlice::Ipv4(_))),
        };
        let layers = classify(bytes).unwrap_or_else(|error| panic!("{error:?}: {bytes:02x?}"));
        assert_eq!(layers.l4, l4.as_ptr() as usize - bytes.as_ptr() as usize, "{bytes:02x?}");
        assert_eq!(layers.version == IpVersion::V4, is_v4, "{bytes:02x?}");
        true
    }
}
