//! Bytes in the buffers of one or several chains, one after the other.

use super::memory::{Memory, Span};
use vm_memory::VolatileSlice;

/// Where reading or writing goes on.
pub(super) struct Buffers<'a> {
    memory: &'a Memory,
    /// What is left of the current buffer.
    current: Span,
    rest: &'a [Span],
}

impl<'a> Buffers<'a> {
    pub(super) fn new(memory: &'a Memory, spans: &'a [Span]) -> Self {
        Self { memory, current: Span::default(), rest: spans }
    }

    /// The next bytes that lie together, at most `len`; `None` behind the last buffer.
    #[inline]
    fn next(&mut self, len: usize) -> Option<VolatileSlice<'a>> {
        while self.current.len == 0 {
            let (first, rest) = self.rest.split_first()?;
            (self.current, self.rest) = (*first, rest);
        }
        let part = self.current.until(len);
        self.current = self.current.from(len);
        self.memory.slice(part)
    }

    /// Reads as many bytes as `out` has; `None` when there are fewer.
    #[inline]
    pub(super) fn read(&mut self, mut out: &mut [u8]) -> Option<()> {
        while !out.is_empty() {
            let n = self.next(out.len())?.copy_to(out);
            out = &mut out[n..];
        }
        Some(())
    }

    /// Writes all of `bytes`; `None` when there is no room.
    #[inline]
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let slice = self.next(bytes.len())?;
            slice.copy_from(bytes);
            bytes = &bytes[slice.len()..];
        }
        Some(())
    }
}
