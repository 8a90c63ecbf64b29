//! Compiled lists against the same rules read one by one, over frames that are described before they are written: the
//! model reads no bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::slice::from_ref;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use proptest::sample::select;
use vswitch_wire::testing::{FrameBuilder, VecFrame, frame};
use vswitch_wire::{FrameBuf, Mac, Tag, Vid};

use super::{Acl, Action, Headers, MacMatch, Masked, Prefix, RULES_MAX, Rule, Ruling};

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const GRE: u8 = 47;

/// A part of a fragmented packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Whole,
    First,
    /// Its offset in units of eight octets.
    Later(u16),
}

#[derive(Clone, Debug)]
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ports: (u16, u16),
    flags: u8,
    icmp_type: u8,
    part: Part,
    /// Hop-by-hop and destination options before it all, in IPv6.
    extended: bool,
}

#[derive(Clone, Debug)]
struct Sample {
    destination: Mac,
    source: Mac,
    vid: u16,
    /// 802.1ad tags in the bytes.
    inner: usize,
    packet: Result<Packet, u16>,
}

impl Packet {
    fn transport(&self) -> Vec<u8> {
        let (source, destination) = (self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes());
        let ports = [source, destination].concat();
        match self.protocol {
            TCP => [&ports, &[0; 8][..], &[0x50, self.flags, 0, 0, 0, 0, 0, 0]].concat(),
            UDP => [&ports, &[0, 8, 0, 0][..]].concat(),
            SCTP => [&ports, &[0; 8][..]].concat(),
            ICMP | ICMPV6 => [self.icmp_type, 0, 0, 0, 0, 0, 0, 0].to_vec(),
            _ => [&ports, &[self.icmp_type; 20][..]].concat(),
        }
    }

    /// IPv6: the extension headers and what they lead to, and the number of the first.
    fn chain(&self) -> (u8, Vec<u8>) {
        let mut bytes = self.transport();
        let mut next = self.protocol;
        let offset = match self.part {
            Part::Whole => None,
            Part::First => Some(1_u16),
            Part::Later(offset) => Some(offset << 3),
        };
        if let Some(offset) = offset {
            let [high, low] = offset.to_be_bytes();
            bytes = [&[next, 0, high, low, 0, 0, 0, 7][..], &bytes].concat();
            next = 44;
        }
        if self.extended {
            bytes = [&[60, 0, 1, 4, 0, 0, 0, 0, next, 1, 1, 12, 0, 0, 0, 0][..], &[0; 8], &bytes].concat();
            next = 0;
        }
        (next, bytes)
    }

    fn write(&self, outside: FrameBuilder, l3: usize) -> Vec<u8> {
        let outside = outside.ip(self.source, self.destination);
        if self.source.is_ipv4() {
            let mut bytes = outside.payload(&self.transport()).bytes();
            bytes[l3 + 9] = self.protocol;
            let fragment = match self.part {
                Part::Whole => 0x4000,
                Part::First => 0x2000,
                Part::Later(offset) => offset,
            };
            bytes[l3 + 6..l3 + 8].copy_from_slice(&u16::to_be_bytes(fragment));
            return bytes;
        }
        let (next, chain) = self.chain();
        let mut bytes = outside.payload(&chain).bytes();
        bytes[l3 + 6] = next;
        bytes
    }
}

impl Sample {
    fn build(&self) -> VecFrame {
        let tag = Tag { tpid: 0x88a8, tci: 77 };
        let outside = (0..self.inner).fold(frame(self.destination, self.source), |frame, _| frame.tag(tag));
        let bytes = match &self.packet {
            Ok(packet) => packet.write(outside, 14 + 4 * self.inner),
            Err(ether_type) => outside.ether_type(*ether_type).payload(&[9; 46]).bytes(),
        };
        let frame = VecFrame::new(&bytes);
        if self.vid == 0 { frame } else { frame.with_tag(Tag::dot1q(self.vid)) }
    }

    fn ether_type(&self) -> u16 {
        match &self.packet {
            Ok(packet) => {
                if packet.source.is_ipv4() {
                    0x0800
                } else {
                    0x86dd
                }
            }
            Err(ether_type) => *ether_type,
        }
    }
}

