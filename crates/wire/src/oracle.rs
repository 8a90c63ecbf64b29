//! What etherparse, which shares no code with this crate, says of a frame.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

/// Asserts that every checksum of the frame (IPv4 header, TCP, UDP) is right.
pub(crate) fn assert_checksums(bytes: &[u8]) {
    let packet = SlicedPacket::from_ethernet(bytes).expect("etherparse refuses the frame");
    let v4 = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header().to_header();
            assert_eq!(header.calc_header_checksum(), header.header_checksum, "IPv4 header checksum");
            Some(header)
        }
        _ => None,
    };
    let v6 = match &packet.net {
        Some(NetSlice::Ipv6(ip)) => Some(ip.header().to_header()),
        _ => None,
    };
    let (found, expected) = match packet.transport {
        Some(TransportSlice::Tcp(slice)) => {
            let tcp = slice.to_header();
            let expected = match (&v4, &v6) {
                (Some(ip), _) => tcp.calc_checksum_ipv4(ip, slice.payload()),
                (_, Some(ip)) => tcp.calc_checksum_ipv6(ip, slice.payload()),
                _ => panic!("TCP without IP"),
            };
            (tcp.checksum, expected.expect("length"))
        }
        Some(TransportSlice::Udp(slice)) => {
            let udp = slice.to_header();
            let expected = match (&v4, &v6) {
                (Some(ip), _) => udp.calc_checksum_ipv4(ip, slice.payload()),
                (_, Some(ip)) => udp.calc_checksum_ipv6(ip, slice.payload()),
                _ => panic!("UDP without IP"),
            };
            (udp.checksum, expected.expect("length"))
        }
        other => panic!("neither TCP nor UDP: {other:?}"),
    };
    // Zero and 0xffff are one number in ones' complement.
    assert_eq!(found % 0xffff, expected % 0xffff, "L4 checksum {found:#06x}, expected {expected:#06x}");
}
