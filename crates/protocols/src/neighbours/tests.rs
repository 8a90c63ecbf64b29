//! The machine as a whole: frames, times, and a network that loses some.

use std::collections::{HashMap, HashSet};
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const OWN: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);
const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
const PEER4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const PEER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10));

fn station() -> Station {
    Station {
        mac: OWN,
        v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
        v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        link_local: Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
    }
}

fn machine() -> Neighbours {
    Neighbours::new(station(), 1)
}

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn polled(machine: &mut Neighbours, now: Instant) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    machine.poll(now, |frame| frames.push(frame.to_vec()));
    frames
}

/// An ARP packet of IPv4 over Ethernet.
fn arp(to: Mac, operation: u16, from: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut frame = [to.0, from.0.0].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(from.0.0);
    frame.extend(from.1.octets());
    frame.extend(target.0.0);
    frame.extend(target.1.octets());
    frame
}

/// A neighbour advertisement with a valid checksum.
fn advertisement(to: (Mac, Ipv6Addr), from: Mac, target: Ipv6Addr, flags: u8, mac: Option<Mac>) -> Vec<u8> {
    let mut icmp = std::vec![136, 0, 0, 0, flags, 0, 0, 0];
    icmp.extend(target.octets());
    if let Some(mac) = mac {
        icmp.extend([2, 1]);
        icmp.extend(mac.0);
    }
    icmpv6(to, (from, target), icmp, 255)
}

fn icmpv6(to: (Mac, Ipv6Addr), from: (Mac, Ipv6Addr), mut icmp: Vec<u8>, hop_limit: u8) -> Vec<u8> {
    use etherparse::{Ethernet2Header, Icmpv6Header, Ipv6Header};
    let header = Ipv6Header {
        payload_length: icmp.len() as u16,
        next_header: etherparse::IpNumber::IPV6_ICMP,
        hop_limit,
        source: from.1.octets(),
        destination: to.1.octets(),
        ..Ipv6Header::default()
    };
    let (unsummed, rest) = Icmpv6Header::from_slice(&icmp).unwrap();
    let checksum = unsummed.icmp_type.calc_checksum(header.source, header.destination, rest).unwrap();
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    let ethernet =
        Ethernet2Header { source: from.0.0, destination: to.0.0, ether_type: etherparse::EtherType::IPV6 };
    [&ethernet.to_bytes()[..], &header.to_bytes()[..], &icmp].concat()
}

fn v4(ip: IpAddr) -> Ipv4Addr {
    match ip {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => panic!("{ip}"),
    }
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V6(ip) => ip,
        IpAddr::V4(_) => panic!("{ip}"),
    }
}

/// The answer of the station `mac` with the address `ip` to the switch.
fn answer(ip: IpAddr, mac: Mac) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => arp(OWN, 2, (mac, ip), (OWN, station().v4.unwrap())),
        IpAddr::V6(ip) => advertisement((OWN, station().v6.unwrap()), mac, ip, 0x60, Some(mac)),
    }
}

/// Whom a question is for: its target, by another parser than the machine's.
fn target(frame: &[u8]) -> (Mac, IpAddr) {
    let to = Mac::from_slice(frame).unwrap();
    assert_eq!(Mac::from_slice(&frame[6..]), Some(OWN));
    let packet = etherparse::SlicedPacket::from_ethernet(frame).unwrap();
    match packet.net {
        Some(etherparse::NetSlice::Ipv6(ip)) => {
            let Some(etherparse::TransportSlice::Icmpv6(icmp)) = packet.transport else {
                panic!("{frame:?}")
            };
            let header = ip.header();
            assert!(icmp.is_checksum_valid(header.source(), header.destination()), "the checksum is right");
            assert_eq!((header.hop_limit(), icmp.type_u8(), icmp.code_u8()), (255, 135, 0));
            assert_eq!(frame[78..], [&[1, 1][..], &OWN.0].concat(), "the source's address is told");
            (to, Ipv6Addr::from(*frame[62..].first_chunk::<16>().unwrap()).into())
        }
        Some(etherparse::NetSlice::Arp(arp)) => {
            assert_eq!(arp.operation(), etherparse::ArpOperation::REQUEST);
            assert_eq!(arp.sender_hw_addr(), OWN.0);
            (to, Ipv4Addr::from(*arp.target_protocol_addr().first_chunk::<4>().unwrap()).into())
        }
        _ => panic!("neither ARP nor ND: {frame:02x?}"),
    }
}