/// What the fields of a rule mean, one after the other.
fn is_matched(rule: &Rule, sample: &Sample) -> bool {
    let mac = |ask: Option<MacMatch>, mac: Mac| {
        ask.is_none_or(|ask| (0..6).all(|i| (ask.address.0[i] ^ mac.0[i]) & ask.mask.0[i] == 0))
    };
    let packet = sample.packet.as_ref().ok();
    let address = |ask: Option<Prefix>, address: Option<IpAddr>| {
        ask.is_none_or(|ask| address.is_some_and(|address| is_in(ask, address)))
    };
    let port = |ask: &Option<RangeInclusive<u16>>, port: fn(&Packet) -> u16| {
        let of = packet.filter(|p| matches!(p.protocol, TCP | UDP | SCTP) && !is_later(p)).map(port);
        ask.as_ref().is_none_or(|ask| of.is_some_and(|port| ask.contains(&port)))
    };
    let flags = packet.filter(|p| p.protocol == TCP && !is_later(p)).map(|p| p.flags);
    let icmp = |p: &&Packet| p.protocol == if p.source.is_ipv4() { ICMP } else { ICMPV6 } && !is_later(p);
    mac(rule.source_mac, sample.source)
        && mac(rule.destination_mac, sample.destination)
        && rule.ether_type.is_none_or(|ether_type| ether_type == sample.ether_type())
        && rule.vlan.is_none_or(|vid| vid.get() == sample.vid)
        && address(rule.source, packet.map(|p| p.source))
        && address(rule.destination, packet.map(|p| p.destination))
        && rule.protocol.is_none_or(|protocol| packet.is_some_and(|p| p.protocol == protocol))
        && port(&rule.source_port, |p| p.ports.0)
        && port(&rule.destination_port, |p| p.ports.1)
        && rule
            .tcp_flags
            .is_none_or(|ask| flags.is_some_and(|flags| flags & ask.mask == ask.value & ask.mask))
        && rule.icmp_type.is_none_or(|ask| packet.filter(icmp).is_some_and(|p| p.icmp_type == ask))
}

fn is_later(packet: &Packet) -> bool {
    matches!(packet.part, Part::Later(_))
}

