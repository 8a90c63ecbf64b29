//! The mapping under the pool.

use std::io;
use std::ptr::{self, NonNull};

/// Bytes of a hugepage of the default size.
const HUGEPAGE: usize = 2 << 20;

/// Anonymous memory, zeroed by the kernel, that stays mapped for the life of the process.
#[derive(Debug)]
pub(super) struct Area {
    base: NonNull<u8>,
}

// SAFETY: only an address; whoever turns it into a reference answers for exclusive access.
unsafe impl Send for Area {}
// SAFETY: as above, and nothing here changes through a shared reference.
unsafe impl Sync for Area {}

impl Area {
    /// Maps at least `len` bytes: reserved hugepages if enough are free, transparent ones otherwise.
    pub(super) fn map(len: usize) -> io::Result<Self> {
        let len = len.checked_next_multiple_of(HUGEPAGE).ok_or(io::ErrorKind::InvalidInput)?;
        if let Ok(base) = map_anonymous(len, libc::MAP_HUGETLB) {
            return Ok(Self { base });
        }
        let base = map_anonymous(len, 0)?;
        // SAFETY: the range was mapped above. A refusal only costs TLB misses.
        unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        Ok(Self { base })
    }

    /// The first byte, page-aligned.
    pub(super) const fn base(&self) -> NonNull<u8> {
        self.base
    }
}

fn map_anonymous(len: usize, flags: libc::c_int) -> io::Result<NonNull<u8>> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping touches no existing memory.
    let base = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}
