//! The guard: what a port's frames may claim, case by case, and that nothing else passes.

#![allow(clippy::unwrap_used)] // these are tests, although not all functions are marked so

mod testbed;

use std::net::{Ipv4Addr, Ipv6Addr};

use testbed::claim::*;
use testbed::*;
use vswitch_dataplane::{Learnt, NetId, Port, PortId, Reason, Verdict, explain};
use vswitch_wire::testing::{VecFrame, frame};
use vswitch_wire::{Instant, Tag, ethernet, vlan};

/// Why the first of `ports` does not let a frame in.
fn judged(ports: &[Port], frame: VecFrame) -> Option<Reason> {
    let mut switch = Switch::new(ports, 2);
    let told = explain(&switch.snapshot, switch.now, PortId(0), &mut frame.clone()).verdict;
    let outcome = switch.receive(0, &mut [frame]).remove(0);
    assert_eq!(told, outcome.verdict, "words and deeds");
    match outcome.verdict {
        Verdict::Drop(reason) => Some(reason),
        _ => None,
    }
}

#[track_caller]
fn holds(ports: &[Port], cases: &[(&str, Vec<u8>, Option<Reason>)]) {
    for (name, bytes, expected) in cases {
        assert_eq!(judged(ports, VecFrame::new(bytes)), *expected, "{name}");
    }
}

fn tcp4(source: impl Into<Ipv4Addr>) -> Vec<u8> {
    frame(B, A).ip(source.into(), OTHER4).tcp(1, 2, 0).payload(b"payload").bytes()
}

fn tcp6(source: Ipv6Addr) -> Vec<u8> {
    frame(B, A).ip(source, OTHER6).tcp(1, 2, 0).payload(b"payload").bytes()
}

const EXPERIMENTAL: u16 = 0x88b5;

#[test]
fn source_addresses() {
    let from_b = frame(A, B).ip(OWN4, OTHER4).tcp(1, 2, 0).bytes();
    let mut short = tcp4(OWN4);
    short[17] = 200;
    let none = Ipv4Addr::UNSPECIFIED;
    let cases = [
        ("its own", tcp4(OWN4), None),
        ("another's MAC", from_b, Some(Reason::SpoofedMac)),
        ("another's MAC, of no IP", frame(A, B).bytes(), Some(Reason::SpoofedMac)),
        ("another's IPv4", tcp4(OTHER4), Some(Reason::SpoofedIp)),
        ("none", tcp4(none), Some(Reason::SpoofedIp)),
        ("IPv4 longer than its frame", short, Some(Reason::Unjudged)),
        ("IPv4 that is IPv6", raw(ethernet::TYPE_IPV4, &[0x60; 60]), Some(Reason::Unjudged)),
        ("its own IPv6", tcp6(OWN6), None),
        ("that of its MAC", tcp6(own_link_local()), None),
        ("that of another MAC", tcp6(vswitch_wire::ipv6::link_local_of(B)), Some(Reason::SpoofedIp)),
        ("another's IPv6", tcp6(OTHER6), Some(Reason::SpoofedIp)),
        ("no IPv6", tcp6(Ipv6Addr::UNSPECIFIED), Some(Reason::SpoofedIp)),
        ("an echo request of another's", v6(OTHER6, ICMPV6, &nd(128, OWN6, None)), Some(Reason::SpoofedIp)),
        ("ICMPv6 without a type", v6(OWN6, ICMPV6, &[]), Some(Reason::Unjudged)),
        ("another protocol", raw(EXPERIMENTAL, b"payload"), None),
    ];
    holds(&guarded(), &cases);
}

