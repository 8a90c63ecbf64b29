//! A host on a wire of one frame; what it answers is read by etherparse.

use std::vec::Vec;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use vswitch_wire::checksum::Sum;

use super::*;

const OWN: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);
const PEER: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
const OWN4: [u8; 4] = [10, 0, 0, 254];
const PEER4: [u8; 4] = [10, 0, 0, 1];
const OWN6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe];
const PEER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa];

fn host() -> Host {
    let mut host = Host::new(OWN, &[(OWN4.into(), 24), (OWN6.into(), 64)], 1500, 1);
    host.poll(Instant::ZERO, |_| ());
    host
}

fn answers(host: &mut Host, frame: &[u8]) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    host.input(Instant::from_secs(1), frame, |frame| sent.push(frame.to_vec()));
    sent
}

fn arp(operation: u8, from: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut frame = [Mac::BROADCAST.0, PEER.0].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(PEER.0);
    frame.extend(from);
    frame.extend([0; 6]);
    frame.extend(target);
    frame
}

fn solicitation(from: [u8; 16], target: [u8; 16]) -> Vec<u8> {
    let group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, target[13], target[14], target[15]];
    let mut body = target.to_vec();
    if from != [0; 16] {
        body.extend([1, 1]);
        body.extend(PEER.0);
    }
    let to = [0x33, 0x33, 0xff, target[13], target[14], target[15]];
    let builder = PacketBuilder::ethernet2(PEER.0, to).ipv6(from, group, 255).icmpv6_raw(135, 0, [0; 4]);
    let mut frame = Vec::new();
    builder.write(&mut frame, &body).unwrap();
    frame
}

fn ping4(to: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(PEER.0, OWN.0).ipv4(PEER4, to, 64).icmpv4_echo_request(7, 8);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

fn ping6(to: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(PEER.0, OWN.0).ipv6(PEER6, to, 64).icmpv6_echo_request(7, 8);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

#[test]
fn it_answers_arp_and_pings_for_its_own_address_alone() {
    let mut host = host();
    assert!(answers(&mut host, &arp(1, PEER4, [10, 0, 0, 253])).is_empty());
    let reply = answers(&mut host, &arp(1, PEER4, OWN4)).remove(0);
    assert_eq!((&reply[..6], &reply[6..12], &reply[20..22]), (&PEER.0[..], &OWN.0[..], &[0, 2][..]));
    assert_eq!((&reply[22..28], &reply[28..32]), (&OWN.0[..], &OWN4[..]));

    assert!(answers(&mut host, &ping4([10, 0, 0, 253], b"not ours")).is_empty());
    let reply = answers(&mut host, &ping4(OWN4, b"echo")).remove(0);
    let packet = SlicedPacket::from_ethernet(&reply).unwrap();
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) = (packet.net, packet.transport)
    else {
        panic!("{reply:02x?}");
    };
    assert_eq!((ip.header().source(), ip.header().destination()), (OWN4, PEER4));
    assert_eq!((icmp.type_u8(), icmp.payload()), (0, &b"echo"[..]));
}

#[test]
fn it_answers_solicitations_and_pings_for_its_own_addresses_alone() {
    let mut host = host();
    let mut other = OWN6;
    other[8] = 1;
    assert!(answers(&mut host, &solicitation(PEER6, other)).is_empty(), "the same group, another address");
    let local = link_local_of(OWN).octets();
    assert_eq!(local[8..], [0, 0, 0, 0xff, 0xfe, 0, 0, 0xfe], "the universal bit is turned");
    for target in [OWN6, local] {
        let reply = answers(&mut host, &solicitation(PEER6, target)).remove(0);
        let packet = SlicedPacket::from_ethernet(&reply).unwrap();
        let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) = (packet.net, packet.transport)
        else {
            panic!("{reply:02x?}");
        };
        assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
        assert_eq!(
            (icmp.type_u8(), ip.header().hop_limit(), &reply[reply.len() - 6..]),
            (136, 255, &OWN.0[..])
        );
        let reply = answers(&mut host, &ping6(target, b"echo")).remove(0);
        assert_eq!((reply[54], &reply[..6]), (129, &PEER.0[..]));
    }
}

