//! A guest's memory, as its front end shared it.
//!
//! Addresses that a guest or front end names become a [`Span`]: bytes of one region, checked once. Every access
//! checks again, against the region's length, so that a span is never a promise that unsafe code rests on. The guest
//! writes to the same bytes whenever it likes; so they are read once, as volatile values or copies, and never
//! borrowed.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, fcntl};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use super::vanish::Watch;

/// Pages of a file are of this size at least, and at most of 1 GiB.
const PAGES: std::ops::RangeInclusive<u64> = 4096..=1 << 30;

/// Bytes of a line of the cache.
const CACHE_LINE: usize = 64;

/// Who writes to the buffers of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// The guest: it transmits.
    FromGuest,
    /// The switch: the guest receives.
    ToGuest,
}

/// Where a region lies (vhost-user, "Memory region description").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RegionInfo {
    /// Guest physical address of the first byte.
    pub(super) guest: u64,
    /// Bytes.
    pub(super) size: u64,
    /// Address of the first byte in the front end, by which it names rings.
    pub(super) user: u64,
    /// Offset of the first byte in the file.
    pub(super) offset: u64,
}

impl RegionInfo {
    fn overlaps(&self, other: &Self) -> bool {
        let apart = |a: u64, b: u64| a >= b.saturating_add(other.size) || b >= a.saturating_add(self.size);
        !(apart(self.guest, other.guest) && apart(self.user, other.user))
    }
}

/// Why a region cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    #[error("a memory region of {0} bytes, with addresses or offsets that overflow")]
    Overflow(u64),
    #[error("a memory region of {size} bytes that ends behind its file of {file} bytes")]
    BehindFile { size: u64, file: u64 },
    #[error("two memory regions overlap")]
    Overlap,
    #[error("a memory region's file is no memory: neither of tmpfs (memfd, /dev/shm) nor of hugetlbfs")]
    NoMemory,
    #[error("a memory region cannot be mapped: {0}")]
    Map(String),
}

/// One mapped region.
pub(super) struct Region {
    info: RegionInfo,
    /// Bytes of the mapping before the region, whose offset need not be that of a page.
    skip: usize,
    watch: Watch, // dropped before the mapping
    mapping: MmapRegion,
}

impl Region {
    /// Maps the region of `file`.
    pub(super) fn map(info: RegionInfo, file: OwnedFd) -> Result<Self, MemoryError> {
        let overflow = || MemoryError::Overflow(info.size);
        for start in [info.guest, info.user, info.offset] {
            start.checked_add(info.size).filter(|_| info.size > 0).ok_or_else(overflow)?;
        }
        // A file of FUSE, or of a network, could make whoever touches its bytes wait for ever. Those that cannot are the
        // ones that may have seals; to ask for them waits for nobody, as to ask for the file system's type may.
        fcntl(&file, FcntlArg::F_GET_SEALS).map_err(|_| MemoryError::NoMemory)?;
        let file = File::from(file);
        let failed = |e: &dyn std::fmt::Display| MemoryError::Map(e.to_string());
        let metadata = file.metadata().map_err(|e| failed(&e))?;
        if metadata.len() < info.offset + info.size {
            return Err(MemoryError::BehindFile { size: info.size, file: metadata.len() });
        }
        // Of hugetlbfs, whole pages alone can be mapped, unmapped and replaced.
        let page = metadata.blksize().clamp(*PAGES.start(), *PAGES.end()).next_power_of_two();
        let start = info.offset & !(page - 1);
        let skip = info.offset - start;
        let len = (skip + info.size).checked_next_multiple_of(page).ok_or_else(overflow)?;
        let mapping = MmapRegionBuilder::<()>::new(usize::try_from(len).map_err(|_| overflow())?)
            .with_file_offset(FileOffset::new(file, start))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE)
            .build()
            .map_err(|e| failed(&e))?;
        // SAFETY: whole pages of a file's mapping, held by the same value; it is accessed through volatile slices only.
        let watch = unsafe { Watch::new(mapping.as_ptr(), mapping.size()) };
        let watch = watch.map_err(|e: io::Error| failed(&e))?;
        Ok(Self { info, skip: skip as usize, watch, mapping })
    }

    pub(super) const fn info(&self) -> RegionInfo {
        self.info
    }
}

