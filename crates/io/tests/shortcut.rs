//! The way past the worker, between two veth pairs. Needs root.
#![allow(clippy::unwrap_used)]

mod net;

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use net::{End, Netns, assert_all_free, ethernet, pool, unfinished, wait_until};
use vswitch_io::hoststack::HostFilter;
use vswitch_io::packet;
use vswitch_io::shortcut::{Flow, Lost, Mark, Shortcut, Side, Traffic, Way};
use vswitch_wire::{FrameMeta, GsoKind, Tag};

type Sent = (Vec<u8>, FrameMeta);

const DESTINATION: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 2];
const INGRESS: u16 = 7;
const EGRESS: u16 = 4095;
const NETWORK: u16 = 16383;

/// Two hosts, and the two ports of a switch that they are cabled to.
struct Bed {
    netns: Netns,
    hosts: [End; 2],
    ports: [End; 2],
    filters: [HostFilter; 2],
    shortcut: &'static Shortcut,
}

impl Bed {
    fn new() -> Self {
        let (netns, pool) = (Netns::new(), pool());
        let shortcut = Shortcut::open().unwrap();
        let open =
            |name: &str, shortcut| End::new(netns.within(|| packet::open(name, 1, shortcut)).unwrap(), pool);
        for n in 0..2 {
            netns.veth(&format!("host{n}"), &netns, &format!("port{n}"));
            netns.ip(&format!("link set host{n} mtu 9000"));
            netns.ip(&format!("link set port{n} mtu 9000"));
        }
        let hosts = ["host0", "host1"].map(|name| open(name, None));
        let ports = ["port0", "port1"].map(|name| open(name, Some(shortcut)));
        assert_eq!(
            ports.each_ref().map(|end| end.port.facts.shortcut_ifindex),
            ["port0", "port1"].map(|name| Some(netns.index(name)))
        );
        let filters = ["port0", "port1"].map(|name| netns.keep_off(name, Some(shortcut)));
        shortcut.resume();
        Self { netns, hosts, ports, filters, shortcut }
    }

    /// From the first port to the second.
    fn flow(&self, vid: Option<u16>) -> Flow {
        Flow { ifindex: self.netns.index("port0"), vid, source: SOURCE, destination: DESTINATION }
    }

    fn way(&self, max_frame: u32) -> Way {
        let mark = |slot| Mark { slot, generation: self.generation(slot) };
        Way {
            epoch: self.shortcut.epoch().unwrap(),
            ifindex: self.netns.index("port1"),
            max_frame,
            source: mark(0xffff),
            destination: mark(12),
            ingress: self.side(INGRESS),
            egress: self.side(EGRESS),
            network: NETWORK,
        }
    }

    fn side(&self, port: u16) -> Side {
        Side { port, generation: self.shortcut.port_generation(port) }
    }

    fn generation(&self, slot: u32) -> u32 {
        self.shortcut.generations()[slot as usize].load(Ordering::Acquire)
    }

    fn insert(&self, vid: Option<u16>) {
        assert!(self.shortcut.insert(&self.flow(vid), &self.way(1514)).unwrap());
    }

    /// Whether a frame of the first host passes to the second; else it is at the first port.
    fn passes(&mut self, frame: &Sent) -> bool {
        assert_eq!(self.hosts[0].send(std::slice::from_ref(frame)).sent, 1);
        let (mut passed, mut stayed) = (Vec::new(), Vec::new());
        wait_until("the frame is somewhere", || {
            passed.extend(self.hosts[1].poll().unwrap());
            stayed.extend(self.ports[0].poll().unwrap());
            !passed.is_empty() || !stayed.is_empty()
        });
        let mut all = [passed.as_slice(), stayed.as_slice()].concat();
        assert_eq!(all.pop().as_ref(), Some(frame), "as it was sent");
        assert!(all.is_empty(), "once");
        !passed.is_empty()
    }

    /// What passed in by the first port; it is the same out by the second, and in the network.
    fn passed(&self) -> Traffic {
        let (received, sent) = self.shortcut.port(INGRESS);
        assert_eq!(sent, Traffic::default());
        assert_eq!(self.shortcut.port(EGRESS), (Traffic::default(), received));
        assert_eq!(self.shortcut.network(NETWORK), received);
        received
    }
}

fn udp(len: usize) -> Sent {
    let mut bytes = ethernet(len, 9);
    bytes[12..14].copy_from_slice(&[8, 0]);
    (bytes, FrameMeta::default())
}

