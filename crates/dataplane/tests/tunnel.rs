//! Frames into VXLAN and out of it, with etherparse as the other end.
#![allow(clippy::unwrap_used, clippy::panic)] // these are tests, although not all functions are marked so

mod testbed;

use std::net::IpAddr;
use std::sync::Arc;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;
use testbed::{A, B, Outcome, Switch, access, port, tcp, trunk};
use vswitch_dataplane::tunnel::{Outer, Outgoing};
use vswitch_dataplane::{Attachment, NetId, Port, PortId, Reason, Snapshot, Tunnel, Underlay, Verdict};
use vswitch_wire::testing::{VecFrame, frame};
use vswitch_wire::{FrameBuf, Mac, Tag, Vni, checksum, vxlan};

const VTEP: Mac = Mac([2, 0, 0, 0, 9, 1]);
const ROUTER: Mac = Mac([2, 0, 0, 0, 9, 2]);
const BROADCAST: Mac = Mac([0xff; 6]);
/// Networks: red and blue, which are in tunnels, and the underlay.
const RED: NetId = NetId(0);
const BLUE: NetId = NetId(1);
const UNDER: NetId = NetId(2);
/// Ports: two of red, one of blue, the underlay's; then a VTEP of both networks, and one of red alone.
const BLUE_PORT: u16 = 2;
const UPLINK: u16 = 3;
const FIRST: u16 = 4;
const SECOND: u16 = 5;
/// Bytes in front of a frame, over IPv4 and IPv6.
const OVERHEAD: [usize; 2] = [50, 70];

/// One family of addresses: the VTEP's own, and two others.
#[derive(Clone, Copy, Debug)]
struct Family {
    own: IpAddr,
    peers: [IpAddr; 2],
}

fn families() -> [Family; 2] {
    let v4 = |n| IpAddr::from([192, 0, 2, n]);
    let v6 = |n| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, n]);
    [Family { own: v4(1), peers: [v4(2), v4(3)] }, Family { own: v6(1), peers: [v6(2), v6(3)] }]
}

fn vni(n: u32) -> Vni {
    Vni::new(n).unwrap()
}

fn peer(family: Family, n: usize, networks: &[NetId], overhead: usize) -> Port {
    let outer = Outer::new(&Outgoing {
        source_mac: VTEP,
        next_hop: ROUTER,
        source: family.own,
        destination: family.peers[n],
        udp_port: vxlan::UDP_PORT,
        ttl: 64,
        dscp: 0x2e,
        checksum: true,
    });
    let tunnel = Tunnel::new(family.peers[n], networks.iter().copied(), outer);
    Port { max_frame: 1514 - overhead as u32, ..port(Attachment::Tunnel(Arc::new(tunnel))) }
}

fn ports(family: Family) -> Vec<Port> {
    let overhead = OVERHEAD[usize::from(family.own.is_ipv6())];
    vec![
        port(access(0)),
        port(trunk(&[(7, 0)], None)),
        port(access(1)),
        port(access(2)),
        peer(family, 0, &[RED, BLUE], overhead),
        peer(family, 1, &[RED], overhead),
    ]
}

fn with_underlay(snapshot: Snapshot, family: Family) -> Snapshot {
    snapshot.with_underlay(Some(Underlay::new(
        (UNDER, PortId(UPLINK)),
        (VTEP, family.own, vxlan::UDP_PORT),
        &[(family.peers[0], PortId(FIRST)), (family.peers[1], PortId(SECOND))],
        &[(vni(100), RED), (vni(200), BLUE)],
        [0; 2],
    )))
}

fn switch(family: Family) -> Switch {
    let mut switch = Switch::new(&ports(family), 3);
    switch.networks[0].vni = Some(vni(100));
    switch.networks[1].vni = Some(vni(200));
    switch.configure(&ports(family));
    let empty = Snapshot::new(vec![], vec![], switch.fdb.clone());
    switch.snapshot = with_underlay(std::mem::replace(&mut switch.snapshot, empty), family);
    switch
}

/// A packet to the VTEP as etherparse writes it: from where, TOS, UDP ports and payload.
fn packet(source: IpAddr, own: IpAddr, tos: u8, port: u16, payload: &[u8]) -> Vec<u8> {
    let eth = PacketBuilder::ethernet2(ROUTER.0, VTEP.0);
    let builder = match (source, own) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let mut header =
                etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::UDP, a.octets(), b.octets())
                    .unwrap();
            header.dscp = etherparse::IpDscp::try_new(tos >> 2).unwrap();
            header.ecn = etherparse::IpEcn::try_new(tos & 3).unwrap();
            eth.ip(etherparse::IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default()))
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let header = etherparse::Ipv6Header {
                traffic_class: tos,
                hop_limit: 64,
                source: a.octets(),
                destination: b.octets(),
                ..Default::default()
            };
            eth.ip(etherparse::IpHeaders::Ipv6(header, etherparse::Ipv6Extensions::default()))
        }
        _ => unreachable!("one family"),
    };
    let builder = builder.udp(50_000, port);
    let mut bytes = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut bytes, payload).unwrap();
    bytes
}

