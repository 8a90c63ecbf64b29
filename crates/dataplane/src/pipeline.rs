//! The order of the steps.
//!
//! Each step is one loop over the frames of a batch that no earlier step decided. A step says what it
//! decides by writing a verdict; what it does to the world besides goes through [`Effects`], so that
//! forwarding and [`crate::explain`] are the same code: the one learns and spends storm tokens in silence,
//! the other says each decision in words and changes nothing.
//!
//! All frames of a batch pass one step before the first of them enters the next: sources are learnt before
//! destinations are looked up, so a frame to a station whose first frame is in the same batch finds it.

use alloc::string::String;
use core::net::IpAddr;

use vswitch_wire::{FrameBuf, Instant};

use crate::acl::{Acl, Place, Ruling};
use crate::counters::account;
use crate::fdb::Learn;
use crate::storm::{Bucket, Class, Policer};
use crate::vector::{Context, Slot, Vector};
use crate::{NetId, PortCounters, PortId, Reason, Snapshot};
use crate::{acl, admit, forward, guard, learn, locate, parse, storm, tunnel, vlan};

/// The most frames of one batch.
pub const BATCH_MAX: usize = 64;

/// What is to happen with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided yet; never left so by [`Pipeline::process`].
    Pending,
    /// Leaves by one port.
    Unicast {
        /// Its network.
        network: NetId,
        /// Where it leaves.
        port: PortId,
    },
    /// Leaves by every port of [`Snapshot::flood`].
    Flood {
        /// Its network.
        network: NetId,
    },
    /// Was in a tunnel. The bytes are those of the frame in it now, for another batch with this ingress and network.
    Decapsulated {
        /// The network of its VNI.
        network: NetId,
        /// The VTEP that it comes from.
        peer: PortId,
    },
    /// Dropped.
    Drop(Reason),
}

/// Frames that came in by one port.
pub struct Batch<'a, F> {
    /// The port they came in by: for frames out of a tunnel, the VTEP that they come from.
    pub ingress: PortId,
    /// The network of frames out of a tunnel; `None` for others, whose tag says it.
    pub network: Option<NetId>,
    /// The frames, at most [`BATCH_MAX`].
    pub frames: &'a mut [F],
    /// One for each frame.
    pub verdicts: &'a mut [Verdict],
}

/// A VTEP that is no peer of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// The VTEP.
    pub address: IpAddr,
    /// The network of a frame from it.
    pub network: NetId,
}

