//! A flow that needs no worker is one of which the pipeline would forward every frame as the passage says.

#![allow(clippy::unwrap_used)] // set-up of tests

mod testbed;

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use testbed::*;
use vswitch_dataplane::acl::{Acls, Action};
use vswitch_dataplane::fdb::Filter;
use vswitch_dataplane::shortcut::{self, Flow, Passage};
use vswitch_dataplane::{Attachment, NetId, Port, PortId, Security};
use vswitch_wire::Mac;
use vswitch_wire::testing::VecFrame;

const NETWORKS: u16 = 2;
const VIDS: [Option<u16>; 4] = [None, Some(10), Some(20), Some(4095)];

/// The last one is a group address, and the one before that no address.
fn mac(n: u8) -> Mac {
    Mac(match n {
        4 => [0; 6],
        5 => [1, 0, 0x5e, 0, 0, 9],
        n => [2, 0, 0, 0, 0, n],
    })
}

fn attachment() -> impl Strategy<Value = Attachment> {
    prop_oneof![
        1 => Just(Attachment::None),
        4 => (0..NETWORKS).prop_map(access),
        2 => Just(trunk(&[(10, 0), (20, 1)], None)),
        2 => Just(trunk(&[(10, 1)], Some(0))),
        1 => Just(trunk(&[(20, 1)], Some(1))),
    ]
}

fn ports() -> impl Strategy<Value = Vec<Port>> {
    let held = prop::bool::weighted(0.1).prop_map(|held| {
        let macs: &[Mac] = if held { &[mac(0)] } else { &[] };
        Security::new(macs, &[], false, Vec::new()).map(Arc::new)
    });
    let one = (attachment(), prop::bool::weighted(0.3), prop::bool::weighted(0.9), 100..200_u32, held)
        .prop_map(|(attachment, isolated, up, max_frame, security)| Port {
            isolated,
            up,
            max_frame,
            security,
            ..port(attachment)
        });
    prop::collection::vec(one, 4)
}

/// Something that happens to a switch.
#[derive(Clone, Debug)]
enum Event {
    Frame { port: u16, vid: usize, source: u8, destination: u8 },
    Static { network: u16, mac: u8, port: u16 },
    Removed { network: u16, mac: u8 },
    Flushed { port: u16 },
    Aged { seconds: u64 },
    Configured(Vec<Port>),
}

fn event() -> impl Strategy<Value = Event> {
    let address = || 0..6_u8;
    prop_oneof![
        20 => (0..4_u16, 0..VIDS.len(), address(), address())
            .prop_map(|(port, vid, source, destination)| Event::Frame { port, vid, source, destination }),
        1 => (0..NETWORKS, 0..4_u8, 0..4_u16).prop_map(|(network, mac, port)| Event::Static { network, mac, port }),
        1 => (0..NETWORKS, 0..4_u8).prop_map(|(network, mac)| Event::Removed { network, mac }),
        1 => (0..4_u16).prop_map(|port| Event::Flushed { port }),
        1 => (1..400_u64).prop_map(|seconds| Event::Aged { seconds }),
        1 => ports().prop_map(Event::Configured),
    ]
}

fn frame_of(flow: &Flow, len: usize) -> Vec<u8> {
    let tags: Vec<_> = flow.vid.map(|vid| (DOT1Q, vid)).into_iter().collect();
    eth(flow.destination, flow.source, &tags, &vec![1; len - 14])
}

fn happen(switch: &mut Switch, event: Event) {
    match event {
        Event::Frame { port, vid, source, destination } => {
            let flow = Flow {
                ingress: PortId(port),
                vid: VIDS[vid],
                source: mac(source),
                destination: mac(destination),
            };
            switch.receive(port, &mut [VecFrame::new(&frame_of(&flow, 60))]);
        }
        Event::Static { network, mac: n, port } => {
            switch.fdb.add_static(NetId(network), mac(n), PortId(port), switch.now).unwrap();
        }
        Event::Removed { network, mac: n } => {
            switch.fdb.remove(NetId(network), mac(n));
        }
        Event::Flushed { port } => {
            switch.fdb.flush(Filter { port: Some(PortId(port)), ..Filter::default() });
        }
        Event::Aged { seconds } => {
            switch.now = switch.now + Duration::from_secs(seconds);
            (0..10).for_each(|_| {
                switch.fdb.age(&switch.snapshot, switch.now);
            });
        }
        Event::Configured(ports) => switch.configure(&ports),
    }
}

fn flows() -> impl Iterator<Item = Flow> {
    let all = (0..4).flat_map(|port| VIDS.map(|vid| (PortId(port), vid)));
    all.flat_map(|(ingress, vid)| {
        let pairs = (0..6).flat_map(|source| (0..6).map(move |destination| (mac(source), mac(destination))));
        pairs.map(move |(source, destination)| Flow { ingress, vid, source, destination })
    })
}

