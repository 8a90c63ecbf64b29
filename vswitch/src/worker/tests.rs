//! Workers with ports in memory: real threads, no kernel device, every frame counted.

use std::time::Duration;

use vswitch_dataplane::counters::NetworkCounters;
use vswitch_dataplane::{Attachment, Fdb, NetId, Network, Port, PortCounters, Reason, Storm};
use vswitch_io::{Frame, FrameClass, FrameVec, Opened, PoolCache, PoolConfig, loopback};
use vswitch_wire::testing::frame;
use vswitch_wire::{Caps, FrameBuf, Mac};

use super::*;

const SOON: Duration = Duration::from_secs(10);
const WIRE: u32 = 4096;
const LARGE: u32 = 64;
const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
const B: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// A switch of `caps.len()` ports in one network, and the other ends of their cables.
struct Rig {
    runtime: tokio::runtime::Runtime,
    pool: &'static Pool,
    workers: Workers,
    counters: Vec<Arc<[PortCounters]>>,
    ends: Vec<Opened>,
    cache: PoolCache,
}

impl Rig {
    fn new(workers: usize, polling: Polling, caps: &[Caps]) -> Self {
        let pool = Pool::new(PoolConfig { wire: WIRE, large: LARGE }).unwrap();
        let (events, _) = tokio::sync::mpsc::channel(8);
        let setup = Setup { cpus: vec![None; workers], polling, pool, clock: Clock::start(), events };
        let counters: Vec<Arc<[PortCounters]>> =
            caps.iter().map(|_| (0..workers).map(|_| PortCounters::default()).collect()).collect();
        let ports = caps.iter().zip(&counters).map(|(&caps, counters)| Some(port(caps, counters))).collect();
        let of_network: Arc<[NetworkCounters]> = (0..workers).map(|_| NetworkCounters::default()).collect();
        let networks = vec![Some(Network::new(1000, Duration::from_secs(300), of_network))];
        let snapshot = Snapshot::new(ports, networks, Arc::new(Fdb::new(1024)));
        let workers = Workers::start(&setup, Arc::new(snapshot)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ends = caps.iter().enumerate().map(|(n, &caps)| {
            let (near, far) = loopback::pair(workers.count(), caps).unwrap();
            runtime.block_on(workers.attach(PortId(n as u16), n as u64, near.rx, near.tx));
            far
        });
        let ends = ends.collect();
        Self { runtime, pool, workers, counters, ends, cache: pool.cache() }
    }

    /// Sends a frame into port `n`, by the cable's lane `lane`.
    fn send(&mut self, n: usize, lane: usize, bytes: &impl FrameBuf) {
        let mut copy = self.cache.acquire_for(bytes.bytes().len()).unwrap();
        copy.set_len(bytes.bytes().len());
        copy.bytes_mut().copy_from_slice(bytes.bytes());
        *copy.meta_mut() = *bytes.meta();
        let mut frames = FrameVec::new(1);
        frames.push(copy).unwrap();
        assert_eq!(self.ends[n].tx[lane].tx(&mut self.cache, &mut frames).sent, 1);
    }

    /// Waits for `count` frames out of port `n`, by whatever lane.
    fn receive(&mut self, n: usize, count: usize) -> Vec<Frame> {
        let clock = Clock::start();
        let mut got = Vec::new();
        while got.len() < count {
            assert!(clock.now().as_nanos() < SOON.as_nanos() as u64, "{} of {count} frames came", got.len());
            for queue in &mut self.ends[n].rx {
                let mut frames = FrameVec::new(64);
                queue.rx(&mut self.cache, &mut frames).unwrap();
                got.extend(frames.drain());
            }
            std::thread::yield_now();
        }
        got
    }

    /// Detaches every port and stops; every frame must be counted, and back in the pool.
    fn end(self) {
        let Self { runtime, pool, workers, counters, ends, cache } = self;
        for n in 0..ends.len() {
            let queues = runtime.block_on(workers.detach(PortId(n as u16)));
            assert_eq!(queues.len(), workers.count());
        }
        let sum =
            |f: &dyn Fn(&PortCounters) -> u64| counters.iter().flat_map(|c| c.iter()).map(f).sum::<u64>();
        let came = sum(&|c| c.rx_packets.get() + c.replicated.get());
        let went =
            sum(&|c| c.tx_packets.get() + c.drops.iter().map(vswitch_dataplane::Counter::get).sum::<u64>());
        assert_eq!(came, went);
        drop((workers, ends, cache));
        assert_eq!(
            (pool.free(FrameClass::Wire), pool.free(FrameClass::Large)),
            (WIRE as usize, LARGE as usize)
        );
    }

    fn dropped(&self, n: usize, reason: Reason) -> u64 {
        self.counters[n].iter().map(|c| c.drops[reason.index()].get()).sum()
    }
}

/// A queue whose kernel has dropped frames by now.
struct Lossy(Box<dyn RxQueue>);

impl RxQueue for Lossy {
    fn rx(&mut self, pool: &mut PoolCache, out: &mut FrameVec) -> Result<usize, PortError> {
        self.0.rx(pool, out)
    }

