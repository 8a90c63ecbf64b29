//! What one batch counts at its port and in its networks, and that hostile frames upset nothing.

mod testbed;

use proptest::collection::vec;
use proptest::prelude::*;
use testbed::*;
use vswitch_dataplane::{NetId, Port, PortId, Reason, Verdict};
use vswitch_wire::testing::VecFrame;
use vswitch_wire::{Csum, Gso, GsoKind, Mac, Offload, Tag};

#[test]
fn one_batch_counts_ports_networks_and_drops() {
    let ports = [port(trunk(&[(10, 0), (20, 1)], None)), port(access(0)), port(access(1))];
    let mut switch = Switch::new(&ports, 2);
    switch.fdb.add_static(NetId(0), B, PortId(1), switch.now).unwrap();
    let in_vlan = |to, vid, len| VecFrame::new(&eth(to, A, &[(DOT1Q, vid)], &vec![7; len]));
    switch.receive(
        0,
        &mut [
            in_vlan(B, 10, 100),
            in_vlan(Mac::BROADCAST, 10, 200),
            in_vlan(Mac::BROADCAST, 20, 300),
            in_vlan(B, 30, 400),
            in_vlan(B, 10, 500),
            out_of_band(&eth(B, A, &[(DOT1Q, 10)], &[7; 600])),
            VecFrame::new(&[0; 5]),
        ],
    );
    let port = &switch.snapshot.port(PortId(0)).unwrap().counters[0];
    assert_eq!((port.rx_packets.get(), port.rx_bytes.get()), (7, 6 * 18 + 2100 + 5));
    assert_eq!(port.flooded.get(), 2);
    let drops: u64 = port.drops.iter().map(vswitch_dataplane::Counter::get).sum();
    let of = |reason: Reason| port.drops[reason.index()].get();
    assert_eq!((drops, of(Reason::VlanNotAllowed), of(Reason::Runt)), (2, 1, 1));
    let network = |n: usize| {
        let c = &switch.networks[n].counters[0];
        (c.packets.get(), c.bytes.get(), c.flooded.get())
    };
    assert_eq!(network(0), (4, 4 * 18 + 1400, 1));
    assert_eq!(network(1), (1, 18 + 300, 1));
    switch.assert_conserved();
}

#[test]
fn a_source_over_the_limit_is_forwarded_and_counted() {
    let mut switch = Switch::new(&[Port { max_macs: 1, ..port(access(0)) }, port(access(0))], 1);
    let from = |last| VecFrame::new(&eth(Mac::BROADCAST, Mac([2, 0, 0, 0, 0, last]), &[], b""));
    // A run of frames with one source is one attempt to learn it.
    let outcomes = switch.receive(0, &mut [from(1), from(2), from(2), from(1), from(2)]);
    assert!(outcomes.iter().all(|o| o.verdict == Verdict::Flood { network: NetId(0) } && o.out.len() == 1));
    assert_eq!(switch.snapshot.port(PortId(0)).unwrap().counters[0].learn_refused.get(), 2);
}

#[test]
fn a_port_that_is_down_teaches_nothing() {
    let mut switch = Switch::new(&[Port { up: false, ..port(access(0)) }, port(access(0))], 1);
    let outcome = switch.receive(0, &mut [VecFrame::new(&eth(B, A, &[], b"late"))]).remove(0);
    assert_eq!(outcome.out.len(), 1);
    assert_eq!(switch.fdb.lookup(NetId(0), A), None);
}

#[test]
fn frames_beyond_one_batch_are_decided_too() {
    let mut switch = Switch::new(&[port(access(0)), port(access(0))], 1);
    let mut frames = vec![VecFrame::new(&eth(B, A, &[], b"many")); 150];
    assert!(switch.receive(0, &mut frames).iter().all(|o| o.out.len() == 1));
    switch.assert_conserved();
}

fn offload() -> impl Strategy<Value = Offload> {
    let near = prop_oneof![4 => 0..200_u16, 1 => any::<u16>()];
    let offset = prop_oneof![Just(6), Just(8), Just(16), any::<u16>()];
    let csum = prop::option::of((near, offset).prop_map(|(start, offset)| Csum { start, offset }));
    let kind = prop_oneof![Just(GsoKind::Tcp4), Just(GsoKind::Tcp6), Just(GsoKind::Udp)];
    let gso = prop::option::of((kind, any::<u16>()).prop_map(|(kind, size)| Gso { kind, size, ecn: false }));
    (csum, gso).prop_map(|(csum, gso)| Offload { csum, gso })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any bytes with any metadata: never a panic, always a verdict, everything accounted for.
    #[test]
    fn no_frame_upsets_the_switch(
        head in prop_oneof![Just(eth(B, A, &[], b"")), Just(eth(B, A, &[(DOT1Q, 10)], b"")), vec(any::<u8>(), 0..20)],
        rest in vec(any::<u8>(), 0..120),
        offload in offload(),
        tag in prop::option::of((any::<u16>(), any::<u16>())),
        headroom in 0..10_usize,
    ) {
        let ports = [port(trunk(&[(10, 0)], Some(0))), port(access(0)), port(trunk(&[(20, 0)], None))];
        let mut switch = Switch::new(&ports, 1);
        let mut frame = VecFrame::with_headroom(&[head, rest].concat(), headroom).with_offload(offload);
        if let Some((tpid, tci)) = tag {
            frame = frame.with_tag(Tag { tpid, tci });
        }
        switch.receive(0, &mut [frame.clone(), frame]);
        switch.assert_conserved();
    }
}
