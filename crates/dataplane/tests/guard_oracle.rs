//! Whatever passes a guarded port claims nothing that is not the port's, as etherparse reads it: slow, and with no code
//! of the switch.

#![allow(clippy::unwrap_used)] // these are tests, although not all functions are marked so

mod testbed;

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::icmpv6::{NdpOptionSlice, NdpOptionsIterator};
use etherparse::{ArpEthIpv4Packet, ArpPacketSlice, IpNumber, Ipv4Slice, Ipv6ExtensionSlice, Ipv6Slice};
use proptest::prelude::*;
use testbed::claim::*;
use testbed::*;
use vswitch_dataplane::Verdict;
use vswitch_wire::testing::{VecFrame, frame};
use vswitch_wire::{FrameBuf, Mac, Tag};

fn own4(address: Ipv4Addr) -> bool {
    address == OWN4
}

fn own6(address: Ipv6Addr) -> bool {
    // Written out: RFC 4291 appendix A of 02:00:00:00:00:0a.
    address == OWN6 || address == "fe80::ff:fe00:a".parse::<Ipv6Addr>().unwrap()
}

/// What a frame claims that is not the port's.
fn lie(bytes: &[u8]) -> Option<&'static str> {
    if bytes[6..12] != A.0 {
        return Some("a MAC");
    }
    let payload = &bytes[14..];
    match [bytes[12], bytes[13]] {
        [8, 0] => lie4(payload),
        [0x86, 0xdd] => lie6(payload),
        [8, 6] => lie_arp(payload),
        [0x81, 0] | [0x88, 0xa8] | [0x91..=0x93, 0] => Some("a tag"),
        [0..=5, _] => Some("LLC"),
        [0x80, 0x35] => Some("RARP"),
        _ => None,
    }
}

fn lie_arp(payload: &[u8]) -> Option<&'static str> {
    let slice = ArpPacketSlice::from_slice(payload).ok();
    let Some(arp) = slice.and_then(|slice| ArpEthIpv4Packet::try_from(slice.to_packet()).ok()) else {
        return Some("ARP of something");
    };
    let sender = Ipv4Addr::from(arp.sender_ipv4);
    let is_probe = sender.is_unspecified() && arp.operation.0 == 1;
    if arp.sender_mac != A.0 {
        Some("an ARP MAC")
    } else if is_probe && own4(arp.target_ipv4.into()) || own4(sender) {
        None
    } else {
        Some("an ARP address")
    }
}

fn lie4(payload: &[u8]) -> Option<&'static str> {
    let Ok(packet) = Ipv4Slice::from_slice(payload) else { return Some("no IPv4") };
    let header = packet.header();
    let datagram = packet.payload().payload;
    let is_first = header.fragments_offset().value() == 0;
    let ports = (header.protocol() == IpNumber::UDP && is_first).then(|| {
        let word = |at: usize| u16::from(datagram[at]) << 8 | u16::from(datagram[at + 1]);
        (word(0), word(2))
    });
    let source = header.source_addr();
    let is_client = source.is_unspecified() && ports.is_some_and(|(_, to)| to == 67);
    if ports.is_some_and(|(from, to)| from == 67 || to == 68) {
        Some("to be a DHCP server")
    } else if !own4(source) && !is_client {
        Some("an IPv4 address")
    } else if ports.is_some_and(|(_, to)| to == 67) && datagram[8 + 28..8 + 34] != A.0 {
        Some("another client")
    } else {
        None
    }
}

fn lie6(payload: &[u8]) -> Option<&'static str> {
    let Ok(packet) = Ipv6Slice::from_slice(payload) else { return Some("no IPv6") };
    let source = packet.header().source_addr();
    let offset = packet.extensions().clone().into_iter().find_map(|extension| match extension {
        Ipv6ExtensionSlice::Fragment(fragment) => Some(fragment.fragment_offset().value()),
        _ => None,
    });
    let carried = packet.payload();
    let upper = carried.payload;
    if offset.unwrap_or(0) == 0 && carried.ip_number == IpNumber::IPV6_ICMP {
        return lie_icmpv6(source, upper, offset.is_some());
    }
    if offset.unwrap_or(0) == 0 && carried.ip_number == IpNumber::UDP {
        let word = |at: usize| u16::from(upper[at]) << 8 | u16::from(upper[at + 1]);
        if word(0) == 547 || word(2) == 546 {
            return Some("to be a DHCPv6 server");
        }
    }
    (!own6(source)).then_some("an IPv6 address")
}

fn lie_icmpv6(source: Ipv6Addr, message: &[u8], is_fragment: bool) -> Option<&'static str> {
    let options = match message[0] {
        134 | 137 => return Some("to be a router"),
        133..=137 if is_fragment => return Some("something in a fragment"),
        133 => 8,
        135 | 136 => 24,
        131 | 132 | 143 if source.is_unspecified() => return None,
        _ => return (!own6(source)).then_some("an IPv6 address by ICMP"),
    };
    let target = || own6(<[u8; 16]>::try_from(&message[8..24]).unwrap().into());
    let has_right_source = own6(source) || source.is_unspecified() && message[0] != 136;
    let has_right_target = match message[0] {
        136 => target(),
        135 if source.is_unspecified() => target(),
        _ => true,
    };
    let mut macs = NdpOptionsIterator::from_slice(&message[options..]).map(|option| match option {
        Ok(NdpOptionSlice::SourceLinkLayerAddress(slice)) => slice.link_layer_address() == A.0,
        Ok(NdpOptionSlice::TargetLinkLayerAddress(slice)) => slice.link_layer_address() == A.0,
        _ => true,
    });
    match (has_right_source && has_right_target, macs.all(|is_own| is_own)) {
        (false, _) => Some("an IPv6 address by ND"),
        (_, false) => Some("a MAC by ND"),
        _ => None,
    }
}

