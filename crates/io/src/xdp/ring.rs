//! The four rings of an AF_XDP socket, each with the rights that its type allows.
//!
//! | ring | entry | we | the kernel |
//! |---|---|---|---|
//! | [`Fill`] | chunk | produce: empty chunks to receive into | consumes |
//! | [`Rx`] | descriptor | consume: received frames | produces |
//! | [`Tx`] | descriptor | produce: frames to send | consumes |
//! | [`Completion`] | chunk | consume: chunks whose sending has ended | produces |
//!
//! A ring is single-producer and single-consumer: two indices that only grow (and wrap at 2^32), each written by
//! one side. Entries are written before the index is stored with release, and read after it was loaded with
//! acquire. The other side's index is checked: one that would put more entries into the ring than it has is
//! taken as no news.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{xdp_desc, xdp_ring_offset};

/// Empty chunks for the kernel to receive into, by UMEM address.
pub(super) type Fill = Producer<u64>;
/// Received frames.
pub(super) type Rx = Consumer<xdp_desc>;
/// Frames to send.
pub(super) type Tx = Producer<xdp_desc>;
/// Chunks whose sending has ended, by UMEM address.
pub(super) type Completion = Consumer<u64>;

/// The ring's memory, shared with the kernel.
struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    _mapping: Mapping,
}

// SAFETY: the pointers go into the mapping that the ring owns; entries are plain numbers.
unsafe impl<T: Copy + Send> Send for Ring<T> {}

/// The end that writes entries.
pub(super) struct Producer<T> {
    ring: Ring<T>,
    /// Where the next entry goes; what lies between the shared index and this is not published yet.
    next: u32,
    /// The consumer's index when it was last looked at.
    consumed: u32,
}

/// The end that reads entries.
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    /// Where the next entry comes from; what lies between the shared index and this is not released yet.
    next: u32,
    /// The producer's index when it was last looked at.
    produced: u32,
}

impl<T: Copy> Ring<T> {
    /// `size` is a power of two; `offsets` are the kernel's, into the memory at `page_offset` of `fd`.
    fn map(
        fd: BorrowedFd<'_>,
        page_offset: libc::off_t,
        offsets: &xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        debug_assert!(size.is_power_of_two());
        let end =
            (size as usize).checked_mul(size_of::<T>()).and_then(|n| n.checked_add(offsets.desc as usize));
        let words = [offsets.producer, offsets.consumer, offsets.flags];
        let fits =
            |len: usize| words.iter().all(|&at| at.is_multiple_of(4) && at < (len as u64).saturating_sub(3));
        let len = end
            .filter(|&len| fits(len) && offsets.desc.is_multiple_of(8))
            .ok_or(io::ErrorKind::InvalidData)?;
        let mapping = Mapping::new(fd, page_offset, len)?;
        // SAFETY: every offset was seen to lie in the mapping, and to be aligned.
        unsafe {
            Ok(Self {
                producer: mapping.base.add(offsets.producer as usize).cast(),
                consumer: mapping.base.add(offsets.consumer as usize).cast(),
                flags: mapping.base.add(offsets.flags as usize).cast(),
                entries: mapping.base.add(offsets.desc as usize).cast(),
                size,
                _mapping: mapping,
            })
        }
    }

    fn entry(&self, index: u32) -> *mut T {
        // SAFETY: masked by the size, a power of two, the index lies in the ring.
        unsafe { self.entries.as_ptr().add((index & (self.size - 1)) as usize) }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: points into the mapping, which lives as long as `self`; atomics may be shared with the kernel.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.flags.as_ref() }
    }
}

impl<T: Copy> Producer<T> {
    /// Entries, empty or not.
    pub(super) const fn size(&self) -> u32 {
        self.ring.size
    }

    /// As the kernel laid it out; `size` (entries) is a power of two.
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        page_offset: libc::off_t,
        offsets: &xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        let ring = Ring::map(fd, page_offset, offsets, size)?;
        let (next, consumed) =
            (ring.producer().load(Ordering::Relaxed), ring.consumer().load(Ordering::Acquire));
        Ok(Self { ring, next, consumed })
    }

    /// Entries that may be pushed, looking at the consumer's index only when `wanted` are not known to be free.
    pub(super) fn free(&mut self, wanted: u32) -> u32 {
        let free = self.ring.size - self.next.wrapping_sub(self.consumed);
        if free >= wanted {
            return free;
        }
        self.ring.size - self.outstanding()
    }

    /// Entries, published or not, that the consumer has not taken yet.
    pub(super) fn outstanding(&mut self) -> u32 {
        let consumed = self.ring.consumer().load(Ordering::Acquire);
        if self.next.wrapping_sub(consumed) <= self.ring.size {
            self.consumed = consumed;
        }
        self.next.wrapping_sub(self.consumed)
    }

    /// Writes an entry, seen by the other side after [`Self::publish`]; false when the ring is full.
    #[must_use]
    pub(super) fn push(&mut self, entry: T) -> bool {
        if self.free(1) == 0 {
            return false;
        }
        // SAFETY: the slot lies in the ring, and the consumer does not read it before the index moves.
        unsafe { self.ring.entry(self.next).write(entry) };
        self.next = self.next.wrapping_add(1);
        true
    }

    /// Shows the other side what was pushed.
    pub(super) fn publish(&mut self) {
        self.ring.producer().store(self.next, Ordering::Release);
    }

    /// The kernel asks for a system call: it does not look by itself.
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

impl<T: Copy> Consumer<T> {
    /// As the kernel laid it out; `size` (entries) is a power of two.
    pub(super) fn map(
        fd: BorrowedFd<'_>,
        page_offset: libc::off_t,
        offsets: &xdp_ring_offset,
        size: u32,
    ) -> io::Result<Self> {
        let ring = Ring::map(fd, page_offset, offsets, size)?;
        let next = ring.consumer().load(Ordering::Relaxed);
        Ok(Self { ring, next, produced: next })
    }

    /// Entries to be read; looks at the producer's index only when none was left from the last look.
    pub(super) fn available(&mut self) -> u32 {
        if self.produced == self.next {
            let produced = self.ring.producer().load(Ordering::Acquire);
            if produced.wrapping_sub(self.next) <= self.ring.size {
                self.produced = produced;
            }
        }
        self.produced.wrapping_sub(self.next)
    }

    /// Reads an entry; its slot is free again after [`Self::release`].
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.available() == 0 {
            return None;
        }
        // SAFETY: the slot lies in the ring, and the producer does not write to it before our index moves.
        let entry = unsafe { self.ring.entry(self.next).read() };
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Gives the slots of what was popped back.
    pub(super) fn release(&mut self) {
        self.ring.consumer().store(self.next, Ordering::Release);
    }
}

/// Shared memory of an fd, unmapped when dropped.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, offset: libc::off_t, len: usize) -> io::Result<Self> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: a new mapping at a place of the kernel's choice touches no existing memory.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, fd.as_raw_fd(), offset) };
        match NonNull::new(base.cast()) {
            Some(base) if base.as_ptr() != libc::MAP_FAILED.cast() => Ok(Self { base, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; the ring that owns it, and with it every pointer into it, ends now.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests;