#[test]
fn a_neighbour_is_asked_for_by_all_and_known_when_it_answers() {
    let groups = [Mac::BROADCAST, Mac([0x33, 0x33, 0xff, 0, 0, 0x10])];
    for (peer, group) in [PEER4, PEER6].into_iter().zip(groups) {
        let mut machine = machine();
        assert_eq!(machine.next_deadline(), None);
        machine.want(at(0), peer).unwrap();
        machine.want(at(0), peer).unwrap();
        assert_eq!((machine.next_deadline(), machine.lookup(peer)), (Some(at(0)), None));
        machine.input(at(0), &answer(peer, A));
        assert_eq!(machine.lookup(peer), None, "nobody has asked yet");
        let asked = polled(&mut machine, at(0));
        assert_eq!(asked.iter().map(|f| target(f)).collect::<Vec<_>>(), [(group, peer)]);
        machine.input(at(5), &answer(peer, A));
        assert_eq!((machine.lookup(peer), machine.next_change()), (Some(A), Some((peer, Some(A)))));
        assert_eq!(machine.next_change(), None);

        // It is probed where it is, within 15 to 45 seconds.
        let probe_at = machine.next_deadline().unwrap();
        assert!((at(15_005)..at(45_005)).contains(&probe_at), "{probe_at:?}");
        assert!(polled(&mut machine, Instant::from_nanos(probe_at.as_nanos() - 1)).is_empty());
        let probes = polled(&mut machine, probe_at);
        assert_eq!(probes.iter().map(|f| target(f)).collect::<Vec<_>>(), [(A, peer)]);
        machine.input(probe_at, &answer(peer, A));
        assert!(machine.next_deadline().unwrap() >= probe_at + Duration::from_secs(15));
        assert_eq!(machine.next_change(), None, "nothing changed");

        machine.forget(peer);
        assert_eq!((machine.next_deadline(), machine.lookup(peer)), (None, None));
    }
}

#[test]
fn one_that_vanishes_is_probed_three_times_and_then_looked_for_ever_more_rarely() {
    let mut machine = machine();
    machine.want(at(0), PEER4).unwrap();
    polled(&mut machine, at(0));
    machine.input(at(1), &answer(PEER4, A));
    machine.next_change();
    let mut seen = Vec::new();
    while seen.len() < 14 {
        let now = machine.next_deadline().unwrap();
        for frame in polled(&mut machine, now) {
            seen.push((now, target(&frame).0));
        }
    }
    assert!(
        seen[..3].iter().all(|(_, to)| *to == A) && seen[3..].iter().all(|(_, to)| *to == Mac::BROADCAST)
    );
    assert_eq!((machine.lookup(PEER4), machine.next_change()), (None, Some((PEER4, None))));
    let pauses: Vec<u64> = seen.windows(2).map(|pair| pair[1].0.since(pair[0].0).as_secs()).collect();
    assert_eq!(pauses[..5], [1; 5], "three probes, and three quick questions");
    assert!(pauses[5..].windows(2).all(|pair| pair[0] <= pair[1] || pair[0] >= 30), "{pauses:?}");
    assert!(pauses.iter().all(|&s| s <= 37) && *pauses.last().unwrap() >= 30, "{pauses:?}");

    // A sign of life ends the long pauses.
    let now = seen.last().unwrap().0 + Duration::from_secs(5);
    machine.input(now, &arp(Mac::BROADCAST, 1, (A, v4(PEER4)), (Mac::ZERO, Ipv4Addr::new(192, 0, 2, 77))));
    assert_eq!((machine.lookup(PEER4), machine.next_deadline()), (None, Some(now)));
}