#[test]
fn what_hides_the_sender() {
    let snap = [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &tcp4(OTHER4)[14..]].concat();
    let old_tag = [&[0, 5, 8, 0][..], &tcp4(OTHER4)[14..]].concat();
    let inner = frame(B, A).tag(Tag { tpid: vlan::TPID_8021AD, tci: 5 });
    let cases = [
        ("an 802.1ad tag", inner.ip(OTHER4, OTHER4).tcp(1, 2, 0).bytes(), Some(Reason::Unjudged)),
        ("QinQ of old", raw(0x9100, &old_tag), Some(Reason::Unjudged)),
        ("LLC and SNAP", raw(snap.len() as u16, &snap), Some(Reason::Unjudged)),
        ("a length of nothing", raw(0, &snap), Some(Reason::Unjudged)),
        ("reverse ARP", raw(ethernet::TYPE_RARP, &arp(3, (A, OWN4), OWN4)[14..]), Some(Reason::Unjudged)),
    ];
    holds(&guarded(), &cases);
    let trunk = |mut ports: Vec<Port>| {
        ports.iter_mut().for_each(|port| port.attachment = testbed::trunk(&[(10, 0)], None));
        ports
    };
    let tagged = |tags: &[u16]| tags.iter().fold(frame(B, A), |f, vid| f.tag(Tag::dot1q(*vid)));
    let cases = [
        ("its own behind the trunk's tag", tagged(&[10]).ip(OWN4, OTHER4).tcp(1, 2, 0).bytes(), None),
        ("another's", tagged(&[10]).ip(OTHER4, OTHER4).tcp(1, 2, 0).bytes(), Some(Reason::SpoofedIp)),
        ("two tags", tagged(&[10, 0]).ip(OTHER4, OTHER4).tcp(1, 2, 0).bytes(), Some(Reason::Unjudged)),
    ];
    holds(&trunk(guarded()), &cases);
}

#[test]
fn arp_messages() {
    let none = Ipv4Addr::UNSPECIFIED;
    let mut foreign = arp(1, (A, OWN4), OTHER4);
    foreign[15] = 6;
    let cases = [
        ("asks", arp(1, (A, OWN4), OTHER4), None),
        ("answers", arp(2, (A, OWN4), OTHER4), None),
        ("asks as another", arp(1, (A, OTHER4), OWN4), Some(Reason::SpoofedArp)),
        ("answers as another", arp(2, (A, OTHER4), OWN4), Some(Reason::SpoofedArp)),
        ("gives its address to another", arp(2, (B, OWN4), OTHER4), Some(Reason::SpoofedArp)),
        ("probes for its own", arp(1, (A, none), OWN4), None),
        ("probes for another's", arp(1, (A, none), OTHER4), Some(Reason::SpoofedArp)),
        ("answers as nobody", arp(2, (A, none), OTHER4), Some(Reason::SpoofedArp)),
        ("asks the other way round", arp(8, (A, OWN4), OTHER4), Some(Reason::Unjudged)),
        ("is cut", arp(1, (A, OWN4), OTHER4)[..41].to_vec(), Some(Reason::Unjudged)),
        ("is of other hardware", foreign, Some(Reason::Unjudged)),
    ];
    holds(&guarded(), &cases);
}

