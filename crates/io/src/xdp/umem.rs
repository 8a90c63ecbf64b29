//! The pool's wire frames as UMEM, and which of its chunks the kernel holds for a socket.
//!
//! Every socket registers the same memory for itself (no XDP_SHARED_UMEM): a frame still crosses ports by its
//! address alone, and every port keeps its own mode and flags. Chunks are aligned, so the kernel puts a frame at
//! its own headroom of 256 bytes into the chunk, which covers [`HEADROOM`].
//!
//! A chunk that a ring gives back is taken only when it was lent: so nothing that the rings say, true or not,
//! makes two owners of a chunk. And when the socket is closed, the rest of the set is what is to be reclaimed:
//! chunks in rings never come out by themselves.

use std::io;
use std::os::fd::BorrowedFd;

use crate::pool::{CHUNK, Frame, FrameClass, HEADROOM, Pool, Span};

use super::socket::set_option;

/// Bytes that the kernel leaves before a received frame (linux/bpf.h).
const XDP_PACKET_HEADROOM: usize = 256;
const _: () = assert!(XDP_PACKET_HEADROOM >= HEADROOM);
/// Bytes that drivers keep at a buffer's end for `struct skb_shared_info`, or more than they keep.
const DRIVER_TAILROOM: usize = 320;
/// Bytes of a frame that surely fits into one chunk.
pub(super) const SINGLE_BUFFER: usize = CHUNK - XDP_PACKET_HEADROOM - DRIVER_TAILROOM;

/// Registers the pool's wire frames with a socket, pinning their pages for as long as it lives.
pub(super) fn register(socket: BorrowedFd<'_>, pool: &'static Pool) -> io::Result<()> {
    let (base, len) = pool.wire_area();
    let umem = libc::xdp_umem_reg {
        addr: base.as_ptr().expose_provenance() as u64,
        len: len as u64,
        chunk_size: CHUNK as u32,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set_option(socket, libc::SOL_XDP, libc::XDP_UMEM_REG, &umem)
}

/// A set of chunks of the pool's wire area.
pub(super) struct Lent {
    pool: &'static Pool,
    words: Vec<u64>,
    count: u32,
}

impl Lent {
    /// None yet.
    pub(super) fn new(pool: &'static Pool) -> Self {
        Self { pool, words: vec![0; pool.total(FrameClass::Wire).div_ceil(64)], count: 0 }
    }

    /// Whose chunks they are.
    pub(super) const fn pool(&self) -> &'static Pool {
        self.pool
    }

    /// How many the kernel has.
    pub(super) const fn len(&self) -> u32 {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Gives a frame to the kernel; `Err` for one that has no place in the UMEM: it is not of this pool's wire frames.
    pub(super) fn lend(&mut self, frame: Frame) -> Result<Span, Frame> {
        if frame.class() != FrameClass::Wire || !std::ptr::eq(frame.pool(), self.pool) {
            return Err(frame);
        }
        let span = frame.into_chunk();
        // In range: it is a wire chunk of our pool.
        self.words[span.chunk as usize / 64] |= 1 << (span.chunk % 64);
        self.count += 1;
        Ok(span)
    }

    /// Takes back what a ring gave: `len` bytes at a UMEM address. `None` if the chunk was not lent, or the bytes
    /// do not lie in it (the chunk stays lent then).
    pub(super) fn take_back(&mut self, address: u64, len: u32) -> Option<Frame> {
        let chunk = u32::try_from(address / CHUNK as u64).ok()?;
        let (word, bit) = (self.words.get_mut(chunk as usize / 64)?, 1 << (chunk % 64));
        if *word & bit == 0 {
            return None;
        }
        let span = Span { chunk, start: (address % CHUNK as u64) as u32, len };
        // SAFETY: the bit says that the chunk came from `into_chunk` and was taken back by nobody since.
        let frame = unsafe { Frame::from_chunk(self.pool, span) }?;
        *word &= !bit;
        self.count -= 1;
        Some(frame)
    }

    /// Takes everything back to the pool. The kernel must have let go of it: the socket is closed and torn down.
    pub(super) fn reclaim(&mut self) {
        for chunk in 0..self.words.len() as u64 * 64 {
            drop(self.take_back(chunk * CHUNK as u64 + HEADROOM as u64, 0));
        }
    }
}

/// The UMEM address of a lent frame.
pub(super) fn address(span: Span) -> u64 {
    u64::from(span.chunk) * CHUNK as u64 + u64::from(span.start)
}

#[cfg(test)]
mod tests {
    use vswitch_wire::FrameBuf;

    use super::*;
    use crate::pool::PoolConfig;

    #[test]
    fn a_chunk_comes_back_once_and_whole() {
        let pool = Pool::new(PoolConfig { wire: 70, large: 1 }).unwrap();
        let mut cache = pool.cache();
        let mut lent = Lent::new(pool);
        let mut frame = cache.acquire(FrameClass::Wire).unwrap();
        frame.set_len(5);
        frame.bytes_mut().copy_from_slice(b"hello");
        let at = address(lent.lend(frame).unwrap());
        assert!(lent.take_back(at, CHUNK as u32).is_none(), "past the chunk's end");
        for other in [at + CHUNK as u64, 70 * CHUNK as u64, 128 * CHUNK as u64, u64::MAX] {
            assert!(lent.take_back(other, 5).is_none(), "{other}: not lent");
        }
        assert_eq!(lent.take_back(at, 5).unwrap().bytes(), b"hello");
        assert!(lent.is_empty() && lent.take_back(at, 5).is_none(), "twice");
        drop(cache);
        assert_eq!(pool.free(FrameClass::Wire), 70);
    }

    #[test]
    fn only_wire_frames_of_the_pool_are_lent_and_all_are_reclaimed() {
        let pool = Pool::new(PoolConfig { wire: 70, large: 1 }).unwrap();
        let other = Pool::new(PoolConfig { wire: 1, large: 0 }).unwrap();
        let mut lent = Lent::new(pool);
        assert!(lent.lend(pool.cache().acquire(FrameClass::Large).unwrap()).is_err());
        assert!(lent.lend(other.cache().acquire(FrameClass::Wire).unwrap()).is_err());
        let mut cache = pool.cache();
        while let Some(frame) = cache.acquire(FrameClass::Wire) {
            lent.lend(frame).unwrap();
        }
        assert_eq!((pool.free(FrameClass::Wire), lent.count), (0, 70));
        lent.reclaim();
        assert_eq!(
            (pool.free(FrameClass::Wire), pool.free(FrameClass::Large), other.free(FrameClass::Wire)),
            (70, 1, 1)
        );
    }
}