    fn arm(&mut self) {
        self.0.arm();
    }

    fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.0.fd()
    }

    fn missed(&mut self) -> u64 {
        7
    }
}

fn port(caps: Caps, counters: &Arc<[PortCounters]>) -> Port {
    Port {
        attachment: Attachment::Access(NetId(0)),
        isolated: false,
        up: true,
        max_frame: 1514,
        caps,
        max_macs: u32::MAX,
        storm: Storm::default(),
        counters: Arc::clone(counters),
    }
}

#[test]
fn a_flood_reaches_each_other_port_once_and_the_answer_only_its_own() {
    for polling in [Polling::Adaptive, Polling::Busy] {
        let mut rig = Rig::new(2, polling, &[Caps::ALL; 4]);
        rig.send(0, 0, &frame(Mac::BROADCAST, A).payload(b"who has").build());
        for n in 1..4 {
            assert_eq!(rig.receive(n, 1)[0].bytes()[..12], [[0xff; 6], A.0].concat());
        }
        rig.send(1, 1, &frame(A, B).payload(b"it is at").build());
        rig.receive(0, 1);
        // A third frame, which passes everywhere, proves that nothing else came before it.
        rig.send(3, 0, &frame(Mac::BROADCAST, Mac([2, 0, 0, 0, 0, 9])).payload(b"mark").build());
        for n in 0..3 {
            assert_eq!(rig.receive(n, 1)[0].bytes()[11], 9);
        }
        rig.end();
    }
}

#[test]
fn a_port_without_gso_gets_segments_and_one_with_it_the_whole() {
    let mut rig = Rig::new(1, Polling::Adaptive, &[Caps::ALL, Caps::NONE, Caps::ALL]);
    let gso = frame(Mac::BROADCAST, A)
        .ip([10, 0, 0, 1], [10, 0, 0, 2])
        .tcp(1000, 2000, 0x10)
        .payload(&[7; 5000])
        .gso(1000);
    rig.send(0, 0, &gso);
    let segments = rig.receive(1, 5);
    assert!(
        segments
            .iter()
            .all(|s| s.bytes().len() == 54 + 1000 && *s.meta() == vswitch_wire::FrameMeta::default())
    );
    let whole = rig.receive(2, 1);
    assert_eq!((whole[0].bytes(), whole[0].meta()), (gso.bytes(), gso.meta()));
    drop((segments, whole));
    rig.end();
}

#[test]
fn what_a_full_port_cannot_take_is_counted_there() {
    let mut rig = Rig::new(1, Polling::Adaptive, &[Caps::ALL; 2]);
    // The cable holds 1024 frames in a direction; nobody reads at the far end.
    let counters = Arc::clone(&rig.counters[1]);
    let sent = || counters[0].tx_packets.get() + counters[0].drops[Reason::TxFull.index()].get();
    let clock = Clock::start();
    for n in 0..1500 {
        rig.send(0, 0, &frame(Mac::BROADCAST, A).payload(b"x").build());
        while sent() <= n {
            assert!(clock.now().as_nanos() < SOON.as_nanos() as u64, "frame {n} is neither sent nor dropped");
            std::thread::yield_now();
        }
    }
    assert_eq!((counters[0].tx_packets.get(), rig.dropped(1, Reason::TxFull)), (1024, 476));
    rig.end();
}

#[test]
fn what_was_missed_just_before_the_detach_is_counted() {
    let mut rig = Rig::new(1, Polling::Adaptive, &[Caps::ALL; 2]);
    drop(rig.runtime.block_on(rig.workers.detach(PortId(0))));
    let (near, far) = loopback::pair(1, Caps::ALL).unwrap();
    let rx = near.rx.into_iter().map(|queue| Box::new(Lossy(queue)) as Box<dyn RxQueue>).collect();
    rig.runtime.block_on(rig.workers.attach(PortId(0), 9, rx, near.tx));
    // Sooner than a worker looks by itself.
    let queues = rig.runtime.block_on(rig.workers.detach(PortId(0)));
    assert_eq!(rig.counters[0][0].rx_missed.get(), 7);
    rig.ends[0] = far;
    let [queues] = queues.try_into().ok().unwrap();
    rig.runtime.block_on(rig.workers.attach(PortId(0), 10, queues.rx, vec![queues.tx]));
    rig.end();
}
