//! Two tenants with the same MACs, the same VLAN IDs and the same peer: whatever one of them sends, the other does not
//! get it, and what the switch knows of the other does not change.

#![allow(clippy::unwrap_used, clippy::panic)] // these are tests, although not all functions are marked so

mod testbed;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use testbed::{A, B, GROUP, Switch, access, port, trunk};
use vswitch_dataplane::tunnel::{Outer, Outgoing};
use vswitch_dataplane::{Attachment, NetId, Port, PortId, Snapshot, Tunnel, Underlay};
use vswitch_wire::testing::{VecFrame, frame};
use vswitch_wire::{Csum, FrameBuf, Gso, GsoKind, Mac, Offload, Tag, Vni, vxlan};

/// Frames that the hostile tenant sends.
const FRAMES: u64 = 1_000_000;

/// Acme's networks, Bolt's, and the underlay.
const ACME: [NetId; 2] = [NetId(0), NetId(1)];
const BOLT: NetId = NetId(2);
const UNDER: NetId = NetId(3);
/// Their VNIs.
const VNIS: [u32; 3] = [100, 101, 200];
/// Acme's ports, Bolt's, and one that carries all: acme's first network as VLAN 30, Bolt's as 40, the underlay as 99.
const UPLINK: u16 = 4;
const PEER: u16 = 5;
const ACME_VID: u16 = 30;
const UNDER_VID: u16 = 99;

const VTEP: Mac = Mac([2, 0, 0, 0, 9, 1]);
const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

fn ports() -> Vec<Port> {
    let outer = Outer::new(&Outgoing {
        source_mac: VTEP,
        next_hop: Mac([2, 0, 0, 0, 9, 2]),
        source: IpAddr::V4(OWN),
        destination: IpAddr::V4(OTHER),
        udp_port: vxlan::UDP_PORT,
        ttl: 64,
        dscp: 0,
        checksum: false,
    });
    let tunnel = Tunnel::new(IpAddr::V4(OTHER), [ACME[0], ACME[1], BOLT], outer);
    vec![
        port(access(0)),
        port(trunk(&[(10, 0), (20, 1)], None)),
        port(access(2)),
        port(trunk(&[(10, 2)], Some(2))),
        Port { max_frame: 9014, ..port(trunk(&[(ACME_VID, 0), (40, 2), (UNDER_VID, 3)], None)) },
        port(Attachment::Tunnel(Arc::new(tunnel))),
    ]
}

fn switch() -> Switch {
    let mut switch = Switch::new(&ports(), 4);
    let vnis = VNIS.map(|n| Vni::new(n).unwrap());
    for (network, vni) in [ACME[0], ACME[1], BOLT].into_iter().zip(vnis) {
        switch.networks[network.index()].vni = Some(vni);
    }
    switch.configure(&ports());
    let at = (UNDER, PortId(UPLINK));
    let own = (VTEP, IpAddr::V4(OWN), vxlan::UDP_PORT);
    let networks = [(vnis[0], ACME[0]), (vnis[1], ACME[1]), (vnis[2], BOLT)];
    let underlay = Underlay::new(at, own, &[(IpAddr::V4(OTHER), PortId(PEER))], &networks, [0; 2]);
    let empty = Snapshot::new(vec![], vec![], switch.fdb.clone());
    switch.snapshot = std::mem::replace(&mut switch.snapshot, empty).with_underlay(Some(underlay));
    switch
}