#[test]
fn neighbour_discovery() {
    let none = Ipv6Addr::UNSPECIFIED;
    let from = |source, kind, target, option| v6(source, ICMPV6, &nd(kind, target, option));
    let (source, target) = (|mac| Some((1, mac)), |mac| Some((2, mac)));
    let refused = Some(Reason::SpoofedNd);
    let cases = [
        ("asks", from(OWN6, SOLICITATION, OTHER6, source(A)), None),
        ("asks by its link-local", from(own_link_local(), SOLICITATION, OTHER6, source(A)), None),
        ("asks as another", from(OTHER6, SOLICITATION, OWN6, source(A)), refused),
        ("asks with another's MAC", from(OWN6, SOLICITATION, OTHER6, source(B)), refused),
        ("takes its own", from(none, SOLICITATION, OWN6, None), None),
        ("takes another's", from(none, SOLICITATION, OTHER6, None), refused),
        ("answers", from(OWN6, ADVERTISEMENT, OWN6, target(A)), None),
        ("answers for another", from(OWN6, ADVERTISEMENT, OTHER6, target(A)), refused),
        ("answers as another", from(OTHER6, ADVERTISEMENT, OWN6, target(A)), refused),
        ("answers as nobody", from(none, ADVERTISEMENT, OWN6, target(A)), refused),
        ("answers with another's MAC", from(OWN6, ADVERTISEMENT, OWN6, target(B)), refused),
        (
            "answers with another's MAC twice",
            {
                let options = [2, 1, 2, 0, 0, 0, 0, 0xa, 2, 1, 2, 0, 0, 0, 0, 0xb];
                v6(OWN6, ICMPV6, &[nd(ADVERTISEMENT, OWN6, None), options.to_vec()].concat())
            },
            refused,
        ),
        ("asks for routers", from(own_link_local(), ROUTER_SOLICITATION, OWN6, source(A)), None),
        ("asks for routers as nobody", from(none, ROUTER_SOLICITATION, OWN6, None), None),
        ("asks for routers as another", from(OTHER6, ROUTER_SOLICITATION, OWN6, None), refused),
        (
            "listens to a group as nobody",
            v6(none, HOP_BY_HOP, &[&[58, 0, 5, 2, 0, 0, 1, 0][..], &nd(143, none, None)].concat()),
            None,
        ),
        ("is a router", from(own_link_local(), ROUTER_ADVERTISEMENT, OWN6, source(A)), Some(Reason::RogueRa)),
        ("is another router", from(OTHER6, ROUTER_ADVERTISEMENT, OWN6, source(A)), Some(Reason::RogueRa)),
        ("redirects", from(own_link_local(), REDIRECT, OTHER6, target(A)), Some(Reason::RogueRa)),
        (
            "an option of no length",
            v6(OWN6, ICMPV6, &[nd(SOLICITATION, OTHER6, None), vec![1, 0]].concat()),
            Some(Reason::Unjudged),
        ),
        ("cut", v6(OWN6, ICMPV6, &nd(ADVERTISEMENT, OWN6, None)[..20]), Some(Reason::Unjudged)),
    ];
    holds(&guarded(), &cases);
}

/// RFC 7113 section 2, RFC 6980.
#[test]
fn neighbour_discovery_does_not_hide_behind_extension_headers() {
    let router = nd(ROUTER_ADVERTISEMENT, OWN6, Some((1, A)));
    let advert = nd(ADVERTISEMENT, OWN6, Some((2, A)));
    let own = own_link_local();
    let options = |next| [next, 0, 1, 4, 0, 0, 0, 0];
    let fragment = |next, word: u16| {
        let [high, low] = word.to_be_bytes();
        [next, 0, high, low, 0, 0, 0, 1]
    };
    let behind =
        |first, headers: &[[u8; 8]], message: &[u8]| v6(own, first, &[&headers.concat(), message].concat());
    let many = [vec![options(OPTIONS); 8], vec![options(ICMPV6)]].concat();
    let cases = [
        ("options", behind(OPTIONS, &[options(ICMPV6)], &router), Some(Reason::RogueRa)),
        (
            "two of them",
            behind(HOP_BY_HOP, &[options(OPTIONS), options(ICMPV6)], &router),
            Some(Reason::RogueRa),
        ),
        (
            "authentication",
            behind(51, &[[ICMPV6, 2, 0, 0, 0, 0, 0, 1], [0; 8]], &router),
            Some(Reason::RogueRa),
        ),
        ("too many", behind(OPTIONS, &many, &router), Some(Reason::Unjudged)),
        ("an atomic fragment", behind(FRAGMENT, &[fragment(ICMPV6, 0)], &router), Some(Reason::RogueRa)),
        ("a first fragment", behind(FRAGMENT, &[fragment(ICMPV6, 1)], &router), Some(Reason::RogueRa)),
        (
            "an atomic fragment of its own",
            behind(FRAGMENT, &[fragment(ICMPV6, 0)], &advert),
            Some(Reason::Unjudged),
        ),
        (
            "options in a fragment",
            behind(FRAGMENT, &[fragment(OPTIONS, 1), options(ICMPV6)], &router),
            Some(Reason::Unjudged),
        ),
        (
            "options longer than the packet",
            behind(OPTIONS, &[[ICMPV6, 9, 1, 4, 0, 0, 0, 0]], &router),
            Some(Reason::Unjudged),
        ),
        ("a later fragment of anything", behind(FRAGMENT, &[fragment(ICMPV6, 8 | 1)], &router), None),
        (
            "an echo request in fragments",
            behind(FRAGMENT, &[fragment(ICMPV6, 1)], &nd(128, OWN6, None)),
            None,
        ),
        ("its own behind options", behind(OPTIONS, &[options(ICMPV6)], &advert), None),
    ];
    holds(&guarded(), &cases);
}