fn vxlan(n: u32, inner: &[u8]) -> Vec<u8> {
    [&[8, 0, 0, 0, (n >> 16) as u8, (n >> 8) as u8, n as u8, 0], inner].concat()
}

/// A frame of this VNI from the VTEP `from`.
fn tunnelled(family: Family, from: usize, n: u32, inner: &[u8]) -> Vec<u8> {
    packet(family.peers[from], family.own, 0, vxlan::UDP_PORT, &vxlan(n, inner))
}

fn receive(switch: &mut Switch, port: u16, bytes: &[u8]) -> Outcome {
    switch.receive(port, &mut [VecFrame::new(bytes)]).remove(0)
}

fn ends(outcome: &Outcome) -> Vec<u16> {
    outcome.out.iter().map(|(port, _)| *port).collect()
}

#[track_caller]
fn assert_dropped(outcome: &Outcome, reason: Reason) {
    assert_eq!((outcome.verdict, ends(outcome)), (Verdict::Drop(reason), vec![]));
}

/// What etherparse reads in a packet that left by the underlay.
struct Read {
    source: IpAddr,
    destination: IpAddr,
    class: u8,
    ttl: u8,
    ports: (u16, u16),
    vni: u32,
    inner: Vec<u8>,
}

fn read(bytes: &[u8]) -> Read {
    let packet = SlicedPacket::from_ethernet(bytes).unwrap();
    let (source, destination, class, ttl) = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(v4) => {
            let header = v4.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert!(header.dont_fragment && !header.more_fragments);
            let class = header.dscp.value() << 2 | header.ecn.value();
            (IpAddr::from(header.source), IpAddr::from(header.destination), class, header.time_to_live)
        }
        NetSlice::Ipv6(v6) => {
            let header = v6.header().to_header();
            let ends = (IpAddr::from(header.source), IpAddr::from(header.destination));
            (ends.0, ends.1, header.traffic_class, header.hop_limit)
        }
        other => panic!("{other:?}"),
    };
    let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("no UDP") };
    if source.is_ipv4() {
        assert_eq!(udp.checksum(), 0);
    } else {
        let header = udp.to_header();
        let (IpAddr::V6(a), IpAddr::V6(b)) = (source, destination) else { panic!() };
        let right = header.calc_checksum_ipv6_raw(a.octets(), b.octets(), udp.payload()).unwrap();
        assert_eq!(udp.checksum(), right);
    }
    let payload = udp.payload();
    assert_eq!((&payload[..4], payload[7]), (&[8, 0, 0, 0][..], 0));
    Read {
        source,
        destination,
        class,
        ttl,
        ports: (udp.source_port(), udp.destination_port()),
        vni: u32::from_be_bytes([0, payload[4], payload[5], payload[6]]),
        inner: payload[8..].to_vec(),
    }
}

#[test]
fn a_frame_is_flooded_to_every_peer_of_its_network_and_an_answer_goes_to_one() {
    for family in families() {
        let mut switch = switch(family);
        let question = frame(BROADCAST, A).payload(&[5; 50]).bytes();
        let outcome = receive(&mut switch, 0, &question);
        assert_eq!(ends(&outcome), [1, UPLINK, UPLINK]);
        let reads: Vec<Read> = outcome.out[1..].iter().map(|(_, bytes)| read(bytes)).collect();
        for (n, read) in reads.iter().enumerate() {
            assert_eq!((read.source, read.destination), (family.own, family.peers[n]));
            assert_eq!((read.class, read.ttl, read.ports.1, read.vni), (0xb8, 64, 4789, 100));
            assert!(read.ports.0 >= 49152);
            assert_eq!(read.inner, question);
        }
        assert_eq!(outcome.out[1].1[..12], [ROUTER.0, VTEP.0].concat());

        // B answers from the second; from then on A's frames go there alone, tagged or not.
        let answer = frame(A, B).payload(&[6; 50]).bytes();
        let outcome = receive(&mut switch, UPLINK, &tunnelled(family, 1, 100, &answer));
        assert_eq!(outcome.out, [(0, answer)]);
        assert_eq!(switch.fdb.lookup(RED, B), Some(PortId(SECOND)));
        let more = frame(B, A).tag(Tag::dot1q(0xe007)).payload(&[7; 50]);
        let outcome = receive(&mut switch, 1, &more.bytes());
        assert_eq!(ends(&outcome), [UPLINK]);
        let read = read(&outcome.out[0].1);
        assert_eq!(read.destination, family.peers[1]);
        assert_eq!(read.inner, frame(B, A).payload(&[7; 50]).bytes(), "without its tag");
        switch.assert_conserved();
    }
}

