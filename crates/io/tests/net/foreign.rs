//! Somebody else's tcx program.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// bpf(2)'s commands, and what they are told here (linux/bpf.h).
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;
const F_BEFORE: u32 = 1 << 3;

/// What the kernel wants to know of a program. The rest may be zero.
#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    kind: u32,
    count: u32,
    insns: u64,
    license: u64,
    unused: [u32; 11],
    attach_type: u32,
}

/// Drops frames of `len` bytes that come in by a netdev of the calling thread's namespace, before all other tcx programs,
/// and leaves the others to them.
pub fn drop_frames(ifindex: u32, len: i32) -> [OwnedFd; 2] {
    const NEXT: i32 = -1; // TCX_NEXT
    const DROP: i32 = 2; // TCX_DROP
    let insn = |opcode: u8, registers: u8, offset: i16, immediate: i32| {
        let (offset, immediate) = (u64::from(offset as u16) << 16, u64::from(immediate as u32) << 32);
        u64::from(opcode) | u64::from(registers) << 8 | offset | immediate
    };
    let insns = [
        insn(0x61, 0x10, 0, 0), // r0 = skb->len
        insn(0x15, 0, 2, len),  // if r0 == len goto +2
        insn(0xb7, 0, 0, NEXT), // r0 = NEXT
        insn(0x95, 0, 0, 0),    // exit
        insn(0xb7, 0, 0, DROP), // r0 = DROP
        insn(0x95, 0, 0, 0),    // exit
    ];
    let mut load = ProgLoad {
        kind: PROG_TYPE_SCHED_CLS,
        count: insns.len() as u32,
        insns: insns.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        attach_type: TCX_INGRESS,
        ..ProgLoad::default()
    };
    let program = bpf(PROG_LOAD, &mut load);
    let mut link =
        [std::os::fd::AsRawFd::as_raw_fd(&program) as u32, ifindex, TCX_INGRESS, F_BEFORE, 0, 0, 0, 0];
    let link = bpf(LINK_CREATE, &mut link);
    [program, link]
}

fn bpf<T>(command: libc::c_long, attr: &mut T) -> OwnedFd {
    // SAFETY: the attribute is as long as said, and what it points to outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    assert!(fd >= 0, "bpf({command}): {}", io::Error::last_os_error());
    // SAFETY: a new fd that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}