#[test]
fn nobody_takes_the_place_of_a_neighbour_that_is_alive() {
    let own4 = station().v4.unwrap();
    let own6 = station().v6.unwrap();
    let group = (Mac([0x33, 0x33, 0, 0, 0, 1]), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
    let frames4 = [
        answer(PEER4, B),
        arp(Mac::BROADCAST, 1, (B, v4(PEER4)), (Mac::ZERO, v4(PEER4))),
        arp(Mac::BROADCAST, 2, (B, v4(PEER4)), (Mac::BROADCAST, v4(PEER4))),
        arp(OWN, 1, (B, v4(PEER4)), (Mac::ZERO, own4)),
    ];
    let mut solicitation = std::vec![135, 0, 0, 0, 0, 0, 0, 0];
    solicitation.extend(own6.octets());
    solicitation.extend([1, 1, 2, 0, 0, 0, 0, 0xb]);
    let frames6 = [
        answer(PEER6, B),
        advertisement(group, B, v6(PEER6), 0x20, Some(B)),
        advertisement((OWN, own6), B, v6(PEER6), 0x40, Some(B)),
        icmpv6((OWN, own6), (B, v6(PEER6)), solicitation, 255),
    ];
    let cases = frames4.into_iter().map(|f| (PEER4, f)).chain(frames6.into_iter().map(|f| (PEER6, f)));
    for (peer, forged) in cases {
        let mut machine = machine();
        machine.want(at(0), peer).unwrap();
        polled(&mut machine, at(0));
        machine.input(at(1), &answer(peer, A));
        machine.next_change();
        machine.input(at(10), &forged);
        assert_eq!((machine.lookup(peer), machine.next_change()), (Some(A), None));
        // It is probed where it was, not sooner than an answer to the last question may take.
        assert_eq!(machine.next_deadline(), Some(at(1000)), "{forged:02x?}");
        let probes = polled(&mut machine, at(1000));
        assert_eq!(probes.iter().map(|f| target(f)).collect::<Vec<_>>(), [(A, peer)]);
        machine.input(at(1001), &forged);
        assert_eq!(machine.lookup(peer), Some(A));
        machine.input(at(1002), &answer(peer, A));
        assert_eq!((machine.lookup(peer), machine.next_change()), (Some(A), None));
        assert!(machine.next_deadline().unwrap() > at(16_000));
    }
}

#[test]
fn one_that_moved_is_found_after_its_probes() {
    let mut machine = machine();
    machine.want(at(0), PEER6).unwrap();
    polled(&mut machine, at(0));
    machine.input(at(1), &answer(PEER6, A));
    machine.input(at(10), &advertisement((OWN, station().v6.unwrap()), B, v6(PEER6), 0x20, Some(B)));
    loop {
        let now = machine.next_deadline().unwrap();
        assert!(now < at(5500), "it takes no longer");
        if polled(&mut machine, now).iter().any(|frame| target(frame).0.is_multicast()) {
            machine.input(now, &answer(PEER6, B));
            break;
        }
    }
    assert_eq!(machine.lookup(PEER6), Some(B));
}

#[test]
fn an_advertisement_without_an_address_confirms_what_is_known() {
    let mut machine = machine();
    machine.want(at(0), PEER6).unwrap();
    polled(&mut machine, at(0));
    let bare = |flags| advertisement((OWN, station().v6.unwrap()), A, v6(PEER6), flags, None);
    machine.input(at(1), &bare(0x40));
    assert_eq!(machine.lookup(PEER6), None, "it does not say where");
    machine.input(at(2), &answer(PEER6, A));
    let probe_at = machine.next_deadline().unwrap();
    polled(&mut machine, probe_at);
    machine.input(probe_at, &bare(0x00));
    assert!(
        machine.next_deadline().unwrap() < probe_at + Duration::from_secs(2),
        "nobody asked for that one"
    );
    machine.input(probe_at, &bare(0x40));
    assert!(machine.next_deadline().unwrap() > probe_at + Duration::from_secs(14));
}

/// A frame of a valid answer that is spoilt in one way is no answer.
#[test]
fn what_is_not_valid_is_ignored() {
    let own6 = station().v6.unwrap();
    let na = |icmp_edit: fn(&mut Vec<u8>), hop_limit: u8| {
        let mut icmp = std::vec![136, 0, 0, 0, 0x60, 0, 0, 0];
        icmp.extend(v6(PEER6).octets());
        icmp.extend([2, 1, 2, 0, 0, 0, 0, 0xa]);
        icmp_edit(&mut icmp);
        icmpv6((OWN, own6), (A, v6(PEER6)), icmp, hop_limit)
    };
    let spoil = |ip, at: usize, value: u8| {
        let mut frame = answer(ip, A);
        frame[at] = value;
        frame
    };
    let cases = [
        ("a hop limit of 254", PEER6, na(|_| (), 254)),
        ("a code", PEER6, na(|icmp| icmp[1] = 1, 255)),
        ("a wrong checksum", PEER6, spoil(PEER6, 57, 0xff)),
        ("an option without a length", PEER6, na(|icmp| icmp[25] = 0, 255)),
        ("an option that is cut off", PEER6, na(|icmp| icmp[25] = 2, 255)),
        ("half an option", PEER6, na(|icmp| icmp.push(1), 255)),
        ("a group as its MAC", PEER6, na(|icmp| icmp[26] = 3, 255)),
        ("our own MAC", PEER6, na(|icmp| icmp[26..].copy_from_slice(&OWN.0), 255)),
        ("another target", PEER6, na(|icmp| icmp[23] ^= 1, 255)),
        ("cut off", PEER6, na(|icmp| icmp.truncate(20), 255)),
        (
            "an answer to a group that says it was asked for",
            PEER6,
            advertisement(
                (Mac([0x33, 0x33, 0, 0, 0, 1]), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)),
                A,
                v6(PEER6),
                0x60,
                Some(A),
            ),
        ),
        ("another protocol than IPv4", PEER4, spoil(PEER4, 16, 0x86)),
        ("a MAC of another length", PEER4, spoil(PEER4, 18, 8)),
        ("another operation", PEER4, spoil(PEER4, 21, 9)),
        ("a group as its MAC", PEER4, spoil(PEER4, 22, 3)),
        ("somebody else's", PEER4, spoil(PEER4, 41, 99)),
        ("to another station", PEER4, spoil(PEER4, 5, 0xaa)),
        ("cut off", PEER4, answer(PEER4, A)[..41].to_vec()),
        ("from ourselves", PEER4, answer(PEER4, OWN)),
    ];
    for (what, peer, frame) in cases {
        let mut machine = machine();
        machine.want(at(0), peer).unwrap();
        polled(&mut machine, at(0));
        machine.input(at(1), &frame);
        assert_eq!(machine.lookup(peer), None, "{what}");
        machine.input(at(1), &answer(peer, A));
        assert_eq!(machine.lookup(peer), Some(A), "{what}");
    }
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let mut machine = machine();
    for ip in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "::", "ff02::1", "::1"] {
        assert_eq!(machine.want(at(0), ip.parse().unwrap()), Err(Unwanted::NotUnicast), "{ip}");
    }
    let mut without = Neighbours::new(Station { v4: None, ..station() }, 1);
    assert_eq!(without.want(at(0), PEER4), Err(Unwanted::NoSource));
    for n in 0..NEIGHBOURS_MAX as u32 {
        machine.want(at(0), Ipv4Addr::from(0x0a00_0000 + n).into()).unwrap();
    }
    assert_eq!(machine.want(at(0), PEER4), Err(Unwanted::TooMany));
    machine.forget(Ipv4Addr::from(0x0a00_0000).into());
    assert_eq!(machine.want(at(0), PEER4), Ok(()));
}