fn tagged(tag: Tag) -> Sent {
    (udp(100).0, FrameMeta { tag: Some(tag), ..FrameMeta::default() })
}

fn with(mut frame: Sent, at: usize, byte: u8) -> Sent {
    frame.0[at] = byte;
    frame
}

#[test]
fn frames_of_a_flow_pass_and_others_stay() {
    let mut bed = Bed::new();
    assert!(!bed.passes(&udp(60)), "there is no flow yet");
    bed.insert(None);
    assert!(bed.passes(&udp(60)));
    assert!(bed.passes(&udp(1514)));
    assert_eq!(bed.passed(), Traffic { packets: 2, bytes: 60 + 1514 });
    let others = [
        udp(1515),
        with(udp(60), 11, 3),    // the source
        with(udp(60), 12, 0x86), // EtherTypes 8600, 0806: the latter is ARP
        with(udp(60), 13, 6),
        tagged(Tag::dot1q(0)),
        tagged(Tag::dot1q(10)),
        tagged(Tag { tpid: 0x88a8, tci: 10 }),
    ];
    for other in others {
        assert!(!bed.passes(&other), "{other:?}");
    }
    assert_eq!(bed.passed().packets, 2);
    let pool = bed.hosts[0].cache.pool();
    drop(bed);
    assert_all_free(pool);
}

#[test]
fn a_tag_stays_with_its_frame() {
    let mut bed = Bed::new();
    bed.insert(Some(10));
    // Priority and DEI are none of the flow's.
    for tci in [10, 0xf00a] {
        assert!(bed.passes(&tagged(Tag::dot1q(tci))));
    }
    assert_eq!(bed.passed(), Traffic { packets: 2, bytes: 2 * 104 });
    for other in [udp(100), tagged(Tag::dot1q(11)), tagged(Tag { tpid: 0x88a8, tci: 10 })] {
        assert!(!bed.passes(&other), "{other:?}");
    }
}

#[test]
fn gso_frames_of_tcp_pass_whole_where_their_segments_fit() {
    let mut bed = Bed::new();
    bed.insert(None);
    // Headers of 54 and 74 bytes.
    for (kind, v6, fits) in [(GsoKind::Tcp4, false, 1460), (GsoKind::Tcp6, true, 1440)] {
        assert!(bed.passes(&unfinished(kind, v6, 60_000, fits)));
        assert!(bed.passes(&unfinished(kind, v6, 60_000, 512)));
        assert!(!bed.passes(&unfinished(kind, v6, 60_000, fits + 1)), "its segments are too long");
        assert!(!bed.passes(&unfinished(kind, v6, 20_000, 511)), "and here too short");
        // A header with options is longer: its words are in the upper half of the 13th byte.
        let offset = if v6 { 66 } else { 46 };
        assert!(!bed.passes(&with(unfinished(kind, v6, 60_000, fits), offset, 0x60)));
        assert!(bed.passes(&with(unfinished(kind, v6, 60_000, fits - 4), offset, 0x60)));
        assert!(!bed.passes(&unfinished(GsoKind::Udp, v6, 40_000, 1400)), "is left to the pipeline");
        assert!(bed.passes(&unfinished(kind, v6, 1000, 0)), "an unfinished checksum is no obstacle");
    }
}

#[test]
fn no_flow_outlives_its_epoch_or_what_is_known_of_its_addresses() {
    let mut bed = Bed::new();
    for slot in [12, 0xffff] {
        bed.insert(None);
        assert!(bed.passes(&udp(60)));
        bed.shortcut.generations()[slot].fetch_add(1, Ordering::Release);
        assert!(!bed.passes(&udp(60)), "slot {slot}");
    }
    for port in [INGRESS, EGRESS] {
        bed.insert(None);
        assert!(bed.passes(&udp(60)));
        bed.shortcut.end_port(port);
        assert!(!bed.passes(&udp(60)), "port {port}");
    }
    let early = bed.way(1514);
    bed.insert(None);
    bed.shortcut.pause();
    assert_eq!(bed.shortcut.epoch(), None);
    assert!(!bed.passes(&udp(60)), "paused");
    bed.shortcut.resume();
    assert!(!bed.passes(&udp(60)), "of an epoch that is over");
    bed.shortcut.insert(&bed.flow(None), &early).unwrap();
    assert!(!bed.passes(&udp(60)), "decided before the pause, inserted behind it");
    bed.insert(None);
    assert!(bed.passes(&udp(60)));
}

