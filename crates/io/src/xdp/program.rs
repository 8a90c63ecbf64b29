//! The XDP program: a frame goes to the socket of its rx queue, or is dropped.
//!
//! Dropped, never passed: the host's stack must not see a frame of the switch, not even of a queue whose socket
//! is just being opened. The instructions are written here, since a compiler, an ELF file and its loader would
//! be a hundred times as much to carry.
//!
//! Some devices carry a frame's VLAN tag beside it; then the program asks the driver for it and puts it into the
//! four bytes before the frame, where [`tag_before`] finds it.

use vswitch_wire::Tag;

use crate::bpf::Insn;

/// What the program is loaded and attached as (linux/bpf.h).
pub(super) const PROG_TYPE_XDP: u32 = 6;
pub(super) const ATTACH_XDP: u32 = 37;
/// It takes frames of several buffers.
pub(super) const F_XDP_HAS_FRAGS: u32 = 1 << 5;
/// It is loaded for one device, and so may ask the device's driver about frames.
pub(super) const F_XDP_DEV_BOUND_ONLY: u32 = 1 << 6;

/// Bytes that the program puts before a frame: TPID in network order, TCI in host order; zeros for no tag.
pub(super) const TAG_META: usize = 4;

/// The tag that the program left in the bytes before the frame.
pub(super) fn tag_before(meta: [u8; TAG_META]) -> Option<Tag> {
    let [p0, p1, c0, c1] = meta;
    let tpid = u16::from_be_bytes([p0, p1]);
    (tpid != 0).then(|| Tag { tpid, tci: u16::from_ne_bytes([c0, c1]) })
}

/// The driver's answer to "which tag?" on an untagged frame.
const NO_TAG: i32 = -libc::ENODATA;
const XDP_DROP: i32 = 1;

// Helpers of the kernel, by number (linux/bpf.h).
const REDIRECT_MAP: i32 = 51;
const ADJUST_META: i32 = 54;
// Offsets into `struct xdp_md`.
const DATA: i16 = 0;
const DATA_META: i16 = 8;
const RX_QUEUE_INDEX: i16 = 16;
// Calls clobber R0 to R5; R6 to R9 live on.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const CTX: u8 = 6;
const FRAME_POINTER: u8 = 10;

/// Stands for the distance to the program's last two instructions, which drop.
const TO_DROP: i16 = i16::MAX;

/// Redirects through the map `xskmap` (an fd).
pub(super) fn redirect(xskmap: i32) -> Vec<Insn> {
    let mut program = vec![mov(CTX, R1)];
    program.extend(redirect_by_queue(xskmap));
    program
}

/// As [`redirect`], and saves the VLAN tag first. `rx_vlan_tag` is the BTF id of `bpf_xdp_metadata_rx_vlan_tag`.
pub(super) fn redirect_with_tag(xskmap: i32, rx_vlan_tag: u32) -> Vec<Insn> {
    const TPID: i16 = -8; // where on the stack
    const TCI: i16 = -6;
    let mut program = vec![
        mov(CTX, R1),
        store_zero(FRAME_POINTER, TPID), // both fields, four bytes
        mov(R2, FRAME_POINTER),
        add(R2, TPID),
        mov(R3, FRAME_POINTER),
        add(R3, TCI),
        call_kfunc(rx_vlan_tag), // (ctx, &tpid, &tci)
        skip_if32_eq(R0, 0, 2),
        skip_if32_ne(R0, NO_TAG, TO_DROP), // a driver that does not know must not look like one without a tag
        store_zero(FRAME_POINTER, TPID),
        mov(R1, CTX),
        mov_imm(R2, -(TAG_META as i32)),
        call(ADJUST_META),
        skip_if32_ne(R0, 0, TO_DROP),
        load(R2, CTX, DATA),
        load(R3, CTX, DATA_META),
        mov(R4, R3),
        add(R4, TAG_META as i16),
        skip_if_gt(R4, R2, TO_DROP), // never; the verifier wants to see it
        load(R1, FRAME_POINTER, TPID),
        store(R3, R1, 0),
    ];
    program.extend(redirect_by_queue(xskmap));
    program.extend([mov_imm(R0, XDP_DROP), EXIT]);
    let drop = program.len() - 2;
    for (at, insn) in program.iter_mut().enumerate().filter(|(_, insn)| insn.offset == TO_DROP) {
        insn.offset = (drop - at - 1) as i16;
    }
    program
}

