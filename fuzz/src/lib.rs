//! Frames to start from: what the fuzzer gives is laid over one of them, so that it does not have to guess
//! lengths and checksums before it gets anywhere.

use vswitch_wire::testing::{FrameBuilder, VecFrame, frame};
use vswitch_wire::{FrameBuf, Mac, Tag};

/// A GSO frame of the kind that the bits of `choice` name, whose payload has `len` bytes.
pub fn template(choice: u8, len: u8) -> VecFrame {
    let has = |bit: u8| choice & bit != 0;
    let outer = |payload: &[u8]| {
        let base = if has(0x08) { plain().tag(Tag::dot1q(0xe00a)) } else { plain() };
        let base = if has(0x10) { base.tag(Tag::dot1q(3)) } else { base };
        let base =
            if has(0x02) { base.ip([0xfd; 16], [0xfe; 16]) } else { base.ip([10, 0, 0, 1], [10, 0, 0, 2]) };
        if has(0x01) { base.udp(5000, 4789).payload(payload) } else { base.tcp(1, 2, 0x99).payload(payload) }
    };
    if has(0x04) {
        let inner =
            plain().ip([10, 0, 0, 1], [10, 0, 0, 2]).tcp(3, 4, 0x18).payload(&vec![1; usize::from(len)]);
        let whole = outer(&[&[8, 0, 0, 0, 0, 0, 7, 0], inner.unfinished().bytes()].concat()).gso(100);
        if !has(0x20) {
            return whole;
        }
        let mut offload = inner.gso(100).meta().offload;
        offload.shift_forward((whole.bytes().len() - inner.bytes().len()) as u16);
        return VecFrame::new(whole.bytes()).with_offload(offload);
    }
    outer(&vec![1; usize::from(len)]).gso(100)
}

fn plain() -> FrameBuilder {
    frame(Mac([2; 6]), Mac([4; 6]))
}

/// Changes `bytes` where `changes` is not zero.
pub fn lay_over(bytes: &mut [u8], changes: &[u8]) {
    for (byte, change) in bytes.iter_mut().zip(changes) {
        *byte ^= change;
    }
}
