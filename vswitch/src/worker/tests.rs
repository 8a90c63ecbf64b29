//! Workers with ports in memory: real threads, no kernel device, every frame counted.

mod tunnel;

use std::time::Duration;

use vswitch_dataplane::counters::NetworkCounters;
use vswitch_dataplane::{Attachment, Fdb, NetId, Network, Port, PortCounters, Reason, Storm};
use vswitch_io::fault::{self, Faults};
use vswitch_io::{Frame, FrameClass, FrameVec, Opened, PoolCache, PoolConfig, loopback};
use vswitch_wire::testing::{VecFrame, frame};
use vswitch_wire::{Caps, FrameBuf, Mac, Tag};

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
    /// Those of other VTEPs.
    peers: Vec<Arc<[PortCounters]>>,
    ends: Vec<Opened>,
    cache: PoolCache,
}

impl Rig {
    fn new(workers: usize, polling: Polling, caps: &[Caps]) -> Self {
        Self::with(workers, polling, caps, PoolConfig { wire: WIRE, large: LARGE }, |port| port)
    }

    /// `wrap` changes what the workers see of each port.
    fn with(
        workers: usize,
        polling: Polling,
        caps: &[Caps],
        pool: PoolConfig,
        wrap: impl Fn(Opened) -> Opened,
    ) -> Self {
        let pool = Pool::new(pool).unwrap();
        let setup = setup(workers, polling, pool);
        let (snapshot, counters) = one_network(workers, caps);
        let workers = Workers::start(&setup, Arc::new(snapshot)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ends = caps.iter().enumerate().map(|(n, &caps)| {
            let (near, far) = loopback::pair(workers.count(), caps).unwrap();
            let near = wrap(near);
            runtime.block_on(workers.attach(PortId(n as u16), n as u64, near.rx, near.tx));
            far
        });
        let ends = ends.collect();
        Self { runtime, pool, workers, counters, peers: Vec::new(), ends, cache: pool.cache() }
    }

    /// Sends a frame into port `n`, by the cable's lane `lane`.
    fn send(&mut self, n: usize, lane: usize, bytes: &impl FrameBuf) {
        let mut frames = FrameVec::new(1);
        frames.push(copy_of(bytes, &mut self.cache)).unwrap();
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
        let Self { runtime, pool, workers, counters, peers, ends, cache } = self;
        for n in 0..ends.len() {
            let queues = runtime.block_on(workers.detach(PortId(n as u16)));
            assert_eq!(queues.len(), workers.count());
        }
        drop(workers);
        let sum = |of: fn(&PortCounters) -> u64| counters.iter().flat_map(|c| c.iter()).map(of).sum::<u64>();
        let at_peers =
            |of: fn(&PortCounters) -> u64| peers.iter().flat_map(|c| c.iter()).map(of).sum::<u64>();
        let had = sum(|c| c.rx_packets.get() + c.originated.get() + c.replicated.get());
        // What comes and goes by a tunnel does so by the underlay's port.
        let copies = at_peers(|c| c.replicated.get());
        assert_eq!(had + copies, sum(served) + at_peers(dropped));
        drop((ends, cache));
        for class in [FrameClass::Wire, FrameClass::Large] {
            assert_eq!(pool.free(class), pool.total(class), "{class:?} frames are missing");
        }
    }

    /// Waits until every frame that was to leave by port `n` has been sent or dropped, which are `count`.
    fn wait_served(&self, n: usize, count: u64) {
        self.wait_for("frames to be served", |rig| rig.counters[n].iter().map(served).sum::<u64>() >= count);
    }

    fn wait_for(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let clock = Clock::start();
        while !is_so(self) {
            assert!(clock.now().as_nanos() < SOON.as_nanos() as u64, "waited in vain for {what}");
            std::thread::yield_now();
        }
    }

    fn sum(&self, of: fn(&PortCounters) -> u64) -> u64 {
        self.counters.iter().flat_map(|c| c.iter()).map(of).sum()
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

/// Frames that were sent or dropped.
fn served(counters: &PortCounters) -> u64 {
    counters.tx_packets.get() + dropped(counters)
}

fn dropped(counters: &PortCounters) -> u64 {
    counters.drops.iter().map(vswitch_dataplane::Counter::get).sum()
}

/// A frame of the pool with these bytes and metadata.
fn copy_of(frame: &impl FrameBuf, cache: &mut PoolCache) -> Frame {
    let mut copy = cache.acquire_for(frame.bytes().len()).unwrap();
    copy.set_len(frame.bytes().len());
    copy.bytes_mut().copy_from_slice(frame.bytes());
    *copy.meta_mut() = *frame.meta();
    copy
}

fn setup(workers: usize, polling: Polling, pool: &'static Pool) -> Setup {
    let (events, _) = tokio::sync::mpsc::channel(8);
    let (leases, _) = tokio::sync::mpsc::channel(8);
    Setup { cpus: vec![None; workers], polling, pool, shortcut: None, clock: Clock::start(), events, leases }
}

/// Ports of one network, and their counters.
fn one_network(workers: usize, caps: &[Caps]) -> (Snapshot, Vec<Arc<[PortCounters]>>) {
    let counters: Vec<Arc<[PortCounters]>> =
        caps.iter().map(|_| (0..workers).map(|_| PortCounters::default()).collect()).collect();
    let ports = caps.iter().zip(&counters).map(|(&caps, counters)| Some(port(caps, counters))).collect();
    let of_network: Arc<[NetworkCounters]> = (0..workers).map(|_| NetworkCounters::default()).collect();
    let networks = vec![Some(Network::new(1000, Duration::from_secs(300), of_network))];
    (Snapshot::new(ports, networks, Arc::new(Fdb::new(1024))), counters)
}

fn port(caps: Caps, counters: &Arc<[PortCounters]>) -> Port {
    Port {
        attachment: Attachment::Access(NetId(0)),
        isolated: false,
        up: true,
        max_frame: 1514,
        caps,
        shortcut_ifindex: None,
        security: None,
        trusted: false,
        max_macs: u32::MAX,
        acl: Default::default(),
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
    for n in 0..1500 {
        rig.send(0, 0, &frame(Mac::BROADCAST, A).payload(b"x").build());
        rig.wait_served(1, n + 1);
    }
    let counters = &rig.counters[1][0];
    assert_eq!((counters.tx_packets.get(), rig.dropped(1, Reason::TxFull)), (1024, 476));
    // Frames that came in one batch found the cable full once.
    assert!((1..=476).contains(&counters.tx_stalls.get()), "{}", counters.tx_stalls.get());
    rig.end();
}

#[test]
fn what_a_device_refuses_is_counted_there() {
    let refuse = |port| fault::inject(port, Faults { refuse: u16::MAX, ..Faults::default() }, 1);
    let pool = PoolConfig { wire: WIRE, large: LARGE };
    let mut rig = Rig::with(1, Polling::Adaptive, &[Caps::ALL; 2], pool, refuse);
    for n in 0..100 {
        rig.send(0, 0, &frame(Mac::BROADCAST, A).payload(b"x").build());
        rig.wait_served(1, n + 1);
    }
    assert!(rig.dropped(1, Reason::TxError) > 90, "{}", rig.dropped(1, Reason::TxError));
    rig.end();
}

/// Bits flip, ends are cut off, frames come twice, late or never, and devices refuse: the sum is right all the same.
#[test]
fn every_frame_is_accounted_for_whatever_the_cables_do() {
    let often = 6000; // one frame in eleven
    let faults = Faults {
        drop: often,
        duplicate: often,
        reorder: often,
        corrupt: often,
        truncate: often,
        refuse: often,
    };
    let pool = PoolConfig { wire: WIRE, large: LARGE };
    for seed in 0..20 {
        let caps = [Caps::ALL, Caps::NONE, Caps::ALL];
        let mut rig = Rig::with(2, Polling::Adaptive, &caps, pool, |port| fault::inject(port, faults, seed));
        let gso = frame(B, A).ip([10, 0, 0, 1], [10, 0, 0, 2]).tcp(1, 2, 0x10).payload(&[7; 5000]).gso(1000);
        for n in 0..100 {
            rig.send(n % 3, n % 2, &frame(B, A).payload(b"to one").build());
            rig.send((n + 1) % 3, n % 2, &frame(A, B).tag(Tag::dot1q(n as u16)).payload(b"to one").build());
            rig.send((n + 2) % 3, 0, &frame(Mac::BROADCAST, A).payload(b"to all").build());
            if n % 10 == 0 {
                rig.send(0, 1, &gso);
            }
        }
        // Of 310 frames, with as many vanishing as coming twice.
        rig.wait_for("most frames to come in", |rig| rig.sum(|c| c.rx_packets.get()) > 250);
        rig.end();
    }
}

#[test]
fn copies_for_which_the_pool_has_no_frame_are_counted() {
    let pool = PoolConfig { wire: 4 * 128 + 1, large: 0 };
    let mut rig = Rig::with(1, Polling::Adaptive, &[Caps::ALL; 4], pool, |port| port);
    // Nobody reads: each broadcast leaves three frames in the cables, two of them the worker's copies. Both sides
    // take frames in bulk, 128 at a time; so when the worker's are at an end, the last of all is left for the first
    // copy, and none for the second.
    let mut sent = 0;
    while rig.dropped(2, Reason::PoolEmpty) == 0 {
        assert!(sent < 512 / 3, "the pool has no end");
        rig.send(0, 0, &frame(Mac::BROADCAST, A).payload(b"x").build());
        sent += 1;
        (1..4).for_each(|n| rig.wait_served(n, sent));
    }
    assert_eq!(rig.counters[3][0].tx_packets.get(), sent, "the last port gets the frame itself");
    rig.end();
}

#[test]
fn what_cannot_be_cut_is_counted_where_it_was_to_leave() {
    let mut rig = Rig::new(1, Polling::Adaptive, &[Caps::ALL, Caps::NONE]);
    // A sender's own tunnel whose packet goes on behind the one in it: each segment would need that again.
    let inner =
        frame(B, A).ip([10, 0, 0, 1], [10, 0, 0, 2]).tcp(1000, 2000, 0x10).payload(&[7; 5000]).gso(1000);
    let payload = [&[8, 0, 0, 0, 0, 0, 5, 0][..], inner.bytes(), b"more"].concat();
    let outer = frame(Mac::BROADCAST, A).ip([10, 0, 1, 1], [10, 0, 1, 2]).udp(50_000, 4789).payload(&payload);
    let mut offload = inner.meta().offload;
    offload.shift_forward(50);
    rig.send(0, 0, &outer.build().with_offload(offload));
    rig.wait_served(1, 1);
    assert_eq!(rig.dropped(1, Reason::BadSegmentation), 1);
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

/// One worker whose turns a test takes itself.
struct ByHand {
    worker: Worker,
    commands: mpsc::Sender<Command>,
    clock: Clock,
    counters: Vec<Arc<[PortCounters]>>,
    ends: Vec<Opened>,
    cache: PoolCache,
}

impl ByHand {
    fn new(caps: &[Caps], pool: PoolConfig) -> Self {
        let pool = Pool::new(pool).unwrap();
        let setup = setup(1, Polling::Busy, pool);
        let (snapshot, counters) = one_network(1, caps);
        let (commands, inbox) = mpsc::channel();
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).unwrap();
        let line = Line { inbox, wake: Arc::new(wake), pulse: Arc::default() };
        let snapshot = Arc::new(ArcSwap::new(Arc::new(snapshot)));
        let mut worker = Worker::new(0, None, &setup, snapshot, line).unwrap();
        let mut ends = Vec::new();
        for (n, &caps) in caps.iter().enumerate() {
            let (near, far) = loopback::pair(1, caps).unwrap();
            let queues = Queues { rx: near.rx, tx: near.tx.into_iter().next().unwrap() };
            let (done, _taken) = oneshot::channel();
            commands.send(Command::Attach { port: PortId(n as u16), attachment: 0, queues, done }).unwrap();
            ends.push(far);
        }
        assert!(worker.obey());
        Self { worker, commands, clock: setup.clock, counters, ends, cache: pool.cache() }
    }

    fn send<'a>(&mut self, n: usize, frames: impl IntoIterator<Item = &'a VecFrame>) {
        let mut out = FrameVec::new(64);
        for frame in frames {
            out.push(copy_of(frame, &mut self.cache)).unwrap();
        }
        let count = out.len() as u32;
        assert_eq!(self.ends[n].tx[0].tx(&mut self.cache, &mut out).sent, count);
    }

    fn serve(&mut self) {
        self.worker.serve(self.clock.now());
    }

    /// Takes all that has come out of the ports.
    fn empty(&mut self) {
        let mut got = FrameVec::new(256);
        for end in &mut self.ends {
            while end.rx[0].rx(&mut self.cache, &mut got).unwrap() > 0 {
                got.drain().for_each(|frame| self.cache.release(frame));
            }
        }
    }

    /// Frames that left by port `n`, or were to.
    fn served(&self, n: usize) -> u64 {
        served(&self.counters[n][0])
    }
}

/// The pipeline's own test of this is `allocations.rs` in its crate.
#[test]
fn a_worker_in_steady_state_allocates_nothing() {
    let pool = PoolConfig { wire: WIRE, large: LARGE };
    let mut rig = ByHand::new(&[Caps::ALL, Caps::ALL, Caps::NONE], pool);
    let kinds = [
        frame(B, A).payload(b"known").build(),
        frame(Mac::BROADCAST, A).payload(b"all").build(),
        frame(Mac([1, 0x80, 0xc2, 0, 0, 0]), A).payload(b"reserved").build(),
        frame(B, A).ip([10, 0, 0, 1], [10, 0, 0, 2]).tcp(1, 2, 0x10).payload(&[7; 5000]).gso(1000),
    ];
    let mut allocations = Vec::new();
    for _ in 0..3 {
        rig.send(0, kinds.iter().cycle().take(32));
        // B is behind the port without GSO.
        rig.send(2, [&frame(A, B).payload(b"here").build()]);
        allocations.push(allocation_counter::measure(|| rig.serve()).count_total);
        // What was sent beyond a batch's share is paid.
        (0..4).for_each(|_| rig.serve());
        rig.empty();
    }
    assert_eq!(rig.counters[2][0].replicated.get(), 3 * 8 * 4, "each GSO frame is cut into five");
    // The first batch makes room for what is kept of each port.
    assert_eq!(allocations[1..], [0, 0]);
}

#[test]
fn frames_that_become_a_thousand_leave_the_others_their_turn() {
    let pool = PoolConfig { wire: WIRE, large: 128 };
    let mut rig = ByHand::new(&[Caps::ALL, Caps::ALL, Caps::NONE], pool);
    rig.send(2, [&frame(Mac::BROADCAST, B).payload(b"here").build()]);
    rig.serve();
    let (to_b, to_a) = (rig.served(2), rig.served(0));
    // 64 frames of 1000 segments each.
    let dear = frame(B, A).ip([10, 0, 0, 1], [10, 0, 0, 2]).tcp(1, 2, 0x10).payload(&[7; 48_000]).gso(48);
    rig.send(0, std::iter::repeat_n(&dear, 64));
    let cheap = frame(A, Mac([2, 0, 0, 0, 0, 3])).payload(b"of a neighbour").build();
    rig.send(1, std::iter::repeat_n(&cheap, 64));
    rig.serve();
    let first_turn = rig.served(2) - to_b;
    assert!((1000..=5000).contains(&first_turn), "{first_turn} segments in one turn");
    assert_eq!(rig.served(0) - to_a, 64, "the neighbour has had its turn");
    // The debt is paid in turns, while the neighbour goes on.
    for turn in 2..=first_turn / 64 {
        rig.send(1, std::iter::repeat_n(&cheap, 64));
        rig.serve();
        rig.empty();
        assert_eq!(rig.served(2) - to_b, first_turn, "turn {turn}");
        assert_eq!(rig.served(0) - to_a, 64 * turn);
    }
    // In the end all have been served.
    let clock = Clock::start();
    while rig.served(2) - to_b < 64_000 {
        assert!(clock.now().as_nanos() < SOON.as_nanos() as u64, "{} of 64,000", rig.served(2) - to_b);
        rig.serve();
        rig.empty();
    }
    assert_eq!(rig.served(2) - to_b, 64_000);
}

#[test]
fn a_worker_beats_asleep_or_not() {
    for polling in [Polling::Adaptive, Polling::Busy] {
        let rig = Rig::new(1, polling, &[Caps::NONE]);
        let beat = |rig: &Rig| rig.workers.pulses().next().unwrap().beat_ns.load(Ordering::Relaxed);
        for _ in 0..2 {
            let before = beat(&rig);
            rig.wait_for("another beat", |rig| beat(rig) > before);
        }
    }
}

#[test]
fn what_waits_for_its_turn_when_the_port_goes_is_counted() {
    let pool = PoolConfig { wire: WIRE, large: 128 };
    let mut rig = ByHand::new(&[Caps::ALL, Caps::NONE], pool);
    let dear = frame(B, A).ip([10, 0, 0, 1], [10, 0, 0, 2]).tcp(1, 2, 0x10).payload(&[7; 48_000]).gso(48);
    rig.send(0, std::iter::repeat_n(&dear, 64));
    rig.serve();
    let received = rig.counters[0][0].rx_packets.get();
    assert!((1..64).contains(&received), "{received}");
    let (done, _taken) = oneshot::channel();
    rig.commands.send(Command::Detach { port: PortId(0), done }).unwrap();
    assert!(rig.worker.obey());
    assert_eq!(received + rig.counters[0][0].rx_missed.get(), 64);
}
