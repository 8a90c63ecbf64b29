//! Cutting a GSO frame into segments in software, for a port that cannot take it whole.
//!
//! One segment at a time into a buffer of the caller's, so nothing is allocated and a port's pool sets the
//! pace. The headers are the original's, with what differs by segment written anew: IP length, IPv4
//! identification and header checksum, TCP sequence number and flags, UDP length, L4 checksum.
//!
//! A sender's own tunnel is cut along with what is in it. Linux hands such a frame to packet sockets as if it were
//! plain TCP whose checksum starts far behind; it must not be passed on as that, see [`is_tunnelled`].

use core::fmt;

use crate::checksum::Sum;
use crate::classify::{IpVersion, Layers, classify, protocol};
use crate::unfinished::suits;
use crate::{BadOffload, Csum, Gso, GsoKind, Malformed, Offload, complete};
use crate::{ipv4, ipv6, tcp, tunnel, udp};

/// The most segments of a frame, so that a guest that asks for segments of one byte cannot keep a worker
/// busy. 64 KiB in segments of Linux' smallest MSS (88 bytes) are 745; Linux makes at most 128 datagrams.
pub const MAX_SEGMENTS: usize = 1024;

/// Why a frame cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadSegmentation {
    /// The metadata does not ask for it, or cannot be true.
    Offload(BadOffload),
    /// The frame has no GSO.
    NotGso,
    /// Headers that do not fit.
    Malformed(Malformed),
    /// The protocol is not that of the GSO kind, or is inside a tunnel that cannot be cut.
    Protocol,
    /// Part of a fragmented packet.
    Fragment,
    /// More than [`MAX_SEGMENTS`].
    TooMany,
}

impl fmt::Display for BadSegmentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offload(bad) => bad.fmt(f),
            Self::NotGso => f.write_str("the frame is not one for segmentation"),
            Self::Malformed(bad) => bad.fmt(f),
            Self::Protocol => {
                f.write_str("the protocol is not that of the GSO type, or in an unknown tunnel")
            }
            Self::Fragment => f.write_str("a fragment cannot be cut into segments"),
            Self::TooMany => write!(f, "more than {MAX_SEGMENTS} segments"),
        }
    }
}

impl core::error::Error for BadSegmentation {}

impl From<BadOffload> for BadSegmentation {
    fn from(bad: BadOffload) -> Self {
        Self::Offload(bad)
    }
}

impl From<Malformed> for BadSegmentation {
    fn from(bad: Malformed) -> Self {
        Self::Malformed(bad)
    }
}

/// Bytes of all headers of a GSO frame, from the destination MAC to the end of the TCP or UDP header that the
/// checksum belongs to, a tunnel's inner one too. With [`Gso::size`] it makes the longest segment.
/// `None` for a frame without GSO, or one that ends before its header does.
#[inline]
#[must_use]
pub fn l4_header_end(bytes: &[u8], offload: &Offload) -> Option<usize> {
    let start = usize::from(offload.csum?.start);
    let l4 = bytes.get(start..)?;
    let len = match offload.gso?.kind {
        GsoKind::Tcp4 | GsoKind::Tcp6 => tcp::Header::new_checked(l4).ok()?.header_len(),
        GsoKind::Udp => l4.first_chunk::<{ udp::HEADER_LEN }>()?.len(),
    };
    Some(start + len)
}

/// Whether what is to be cut is inside a tunnel. `virtio_net_hdr` cannot say so, and a kernel that has to cut
/// the frame would take the outer headers for those of the segments. So a port that takes its [`GsoKind`] must not be
/// given it either: cut it first. `false` for a frame without GSO.
#[inline]
#[must_use]
pub fn is_tunnelled(bytes: &[u8], offload: &Offload) -> bool {
    match (offload.csum, offload.gso) {
        (Some(csum), Some(_)) => classify(bytes).is_ok_and(|layers| layers.l4 != usize::from(csum.start)),
        _ => false,
    }
}