fn is_in(prefix: Prefix, address: IpAddr) -> bool {
    let top = |bits: u128, width: u32| bits.checked_shr(width - u32::from(prefix.len)).unwrap_or(0);
    match (prefix.address, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => top(a.to_bits().into(), 32) == top(b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => top(a.to_bits(), 128) == top(b.to_bits(), 128),
        _ => false,
    }
}

/// Few different values, so that rules and frames meet, and those at the edges.
fn macs() -> impl Strategy<Value = Mac> {
    select(vec![
        Mac([2, 0, 0, 0, 0, 1]),
        Mac([2, 0, 0, 0, 0, 2]),
        Mac([2, 0, 0x80, 0, 0, 1]),
        Mac([1, 0, 0x5e, 0, 0, 1]),
        Mac::BROADCAST,
    ])
}

fn v4() -> impl Strategy<Value = IpAddr> {
    let edges = [0, 1, 0x0a00_0000, 0x0a00_00ff, 0x0a00_0100, 0x7fff_ffff, 0x8000_0000, u32::MAX];
    prop_oneof![select(edges.to_vec()), 0x0a00_0000..0x0a00_0200_u32, any::<u32>()]
        .prop_map(|bits| Ipv4Addr::from_bits(bits).into())
}

fn v6() -> impl Strategy<Value = IpAddr> {
    let net = 0xfd00_u128 << 112;
    let edges = [0, 1, net, net | 0xffff_ffff, net | (1 << 32), net | (1 << 64), u128::MAX];
    prop_oneof![select(edges.to_vec()), (0..4_u128).prop_map(move |n| net | (n << 63)), any::<u128>()]
        .prop_map(|bits| Ipv6Addr::from_bits(bits).into())
}

fn prefixes(is_v4: bool) -> BoxedStrategy<Prefix> {
    let lens: Vec<u8> =
        if is_v4 { vec![0, 1, 8, 23, 24, 25, 31, 32] } else { vec![0, 1, 16, 32, 33, 64, 65, 96, 127, 128] };
    let addresses = if is_v4 { v4().boxed() } else { v6().boxed() };
    (addresses, select(lens)).prop_map(|(address, len)| Prefix { address, len }).boxed()
}

fn ports() -> impl Strategy<Value = u16> {
    prop_oneof![select(vec![0, 1, 80, 255, 256, 443, 8000, 65534, 65535]), any::<u16>()]
}

fn ranges() -> impl Strategy<Value = RangeInclusive<u16>> {
    prop_oneof![
        ports().prop_map(|port| port..=port),
        (ports(), ports()).prop_map(|(a, b)| a.min(b)..=a.max(b)),
        Just(0..=65535),
    ]
}

fn protocols() -> impl Strategy<Value = u8> {
    select(vec![TCP, TCP, TCP, UDP, UDP, SCTP, ICMP, ICMPV6, GRE, 255])
}

/// A field that most rules do not ask for.
fn seldom<T: std::fmt::Debug + Clone>(ask: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    prop::option::weighted(0.25, ask)
}

fn rules() -> impl Strategy<Value = Rule> {
    let mac_match = || {
        let masks =
            vec![Mac::BROADCAST, Mac([1, 0, 0, 0, 0, 0]), Mac([0xff, 0xff, 0xff, 0, 0, 0]), Mac::ZERO];
        seldom((macs(), select(masks)).prop_map(|(address, mask)| MacMatch { address, mask }))
    };
    let l2 = (
        select(vec![Action::Allow, Action::Deny]),
        mac_match(),
        mac_match(),
        seldom(select(vec![0x0800, 0x86dd, 0x0806, 0x88b5])),
        seldom(select(vec![1, 10, 4094])),
    );
    let ip = any::<bool>().prop_flat_map(|is_v4| (seldom(prefixes(is_v4)), seldom(prefixes(is_v4))));
    let flags =
        (any::<u8>(), select(vec![0, 2, 0x12, 0xff])).prop_map(|(value, mask)| Masked { value, mask });
    let l4 = (seldom(protocols()), seldom(ranges()), seldom(ranges()), seldom(flags), seldom(0..12_u8));
    (l2, ip, l4).prop_map(|(l2, (source, destination), l4)| Rule {
        action: l2.0,
        source_mac: l2.1,
        destination_mac: l2.2,
        ether_type: l2.3,
        vlan: l2.4.map(|vid| Vid::new(vid).unwrap()),
        source,
        destination,
        protocol: l4.0,
        source_port: l4.1,
        destination_port: l4.2,
        tcp_flags: l4.3,
        icmp_type: l4.4,
    })
}

fn samples() -> impl Strategy<Value = Sample> {
    let addresses = any::<bool>().prop_flat_map(|is_v4| {
        if is_v4 { (v4().boxed(), v4().boxed()) } else { (v6().boxed(), v6().boxed()) }
    });
    let parts =
        prop_oneof![8 => Just(Part::Whole), 1 => Just(Part::First), 1 => (2..100_u16).prop_map(Part::Later)];
    let l4 = (protocols(), (ports(), ports()), any::<u8>(), 0..12_u8);
    let packet =
        (addresses, l4, parts, any::<bool>()).prop_map(|((source, destination), l4, part, extended)| {
            Packet {
                source,
                destination,
                protocol: l4.0,
                ports: l4.1,
                flags: l4.2,
                icmp_type: l4.3,
                part,
                extended,
            }
        });
    let packet = prop_oneof![5 => packet.prop_map(Ok), 1 => select(vec![0x0806, 0x88b5]).prop_map(Err)];
    let vids = select(vec![0, 0, 1, 10, 4094]);
    (macs(), macs(), vids, select(vec![0, 0, 1, 8]), packet).prop_map(
        |(destination, source, vid, inner, packet)| Sample { destination, source, vid, inner, packet },
    )
}

fn acl(rules: &[Rule]) -> Acl {
    Acl::new("test", rules, Action::Deny, 1).unwrap()
}

fn ruling(acl: &Acl, frame: &VecFrame) -> Ruling {
    acl.judge(&Headers::of(frame))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_first_rule_that_matches_decides(
        rules in prop::collection::vec(rules(), 0..60),
        samples in prop::collection::vec(samples(), 1..60),
    ) {
        let acl = acl(&rules);
        for sample in &samples {
            let first = rules.iter().position(|rule| is_matched(rule, sample));
            let expected = first.map_or(Ruling::Default(Action::Deny), |n| Ruling::Rule(n as u16, rules[n].action));
            prop_assert_eq!(ruling(&acl, &sample.build()), expected, "{:?}", sample);
        }
    }

    /// Behind many rules for others, in another line of bits.
    #[test]
    fn long_lists(rules in prop::collection::vec(rules(), 1..20), before in 0..2000_usize, sample in samples()) {
        let nobody = Rule { source_mac: Some(MacMatch { address: Mac([2; 6]), mask: Mac([0xff; 6]) }), ..Rule::any(Action::Allow) };
        let list = [vec![nobody; before], rules.clone()].concat();
        let first = rules.iter().position(|rule| is_matched(rule, &sample));
        let expected =
            first.map_or(Ruling::Default(Action::Deny), |n| Ruling::Rule((before + n) as u16, rules[n].action));
        prop_assert_eq!(ruling(&acl(&list), &sample.build()), expected);
    }

    /// Any bytes get an answer, and what is cut short is never judged by what is not there.
    #[test]
    fn any_bytes(rules in prop::collection::vec(rules(), 0..10), sample in samples(), len in 0..200_usize, bytes: Vec<u8>) {
        let acl = acl(&rules);
        ruling(&acl, &VecFrame::new(&bytes));
        let whole = sample.build();
        let cut = whole.bytes();
        let cut = VecFrame::new(&cut[..len.min(cut.len())]);
        if let (Ruling::Rule(rule, _), Ok(_)) = (ruling(&acl, &cut), &sample.packet) {
            let is_whole = cut.bytes().len() == whole.bytes().len();
            let rule = &rules[usize::from(rule)];
            let has_prefix = |p: Option<Prefix>| p.is_some_and(|p| p.len > 0);
            let asks = rule.is_of_transport() || rule.protocol.is_some() || has_prefix(rule.source) || has_prefix(rule.destination);
            prop_assert!(is_whole || !asks, "{:?}", rule);
        }
    }
}

fn v4_packet(protocol: u8, part: Part) -> Packet {
    let address = |last| Ipv4Addr::new(10, 0, 0, last).into();
    let (source, destination) = (address(1), address(2));
    Packet { source, destination, protocol, ports: (1000, 22), flags: 2, icmp_type: 8, part, extended: false }
}

fn sample(packet: Packet) -> Sample {
    Sample { destination: Mac([2; 6]), source: Mac([4; 6]), vid: 0, inner: 0, packet: Ok(packet) }
}

/// Fragments that are made to get round a filter, each as the RFC that warns of it has it.
#[test]
fn deceitful_fragments() {
    let ports = Rule { protocol: Some(TCP), destination_port: Some(22..=22), ..Rule::any(Action::Deny) };
    let hosts = Rule { protocol: Some(TCP), ..Rule::any(Action::Deny) };
    let nothing = [Rule { ether_type: Some(0x0806), ..Rule::any(Action::Deny) }];
    let rule = Ruling::Rule(0, Action::Deny);
    let default = Ruling::Default(Action::Deny);
    let judged = |frame: &[u8]| {
        let frame = VecFrame::new(frame);
        [from_ref(&ports), from_ref(&hosts), &nothing].map(|rules| ruling(&acl(rules), &frame))
    };
    let bytes = |packet| sample(packet).build().bytes().to_vec();
    // An honest first fragment, and a later one.
    assert_eq!(judged(&bytes(v4_packet(TCP, Part::First))), [rule, rule, default]);
    assert_eq!(judged(&bytes(v4_packet(TCP, Part::Later(2)))), [default, rule, default]);
    // RFC 1858 section 3.1: the first ends before the flags.
    let mut tiny = bytes(v4_packet(TCP, Part::First));
    tiny.truncate(14 + 20 + 16);
    tiny[16..18].copy_from_slice(&36_u16.to_be_bytes());
    assert_eq!(judged(&tiny), [Ruling::Unreadable, rule, default]);
    // Section 3.2: the second begins before the flags. Of UDP there is nothing to write over.
    assert_eq!(judged(&bytes(v4_packet(TCP, Part::Later(1)))), [Ruling::Unreadable, rule, default]);
    assert_eq!(judged(&bytes(v4_packet(UDP, Part::Later(1)))), [default; 3]);
    // RFC 7112: the chain of headers goes on in the second fragment.
    let address = |last| Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last).into();
    let v6 = |part| Packet { source: address(1), destination: address(2), ..v4_packet(TCP, part) };
    assert_eq!(judged(&bytes(v6(Part::First))), [rule, rule, default]);
    for part in [Part::First, Part::Later(2)] {
        let mut hidden = bytes(v6(part));
        hidden[54] = 60;
        assert_eq!(judged(&hidden)[0], Ruling::Unreadable);
    }
    // What is cut short, and an IPv4 header with another version.
    let whole = bytes(v4_packet(TCP, Part::Whole));
    assert_eq!(judged(&whole[..40]), [Ruling::Unreadable, Ruling::Unreadable, default]);
    assert_eq!(judged(&[&whole[..14], &[0x65], &whole[15..]].concat())[1], Ruling::Unreadable);
    // Behind more tags than anybody follows.
    let tags = Sample { inner: 9, ..sample(v4_packet(TCP, Part::Whole)) }.build();
    let by_mac = Rule {
        source_mac: Some(MacMatch { address: Mac([4; 6]), mask: Mac([0xff; 6]) }),
        ..Rule::any(Action::Deny)
    };
    assert_eq!(ruling(&acl(from_ref(&hosts)), &tags), Ruling::Unreadable);
    assert_eq!(ruling(&acl(&nothing), &tags), Ruling::Unreadable);
    assert_eq!(ruling(&acl(from_ref(&by_mac)), &tags), rule);
    // Where the EtherType is one that some stations look behind: lengths of LLC frames, tags of old.
    let inner = Tag { tpid: 0x88a8, tci: 5 };
    let of_type = |ether_type| {
        VecFrame::new(
            &frame(Mac([2; 6]), Mac([4; 6])).tag(inner).ether_type(ether_type).payload(&[9; 46]).bytes(),
        )
    };
    for hiding in [0, 46, 0x5ff, 0x9100, 0x9200, 0x9300].map(of_type) {
        assert_eq!(ruling(&acl(from_ref(&hosts)), &hiding), Ruling::Unreadable);
        assert_eq!(ruling(&acl(&nothing), &hiding), Ruling::Unreadable);
        assert_eq!(ruling(&acl(from_ref(&by_mac)), &hiding), rule);
    }
    for plain in [0x600, 0x88b5, 0x9000, 0x9101].map(of_type) {
        assert_eq!(ruling(&acl(from_ref(&hosts)), &plain), default);
    }
}

