//! A link whose stack lives in a VLAN, without the kernel's 8021q module.
//!
//! Two tcx programs of a few instructions do what a VLAN device does: one puts the tag beside each frame that leaves
//! (as an offload, exactly as 8021q does it: the bytes stay untagged, GSO frames stay whole), one takes it off
//! each that comes in, and drops those of other VLANs.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use crate::{Error, Namespace, Result};

/// Keeps a link in its VLAN; the link is a plain one again when this is dropped.
#[derive(Debug)]
pub struct TaggedLink {
    _programs: [Attached; 2],
}

/// A program on a link. It goes when this is dropped, at once: closing the descriptor would not do, which a child
/// that was just forked holds too until it runs its own program.
#[derive(Debug)]
struct Attached(OwnedFd);

impl Drop for Attached {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        let mut link = self.0.as_raw_fd() as u32;
        // SAFETY: the attribute holds no address. A refusal (the link has gone) leaves it to the closing of the
        // descriptor.
        let _ = unsafe { bpf(LINK_DETACH, &mut link) };
    }
}

impl Namespace {
    /// Puts everything that the link carries into the VLAN `vid`, 1 to 4094, by 802.1Q tags.
    pub fn tag_link(&self, link: &str, vid: u16) -> Result<TaggedLink> {
        let index = self.link(link)?.ok_or_else(|| Error::NoLink(link.to_owned()))?.index;
        let attach = || {
            let egress = attach(&push(vid), index, TCX_EGRESS)?;
            Ok(TaggedLink { _programs: [egress, attach(&pop(vid), index, TCX_INGRESS)?] })
        };
        self.enter(attach)?.map_err(Error::system(format!("put {link} into VLAN {vid}")))
    }
}

// linux/bpf.h
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const LINK_DETACH: libc::c_int = 34;
const SCHED_CLS: u32 = 3;
const TCX_INGRESS: u32 = 46;
const TCX_EGRESS: u32 = 47;
const TCX_PASS: i32 = 0;
const TCX_DROP: i32 = 2;
const SKB_VLAN_PUSH: i32 = 18;
const SKB_VLAN_POP: i32 = 19;
/// `vlan_tci` in `struct __sk_buff`.
const VLAN_TCI: i16 = 24;
const VID_MASK: i32 = 0xfff;
/// The kernel functions for VLANs are for GPL-compatible programs.
const LICENSE: &CStr = c"Dual MIT/GPL";

/// One instruction (RFC 9669 section 3).
#[repr(C)]
#[derive(Clone, Copy)]
struct Insn {
    opcode: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn insn(opcode: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Insn {
    let registers = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
    Insn { opcode, registers, offset, immediate }
}
const fn set(dst: u8, value: i32) -> Insn {
    insn(0xb7, dst, 0, 0, value)
}
const fn call(function: i32) -> Insn {
    insn(0x85, 0, 0, 0, function)
}
const EXIT: Insn = insn(0x95, 0, 0, 0, 0);

fn push(vid: u16) -> Vec<Insn> {
    let tpid = (libc::ETH_P_8021Q as u16).to_be();
    vec![set(2, i32::from(tpid)), set(3, i32::from(vid)), call(SKB_VLAN_PUSH), set(0, TCX_PASS), EXIT]
}

fn pop(vid: u16) -> Vec<Insn> {
    vec![
        insn(0x61, 2, 1, VLAN_TCI, 0),       // r2 = skb->vlan_tci
        insn(0x57, 2, 0, 0, VID_MASK),       // r2 &= mask
        insn(0x55, 2, 0, 3, i32::from(vid)), // another VLAN, or none: to the drop
        call(SKB_VLAN_POP),
        set(0, TCX_PASS),
        EXIT,
        set(0, TCX_DROP),
        EXIT,
    ]
}

/// The first fields of `union bpf_attr` for `PROG_LOAD`; the kernel takes the rest as zero.
#[repr(C)]
struct ProgLoad {
    kind: u32,
    count: u32,
    insns: u64,
    license: u64,
    log: [u32; 4],
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach: u32,
}

/// As [`ProgLoad`], for `LINK_CREATE`.
#[repr(C)]
struct LinkCreate {
    program: u32,
    ifindex: u32,
    attach: u32,
    flags: u32,
    relative: [u32; 4],
}

fn attach(insns: &[Insn], ifindex: u32, attach: u32) -> io::Result<Attached> {
    let program = load(insns, attach)?;
    link(program.as_fd(), ifindex, attach).map(Attached)
}

#[allow(unsafe_code)]
fn load(insns: &[Insn], attach: u32) -> io::Result<OwnedFd> {
    let mut attr = ProgLoad {
        kind: SCHED_CLS,
        count: insns.len() as u32,
        insns: insns.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log: [0; 4],
        kernel_version: 0,
        flags: 0,
        name: *b"vlan\0\0\0\0\0\0\0\0\0\0\0\0",
        ifindex: 0,
        attach,
    };
    // SAFETY: the instructions and the licence outlive the call.
    unsafe { bpf(PROG_LOAD, &mut attr) }.map(owned)
}

#[allow(unsafe_code)]
fn link(program: BorrowedFd<'_>, ifindex: u32, attach: u32) -> io::Result<OwnedFd> {
    let program = program.as_raw_fd() as u32;
    let mut attr = LinkCreate { program, ifindex, attach, flags: 0, relative: [0; 4] };
    // SAFETY: the attribute holds no address.
    unsafe { bpf(LINK_CREATE, &mut attr) }.map(owned)
}

/// A bpf(2) command, and its answer.
///
/// # Safety
/// `attr` is what `command` expects, and its addresses are good for the call.
#[allow(unsafe_code)]
unsafe fn bpf<A>(command: libc::c_int, attr: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: the pointer and size are those of `attr`; the rest is the caller's promise.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) };
    Ok(Errno::result(answer)?)
}

/// The descriptor that a command has answered with.
#[allow(unsafe_code)]
fn owned(answer: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just returned this descriptor, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(answer as i32) }
}
