//! bpf(2): one map, one program, one link, each an owned fd.
//!
//! The kernel takes a union that it knows the size of by an argument; each command here has its own struct with
//! the union's leading fields, and what is not given counts as zero (`bpf_check_uarg_tail_zero`). The structs
//! have no padding, since the kernel refuses stray bytes.

use std::ffi::{CStr, c_long};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::program::Insn;

const BPF_MAP_CREATE: c_long = 0;
const BPF_MAP_UPDATE_ELEM: c_long = 2;
const BPF_PROG_LOAD: c_long = 5;
const BPF_LINK_CREATE: c_long = 28;

const BPF_MAP_TYPE_XSKMAP: u32 = 17;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37; // attach type

const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// The program takes frames of several buffers.
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
/// The program is loaded for one device, so that it may call the device's metadata kfuncs.
const BPF_F_XDP_DEV_BOUND_ONLY: u32 = 1 << 6;

/// Kfuncs may be called by GPL-compatible programs only; this project is `MIT OR Apache-2.0`, and the
/// few instructions are offered under the kernel's own dual licence.
const LICENCE: &CStr = c"Dual MIT/GPL";
/// Enough for the verifier to explain a few dozen instructions.
const LOG_BYTES: usize = 64 << 10;

/// Where the driver runs the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// In the driver, before an skb is made.
    Native,
    /// In the stack, after it; any device.
    Generic,
}

impl Mode {
    const fn flags(self) -> u32 {
        match self {
            Self::Native => XDP_FLAGS_DRV_MODE,
            Self::Generic => XDP_FLAGS_SKB_MODE,
        }
    }
}

/// A refused program: the system's error, and what the verifier said.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused the XDP program{}{}", if log.is_empty() { "" } else { ": " }, log.trim())]
pub struct LoadError {
    /// The verifier's log, or nothing where the program did not come as far.
    pub log: String,
    /// What bpf(2) said.
    #[source]
    pub source: io::Error,
}

#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    _zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// A map from rx queue to AF_XDP socket.
pub(super) fn create_xskmap(entries: u32) -> io::Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type: BPF_MAP_TYPE_XSKMAP,
        key_size: 4,
        value_size: 4,
        max_entries: entries,
        map_name: *b"vswitch_xsks\0\0\0\0",
        ..MapCreate::default()
    };
    bpf_fd(BPF_MAP_CREATE, &mut attr)
}

/// Frames of `queue` go to `socket` from now on.
pub(super) fn set_xsk(map: BorrowedFd<'_>, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    let value = socket.as_raw_fd();
    let mut attr = MapUpdate {
        map_fd: map.as_raw_fd() as u32,
        _zero: 0,
        key: (&raw const queue).expose_provenance() as u64,
        value: (&raw const value).expose_provenance() as u64,
        flags: 0,
    };
    // SAFETY: key and value are four bytes, as the map says, and outlive the call.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

/// Loads a program, for one device alone where `bound_to` names its index. What it refuses, it refuses twice:
/// the second time for the verifier's words.
pub(super) fn load(insns: &[Insn], bound_to: Option<u32>) -> Result<OwnedFd, LoadError> {
    load_once(insns, bound_to, &mut []).or_else(|_| {
        let mut log = vec![0; LOG_BYTES];
        load_once(insns, bound_to, &mut log).map_err(|source| {
            let text = log.split(|&b| b == 0).next().unwrap_or_default();
            LoadError { log: String::from_utf8_lossy(text).into_owned(), source }
        })
    })
}

fn load_once(insns: &[Insn], bound_to: Option<u32>, log: &mut [u8]) -> io::Result<OwnedFd> {
    let dev_bound = if bound_to.is_some() { BPF_F_XDP_DEV_BOUND_ONLY } else { 0 };
    let mut attr = ProgLoad {
        prog_type: BPF_PROG_TYPE_XDP,
        insn_cnt: insns.len() as u32,
        insns: insns.as_ptr().expose_provenance() as u64,
        license: LICENCE.as_ptr().expose_provenance() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log_buf: if log.is_empty() { 0 } else { log.as_mut_ptr().expose_provenance() as u64 },
        kern_version: 0,
        prog_flags: BPF_F_XDP_HAS_FRAGS | dev_bound,
        prog_name: *b"vswitch\0\0\0\0\0\0\0\0\0",
        prog_ifindex: bound_to.unwrap_or(0),
        expected_attach_type: BPF_XDP,
    };
    bpf_fd(BPF_PROG_LOAD, &mut attr)
}

/// Attaches a program to a device for as long as the fd lives: it goes with the process, however that ends.
pub(super) fn attach(program: BorrowedFd<'_>, ifindex: u32, mode: Mode) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: ifindex,
        attach_type: BPF_XDP,
        flags: mode.flags(),
    };
    bpf_fd(BPF_LINK_CREATE, &mut attr)
}

/// Commands that answer with a new fd, and whose pointers (if any) were taken from live references.
fn bpf_fd<T>(command: c_long, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: each caller's pointers and lengths come from slices that it borrows over the call.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the kernel just made it (close-on-exec, as all of bpf's), and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// # Safety
/// Pointers inside `attr` are valid for what the command reads and writes.
unsafe fn bpf<T>(command: c_long, attr: &mut T) -> io::Result<c_long> {
    // SAFETY: `attr` is live and as long as it is said to be.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
