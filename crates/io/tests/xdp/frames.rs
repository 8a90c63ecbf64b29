//! What crosses a port: bursts, tags, jumbo frames, checksums, and what cannot be sent.

use std::net::UdpSocket;

use vswitch_io::pool::CHUNK;
use vswitch_io::xdp::{self, Options};
use vswitch_io::{FrameVec, TxReport};
use vswitch_wire::{FrameBuf, Tag};

use crate::lab::{Host, enter_switch};
use crate::net::{self, wait_until};
use crate::port::{Port, carry, relay};
use crate::{assert_whole, bpf, frame, ifindex, pool};

#[test]
fn bursts_cross_both_ways_in_order() {
    enter_switch();
    let (a, b) = (Host::new("p1", ""), Host::new("p2", ""));
    let (a, b) = (a.socket(), b.socket());
    let pool = pool();
    let (mut left, mut right) = (Port::open("p1", pool), Port::open("p2", pool));
    assert_eq!(left.opened.facts.mode, "native, copy");
    for (from, to) in [(&a, &b), (&b, &a)] {
        (0..200).for_each(|n| from.send(&frame(n, 60)));
        let mut moved = 0;
        wait_until("every frame is moved", || {
            moved += relay(&mut left, &mut right);
            moved == 200
        });
        for n in 0..200 {
            assert_eq!(to.receive().unwrap().bytes, frame(n, 60));
        }
        std::mem::swap(&mut left, &mut right);
    }
    assert_eq!(left.opened.rx[0].missed(), 0);
    drop((left, right));
    assert_whole(pool);
}

#[test]
fn a_batch_larger_than_one_system_call_takes_is_sent_whole() {
    enter_switch();
    let host = Host::new("p1", "").socket();
    let pool = pool();
    let mut port = Port::open("p1", pool);
    let frames: Vec<_> = (0..256).map(|n| frame(n, 60)).collect();
    let report = port.send_bytes(&frames);
    assert_eq!(report, TxReport { sent: 256, sent_bytes: 256 * 60, ..TxReport::default() });
    for sent in &frames {
        assert_eq!(host.receive().unwrap().bytes, *sent);
    }
    drop(port);
    assert_whole(pool);
}

#[test]
fn a_tag_beside_the_frame_is_recovered() {
    enter_switch();
    let (a, b) = (Host::new("p1", ""), Host::new("p2", ""));
    let pool = pool();
    let (mut left, mut right) = (Port::open("p1", pool), Port::open("p2", pool));
    assert_eq!(left.opened.facts.vlan, Ok(()));
    let (from, to) = (a.socket(), b.socket());
    for tci in [0x0001, 0x6064, 0xffff, 0x0000] {
        let tag = a.inside(|| bpf::push_tag(ifindex(c"eth"), tci)).unwrap();
        from.send(&frame(1, 60));
        let (bytes, meta) = left.receive();
        assert_eq!((bytes, meta.tag), (frame(1, 60), Some(Tag::dot1q(tci))));
        from.send(&frame(2, 60));
        wait_until("the frame is moved", || relay(&mut left, &mut right) == 1);
        let arrived = to.receive().unwrap();
        assert_eq!((arrived.bytes, arrived.tci), (frame(2, 60), Some(tci)));
        drop(tag);
    }
    from.send(&frame(3, 60));
    assert_eq!(left.receive().1.tag, None, "untagged again");
    drop((left, right));
    assert_whole(pool);
}

#[test]
fn a_tag_in_the_frame_stays_there() {
    enter_switch();
    let host = Host::new("p1", "").socket();
    let pool = pool();
    let mut port = Port::open("p1", pool);
    let mut tagged = frame(1, 60);
    tagged.splice(12..12, [0x81, 0x00, 0x20, 0x07]);
    host.send(&tagged);
    let (bytes, meta) = port.receive();
    assert_eq!((bytes, meta.tag), (tagged, None));
}

#[test]
fn jumbo_frames_cross() {
    enter_switch();
    let (a, b) = (Host::new("p1", "mtu 9000"), Host::new("p2", "mtu 9000"));
    let (a, b) = (a.socket(), b.socket());
    let pool = pool();
    let (mut left, mut right) = (Port::open("p1", pool), Port::open("p2", pool));
    assert_eq!((left.opened.facts.mtu, left.opened.facts.mtu_limit), (9000, 65535));
    for len in [60, 1514, 3520, 3840, 3841, CHUNK, CHUNK + 1, 8192, 9014] {
        // Large ones between small ones: chains must not run into their neighbours.
        for (n, len) in [(1, 60), (2, len), (3, len), (4, 60)] {
            a.send(&frame(n, len));
        }
        let mut moved = 0;
        wait_until("every frame is moved", || {
            moved += relay(&mut left, &mut right);
            moved == 4
        });
        for (n, len) in [(1, 60), (2, len), (3, len), (4, 60)] {
            assert!(b.receive().unwrap().bytes == frame(n, len), "frame {n} of {len} bytes");
        }
    }
    drop((left, right));
    assert_whole(pool);
}