/// A thousand peers behind a network that loses a fifth of the frames in either direction, for ten minutes.
#[test]
fn a_thousand_peers_over_a_lossy_link() {
    let mut chance = Chance(7);
    let mut is_lost = move || chance.next().is_multiple_of(5);
    let mut machine = machine();
    let peer = |n: u32| -> IpAddr {
        let v6 = |n| Ipv6Addr::from(0x2001_0db8_0000_0001_u128 << 64 | u128::from(n)).into();
        if n.is_multiple_of(2) { Ipv4Addr::from(0x0a00_0000 + n).into() } else { v6(n) }
    };
    let mac = |n: u32| Mac::from_u64(0x0200_0000_0000 + u64::from(n));
    let mut places: HashMap<IpAddr, Mac> = (0..1000).map(|n| (peer(n), mac(n))).collect();
    for n in 0..1000 {
        machine.want(at(0), peer(n)).unwrap();
    }
    let mut run = |machine: &mut Neighbours, places: &HashMap<IpAddr, Mac>, until: Instant| {
        let mut frames = 0;
        while let Some(now) = machine.next_deadline().filter(|now| *now < until) {
            let asked = polled(machine, now);
            assert!(asked.len() <= BURST, "no burst");
            frames += asked.len();
            for frame in asked {
                let (to, ip) = target(&frame);
                let Some(&place) = places.get(&ip).filter(|&&mac| to == mac || to.is_multicast()) else {
                    continue;
                };
                if !is_lost() && !is_lost() {
                    machine.input(now, &answer(ip, place));
                }
            }
        }
        frames
    };
    run(&mut machine, &places, at(30_000));
    let known = places.iter().filter(|(ip, mac)| machine.lookup(**ip) == Some(**mac)).count();
    assert!(known >= 980, "{known} of 1000 are known after half a minute");

    // A hundred change their MAC, a hundred vanish.
    for n in 0..100 {
        places.insert(peer(n), mac(n + 5000));
    }
    for n in 100..200 {
        places.remove(&peer(n));
    }
    let frames = run(&mut machine, &places, at(600_000));
    // Each is probed every 15 to 45 seconds, some of it again and again.
    assert!((12_000..80_000).contains(&frames), "{frames} frames in ten minutes");
    for n in 0..100 {
        assert!([None, Some(mac(n + 5000))].contains(&machine.lookup(peer(n))), "{n} has no old place");
    }
    assert!((100..200).all(|n| machine.lookup(peer(n)).is_none()));
    let known = places.iter().filter(|(ip, mac)| machine.lookup(**ip) == Some(**mac)).count();
    assert!(known >= 800, "{known} of 900 are known");
}

