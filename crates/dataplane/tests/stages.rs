//! Each step as a table of cases: topology, frame in, verdict, bytes out. Every drop reason has a case.

mod testbed;

use std::collections::HashSet;

use testbed::claim::{self, OTHER4, OTHER6, OWN4};
use testbed::*;
use vswitch_dataplane::acl::{Acls, Action, Rule};
use vswitch_dataplane::{Attachment, NetId, Port, PortId, Reason, Storm, Verdict};
use vswitch_wire::testing::VecFrame;
use vswitch_wire::{Csum, FrameBuf, Gso, GsoKind, Mac, Offload, Tag};

/// Frames come in by port 0 unless told.
struct Case {
    name: &'static str,
    ports: Vec<Port>,
    /// (network, MAC, port) of static entries.
    known: Vec<(u16, Mac, u16)>,
    /// Frames that came in before.
    before: Vec<(u16, VecFrame)>,
    ingress: u16,
    frame: VecFrame,
    verdict: Verdict,
    out: Vec<(u16, Vec<u8>)>,
    lost: Vec<(u16, Reason)>,
}

/// A case that is dropped with `reason`, to be changed where it differs.
fn dropped(name: &'static str, reason: Reason, ports: Vec<Port>, frame: VecFrame) -> Case {
    let verdict = Verdict::Drop(reason);
    let (known, before, out, lost) = Default::default();
    Case { name, ports, known, before, ingress: 0, frame, verdict, out, lost }
}

/// A case that is flooded in network 0.
fn flooded(name: &'static str, ports: Vec<Port>, frame: VecFrame, out: Vec<(u16, Vec<u8>)>) -> Case {
    Case { verdict: FLOOD, out, ..dropped(name, Reason::NoDestination, ports, frame) }
}

const FLOOD: Verdict = Verdict::Flood { network: NetId(0) };

fn to_port(port: u16) -> Verdict {
    Verdict::Unicast { network: NetId(0), port: PortId(port) }
}

fn accesses(networks: &[u16]) -> Vec<Port> {
    networks.iter().map(|&n| port(access(n))).collect()
}

fn ports(attachments: &[Attachment]) -> Vec<Port> {
    attachments.iter().cloned().map(port).collect()
}

fn isolated(n: u16) -> Port {
    Port { isolated: true, ..port(access(n)) }
}

/// An untagged frame from A to B.
fn plain() -> Vec<u8> {
    eth(B, A, &[], b"payload")
}

fn one_tag(tci: u16) -> Vec<u8> {
    eth(B, A, &[(DOT1Q, tci)], b"payload")
}

fn admission() -> Vec<Case> {
    let two = || accesses(&[0, 0]);
    let case = |name, reason, frame: Vec<u8>| dropped(name, reason, two(), VecFrame::new(&frame));
    let reserved = |last| eth(Mac([1, 0x80, 0xc2, 0, 0, last]), A, &[], b"");
    let with = |bytes: &[u8], tag, headroom| VecFrame::with_headroom(bytes, headroom).with_tag(tag);
    vec![
        case("no byte at all", Reason::Runt, vec![]),
        case("one byte less than a header", Reason::Runt, plain()[..13].to_vec()),
        flooded("a header alone", two(), VecFrame::new(&plain()[..14]), vec![(1, plain()[..14].to_vec())]),
        case("a tag, and the EtherType behind it cut off", Reason::Runt, one_tag(0)[..17].to_vec()),
        case("a tag without its TCI", Reason::Runt, one_tag(0)[..15].to_vec()),
        dropped(
            "a tag beside the bytes makes no header longer",
            Reason::Runt,
            two(),
            with(&plain()[..13], Tag::dot1q(0), 64),
        ),
        case("broadcast source", Reason::BadSource, eth(B, Mac::BROADCAST, &[], b"")),
        case("group source", Reason::BadSource, eth(B, GROUP, &[], b"")),
        case("zero source", Reason::BadSource, eth(B, Mac::ZERO, &[], b"")),
        case("zero destination", Reason::ZeroDestination, eth(Mac::ZERO, A, &[], b"")),
        case("spanning tree", Reason::ReservedMac, reserved(0)),
        case("pause", Reason::ReservedMac, reserved(1)),
        case("the last reserved address", Reason::ReservedMac, reserved(15)),
        flooded("the first that is not", two(), VecFrame::new(&reserved(16)), vec![(1, reserved(16))]),
        dropped(
            "an 802.1ad tag beside the bytes that does not fit before them",
            Reason::NoHeadroom,
            two(),
            with(&plain(), Tag { tpid: DOT1AD, tci: 5 }, 3),
        ),
        dropped("a port that is gone", Reason::PortGone, vec![], VecFrame::new(&plain())),
    ]
}

