//! A receiver that sits on the frames it was sent.

use vswitch_io::{FrameClass, TxReport};

use crate::lab::{Host, enter_switch, run};
use crate::net::wait_until;
use crate::port::Port;
use crate::{WIRE, assert_whole, frame, pool};

/// Chunks that a port may have out: of this pool a 64th.
const QUOTA: u32 = WIRE / 64;

/// Sends all that arrives on into a queue that lets go of one bit a second, after a first burst.
fn hold_all(host: &Host) {
    for line in [
        "ip link add name hold type veth peer name end",
        "ip link set dev hold up",
        "ip link set dev end up",
        "tc qdisc add dev hold root tbf rate 8bit burst 2000 limit 10000000",
        "tc qdisc add dev eth ingress",
        "tc filter add dev eth parent ffff: protocol all u32 match u32 0 0 action mirred egress redirect dev hold",
    ] {
        host.inside(|| run(line));
    }
}

fn let_go(host: &Host) {
    host.inside(|| run("tc qdisc del dev hold root"));
}

/// Sends batches of 64 frames until the port takes none; the frames that it took.
fn fill(port: &mut Port) -> u32 {
    let mut total = TxReport::default();
    for batch in 0..64 {
        let frames: Vec<_> = (0..64).map(|n| frame(batch * 64 + n, 1000)).collect();
        let report = port.send_bytes(&frames);
        assert_eq!((report.sent + report.full, report.refused), (64, 0), "{report:?}");
        total.sent += report.sent;
        total.full += report.full;
        if report.sent == 0 {
            return total.sent;
        }
    }
    panic!("no limit: {total:?}");
}

#[test]
fn a_receiver_that_sits_on_frames_empties_no_pool() {
    enter_switch();
    let (host, pool) = (Host::new("p1", ""), pool());
    hold_all(&host);
    let mut port = Port::open("p1", pool);
    let ring = 512;
    let sent = fill(&mut port);
    // The burst of two frames, and what the host's own stack sends, pass.
    assert!((QUOTA..=QUOTA + 16).contains(&sent), "{sent} frames were sent");
    let_go(&host);
    wait_until("the chunks to come back", || port.send_bytes(&[frame(0, 60)]).sent == 1);
    let Port { cache, batch, opened } = port;
    drop(batch);
    drop(cache);
    assert!(pool.free(FrameClass::Wire) as u32 >= WIRE - ring - QUOTA);
    drop(opened);
    assert_whole(pool);
}

#[test]
fn frames_held_beyond_the_end_of_a_port_come_back_later() {
    enter_switch();
    let (host, pool) = (Host::new("p1", ""), pool());
    let _other = Host::new("p2", "");
    hold_all(&host);
    let mut port = Port::open("p1", pool);
    fill(&mut port);
    drop(port);
    let held = WIRE as usize - pool.free(FrameClass::Wire);
    assert!(held > 0 && held <= QUOTA as usize, "{held} chunks are held");
    drop(Port::open("p2", pool));
    assert_eq!(WIRE as usize - pool.free(FrameClass::Wire), held, "without proof they stay out");
    let_go(&host);
    // The kernel ends the socket by a work item, some time after.
    wait_until("the chunks to come back", || {
        drop(Port::open("p2", pool));
        pool.free(FrameClass::Wire) == WIRE as usize
    });
    assert_whole(pool);
}

#[test]
fn a_port_that_opens_again_brings_what_was_held() {
    enter_switch();
    let (host, pool) = (Host::new("p1", ""), pool());
    hold_all(&host);
    let mut port = Port::open("p1", pool);
    fill(&mut port);
    drop(port);
    assert!(pool.free(FrameClass::Wire) < WIRE as usize);
    let_go(&host);
    drop(Port::open("p1", pool));
    assert_whole(pool);
}
