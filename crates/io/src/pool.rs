//! The frame pool: one mapped area, two classes of frames, owned handles.
//!
//! *Wire* frames are one UMEM chunk (4 KiB) and lie first in the area, contiguous and page-aligned, since every
//! AF_XDP socket registers that part; *large* frames hold a GSO packet (64 KiB). A [`Frame`] owns its chunk by
//! type: it is not `Copy`, and dropping it returns the chunk. Threads keep a [`PoolCache`] and trade with the
//! shared lists in bulk, one lock for many frames; the lock is never held across a system call.
//!
//! Headers at a stride that is a multiple of 4 KiB all fall into one set of the L1 cache. So the starts of wire
//! frames differ by whole cache lines (their *colour*), and large frames lie an odd number of lines apart.
//!
//! Invariant, checked by tests: frames in the pool + in caches + in rings + in flight = total.

use std::fmt;
use std::io;
use std::mem;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vswitch_wire::FrameBuf;

mod area;
mod frame;
mod vec;

pub use frame::Frame;
pub(crate) use frame::Span;
pub use vec::FrameVec;

use area::Area;

/// Bytes before a received frame: an outer Ethernet/VLAN/IPv6/UDP/VXLAN header and a vnet header fit in.
pub const HEADROOM: usize = 128;
/// Bytes of a UMEM chunk.
pub const CHUNK: usize = 4096;

/// Bytes of a cache line.
const LINE: usize = 64;
/// Different starts of wire frames, one line apart.
const COLOURS: u32 = 16;
/// Bytes that any acquired wire frame has room for, whatever its colour.
pub const WIRE_CAPACITY: usize = CHUNK - HEADROOM - (COLOURS as usize - 1) * LINE;
/// Bytes that a large frame has room for: 65535 of IP, Ethernet and tags.
pub const LARGE_CAPACITY: usize = 1027 * LINE;
/// Bytes from one large frame to the next: an odd number of lines.
const LARGE_STRIDE: usize = HEADROOM + LARGE_CAPACITY;
const _: () = assert!((LARGE_STRIDE / LINE) % 2 == 1 && LARGE_STRIDE.is_multiple_of(LINE));

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

impl FrameClass {
    /// How many chunks a cache trades at a time.
    const fn bulk(self) -> usize {
        match self {
            Self::Wire => 128,
            Self::Large => 16,
        }
    }
}

/// The area and its free lists; lives as long as the process.
pub struct Pool {
    area: Area,
    /// Chunks below this number are wire frames, the others large ones.
    wire: u32,
    large: u32,
    free: [Mutex<Vec<u32>>; 2],
}

impl Pool {
    /// Maps the area (hugepages where the host has them). It is never unmapped: the kernel may write to it as
    /// long as any AF_XDP socket lives.
    ///
    /// # Errors
    /// What mmap said.
    pub fn new(config: PoolConfig) -> io::Result<&'static Self> {
        let PoolConfig { wire, large } = config;
        let total = wire.checked_add(large).ok_or(io::ErrorKind::InvalidInput)?;
        let area = Area::map(wire as usize * CHUNK + large as usize * LARGE_STRIDE)?;
        // Reversed, since lists give their last: low chunks first, which keeps a small load in few pages.
        let free = [(0..wire).rev().collect(), (wire..total).rev().collect()].map(Mutex::new);
        Ok(Box::leak(Box::new(Self { area, wire, large, free })))
    }

    /// Free frames of a class, in the pool itself (not in caches).
    pub fn free(&self, class: FrameClass) -> usize {
        self.list(class).len()
    }

    /// All frames of a class, free or not.
    pub const fn total(&self, class: FrameClass) -> usize {
        match class {
            FrameClass::Wire => self.wire as usize,
            FrameClass::Large => self.large as usize,
        }
    }

    /// A cache for the calling thread.
    pub fn cache(&'static self) -> PoolCache {
        let stock = [FrameClass::Wire, FrameClass::Large].map(|class| Vec::with_capacity(2 * class.bulk()));
        PoolCache { pool: self, stock }
    }

    /// The part of the area that holds the wire frames: page-aligned, chunk `n` at `n` * [`CHUNK`].
    pub(crate) fn wire_area(&self) -> (NonNull<u8>, usize) {
        (self.area.base(), self.wire as usize * CHUNK)
    }

    fn list(&self, class: FrameClass) -> MutexGuard<'_, Vec<u32>> {
        // The lists are whole at every point where a thread could panic.
        self.free[class as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    const fn class(&self, chunk: u32) -> FrameClass {
        if chunk < self.wire { FrameClass::Wire } else { FrameClass::Large }
    }

    /// Bytes of a chunk's buffer, headroom and all.
    const fn buffer_len(class: FrameClass) -> usize {
        match class {
            FrameClass::Wire => CHUNK,
            FrameClass::Large => LARGE_STRIDE,
        }
    }

    /// Where the chunk's buffer begins.
    fn buffer(&self, chunk: u32) -> NonNull<u8> {
        debug_assert!(chunk < self.wire + self.large);
        let offset = match self.class(chunk) {
            FrameClass::Wire => chunk as usize * CHUNK,
            FrameClass::Large => self.wire as usize * CHUNK + (chunk - self.wire) as usize * LARGE_STRIDE,
        };
        // SAFETY: chunk numbers come from the free lists or were checked by `frame_from`; all lie in the area.
        unsafe { self.area.base().add(offset) }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("wire", &self.wire).field("large", &self.large).finish_non_exhaustive()
    }
}