/// Fragments of the datagram, the first of so many bytes of it.
fn fragments(whole: &[u8], first: usize) -> [Vec<u8>; 2] {
    let (head, payload) = whole.split_at(34);
    let part = |payload: &[u8], word: u16| {
        let mut bytes = [head, payload].concat();
        bytes[16..18].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
        bytes[20..22].copy_from_slice(&word.to_be_bytes());
        bytes
    };
    [part(&payload[..first], 0x2000), part(&payload[first..], first as u16 / 8)]
}

#[test]
fn dhcp() {
    let none = Ipv4Addr::UNSPECIFIED;
    let ask = |source, client| udp4(source, (68, 67), &discover(client));
    let offer = |ports| udp4(OWN4, ports, &discover(B));
    let [first, rest] = fragments(&ask(OWN4, A), 240);
    let [first_offer, _] = fragments(&offer((67, 68)), 8);
    let [tiny, _] = fragments(&offer((67, 68)), 2);
    let cases = [
        ("asks without an address", ask(none, A), None),
        ("asks with its own", ask(OWN4, A), None),
        ("asks with another's", ask(OTHER4, A), Some(Reason::SpoofedIp)),
        ("asks for another", ask(none, B), Some(Reason::SpoofedDhcp)),
        ("asks in too few bytes", udp4(none, (68, 67), &discover(A)[..200]), Some(Reason::Unjudged)),
        ("asks in parts", first, Some(Reason::Unjudged)),
        ("another part", rest, None),
        ("says nothing else without an address", udp4(none, (68, 69), b""), Some(Reason::SpoofedIp)),
        ("serves", offer((67, 68)), Some(Reason::RogueDhcp)),
        ("serves from another port", offer((1067, 68)), Some(Reason::RogueDhcp)),
        ("relays", offer((67, 67)), Some(Reason::RogueDhcp)),
        ("serves as another", udp4(OTHER4, (67, 68), b""), Some(Reason::RogueDhcp)),
        ("serves in parts", first_offer, Some(Reason::RogueDhcp)),
        ("a part without ports", tiny, Some(Reason::Unjudged)),
        ("asks by IPv6", udp6(own_link_local(), (546, 547)), None),
        ("asks by IPv6 as another", udp6(OTHER6, (546, 547)), Some(Reason::SpoofedIp)),
        ("serves by IPv6", udp6(own_link_local(), (547, 546)), Some(Reason::RogueDhcp)),
        ("serves by IPv6 from another port", udp6(own_link_local(), (9, 546)), Some(Reason::RogueDhcp)),
        ("UDP without ports", v6(OWN6, UDP, &[0, 1]), Some(Reason::Unjudged)),
    ];
    holds(&guarded(), &cases);
}