#[test]
fn whoever_is_about_to_take_its_address_is_told() {
    let mut host = host();
    assert!(answers(&mut host, &arp(1, [0; 4], [10, 0, 0, 253])).is_empty());
    let reply = answers(&mut host, &arp(1, [0; 4], OWN4)).remove(0);
    assert_eq!((&reply[..6], &reply[20..22], &reply[28..32]), (&PEER.0[..], &[0, 2][..], &OWN4[..]));

    assert!(answers(&mut host, &solicitation([0; 16], PEER6)).is_empty());
    let mut spoilt = solicitation([0; 16], OWN6);
    *spoilt.last_mut().unwrap() ^= 1;
    assert!(answers(&mut host, &spoilt).is_empty());
    let reply = answers(&mut host, &solicitation([0; 16], OWN6)).remove(0);
    let packet = SlicedPacket::from_ethernet(&reply).unwrap();
    let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) = (packet.net, packet.transport)
    else {
        panic!("{reply:02x?}");
    };
    assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
    assert_eq!((&reply[..6], ip.header().source(), reply[58]), (&[0x33, 0x33, 0, 0, 0, 1][..], OWN6, 0x20));
}

#[test]
fn it_joins_the_groups_of_its_addresses_and_reports_them_when_it_is_asked() {
    let mut host = Host::new(OWN, &[(OWN6.into(), 64)], 1500, 1);
    let mut sent = Vec::new();
    assert!(host.next_deadline().is_some());
    host.poll(Instant::ZERO, |frame| sent.push(frame.to_vec()));
    // RFC 3810 section 5.2.14: to all routers that speak MLDv2.
    assert!(!sent.is_empty() && sent.iter().all(|frame| frame[..6] == [0x33, 0x33, 0, 0, 0, 0x16]));
    assert_eq!(host.next_deadline(), None);

    // A general query (RFC 3810 section 5.1), with five seconds for the answer.
    let from = link_local_of(PEER).octets();
    let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut query = std::vec![130, 0, 0, 0, 0x13, 0x88, 0, 0];
    query.extend([0; 16]);
    query.extend([2, 125, 0, 0]);
    let sum = Sum::of(&from).plus(Sum::of(&all_nodes)).plus(Sum::of_word(28 + 58)).plus(Sum::of(&query));
    query[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    let mut frame =
        [&[0x33, 0x33, 0, 0, 0, 1][..], &PEER.0, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 36, 0, 1]].concat();
    frame.extend(from);
    frame.extend(all_nodes);
    frame.extend([58, 0, 5, 2, 0, 0, 1, 0]);
    frame.extend(query);
    assert!(answers(&mut host, &frame).is_empty(), "not at once");
    let mut reports = 0;
    while let Some(now) = host.next_deadline() {
        host.poll(now, |_| reports += 1);
    }
    assert_eq!(reports, 1);
}

#[test]
fn what_is_no_address_of_one_station_is_left_out() {
    let bad = ["0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "::", "ff02::1", "::1"];
    let bad: Vec<(IpAddr, u8)> = bad.iter().map(|ip| (ip.parse().unwrap(), 24)).collect();
    let host = Host::new(Mac::BROADCAST, &bad, 1500, 1);
    assert_eq!(host.interface.ip_addrs().len(), 1, "only the link-local one");
    let many: Vec<(IpAddr, u8)> = (0..20).map(|n| (IpAddr::from([10, 0, 0, n + 1]), 24)).collect();
    assert_eq!(Host::new(OWN, &many, 1500, 1).interface.ip_addrs().len(), ADDRESSES_MAX + 1);
}

/// A frame that is nearly right: one of those that are answered, changed somewhere, or cut off.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let whole = prop_oneof![
        Just(arp(1, PEER4, OWN4)),
        Just(ping4(OWN4, &[7; 64])),
        Just(ping6(OWN6, &[7; 64])),
        Just(solicitation(PEER6, OWN6)),
        Just(solicitation([0; 16], OWN6)),
        proptest::collection::vec(any::<u8>(), 0..200),
    ];
    (
        whole,
        proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        any::<prop::sample::Index>(),
    )
        .prop_map(|(mut frame, changes, end)| {
            for (at, value) in changes.into_iter().filter(|_| !frame.is_empty()).collect::<Vec<_>>() {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            if !frame.is_empty() && end.index(4) == 0 {
                frame.truncate(end.index(frame.len()));
            }
            frame
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_frame_makes_it_fall_over_or_answer_more_than_once(frames in proptest::collection::vec(nearly(), 0..40)) {
        let mut host = host();
        for frame in frames {
            let sent = answers(&mut host, &frame);
            prop_assert!(sent.len() <= 1);
            for answer in sent {
                prop_assert_eq!(&answer[6..12], &OWN.0);
                prop_assert!(answer.len() <= 1514);
            }
        }
        host.poll(Instant::from_secs(20), |_| ());
    }
}