fn redirect_by_queue(xskmap: i32) -> [Insn; 6] {
    let [low, high] = load_map(R1, xskmap);
    // The flags' low bits are the verdict for a queue that the map has no socket for.
    [load(R2, CTX, RX_QUEUE_INDEX), low, high, mov_imm(R3, XDP_DROP), call(REDIRECT_MAP), EXIT]
}

const EXIT: Insn = Insn::exit();

/// Source and destination are bit fields of four bits, whose order is that of the machine's bytes.
const fn insn(opcode: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Insn {
    let registers = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
    Insn { opcode, registers, offset, immediate }
}
const fn mov(dst: u8, src: u8) -> Insn {
    insn(0xbf, dst, src, 0, 0)
}
const fn mov_imm(dst: u8, value: i32) -> Insn {
    insn(0xb7, dst, 0, 0, value)
}
const fn add(dst: u8, value: i16) -> Insn {
    insn(0x07, dst, 0, 0, value as i32)
}
/// dst = *(u32 *)(src + offset)
const fn load(dst: u8, src: u8, offset: i16) -> Insn {
    insn(0x61, dst, src, offset, 0)
}
/// *(u32 *)(dst + offset) = src
const fn store(dst: u8, src: u8, offset: i16) -> Insn {
    insn(0x63, dst, src, offset, 0)
}
const fn store_zero(dst: u8, offset: i16) -> Insn {
    insn(0x62, dst, 0, offset, 0)
}
const fn skip_if32_eq(dst: u8, value: i32, skip: i16) -> Insn {
    insn(0x16, dst, 0, skip, value)
}
const fn skip_if32_ne(dst: u8, value: i32, skip: i16) -> Insn {
    insn(0x56, dst, 0, skip, value)
}
const fn skip_if_gt(dst: u8, src: u8, skip: i16) -> Insn {
    insn(0x2d, dst, src, skip, 0)
}
const fn call(helper: i32) -> Insn {
    insn(0x85, 0, 0, 0, helper)
}
const fn call_kfunc(btf_id: u32) -> Insn {
    insn(0x85, 0, 2, 0, btf_id as i32) // BPF_PSEUDO_KFUNC_CALL
}
/// Two instructions' room for a 64-bit value, which the kernel makes of the fd.
const fn load_map(dst: u8, fd: i32) -> [Insn; 2] {
    [insn(0x18, dst, 1, 0, fd), insn(0, 0, 0, 0, 0)] // BPF_PSEUDO_MAP_FD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_jump_to_drop_lands_on_it() {
        let program = redirect_with_tag(3, 4);
        let drop = program.len() - 2;
        assert_eq!(program[drop..], [mov_imm(R0, XDP_DROP), EXIT]);
        let jumps: Vec<usize> = program
            .iter()
            .enumerate()
            .filter(|(_, i)| matches!(i.opcode, 0x56 | 0x2d))
            .map(|(at, i)| at + 1 + i.offset as usize)
            .collect();
        assert_eq!(jumps, [drop; 3]);
    }

    #[test]
    fn a_tag_reads_as_the_driver_wrote_it() {
        let [c0, c1] = 0x2064_u16.to_ne_bytes();
        assert_eq!(tag_before([0x81, 0x00, c0, c1]), Some(Tag::dot1q(0x2064)));
        assert_eq!(tag_before([0; 4]), None);
    }
}