/// Bytes of one region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    region: u32,
    /// Bytes.
    pub(super) len: u32,
    /// Bytes from the mapping's beginning.
    offset: usize,
}

impl Span {
    /// What is left of it from byte `n` on.
    pub(super) const fn from(self, n: usize) -> Self {
        let n = if n < self.len as usize { n } else { self.len as usize };
        Self { region: self.region, len: self.len - n as u32, offset: self.offset + n }
    }

    /// Its first `n` bytes, or all.
    pub(super) const fn until(self, n: usize) -> Self {
        Self { len: if n < self.len as usize { n as u32 } else { self.len }, ..self }
    }
}

/// All regions of a guest. Never changed: a new set of regions is a new value, and each ring holds the one it works on.
#[derive(Default)]
pub(super) struct Memory {
    regions: Vec<Arc<Region>>,
}

impl Memory {
    /// Of these regions, none of which may overlap another.
    pub(super) fn new(regions: Vec<Arc<Region>>) -> Result<Self, MemoryError> {
        let overlaps = |i: usize, region: &Region| regions[..i].iter().any(|r| r.info.overlaps(&region.info));
        if regions.iter().enumerate().any(|(i, region)| overlaps(i, region)) {
            return Err(MemoryError::Overlap);
        }
        Ok(Self { regions })
    }

    pub(super) fn regions(&self) -> &[Arc<Region>] {
        &self.regions
    }

    /// A region has vanished: what is read is not what the guest wrote.
    pub(super) fn is_lost(&self) -> bool {
        self.regions.iter().any(|region| region.watch.is_lost())
    }

    /// The bytes at a guest physical address, as many of `len` as lie in the region that holds the first.
    #[inline]
    pub(super) fn at_guest(&self, address: u64, len: u32) -> Option<Span> {
        self.find(address, len, |info| info.guest)
    }

    /// The `len` bytes at an address of the front end.
    pub(super) fn at_user(&self, address: u64, len: u32) -> Option<Span> {
        self.find(address, len, |info| info.user).filter(|span| span.len == len)
    }

    #[inline]
    fn find(&self, address: u64, len: u32, start: impl Fn(&RegionInfo) -> u64) -> Option<Span> {
        for (i, region) in self.regions.iter().enumerate() {
            let offset = address.wrapping_sub(start(&region.info));
            if offset < region.info.size {
                let len = u64::from(len).min(region.info.size - offset) as u32;
                return Some(Span { region: i as u32, len, offset: region.skip + offset as usize });
            }
        }
        None
    }

    /// The bytes of a span; `None` when it is of another memory, and does not fit this one.
    #[inline]
    pub(super) fn slice(&self, span: Span) -> Option<VolatileSlice<'_>> {
        self.regions.get(span.region as usize)?.mapping.get_slice(span.offset, span.len as usize).ok()
    }

    /// Asks the cache for the beginning of a span that is to be read.
    #[inline]
    pub(super) fn prefetch(&self, span: Span) {
        #[cfg(target_arch = "x86_64")]
        if let Some(slice) = self.slice(span) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a hint, that never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(slice.ptr_guard().as_ptr().cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = span;
    }

    /// Asks the cache for the beginning of a buffer: the header of a frame, and its own headers, which are in the
    /// next line where the driver has aligned the frame. What is to be written is asked for as such: a line that
    /// the guest has too would be asked for twice otherwise, and the second time by a store that others wait behind.
    #[inline]
    pub(super) fn prefetch_buffer(&self, span: Span, direction: Direction) {
        for span in [span, span.from(CACHE_LINE)] {
            match direction {
                Direction::FromGuest => self.prefetch(span),
                Direction::ToGuest => self.prefetch_to_write(span),
            }
        }
    }

    #[inline]
    fn prefetch_to_write(&self, span: Span) {
        #[cfg(target_arch = "x86_64")]
        if let Some(slice) = self.slice(span) {
            // SAFETY: a hint, that never faults; processors without it take it for no operation. The compiler would
            // make the other hint of the intrinsic, as long as it builds for all x86-64.
            unsafe {
                std::arch::asm!(
                    "prefetchw [{}]",
                    in(reg) slice.ptr_guard().as_ptr(),
                    options(nostack, preserves_flags, readonly)
                );
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = span;
    }
}