#[test]
fn a_trusted_port_may_serve_and_route_as_itself() {
    let mut ports = guarded();
    ports[0].trusted = true;
    let router = |source, mac| v6(source, ICMPV6, &nd(ROUTER_ADVERTISEMENT, OWN6, Some((1, mac))));
    let redirect = nd(REDIRECT, OTHER6, Some((2, B)));
    let cases = [
        ("serves", udp4(OWN4, (67, 68), &discover(B)), None),
        ("relays", udp4(OWN4, (67, 67), &discover(B)), None),
        ("serves as another", udp4(OTHER4, (67, 68), &discover(B)), Some(Reason::SpoofedIp)),
        ("serves by IPv6", udp6(OWN6, (547, 546)), None),
        ("routes", router(own_link_local(), A), None),
        ("routes as another", router(OTHER6, A), Some(Reason::SpoofedNd)),
        ("routes with another's MAC", router(own_link_local(), B), Some(Reason::SpoofedNd)),
        ("routes as nobody", router(Ipv6Addr::UNSPECIFIED, A), Some(Reason::SpoofedNd)),
        ("redirects to another", v6(own_link_local(), ICMPV6, &redirect), None),
    ];
    holds(&ports, &cases);
}

#[test]
fn macs_or_addresses_alone_are_held_alone() {
    let macs = secured(&[A], &[], false, Vec::new());
    let cases = [
        ("any address", tcp4(OTHER4), None),
        ("any ARP", arp(2, (B, OTHER4), OWN4), None),
        ("what hides it", raw(100, b"LLC"), None),
        ("another MAC", frame(A, B).bytes(), Some(Reason::SpoofedMac)),
    ];
    holds(&macs, &cases);
    let none = Ipv6Addr::UNSPECIFIED;
    let from_b = frame(A, B).ip(vswitch_wire::ipv6::link_local_of(B), OTHER6).tcp(1, 2, 0).bytes();
    let cases = [
        ("its own", tcp4(OWN4), None),
        ("another's", tcp4(OTHER4), Some(Reason::SpoofedIp)),
        ("another's IPv6", tcp6(OTHER6), Some(Reason::SpoofedIp)),
        ("that of any MAC", from_b, None),
        ("any ARP", arp(2, (B, OTHER4), OWN4), None),
        ("any neighbour", v6(OWN6, ICMPV6, &nd(ADVERTISEMENT, OTHER6, Some((2, B)))), None),
        ("a router", v6(own_link_local(), ICMPV6, &nd(ROUTER_ADVERTISEMENT, OWN6, None)), None),
        ("takes an address", v6(none, ICMPV6, &nd(SOLICITATION, OTHER6, None)), None),
        ("serves", udp4(OWN4, (67, 68), &discover(B)), None),
        ("what hides it", raw(100, b"LLC"), Some(Reason::Unjudged)),
    ];
    holds(&secured(&[], &[OWN4.into(), OWN6.into()], false, Vec::new()), &cases);
}

#[test]
fn a_port_without_addresses_has_those_that_it_is_given() {
    let learnt = |until| Learnt { network: NetId(0), address: OWN4.into(), until: Instant::from_secs(until) };
    let none = secured(&[A], &[], true, Vec::new());
    let cases = [
        ("no address yet", tcp4(OWN4), Some(Reason::SpoofedIp)),
        ("nor by ARP", arp(1, (A, OWN4), OTHER4), Some(Reason::SpoofedArp)),
        ("asks for one", udp4(Ipv4Addr::UNSPECIFIED, (68, 67), &discover(A)), None),
        ("that of its MAC", tcp6(own_link_local()), None),
    ];
    holds(&none, &cases);
    // The tests' switch has it 1000 s.
    holds(&secured(&[A], &[], true, vec![learnt(1001)]), &[("given", tcp4(OWN4), None)]);
    holds(&secured(&[A], &[], true, vec![learnt(1000)]), &[("over", tcp4(OWN4), Some(Reason::SpoofedIp))]);
}

