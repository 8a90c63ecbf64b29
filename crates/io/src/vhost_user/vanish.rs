//! Survives guest memory that vanishes.
//!
//! A front end shares its guest's memory as a file. If it cuts that file, or no hugepage is left when a page is
//! first touched, our next access raises SIGBUS, which would end the switch and with it every other port. So
//! mappings of guests are listed here, and a signal handler puts zeroed memory of our own in the place of one that
//! faults: the access goes on, the mapping is marked as lost, and its port alone stops.
//!
//! The list is a fixed array of atomics, since a signal handler can take no lock. A fault anywhere else goes to
//! whoever had the signal before.

use std::io;
use std::mem;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Mappings that are watched at a time, over all ports.
const LIMIT: usize = 4096;

static MAPPINGS: [Mapping; LIMIT] = [const { Mapping::new() }; LIMIT];
/// What was done with the signal before; an error when the signal cannot be taken.
static BEFORE: OnceLock<Result<libc::sigaction, i32>> = OnceLock::new();

struct Mapping {
    taken: AtomicBool,
    /// The first byte; 0 while nothing is watched.
    start: AtomicUsize,
    len: AtomicUsize,
    lost: AtomicBool,
}

impl Mapping {
    const fn new() -> Self {
        let (taken, lost) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { taken, start: AtomicUsize::new(0), len: AtomicUsize::new(0), lost }
    }

    fn holds(&self, address: usize) -> bool {
        let start = self.start.load(Ordering::Acquire);
        start != 0 && address.wrapping_sub(start) < self.len.load(Ordering::Acquire)
    }
}

/// Keeps watch over a mapping; dropped before the mapping is.
pub(super) struct Watch(&'static Mapping);

impl Watch {
    /// Watches `len` bytes from `start`.
    ///
    /// # Safety
    /// They are a mapping of a file's, whole pages of its kind, that the caller keeps until this is dropped, and no
    /// Rust reference goes into them.
    pub(super) unsafe fn new(start: *mut u8, len: usize) -> io::Result<Self> {
        if let Err(errno) = BEFORE.get_or_init(install) {
            return Err(io::Error::from_raw_os_error(*errno));
        }
        let free = |mapping: &&Mapping| !mapping.taken.swap(true, Ordering::AcqRel);
        let mapping = MAPPINGS.iter().find(free).ok_or(io::ErrorKind::QuotaExceeded)?;
        mapping.lost.store(false, Ordering::Relaxed);
        mapping.len.store(len, Ordering::Release);
        mapping.start.store(start as usize, Ordering::Release);
        Ok(Self(mapping))
    }

    /// The mapping faulted, and is zeroed memory of our own since.
    pub(super) fn is_lost(&self) -> bool {
        self.0.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.start.store(0, Ordering::Release);
        self.0.taken.store(false, Ordering::Release);
    }
}

fn install() -> Result<libc::sigaction, i32> {
    // SAFETY: all zero is a valid `sigaction`: an empty mask and the default action.
    let (mut action, mut before): (libc::sigaction, libc::sigaction) = unsafe { mem::zeroed() };
    action.sa_sigaction = on_fault as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: both are valid; the function obeys signal-safety(7).
    match unsafe { libc::sigaction(libc::SIGBUS, &raw const action, &raw mut before) } {
        0 => Ok(before),
        _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL)),
    }
}

/// Runs in the thread that faulted. Uses atomics and system calls only.
extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid `siginfo_t` with SA_SIGINFO, and SIGBUS has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    if let Some(mapping) = MAPPINGS.iter().find(|mapping| mapping.holds(address))
        && replace(mapping)
    {
        mapping.lost.store(true, Ordering::Relaxed);
        return;
    }
    // The access is repeated when this returns, and faults again: then for whoever had the signal before.
    if let Some(Ok(before)) = BEFORE.get() {
        // SAFETY: what `sigaction` gave out is valid.
        unsafe { libc::sigaction(signal, before, ptr::null_mut()) };
    } else {
        // SAFETY: plain integers.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Puts zeroed memory in the mapping's place.
fn replace(mapping: &Mapping) -> bool {
    let (start, len) = (mapping.start.load(Ordering::Acquire), mapping.len.load(Ordering::Acquire));
    let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: the thread's errno outlives the call; what was interrupted may be about to read it.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: replaces a mapping that `Watch::new` was promised to be whole and free of references.
    let result = unsafe {
        libc::mmap(start as *mut libc::c_void, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    result != libc::MAP_FAILED
}