#[test]
fn a_sweep_shows_flows_in_use_and_takes_out_the_others() {
    let mut bed = Bed::new();
    let sweep = |bed: &Bed, keep: bool| {
        let mut seen: Vec<u64> = Vec::new();
        let swept = bed.shortcut.sweep(|flow| {
            assert_eq!((flow.ingress, flow.network, flow.source), (INGRESS, NETWORK, SOURCE));
            seen.push(flow.idle);
            keep
        });
        assert_eq!(swept, Ok(()));
        seen
    };
    assert!(sweep(&bed, true).is_empty());
    bed.insert(None);
    bed.insert(Some(10));
    assert_eq!([sweep(&bed, true), sweep(&bed, true)], [[0, 0], [1, 1]]);
    assert!(bed.passes(&udp(60)));
    let mut idle = sweep(&bed, true);
    idle.sort_unstable();
    assert_eq!(idle, [0, 2]);
    bed.insert(Some(10));
    bed.shortcut.generations()[12].fetch_add(1, Ordering::Release);
    assert!(sweep(&bed, true).is_empty(), "they hold no more");
    bed.insert(None);
    assert_eq!(sweep(&bed, false), [0]);
    assert!(!bed.passes(&udp(60)));
}

#[test]
fn a_flow_that_has_its_way_needs_no_room_for_it_again() {
    let mut bed = Bed::new();
    (0..20_000).for_each(|_| bed.insert(None));
    let other = Flow { source: [2, 9, 9, 9, 9, 9], ..bed.flow(None) };
    assert!(bed.shortcut.insert(&other, &bed.way(1514)).unwrap());
    assert!(bed.passes(&udp(60)));
    assert_eq!(bed.shortcut.sweep(|_| false), Ok(()));
    assert!(!bed.passes(&udp(60)));
    bed.insert(None);
    assert!(bed.passes(&udp(60)));
}

/// Takes frames of 61 bytes from the first port's netdev before the host filter has them.
fn foreign_program(bed: &Bed) -> [OwnedFd; 2] {
    let index = bed.netns.index("port0");
    bed.netns.within(|| net::foreign::drop_frames(index, 61))
}

#[test]
fn frames_that_somebody_else_takes_do_not_send_others_in_their_place() {
    let mut bed = Bed::new();
    bed.insert(None);
    assert!(bed.passes(&udp(60)));
    let _foreign = foreign_program(&bed);
    net::pin();
    for _ in 0..100 {
        assert_eq!(bed.hosts[0].send(&[udp(61)]).sent, 1);
        // Of no flow, and in memory that the frame before was in.
        assert!(!bed.passes(&tagged(Tag::dot1q(99))));
    }
    assert_eq!(bed.passed().packets, 1);
}

#[test]
fn frames_that_somebody_else_takes_are_noticed() {
    let mut bed = Bed::new();
    bed.insert(None);
    assert!(bed.passes(&udp(60)));
    let sweep = |bed: &Bed| bed.shortcut.sweep(|_| true);
    assert_eq!([sweep(&bed), sweep(&bed)], [Ok(()), Ok(())]);
    let foreign = foreign_program(&bed);
    assert_eq!(bed.hosts[0].send(&[udp(61), udp(61)]).sent, 2);
    assert_eq!([sweep(&bed), sweep(&bed)], [Ok(()), Err(Lost { port: INGRESS, frames: 2 })]);
    drop(foreign);
    bed.shortcut.pause();
    bed.shortcut.clear_port(INGRESS);
    assert_eq!([sweep(&bed), sweep(&bed)], [Ok(()), Ok(())]);
}

#[test]
fn a_frame_without_word_of_it_is_dropped() {
    let mut bed = Bed::new();
    bed.insert(None);
    assert!(bed.passes(&udp(60)));
    // The socket goes, and with it who could tell; the host filter stays. A host behind it hears nothing either.
    let Bed { netns, hosts: [mut near, mut far], ports: [port, kept], filters, .. } = bed;
    drop(port);
    assert_eq!(near.send(&[udp(60)]).sent, 1);
    // A netdev gives its frames out in order: one that was let through would be before this one.
    let mut again = End::new(netns.within(|| packet::open("port0", 1, None)).unwrap(), near.cache.pool());
    assert_eq!(near.send(&[udp(61)]).sent, 1);
    assert_eq!(again.receive(1), [udp(61)]);
    assert!(far.poll().unwrap().is_empty());
    drop((filters, kept));
}
