//! The frame pool: one mapped area, two classes of frames, owned handles.
//!
//! *Wire* frames are one UMEM chunk (4 KiB); *large* frames hold a GSO packet (64 KiB). Invariant, checked by tests:
//! frames in the pool + in rings + in flight = total.

use vswitch_wire::{FrameBuf, FrameMeta, NoHeadroom};

/// Bytes before a received frame: an outer Ethernet/VLAN/IPv6/UDP/VXLAN header and a vnet header fit in.
pub const HEADROOM: usize = 128;
/// Bytes of a UMEM chunk.
pub const CHUNK: usize = 4096;

/// How many frames of which class.
#[derive(Clone, Copy, Debug)]
pub struct PoolConfig {
    /// Wire frames.
    pub wire: u32,
    /// Large frames.
    pub large: u32,
}

/// The two sizes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameClass {
    /// One UMEM chunk.
    Wire,
    /// A GSO packet: 64 KiB and headroom.
    Large,
}

/// The area and its free lists; lives as long as the process.
#[derive(Debug)]
pub struct Pool {}

/// One thread's stock of free frames; trades with the pool in bulk, gives everything back when dropped.
#[derive(Debug)]
pub struct PoolCache {}

/// An owned frame. Give it back with [`PoolCache::release`]; when dropped otherwise it returns to the pool by a slower way.
#[derive(Debug)]
pub struct Frame {}

/// A bounded vector of frames.
#[derive(Debug)]
pub struct FrameVec {}

impl Pool {
    /// Maps the area (hugepages where the host has them).
    ///
    /// # Errors
    /// What mmap said.
    pub fn new(_config: PoolConfig) -> std::io::Result<&'static Self> {
        todo!()
    }

    /// Free frames of a class, in the pool itself (not in caches).
    pub fn free(&self, _class: FrameClass) -> usize {
        todo!()
    }

    /// A cache for the calling thread.
    pub fn cache(&'static self) -> PoolCache {
        todo!()
    }
}

impl PoolCache {
    /// A free frame, empty, its start at [`HEADROOM`] or later; `None` when the pool is empty.
    pub fn acquire(&mut self, _class: FrameClass) -> Option<Frame> {
        todo!()
    }

    /// Gives a frame back.
    pub fn release(&mut self, _frame: Frame) {
        todo!()
    }

    /// A copy of bytes and metadata, in a wire frame where it fits.
    pub fn copy(&mut self, _frame: &Frame) -> Option<Frame> {
        todo!()
    }
}

impl Frame {
    /// The class.
    pub fn class(&self) -> FrameClass {
        todo!()
    }

    /// Bytes from the frame's start to the end of its buffer.
    pub fn capacity(&self) -> usize {
        todo!()
    }

    /// Sets the frame's length, at most its capacity. New bytes have unspecified (but initialised) content.
    pub fn set_len(&mut self, _len: usize) {
        todo!()
    }
}

impl FrameBuf for Frame {
    fn bytes(&self) -> &[u8] {
        todo!()
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        todo!()
    }
    fn grow_front(&mut self, _n: usize) -> Result<(), NoHeadroom> {
        todo!()
    }
    fn shrink_front(&mut self, _n: usize) {
        todo!()
    }
    fn meta(&self) -> &FrameMeta {
        todo!()
    }
    fn meta_mut(&mut self) -> &mut FrameMeta {
        todo!()
    }
}

impl FrameVec {
    /// An empty vector that never holds more than `capacity` frames.
    pub fn new(_capacity: usize) -> Self {
        todo!()
    }
    /// How many more it takes.
    pub fn room(&self) -> usize {
        todo!()
    }
    /// Appends a frame, or hands it back when there is no room.
    pub fn push(&mut self, _frame: Frame) -> Result<(), Frame> {
        todo!()
    }
    /// How many it holds.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// None.
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    /// The frames.
    pub fn as_mut_slice(&mut self) -> &mut [Frame] {
        todo!()
    }
    /// Takes all frames out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Frame> + '_ {
        std::iter::from_fn(|| todo!())
    }
}