fn lengths() -> Vec<Case> {
    let long = |tags: &[(u16, u16)], len| eth(B, A, tags, &vec![7; len]);
    let two = || accesses(&[0, 0]);
    let trunks = || ports(&[trunk(&[(10, 0)], None), trunk(&[(10, 0)], None)]);
    let too_big = |name, reason, ports, frame: Vec<u8>| dropped(name, reason, ports, VecFrame::new(&frame));
    let passes = |name, ports, frame: Vec<u8>| flooded(name, ports, VecFrame::new(&frame), vec![(1, frame)]);
    let small = || vec![port(access(0)), Port { max_frame: 1014, ..port(access(0)) }, port(access(0))];
    let double = [(DOT1Q, 10), (DOT1AD, 5)];
    vec![
        passes("an MTU's worth", two(), long(&[], 1500)),
        too_big("one byte more", Reason::TooBigIngress, two(), long(&[], 1501)),
        passes("an MTU's worth behind a tag", trunks(), long(&[(DOT1Q, 10)], 1500)),
        too_big("one byte more behind a tag", Reason::TooBigIngress, trunks(), long(&[(DOT1Q, 10)], 1501)),
        passes("an MTU's worth behind an 802.1ad tag", two(), long(&[(DOT1AD, 10)], 1500)),
        too_big("one byte more behind it", Reason::TooBigIngress, two(), long(&[(DOT1AD, 10)], 1501)),
        passes("only the outermost tag is free", trunks(), long(&double, 1496)),
        too_big("a second tag is payload", Reason::TooBigIngress, trunks(), long(&double, 1497)),
        Case {
            lost: vec![(1, Reason::TooBigEgress)],
            ..flooded("a smaller MTU", small(), VecFrame::new(&long(&[], 1001)), vec![(2, long(&[], 1001))])
        },
        Case {
            lost: vec![(1, Reason::TooBigEgress)],
            ..flooded(
                "an 802.1ad tag is payload behind the trunk's",
                ports(&[access(0), trunk(&[(10, 0)], None)]),
                VecFrame::new(&long(&[(DOT1AD, 5)], 1497)),
                vec![],
            )
        },
    ]
}

