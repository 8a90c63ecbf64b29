use std::cell::Cell;
use std::rc::Rc;

use vswitch_io::{FrameVec, Opened, Pool, PoolCache, PoolConfig, internal};
use vswitch_wire::{FrameBuf, Tag, vlan};

use super::*;

/// Sends back what it is given; falls over a frame that begins with a 9.
#[derive(Clone, Default)]
struct Echo {
    deadline: Option<Instant>,
    polled: Rc<Cell<u32>>,
    made: Rc<Cell<u32>>,
}

impl Member for Echo {
    fn input(&mut self, _now: Instant, frame: &[u8], send: &mut dyn FnMut(&[u8])) {
        assert!(frame[0] != 9, "a frame that nobody thought of");
        send(frame);
    }

    fn poll(&mut self, now: Instant, send: &mut dyn FnMut(&[u8])) {
        self.polled.set(self.polled.get() + 1);
        self.deadline = Some(now + Duration::from_secs(5));
        send(&[1; 60]);
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

struct Rig {
    hosts: Hosts,
    port: Opened,
    cache: PoolCache,
    _runtime: tokio::runtime::Runtime,
}

fn vid(n: u16) -> Vid {
    Vid::new(n).unwrap()
}

impl Rig {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let pool = Pool::new(PoolConfig { wire: 4096, large: 16 }).unwrap();
        let (port, handle) = internal::open(pool, 1).unwrap();
        let mut hosts = Hosts::default();
        let entered = runtime.enter();
        hosts.open(handle).unwrap();
        drop(entered);
        Self { hosts, port, cache: pool.cache(), _runtime: runtime }
    }

    fn add(&mut self, n: u16, member: &Echo) {
        let member = member.clone();
        self.hosts.set(vid(n), move || {
            member.made.set(member.made.get() + 1);
            Box::new(member.clone())
        });
    }

    fn send(&mut self, n: u16, first: u8, count: usize) {
        let mut frames = FrameVec::new(count);
        for _ in 0..count {
            let mut frame = self.cache.acquire(vswitch_io::FrameClass::Wire).unwrap();
            frame.set_len(60);
            frame.bytes_mut().fill(first);
            frame.meta_mut().tag = Some(Tag::dot1q(n));
            vlan::push(&mut frame).unwrap();
            frames.push(frame).unwrap();
        }
        self.port.tx[0].tx(&mut self.cache, &mut frames);
    }

    /// VLAN IDs of what was sent.
    fn sent(&mut self) -> Vec<u16> {
        let mut frames = FrameVec::new(1024);
        self.port.rx[0].rx(&mut self.cache, &mut frames).unwrap();
        frames.as_slice().iter().map(|frame| frame.meta().tag.unwrap().vid()).collect()
    }
}

#[test]
fn each_network_has_its_member_and_no_more_than_its_share_of_a_turn() {
    let mut rig = Rig::new();
    rig.add(1, &Echo::default());
    rig.add(2, &Echo::default());
    rig.send(1, 1, 60);
    rig.send(2, 1, 1);
    rig.send(3, 1, 1); // nobody is there
    let now = Instant::from_secs(1);
    rig.hosts.work(now);
    let sent = rig.sent();
    assert_eq!([1, 2, 3].map(|n| sent.iter().filter(|vid| **vid == n).count()), [TURN_EACH, 1, 0]);
    rig.hosts.work(now);
    assert_eq!(rig.sent().len(), 0, "it rests");
    for turn in 1..4 {
        rig.hosts.work(now + PAUSE * turn);
    }
    assert_eq!(rig.sent().len(), 60 - TURN_EACH);
    rig.hosts.remove(vid(1));
    rig.send(1, 1, 1);
    rig.hosts.work(Instant::from_secs(2));
    assert_eq!(rig.sent().len(), 0);
}

#[test]
fn a_member_is_polled_when_it_is_time() {
    let mut rig = Rig::new();
    let member = Echo { deadline: Some(Instant::from_secs(3)), ..Echo::default() };
    rig.add(1, &member);
    rig.hosts.work(Instant::from_secs(2));
    assert_eq!(member.polled.get(), 0);
    for (at, times) in [(3, 1), (4, 1), (8, 2), (100, 3)] {
        rig.hosts.work(Instant::from_secs(at));
        assert_eq!(member.polled.get(), times, "at {at} s");
    }
    assert_eq!(rig.sent().len(), 3);
    rig.hosts.remove(vid(1));
    assert!(rig.hosts.timers.is_empty());
}

#[test]
fn a_member_that_falls_over_a_frame_is_made_anew_and_the_others_do_not_notice() {
    let mut rig = Rig::new();
    let (falls, stands) = (Echo::default(), Echo::default());
    rig.add(1, &falls);
    rig.add(2, &stands);
    rig.send(1, 9, 3);
    rig.send(2, 1, 3);
    let now = Instant::from_secs(1);
    rig.hosts.work(now);
    assert_eq!((falls.made.get(), stands.made.get(), rig.sent()), (2, 1, vec![2, 2, 2]));
    rig.send(1, 1, 1);
    rig.hosts.work(now + REST_TIME);
    assert_eq!(rig.sent(), [1], "it is back");
}

const REST_TIME: Duration = Duration::from_secs(1);

#[test]
fn what_waits_is_purged_with_its_member() {
    let mut rig = Rig::new();
    rig.add(1, &Echo::default());
    rig.send(1, 1, 3);
    rig.hosts.purge(vid(1));
    rig.add(1, &Echo::default());
    rig.hosts.work(Instant::from_secs(1));
    assert_eq!(rig.sent().len(), 0);
}

#[test]
fn it_is_woken_by_frames_and_by_deadlines() {
    let mut rig = Rig::new();
    let clock = Clock::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (port, handle) = internal::open(rig.cache.pool(), 1).unwrap();
        rig.port = port;
        rig.hosts.open(handle).unwrap();
        let soon = Duration::from_secs(10);
        rig.send(1, 1, 1);
        tokio::time::timeout(soon, rig.hosts.ready(clock)).await.expect("a frame");
        rig.hosts.work(clock.now());
        let member = Echo { deadline: Some(clock.now() + Duration::from_millis(20)), ..Echo::default() };
        rig.add(1, &member);
        tokio::time::timeout(soon, rig.hosts.ready(clock)).await.expect("a deadline");
    });
}
