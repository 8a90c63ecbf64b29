//! Devices of several queues.

use vswitch_io::xdp::{self, Options};
use vswitch_io::{FrameVec, Opened};
use vswitch_wire::FrameBuf;

use crate::lab::{Host, enter_switch, run};
use crate::net::wait_until;
use crate::port::Port;
use crate::{assert_whole, frame, pool};

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