#[test]
fn limits() {
    assert!(Acl::new("long", &vec![Rule::any(Action::Allow); RULES_MAX + 1], Action::Deny, 1).is_err());
    let empty = acl(&[]);
    assert_eq!(ruling(&empty, &sample(v4_packet(TCP, Part::Whole)).build()), Ruling::Default(Action::Deny));
    assert_eq!(empty.size(), 0);
    // As many rules as may be, none like another: the worst there is for IPv6.
    let scattered = |n: u32| {
        let bits =
            |salt: u32| u128::from(n.wrapping_mul(2_654_435_761) ^ salt) * 0x1_0000_0001_0000_0001_0000_0001;
        let prefix = |salt| Some(Prefix { address: Ipv6Addr::from_bits(bits(salt)).into(), len: 128 });
        let port = (n * 7 % 60_000) as u16;
        Rule {
            source: prefix(0),
            destination: prefix(0x5555_5555),
            protocol: Some(TCP),
            source_port: Some(port..=port + 3000),
            destination_port: Some(port..=port + 5000),
            ..Rule::any(Action::Allow)
        }
    };
    let rules: Vec<Rule> = (0..RULES_MAX as u32).map(scattered).collect();
    let acl = acl(&rules);
    assert!(acl.size() < 96 << 20, "{} bytes", acl.size());
    let last = &rules[RULES_MAX - 1];
    let (source, destination) = (last.source.unwrap().address, last.destination.unwrap().address);
    let port = *last.source_port.as_ref().unwrap().start();
    let packet = Packet { source, destination, ports: (port, port), ..v4_packet(TCP, Part::Whole) };
    assert_eq!(ruling(&acl, &sample(packet).build()), Ruling::Rule(RULES_MAX as u16 - 1, Action::Allow));
}
