//! bpf(2): making maps ([`map`]), writing a program, loading it, attaching it by a link or running it at once.
//!
//! Programs are a handful of instructions written in Rust, so nothing but Rust is needed to build. They are
//! attached by a bpf_link alone: the kernel detaches it when the last fd closes, in whatever way the process ends.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub(crate) mod kernel;
pub(crate) mod map;

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

/// A register. r0 holds what a call returned, r1 to r5 its arguments, which it spoils; r6 to r9 survive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    /// The end of the program's stack, which grows down.
    Frame,
}

/// A condition of a jump: of two registers, or of a register and a number (both unsigned).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cond {
    Equal(Reg, Reg),
    Differ(Reg, Reg),
    Exceeds(Reg, Reg),
    Is(Reg, i32),
    NotEqual(Reg, i32),
    Less(Reg, i32),
    Greater(Reg, i32),
}

impl Insn {
    /// The two registers are nibbles of one byte, as bit fields of the machine's order.
    const fn new(opcode: u8, dst: Reg, src: Reg, offset: i16, immediate: i32) -> Self {
        let (dst, src) = (dst as u8, src as u8);
        let registers = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
        Self { opcode, registers, offset, immediate }
    }

    /// `dst = value` (RFC 9669 section 4.1: ALU64, MOV, K).
    pub(crate) const fn set(dst: Reg, value: i32) -> Self {
        Self::new(0xb7, dst, Reg::R0, 0, value)
    }

    /// `dst = src` (section 4.1: ALU64, MOV, X).
    pub(crate) const fn copy(dst: Reg, src: Reg) -> Self {
        Self::new(0xbf, dst, src, 0, 0)
    }

    /// `dst += value` (section 4.1: ALU64, ADD, K).
    pub(crate) const fn add(dst: Reg, value: i32) -> Self {
        Self::new(0x07, dst, Reg::R0, 0, value)
    }

    /// `dst += src` (section 4.1: ALU64, ADD, X).
    pub(crate) const fn add_register(dst: Reg, src: Reg) -> Self {
        Self::new(0x0f, dst, src, 0, 0)
    }

    /// `dst &= mask` (section 4.1: ALU64, AND, K).
    pub(crate) const fn and(dst: Reg, mask: i32) -> Self {
        Self::new(0x57, dst, Reg::R0, 0, mask)
    }

    /// `dst |= mask` (section 4.1: ALU64, OR, K).
    pub(crate) const fn or(dst: Reg, mask: i32) -> Self {
        Self::new(0x47, dst, Reg::R0, 0, mask)
    }

    /// `dst <<= bits` (section 4.1: ALU64, LSH, K).
    pub(crate) const fn shift_left(dst: Reg, bits: i32) -> Self {
        Self::new(0x67, dst, Reg::R0, 0, bits)
    }

    /// `dst >>= bits`, unsigned (section 4.1: ALU64, RSH, K).
    pub(crate) const fn shift_right(dst: Reg, bits: i32) -> Self {
        Self::new(0x77, dst, Reg::R0, 0, bits)
    }

    /// `dst = *(u8 *)(src + offset)` (section 5.2: LDX, MEM, B).
    pub(crate) const fn load_byte(dst: Reg, src: Reg, offset: i16) -> Self {
        Self::new(0x71, dst, src, offset, 0)
    }

    /// `dst = *(u32 *)(src + offset)` (section 5.2: LDX, MEM, W).
    pub(crate) const fn load(dst: Reg, src: Reg, offset: i16) -> Self {
        Self::new(0x61, dst, src, offset, 0)
    }

    /// `dst = *(u64 *)(src + offset)` (section 5.2: LDX, MEM, DW).
    pub(crate) const fn load_long(dst: Reg, src: Reg, offset: i16) -> Self {
        Self::new(0x79, dst, src, offset, 0)
    }

