//! After the pipeline: carries out verdicts. Copies for a flood, segments for ports that cannot take GSO,
//! one transmit call a port and batch, every frame counted.

use vswitch_dataplane::too_big::{self, Limiter};
use vswitch_dataplane::{BATCH_MAX, Egress, PortId, Reason, Snapshot, Verdict, egress, tunnel};
use vswitch_dataplane::{NetId, PortCounters};
use vswitch_io::{Frame, FrameVec, PoolCache, TxQueue};
use vswitch_wire::segment::Segmenter;
use vswitch_wire::{FrameBuf, Instant};

use super::recirculate::{Inner, Recirculated};
use super::waiting::{Resolved, Waiting};

/// A worker's ways out.
pub(super) struct Dispatch {
    worker: usize,
    pool: PoolCache,
    /// Indexed by port.
    out: Vec<Option<Out>>,
    /// Ports with frames to send.
    pending: Vec<PortId>,
    /// Frames that the current batch became.
    emitted: u32,
    inner: Recirculated,
    waiting: Waiting,
    answers: Limiter,
    /// When the current batch came.
    now: Instant,
}

struct Out {
    queue: Box<dyn TxQueue>,
    frames: FrameVec,
}

/// Where a frame is to go.
#[derive(Clone, Copy)]
struct Hop {
    network: NetId,
    ingress: PortId,
    port: PortId,
    /// The frame leaves by this port alone: whoever sent it may be told why it does not.
    is_known: bool,
}

impl Dispatch {
    pub(super) fn new(worker: usize, pool: PoolCache) -> Self {
        Self {
            worker,
            pool,
            out: Vec::new(),
            pending: Vec::new(),
            emitted: 0,
            inner: Recirculated::new(),
            waiting: Waiting::new(worker),
            answers: Limiter::default(),
            now: Instant::ZERO,
        }
    }

    pub(super) fn pool(&mut self) -> &mut PoolCache {
        &mut self.pool
    }

    pub(super) fn insert(&mut self, port: PortId, queue: Box<dyn TxQueue>) {
        if self.out.len() <= port.index() {
            self.out.resize_with(port.index() + 1, || None);
        }
        self.out[port.index()] = Some(Out { queue, frames: FrameVec::new(BATCH_MAX) });
        self.pending.reserve(self.out.len());
    }

    pub(super) fn remove(&mut self, port: PortId) -> Option<Box<dyn TxQueue>> {
        Some(self.out.get_mut(port.index())?.take()?.queue)
    }

    /// Frames out of tunnels, which are to be decided upon once more.
    pub(super) fn inner(&mut self) -> &mut Recirculated {
        &mut self.inner
    }

    /// What is to be done now and then: takes back what has been transmitted, at every port, and gives up what has waited
    /// for long.
    pub(super) fn do_chores(&mut self) {
        self.waiting.on_chores();
        for out in self.out.iter_mut().flatten() {
            out.queue.reclaim(&mut self.pool);
        }
    }

    /// Carries out one verdict for each frame of a batch, and sends; how many frames that made.
    pub(super) fn run(
        &mut self,
        snapshot: &Snapshot,
        ingress: PortId,
        batch: &mut FrameVec,
        verdicts: &[Verdict],
        now: Instant,
    ) -> u32 {
        self.emitted = 0;
        self.now = now;
        for (frame, verdict) in batch.drain().zip(verdicts) {
            match *verdict {
                Verdict::Unicast { network, port } => {
                    self.emit(snapshot, Hop { network, ingress, port, is_known: true }, frame);
                }
                Verdict::Decapsulated { network, peer } => {
                    self.recirculate(snapshot, Inner { network, peer }, frame);
                }
                Verdict::Flood { network } => self.flood(snapshot, network, ingress, frame),
                Verdict::Drop(_) | Verdict::Pending => self.pool.release(frame),
            }
        }
        self.flush_all(snapshot);
        self.emitted
    }

    fn flush_all(&mut self, snapshot: &Snapshot) {
        while let Some(port) = self.pending.pop() {
            self.flush(snapshot, port);
        }
    }

