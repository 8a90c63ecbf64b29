//! The size of a frame as an MTU sees it, and whether its unfinished work fits its bytes.

use vswitch_wire::segment::{MAX_SEGMENTS, l4_header_end};
use vswitch_wire::vlan::{self, TAG_LEN};
use vswitch_wire::{FrameBuf, Gso, GsoKind, Offload};

/// Whether the work can be done and changes nothing that a later step judges: the checksum's field is that of an L4
/// checksum, and GSO has whole headers to repeat. It came from a guest, which VIRTIO 1.2 section 5.1.6.4 forbids to
/// trust; what it finishes is finished behind guard and filters.
#[inline]
pub(crate) fn fits(bytes: &[u8], work: &Offload) -> bool {
    let is_finished = work.csum.is_none() && work.gso.is_none();
    is_finished || work.verify(bytes).is_ok() && (work.gso.is_none() || l4_header_end(bytes, work).is_some())
}

/// Whether a port for frames of `max_frame` bytes can carry the frame, or the longest of its segments. The outermost
/// tag does not count, be it beside the bytes (`tagged`) or an 802.1ad tag at their head.
#[inline]
pub(crate) fn is_carried<F: FrameBuf>(frame: &F, tagged: bool, max_frame: u32) -> bool {
    let max_frame = max_frame as usize;
    frame.bytes().len() <= max_frame || counted_len(frame, tagged) <= max_frame
}

#[cold]
fn counted_len<F: FrameBuf>(frame: &F, tagged: bool) -> usize {
    let bytes = frame.bytes();
    let len = segment_len(bytes, &frame.meta().offload).unwrap_or(bytes.len());
    if !tagged && vlan::peek(bytes).is_some() { len - TAG_LEN } else { len }
}

/// Bytes of the longest segment of a GSO frame: all headers, and `gso.size` of payload where there is so much.
fn segment_len(bytes: &[u8], work: &Offload) -> Option<usize> {
    let size = work.gso?.size;
    Some(bytes.len().min(l4_header_end(bytes, work)? + usize::from(size)))
}

/// Bytes of payload that segments of a TCP frame may have to be carried by a port for frames of `max_frame` bytes. Only TCP
/// does not care where it is cut: a datagram's end means something.
#[cold]
pub(crate) fn fitting_size<F: FrameBuf>(frame: &F, max_frame: u32) -> Option<u16> {
    let work = &frame.meta().offload;
    work.gso.filter(|gso| matches!(gso.kind, GsoKind::Tcp4 | GsoKind::Tcp6))?;
    let size = (max_frame as usize).checked_sub(l4_header_end(frame.bytes(), work)?)?;
    u16::try_from(size).ok().filter(|&size| size >= TCP_MIN_SIZE)
}

/// Whether any sender asks for so many segments, or such small ones. Each costs what a frame costs, here and wherever
/// else the frame may be cut; a guest has them for nothing.
#[inline]
pub(crate) fn is_plausible(gso: Gso, segments: u32) -> bool {
    let most = match gso.kind {
        GsoKind::Tcp4 | GsoKind::Tcp6 if gso.size < TCP_MIN_SIZE => 0,
        GsoKind::Tcp4 | GsoKind::Tcp6 => MAX_SEGMENTS as u32,
        GsoKind::Udp => UDP_MAX_SEGMENTS,
    };
    segments <= most
}

/// Bytes of the smallest segments that Linux' TCP makes (`TCP_MIN_SND_MSS`, include/net/tcp.h).
const TCP_MIN_SIZE: u16 = 48;
/// The most datagrams that Linux takes in one (`UDP_MAX_SEGMENTS`, include/linux/udp.h).
const UDP_MAX_SEGMENTS: u32 = 128;

/// Frames on the wire that the frame stands for.
#[inline]
pub(crate) fn segments(bytes: &[u8], work: &Offload) -> u32 {
    let Some(gso) = work.gso else { return 1 };
    let payload = bytes.len().saturating_sub(l4_header_end(bytes, work).unwrap_or(0));
    (payload.div_ceil(usize::from(gso.size).max(1)) as u32).max(1)
}