    /// `*(u64 *)(dst + offset) += src`, at once for all CPUs (section 5.3: STX, ATOMIC, DW, ADD).
    pub(crate) const fn add_atomic(dst: Reg, offset: i16, src: Reg) -> Self {
        Self::new(0xdb, dst, src, offset, 0)
    }

    /// `*(u32 *)(dst + offset) = src` (section 5.2: STX, MEM, W).
    pub(crate) const fn store(dst: Reg, offset: i16, src: Reg) -> Self {
        Self::new(0x63, dst, src, offset, 0)
    }

    /// `*(u64 *)(dst + offset) = src` (section 5.2: STX, MEM, DW).
    pub(crate) const fn store_long(dst: Reg, offset: i16, src: Reg) -> Self {
        Self::new(0x7b, dst, src, offset, 0)
    }

    /// `dst = map`, two instructions (section 5.4: `map_by_fd`).
    pub(crate) fn map(dst: Reg, map: BorrowedFd<'_>) -> [Self; 2] {
        [Self::new(0x18, dst, Reg::R1, 0, map.as_raw_fd()), Self::new(0, Reg::R0, Reg::R0, 0, 0)]
    }

    /// `dst` = the address `offset` bytes into the only value of `map`, an array; two instructions (section 5.4:
    /// `map_val(map_by_fd)`).
    pub(crate) fn map_value(dst: Reg, map: BorrowedFd<'_>, offset: usize) -> [Self; 2] {
        let offset = offset as i32;
        [Self::new(0x18, dst, Reg::R2, 0, map.as_raw_fd()), Self::new(0, Reg::R0, Reg::R0, 0, offset)]
    }

    /// Calls a function of the kernel by its number in linux/bpf.h (section 4.3.1).
    pub(crate) const fn call(function: i32) -> Self {
        Self::new(0x85, Reg::R0, Reg::R0, 0, function)
    }

    /// Returns r0 (section 4.3).
    pub(crate) const fn exit() -> Self {
        Self::new(0x95, Reg::R0, Reg::R0, 0, 0)
    }

    /// Goes `offset` instructions on from the next one (section 4.3).
    const fn jump(condition: Cond, offset: i16) -> Self {
        match condition {
            Cond::Equal(a, b) => Self::new(0x1d, a, b, offset, 0),
            Cond::Differ(a, b) => Self::new(0x5d, a, b, offset, 0),
            Cond::Exceeds(a, b) => Self::new(0x2d, a, b, offset, 0),
            Cond::Is(a, value) => Self::new(0x15, a, Reg::R0, offset, value),
            Cond::NotEqual(a, value) => Self::new(0x55, a, Reg::R0, offset, value),
            Cond::Less(a, limit) => Self::new(0xa5, a, Reg::R0, offset, limit),
            Cond::Greater(a, limit) => Self::new(0x25, a, Reg::R0, offset, limit),
        }
    }
}

