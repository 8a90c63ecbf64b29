//! An owned frame.

use std::fmt;
use std::mem;
use std::ptr::NonNull;
use std::slice;

use vswitch_wire::{FrameBuf, FrameMeta, NoHeadroom};

use super::{FrameClass, Pool};

/// An owned frame. Give it back with [`super::PoolCache::release`]; when dropped otherwise it returns to the pool by
/// a slower way.
pub struct Frame {
    pool: &'static Pool,
    /// The first byte of the chunk's buffer: derived from `chunk`, kept since every access needs it.
    buffer: NonNull<u8>,
    span: Span,
    meta: FrameMeta,
}

/// Where a frame lies: what an AF_XDP descriptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The chunk's number.
    pub(crate) chunk: u32,
    /// Bytes from the chunk's beginning to the frame.
    pub(crate) start: u32,
    /// Bytes of the frame.
    pub(crate) len: u32,
}

// SAFETY: a frame owns its chunk: no other frame, and no ring, refers to the same bytes.
unsafe impl Send for Frame {}
// SAFETY: through a shared reference it can only be read.
unsafe impl Sync for Frame {}

impl Frame {
    /// Takes ownership of a chunk; the metadata is empty.
    ///
    /// # Safety
    /// Nobody else owns the chunk, and the span lies within its buffer.
    #[inline]
    pub(super) unsafe fn own(pool: &'static Pool, span: Span) -> Self {
        Self { pool, buffer: pool.buffer(span.chunk), span, meta: FrameMeta::default() }
    }

    /// Takes ownership of a chunk back from where [`Frame::into_chunk`]'s result went, a ring for example.
    /// `None` when there is no such chunk, or the span does not lie within it: it is still owned elsewhere then.
    ///
    /// # Safety
    /// Nobody else owns the chunk: it comes from `into_chunk`, and was taken back by nobody since.
    pub(crate) unsafe fn from_chunk(pool: &'static Pool, span: Span) -> Option<Self> {
        let exists = (span.chunk as usize) < pool.total(FrameClass::Wire) + pool.total(FrameClass::Large);
        let end = span.start as usize + span.len as usize;
        // SAFETY: the span was checked, the ownership is the caller's promise.
        (exists && end <= Pool::buffer_len(pool.class(span.chunk))).then(|| unsafe { Self::own(pool, span) })
    }

    /// Gives up ownership without returning the chunk to the pool: [`Frame::from_chunk`] undoes it.
    #[inline]
    pub(crate) fn into_chunk(self) -> Span {
        let span = self.span;
        mem::forget(self); // neither pool nor metadata holds anything to be dropped
        span
    }

    /// The pool it belongs to.
    pub(crate) const fn pool(&self) -> &'static Pool {
        self.pool
    }

    /// The class.
    #[inline]
    pub fn class(&self) -> FrameClass {
        self.pool.class(self.span.chunk)
    }

    /// Bytes from the frame's start to the end of its buffer.
    #[inline]
    pub fn capacity(&self) -> usize {
        Pool::buffer_len(self.class()) - self.span.start as usize
    }

    /// Sets the frame's length, at most its capacity. New bytes have unspecified (but initialised) content.
    #[inline]
    pub fn set_len(&mut self, len: usize) {
        self.span.len = len.min(self.capacity()) as u32;
    }

    /// Moves the start of an empty frame to the front, not past [`super::HEADROOM`], where that gives room for `len`
    /// bytes.
    #[inline]
    pub(super) fn make_room(&mut self, len: usize) {
        let end = Pool::buffer_len(self.class());
        let start = end.saturating_sub(len).max(super::HEADROOM) as u32;
        self.span.start = self.span.start.min(start);
    }
}

impl FrameBuf for Frame {
    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: `start + len` never passes the buffer's end, the area is zeroed by mmap and never unmapped,
        // and this frame alone owns the chunk.
        unsafe {
            slice::from_raw_parts(self.buffer.add(self.span.start as usize).as_ptr(), self.span.len as usize)
        }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        let Span { start, len, .. } = self.span;
        // SAFETY: as in `bytes`, and `&mut self` makes the access exclusive.
        unsafe { slice::from_raw_parts_mut(self.buffer.add(start as usize).as_ptr(), len as usize) }
    }

    #[inline]
    fn grow_front(&mut self, n: usize) -> Result<(), NoHeadroom> {
        if n > self.span.start as usize {
            return Err(NoHeadroom);
        }
        self.span.start -= n as u32;
        self.span.len += n as u32;
        Ok(())
    }

    #[inline]
    fn shrink_front(&mut self, n: usize) {
        let n = n.min(self.span.len as usize) as u32;
        self.span.start += n;
        self.span.len -= n;
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        self.span.len = self.span.len.min(u32::try_from(len).unwrap_or(u32::MAX));
    }

    #[inline]
    fn meta(&self) -> &FrameMeta {
        &self.meta
    }

    #[inline]
    fn meta_mut(&mut self) -> &mut FrameMeta {
        &mut self.meta
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.pool.list(self.class()).push(self.span.chunk);
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame").field("span", &self.span).field("meta", &self.meta).finish_non_exhaustive()
    }
}
