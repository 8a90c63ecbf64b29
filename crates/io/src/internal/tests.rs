#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

use super::queues::{EACH, RESERVED, SHARED};
use super::*;
use crate::PoolConfig;
use crate::pool::HEADROOM;

const WIRE: u32 = 8192;
const LARGE: u32 = 64;

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fd = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry.
    unsafe { libc::poll(&raw mut fd, 1, 0) == 1 }
}

fn vid(n: u16) -> Vid {
    Vid::new(n).unwrap()
}

struct Rig {
    pool: &'static Pool,
    cache: PoolCache,
    port: Opened,
    handle: Handle,
}

impl Rig {
    fn new() -> Self {
        let pool = Pool::new(PoolConfig { wire: WIRE, large: LARGE }).unwrap();
        let (port, handle) = open(pool, 2).unwrap();
        Self { pool, cache: pool.cache(), port, handle }
    }

    /// A worker sends `count` frames with this VLAN ID in their bytes; their payload counts them.
    fn send(&mut self, worker: usize, of: u16, count: usize, class: FrameClass) -> TxReport {
        let mut frames = FrameVec::new(count);
        for n in 0..count {
            let mut frame = self.cache.acquire(class).unwrap();
            frame.set_len(60);
            frame.bytes_mut().fill(0);
            frame.bytes_mut()[14] = n as u8;
            frame.meta_mut().tag = Some(Tag::dot1q(0xe000 | of));
            vlan::push(&mut frame).unwrap();
            frames.push(frame).unwrap();
        }
        let report = self.port.tx[worker].tx(&mut self.cache, &mut frames);
        assert_eq!((report.sent + report.full + report.refused) as usize, count);
        report
    }

    fn receive(&mut self, most: usize, each: usize) -> Vec<(u16, Vec<u8>)> {
        let mut got = Vec::new();
        self.handle.receive(most, each, |vid, bytes| got.push((vid.get(), bytes.to_vec())));
        got
    }

    fn end(self) {
        let Self { pool, cache, port, handle } = self;
        drop((cache, port, handle));
        for class in [FrameClass::Wire, FrameClass::Large] {
            assert_eq!(pool.free(class), pool.total(class), "{class:?} frames are missing");
        }
    }
}

#[test]
fn workers_send_to_the_switch_which_is_woken() {
    let mut rig = Rig::new();
    assert!(!is_readable(rig.handle.fd()));
    assert_eq!(rig.send(1, 7, 3, FrameClass::Wire).sent, 3);
    assert_eq!(rig.send(0, 9, 1, FrameClass::Large).sent, 1);
    assert!(is_readable(rig.handle.fd()));
    let got = rig.receive(64, 64);
    let of =
        |n: u16| got.iter().filter(|(vid, _)| *vid == n).map(|(_, b)| (b.len(), b[14])).collect::<Vec<_>>();
    assert_eq!((of(7), of(9)), (vec![(60, 0), (60, 1), (60, 2)], vec![(60, 0)]));
    assert!(!is_readable(rig.handle.fd()));
    rig.end();
}

#[test]
fn the_switch_sends_to_a_worker_which_is_woken() {
    let mut rig = Rig::new();
    let mut frames = FrameVec::new(LIMIT + 1);
    rig.port.rx[0].arm();
    assert!(!is_readable(rig.port.rx[0].fd().unwrap()));
    rig.handle.send(vid(7), &[9; 42]).unwrap();
    assert!(is_readable(rig.port.rx[0].fd().unwrap()));
    assert_eq!(rig.port.rx[0].rx(&mut rig.cache, &mut frames).unwrap(), 1);
    assert!(!is_readable(rig.port.rx[0].fd().unwrap()));
    let frame = &mut frames.as_mut_slice()[0];
    assert_eq!((&frame.bytes()[..42], &frame.bytes()[42..]), (&[9; 42][..], &[0; 18][..]), "padded");
    assert_eq!((frame.meta().tag, frame.grow_front(HEADROOM)), (Some(Tag::dot1q(7)), Ok(())));
    drop(frames.drain());

    for _ in 0..LIMIT {
        rig.handle.send(vid(7), &[9; 60]).unwrap();
    }
    assert_eq!(rig.handle.send(vid(7), &[9; 60]), Err(NotSent), "nobody takes them");
    assert_eq!(rig.handle.send(vid(7), &[9; 70_000]), Err(NotSent), "longer than any frame");
    assert_eq!(rig.port.rx[0].missed(), 2);
    // One that came before the arming wakes too.
    rig.port.rx[0].arm();
    assert!(is_readable(rig.port.rx[0].fd().unwrap()));
    drop(frames);
    rig.end();
}