fn mac() -> impl Strategy<Value = Mac> {
    prop_oneof![4 => Just(A), 1 => Just(B)]
}

fn address4() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![4 => Just(OWN4), 1 => Just(OTHER4), 1 => Just(Ipv4Addr::UNSPECIFIED)]
}

fn address6() -> impl Strategy<Value = Ipv6Addr> {
    let other = vswitch_wire::ipv6::link_local_of(B);
    prop_oneof![
        3 => Just(OWN6),
        3 => Just(own_link_local()),
        1 => Just(OTHER6),
        1 => Just(other),
        1 => Just(Ipv6Addr::UNSPECIFIED)
    ]
}

fn ports() -> impl Strategy<Value = (u16, u16)> {
    let port = || prop::sample::select(vec![67_u16, 68, 546, 547, 5000]);
    (port(), port())
}

/// Bytes from the EtherType on.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let arp = (1..4_u16, mac(), address4(), address4()).prop_map(|(op, mac, ip, to)| arp(op, (mac, ip), to));
    let udp4 = (address4(), ports(), mac(), prop::sample::select(vec![0_u16, 0, 0x2000, 0x2002, 2]))
        .prop_map(|(source, ports, client, fragment)| {
            let mut bytes = udp4(source, ports, &discover(client));
            bytes[20..22].copy_from_slice(&fragment.to_be_bytes());
            bytes
        });
    let udp6 = (address6(), ports()).prop_map(|(source, ports)| udp6(source, ports));
    let tcp4 = address4().prop_map(|source| frame(B, A).ip(source, OTHER4).tcp(1, 2, 0).bytes());
    let kinds = prop::sample::select(vec![128_u8, 131, 133, 134, 135, 136, 137, 143]);
    let option = prop::option::of((1..4_u8, mac()));
    let icmp = (kinds, address6(), option).prop_map(|(kind, target, option)| nd(kind, target, option));
    let headers = prop::collection::vec(
        (prop::sample::select(vec![OPTIONS, 43, FRAGMENT, 51, HOP_BY_HOP]), 0..18_u8),
        0..4,
    );
    let icmp6 = (address6(), headers, icmp).prop_map(|(source, headers, message)| {
        let next = |at: usize| headers.get(at).map_or(ICMPV6, |header: &(u8, u8)| header.0);
        let chain: Vec<u8> = (headers.iter().enumerate())
            .flat_map(|(at, &(kind, low))| match kind {
                FRAGMENT => vec![next(at + 1), 0, 0, low, 0, 0, 0, 0],
                // Authentication counts in words of four bytes.
                51 => [vec![next(at + 1), 2], vec![0; 14]].concat(),
                _ => vec![next(at + 1), 0, 1, 4, 0, 0, 0, 0],
            })
            .collect();
        v6(source, next(0), &[chain, message].concat())
    });
    let types = prop::sample::select(vec![0x88b5_u16, 0x8035, 0x88a8, 0x9100, 40, 0x0806, 0x0800, 0x86dd]);
    let other = (types, prop::collection::vec(any::<u8>(), 0..80)).prop_map(|(kind, rest)| raw(kind, &rest));
    prop_oneof![2 => arp, 3 => udp4, 2 => udp6, 1 => tcp4, 6 => icmp6, 1 => other]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_passes_claims_nothing_else(
        source in prop_oneof![9 => Just(A), 1 => Just(B)],
        packet in packet(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop_oneof![4 => Just(0_usize), 1 => 0..60_usize],
    ) {
        let mut bytes = packet;
        bytes[6..12].copy_from_slice(&source.0);
        for (at, value) in changes {
            let at = 12 + at.index(bytes.len() - 12);
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len() - 14));
        let mut switch = Switch::new(&guarded(), 1);
        let outcome = switch.receive(0, &mut [VecFrame::new(&bytes)]).remove(0);
        if !matches!(outcome.verdict, Verdict::Drop(_)) {
            prop_assert_eq!(lie(&bytes), None, "{:02x?}", bytes);
        }
    }

    /// What an honest station says passes, if it is said plainly: parts of packets, and headers before what is said, are
    /// judged more strictly than by what they say.
    #[test]
    fn the_truth_passes(packet in packet()) {
        let is_plain = match packet.get(12..22) {
            Some([0x86, 0xdd, .., next, _]) => matches!(*next, ICMPV6 | UDP),
            Some([8, 0, _, _, _, _, _, _, fragment @ ..]) => fragment == [0, 0],
            Some([8, 6, .., operation]) => matches!(operation, 1 | 2),
            _ => true,
        };
        if is_plain && lie(&packet).is_none() {
            let mut switch = Switch::new(&guarded(), 1);
            let outcome = switch.receive(0, &mut [VecFrame::new(&packet)]).remove(0);
            prop_assert!(!matches!(outcome.verdict, Verdict::Drop(_)), "{:?} {:02x?}", outcome.verdict, packet);
        }
    }
}

#[test]
fn the_oracle_tells_lies_from_the_truth() {
    assert_eq!(lie(&arp(1, (A, OWN4), OTHER4)), None);
    assert_eq!(lie(&arp(1, (A, OTHER4), OWN4)), Some("an ARP address"));
    assert_eq!(lie(&v6(OWN6, ICMPV6, &nd(ADVERTISEMENT, OTHER6, None))), Some("an IPv6 address by ND"));
    let tagged = frame(B, A).tag(Tag::dot1q(5)).build();
    assert_eq!(lie(tagged.bytes()), Some("a tag"));
}