/// What the steps do to the world beside their verdicts.
pub(crate) trait Effects {
    /// Learns that the frame's source is behind the port that the batch came in by.
    fn learn(&mut self, cx: &Context<'_>, network: NetId, slot: &Slot) -> Learn;
    /// Where the destination is, sources of this batch included.
    fn lookup(&self, cx: &Context<'_>, slot: &Slot) -> Option<PortId>;
    /// Whether the ingress port's limit lets one more frame of this class be flooded, which stands for `frames` on
    /// the wire.
    fn may_flood(&mut self, cx: &Context<'_>, class: Class, frames: u32) -> bool;
    /// A VTEP that is no peer sends frames of a network where anyone may be one.
    fn meet(&mut self, stranger: Stranger);
    /// A list of rules judged a frame.
    fn rule(&mut self, acl: &Acl, place: Place, ruling: Ruling);
    /// Says what `stage` decided.
    fn say(&mut self, stage: &'static str, text: impl FnOnce() -> String);
}

/// The steps, in the order that a frame sees.
pub(crate) fn run<F: FrameBuf>(cx: &Context<'_>, vector: &mut Vector<'_, F>, effects: &mut impl Effects) {
    parse::run(vector, effects);
    admit::run(cx, vector, effects);
    vlan::run(cx, vector, effects);
    tunnel::run(cx, vector, effects);
    guard::run(cx, vector, effects);
    acl::run(cx, vector, effects);
    storm::run(cx, vector, effects);
    locate::run(cx, vector);
    learn::run(cx, vector, effects);
    forward::run(cx, vector, effects);
}

/// One worker's pipeline: the state that is its own.
#[derive(Debug)]
pub struct Pipeline {
    worker: usize,
    policer: Policer,
    slots: [Slot; BATCH_MAX],
    stranger: Option<Stranger>,
}

impl Pipeline {
    /// The pipeline of the worker with this index (its counters' position).
    #[must_use]
    pub fn new(worker: usize) -> Self {
        Self { worker, policer: Policer::default(), slots: [Slot::EMPTY; BATCH_MAX], stranger: None }
    }

    /// The last VTEP that would have become a peer, where its network lets anyone. Its frames are dropped as those of an
    /// unknown peer until a snapshot has it.
    pub fn take_stranger(&mut self) -> Option<Stranger> {
        self.stranger.take()
    }

    /// Decides every frame of `batch`: on return none is [`Verdict::Pending`], an 802.1Q tag is in the
    /// metadata and not in the bytes, everything that was received is counted, and so is every drop.
    ///
    /// Frames of a port that `snapshot` does not know are dropped as [`Reason::PortGone`]. There is no port to
    /// count them at, so neither their reception nor their drop is counted.
    pub fn process<F: FrameBuf>(&mut self, snapshot: &Snapshot, now: Instant, batch: &mut Batch<'_, F>) {
        debug_assert_eq!(batch.frames.len(), batch.verdicts.len());
        let Batch { ingress, network, .. } = *batch;
        let Some((port, counters)) =
            snapshot.port(ingress).and_then(|p| Some((p, p.counters.get(self.worker)?)))
        else {
            return batch.verdicts.fill(Verdict::Drop(Reason::PortGone));
        };
        let cx = Context { snapshot, now, ingress, port, network };
        let buckets = self.policer.buckets(ingress);
        let mut live = Live { worker: self.worker, buckets, counters, stranger: &mut self.stranger };
        let chunks = batch.frames.chunks_mut(BATCH_MAX).zip(batch.verdicts.chunks_mut(BATCH_MAX));
        for (frames, verdicts) in chunks {
            let slots = &mut self.slots[..frames.len()];
            run(&cx, &mut Vector { frames, slots }, &mut live);
            account(snapshot, self.worker, counters, slots);
            for (verdict, slot) in verdicts.iter_mut().zip(slots) {
                *verdict = slot.verdict;
            }
        }
    }
}

/// Forwarding for real, in silence.
struct Live<'a> {
    worker: usize,
    buckets: &'a mut [Bucket; Class::COUNT],
    counters: &'a PortCounters,
    stranger: &'a mut Option<Stranger>,
}

impl Effects for Live<'_> {
    #[inline]
    fn learn(&mut self, cx: &Context<'_>, network: NetId, slot: &Slot) -> Learn {
        let address = (network, slot.source);
        let fdb = cx.snapshot.fdb();
        let learnt = fdb.learn_probed(cx.snapshot, slot.source_probe, address, cx.ingress, cx.now);
        if learnt == Learn::Refused {
            self.counters.learn_refused.add(1);
        }
        learnt
    }

    #[inline]
    fn lookup(&self, cx: &Context<'_>, slot: &Slot) -> Option<PortId> {
        cx.snapshot.fdb().lookup_probed(slot.probe)
    }

    #[inline]
    fn may_flood(&mut self, cx: &Context<'_>, class: Class, frames: u32) -> bool {
        class.limit(&cx.port.storm).is_none_or(|rate| self.buckets[class.index()].take(rate, frames, cx.now))
    }

    fn meet(&mut self, stranger: Stranger) {
        *self.stranger = Some(stranger);
    }

    #[inline]
    fn rule(&mut self, acl: &Acl, _place: Place, ruling: Ruling) {
        acl.count(self.worker, ruling);
    }

    #[inline]
    fn say(&mut self, _stage: &'static str, _text: impl FnOnce() -> String) {}
}
