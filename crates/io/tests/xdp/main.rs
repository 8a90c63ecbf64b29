//! The AF_XDP driver on the real kernel: veths between namespaces. Needs root.

#![allow(unsafe_code)] // raw sockets and bpf(2), as in the crate under test
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]
#![cfg(target_endian = "little")]

mod bpf;
mod lab;
#[path = "../net/mod.rs"]
mod net;

use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use lab::{Host, enter_switch, run};
use net::wait_until;
use vswitch_io::pool::CHUNK;
use vswitch_io::xdp::{self, Options};
use vswitch_io::{FrameClass, FrameVec, OpenError, Opened, Pool, PoolCache, PoolConfig, PortError, TxReport};
use vswitch_wire::{FrameBuf, Tag, vlan};

/// IEEE 802 local experimental EtherType 1.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const WIRE: u32 = 4096;
const LARGE: u32 = 64;

fn pool() -> &'static Pool {
    Pool::new(PoolConfig { wire: WIRE, large: LARGE }).unwrap()
}

/// Every frame is back.
fn assert_whole(pool: &Pool) {
    let free = (pool.free(FrameClass::Wire), pool.free(FrameClass::Large));
    assert_eq!(free, (WIRE as usize, LARGE as usize), "frames are missing");
}

/// A frame of `len` bytes that says which one it is.
fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1]);
    frame.extend(ETHERTYPE);
    frame.extend(number.to_be_bytes());
    let filled = frame.len();
    frame.extend((filled..len).map(|n| (n as u32 ^ number) as u8));
    frame
}

/// An open port with one worker's things.
struct Port {
    cache: PoolCache,
    batch: FrameVec,
    opened: Opened,
}

impl Port {
    fn open(netdev: &str, pool: &'static Pool) -> Self {
        let opened = xdp::open(netdev, 1, pool, Options::default()).unwrap();
        Self { cache: pool.cache(), batch: FrameVec::new(64), opened }
    }

    /// One look at every queue, after waiting for a frame for at most `ms`.
    fn poll(&mut self, ms: i32) -> Result<usize, PortError> {
        for queue in &mut self.opened.rx {
            queue.arm();
        }
        if self.rx()? == 0 {
            let fd = |queue: &dyn vswitch_io::RxQueue| queue.fd().unwrap().as_raw_fd();
            let mut fds: Vec<libc::pollfd> = (self.opened.rx.iter())
                .map(|queue| libc::pollfd { fd: fd(&**queue), events: libc::POLLIN, revents: 0 })
                .collect();
            // SAFETY: the descriptors are as many as is said.
            unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as u64, ms) };
            self.rx()?;
        }
        Ok(self.batch.len())
    }

    fn rx(&mut self) -> Result<usize, PortError> {
        let mut got = 0;
        for queue in &mut self.opened.rx {
            got += queue.rx(&mut self.cache, &mut self.batch)?;
        }
        Ok(got)
    }

    /// Drops frames that are none of the tests' own, such as IPv6 router solicitations.
    fn keep_ours(&mut self) {
        let all: Vec<_> = self.batch.drain().collect();
        for frame in all {
            if frame.bytes().get(12..14) == Some(&ETHERTYPE) || frame.bytes().get(16..18) == Some(&ETHERTYPE)
            {
                self.batch.push(frame).unwrap();
            }
        }
    }

    /// The next frame of the tests' own: bytes and metadata.
    fn receive(&mut self) -> (Vec<u8>, vswitch_wire::FrameMeta) {
        let mut found = None;
        wait_until("a frame", || {
            self.poll(100).unwrap();
            self.keep_ours();
            assert!(self.batch.len() <= 1, "more than one frame");
            found = self.batch.drain().next().map(|f| (f.bytes().to_vec(), *f.meta()));
            found.is_some()
        });
        found.unwrap()
    }

    /// Sends the batch of another port.
    fn send(&mut self, batch: &mut FrameVec) -> TxReport {
        self.opened.tx[0].tx(&mut self.cache, batch)
    }

    fn send_bytes(&mut self, frames: &[Vec<u8>]) -> TxReport {
        let mut batch = FrameVec::new(frames.len());
        for bytes in frames {
            let mut frame = self.cache.acquire_for(bytes.len()).unwrap();
            frame.set_len(bytes.len());
            frame.bytes_mut().copy_from_slice(bytes);
            batch.push(frame).unwrap();
        }
        self.send(&mut batch)
    }
}

/// Moves what waits at `from` to `to`, tags put into the bytes; returns how many.
fn relay(from: &mut Port, to: &mut Port) -> usize {
    from.poll(20).unwrap();
    from.keep_ours();
    for frame in from.batch.as_mut_slice() {
        vlan::push(frame).unwrap();
    }
    let given = from.batch.len();
    let report = to.send(&mut from.batch);
    assert_eq!((report.sent, report.full, report.refused), (given as u32, 0, 0));
    given
}

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

