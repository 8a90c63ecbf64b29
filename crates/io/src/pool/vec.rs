//! A bounded vector of frames.

use super::Frame;

/// A bounded vector of frames; allocates once.
#[derive(Debug)]
pub struct FrameVec {
    frames: Vec<Frame>,
    limit: usize,
}

impl FrameVec {
    /// An empty vector that never holds more than `capacity` frames.
    pub fn new(capacity: usize) -> Self {
        Self { frames: Vec::with_capacity(capacity), limit: capacity }
    }

    /// How many more it takes.
    pub fn room(&self) -> usize {
        self.limit - self.frames.len()
    }

    /// Appends a frame, or hands it back when there is no room.
    ///
    /// # Errors
    /// The frame.
    pub fn push(&mut self, frame: Frame) -> Result<(), Frame> {
        if self.room() == 0 {
            return Err(frame);
        }
        self.frames.push(frame);
        Ok(())
    }

    /// How many it holds.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The frames.
    pub fn as_slice(&self) -> &[Frame] {
        &self.frames
    }

    /// The frames, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [Frame] {
        &mut self.frames
    }

    /// Moves the frames from `at` on to the end of `rest`, in order; what it has no room for stays.
    pub fn move_tail(&mut self, at: usize, rest: &mut Self) {
        let end = self.frames.len().min(at.saturating_add(rest.room()));
        if at < end {
            rest.frames.extend(self.frames.drain(at..end));
        }
    }

    /// Takes all frames out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Frame> + '_ {
        self.frames.drain(..)
    }
}