/// The metadata is judged before anything else reads it.
fn offloads() -> Vec<Case> {
    let two = || accesses(&[0, 0]);
    let len = tcp(3000).bytes().len() as u16;
    let bad = |name, csum, gso| {
        dropped(name, Reason::BadOffload, two(), tcp(3000).build().with_offload(Offload { csum, gso }))
    };
    let csum = |start, offset| Some(Csum { start, offset });
    let gso = |kind, size| Some(Gso { kind, size, ecn: false });
    let mut short_header = tcp(3000).gso(1000);
    short_header.bytes_mut()[34 + 12] = 0x40;
    let whole_of = |name, frame: VecFrame| {
        let bytes = frame.bytes().to_vec();
        flooded(name, two(), frame, vec![(1, bytes)])
    };
    let whole = |name, size, payload| whole_of(name, tcp(payload).gso(size));
    let provider = tcp(1460).tag(Tag { tpid: DOT1AD, tci: 5 });
    let lost = vec![(1, Reason::TooBigEgress)];
    vec![
        bad("a checksum in the MAC header", csum(12, 16), None),
        bad("a checksum field past the end", csum(34, len - 35), None),
        bad("a checksum that starts past the end", csum(len, 0), None),
        bad("the largest offsets there are", csum(u16::MAX, u16::MAX), None),
        bad("GSO without checksum", None, gso(GsoKind::Tcp4, 1000)),
        bad("GSO of no size", csum(34, 16), gso(GsoKind::Tcp4, 0)),
        bad("smaller segments than TCP makes", csum(34, 16), gso(GsoKind::Tcp4, 47)),
        whole("the smallest that TCP makes", 48, 3000),
        dropped("more segments than may be", Reason::BadOffload, two(), tcp(50_000).gso(48)),
        bad("more datagrams than may be", csum(34, 6), gso(GsoKind::Udp, 23)),
        bad("TCP with the checksum of UDP", csum(34, 6), gso(GsoKind::Tcp4, 1000)),
        bad("UDP with the checksum of TCP", csum(34, 16), gso(GsoKind::Udp, 1000)),
        bad("a checksum in the IP header", csum(24, 0), None),
        bad("a TCP header past the end", csum(len - 18, 16), gso(GsoKind::Tcp4, 1000)),
        dropped("a TCP header of four words", Reason::BadOffload, two(), short_header),
        whole("segments of an MTU's worth", 1460, 3000),
        Case { lost, out: vec![], ..whole("segments of one byte more", 1461, 3000) },
        whole("a segment size beyond the frame's one segment", 9000, 1460),
        whole_of("the same behind an 802.1ad tag, which does not count", provider.gso(9000)),
    ]
}

/// Access ports are in network 0, and so is VLAN 10 of trunks; VLAN 20 is network 1.
fn vlans() -> Vec<Case> {
    let t = |native| trunk(&[(10, 0), (20, 1)], native);
    let translating = || trunk(&[(110, 0), (120, 1)], None);
    let bad = |name, reason, attachment, frame: Vec<u8>| {
        dropped(name, reason, ports(&[attachment, access(0), access(1)]), VecFrame::new(&frame))
    };
    let good = |name, from, to, frame: Vec<u8>, out: Vec<u8>| {
        flooded(name, ports(&[from, to, access(1)]), VecFrame::new(&frame), vec![(1, out)])
    };
    let double = eth(B, A, &[(DOT1Q, tci(0, 10)), (DOT1Q, 20)], b"payload");
    let prio_double = eth(B, A, &[(DOT1Q, tci(1, 0)), (DOT1Q, 20)], b"payload");
    let ad = eth(B, A, &[(DOT1AD, tci(5, 20))], b"payload");
    let in_ten = |tags: &[(u16, u16)]| eth(B, A, &[&[(DOT1Q, 10)], tags].concat(), b"payload");
    vec![
        bad("a port without network", Reason::NoNetwork, Attachment::None, plain()),
        bad("tagged on access", Reason::TaggedOnAccess, access(0), one_tag(10)),
        bad("VLAN ID 4095 on access", Reason::TaggedOnAccess, access(0), one_tag(4095)),
        bad("a VLAN tag behind a priority tag", Reason::TaggedOnAccess, access(0), prio_double.clone()),
        bad("untagged, and no native network", Reason::UntaggedNoNative, t(None), plain()),
        bad("priority-tagged, and no native network", Reason::UntaggedNoNative, t(None), one_tag(tci(7, 0))),
        bad("802.1ad, and no native network", Reason::UntaggedNoNative, t(None), ad.clone()),
        bad("a VLAN that the trunk does not carry", Reason::VlanNotAllowed, t(Some(0)), one_tag(30)),
        bad("a VLAN ID of another trunk", Reason::VlanNotAllowed, translating(), one_tag(10)),
        bad("VLAN ID 4095 on a trunk", Reason::ReservedVid, t(Some(0)), one_tag(4095)),
        good("access to access", access(0), access(0), plain(), plain()),
        good("access to trunk", access(0), t(None), plain(), one_tag(10)),
        good("a priority survives a trunk", access(0), t(None), one_tag(tci(6, 0)), one_tag(tci(6, 10))),
        good("a priority tag does not leave alone", access(0), access(0), one_tag(tci(6, 0)), plain()),
        good("trunk to access", t(None), access(0), one_tag(tci(3, 10)), plain()),
        good("native to access", t(Some(0)), access(0), plain(), plain()),
        good("tagged on the wire although native", t(Some(0)), access(0), one_tag(10), plain()),
        good("native leaves untagged", access(0), t(Some(0)), plain(), plain()),
        good("translation keeps PCP and DEI", t(None), translating(), one_tag(0xb00a), one_tag(0xb06e)),
        good("802.1ad is payload on access ports", access(0), access(0), ad.clone(), ad.clone()),
        good("802.1ad behind a trunk's tag", access(0), t(None), ad.clone(), in_ten(&[(DOT1AD, tci(5, 20))])),
        good("802.1ad is untagged on a trunk", t(Some(0)), access(0), ad.clone(), ad.clone()),
        good("a second tag between trunks", t(None), t(None), double.clone(), double.clone()),
        Case {
            lost: vec![(1, Reason::InnerTag)],
            out: vec![],
            ..good("hopping by a trunk's native network", t(None), t(Some(0)), double.clone(), vec![])
        },
        Case {
            lost: vec![(1, Reason::InnerTag)],
            out: vec![],
            ..good("hopping by an access port", t(None), access(0), double, vec![])
        },
        Case {
            lost: vec![(1, Reason::InnerTag)],
            out: vec![],
            ..good("hopping by a priority tag", t(Some(0)), access(0), prio_double.clone(), vec![])
        },
        good(
            "a priority tag becomes the native network's",
            t(Some(0)),
            t(None),
            prio_double,
            eth(B, A, &[(DOT1Q, tci(1, 10)), (DOT1Q, 20)], b"payload"),
        ),
    ]
}