#[test]
fn probes_of_many_do_not_fall_together() {
    let mut machine = machine();
    let peers: Vec<IpAddr> = (0..1000).map(|n| Ipv4Addr::from(0x0a00_0000 + n).into()).collect();
    peers.iter().for_each(|ip| machine.want(at(0), *ip).unwrap());
    let mut first = HashSet::new();
    while let Some(now) = machine.next_deadline().filter(|now| *now < at(1000)) {
        for frame in polled(&mut machine, now) {
            let (_, ip) = target(&frame);
            assert!(first.insert(ip), "asked once in the first second");
            machine.input(now, &answer(ip, A));
        }
    }
    assert_eq!(first.len(), 1000);
    let mut by_second = [0; 60];
    while let Some(now) = machine.next_deadline().filter(|now| *now < at(45_000)) {
        by_second[now.as_secs() as usize] += polled(&mut machine, now).len();
        // Those that do not answer any more would come again; this counts first probes.
        peers.iter().for_each(|ip| machine.input(now, &answer(*ip, A)));
    }
    let busiest = by_second.iter().max().unwrap();
    assert!(*busiest < 100, "{by_second:?}");
}

/// What a fuzzer or a hostile network may do, as data.
#[derive(Clone, Debug)]
enum Step {
    Want(u8),
    Forget(u8),
    Answer(u8, u8),
    Claim(u8, u8),
    Noise(Vec<u8>),
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..8_u8).prop_map(Step::Want),
        (0..8_u8).prop_map(Step::Forget),
        (0..8_u8, 0..4_u8).prop_map(|(n, m)| Step::Answer(n, m)),
        (0..8_u8, 0..4_u8).prop_map(|(n, m)| Step::Claim(n, m)),
        proptest::collection::vec(any::<u8>(), 0..120).prop_map(Step::Noise),
        (0..40_000_u32).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn in_any_order_nothing_but_answers_is_believed(steps in proptest::collection::vec(step(), 0..200), seed: u64) {
        let mut machine = Neighbours::new(station(), seed);
        let peer = |n: u8| -> IpAddr {
            if n.is_multiple_of(2) { Ipv4Addr::new(192, 0, 2, 100 + n).into() } else {
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, u16::from(n)).into()
            }
        };
        let mac = |m: u8| Mac([2, 0, 0, 0, 1, m]);
        let mut now = at(0);
        let mut asked = HashSet::new();
        for step in steps {
            let before: HashMap<IpAddr, Option<Mac>> = machine.wanted().map(|ip| (ip, machine.lookup(ip))).collect();
            let mut may_change = None;
            match step {
                Step::Want(n) => { machine.want(now, peer(n)).unwrap(); }
                Step::Forget(n) => { machine.forget(peer(n)); asked.remove(&peer(n)); }
                Step::Answer(n, m) => {
                    may_change = asked.contains(&peer(n)).then(|| (peer(n), mac(m)));
                    machine.input(now, &answer(peer(n), mac(m)));
                }
                Step::Claim(n, m) => {
                    let own = station();
                    let frame = match peer(n) {
                        IpAddr::V4(ip) => arp(Mac::BROADCAST, 1, (mac(m), ip), (Mac::ZERO, ip)),
                        IpAddr::V6(ip) => advertisement((OWN, own.v6.unwrap()), mac(m), ip, 0x20, Some(mac(m))),
                    };
                    machine.input(now, &frame);
                }
                Step::Noise(bytes) => machine.input(now, &bytes),
                Step::Wait(ms) => {
                    now = now + Duration::from_millis(u64::from(ms));
                    let frames = polled(&mut machine, now);
                    prop_assert!(frames.len() <= BURST);
                    asked.extend(frames.iter().map(|frame| target(frame).1));
                }
            }
            for ip in machine.wanted() {
                let (old, new) = (before.get(&ip).copied().flatten(), machine.lookup(ip));
                let is_answered = may_change.is_some_and(|(of, mac)| of == ip && new == Some(mac) && old.is_none());
                prop_assert!(old == new || is_answered || new.is_none(), "{ip}: {old:?} -> {new:?}");
                prop_assert!(new.is_none_or(Mac::is_unicast));
            }
            // One timer for each, and never nothing to do.
            prop_assert_eq!(machine.timers.len(), machine.entries.len());
            prop_assert!(machine.timers.iter().all(|(at, ip)| machine.entries[ip].at == *at));
            prop_assert_eq!(machine.next_deadline().is_some(), machine.wanted().next().is_some());
        }
    }
}
