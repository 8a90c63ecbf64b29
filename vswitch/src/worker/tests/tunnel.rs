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
        self.publish_peer_of(&[RED], 7, is_resolved);
    }

    /// The peer is one of these networks, and RED has this VNI.
    fn publish_peer_of(&self, of: &[NetId], vni: u32, is_resolved: bool) {
        let snapshot = self.tunnel_snapshot(of, vni, is_resolved, Attachment::Access(UNDERLAY));
        let old = self.workers.publish(Arc::new(snapshot));
        self.runtime.block_on(self.workers.settle());
        drop(old);
    }

    fn tunnel_snapshot(&self, of: &[NetId], vni: u32, is_resolved: bool, uplink: Attachment) -> Snapshot {
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
        let tunnel = Tunnel::new(OTHER, of.iter().copied(), outer.filter(|_| is_resolved));
        let peer = Port {
            attachment: Attachment::Tunnel(Arc::new(tunnel)),
            max_frame: 1514 - OVERHEAD as u32,
            ..port(Caps::NONE, &self.peers[0])
        };
        let uplink = Port { attachment: uplink, ..port(Caps::ALL, &self.counters[1]) };
        let ports = vec![Some(port(Caps::ALL, &self.counters[0])), Some(uplink), Some(peer)];
        let network = || {
            let counters = Arc::from(vec![NetworkCounters::default()]);
            Network::new(1000, Duration::from_secs(300), counters)
        };
        let vni = Vni::new(vni).unwrap();
        let mut networks = vec![Some(network()), Some(network())];
        networks[0].as_mut().unwrap().vni = Some(vni);
        let at = (UNDERLAY, PortId(1));
        let underlay =
            Underlay::new(at, (VTEP, OWN, vxlan::UDP_PORT), &[(OTHER, PEER)], &[(vni, RED)], [0; 2]);
        Snapshot::new(ports, networks, Arc::new(Fdb::new(1024))).with_underlay(Some(underlay))
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

/// The peer leaves the network while it stays one of another, then its next hop is found.
#[test]
fn a_frame_that_waits_does_not_go_to_a_vtep_that_has_left_its_network() {
    let mut rig = Rig::with_tunnel(false);
    rig.send(0, 0, &frame(B, A).payload(b"red's secret").build());
    rig.wait_for("the frame to come in", |rig| rig.counters[0][0].rx_packets.get() == 1);
    rig.publish_peer_of(&[], 7, false);
    rig.publish_peer_of(&[], 7, true);
    assert_eq!(rig.peers[0][0].tx_packets.get(), 0, "a frame of red went to a VTEP that is no peer of red");
    rig.end();
}

/// The network goes, and its number is given to another tenant's, which has the same VTEP as a peer.
#[test]
fn a_frame_that_waits_does_not_go_to_another_network_of_the_same_number() {
    let mut rig = Rig::with_tunnel(false);
    rig.send(0, 0, &frame(B, A).payload(b"red's secret").build());
    rig.wait_for("the frame to come in", |rig| rig.counters[0][0].rx_packets.get() == 1);
    rig.publish_peer_of(&[], 7, false); // red is deleted; its number is free
    rig.publish_peer_of(&[RED], 8, true); // and now that of blue, whose VNI is 8
    if rig.peers[0][0].tx_packets.get() > 0 {
        let sent = rig.receive(1, 1);
        let vni = &sent[0].bytes()[OVERHEAD - 4..OVERHEAD];
        panic!("{:?} left as of VNI {vni:?}", std::str::from_utf8(&sent[0].bytes()[OVERHEAD + 14..][..12]));
    }
    rig.end();
}

/// A port whose first transmission falls together with a change of the configuration.
struct Changing {
    queue: Box<dyn TxQueue>,
    at: Arc<ArcSwap<Snapshot>>,
    next: Option<Arc<Snapshot>>,
}

impl TxQueue for Changing {
    fn tx(&mut self, pool: &mut PoolCache, frames: &mut FrameVec) -> vswitch_io::TxReport {
        if let Some(next) = self.next.take() {
            self.at.store(next);
        }
        self.queue.tx(pool, frames)
    }

    fn reclaim(&mut self, pool: &mut PoolCache) {
        self.queue.reclaim(pool);
    }
}

/// A change takes a VTEP away while a frame from it is between its two passes through the pipeline.
#[test]
fn a_frame_out_of_a_tunnel_is_counted_when_its_vtep_goes_in_between() {
    use vswitch_dataplane::{Trunk, TrunkEntry};
    let mut rig = Rig::with_tunnel(true);
    let entry = TrunkEntry { vid: vswitch_wire::Vid::new(10).unwrap(), network: RED };
    let uplink = Attachment::Trunk(Arc::new(Trunk::new(&[entry], Some(UNDERLAY))));
    drop(rig.workers.publish(Arc::new(rig.tunnel_snapshot(&[RED], 7, true, uplink))));
    rig.runtime.block_on(rig.workers.settle());
    let ports = rig.counters.iter().map(|counters| Some(port(Caps::ALL, counters))).collect();
    let of_network = Arc::from(vec![NetworkCounters::default()]);
    let networks = vec![Some(Network::new(1000, Duration::from_secs(300), of_network))];
    let next = Arc::new(Snapshot::new(ports, networks, Arc::new(Fdb::new(1024))));
    let queues = rig.runtime.block_on(rig.workers.detach(PortId(0)));
    let [queues] = queues.try_into().ok().unwrap();
    let at = Arc::clone(&rig.workers.snapshot);
    let changing = Changing { queue: queues.tx, at, next: Some(next) };
    rig.runtime.block_on(rig.workers.attach(PortId(0), 9, queues.rx, vec![Box::new(changing)]));
    // One batch: a frame of red on the uplink's trunk, and one of red in VXLAN.
    let plain = frame(A, B).tag(Tag::dot1q(10)).payload(&[1; 60]).build();
    let inner = frame(A, B).payload(&[2; 60]).build();
    let payload = [&vxlan::header(Vni::new(7).unwrap()), inner.bytes()].concat();
    let outer = frame(VTEP, ROUTER).ip(OTHER, OWN).udp(50_000, vxlan::UDP_PORT).payload(&payload).build();
    let mut frames = FrameVec::new(2);
    for frame in [&plain, &outer] {
        frames.push(copy_of(frame, &mut rig.cache)).unwrap();
    }
    assert_eq!(rig.ends[1].tx[0].tx(&mut rig.cache, &mut frames).sent, 2);
    drop(rig.receive(0, 1));
    rig.runtime.block_on(rig.workers.settle());
    assert_eq!(rig.counters[1][0].rx_packets.get(), 2);
    rig.end(); // every frame must be counted
}

#[test]
fn frames_that_wait_when_the_worker_stops_are_counted_and_back_in_the_pool() {
    let mut rig = Rig::with_tunnel(false);
    rig.send(0, 0, &frame(B, A).payload(&[1; 60]).build());
    rig.wait_for("the frame to come in", |rig| rig.counters[0][0].rx_packets.get() == 1);
    rig.end();
}

/// One tenant's VTEPs that do not answer, and the first frame to another tenant's.
#[test]
fn a_tenant_whose_vteps_do_not_answer_leaves_room_for_anothers_frames_to_wait() {
    use super::super::waiting::Waiting;
    let pool = Pool::new(PoolConfig { wire: 512, large: 0 }).unwrap();
    let mut cache = pool.cache();
    let counters: Arc<[PortCounters]> = Arc::from(vec![PortCounters::default()]);
    let silent = |network| {
        let tunnel = Tunnel::new(OTHER, [network], None);
        Some(Port { attachment: Attachment::Tunnel(Arc::new(tunnel)), ..port(Caps::NONE, &counters) })
    };
    let ports = (0..17).map(|n| silent(NetId(u16::from(n == 16)))).collect();
    let snapshot = Snapshot::new(ports, Vec::new(), Arc::new(Fdb::new(16)));
    let mut waiting = Waiting::new(0);
    for n in 0..256 {
        let frame = cache.acquire_for(60).unwrap();
        assert!(waiting.hold(&snapshot, NetId(0), PortId(n % 16), frame).is_ok());
    }
    let frame = cache.acquire_for(60).unwrap();
    assert!(waiting.hold(&snapshot, NetId(1), PortId(16), frame).is_ok(), "blue's frame finds no room");
}