/// Gives the segments of one frame, in order.
#[derive(Clone, Debug)]
pub struct Segmenter<'a> {
    /// Headers and payload, without padding.
    packet: &'a [u8],
    /// The headers before `layers` when that is in a tunnel.
    outer: Option<Layers>,
    layers: Layers,
    csum: Csum,
    gso: Gso,
    header_len: usize,
    /// The pseudo-header's sum without the L4 length.
    pseudo_header: Sum,
    /// Segments given so far.
    index: usize,
}

impl<'a> Segmenter<'a> {
    /// The segments of the frame `bytes`, which may have tags, IPv4 options and IPv6 extension headers.
    ///
    /// # Errors
    /// Why it cannot be cut.
    pub fn new(bytes: &'a [u8], offload: &Offload) -> Result<Self, BadSegmentation> {
        offload.check(bytes)?;
        let (Some(csum), Some(gso)) = (offload.csum, offload.gso) else {
            return Err(BadSegmentation::NotGso);
        };
        let (mut outer, mut layers) = (None, classify(bytes)?);
        if layers.l4 != usize::from(csum.start) && !layers.fragment {
            outer = Some(layers);
            layers = inner(bytes, &layers)?;
        }
        if layers.fragment {
            return Err(BadSegmentation::Fragment);
        }
        if !suits(gso.kind, &layers) || layers.l4 != usize::from(csum.start) {
            return Err(BadSegmentation::Protocol);
        }
        let packet = bytes.get(..layers.end).ok_or(Malformed::Truncated)?;
        let header_len = l4_header_end(packet, offload).ok_or(Malformed::Truncated)?;
        // The field holds the sum with the whole's length (VIRTIO 1.2 section 5.1.6.2). Taking only the length out
        // of it, rather than adding up the addresses again, is right behind an IPv6 routing header too.
        let field = layers.l4 + usize::from(csum.offset);
        let whole = packet.get(field..field + 2).ok_or(Malformed::Truncated)?;
        let l4_len = u16::try_from(layers.l4_len()).map_err(|_| Malformed::Length)?;
        let pseudo_header = Sum::of(whole).minus(l4_len);
        let segmenter = Self { packet, outer, layers, csum, gso, header_len, pseudo_header, index: 0 };
        if segmenter.count() > MAX_SEGMENTS { Err(BadSegmentation::TooMany) } else { Ok(segmenter) }
    }

    /// How many segments there are in all; a frame without payload is one.
    #[must_use]
    pub const fn count(&self) -> usize {
        let payload = self.packet.len() - self.header_len;
        if payload == 0 { 1 } else { payload.div_ceil(self.gso.size as usize) }
    }

    /// Bytes of the longest segment.
    #[must_use]
    pub const fn longest(&self) -> usize {
        let longest = self.header_len + self.gso.size as usize;
        if longest < self.packet.len() { longest } else { self.packet.len() }
    }

    /// Writes the next segment to the front of `buffer`, and returns its length and what is left to do with it:
    /// with `finish` nothing, otherwise its checksum. `None` after the last, and when `buffer` is shorter than
    /// the segment (never, when it has [`Segmenter::longest`] bytes).
    pub fn next_into(&mut self, buffer: &mut [u8], finish: bool) -> Option<(usize, Offload)> {
        if self.index == self.count() {
            return None;
        }
        let (headers, payload) = self.packet.split_at_checked(self.header_len)?;
        let start = self.index * usize::from(self.gso.size);
        let end = payload.len().min(start + usize::from(self.gso.size));
        let payload = payload.get(start..end)?;
        let len = headers.len() + payload.len();
        let segment = buffer.get_mut(..len)?;
        segment.get_mut(..headers.len())?.copy_from_slice(headers);
        segment.get_mut(headers.len()..)?.copy_from_slice(payload);

        self.write_ip(&self.layers, segment)?;
        let unfinished = self.write_l4(segment, start as u32)?;
        if let Some(outer) = &self.outer {
            self.write_ip(outer, segment)?;
            self.write_tunnel(outer, segment, unfinished)?;
        }
        self.index += 1;
        if finish {
            complete(segment, self.csum).ok()?;
            return Some((len, Offload::NONE));
        }
        Some((len, Offload { csum: Some(self.csum), gso: None }))
    }