fn forwarding() -> Vec<Case> {
    let know = |mut case: Case, port| {
        case.known = vec![(0, B, port)];
        case
    };
    let plain_drop = |name, reason, ports| dropped(name, reason, ports, VecFrame::new(&plain()));
    let one = |name, ports, port| Case {
        verdict: to_port(port),
        out: vec![(port, plain())],
        ..plain_drop(name, Reason::NoDestination, ports)
    };
    let everywhere = |name, ports, out: &[u16]| {
        flooded(name, ports, VecFrame::new(&plain()), out.iter().map(|&p| (p, plain())).collect())
    };
    let down = || Port { up: false, ..port(access(0)) };
    let from_b = VecFrame::new(&eth(A, B, &[], b"hello"));
    // A sits behind port 1 and, in turn, behind port 0.
    let flapping = (0..500).map(|n| ((n + 1) % 2, VecFrame::new(&plain()))).collect();
    vec![
        know(one("a known destination", accesses(&[0, 0, 0]), 2), 2),
        Case { before: vec![(2, from_b)], ..one("a destination learnt before", accesses(&[0, 0, 0]), 2) },
        know(plain_drop("behind the ingress port", Reason::SamePort, accesses(&[0, 0])), 0),
        know(plain_drop("isolated from it", Reason::Isolated, vec![isolated(0), isolated(0)]), 1),
        know(one("only one of the two is isolated", vec![isolated(0), port(access(0))], 1), 1),
        know(plain_drop("behind a port that is down", Reason::PortDown, vec![port(access(0)), down()]), 1),
        know(everywhere("behind a port that left the network", accesses(&[0, 1, 0]), &[2]), 1),
        know(everywhere("behind a port that is gone", accesses(&[0, 0]), &[1]), 9),
        everywhere("known in another network only", accesses(&[0, 0, 1, 1]), &[1]),
        everywhere("isolated ports are left out", vec![isolated(0), isolated(0), port(access(0))], &[2]),
        everywhere("ports that are down are left out", vec![port(access(0)), down(), port(access(0))], &[2]),
        plain_drop("alone in the network", Reason::NoDestination, accesses(&[0, 1])),
        plain_drop("nobody but isolated ports", Reason::NoDestination, vec![isolated(0), isolated(0)]),
        Case {
            before: flapping,
            known: vec![],
            ..plain_drop("a source at two ports", Reason::MacFlap, accesses(&[0, 0, 0]))
        },
    ]
}