    /// A copy for every member but the last, which gets the frame itself.
    fn flood(&mut self, snapshot: &Snapshot, network: NetId, ingress: PortId, frame: Frame) {
        let mut ports = snapshot.flood(network, ingress);
        let Some(mut port) = ports.next() else { return self.pool.release(frame) };
        for next in ports {
            let copy = self.obtain(snapshot, |pool| pool.copy(&frame));
            self.count(snapshot, port, |c| c.replicated.add(1));
            match copy {
                Some(copy) => self.emit(snapshot, Hop { network, ingress, port, is_known: false }, copy),
                None => self.count(snapshot, port, |c| c.drop(Reason::PoolEmpty, 1)),
            }
            port = next;
        }
        self.emit(snapshot, Hop { network, ingress, port, is_known: false }, frame);
    }

    fn emit(&mut self, snapshot: &Snapshot, hop: Hop, mut frame: Frame) {
        let worker = Some(self.worker);
        match egress::prepare(snapshot, hop.network, hop.ingress, hop.port, &mut frame, worker) {
            Ok(Egress::Ready) => self.queue(snapshot, hop.port, frame),
            Ok(Egress::Segment) => self.segment(snapshot, hop, frame),
            Ok(Egress::Encapsulate) => self.encapsulate(snapshot, hop.network, hop.port, frame),
            Err(reason) => {
                if hop.is_known && reason == Reason::TooBigEgress && tunnel::of(snapshot, hop.port).is_some()
                {
                    self.answer_too_big(snapshot, hop, &frame);
                }
                self.discard(snapshot, hop.port, reason, frame);
            }
        }
    }

    /// Cuts a GSO frame for a port that takes none.
    fn segment(&mut self, snapshot: &Snapshot, hop: Hop, whole: Frame) {
        let Hop { network, port, .. } = hop;
        let is_tunnel = tunnel::of(snapshot, port).is_some();
        let finish = !snapshot.port(port).is_some_and(|p| p.caps.csum);
        let Ok(mut segments) = Segmenter::new(whole.bytes(), &whole.meta().offload) else {
            return self.discard(snapshot, port, Reason::BadSegmentation, whole);
        };
        let count = segments.count() as u64;
        self.count(snapshot, port, |c| c.replicated.add(count.saturating_sub(1)));
        let longest = segments.longest();
        for made in 0..count {
            let Some(mut frame) = self.obtain(snapshot, |pool| pool.acquire_for(longest)) else {
                self.count(snapshot, port, |c| c.drop(Reason::PoolEmpty, count - made));
                break;
            };
            frame.set_len(longest);
            let Some((len, offload)) = segments.next_into(frame.bytes_mut(), finish) else {
                self.count(snapshot, port, |c| c.drop(Reason::BadSegmentation, count - made));
                self.pool.release(frame);
                break;
            };
            frame.set_len(len);
            frame.meta_mut().offload = offload;
            if is_tunnel {
                self.encapsulate(snapshot, network, port, frame);
            } else {
                self.queue(snapshot, port, frame);
            }
        }
        self.pool.release(whole);
    }

    /// Sends a frame into the tunnel to `peer`.
    fn encapsulate(&mut self, snapshot: &Snapshot, network: NetId, peer: PortId, mut frame: Frame) {
        let len = frame.bytes().len() as u64;
        match tunnel::encapsulate(snapshot, network, peer, &mut frame, Some(self.worker)) {
            Ok(Some(underlay)) => {
                self.count(snapshot, peer, |c| {
                    c.tx_packets.add(1);
                    c.tx_bytes.add(len);
                });
                self.queue(snapshot, underlay, frame);
            }
            Ok(None) => {
                if let Err(frame) = self.waiting.hold(snapshot, network, peer, frame) {
                    self.discard(snapshot, peer, Reason::NoNeighbour, frame);
                }
            }
            Err(reason) => self.discard(snapshot, peer, reason, frame),
        }
    }

    /// The worker ends: what waits is dropped.
    pub(super) fn give_up_waiting(&mut self) {
        self.waiting.give_up_all();
    }