/// A line of a program with jumps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Line {
    Do(Insn),
    /// Goes to the label where the condition holds.
    If(Cond, &'static str),
    /// Goes to the label.
    Go(&'static str),
    Label(&'static str),
}

/// Turns labels into distances. A label that is nowhere gives a jump to itself, which the verifier refuses.
pub(crate) fn assemble(lines: &[Line]) -> Vec<Insn> {
    let mut labels = Vec::new();
    let mut next = 0_i16;
    for line in lines {
        match line {
            Line::Label(name) => labels.push((*name, next)),
            Line::Do(_) | Line::If(..) | Line::Go(_) => next += 1,
        }
    }
    let mut insns = Vec::with_capacity(lines.len());
    for line in lines {
        let here = insns.len() as i16;
        let to = |name: &str| {
            labels.iter().find(|(label, _)| *label == name).map_or(here, |(_, at)| *at) - here - 1
        };
        match *line {
            Line::Do(insn) => insns.push(insn),
            Line::If(condition, name) => insns.push(Insn::jump(condition, to(name))),
            Line::Go(name) => insns.push(Insn::new(0x05, Reg::R0, Reg::R0, to(name), 0)),
            Line::Label(_) => {}
        }
    }
    insns
}

/// `BPF_PROG_TYPE_SOCKET_FILTER` of linux/bpf.h.
pub(crate) const PROG_TYPE_SOCKET_FILTER: u32 = 1;
/// `BPF_PROG_TYPE_SCHED_CLS` of linux/bpf.h.
pub(crate) const PROG_TYPE_SCHED_CLS: u32 = 3;
/// `BPF_TCX_INGRESS` of linux/bpf.h (kernel 6.6).
pub(crate) const ATTACH_TCX_INGRESS: u32 = 46;

/// `BPF_F_BEFORE` of linux/bpf.h: of a link, that its program comes first of those attached there.
pub(crate) const F_BEFORE: u32 = 1 << 3;

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
const CMD_PROG_TEST_RUN: libc::c_int = 10;
const CMD_LINK_CREATE: libc::c_int = 28;
const CMD_LINK_DETACH: libc::c_int = 34;
/// Functions of the kernel that only GPL-compatible programs may call are called by some of ours.
const LICENSE: &CStr = c"Dual MIT/GPL";

#[repr(C)]
#[derive(Default)]
struct ProgTestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

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

/// One bpf(2) call with the first bytes of `union bpf_attr`; the kernel takes the rest as zero, and refuses stray
/// bytes.
///
/// # Safety
/// `attr` is what `cmd` expects, and its addresses are good for the call.
unsafe fn call<A>(cmd: libc::c_int, attr: &mut A) -> io::Result<i32> {
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
pub(crate) fn link(program: BorrowedFd<'_>, ifindex: u32, attach: u32, flags: u32) -> io::Result<Attached> {
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
    Ok(Attached(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// A program on a netdev: a bpf_link. It goes when this is dropped, at once: a child that this process has just forked
/// holds the fd too until it runs its own program, so closing it would not do.
#[derive(Debug)]
pub(crate) struct Attached(OwnedFd);

impl Drop for Attached {
    fn drop(&mut self) {
        let mut link = self.0.as_raw_fd() as u32;
        // SAFETY: the attribute holds no address. A refusal (the netdev has gone) leaves it to the closing of the fd.
        let _ = unsafe { call(CMD_LINK_DETACH, &mut link) };
    }
}

/// Runs a program once on a new skb with these bytes, of which the first are an Ethernet header, as one that came
/// in by the loopback device of the calling thread's network namespace. Softirqs of this CPU wait until it ends.
///
/// # Errors
/// What the kernel said; the program did not run then.
pub(crate) fn run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<()> {
    let mut attr = ProgTestRun {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat: 1,
        ..ProgTestRun::default()
    };
    // SAFETY: the kernel reads `data_size_in` bytes of `frame`, and writes nothing but to the attribute.
    unsafe { call(CMD_PROG_TEST_RUN, &mut attr) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_distances() {
        let lines = [
            Line::Label("start"),
            Line::Do(Insn::add(Reg::R7, 1)),
            Line::If(Cond::Less(Reg::R7, 5), "start"),
            Line::If(Cond::Equal(Reg::R1, Reg::R9), "end"),
            Line::Do(Insn::set(Reg::R0, 3)),
            Line::Label("end"),
            Line::Do(Insn::exit()),
        ];
        let offsets: Vec<i16> = assemble(&lines).iter().map(|insn| insn.offset).collect();
        assert_eq!(offsets, [0, -2, 1, 0, 0]);
    }

    #[test]
    fn a_label_that_is_nowhere_is_an_endless_loop() {
        assert_eq!(assemble(&[Line::If(Cond::NotEqual(Reg::R0, 0), "nowhere")])[0].offset, -1);
    }

    #[test]
    fn registers_are_where_the_kernel_looks() {
        let insn = Insn::store(Reg::R8, 4, Reg::R1);
        let registers = if cfg!(target_endian = "little") { 0x18 } else { 0x81 };
        assert_eq!(insn, Insn { opcode: 0x63, registers, offset: 4, immediate: 0 });
    }
}