/// The pipeline does what the passage says, and nobody knows more of the addresses than before.
fn check(switch: &mut Switch, flow: &Flow, passage: Passage) -> Result<(), TestCaseError> {
    for len in [60, passage.max_frame as usize] {
        let frame = frame_of(flow, len);
        let outcome = switch.receive(flow.ingress.0, &mut [VecFrame::new(&frame)]);
        prop_assert_eq!(&outcome[0].out, &vec![(passage.egress.0, frame)]);
        prop_assert!(outcome[0].lost.is_empty());
        prop_assert_eq!(Flow::of(flow.ingress, &out_of_band(&frame_of(flow, len))), Some(*flow));
    }
    prop_assert_eq!(shortcut::find(&switch.snapshot, flow), Some(passage));
    let longer =
        switch.receive(flow.ingress.0, &mut [VecFrame::new(&frame_of(flow, passage.max_frame as usize + 1))]);
    prop_assert!(longer[0].out.is_empty(), "it is as long as can be");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_passage_is_what_the_pipeline_does_for_as_long_as_it_holds(
        ports in ports(),
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut switch = Switch::new(&ports, NETWORKS.into());
        let mut found: Vec<(Flow, Passage)> = Vec::new();
        for event in events {
            if matches!(event, Event::Configured(_)) {
                found.clear();
            }
            happen(&mut switch, event);
            let fdb = switch.fdb.clone();
            found.retain(|(flow, passage)| {
                let mark = |mac| fdb.mark(passage.network, mac);
                (mark(flow.source), mark(flow.destination)) == (passage.source, passage.destination)
            });
            for (flow, passage) in &found {
                prop_assert_eq!(shortcut::find(&switch.snapshot, flow), Some(*passage), "it holds");
            }
            for flow in flows() {
                if let Some(passage) = shortcut::find(&switch.snapshot, &flow) {
                    check(&mut switch, &flow, passage)?;
                    if !found.iter().any(|(known, _)| *known == flow) {
                        found.push((flow, passage));
                    }
                }
            }
        }
        switch.assert_conserved();
    }
}

/// Two stations that know each other, on ports 0 and 1.
fn acquainted(attachment: Attachment) -> Switch {
    let mut switch = Switch::new(&[port(attachment.clone()), port(attachment)], 1);
    for (port, from, to) in [(0, A, B), (1, B, A)] {
        switch.receive(port, &mut [VecFrame::new(&eth(to, from, &[], b"hello"))]);
    }
    switch
}

#[test]
fn stations_that_know_each_other_have_a_passage() {
    let switch = acquainted(access(0));
    let there = Flow { ingress: PortId(0), vid: None, source: A, destination: B };
    let passage = shortcut::find(&switch.snapshot, &there).unwrap();
    assert_eq!((passage.network, passage.egress, passage.max_frame), (NetId(0), PortId(1), 1514));
    let back = Flow { ingress: PortId(1), source: B, destination: A, ..there };
    assert_eq!(shortcut::find(&switch.snapshot, &back).unwrap().egress, PortId(0));
}

#[test]
fn a_guarded_port_has_none_and_what_comes_from_a_trusted_one_may_be_a_lease() {
    let there = Flow { ingress: PortId(0), vid: None, source: A, destination: B };
    let back = Flow { ingress: PortId(1), source: B, destination: A, ..there };
    let mut switch = acquainted(access(0));
    let mut have = |guard, trusted| {
        let security = Security::new(&[B], &[], guard, Vec::new()).map(Arc::new);
        let guarded = Port { security, ..port(access(0)) };
        switch.configure(&[Port { trusted, ..port(access(0)) }, guarded]);
        [there, back].map(|flow| shortcut::find(&switch.snapshot, &flow).is_some())
    };
    assert_eq!(have(true, false), [true, false]);
    assert_eq!(have(true, true), [false, false]);
    assert_eq!(have(false, true), [true, false], "it learns nothing");
}

#[test]
fn only_ip_frames_are_of_a_flow() {
    let ip = eth(B, A, &[], b"hello");
    assert!(Flow::of(PortId(0), &VecFrame::new(&ip)).is_some());
    for ether_type in [[0x08, 0x06], DOT1Q.to_be_bytes(), DOT1AD.to_be_bytes(), [0, 46]] {
        let mut other = ip.clone();
        other[12..14].copy_from_slice(&ether_type);
        assert_eq!(Flow::of(PortId(0), &VecFrame::new(&other)), None, "{ether_type:?}");
    }
    // A priority tag: such frames leave otherwise than they came.
    assert_eq!(Flow::of(PortId(0), &out_of_band(&eth(B, A, &[(DOT1Q, tci(5, 0))], b"hello"))), None);
}

/// Each frame of theirs is judged.
#[test]
fn stations_behind_a_filter_have_no_passage() {
    let list = || acl(&[], Action::Allow);
    let (ingress, egress) =
        (Acls { ingress: list(), ..Acls::default() }, Acls { egress: list(), ..Acls::default() });
    let flow = Flow { ingress: PortId(0), vid: None, source: A, destination: B };
    let has_passage = |of_ports: [&Acls; 2], of_network: &Acls| {
        let mut switch = acquainted(access(0));
        switch.networks[0].acl = of_network.clone();
        switch.configure(&of_ports.map(|acl| Port { acl: acl.clone(), ..port(access(0)) }));
        shortcut::find(&switch.snapshot, &flow).is_some()
    };
    let none = Acls::default();
    assert!(has_passage([&none, &none], &none));
    assert!(!has_passage([&ingress, &none], &none));
    assert!(!has_passage([&none, &egress], &none));
    assert!(!has_passage([&none, &none], &ingress));
    assert!(!has_passage([&none, &none], &egress));
    // What the frames do not pass is not asked.
    assert!(has_passage([&egress, &ingress], &none));
}