/// A limit of 0 drops the first frame already.
fn storms() -> Vec<Case> {
    let none = Some(0);
    let limited = |storm| vec![Port { storm, ..port(access(0)) }, port(access(0))];
    let to = |mac| VecFrame::new(&eth(mac, A, &[], b""));
    let drop = |name, reason, storm, mac| dropped(name, reason, limited(storm), to(mac));
    let pass = |name, storm, mac| flooded(name, limited(storm), to(mac), vec![(1, eth(mac, A, &[], b""))]);
    let (broadcast, multicast, unknown) = (
        Storm { broadcast: none, ..Storm::default() },
        Storm { multicast: none, ..Storm::default() },
        Storm { unknown: none, ..Storm::default() },
    );
    vec![
        drop("broadcast", Reason::StormBroadcast, broadcast, Mac::BROADCAST),
        drop("multicast", Reason::StormMulticast, multicast, GROUP),
        drop("unknown unicast", Reason::StormUnknown, unknown, B),
        pass("broadcast is no multicast", multicast, Mac::BROADCAST),
        pass("multicast is no broadcast", broadcast, GROUP),
        pass("unknown unicast is neither", Storm { unknown: None, ..multicast }, B),
        Case {
            known: vec![(0, B, 1)],
            verdict: to_port(1),
            out: vec![(1, eth(B, A, &[], b""))],
            ..drop("known unicast has no limit", Reason::StormUnknown, unknown, B)
        },
    ]
}

/// Lists of one rule; what they judge by is tested where they are compiled.
fn filters() -> Vec<Case> {
    let list = |rule: Rule, default| acl(&[rule], default);
    let deny_all = || list(Rule::any(Action::Deny), Action::Allow);
    let allow_all = || list(Rule::any(Action::Allow), Action::Deny);
    let tcp_only = || list(Rule { protocol: Some(6), ..Rule::any(Action::Allow) }, Action::Deny);
    let ingress = |list| Acls { ingress: list, ..Acls::default() };
    let egress = |list| Acls { egress: list, ..Acls::default() };
    let from = |acl| vec![Port { acl, ..port(access(0)) }, port(access(0))];
    let to = |acl| vec![port(access(0)), Port { acl, ..port(access(0)) }, port(access(0))];
    let segment = tcp(10).bytes();
    let cut = VecFrame::new(&segment[..40]);
    vec![
        dropped("denied on the way in", Reason::AclIngress, from(ingress(deny_all())), tcp(10).build()),
        flooded(
            "allowed on the way in",
            from(ingress(allow_all())),
            tcp(10).build(),
            vec![(1, segment.clone())],
        ),
        flooded(
            "the other way is not judged",
            from(egress(deny_all())),
            tcp(10).build(),
            vec![(1, segment.clone())],
        ),
        dropped("an IP header that is cut short", Reason::AclUnreadable, from(ingress(tcp_only())), cut),
        Case {
            lost: vec![(1, Reason::AclEgress)],
            ..flooded(
                "denied on the way out",
                to(egress(deny_all())),
                tcp(10).build(),
                vec![(2, segment.clone())],
            )
        },
        Case {
            lost: vec![(1, Reason::AclUnreadable)],
            ..flooded(
                "the same header on the way out",
                to(egress(tcp_only())),
                VecFrame::new(&segment[..40]),
                vec![(2, segment[..40].to_vec())],
            )
        },
        flooded(
            "allowed on the way out",
            to(egress(tcp_only())),
            tcp(10).build(),
            vec![(1, segment.clone()), (2, segment)],
        ),
    ]
}

