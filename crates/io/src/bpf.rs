//! bpf(2): loading a program and attaching it by a link.
//!
//! Programs are a handful of instructions written in Rust, so nothing but Rust is needed to build. They are
//! attached by a bpf_link alone: the kernel detaches it when the last fd closes, in whatever way the process ends.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One instruction (RFC 9669 section 3): opcode, source and destination register, offset, immediate.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Insn {
    pub(crate) opcode: u8,
    /// Source in the high, destination in the low four bits.
    pub(crate) registers: u8,
    pub(crate) offset: i16,
    pub(crate) immediate: i32,
}

impl Insn {
    /// `dst = immediate` (RFC 9669 section 4.1: ALU64, MOV, K).
    pub(crate) const fn mov(dst: u8, immediate: i32) -> Self {
        Self { opcode: 0xb7, registers: dst, offset: 0, immediate }
    }

    /// Returns r0 (RFC 9669 section 4.3).
    pub(crate) const fn exit() -> Self {
        Self { opcode: 0x95, registers: 0, offset: 0, immediate: 0 }
    }
}

/// `BPF_PROG_TYPE_SCHED_CLS` of linux/bpf.h.
pub(crate) const PROG_TYPE_SCHED_CLS: u32 = 3;
/// `BPF_TCX_INGRESS` of linux/bpf.h (kernel 6.6).
pub(crate) const ATTACH_TCX_INGRESS: u32 = 46;

/// A program to be loaded.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    /// One of the `PROG_TYPE_*`.
    pub(crate) kind: u32,
    /// Its instructions.
    pub(crate) insns: &'a [Insn],
    /// `BPF_F_*` flags.
    pub(crate) flags: u32,
    /// The netdev that it is bound to; 0 for none.
    pub(crate) ifindex: u32,
    /// One of the `ATTACH_*`, where the kind asks for it; 0 otherwise.
    pub(crate) attach: u32,
}

/// The kernel refused a program.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refused the BPF program: {log}")]
pub(crate) struct LoadError {
    /// What the verifier said.
    pub(crate) log: String,
    #[source]
    pub(crate) source: io::Error,
}

const CMD_PROG_LOAD: libc::c_int = 5;
const CMD_LINK_CREATE: libc::c_int = 28;
/// Functions of the kernel that only GPL-compatible programs may call are called by some of ours.
const LICENSE: &CStr = c"Dual MIT/GPL";

#[repr(C)]
#[derive(Default)]
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
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    pad: u32,
    expected_revision: u64,
}

/// One bpf(2) call with the first bytes of `union bpf_attr`; the kernel takes the rest as zero.
///
/// # Safety
/// `attr` is what `cmd` expects, and its addresses are good for the call.
pub(crate) unsafe fn call<A>(cmd: libc::c_int, attr: &mut A) -> io::Result<i32> {
    // SAFETY: the pointer and size are those of `attr`; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, cmd, std::ptr::from_mut(attr), size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Loads a program.
///
/// # Errors
/// [`LoadError`], with the verifier's words.
pub(crate) fn load(program: &Program<'_>) -> Result<OwnedFd, LoadError> {
    let mut attr = ProgLoad {
        prog_type: program.kind,
        insn_cnt: program.insns.len() as u32,
        insns: program.insns.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        prog_flags: program.flags,
        prog_ifindex: program.ifindex,
        expected_attach_type: program.attach,
        ..ProgLoad::default()
    };
    attr.prog_name[..7].copy_from_slice(b"vswitch");
    // SAFETY: instructions and licence outlive the call.
    let source = match unsafe { call(CMD_PROG_LOAD, &mut attr) } {
        // SAFETY: a new fd that nobody else owns.
        Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        Err(e) => e,
    };
    // Once more for the verifier's log alone.
    let mut log = vec![0_u8; 64 << 10];
    (attr.log_level, attr.log_size, attr.log_buf) = (1, log.len() as u32, log.as_mut_ptr() as u64);
    // SAFETY: as above, and the log outlives the call.
    if let Ok(fd) = unsafe { call(CMD_PROG_LOAD, &mut attr) } {
        // SAFETY: a new fd that nobody else owns.
        return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    let text = CStr::from_bytes_until_nul(&log).map(|c| c.to_string_lossy().trim().to_owned());
    Err(LoadError { log: text.unwrap_or_default(), source })
}

/// Attaches a program to a netdev for as long as the link's fd is open.
///
/// # Errors
/// What the kernel said.
pub(crate) fn link(program: BorrowedFd<'_>, ifindex: u32, attach: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: ifindex,
        attach_type: attach,
        flags,
        ..LinkCreate::default()
    };
    // SAFETY: the attribute holds no address.
    let fd = unsafe { call(CMD_LINK_CREATE, &mut attr) }?;
    // SAFETY: a new fd that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