    /// Length, identification (one more in each segment, whether it may be fragmented or not) and header checksum.
    fn write_ip(&self, layers: &Layers, segment: &mut [u8]) -> Option<()> {
        let len = segment.len().checked_sub(layers.l3)?;
        let packet = segment.get_mut(layers.l3..)?;
        match layers.version {
            IpVersion::V4 => {
                let mut header = ipv4::Header::new_checked_mut(packet).ok()?;
                header.set_total_len(u16::try_from(len).ok()?);
                header.set_id(header.id().wrapping_add(self.index as u16));
                header.set_checksum(0);
                let checksum = Sum::of(packet.get(..layers.l4 - layers.l3)?).checksum();
                ipv4::Header::new_checked_mut(packet).ok()?.set_checksum(checksum);
            }
            IpVersion::V6 => {
                let payload = u16::try_from(len.checked_sub(ipv6::HEADER_LEN)?).ok()?;
                ipv6::Header::new_checked_mut(packet).ok()?.set_payload_len(payload);
            }
        }
        Some(())
    }

    /// What differs by segment, and the checksum as an unfinished one, which is returned. `start` is the segment's
    /// place in the payload.
    fn write_l4(&self, segment: &mut [u8], start: u32) -> Option<u16> {
        let l4 = segment.get_mut(self.layers.l4..)?;
        let len = l4.len() as u16;
        let unfinished = self.pseudo_header.plus(Sum::of_word(u64::from(len))).folded();
        if self.gso.kind == GsoKind::Udp {
            let mut header = udp::Header::new_checked_mut(l4).ok()?;
            header.set_len(len);
            header.set_checksum(unfinished);
            return Some(unfinished);
        }
        let mut header = tcp::Header::new_checked_mut(l4).ok()?;
        header.set_sequence(header.sequence().wrapping_add(start));
        let mut flags = header.flags();
        if self.index != 0 {
            flags &= !tcp::CWR; // RFC 3168 section 6.1.2: on the first packet only
        }
        if self.index + 1 != self.count() {
            flags &= !(tcp::FIN | tcp::PSH);
        }
        header.set_flags(flags);
        header.set_checksum(unfinished);
        Some(unfinished)
    }

    /// The outer UDP length, and the checksum of UDP or GRE where the sender wants one. It is finished here for
    /// what the inner checksum will be: a finished region sums to the complement of what was in its field before
    /// ("local checksum offload").
    fn write_tunnel(&self, outer: &Layers, segment: &mut [u8], unfinished: u16) -> Option<()> {
        let len = segment.len() - outer.l4;
        let headers = segment.get_mut(outer.l4..self.layers.l4)?;
        let (offset, pseudo_header) = match outer.protocol {
            protocol::UDP => {
                let mut udp = udp::Header::new_checked_mut(headers).ok()?;
                udp.set_len(len as u16);
                if udp.checksum() == 0 {
                    return Some(());
                }
                (udp::CHECKSUM_OFFSET, outer.pseudo_header_of(len))
            }
            protocol::GRE if tunnel::has_gre_checksum(headers) => {
                (tunnel::GRE_CHECKSUM_OFFSET, Sum::default())
            }
            _ => return Some(()),
        };
        headers.get_mut(usize::from(offset)..)?.first_chunk_mut::<2>()?.fill(0);
        let sum = Sum::of(headers).plus(pseudo_header).plus(Sum::of_word(u64::from(!unfinished)));
        let checksum = if sum.checksum() == 0 { u16::MAX } else { sum.checksum() };
        *headers.get_mut(usize::from(offset)..)?.first_chunk_mut()? = checksum.to_be_bytes();
        Some(())
    }
}

/// The packet in the tunnel `outer`, where each segment can have its own copy of the tunnel's headers.
fn inner(bytes: &[u8], outer: &Layers) -> Result<Layers, BadSegmentation> {
    let layers = tunnel::inner(bytes, outer)?;
    let l4 = bytes.get(outer.l4..).unwrap_or_default();
    let is_sequenced = outer.protocol == protocol::GRE && tunnel::has_gre_sequence(l4);
    // The outer checksum is over the final destination, and over padding.
    if is_sequenced || outer.routed || outer.end != layers.end {
        return Err(BadSegmentation::Protocol);
    }
    Ok(layers)
}

#[cfg(test)]
mod tests;