#[test]
fn a_deleted_link_is_gone_and_its_frames_come_back() {
    enter_switch();
    let _host = Host::new("p1", "");
    let pool = pool();
    let mut port = Port::open("p1", pool);
    run("ip link del p1");
    wait_until("the port is gone", || matches!(port.poll(10), Err(PortError::Gone)));
    let report = port.send_bytes(&[frame(1, 60), frame(2, 60)]);
    assert_eq!((report.sent, report.refused, report.full), (0, 2, 0));
    assert!(matches!(port.poll(0), Err(PortError::Gone)), "for ever");
    drop(port);
    assert_whole(pool);
}

#[test]
fn sending_into_a_deleted_link_is_found_out() {
    enter_switch();
    let _host = Host::new("p1", "");
    let pool = pool();
    let mut port = Port::open("p1", pool);
    run("ip link del p1");
    port.send_bytes(&[frame(1, 60)]); // on the ring before the kernel says that it is gone
    assert!(matches!(port.rx(), Err(PortError::Gone)));
    drop(port);
    assert_whole(pool);
}

#[test]
fn a_link_that_is_down_is_no_error() {
    enter_switch();
    let host = Host::new("p1", "").socket();
    let pool = pool();
    let mut port = Port::open("p1", pool);
    run("ip link set p1 down");
    port.poll(10).unwrap();
    port.send_bytes(&[frame(1, 60)]); // finds out, and stays on the ring
    let report = port.send_bytes(&[frame(2, 60), frame(3, 60)]);
    assert_eq!((report.sent, report.refused, report.full), (0, 2, 0));
    port.poll(10).unwrap();
    run("ip link set p1 up");
    wait_until("frames are sent again", || port.send_bytes(&[frame(4, 60)]).sent == 1);
    wait_until("the frame arrives", || host.receive().is_some_and(|f| f.bytes == frame(4, 60)));
    host.send(&frame(5, 60));
    assert_eq!(port.receive().0, frame(5, 60));
    drop(port);
    assert_whole(pool);
}

#[test]
fn a_port_opens_while_its_link_is_down() {
    enter_switch();
    let host = Host::new("p1", "").socket();
    run("ip link set p1 down");
    let pool = pool();
    let mut port = Port::open("p1", pool);
    port.poll(10).unwrap();
    run("ip link set p1 up");
    wait_until("the link is up", || run("ip link show p1").contains("LOWER_UP"));
    host.send(&frame(1, 60));
    assert_eq!(port.receive().0, frame(1, 60));
}

#[test]
fn a_port_opens_again_at_once() {
    enter_switch();
    let host = Host::new("p1", "").socket();
    let pool = pool();
    for n in 0..5 {
        let mut port = Port::open("p1", pool);
        host.send(&frame(n, 60));
        assert_eq!(port.receive().0, frame(n, 60));
        assert_eq!(port.send_bytes(&[frame(n, 60)]).sent, 1);
        assert_eq!(host.receive().unwrap().bytes, frame(n, 60));
    }
    assert_whole(pool);
}

#[test]
fn nothing_is_left_on_the_device() {
    enter_switch();
    let host = Host::new("p1", "");
    // The kernel tells of the carrier in its own time.
    wait_until("the link to be up", || run("ip link show p1").contains("state UP"));
    let tso = || host.inside(|| run("ethtool -k eth"));
    let before = (run("ip -details link show p1"), tso());
    let port = Port::open("p1", pool());
    assert!(run("ip -details link show p1").contains("prog/xdp"));
    drop(port);
    assert_eq!((run("ip -details link show p1"), tso()), before);
}

#[test]
fn a_queue_in_use_is_refused() {
    enter_switch();
    let _host = Host::new("p1", "");
    let (pool, other) = (pool(), pool());
    let port = Port::open("p1", pool);
    let refused = xdp::open("p1", 1, other, Options::default()).err().unwrap();
    assert!(refused.to_string().contains("queue 0 of `p1` is served by"), "{refused}");
    assert_whole(other);
    drop(port);
    assert_whole(pool);
}

#[test]
fn a_foreign_program_is_left_alone() {
    enter_switch();
    let _host = Host::new("p1", "");
    let pool = pool();
    let foreign = bpf::pass(ifindex(c"p1")).unwrap();
    let refused = xdp::open("p1", 1, pool, Options::default()).err().unwrap();
    assert!(refused.to_string().contains("another XDP program (id "), "{refused}");
    assert!(run("ip -details link show p1").contains("prog/xdp"));
    assert_whole(pool);
    drop(foreign);
    // A child that another test has forked, and that has not begun its own program yet, holds it for a moment more.
    wait_until("the foreign program is gone", || !run("ip -details link show p1").contains("prog/xdp"));
    drop(Port::open("p1", pool));
    assert_whole(pool);
}

#[test]
fn devices_that_do_not_suit_are_refused_with_the_reason() {
    enter_switch();
    let pool = pool();
    let refusal = |name: &str| xdp::open(name, 1, pool, Options::default()).err().unwrap();
    for name in ["none", "", "a/b", "a-name-that-is-too-long"] {
        assert!(matches!(refusal(name), OpenError::NoDevice(_)), "{name}");
    }
    run("ip link add name br type bridge");
    let refused = refusal("br").to_string();
    assert!(refused.contains("would lose VLAN tags") && refused.contains("packet"), "{refused}");
    assert_whole(pool);
}