#[test]
fn a_network_that_sends_too_much_loses_its_own_frames() {
    let mut rig = Rig::new();
    let report = rig.send(0, 1, EACH + 10, FrameClass::Wire);
    assert_eq!((report.sent as usize, report.full, report.stalls), (EACH, 10, 1));
    assert_eq!(rig.send(0, 2, 1, FrameClass::Wire).sent, 1);
    // Of each turn it has a part.
    let mut by_vid = BTreeMap::new();
    for (vid, _) in rig.receive(8, 4) {
        *by_vid.entry(vid).or_insert(0) += 1;
    }
    assert_eq!(by_vid, BTreeMap::from([(1, 4), (2, 1)]));
    assert!(is_readable(rig.handle.fd()), "more is left");
    // The others wait their turn and are not lost.
    let mut left = 0;
    while is_readable(rig.handle.fd()) {
        left += rig.receive(64, 16).len();
    }
    assert_eq!(left, EACH - 4);
    rig.end();
}

#[test]
fn whoever_sends_little_is_heard_when_all_others_flood() {
    let mut rig = Rig::new();
    let flooding = (SHARED / EACH) as u16 + 4;
    for n in 0..flooding {
        rig.send(0, 100 + n, EACH, FrameClass::Wire);
    }
    for n in 0..10 {
        assert_eq!(rig.send(1, 1 + n, RESERVED + 1, FrameClass::Wire).sent as usize, RESERVED);
    }
    let first = rig.receive(usize::from(flooding) + 10, 1);
    assert_eq!((1..11).filter(|n| first.iter().any(|(vid, _)| vid == n)).count(), 10, "in the first round");
    drop(first);
    rig.end();
}

#[test]
fn what_waits_for_another_network_is_purged() {
    let mut rig = Rig::new();
    rig.send(0, 1, 3, FrameClass::Wire);
    rig.send(0, 2, 1, FrameClass::Wire);
    rig.handle.send(vid(1), &[1; 60]).unwrap();
    rig.handle.send(vid(2), &[2; 60]).unwrap();
    rig.handle.purge(vid(1));
    rig.handle.purge(vid(1000));
    assert_eq!(rig.receive(64, 64).iter().map(|(vid, _)| *vid).collect::<Vec<_>>(), [2]);
    let mut frames = FrameVec::new(4);
    assert_eq!(rig.port.rx[0].rx(&mut rig.cache, &mut frames).unwrap(), 1);
    assert_eq!(frames.as_slice()[0].meta().tag, Some(Tag::dot1q(2)));
    assert_eq!(rig.port.rx[0].missed(), 1);
    // The VLAN ID is good for the next one.
    rig.send(0, 1, 1, FrameClass::Wire);
    assert_eq!(rig.receive(64, 64).len(), 1);
    drop(frames);
    rig.end();
}

#[test]
fn a_frame_without_a_tag_is_refused() {
    let mut rig = Rig::new();
    let mut frames = FrameVec::new(1);
    let mut frame = rig.cache.acquire(FrameClass::Wire).unwrap();
    frame.set_len(60);
    frame.bytes_mut().fill(0);
    frames.push(frame).unwrap();
    let report = rig.port.tx[0].tx(&mut rig.cache, &mut frames);
    assert_eq!((report.sent, report.refused), (0, 1));
    assert!(!is_readable(rig.handle.fd()));
    rig.end();
}
