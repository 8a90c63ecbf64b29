//! What the steps share: the batch as parallel arrays, and what holds for all of it.

use alloc::format;

use vswitch_wire::{FrameBuf, Instant, Mac};

use crate::pipeline::Effects;
use crate::{NetId, Port, PortId, Reason, Snapshot, Verdict};

/// What holds for every frame of a batch.
pub(crate) struct Context<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) now: Instant,
    pub(crate) ingress: PortId,
    /// The port `ingress`.
    pub(crate) port: &'a Port,
}

/// What the steps found out about one frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot {
    pub(crate) destination: Mac,
    pub(crate) source: Mac,
    /// The network, from the `vlan` step on.
    pub(crate) network: Option<NetId>,
    /// Bytes that came in, tag included.
    pub(crate) len: u32,
}

/// A batch and its parallel arrays, all of one length.
pub(crate) struct Vector<'a, F> {
    pub(crate) frames: &'a mut [F],
    pub(crate) verdicts: &'a mut [Verdict],
    pub(crate) slots: &'a mut [Slot],
}

/// One frame of a [`Vector`].
pub(crate) struct Lane<'a, F> {
    pub(crate) frame: &'a mut F,
    pub(crate) verdict: &'a mut Verdict,
    pub(crate) slot: &'a mut Slot,
}

impl<F: FrameBuf> Vector<'_, F> {
    /// The frames that no step has decided yet.
    #[inline]
    pub(crate) fn undecided(&mut self) -> impl Iterator<Item = Lane<'_, F>> {
        let slots = self.slots.iter_mut();
        let lanes = self.frames.iter_mut().zip(self.verdicts.iter_mut()).zip(slots);
        lanes
            .map(|((frame, verdict), slot)| Lane { frame, verdict, slot })
            .filter(|lane| *lane.verdict == Verdict::Pending)
    }
}

impl<F> Lane<'_, F> {
    /// Drops the frame.
    #[inline]
    pub(crate) fn drop(self, stage: &'static str, reason: Reason, effects: &mut impl Effects) {
        *self.verdict = Verdict::Drop(reason);
        effects.say(stage, || format!("dropped: {reason}"));
    }
}
