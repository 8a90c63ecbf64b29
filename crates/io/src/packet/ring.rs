//! A TPACKET_V2 receive ring: slots in memory shared with the kernel.
//!
//! The status word of a slot says who owns the rest of it; it is read with acquire and written with release
//! order. Slots are an odd number of cache lines apart, so their headers do not share one set of the cache.

use std::io;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use libc::tpacket2_hdr;

use super::socket::Socket;

/// Bytes of a slot: 31 cache lines; a frame of MTU 1500 with tags fits beside the header.
pub(super) const SLOT: usize = 31 * 64;
/// Bytes of a block, which the kernel takes as contiguous pages.
const BLOCK: usize = 64 << 10;
const SLOTS_PER_BLOCK: usize = BLOCK / SLOT;
/// Cache lines of a slot's header (with addresses, some 80 bytes) and of a frame of 60 bytes.
const PREFETCHED_LINES: usize = 3;
/// The ring; one thread uses it.
#[derive(Debug)]
pub(super) struct Ring {
    base: NonNull<u8>,
    blocks: usize,
}

// SAFETY: the mapping belongs to the ring alone, on whatever thread that is.
unsafe impl Send for Ring {}

impl Ring {
    /// Gives the socket a receive ring of about `slots` slots.
    pub(super) fn map(socket: &Socket, slots: usize) -> io::Result<Self> {
        let blocks = slots.div_ceil(SLOTS_PER_BLOCK);
        socket.set(libc::PACKET_VERSION, libc::tpacket_versions::TPACKET_V2 as libc::c_int)?;
        let request = libc::tpacket_req {
            tp_block_size: BLOCK as u32,
            tp_block_nr: blocks as u32,
            tp_frame_size: SLOT as u32,
            tp_frame_nr: (blocks * SLOTS_PER_BLOCK) as u32,
        };
        socket.set(libc::PACKET_RX_RING, request)?;
        Self::mmap(blocks, libc::MAP_SHARED, socket.raw())
    }

    /// A ring over plain memory, for tests that play the kernel.
    #[cfg(test)]
    pub(super) fn anonymous(slots: usize) -> io::Result<Self> {
        Self::mmap(slots.div_ceil(SLOTS_PER_BLOCK), libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)
    }

    fn mmap(blocks: usize, flags: libc::c_int, fd: libc::c_int) -> io::Result<Self> {
        // SAFETY: a new mapping touches no existing memory.
        let base = unsafe {
            libc::mmap(ptr::null_mut(), blocks * BLOCK, libc::PROT_READ | libc::PROT_WRITE, flags, fd, 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, blocks })
    }

    pub(super) const fn slots(&self) -> usize {
        self.blocks * SLOTS_PER_BLOCK
    }

    /// The slot after `index`, in a circle.
    pub(super) const fn after(&self, index: usize) -> usize {
        if index + 1 >= self.slots() { 0 } else { index + 1 }
    }

    /// Slot `index`, counted in a circle.
    pub(super) fn slot(&self, index: usize) -> Slot<'_> {
        let index = if index < self.slots() { index } else { index % self.slots() };
        let offset = index / SLOTS_PER_BLOCK * BLOCK + index % SLOTS_PER_BLOCK * SLOT;
        // SAFETY: the offset lies within the mapping.
        Slot { base: unsafe { self.base.add(offset) }, ring: PhantomData }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped by `mmap` with this length; slots borrow the ring.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.blocks * BLOCK) };
    }
}

/// One slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot<'a> {
    base: NonNull<u8>,
    ring: PhantomData<&'a Ring>,
}

impl Slot<'_> {
    fn status_word(&self) -> &AtomicU32 {
        // SAFETY: the slot begins with its status (linux/if_packet.h), aligned to a cache line.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().cast()) }
    }

    /// Who owns the slot, and what is known of its frame.
    pub(super) fn status(&self) -> u32 {
        self.status_word().load(Ordering::Acquire)
    }

    /// Hands the slot over.
    pub(super) fn set_status(&self, status: u32) {
        self.status_word().store(status, Ordering::Release);
    }

    /// Asks for the slot's header and a short frame's bytes, which the kernel wrote on another CPU: to wait for each
    /// cache line when it is needed takes a good part of the time that a frame may take.
    pub(super) fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        for line in 0..PREFETCHED_LINES {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a hint, which reads nothing; the line lies in the slot.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.base.add(line * 64).as_ptr().cast()) };
        }
    }

    /// The header. Meaningful while the slot is ours.
    pub(super) fn header(&self) -> tpacket2_hdr {
        // SAFETY: the header lies in the slot, is aligned, and all its bits are valid.
        unsafe { self.base.cast::<tpacket2_hdr>().read_volatile() }
    }

    /// Bytes of the slot; `None` when they do not lie within it.
    pub(super) fn bytes(&self, start: usize, len: usize) -> Option<&[u8]> {
        let end = start.checked_add(len)?;
        // SAFETY: the range lies in the slot, which the kernel does not write while it is ours.
        (end <= SLOT).then(|| unsafe { std::slice::from_raw_parts(self.base.add(start).as_ptr(), len) })
    }

    /// Plays the kernel: writes a header.
    #[cfg(test)]
    pub(super) fn set_header(&self, header: tpacket2_hdr) {
        // SAFETY: the header lies in the slot and is aligned.
        unsafe { self.base.cast::<tpacket2_hdr>().write(header) };
    }

    /// Plays the kernel: writes bytes.
    #[cfg(test)]
    pub(super) fn write(&self, start: usize, bytes: &[u8]) {
        assert!(start + bytes.len() <= SLOT);
        // SAFETY: the range lies in the slot, and the bytes elsewhere.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(start).as_ptr(), bytes.len()) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn slots_are_apart_and_inside() {
        let ring = Ring::anonymous(100).unwrap();
        assert!(ring.slots() >= 100);
        let starts: Vec<usize> = (0..ring.slots()).map(|i| ring.slot(i).base.as_ptr() as usize).collect();
        let first = ring.base.as_ptr() as usize;
        assert!(starts.windows(2).all(|w| w[1] - w[0] >= SLOT));
        assert!(starts.iter().all(|start| start % 64 == 0 && start - first + SLOT <= ring.blocks * BLOCK));
        assert_eq!((ring.after(0), ring.after(ring.slots() - 1)), (1, 0));
        assert_eq!(ring.slot(ring.slots()).base, ring.slot(0).base);
    }

    #[test]
    fn reads_stay_inside_the_slot() {
        let ring = Ring::anonymous(2).unwrap();
        ring.slot(0).write(SLOT - 10, &[2; 10]);
        assert_eq!(ring.slot(0).bytes(SLOT - 10, 10), Some(&[2; 10][..]));
        assert_eq!(ring.slot(0).bytes(SLOT, 0), Some(&[][..]));
        assert_eq!(ring.slot(0).bytes(SLOT - 1, 2), None);
        assert_eq!(ring.slot(0).bytes(usize::MAX, 2), None);
        assert_eq!(ring.slot(1).bytes(0, 4), Some(&[0; 4][..]));
        ring.slot(0).set_status(7);
        assert_eq!(ring.slot(0).status(), 7);
    }
}