#[test]
fn frames_out_of_a_tunnel_stay_in_their_network_and_never_go_into_another_tunnel() {
    for family in families() {
        let mut switch = switch(family);
        let flood = frame(BROADCAST, B).payload(&[1; 50]).bytes();
        let outcome = receive(&mut switch, UPLINK, &tunnelled(family, 0, 100, &flood));
        assert_eq!(ends(&outcome), [0, 1], "to red's ports, and to no VTEP");
        let outcome = receive(&mut switch, UPLINK, &tunnelled(family, 0, 200, &flood));
        assert_eq!(ends(&outcome), [BLUE_PORT]);
        // B is behind the first; what the second sends to it would go back into a tunnel.
        let to_b = frame(B, Mac([2, 0, 0, 0, 0, 0xc])).payload(&[2; 50]).bytes();
        let outcome = receive(&mut switch, UPLINK, &tunnelled(family, 1, 100, &to_b));
        assert_dropped(&outcome, Reason::SplitHorizon);
        switch.assert_conserved();
    }
}

#[test]
fn what_is_not_for_a_network_by_a_peer_of_it_is_dropped() {
    for family in families() {
        let inner = frame(BROADCAST, B).payload(&[1; 50]).bytes();
        let good = vxlan(100, &inner);
        let from = |n: usize, port, payload: &[u8]| packet(family.peers[n], family.own, 0, port, payload);
        let stranger = match family.own {
            IpAddr::V4(_) => IpAddr::from([192, 0, 2, 77]),
            IpAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 77]),
        };
        let without_flag = [&[0xf7, 0, 0, 0, 0, 0, 100, 0], &inner[..]].concat();
        let tagged = frame(BROADCAST, B).tag(Tag::dot1q(7)).payload(&[1; 50]).bytes();
        let hidden = frame(BROADCAST, B).tag(Tag::dot1q(0)).tag(Tag::dot1q(7)).payload(&[1; 50]).bytes();
        let cases = [
            (from(0, 4789, &vxlan(101, &inner)), Reason::VxlanUnknownVni),
            (from(1, 4789, &vxlan(200, &inner)), Reason::VxlanUnknownPeer),
            (packet(stranger, family.own, 0, 4789, &good), Reason::VxlanUnknownPeer),
            (from(0, 4790, &good), Reason::VxlanUdpPort),
            (from(0, 4789, &without_flag), Reason::VxlanBadHeader),
            (from(0, 4789, &good[..7]), Reason::VxlanBadHeader),
            (from(0, 4789, &good[..8 + 13]), Reason::Runt),
            (from(0, 4789, &vxlan(100, &tagged)), Reason::VxlanInnerTag),
            (from(0, 4789, &vxlan(100, &hidden)), Reason::VxlanInnerTag),
            (from(0, 4789, &vxlan(100, &frame(BROADCAST, BROADCAST).bytes())), Reason::BadSource),
        ];
        let mut switch = switch(family);
        for (bytes, reason) in cases {
            assert_dropped(&receive(&mut switch, UPLINK, &bytes), reason);
        }
        // By a port that is not the underlay's the same bytes are nothing but bytes.
        let mut elsewhere = packet(family.peers[0], family.own, 0, 4789, &good);
        elsewhere[..6].copy_from_slice(&BROADCAST.0);
        assert_eq!(ends(&receive(&mut switch, BLUE_PORT, &elsewhere)), [UPLINK], "blue's own tunnel");
        switch.assert_conserved();
    }
}

#[test]
fn fragments_and_wrong_header_checksums_are_dropped() {
    let family = families()[0];
    let mut switch = switch(family);
    let whole = tunnelled(family, 0, 100, &frame(BROADCAST, B).payload(&[1; 50]).bytes());
    let mut wrong = whole.clone();
    wrong[25] ^= 1;
    assert_dropped(&receive(&mut switch, UPLINK, &wrong), Reason::VxlanBadHeader);
    for (flags, offset) in [(0x20, 0), (0, 1)] {
        let mut fragment = whole.clone();
        (fragment[20], fragment[21], fragment[24], fragment[25]) = (flags, offset, 0, 0);
        let checksum = checksum::Sum::of(&fragment[14..34]).checksum();
        fragment[24..26].copy_from_slice(&checksum.to_be_bytes());
        assert_dropped(&receive(&mut switch, UPLINK, &fragment), Reason::VxlanFragment);
    }
}

