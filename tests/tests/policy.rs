//! What the switch does not pass on: reserved addresses, bad frames, isolated ports, storms.

#![allow(clippy::unwrap_used, clippy::expect_used)] // set-up of tests
#![allow(clippy::disallowed_methods)] // a rate is measured in real time

use std::time::Instant;

use vswitch_tests::{Frame, Lab, Raw, SOON, scenario, wait_until};
use vswitch_wire::Mac;

/// Hosts `a` and `b` on one network; `a` has more keys.
fn two(a: &str) -> String {
    format!(
        r#"
        network = [{{ name = "lan" }}]
        port = [{{ name = "a", access = "lan" {a} }}, {{ name = "b", access = "lan" }}]
        host = [{{ name = "a", port = "a" }}, {{ name = "b", port = "b" }}]
        "#
    )
}

#[test]
fn reserved_addresses_are_not_relayed() {
    scenario(&two(""), |lab| {
        let [a, b] = lab.raw(["a", "b"]);
        let from = lab.host("a").mac;
        // IEEE 802.1Q-2022 table 8-1 ends at 0F; 10 is none of them.
        for last in 0x00..=0x0f {
            a.send(&Frame::new(Mac([0x01, 0x80, 0xc2, 0, 0, last]), from, "between neighbours only"));
        }
        let group = Frame::new(Mac([0x01, 0x80, 0xc2, 0, 0, 0x10]), from, "a group like any other");
        a.send(&group);
        b.sees([group]);
        assert_eq!(lab.switch.drops("a", "reserved_mac"), 16);
        assert_eq!(lab.switch.place_of("lan", from).as_deref(), Some("a"));
    });
}

#[test]
fn frames_with_impossible_addresses_are_dropped() {
    scenario(&two(""), |lab| {
        let [a, b] = lab.raw(["a", "b"]);
        let from = lab.host("a").mac;
        a.send(&Frame::new(Mac::BROADCAST, Mac::BROADCAST, "from everybody"));
        a.send(&Frame::new(Mac::BROADCAST, Mac([1, 0, 0x5e, 0, 0, 1]), "from a group"));
        a.send(&Frame::new(Mac::BROADCAST, Mac::ZERO, "from nobody"));
        a.send(&Frame::new(Mac::ZERO, from, "to nobody"));
        let last = Frame::new(Mac::BROADCAST, from, "to everybody");
        a.send(&last);
        b.sees([last]);
        assert_eq!((lab.switch.drops("a", "bad_source"), lab.switch.drops("a", "zero_destination")), (3, 1));
        assert_eq!(lab.switch.fdb().len(), 1);
    });
}

#[test]
fn isolated_ports_reach_the_others_and_not_each_other() {
    let topology = r#"
        network = [{ name = "lan" }]
        port = [
            { name = "guest1", access = "lan", isolated = true },
            { name = "guest2", access = "lan", isolated = true },
            { name = "gate", access = "lan" },
        ]
        host = [
            { name = "guest1", port = "guest1", address = ["10.0.0.1/24"] },
            { name = "guest2", port = "guest2", address = ["10.0.0.2/24"] },
            { name = "gate", port = "gate", address = ["10.0.0.254/24"] },
        ]
    "#;
    scenario(topology, |lab| {
        assert!(lab.host("guest1").reaches("10.0.0.254"));
        assert!(lab.host("guest2").reaches("10.0.0.254"));
        assert!(lab.host("guest1").is_cut_off_from("10.0.0.2"));

        let [guest1, guest2, gate] = lab.raw(["guest1", "guest2", "gate"]);
        let [from, other] = ["guest1", "guest2"].map(|host| lab.host(host).mac);
        let known = Frame::new(other, from, "to a known station that is isolated too");
        let flooded = Frame::new(Mac::BROADCAST, from, "to everybody");
        guest1.send(&known);
        guest1.send(&flooded);
        gate.sees([flooded]);
        let from_gate = Frame::new(Mac::BROADCAST, lab.host("gate").mac, "to everybody");
        gate.send(&from_gate);
        guest2.sees([from_gate.clone()]);
        guest1.sees([from_gate]);
        assert_eq!(lab.switch.drops("guest1", "isolated"), 1);

        lab.switch.change(&["port", "set", "guest2", "--isolated=false"]);
        assert!(lab.host("guest1").reaches("10.0.0.2"), "one isolated port may reach one that is not");
    });
}

/// Sends a burst of one class by a port that is limited in it alone; some frames pass at once, and the
/// rest no faster than the limit.
fn storm(class: &str, to: Mac) {
    const BURST: u64 = 500;
    const PER_SECOND: u64 = 100;
    scenario(&two(&format!(r#", storm = {{ {class} = "{PER_SECOND}pps" }}"#)), |lab| {
        let [a, b] = lab.raw(["a", "b"]);
        let frame = Frame::new(to, lab.host("a").mac, "one of many");
        let (passed, seconds) = measure(lab, &a, &b, &frame, BURST);
        let reason = format!("storm_{class}");
        assert_eq!(passed + lab.switch.drops("a", &reason), BURST);
        // A tenth of a second's worth is there from the start.
        let most = PER_SECOND / 10 + seconds * PER_SECOND;
        assert!((PER_SECOND / 10..=most).contains(&passed), "{passed} frames passed in {seconds} s");

        // Classes without a limit, and unicast to a known station, pass in full.
        let known = lab.host("b").mac;
        b.send(&Frame::new(lab.host("a").mac, known, "here I am"));
        wait_until("b is known", SOON, || lab.switch.place_of("lan", known).is_some());
        let free = [("broadcast", Mac::BROADCAST), ("multicast", GROUP), ("unknown", UNKNOWN), ("", known)];
        for (_, to) in free.into_iter().filter(|(name, _)| *name != class) {
            let (passed, _) = measure(lab, &a, &b, &Frame { to, ..frame.clone() }, BURST);
            assert_eq!(passed, BURST, "to {to}");
        }
    });
}

const GROUP: Mac = Mac([1, 0, 0x5e, 0, 0, 0xfb]);
const UNKNOWN: Mac = Mac([2, 9, 9, 9, 9, 9]);

/// Sends a burst; how many of it came out, and in how many seconds, rounded up.
fn measure(lab: &Lab, a: &Raw, b: &Raw, frame: &Frame, count: u64) -> (u64, u64) {
    let before = lab.switch.port("a").counters;
    let start = Instant::now();
    for _ in 0..count {
        a.send(frame);
    }
    wait_until("the burst has come in", SOON, || {
        lab.switch.port("a").counters.rx_packets == before.rx_packets + count
    });
    let seconds = start.elapsed().as_secs() + 1;
    lab.switch.wait_quiet();
    let sent = count - (lab.switch.port("a").counters.dropped - before.dropped);
    let seen = std::iter::from_fn(|| b.next(SOON)).take(sent as usize).filter(|seen| seen == frame).count();
    assert_eq!(b.drain(), [], "no frame comes twice");
    (seen as u64, seconds)
}

#[test]
fn a_broadcast_storm_is_limited() {
    storm("broadcast", Mac::BROADCAST);
}

#[test]
fn a_multicast_storm_is_limited() {
    storm("multicast", GROUP);
}

#[test]
fn a_storm_of_unknown_unicast_is_limited() {
    storm("unknown", UNKNOWN);
}
