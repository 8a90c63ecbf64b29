//! Frames that were in tunnels, on their way into the pipeline once more.
//!
//! A batch has one ingress and one network, so frames are gathered by both; in each group they keep their order.

use vswitch_dataplane::{BATCH_MAX, NetId, PortId};
use vswitch_io::{Frame, FrameVec};

/// Where a frame came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inner {
    /// The network of its VNI.
    pub(super) network: NetId,
    /// The VTEP.
    pub(super) peer: PortId,
}

/// Those of one batch.
pub(super) struct Recirculated {
    frames: FrameVec,
    of: Vec<Inner>,
    rest: FrameVec,
}

impl Recirculated {
    pub(super) fn new() -> Self {
        let frames = || FrameVec::new(BATCH_MAX);
        Self { frames: frames(), of: Vec::with_capacity(BATCH_MAX), rest: frames() }
    }

    /// Takes a frame in; hands it back when a whole batch is there already.
    pub(super) fn push(&mut self, inner: Inner, frame: Frame) -> Result<(), Frame> {
        self.frames.push(frame)?;
        self.of.push(inner);
        Ok(())
    }

    /// None.
    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// Moves the next group into `batch`, which is empty.
    pub(super) fn take_batch(&mut self, batch: &mut FrameVec) -> Option<Inner> {
        let first = *self.of.first()?;
        let mut left = 0;
        for (n, frame) in self.frames.drain().enumerate() {
            let into = if self.of[n] == first {
                &mut *batch
            } else {
                self.of[left] = self.of[n];
                left += 1;
                &mut self.rest
            };
            // As many as fit into a batch came.
            debug_assert!(into.room() > 0);
            let _ = into.push(frame);
        }
        self.of.truncate(left);
        std::mem::swap(&mut self.frames, &mut self.rest);
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use vswitch_io::{FrameClass, Pool, PoolConfig};
    use vswitch_wire::FrameBuf;

    use super::*;

    #[test]
    fn groups_come_in_the_order_of_their_first_frames_which_keep_theirs() {
        let pool = Pool::new(PoolConfig { wire: 256, large: 0 }).unwrap();
        let mut cache = pool.cache();
        let mut frames = Recirculated::new();
        let inner = |n: u16| Inner { network: NetId(n % 2), peer: PortId(n % 3) };
        for n in 0..BATCH_MAX {
            let mut frame = cache.acquire(FrameClass::Wire).unwrap();
            frame.set_len(1);
            frame.bytes_mut()[0] = n as u8;
            frames.push(inner(n as u16), frame).unwrap();
        }
        let extra = cache.acquire(FrameClass::Wire).unwrap();
        assert!(frames.push(inner(0), extra).is_err(), "a whole batch is there");
        let mut batch = FrameVec::new(BATCH_MAX);
        for first in 0..6 {
            assert_eq!(frames.take_batch(&mut batch), Some(inner(first)));
            let got: Vec<u8> = batch.as_slice().iter().map(|frame| frame.bytes()[0]).collect();
            let expected: Vec<u8> = (first as u8..BATCH_MAX as u8).step_by(6).collect();
            assert_eq!(got, expected);
            batch.drain().for_each(|frame| cache.release(frame));
        }
        assert_eq!(frames.take_batch(&mut batch), None);
    }
}