#[test]
fn packets_that_are_not_for_the_vtep_stay_in_the_underlay() {
    for family in families() {
        let mut switch = switch(family);
        let inner = frame(BROADCAST, B).payload(&[1; 50]).bytes();
        let mut to_another_mac = tunnelled(family, 0, 100, &inner);
        to_another_mac[..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
        let to_another_address = packet(family.peers[0], family.peers[1], 0, 4789, &vxlan(100, &inner));
        for bytes in [to_another_mac, to_another_address] {
            assert_dropped(&receive(&mut switch, UPLINK, &bytes), Reason::NoDestination);
        }
    }
}

#[test]
fn congestion_goes_in_and_comes_out() {
    for family in families() {
        let mut switch = switch(family);
        receive(&mut switch, 0, &frame(BROADCAST, A).payload(&[1; 50]).bytes());
        for ecn in 0..4 {
            let mut inner = tcp(100).bytes();
            inner[15] = ecn;
            inner[24..26].fill(0);
            let checksum = checksum::Sum::of(&inner[14..34]).checksum();
            inner[24..26].copy_from_slice(&checksum.to_be_bytes());
            let out = receive(&mut switch, 0, &inner);
            assert_eq!(read(&out.out.last().unwrap().1).class, 0xb8 | ecn);
            // Back, marked on the way.
            inner[..12].copy_from_slice(&[A.0, B.0].concat());
            let marked = packet(family.peers[0], family.own, 3, 4789, &vxlan(100, &inner));
            let outcome = receive(&mut switch, UPLINK, &marked);
            if ecn == 0 {
                assert_dropped(&outcome, Reason::VxlanCongested);
            } else {
                assert_eq!((ends(&outcome), outcome.out[0].1[15]), (vec![0], 3));
                assert_eq!(checksum::Sum::of(&outcome.out[0].1[14..34]).checksum(), 0);
            }
        }
    }
}

#[test]
fn the_longest_frame_fits_and_a_longer_one_does_not() {
    for family in families() {
        let limit = 1514 - OVERHEAD[usize::from(family.own.is_ipv6())];
        let mut switch = switch(family);
        receive(&mut switch, UPLINK, &tunnelled(family, 0, 100, &frame(BROADCAST, B).bytes()));
        for (len, fits) in [(limit, true), (limit + 1, false)] {
            let bytes = frame(B, A).payload(&vec![1; len - 14]).bytes();
            let outcome = receive(&mut switch, 0, &bytes);
            if fits {
                assert_eq!(outcome.out[0].1.len(), 1514);
            } else {
                assert_eq!(outcome.lost, [(FIRST, Reason::TooBigEgress)]);
            }
        }
        switch.assert_conserved();
    }
}

#[test]
fn a_sender_s_unfinished_work_is_known_again_inside() {
    let family = families()[0];
    let mut switch = switch(family);
    let unfinished = tcp(3000).gso(1000);
    let outer = tunnelled(family, 0, 100, unfinished.bytes());
    let mut offload = unfinished.meta().offload;
    offload.shift_forward(50);
    let mut frames = [VecFrame::new(&outer).with_offload(offload)];
    let outcome = switch.receive(UPLINK, &mut frames).remove(0);
    assert_eq!(ends(&outcome), [0, 1]);
    assert_eq!(frames[0].meta().offload, unfinished.meta().offload);
    assert_eq!(frames[0].bytes(), unfinished.bytes());
}

proptest! {
    /// Whatever is in a tunnel comes out as it went in: through one switch's tunnel, and out of it again.
    #[test]
    fn what_goes_in_comes_out(payload: Vec<u8>, v6: bool, n in 0..64_u8) {
        let family = families()[usize::from(v6)];
        let mut switch = switch(family);
        let inner = frame(BROADCAST, Mac([2, 1, 1, 1, 1, n])).payload(&payload).bytes();
        let out = receive(&mut switch, 0, &inner);
        let read = read(&out.out.last().unwrap().1);
        prop_assert_eq!(&read.inner, &inner);
        let back = receive(&mut switch, UPLINK, &tunnelled(family, 0, read.vni, &inner));
        prop_assert_eq!(&back.out[0].1, &inner);
    }

    /// Any bytes to the VTEP: no panic, nothing lost, nothing in a network but by a peer of it.
    #[test]
    fn any_payload_is_accounted_for(payload: Vec<u8>, v6: bool, cut in 0..120_usize, flip in 12..90_usize, bits: u8) {
        let family = families()[usize::from(v6)];
        let mut switch = switch(family);
        let mut bytes = packet(family.peers[0], family.own, 0, 4789, &vxlan(100, &payload));
        if let Some(byte) = bytes.get_mut(flip) {
            *byte ^= bits;
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        let outcome = receive(&mut switch, UPLINK, &bytes);
        prop_assert!(outcome.out.iter().all(|(port, _)| *port != UPLINK));
        switch.assert_conserved();
    }
}
