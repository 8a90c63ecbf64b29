//! Workers with a tunnel: port 0 is of a network with a VNI, port 1 is the underlay's, and [`PEER`] another VTEP.

use std::net::IpAddr;

use vswitch_dataplane::tunnel::{Outer, Outgoing, Tunnel, Underlay};
use vswitch_wire::{Vni, vxlan};

use super::*;

const PEER: PortId = PortId(2);
const RED: NetId = NetId(0);
const UNDERLAY: NetId = NetId(1);
const VTEP: Mac = Mac([2, 0, 0, 0, 9, 1]);
const ROUTER: Mac = Mac([2, 0, 0, 0, 9, 2]);
const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
/// Bytes of the outer headers over IPv4.
const OVERHEAD: usize = 50;

impl Rig {
    /// Two ports that take all offloads, the second of the underlay.
    fn with_tunnel(is_resolved: bool) -> Self {
        let mut rig = Self::new(1, Polling::Adaptive, &[Caps::ALL; 2]);
        rig.peers.push(Arc::from(vec![PortCounters::default()]));
        rig.publish_tunnel(is_resolved);
        rig
    }

    fn publish_tunnel(&self, is_resolved: bool) {
        let outer = Outer::new(&Outgoing {
            source_mac: VTEP,
            next_hop: ROUTER,
            source: OWN,
            destination: OTHER,
            udp_port: vxlan::UDP_PORT,
            ttl: 64,
            dscp: 0,
            checksum: false,
        });
        let tunnel = Tunnel::new(OTHER, [RED], outer.filter(|_| is_resolved));
        let peer = Port {
            attachment: Attachment::Tunnel(Arc::new(tunnel)),
            max_frame: 1514 - OVERHEAD as u32,
            ..port(Caps::NONE, &self.peers[0])
        };
        let uplink = Port { attachment: Attachment::Access(UNDERLAY), ..port(Caps::ALL, &self.counters[1]) };
        let ports = vec![Some(port(Caps::ALL, &self.counters[0])), Some(uplink), Some(peer)];
        let network = || {
            let counters = Arc::from(vec![NetworkCounters::default()]);
            Network::new(1000, Duration::from_secs(300), counters)
        };
        let vni = Vni::new(7).unwrap();
        let mut networks = vec![Some(network()), Some(network())];
        networks[0].as_mut().unwrap().vni = Some(vni);
        let at = (UNDERLAY, PortId(1));
        let underlay = Underlay::new(at, (VTEP, OWN, vxlan::UDP_PORT), &[(OTHER, PEER)], &[(vni, RED)]);
        let snapshot = Snapshot::new(ports, networks, Arc::new(Fdb::new(1024))).with_underlay(Some(underlay));
        let old = self.workers.publish(Arc::new(snapshot));
        self.runtime.block_on(self.workers.settle());
        drop(old);
    }

    /// Sends a frame into the tunnel's other end.
    fn send_tunnelled(&mut self, inner: &impl FrameBuf) {
        let payload = [&vxlan::header(Vni::new(7).unwrap()), inner.bytes()].concat();
        let outer = frame(VTEP, ROUTER).ip(OTHER, OWN).udp(50_000, vxlan::UDP_PORT).payload(&payload);
        let mut outer = VecFrame::new(&outer.bytes());
        outer.meta_mut().offload = inner.meta().offload;
        outer.meta_mut().offload.shift_forward(OVERHEAD as u16);
        self.send(1, 0, &outer);
    }
}

#[test]
fn frames_pass_through_the_tunnel_both_ways_and_keep_their_offloads_in() {
    let mut rig = Rig::with_tunnel(true);
    let there = frame(B, A).payload(&[1; 60]).build();
    rig.send(0, 0, &there);
    let sent = rig.receive(1, 1);
    assert_eq!(sent[0].bytes()[OVERHEAD..], *there.bytes());
    let back = frame(A, B).ip([10, 0, 0, 1], [10, 0, 0, 2]).tcp(1, 2, 0x10).payload(&[7; 5000]).gso(1000);
    rig.send_tunnelled(&back);
    let got = rig.receive(0, 1);
    assert_eq!((got[0].bytes(), got[0].meta()), (back.bytes(), back.meta()));
    drop((sent, got));
    rig.end();
}

