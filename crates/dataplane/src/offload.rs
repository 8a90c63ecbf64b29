//! The size of a frame as an MTU sees it, and whether its unfinished work fits its bytes.

use vswitch_wire::vlan::{self, TAG_LEN};
use vswitch_wire::{Csum, FrameBuf, Gso, GsoKind, Offload};

use crate::parse::HEADER_LEN;

/// Offset of the checksum in a TCP header (RFC 9293 section 3.1).
const TCP_CSUM: u16 = 16;
/// Offset of the checksum in a UDP header (RFC 768).
const UDP_CSUM: u16 = 6;
const UDP_HEADER: usize = 8;

/// Whether every offset lies in the frame, and GSO has what it needs to be cut: a checksum to finish, a
/// segment size, and a whole L4 header. VIRTIO 1.2 section 5.1.6.4 forbids to trust any of them.
#[inline]
pub(crate) fn fits(bytes: &[u8], work: Offload) -> bool {
    let Some(csum) = work.csum else { return work.gso.is_none() };
    let start = usize::from(csum.start);
    start >= HEADER_LEN
        && start + usize::from(csum.offset) + 2 <= bytes.len()
        && work.gso.is_none_or(|gso| gso.size > 0 && segment_header_len(bytes, csum, gso.kind).is_some())
}

/// Bytes of the frame that count against a port's `max_frame`: those of the longest segment for a GSO frame, and
/// never the outermost tag, be it beside the bytes (`tagged`) or an 802.1ad tag at their head.
#[inline]
pub(crate) fn counted_len<F: FrameBuf>(frame: &F, tagged: bool) -> usize {
    let bytes = frame.bytes();
    let len = match frame.meta().offload {
        Offload { csum: Some(csum), gso: Some(gso) } => segment_len(bytes, csum, gso),
        _ => bytes.len(),
    };
    if !tagged && vlan::peek(bytes).is_some() { len - TAG_LEN } else { len }
}

/// Bytes of the longest segment: all headers, and `gso.size` of payload.
fn segment_len(bytes: &[u8], csum: Csum, gso: Gso) -> usize {
    let headers = segment_header_len(bytes, csum, gso.kind).unwrap_or(bytes.len());
    bytes.len().min(headers + usize::from(gso.size))
}

/// Bytes of the headers that every segment repeats, from the destination MAC to the end of L4.
fn segment_header_len(bytes: &[u8], csum: Csum, kind: GsoKind) -> Option<usize> {
    let start = usize::from(csum.start);
    let l4 = match kind {
        GsoKind::Tcp4 | GsoKind::Tcp6 if csum.offset == TCP_CSUM => {
            // The data offset: the header's length in words of 32 bits, at least five.
            let words = bytes.get(start + 12)? >> 4;
            (words >= 5).then_some(usize::from(words) * 4)?
        }
        GsoKind::Udp if csum.offset == UDP_CSUM => UDP_HEADER,
        _ => return None,
    };
    (start + l4 <= bytes.len()).then_some(start + l4)
}