/// A host with several queues; the switch's end has `ours`, as `ethtool -L` takes them.
fn host_with_queues(name: &str, ours: &str) -> Host {
    let host = Host::new(name, "numrxqueues 4 numtxqueues 4");
    run(&format!("ethtool -L {name} {ours}"));
    host.inside(|| run("ethtool -L eth rx 4 tx 3"));
    host
}

#[test]
fn every_queue_is_served_and_their_number_is_followed() {
    enter_switch();
    let host = host_with_queues("p1", "rx 3 tx 3").socket();
    assert_eq!(xdp::rx_queue_count("p1").unwrap(), 3);
    let pool = pool();
    let mut port = Port::open("p1", pool);
    assert_eq!((port.opened.rx.len(), port.opened.facts.rx_queues), (3, 3));
    // A veth receives on the queue that its other end sends on, and that one spreads flows over its queues.
    for n in 0..64 {
        let mut frame = frame(n, 60);
        frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17]); // IPv4, UDP
        frame[34..38].copy_from_slice(&[n as u8, 1, 0, 9]); // ports
        host.send(&frame);
    }
    let mut got = [0; 3];
    wait_until("frames of every queue", || {
        for (count, queue) in got.iter_mut().zip(&mut port.opened.rx) {
            queue.rx(&mut port.cache, &mut port.batch).unwrap();
            port.batch.drain().for_each(|f| *count += usize::from(f.bytes()[12..15] == [8, 0, 0x45]));
        }
        got.iter().sum::<usize>() == 64
    });
    assert!(got.iter().all(|&n| n > 0), "a queue without frames: {got:?}");
    run("ethtool -L p1 rx 4 tx 3");
    assert_eq!(xdp::rx_queue_count("p1").unwrap(), 4, "while the port is open");
    drop(port);
    assert_eq!(Port::open("p1", pool).opened.rx.len(), 4);
    assert_whole(pool);
}

#[test]
fn workers_share_what_queues_there_are() {
    enter_switch();
    let host = host_with_queues("p1", "rx 3 tx 2").socket();
    let pool = pool();
    let opened = xdp::open("p1", 5, pool, Options::default()).unwrap();
    let Opened { rx, tx, facts, guard } = opened;
    assert_eq!((rx.len(), tx.len(), facts.rx_queues), (3, 5, 3));
    // Five threads over two sockets: every frame arrives, and each thread's own in order.
    std::thread::scope(|scope| {
        for (worker, mut tx) in (0..).zip(tx) {
            scope.spawn(move || {
                let mut port = (pool.cache(), FrameVec::new(10));
                for n in 0..20 {
                    for k in 0..10 {
                        let mut out = port.0.acquire_for(60).unwrap();
                        out.set_len(60);
                        out.bytes_mut().copy_from_slice(&frame(worker << 16 | (n * 10 + k), 60));
                        port.1.push(out).unwrap();
                    }
                    assert_eq!(tx.tx(&mut port.0, &mut port.1).sent, 10);
                }
            });
        }
    });
    let mut next = [0; 5];
    for _ in 0..5 * 200 {
        let bytes = host.receive().unwrap().bytes;
        let number = u32::from_be_bytes(*bytes[14..].first_chunk().unwrap());
        let expected = &mut next[number as usize >> 16];
        assert_eq!(number & 0xffff, *expected);
        *expected += 1;
    }
    drop((rx, guard));
    assert_whole(pool);
}

#[test]
fn fewer_queues_than_the_other_end_is_refused_with_the_mend() {
    enter_switch();
    let host = Host::new("p1", "numrxqueues 4 numtxqueues 4");
    run("ethtool -L p1 rx 1 tx 1");
    host.inside(|| run("ethtool -L eth rx 2 tx 2"));
    let pool = pool();
    let refused = xdp::open("p1", 1, pool, Options::default()).err().unwrap();
    assert!(refused.to_string().contains("`ethtool -L p1 rx N`"), "{refused}");
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
    let mut got = 0;
    wait_until("every frame is accounted for", || {
        let missed = port.opened.rx[0].missed() as usize;
        port.poll(10).unwrap();
        port.keep_ours();
        got += port.batch.drain().count();
        assert!(got + missed <= 100 + 8, "{got} received, {missed} missed"); // the stack's own frames too
        got + missed >= 100
    });
    assert!(got >= 64);
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

fn ifindex(name: &std::ffi::CStr) -> u32 {
    // SAFETY: the name ends with a zero.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
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

/// Moves what waits at `from` to `to`, with its checksums finished.
fn carry(from: &mut Port, to: &mut Port) {
    from.poll(1).unwrap();
    for frame in from.batch.as_mut_slice() {
        if let Some(csum) = frame.meta_mut().offload.csum.take() {
            vswitch_wire::complete(frame.bytes_mut(), csum).unwrap();
        }
    }
    to.send(&mut from.batch);
}