#[test]
fn the_largest_mtu_works() {
    enter_switch();
    let host = Host::new("p1", "mtu 65535").socket();
    let pool = pool();
    let mut port = Port::open("p1", pool);
    let sent = frame(1, 65535 + 14);
    host.send(&sent);
    assert!(port.receive().0 == sent);
    assert_eq!(port.send_bytes(std::slice::from_ref(&sent)).sent, 1);
    assert!(host.receive().unwrap().bytes == sent);
    drop(port);
    assert_whole(pool);
}

#[test]
fn unfinished_checksums_are_seen() {
    enter_switch();
    let host = Host::new("p1", "");
    host.netns().ip("address add 192.0.2.1/24 dev eth");
    host.netns().ip("neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev eth");
    let pool = pool();
    let mut port = Port::open("p1", pool);
    assert!(port.opened.facts.rx_caps.csum);
    host.inside(|| UdpSocket::bind("192.0.2.1:1000").unwrap().send_to(b"hello", "192.0.2.2:2000").unwrap());
    let mut csum = None;
    wait_until("the datagram", || {
        port.poll(100).unwrap();
        let udp = port.batch.drain().find(|f| f.bytes().len() > 36 && f.bytes()[36..38] == [0x07, 0xd0]);
        csum = udp.map(|f| f.meta().offload.csum);
        csum.is_some()
    });
    assert_eq!(csum.unwrap().map(|c| (c.start, c.offset)), Some((34, 6)));
}

/// Carries TCP between two hosts, over IPv4 and IPv6, with checksums finished as a switch would.
#[test]
fn tcp_arrives_whole() {
    enter_switch();
    let (a, b) = (Host::new("p1", ""), Host::new("p2", ""));
    a.netns().address(1, "eth");
    b.netns().address(2, "eth");
    let pool = pool();
    let (mut left, mut right) = (Port::open("p1", pool), Port::open("p2", pool));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                carry(&mut left, &mut right);
                carry(&mut right, &mut left);
            }
        });
        for address in ["10.1.0.2:0", "[fd01::2]:0"] {
            net::transfer(a.netns(), b.netns(), address.parse().unwrap(), 4 << 20);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    for host in [&a, &b] {
        assert_eq!(net::snmp(host.netns(), "Tcp", "InCsumErrors"), 0);
    }
    drop((left, right));
    assert_whole(pool);
}

#[test]
fn frames_that_find_no_room_are_counted_once() {
    enter_switch();
    let host = Host::new("p1", "").socket();
    let pool = pool();
    let opened = xdp::open("p1", 1, pool, Options { ring: 64 }).unwrap();
    let mut port = Port { cache: pool.cache(), batch: FrameVec::new(64), opened };
    (0..100).for_each(|n| host.send(&frame(n, 60)));
    // Nobody polled: what did not fit into the ring is lost.
    let (mut got, mut came) = (0, 0);
    wait_until("every frame is accounted for", || {
        let missed = port.opened.rx[0].missed() as usize;
        came += port.poll(10).unwrap();
        port.keep_ours();
        got += port.batch.drain().count();
        assert!(got + missed <= 100 + 8, "{got} received, {missed} missed"); // the stack's own frames too
        got + missed >= 100
    });
    // The ring was full; the host's stack may have had some of its places.
    assert!(came >= 64, "{came}");
    drop(port);
    assert_whole(pool);
}

#[test]
fn what_cannot_be_sent_is_refused_and_comes_back() {
    enter_switch();
    let _host = Host::new("p1", "");
    let pool = pool();
    let mut port = Port::open("p1", pool);
    let mut batch = FrameVec::new(3);
    for n in 0..3 {
        let mut out = port.cache.acquire_for(60).unwrap();
        out.set_len(if n == 0 { 13 } else { 60 });
        match n {
            1 => out.meta_mut().tag = Some(Tag::dot1q(5)),
            2 => out.meta_mut().offload.csum = Some(vswitch_wire::Csum { start: 34, offset: 6 }),
            _ => {}
        }
        batch.push(out).unwrap();
    }
    let report = port.send(&mut batch);
    assert_eq!(report, TxReport { refused: 3, ..TxReport::default() });
    drop(port);
    assert_whole(pool);
}