/// One thread's stock of free frames; trades with the pool in bulk, gives everything back when dropped.
#[derive(Debug)]
pub struct PoolCache {
    pool: &'static Pool,
    stock: [Vec<u32>; 2],
}

impl PoolCache {
    /// The pool it trades with.
    pub const fn pool(&self) -> &'static Pool {
        self.pool
    }

    /// A free frame, empty, its start at [`HEADROOM`] or later, with room for [`WIRE_CAPACITY`] or
    /// [`LARGE_CAPACITY`] bytes at least; `None` when the pool is empty.
    #[inline]
    pub fn acquire(&mut self, class: FrameClass) -> Option<Frame> {
        let chunk = match self.stock[class as usize].pop() {
            Some(chunk) => chunk,
            None => self.restock(class)?,
        };
        let colour = match class {
            FrameClass::Wire => (chunk % COLOURS) * LINE as u32,
            FrameClass::Large => 0,
        };
        let span = Span { chunk, start: HEADROOM as u32 + colour, len: 0 };
        // SAFETY: the chunk was on a free list, so nobody else owns it; the span lies in its buffer.
        Some(unsafe { Frame::own(self.pool, span) })
    }

    /// Takes as many chunks as are traded at a time, and gives one of them.
    #[cold]
    fn restock(&mut self, class: FrameClass) -> Option<u32> {
        let stock = &mut self.stock[class as usize];
        let mut list = self.pool.list(class);
        let kept = list.len().saturating_sub(class.bulk());
        stock.extend(list.drain(kept..));
        stock.pop()
    }

    /// A free frame that has room for `len` bytes: a wire frame where they fit. `None` when the pool is empty,
    /// or no frame is as large.
    #[inline]
    pub fn acquire_for(&mut self, len: usize) -> Option<Frame> {
        let class = if len <= CHUNK - HEADROOM { FrameClass::Wire } else { FrameClass::Large };
        let mut frame = self.acquire(class)?;
        frame.make_room(len);
        (len <= frame.capacity()).then_some(frame)
    }

    /// Gives a frame back.
    #[inline]
    pub fn release(&mut self, frame: Frame) {
        if !std::ptr::eq(frame.pool(), self.pool) {
            return; // of another pool: dropped, it finds its way home
        }
        let class = frame.class();
        let chunk = frame.into_chunk().chunk;
        let stock = &mut self.stock[class as usize];
        if stock.len() < 2 * class.bulk() {
            stock.push(chunk);
        } else {
            self.unload(class, chunk);
        }
    }

    /// Gives the older half back: what was released last is still in this core's cache.
    #[cold]
    fn unload(&mut self, class: FrameClass, chunk: u32) {
        let stock = &mut self.stock[class as usize];
        self.pool.list(class).extend(stock.drain(..class.bulk()));
        stock.push(chunk);
    }

    /// A copy of bytes and metadata, in a wire frame where it fits.
    pub fn copy(&mut self, frame: &Frame) -> Option<Frame> {
        let bytes = frame.bytes();
        let mut copy = self.acquire_for(bytes.len())?;
        copy.set_len(bytes.len());
        copy.bytes_mut().copy_from_slice(bytes);
        *copy.meta_mut() = *frame.meta();
        Some(copy)
    }
}

impl Drop for PoolCache {
    fn drop(&mut self) {
        for class in [FrameClass::Wire, FrameClass::Large] {
            self.pool.list(class).append(&mut mem::take(&mut self.stock[class as usize]));
        }
    }
}

#[cfg(test)]
mod tests;
