//! From the workers to the switch: a queue for each VLAN ID, served in turn.
//!
//! All together hold [`SHARED`] frames at most, any one of them [`EACH`]. A queue below [`RESERVED`] takes a frame even when
//! all together are full: whoever has sent nothing yet is heard, whatever others do. What waits are frames of the pool,
//! wire frames alone: of large ones there are few.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vswitch_wire::{FrameBuf, vlan};

use crate::port::TxReport;
use crate::{Frame, FrameClass, FrameVec, PoolCache};

/// Frames of one VLAN ID.
pub(super) const EACH: usize = 64;
/// Frames of all.
pub(super) const SHARED: usize = 1024;
/// Frames of a VLAN ID that others cannot keep out.
pub(super) const RESERVED: usize = 2;

#[derive(Debug, Default)]
pub(super) struct Queues(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By VLAN ID, as far as one came.
    by_vid: Vec<VecDeque<Frame>>,
    /// VLAN IDs of queues that are not empty, whose turn comes first in front.
    turns: VecDeque<u16>,
    /// Frames in all queues.
    total: usize,
}

impl Queues {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Whole at every point where a thread could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what fits; the rest goes back to the pool, and so does a frame without a tag. Whether there are frames now,
    /// and were none.
    pub(super) fn put(&self, pool: &mut PoolCache, frames: &mut FrameVec) -> (TxReport, bool) {
        let mut report = TxReport::default();
        let mut inner = self.inner();
        let was_empty = inner.total == 0;
        for frame in frames.drain() {
            let len = frame.bytes().len() as u64;
            let Some(vid) = vlan::peek(frame.bytes()).map(vswitch_wire::Tag::vid) else {
                report.refused += 1;
                pool.release(frame);
                continue;
            };
            let frame = if inner.has_room(vid) { Ok(frame) } else { Err(frame) };
            match frame.and_then(|frame| in_wire_frame(pool, frame)) {
                Ok(frame) => {
                    inner.push(vid, frame);
                    report.sent += 1;
                    report.sent_bytes += len;
                }
                Err(frame) => {
                    report.full += 1;
                    pool.release(frame);
                }
            }
        }
        report.stalls = u32::from(report.full > 0);
        (report, was_empty && inner.total > 0)
    }

    /// Takes out at most `most` frames, the VLAN IDs in turn, `most_each` of any; whether some are left.
    pub(super) fn take(&self, most: usize, most_each: usize, out: &mut Vec<Frame>) -> bool {
        let mut inner = self.inner();
        let mut rest = most;
        // In each round every queue gives one.
        for _ in 0..most_each {
            for _ in 0..inner.turns.len().min(rest) {
                out.extend(inner.pop());
                rest -= 1;
            }
        }
        inner.total > 0
    }

    /// Takes out every frame of a VLAN ID.
    pub(super) fn purge(&self, vid: u16, out: &mut Vec<Frame>) {
        let mut inner = self.inner();
        inner.turns.retain(|turn| *turn != vid);
        if let Some(queue) = inner.by_vid.get_mut(usize::from(vid)).map(std::mem::take) {
            inner.total -= queue.len();
            out.extend(queue);
        }
    }
}

impl Inner {
    fn has_room(&self, vid: u16) -> bool {
        let len = self.by_vid.get(usize::from(vid)).map_or(0, VecDeque::len);
        len < RESERVED || (len < EACH && self.total < SHARED)
    }

    fn push(&mut self, vid: u16, frame: Frame) {
        let at = usize::from(vid);
        if self.by_vid.len() <= at {
            self.by_vid.resize_with(at + 1, VecDeque::new);
        }
        if self.by_vid[at].is_empty() {
            self.turns.push_back(vid);
        }
        self.by_vid[at].push_back(frame);
        self.total += 1;
    }

    /// The next frame of the queue whose turn it is; its next turn comes after all others'.
    fn pop(&mut self) -> Option<Frame> {
        let vid = self.turns.pop_front()?;
        let queue = self.by_vid.get_mut(usize::from(vid))?;
        let frame = queue.pop_front()?;
        if !queue.is_empty() {
            self.turns.push_back(vid);
        }
        self.total -= 1;
        Some(frame)
    }
}

/// The frame, or its copy in a wire frame.
fn in_wire_frame(pool: &mut PoolCache, frame: Frame) -> Result<Frame, Frame> {
    if frame.class() == FrameClass::Wire {
        return Ok(frame);
    }
    match pool.copy(&frame).filter(|copy| copy.class() == FrameClass::Wire) {
        Some(copy) => {
            pool.release(frame);
            Ok(copy)
        }
        None => Err(frame),
    }
}
