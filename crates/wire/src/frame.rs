//! What drivers and the switch share about a frame.

use crate::{Offload, Tag};

/// A frame: contiguous bytes from the destination MAC on (no FCS), headroom before them, and metadata.
pub trait FrameBuf {
    /// The frame from its destination MAC on. A frame with [`FrameMeta::tag`] set has no such tag in its bytes.
    fn bytes(&self) -> &[u8];
    /// As [`FrameBuf::bytes`], to be written.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Puts `n` bytes (with unspecified content) before the frame.
    ///
    /// # Errors
    /// [`NoHeadroom`] when fewer than `n` bytes are left before it; the frame is unchanged.
    fn grow_front(&mut self, n: usize) -> Result<(), NoHeadroom>;
    /// Takes the first `n` bytes off the frame; at most all of them.
    fn shrink_front(&mut self, n: usize);
    /// Takes bytes off the frame's end so that at most `len` are left.
    fn truncate(&mut self, len: usize);
    /// What travels with the bytes.
    fn meta(&self) -> &FrameMeta;
    /// As [`FrameBuf::meta`], to be written.
    fn meta_mut(&mut self) -> &mut FrameMeta;
}

/// Too little room before the frame for another header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHeadroom;

/// What travels with a frame's bytes and must not be lost between two ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameMeta {
    /// Unfinished checksum and segmentation.
    pub offload: Offload,
    /// The outermost 802.1Q tag, where it is carried beside the bytes. Between ingress and egress the
    /// switch keeps it here always; drivers that receive tags out of band set it.
    pub tag: Option<Tag>,
}