/// A generator whose runs are alike (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 32) as usize % n
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn mac(&mut self) -> Mac {
        let random = Mac::from_u64(self.next() & 0xffff_ffff_ffff);
        self.of(&[A, B, A, B, VTEP, GROUP, Mac::BROADCAST, Mac([2, 0, 0, 0, 9, 2]), random])
    }

    fn tag(&mut self) -> Tag {
        let vid = self.next() as u16;
        let vid = self.of(&[0, 10, 20, 30, 40, UNDER_VID, 4095, vid]);
        Tag {
            tpid: self.of(&[0x8100, 0x8100, 0x8100, 0x88a8, 0x9100]),
            tci: vid | self.next() as u16 & 0xf000,
        }
    }

    /// A frame as a hostile tenant would make it: tags in any number, tunnels aimed at the VTEP, lies of ARP, rubbish.
    fn bytes(&mut self, depth: u32) -> Vec<u8> {
        let mut built = frame(self.mac(), self.mac());
        for _ in 0..self.of(&[0, 0, 0, 1, 1, 2, 3]) {
            built = built.tag(self.tag());
        }
        let ip =
            |random: &mut Self| random.of(&[OWN, OTHER, Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::BROADCAST]);
        let built = match self.below(5) {
            0 => built.ether_type(0x0806).payload(&[1; 28]),
            1 => {
                built.ip(ip(self), ip(self)).tcp(1, 2, self.next() as u8).payload(&vec![7; self.below(1600)])
            }
            2 => built.ip([0xfd; 16], [0xfc; 16]).udp(1, 2).payload(&vec![7; self.below(100)]),
            3 if depth < 2 => {
                let vni = Vni::new(self.of(&VNIS)).unwrap();
                let inner = [&vxlan::header(vni)[..], &self.bytes(depth + 1)].concat();
                built.ip(ip(self), ip(self)).udp(50_000, vxlan::UDP_PORT).payload(&inner)
            }
            _ => built.ether_type(self.next() as u16).payload(&vec![self.next() as u8; self.below(64)]),
        };
        let mut bytes = built.bytes();
        if self.below(8) == 0 {
            bytes.truncate(self.below(bytes.len() + 1));
        }
        if self.below(8) == 0 && !bytes.is_empty() {
            let at = self.below(bytes.len());
            bytes[at] ^= self.next() as u8;
        }
        bytes
    }

    fn frame(&mut self) -> VecFrame {
        let mut frame = VecFrame::new(&self.bytes(0));
        if self.below(6) == 0 {
            frame = frame.with_tag(self.tag());
        }
        if self.below(6) == 0 {
            let csum = Csum { start: self.of(&[34, 38, 54, 84, 104, 9999]), offset: self.of(&[6, 16, 8, 2]) };
            let kind = self.of(&[GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp]);
            let gso = Gso { kind, size: self.of(&[0, 1, 48, 536, 1448, u16::MAX]), ecn: false };
            let gso = (self.below(2) == 0).then_some(gso);
            frame = frame.with_offload(Offload { csum: Some(csum), gso });
        }
        frame
    }
}

/// Whether what left by the uplink is Acme's: tagged as its network, or in a tunnel with a VNI of its own.
fn is_acme_s(bytes: &[u8]) -> bool {
    let tci = u16::from_be_bytes([bytes[14], bytes[15]]);
    if bytes[12..14] != [0x81, 0x00] {
        return false;
    }
    match tci & 0x0fff {
        ACME_VID => true,
        // Ethernet, tag, IPv4 and UDP, then VXLAN: from the VTEP, and made by it.
        UNDER_VID => {
            let vni = u32::from_be_bytes([0, bytes[50], bytes[51], bytes[52]]);
            bytes[6..12] == VTEP.0 && bytes[30..34] == OWN.octets() && VNIS[..2].contains(&vni)
        }
        _ => false,
    }
}

#[test]
fn a_million_frames_of_one_tenant_never_reach_another() {
    let mut switch = switch();
    // Bolt has the same stations, at ports of its own and behind the peer.
    for (mac, port) in [(A, 2), (B, 3), (Mac([2, 0, 0, 0, 9, 2]), PEER)] {
        switch.fdb.learn(&switch.snapshot, BOLT, mac, PortId(port), switch.now);
    }
    let known = |switch: &Switch| [A, B, Mac([2, 0, 0, 0, 9, 2])].map(|mac| switch.fdb.lookup(BOLT, mac));
    let before = known(&switch);
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut left = [0_u64; 6];
    for batch in 0..FRAMES / 50 {
        let ingress = random.of(&[0, 1]);
        let mut frames: Vec<VecFrame> = (0..50).map(|_| random.frame()).collect();
        let sent = frames.clone();
        for (outcome, sent) in switch.receive(ingress, &mut frames).iter().zip(&sent) {
            for (port, bytes) in &outcome.out {
                let is_right = match *port {
                    0 | 1 => true,
                    UPLINK => is_acme_s(bytes),
                    _ => false,
                };
                let (sent, meta) = (sent.bytes(), sent.meta());
                assert!(is_right, "by port {port}: {bytes:02x?}\nas {ingress} had sent {sent:02x?} {meta:?}");
                left[usize::from(*port)] += 1;
            }
        }
        // Now and then much is forgotten, so that unknown stations stay unknown to some.
        if batch % 100 == 0 {
            switch.fdb.flush(vswitch_dataplane::fdb::Filter { network: Some(ACME[0]), ..Default::default() });
        }
    }
    assert_eq!((known(&switch), switch.fdb.learnt_in(BOLT)), (before, 3));
    // The frames were not all dropped for a trifle.
    let [acme, trunk, .., uplink, _] = left;
    assert!(acme > FRAMES / 500 && trunk > FRAMES / 50 && uplink > FRAMES / 20, "{left:?}");
    switch.assert_conserved();
}