    /// Sends what waited for a next hop that this snapshot knows.
    pub(super) fn retry(&mut self, snapshot: &Snapshot) {
        for Resolved { network, peer, frame } in self.waiting.take_resolved(snapshot) {
            self.encapsulate(snapshot, network, peer, frame);
        }
        self.flush_all(snapshot);
    }

    fn recirculate(&mut self, snapshot: &Snapshot, inner: Inner, frame: Frame) {
        if let Err(frame) = self.inner.push(inner, frame) {
            debug_assert!(false, "a batch is no longer than what fits in");
            self.discard(snapshot, inner.peer, Reason::TxFull, frame);
        }
    }

    /// Tells the sender of a frame that is too long for a tunnel what would not be.
    fn answer_too_big(&mut self, snapshot: &Snapshot, hop: Hop, frame: &Frame) {
        let Some(max_frame) = snapshot.port(hop.port).map(|port| port.max_frame) else { return };
        let mut answer = [0; too_big::ANSWER_MAX];
        let Some(len) = too_big::answer(frame.bytes(), max_frame, &mut answer) else { return };
        if !self.answers.admits(hop.ingress, self.now) {
            return;
        }
        let Some(mut reply) = self.obtain(snapshot, |pool| pool.acquire_for(len)) else { return };
        reply.set_len(len);
        reply.bytes_mut().copy_from_slice(&answer[..len]);
        self.count(snapshot, hop.ingress, |c| c.originated.add(1));
        let back = Hop { ingress: hop.port, port: hop.ingress, is_known: false, ..hop };
        self.emit(snapshot, back, reply);
    }

    /// A frame of the pool. What a batch becomes may be more than there are: what waits is sent, then there are some.
    fn obtain(
        &mut self,
        snapshot: &Snapshot,
        take: impl Fn(&mut PoolCache) -> Option<Frame>,
    ) -> Option<Frame> {
        take(&mut self.pool).or_else(|| {
            self.flush_all(snapshot);
            take(&mut self.pool)
        })
    }

    fn queue(&mut self, snapshot: &Snapshot, port: PortId, frame: Frame) {
        let Some(out) = self.out.get_mut(port.index()).and_then(Option::as_mut) else {
            return self.discard(snapshot, port, Reason::PortGone, frame);
        };
        self.emitted += 1;
        if out.frames.is_empty() {
            self.pending.push(port);
        }
        if let Err(frame) = out.frames.push(frame) {
            self.flush(snapshot, port);
            // The port is listed as pending already, and a flushed queue has room.
            if let Some(Err(frame)) = self.out[port.index()].as_mut().map(|out| out.frames.push(frame)) {
                self.discard(snapshot, port, Reason::TxFull, frame);
            }
        }
    }

    fn flush(&mut self, snapshot: &Snapshot, port: PortId) {
        let Some(out) = self.out.get_mut(port.index()).and_then(Option::as_mut) else { return };
        let report = out.queue.tx(&mut self.pool, &mut out.frames);
        self.count(snapshot, port, |c| {
            c.tx_packets.add(u64::from(report.sent));
            c.tx_bytes.add(report.sent_bytes);
            if report.stalls > 0 {
                c.tx_stalls.add(u64::from(report.stalls));
            }
            if report.full > 0 {
                c.drop(Reason::TxFull, u64::from(report.full));
            }
            if report.refused > 0 {
                c.drop(Reason::TxError, u64::from(report.refused));
            }
        });
    }

    fn discard(&mut self, snapshot: &Snapshot, port: PortId, reason: Reason, frame: Frame) {
        self.count(snapshot, port, |c| c.drop(reason, 1));
        self.pool.release(frame);
    }

    /// A snapshot that gave the verdict has the port; its counters are this worker's.
    fn count(&self, snapshot: &Snapshot, port: PortId, add: impl FnOnce(&PortCounters)) {
        if let Some(counters) = snapshot.port(port).and_then(|p| p.counters.get(self.worker)) {
            add(counters);
        }
    }
}
