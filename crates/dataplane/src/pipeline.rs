//! The order of the steps.

use alloc::string::String;
use alloc::vec::Vec;

use vswitch_wire::{FrameBuf, Instant};

use crate::{NetId, PortId, Reason, Snapshot};

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
    /// Dropped.
    Drop(Reason),
}

/// Frames that came in by one port.
pub struct Batch<'a, F> {
    /// The port they came in by.
    pub ingress: PortId,
    /// The frames, at most [`BATCH_MAX`].
    pub frames: &'a mut [F],
    /// One for each frame.
    pub verdicts: &'a mut [Verdict],
}

/// One worker's pipeline: the state that is its own.
#[derive(Debug)]
pub struct Pipeline {}

impl Pipeline {
    /// The pipeline of the worker with this index (its counters' position).
    #[must_use]
    pub fn new(_worker: usize) -> Self {
        todo!()
    }

    /// Decides every frame of `batch`: on return none is [`Verdict::Pending`], an 802.1Q tag is in the
    /// metadata and not in the bytes, everything that was received is counted, and so is every drop.
    pub fn process<F: FrameBuf>(&mut self, _snapshot: &Snapshot, _now: Instant, _batch: &mut Batch<'_, F>) {
        todo!()
    }
}

/// One decision of [`explain`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The pipeline step, as in `vlan`.
    pub stage: &'static str,
    /// What it decided and why, in words. Ports and networks as `{port N}` and `{network N}`, to be named by the caller.
    pub text: String,
}

/// Runs the same steps over one frame and says each decision in words. Changes nothing: learns nothing, counts nothing.
pub fn explain<F: FrameBuf>(
    _snapshot: &Snapshot,
    _now: Instant,
    _ingress: PortId,
    _frame: &mut F,
) -> (Verdict, Vec<Step>) {
    todo!()
}