/// One of each reason; tests/guard.rs has the others.
fn guard() -> Vec<Case> {
    let case = |name, reason, frame: Vec<u8>| dropped(name, reason, claim::guarded(), VecFrame::new(&frame));
    let nd = |kind| claim::v6(claim::OWN6, claim::ICMPV6, &claim::nd(kind, OTHER6, None));
    vec![
        case("another's MAC", Reason::SpoofedMac, eth(A, B, &[], b"")),
        case("another's address", Reason::SpoofedIp, claim::udp4(OTHER4, (1, 2), b"")),
        case("another's address by ARP", Reason::SpoofedArp, claim::arp(2, (A, OTHER4), OWN4)),
        case("another's address by ND", Reason::SpoofedNd, nd(claim::ADVERTISEMENT)),
        case("another's lease", Reason::SpoofedDhcp, claim::udp4(OWN4, (68, 67), &claim::discover(B))),
        case("a DHCP server", Reason::RogueDhcp, claim::udp4(OWN4, (67, 68), b"")),
        case("a router", Reason::RogueRa, nd(claim::ROUTER_ADVERTISEMENT)),
        case("an inner tag", Reason::Unjudged, eth(B, A, &[(DOT1AD, 5)], b"payload")),
    ]
}

fn cases() -> Vec<Case> {
    [admission(), lengths(), offloads(), vlans(), guard(), filters(), forwarding(), storms()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn every_case_has_its_verdict_and_its_bytes() {
    for case in cases() {
        let mut switch = Switch::new(&case.ports, 2);
        for (network, mac, port) in &case.known {
            switch.fdb.add_static(NetId(*network), *mac, PortId(*port), switch.now).unwrap();
        }
        for (ingress, frame) in case.before {
            switch.receive(ingress, &mut [frame]);
        }
        let outcome = switch.receive(case.ingress, &mut [case.frame]).remove(0);
        assert_eq!(
            outcome,
            Outcome { verdict: case.verdict, out: case.out, lost: case.lost },
            "{}",
            case.name
        );
        if case.verdict != Verdict::Drop(Reason::PortGone) {
            switch.assert_conserved();
        }
    }
}

/// What only a worker can come across; its own tests have them.
const OF_THE_WORKER: [Reason; 5] =
    [Reason::BadSegmentation, Reason::PoolEmpty, Reason::NoNeighbour, Reason::TxFull, Reason::TxError];
/// What only a snapshot that is newer than the verdict brings about; see tests/egress.rs.
const OF_EGRESS: [Reason; 1] = [Reason::NotMember];
/// What needs another VTEP: tests/tunnel.rs.
const OF_TUNNELS: [Reason; 8] = [
    Reason::VxlanBadHeader,
    Reason::VxlanFragment,
    Reason::VxlanUdpPort,
    Reason::VxlanUnknownVni,
    Reason::VxlanUnknownPeer,
    Reason::VxlanInnerTag,
    Reason::VxlanCongested,
    Reason::SplitHorizon,
];

#[test]
fn every_drop_reason_has_a_case() {
    let elsewhere = OF_THE_WORKER.into_iter().chain(OF_EGRESS).chain(OF_TUNNELS);
    let mut seen: HashSet<Reason> = elsewhere.collect();
    for case in cases() {
        seen.extend(case.lost.iter().map(|(_, reason)| *reason));
        if let Verdict::Drop(reason) = case.verdict {
            seen.insert(reason);
        }
    }
    let missing: Vec<_> = Reason::ALL.iter().filter(|reason| !seen.contains(reason)).collect();
    assert!(missing.is_empty(), "no case drops for {missing:?}");
}

#[test]
fn a_tag_beside_the_bytes_is_the_same_as_one_in_them() {
    for case in [lengths(), vlans()].into_iter().flatten() {
        let run = |frame: VecFrame| {
            let mut switch = Switch::new(&case.ports, 2);
            let before = switch.rx_bytes(0);
            let outcome = switch.receive(0, &mut [frame]).remove(0);
            (outcome, switch.rx_bytes(0) - before)
        };
        let bytes = case.frame.bytes();
        assert_eq!(run(VecFrame::new(bytes)), run(out_of_band(bytes)), "{}", case.name);
    }
}

#[test]
fn names_and_texts_of_reasons_are_unique() {
    let names: HashSet<_> = Reason::ALL.iter().map(|r| r.name()).collect();
    let texts: HashSet<_> = Reason::ALL.iter().map(|r| r.text()).collect();
    assert_eq!((names.len(), texts.len()), (Reason::COUNT, Reason::COUNT));
    assert!(names.iter().all(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
}
