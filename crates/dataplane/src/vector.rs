//! What the steps share: the batch as two parallel arrays, and what holds for all of it.

use alloc::format;

use vswitch_wire::{Instant, Mac};

use crate::fdb::Probe;
use crate::pipeline::Effects;
use crate::{NetId, Port, PortId, Reason, Snapshot, Verdict};

/// What holds for every frame of a batch.
pub(crate) struct Context<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) now: Instant,
    pub(crate) ingress: PortId,
    /// The port `ingress`.
    pub(crate) port: &'a Port,
    /// The network of frames out of a tunnel.
    pub(crate) network: Option<NetId>,
}

/// What the steps found out about one frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) verdict: Verdict,
    /// Bytes that came in, tag included.
    pub(crate) len: u32,
    /// How many frames it stands for on the wire, from the `admit` step on: the segments of a GSO frame.
    pub(crate) frames: u32,
    /// The network, from the `vlan` step on.
    pub(crate) network: Option<NetId>,
    pub(crate) destination: Mac,
    pub(crate) source: Mac,
    /// Where the FDB has the destination, from the `locate` step on.
    pub(crate) probe: Probe,
    /// Where it has the source.
    pub(crate) source_probe: Probe,
}

/// A batch: its frames, and a slot for each of them.
pub(crate) struct Vector<'a, F> {
    pub(crate) frames: &'a mut [F],
    pub(crate) slots: &'a mut [Slot],
}

impl<F> Vector<'_, F> {
    /// The frames that no step has decided yet.
    #[inline]
    pub(crate) fn undecided(&mut self) -> impl Iterator<Item = (&mut F, &mut Slot)> {
        self.frames.iter_mut().zip(self.slots.iter_mut()).filter(|(_, slot)| slot.is_undecided())
    }

    /// Their slots, for steps that need no bytes.
    #[inline]
    pub(crate) fn undecided_slots(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut().filter(|slot| slot.is_undecided())
    }
}

impl Slot {
    pub(crate) const EMPTY: Self = Self {
        verdict: Verdict::Pending,
        len: 0,
        frames: 1,
        network: None,
        destination: Mac::ZERO,
        source: Mac::ZERO,
        probe: Probe::NONE,
        source_probe: Probe::NONE,
    };

    #[inline]
    fn is_undecided(&self) -> bool {
        matches!(self.verdict, Verdict::Pending)
    }

    /// Drops the frame.
    #[inline]
    pub(crate) fn drop(&mut self, stage: &'static str, reason: Reason, effects: &mut impl Effects) {
        self.verdict = Verdict::Drop(reason);
        effects.say(stage, || format!("dropped: {reason}"));
    }
}
