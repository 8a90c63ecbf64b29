//! Each decision in words, the same as the verdict, and nothing changed by saying it.

#![allow(clippy::unwrap_used)] // these are tests, although not all functions are marked so

mod testbed;

use proptest::prelude::*;
use testbed::*;
use vswitch_dataplane::{Explained, NetId, Port, PortId, Reason, Storm, Verdict, explain};
use vswitch_wire::Mac;
use vswitch_wire::testing::VecFrame;

fn switch() -> Switch {
    let storm = Storm { broadcast: Some(100), ..Storm::default() };
    let native = Port { storm, ..port(trunk(&[(10, 0), (20, 1)], Some(1))) };
    let small = Port { max_frame: 20, ..port(access(1)) };
    let switch = Switch::new(&[port(access(0)), native, port(trunk(&[(110, 0)], None)), small], 2);
    switch.fdb.add_static(NetId(0), B, PortId(2), switch.now).unwrap();
    switch
}

fn told(switch: &Switch, ingress: u16, frame: &[u8]) -> (Verdict, Vec<String>) {
    let mut frame = VecFrame::new(frame);
    let Explained { verdict, steps, .. } = explain(&switch.snapshot, switch.now, PortId(ingress), &mut frame);
    (verdict, steps.into_iter().map(|step| format!("{}: {}", step.stage, step.text)).collect())
}

#[test]
fn a_known_destination() {
    let (verdict, steps) = told(&switch(), 0, &eth(B, A, &[], b"payload"));
    assert_eq!(verdict, Verdict::Unicast { network: NetId(0), port: PortId(2) });
    assert_eq!(
        steps,
        [
            "parse: 21 bytes from 02:00:00:00:00:0a to 02:00:00:00:00:0b, untagged",
            "admit: admitted by {port 0}",
            "vlan: belongs to {network 0}, the access port's network",
            "learn: 02:00:00:00:00:0a is new, and learnt at this port",
            "forward: 02:00:00:00:00:0b is behind {port 2}",
            "egress: leaves by {port 2} tagged with VLAN ID 110, PCP 0",
        ]
    );
}

#[test]
fn a_flood_says_every_port() {
    let (verdict, steps) = told(&switch(), 1, &eth(Mac::BROADCAST, A, &[(DOT1Q, tci(3, 10))], b"payload"));
    assert_eq!(verdict, Verdict::Flood { network: NetId(0) });
    assert_eq!(
        steps,
        [
            "parse: 25 bytes from 02:00:00:00:00:0a to ff:ff:ff:ff:ff:ff, tagged with VLAN ID 10, PCP 3",
            "admit: admitted by {port 1}",
            "vlan: belongs to {network 0}, by its VLAN ID on this trunk",
            "storm: broadcast of this port is limited to 100 packets/s",
            "learn: 02:00:00:00:00:0a is new, and learnt at this port",
            "forward: ff:ff:ff:ff:ff:ff is a group address: flooded",
            "egress: leaves by {port 0} untagged",
            "egress: leaves by {port 2} tagged with VLAN ID 110, PCP 3",
        ]
    );
}

#[test]
fn a_drop_says_why() {
    let (verdict, steps) = told(&switch(), 2, &eth(B, A, &[(DOT1Q, 10)], b"payload"));
    assert_eq!(verdict, Verdict::Drop(Reason::VlanNotAllowed));
    assert_eq!(steps.last().unwrap(), "vlan: dropped: the trunk does not carry this VLAN");
    let (_, steps) = told(&switch(), 1, &eth(B, A, &[(DOT1Q, tci(6, 0))], b"too much for it"));
    assert_eq!(
        steps[2..],
        [
            "vlan: belongs to {network 1}, the trunk's native network",
            "learn: 02:00:00:00:00:0a is new, and learnt at this port",
            "forward: 02:00:00:00:00:0b is unknown: flooded",
            "egress: dropped at {port 3}: the frame is longer than the MTU of the port that it should leave by",
        ]
    );
    let (verdict, steps) = told(&switch(), 9, &eth(B, A, &[], b""));
    assert_eq!(verdict, Verdict::Drop(Reason::PortGone));
    assert_eq!(
        steps,
        ["parse: dropped: the port was being attached or removed while the frame was on its way"]
    );
}

#[test]
fn a_source_is_told_as_the_fdb_has_it() {
    let mut switch = switch();
    let said =
        |switch: &Switch, ingress, source| told(switch, ingress, &eth(GROUP, source, &[], b"")).1[3].clone();
    switch.receive(0, &mut [VecFrame::new(&eth(GROUP, A, &[], b""))]);
    assert_eq!(said(&switch, 0, A), "learn: 02:00:00:00:00:0a is known at this port");
    assert_eq!(said(&switch, 0, B), "learn: 02:00:00:00:00:0b has a static entry, which stays");
    let moved = told(&switch, 2, &eth(GROUP, A, &[(DOT1Q, 110)], b"")).1;
    assert_eq!(moved[3], "learn: 02:00:00:00:00:0a moves here from {port 0}");
}

#[test]
fn unfinished_work_is_told() {
    let switch = switch();
    let last = |mut frame: VecFrame| {
        explain(&switch.snapshot, switch.now, PortId(0), &mut frame).steps.pop().map(|step| step.text)
    };
    let leaves = "leaves by {port 2} tagged with VLAN ID 110, PCP 0";
    assert_eq!(last(tcp(100).unfinished()).unwrap(), format!("{leaves}, its checksum finished"));
    assert_eq!(last(tcp(3000).gso(1000)).unwrap(), format!("{leaves}, cut into segments"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// The words end in the verdict that forwarding comes to, and forwarding is not changed by them.
    #[test]
    fn words_and_deeds_agree(
        ingress in 0..4_u16,
        to in prop::sample::select(vec![A, B, GROUP, Mac::BROADCAST, Mac::ZERO]),
        from in prop::sample::select(vec![A, B, Mac([2; 6]), GROUP]),
        tags in prop::collection::vec((prop::sample::select(vec![DOT1Q, DOT1AD]), 0..130_u16), 0..3),
    ) {
        let frame = eth(to, from, &tags, b"payload");
        let mut switch = switch();
        let (verdict, words) = told(&switch, ingress, &frame);
        prop_assert_eq!(switch.fdb.lookup(NetId(0), A), None);
        let counters = |port: &Port| (port.counters[0].rx_packets.get(), port.counters[0].flooded.get());
        prop_assert!(switch.snapshot.ports().all(|(_, port)| counters(port) == (0, 0)));
        let outcome = switch.receive(ingress, &mut [VecFrame::new(&frame)]).remove(0);
        prop_assert_eq!(outcome.verdict, verdict);
        for (port, _) in &outcome.out {
            let leaves = format!("egress: leaves by {{port {port}}}");
            prop_assert!(words.iter().any(|step| step.starts_with(&leaves)), "{:?}", words);
        }
        for (port, reason) in &outcome.lost {
            prop_assert!(words.contains(&format!("egress: dropped at {{port {port}}}: {reason}")), "{:?}", words);
        }
    }
}