#[test]
fn what_is_too_long_is_cut_to_fit_or_answered() {
    let mut rig = Rig::with_tunnel(true);
    let tcp = |payload: &[u8]| frame(B, A).ip([10, 0, 0, 1], [10, 0, 0, 2]).tcp(1, 2, 0x10).payload(payload);
    rig.send_tunnelled(&frame(A, B).payload(b"B is behind the tunnel").build());
    drop(rig.receive(0, 1));
    // 1460 bytes make 1500 with their headers; 1450 is what the tunnel takes.
    rig.send(0, 0, &tcp(&[7; 4 * 1460]).gso(1460));
    let segments = rig.receive(1, 5);
    let lens: Vec<usize> = segments.iter().map(|s| s.bytes().len()).collect();
    assert_eq!(lens, [1514, 1514, 1514, 1514, OVERHEAD + 54 + 4 * 1460 - 4 * 1410]);
    rig.send(0, 0, &tcp(&[7; 1460]).build());
    let answer = rig.receive(0, 1);
    assert_eq!(answer[0].bytes()[..12], [A.0, B.0].concat());
    assert_eq!(answer[0].bytes()[34..42][..2], [3, 4]);
    assert_eq!(answer[0].bytes()[40..42], 1450_u16.to_be_bytes());
    assert_eq!(rig.counters[0][0].originated.get(), 1);
    // What is flooded may fit where it is meant for: nobody is told then.
    let unknown = frame(Mac([2, 0, 0, 0, 0, 3]), A)
        .ip([10, 0, 0, 1], [10, 0, 0, 3])
        .tcp(1, 2, 0x10)
        .payload(&[7; 1460]);
    rig.send(0, 0, &unknown.build());
    rig.wait_for("the second to be dropped", |rig| {
        rig.peers[0][0].drops[Reason::TooBigEgress.index()].get() == 2
    });
    assert_eq!(rig.counters[0][0].originated.get(), 1);
    drop((segments, answer));
    rig.end();
}

#[test]
fn frames_wait_for_the_next_hop_a_few_and_not_for_long() {
    let mut rig = Rig::with_tunnel(false);
    for n in 0..20 {
        rig.send(0, 0, &frame(B, A).payload(&[n; 60]).build());
    }
    let dropped = |rig: &Rig| rig.peers[0][0].drops[Reason::NoNeighbour.index()].get();
    rig.wait_for("the surplus to be dropped", |rig| dropped(rig) == 4);
    rig.publish_tunnel(true);
    let sent = rig.receive(1, 16);
    let order: Vec<u8> = sent.iter().map(|frame| frame.bytes()[OVERHEAD + 14]).collect();
    assert_eq!(order, (4..20).collect::<Vec<u8>>(), "the latest");
    rig.publish_tunnel(false);
    rig.send(0, 0, &frame(B, A).payload(&[77; 60]).build());
    rig.wait_for("the last to be given up", |rig| dropped(rig) == 5);
    drop(sent);
    rig.end();
}

#[test]
fn frames_of_a_vtep_that_is_gone_wait_no_more() {
    let mut rig = Rig::with_tunnel(false);
    rig.send(0, 0, &frame(B, A).payload(&[1; 60]).build());
    rig.wait_for("the frame to come in", |rig| rig.counters[0][0].rx_packets.get() == 1);
    let (snapshot, _) = one_network(1, &[Caps::ALL; 2]);
    drop(rig.workers.publish(Arc::new(snapshot)));
    rig.runtime.block_on(rig.workers.settle());
    assert_eq!(rig.peers[0][0].drops[Reason::PortGone.index()].get(), 1);
    rig.end();
}
