//! The size of a frame as an MTU sees it, and whether its unfinished work fits its bytes.

use vswitch_wire::segment::l4_header_end;
use vswitch_wire::vlan::{self, TAG_LEN};
use vswitch_wire::{FrameBuf, Offload};

/// Whether the work can be done: every offset lies in the frame, and GSO has whole headers to repeat. It came
/// from a guest, which VIRTIO 1.2 section 5.1.6.4 forbids to trust.
#[inline]
pub(crate) fn fits(bytes: &[u8], work: &Offload) -> bool {
    *work == Offload::NONE
        || work.check(bytes).is_ok() && (work.gso.is_none() || l4_header_end(bytes, work).is_some())
}

/// Bytes of the frame that count against a port's `max_frame`: those of the longest segment for a GSO frame, and
/// never the outermost tag, be it beside the bytes (`tagged`) or an 802.1ad tag at their head.
#[inline]
pub(crate) fn counted_len<F: FrameBuf>(frame: &F, tagged: bool) -> usize {
    let bytes = frame.bytes();
    let len = segment_len(bytes, &frame.meta().offload).unwrap_or(bytes.len());
    if !tagged && vlan::peek(bytes).is_some() { len - TAG_LEN } else { len }
}

/// Bytes of the longest segment of a GSO frame: all headers, and `gso.size` of payload where there is so much.
#[inline]
fn segment_len(bytes: &[u8], work: &Offload) -> Option<usize> {
    let size = work.gso?.size;
    Some(bytes.len().min(l4_header_end(bytes, work)? + usize::from(size)))
}
