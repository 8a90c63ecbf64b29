//! How a frame leaves, called as a worker calls it.

mod testbed;

use testbed::*;
use vswitch_dataplane::{EgressVlan, NetId, Port, PortId, Reason, egress, egress::Egress};
use vswitch_wire::testing::{VecFrame, frame};
use vswitch_wire::{Caps, Csum, FrameBuf, FrameMeta, Gso, GsoKind, Offload, Tag};

const CHECKSUM: Offload = Offload { csum: Some(Csum { start: 34, offset: 16 }), gso: None };

fn prepare(to: &Port, frame: &mut VecFrame) -> Result<Egress, Reason> {
    let switch = Switch::new(&[port(access(0)), to.clone()], 1);
    egress::prepare(&switch.snapshot, NetId(0), PortId(0), PortId(1), frame, None)
}

#[test]
fn a_verdict_of_an_older_snapshot_does_no_harm() {
    let frame = || VecFrame::new(&eth(B, A, &[], b"old"));
    let isolated = Port { isolated: true, ..port(access(0)) };
    let cases = [
        (vec![port(access(0))], Reason::PortGone),
        (vec![port(access(0)), port(access(1))], Reason::NotMember),
        (vec![port(access(0)), Port { up: false, ..port(access(0)) }], Reason::PortDown),
        (vec![isolated.clone(), isolated], Reason::Isolated),
    ];
    for (ports, reason) in cases {
        let switch = Switch::new(&ports, 2);
        let mut sent = frame();
        let result = egress::prepare(&switch.snapshot, NetId(0), PortId(0), PortId(1), &mut sent, None);
        assert_eq!(result, Err(reason));
        assert_eq!(sent.bytes(), frame().bytes(), "a frame that is dropped is left alone");
    }
}

#[test]
fn a_tag_needs_headroom() {
    let mut frame = VecFrame::with_headroom(&eth(B, A, &[], b"tight"), 3);
    assert_eq!(prepare(&port(trunk(&[(10, 0)], None)), &mut frame), Err(Reason::NoHeadroom));
    let mut frame = VecFrame::with_headroom(&eth(B, A, &[], b"tight"), 4);
    assert_eq!(prepare(&port(trunk(&[(10, 0)], None)), &mut frame), Ok(Egress::Ready));
    assert_eq!(frame.bytes(), eth(B, A, &[(DOT1Q, 10)], b"tight"));
}

#[test]
fn unfinished_work_goes_to_ports_that_take_it() {
    let tso = Caps { csum: true, tso4: true, ..Caps::NONE };
    let uso = Caps { csum: true, uso: true, ..Caps::NONE };
    let gso = Offload { gso: Some(Gso { kind: GsoKind::Tcp4, size: 500, ecn: false }), ..CHECKSUM };
    let cases = [
        ("checksum to a port that can", CHECKSUM, Caps { csum: true, ..Caps::NONE }, Egress::Ready, CHECKSUM),
        ("checksum to a port that cannot", CHECKSUM, Caps::NONE, Egress::Ready, Offload::NONE),
        ("GSO to a port that can", gso, tso, Egress::Ready, gso),
        ("GSO to a port that cuts another kind", gso, uso, Egress::Segment, gso),
        (
            "GSO to a port that cannot finish checksums",
            gso,
            Caps { csum: false, ..tso },
            Egress::Segment,
            gso,
        ),
        ("GSO to a port that cannot", gso, Caps::NONE, Egress::Segment, gso),
    ];
    for (name, offload, caps, egress, left) in cases {
        let mut frame = tcp(1200).unfinished().with_offload(offload);
        let unfinished = frame.bytes().to_vec();
        assert_eq!(prepare(&Port { caps, ..port(access(0)) }, &mut frame), Ok(egress), "{name}");
        assert_eq!(frame.meta(), &FrameMeta { offload: left, tag: None }, "{name}");
        let finished = offload != left;
        assert_eq!(frame.bytes(), if finished { tcp(1200).bytes() } else { unfinished }, "{name}");
    }
}

/// No port can be told that the segments are in a tunnel, so none is given such a frame whole.
#[test]
fn gso_in_a_tunnel_is_cut_for_every_port() {
    let inner = tcp(1200).gso(500);
    let csum = inner.meta().offload.csum.unwrap();
    let vxlan = [&[8, 0, 0, 0, 0, 0, 1, 0], inner.bytes()].concat();
    let outer = frame(B, A).ip([10, 0, 0, 1], [10, 0, 0, 2]).udp(50000, 4789).payload(&vxlan).build();
    let before = outer.bytes().len() - inner.bytes().len();
    let offload =
        Offload { csum: Some(Csum { start: csum.start + before as u16, ..csum }), ..inner.meta().offload };
    let mut sent = outer.with_offload(offload);
    assert_eq!(prepare(&Port { caps: Caps::ALL, ..port(access(0)) }, &mut sent), Ok(Egress::Segment));
}

/// etherparse, which shares no code with the switch, finds the tag and a right checksum.
#[test]
fn a_pushed_tag_moves_the_checksum_with_it() {
    let trunk = trunk(&[(10, 0)], None);
    for caps in [Caps::NONE, Caps { csum: true, ..Caps::NONE }] {
        let mut frame = tcp(100).unfinished().with_tag(Tag::dot1q(tci(5, 0)));
        assert_eq!(prepare(&Port { caps, ..port(trunk.clone()) }, &mut frame), Ok(Egress::Ready));
        if let Some(csum) = frame.meta().offload.csum {
            assert_eq!(csum, Csum { start: 38, offset: 16 });
            vswitch_wire::checksum::complete(frame.bytes_mut(), csum).unwrap();
        }
        let parsed = etherparse::PacketHeaders::from_ethernet_slice(frame.bytes()).unwrap();
        let [etherparse::LinkExtHeader::Vlan(tag)] = parsed.link_exts.as_slice() else { panic!("one tag") };
        assert_eq!((tag.pcp.value(), tag.vlan_id.value()), (5, 10));
        let (Some(etherparse::NetHeaders::Ipv4(ip, _)), Some(etherparse::TransportHeader::Tcp(header))) =
            (parsed.net, parsed.transport)
        else {
            panic!("TCP over IPv4")
        };
        assert_eq!(header.checksum, header.calc_checksum_ipv4(&ip, parsed.payload.slice()).unwrap());
    }
}

#[test]
fn membership_is_told_as_it_leaves() {
    let trunk = port(trunk(&[(110, 0)], Some(2)));
    assert_eq!(trunk.egress_vlan(NetId(0)), EgressVlan::Tagged(vswitch_wire::Vid::new(110).unwrap()));
    assert_eq!(trunk.egress_vlan(NetId(1)), EgressVlan::NotMember);
    assert_eq!(trunk.egress_vlan(NetId(2)), EgressVlan::Untagged);
    assert_eq!(trunk.egress_vlan(NetId(3)), EgressVlan::NotMember);
}