#[test]
fn a_frame_to_be_cut_is_judged_once() {
    let gso = |source: Ipv4Addr| frame(B, A).ip(source, OTHER4).tcp(1, 2, 0).payload(&[7; 3000]).gso(1000);
    assert_eq!(judged(&guarded(), gso(OWN4)), None);
    assert_eq!(judged(&guarded(), gso(OTHER4)), Some(Reason::SpoofedIp));
}

#[test]
fn a_refused_source_is_not_learnt_and_its_drop_is_counted() {
    let mut switch = Switch::new(&guarded(), 1);
    let frames = [frame(A, B).bytes(), tcp4(OTHER4), tcp4(OWN4)];
    let mut batch = frames.map(|bytes| VecFrame::new(&bytes));
    switch.receive(0, &mut batch);
    assert_eq!(switch.fdb.lookup(NetId(0), B), None);
    assert_eq!(switch.fdb.lookup(NetId(0), A), Some(PortId(0)));
    let drops = &switch.snapshot.port(PortId(0)).unwrap().counters[0].drops;
    assert_eq!([Reason::SpoofedMac, Reason::SpoofedIp].map(|r| drops[r.index()].get()), [1, 1]);
    switch.assert_conserved();
}

#[test]
fn it_is_told_what_was_refused_and_why() {
    let switch = Switch::new(&guarded(), 1);
    let told = |bytes: &[u8]| {
        let mut frame = VecFrame::new(bytes);
        let steps = explain(&switch.snapshot, switch.now, PortId(0), &mut frame).steps;
        let of_guard: Vec<String> =
            steps.into_iter().filter(|step| step.stage == "guard").map(|step| step.text).collect();
        of_guard.join(" | ")
    };
    assert_eq!(told(&tcp4(OWN4)), "claims nothing that is not {port 0}'s");
    assert_eq!(
        told(&arp(2, (A, OTHER4), OWN4)),
        "the ARP message claims 10.0.0.2 | dropped: the ARP message claims an address or a MAC that is not the port's"
    );
    for (bytes, words) in [
        (frame(A, B).bytes(), "the source MAC is 02:00:00:00:00:0b"),
        (tcp6(OTHER6), "the source address is fd00::2"),
        (arp(1, (B, OWN4), OWN4), "the ARP sender is 02:00:00:00:00:0b"),
        (
            v6(OWN6, ICMPV6, &nd(ADVERTISEMENT, OTHER6, None)),
            "the neighbour discovery message claims fd00::2",
        ),
        (v6(OWN6, ICMPV6, &nd(SOLICITATION, OTHER6, Some((1, B)))), "names 02:00:00:00:00:0b"),
        (v6(OWN6, ICMPV6, &nd(REDIRECT, OTHER6, None)), "it is a redirect"),
        (v6(OWN6, ICMPV6, &nd(ROUTER_ADVERTISEMENT, OTHER6, None)), "it is a router advertisement"),
        (udp4(OWN4, (67, 68), b""), "UDP from port 67 to 68 is what a DHCP server says"),
        (udp4(OWN4, (68, 67), &discover(B)), "the DHCP client is 02:00:00:00:00:0b"),
        (udp4(OWN4, (68, 67), &[0; 240]), "the DHCP client has no Ethernet address"),
        (raw(vlan::TPID_8021AD, &[0; 50]), "a tag of EtherType 0x88a8"),
        (raw(100, &[0; 50]), "a length in place of an EtherType"),
        (raw(ethernet::TYPE_RARP, &[0; 50]), "reverse ARP"),
        (arp(9, (A, OWN4), OWN4), "neither asks nor answers: operation 9"),
        (raw(ethernet::TYPE_ARP, &[0; 5]), "the frame ends before its headers do"),
        (fragments(&udp4(OWN4, (68, 67), &discover(A)), 8)[0].clone(), "a fragment of a message"),
    ] {
        assert!(told(&bytes).contains(words), "{}", told(&bytes));
    }
}
