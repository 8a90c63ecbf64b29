//! Cutting a GSO frame into segments in software, for a port that cannot take it whole.
//!
//! One segment at a time into a buffer of the caller's, so nothing is allocated and a port's pool sets the
//! pace. The headers are the original's, with what differs by segment written anew: IP length, IPv4
//! identification and header checksum, TCP sequence number and flags, UDP length, L4 checksum.
//!
//! Only a frame's own TCP or UDP is cut. A GSO frame inside a tunnel (whose checksum starts elsewhere) is
//! refused: its outer headers would have to be cut along, and no driver here negotiates it.

use core::fmt;

use crate::checksum::Sum;
use crate::classify::{IpVersion, Layers, classify, protocol};
use crate::{BadOffload, Csum, Gso, GsoKind, Malformed, Offload, complete};
use crate::{ipv4, ipv6, tcp, udp};

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
    /// The protocol is not that of the GSO kind, or is inside a tunnel.
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
            Self::Protocol => f.write_str("the frame's own protocol is not that of its GSO type"),
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

/// Gives the segments of one frame, in order.
#[derive(Clone, Debug)]
pub struct Segmenter<'a> {
    /// Headers and payload, without padding.
    packet: &'a [u8],
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
        let layers = classify(bytes)?;
        let fits = match gso.kind {
            GsoKind::Tcp4 => (layers.version, layers.protocol) == (IpVersion::V4, protocol::TCP),
            GsoKind::Tcp6 => (layers.version, layers.protocol) == (IpVersion::V6, protocol::TCP),
            GsoKind::Udp => layers.protocol == protocol::UDP,
        };
        if layers.fragment {
            return Err(BadSegmentation::Fragment);
        }
        if !fits || layers.l4 != usize::from(csum.start) {
            return Err(BadSegmentation::Protocol);
        }
        let packet = &bytes[..layers.end];
        let header_len = l4_header_end(packet, offload).ok_or(Malformed::Truncated)?;
        // The field holds the sum with the whole's length (VIRTIO 1.2 section 5.1.6.2). Taking only the length out
        // of it, rather than adding up the addresses again, is right behind an IPv6 routing header too.
        let field = layers.l4 + usize::from(csum.offset);
        let whole = packet.get(field..field + 2).ok_or(Malformed::Truncated)?;
        let l4_len = u16::try_from(layers.l4_len()).map_err(|_| Malformed::Length)?;
        let pseudo_header = Sum::of(whole).minus(l4_len);
        let segmenter = Self { packet, layers, csum, gso, header_len, pseudo_header, index: 0 };
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

        self.write_ip(segment)?;
        self.write_l4(segment, start as u32)?;
        self.index += 1;
        if finish {
            complete(segment, self.csum).ok()?;
            return Some((len, Offload::NONE));
        }
        Some((len, Offload { csum: Some(self.csum), gso: None }))
    }

    /// Length, identification (one more in each segment, whether it may be fragmented or not) and header checksum.
    fn write_ip(&self, segment: &mut [u8]) -> Option<()> {
        // Not more than the whole's, which fits.
        let len = (segment.len() - self.layers.l3) as u16;
        let packet = segment.get_mut(self.layers.l3..)?;
        match self.layers.version {
            IpVersion::V4 => {
                let mut header = ipv4::Header::new_checked_mut(packet).ok()?;
                header.set_total_len(len);
                header.set_id(header.id().wrapping_add(self.index as u16));
                header.set_checksum(0);
                let checksum = Sum::of(packet.get(..self.layers.l4 - self.layers.l3)?).checksum();
                ipv4::Header::new_checked_mut(packet).ok()?.set_checksum(checksum);
            }
            IpVersion::V6 => {
                ipv6::Header::new_checked_mut(packet).ok()?.set_payload_len(len - ipv6::HEADER_LEN as u16);
            }
        }
        Some(())
    }

    /// What differs by segment, and the checksum as an unfinished one. `start` is the segment's place in the payload.
    fn write_l4(&self, segment: &mut [u8], start: u32) -> Option<()> {
        let l4 = segment.get_mut(self.layers.l4..)?;
        let len = l4.len() as u16;
        let unfinished = self.pseudo_header.plus(Sum::of_word(u64::from(len))).folded();
        if self.gso.kind == GsoKind::Udp {
            let mut header = udp::Header::new_checked_mut(l4).ok()?;
            header.set_len(len);
            header.set_checksum(unfinished);
            return Some(());
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
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{FrameBuilder, VecFrame, frame};
    use crate::{FrameBuf, Mac, Tag, oracle};

    fn v4() -> FrameBuilder {
        frame(Mac([2; 6]), Mac([4; 6])).ip([10, 0, 0, 1], [10, 0, 0, 2])
    }

    fn v6() -> FrameBuilder {
        frame(Mac([2; 6]), Mac([4; 6])).ip([0xfd; 16], [0xfe; 16])
    }

    /// Every segment, each from a buffer that held other bytes.
    fn segments(frame: &VecFrame, finish: bool) -> Vec<(Vec<u8>, Offload)> {
        let mut segmenter = Segmenter::new(frame.bytes(), &frame.meta().offload).unwrap();
        let (count, longest) = (segmenter.count(), segmenter.longest());
        let mut segments = Vec::new();
        let mut buffer = std::vec![0xa5; longest];
        while let Some((len, offload)) = segmenter.next_into(&mut buffer, finish) {
            segments.push((buffer[..len].to_vec(), offload));
            buffer.fill(0xa5);
        }
        assert_eq!(segments.len(), count);
        assert_eq!(segments.iter().map(|(bytes, _)| bytes.len()).max(), Some(longest));
        segments
    }

    /// The frame with `bytes` put between its IP and TCP headers, lengths and offsets mended.
    fn with_ip_extra(frame: &VecFrame, extra: &[u8]) -> VecFrame {
        let mut bytes = frame.bytes().to_vec();
        let mut offload = frame.meta().offload;
        let csum = offload.csum.as_mut().unwrap();
        bytes.splice(usize::from(csum.start)..usize::from(csum.start), extra.iter().copied());
        csum.start += extra.len() as u16;
        let l3 = bytes.len() - frame.bytes().len();
        assert_eq!(l3, extra.len());
        if bytes[12..14] == [8, 0] {
            bytes[14] += extra.len() as u8 / 4;
            let len = (bytes.len() - 14) as u16;
            bytes[16..18].copy_from_slice(&len.to_be_bytes());
        } else {
            let len = (bytes.len() - 54) as u16;
            bytes[18..20].copy_from_slice(&len.to_be_bytes());
            bytes[20] = 60;
        }
        VecFrame::new(&bytes).with_offload(offload)
    }

    #[test]
    fn a_literal_tcp_frame() {
        let payload = [[1_u8; 4], [2; 4], [3; 4]].concat();
        let frame =
            v4().tcp(0x1111, 0x2222, tcp::CWR | tcp::PSH | tcp::FIN | 0x10).payload(&payload[..10]).gso(4);
        let segments = segments(&frame, true);
        let expected = [
            (44, 0x1234, 1000, tcp::CWR | 0x10, &payload[..4]),
            (44, 0x1235, 1004, 0x10, &payload[4..8]),
            (42, 0x1236, 1008, tcp::PSH | tcp::FIN | 0x10, &payload[8..10]),
        ];
        assert_eq!(segments.len(), expected.len());
        for ((bytes, offload), (total_len, id, sequence, flags, payload)) in segments.iter().zip(expected) {
            assert_eq!(*offload, Offload::NONE);
            let ip = ipv4::Header::new_checked(&bytes[14..]).unwrap();
            assert_eq!((ip.total_len(), ip.id()), (total_len, id));
            let tcp = tcp::Header::new_checked(&bytes[34..]).unwrap();
            assert_eq!((tcp.sequence(), tcp.flags()), (sequence, flags));
            assert_eq!((tcp.source_port(), tcp.destination_port()), (0x1111, 0x2222));
            assert_eq!(&bytes[54..], payload);
            oracle::assert_checksums(bytes);
        }
    }

    #[test]
    fn sequence_and_identification_wrap() {
        let mut frame = v4().tcp(1, 2, 0x10).payload(&[0; 30]).gso(10);
        frame.bytes_mut()[18..20].fill(0xff);
        frame.bytes_mut()[38..42].fill(0xff);
        let last = segments(&frame, true).pop().unwrap().0;
        assert_eq!(ipv4::Header::new_checked(&last[14..]).unwrap().id(), 1);
        assert_eq!(tcp::Header::new_checked(&last[34..]).unwrap().sequence(), 19);
        oracle::assert_checksums(&last);
    }

    #[test]
    fn options_and_extension_headers_are_kept() {
        let options = with_ip_extra(&v4().tcp(1, 2, 0x10).payload(&[7; 100]).gso(33), &[1; 8]);
        // Destination options (RFC 8200 section 4.6): next header TCP, eight bytes, one PadN.
        let extension =
            with_ip_extra(&v6().tcp(1, 2, 0x10).payload(&[7; 100]).gso(33), &[6, 0, 1, 4, 0, 0, 0, 0]);
        for frame in [options, extension] {
            let header_end = l4_header_end(frame.bytes(), &frame.meta().offload).unwrap();
            let segments = segments(&frame, true);
            assert_eq!(segments.len(), 4);
            for (bytes, _) in segments {
                oracle::assert_checksums(&bytes);
                assert_eq!(bytes[34..header_end - 20], frame.bytes()[34..header_end - 20]);
            }
        }
    }

    #[test]
    fn a_frame_without_payload_is_one_segment() {
        for frame in [v4().tcp(1, 2, 0x10).gso(1), v6().udp(1, 2).gso(1)] {
            let segments = segments(&frame, false);
            assert_eq!(segments.len(), 1);
            assert_eq!(segments[0].0, frame.bytes());
        }
    }

    #[test]
    fn a_short_buffer_gets_nothing() {
        let frame = v4().udp(1, 2).payload(&[0; 100]).gso(50);
        let mut segmenter = Segmenter::new(frame.bytes(), &frame.meta().offload).unwrap();
        assert_eq!(segmenter.longest(), 92);
        assert_eq!(segmenter.next_into(&mut [0; 91], true), None);
        assert_eq!(segmenter.next_into(&mut [0; 92], true), Some((92, Offload::NONE)));
    }

    #[test]
    fn what_cannot_be_cut_is_refused() {
        let tcp = v4().tcp(1, 2, 0x10).payload(&[0; 2000]);
        let whole = tcp.gso(1000);
        let Offload { csum, gso } = whole.meta().offload;
        let refusal = |bytes: &[u8], offload| Segmenter::new(bytes, &offload).err();
        assert_eq!(refusal(whole.bytes(), Offload::NONE), Some(BadSegmentation::NotGso));
        assert_eq!(refusal(whole.bytes(), Offload { csum, gso: None }), Some(BadSegmentation::NotGso));
        assert_eq!(
            refusal(whole.bytes(), Offload { csum: None, gso }),
            Some(BadSegmentation::Offload(BadOffload::GsoCsum))
        );
        let inner = csum.map(|c| Csum { start: c.start + 50, ..c });
        assert_eq!(refusal(whole.bytes(), Offload { csum: inner, gso }), Some(BadSegmentation::Protocol));
        let tcp6 = gso.map(|g| Gso { kind: GsoKind::Tcp6, ..g });
        assert_eq!(refusal(whole.bytes(), Offload { csum, gso: tcp6 }), Some(BadSegmentation::Protocol));
        let tiny = gso.map(|g| Gso { size: 1, ..g });
        assert_eq!(refusal(whole.bytes(), Offload { csum, gso: tiny }), Some(BadSegmentation::TooMany));
        let mut fragment = whole.bytes().to_vec();
        fragment[20] |= 0x20;
        assert_eq!(refusal(&fragment, whole.meta().offload), Some(BadSegmentation::Fragment));
        for len in 0..whole.bytes().len() {
            assert!(Segmenter::new(&whole.bytes()[..len], &whole.meta().offload).is_err(), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn segments_make_the_whole(
            payload in proptest::collection::vec(any::<u8>(), 1..5000),
            size in 8..2000_u16,
            (is_v4, is_tcp, tags) in any::<(bool, bool, u8)>(),
        ) {
            let mut builder = if is_v4 { v4() } else { v6() };
            for vid in 0..tags % 3 {
                builder = builder.tag(Tag::dot1q(u16::from(vid)));
            }
            builder = if is_tcp { builder.tcp(5, 6, 0x18) } else { builder.udp(5, 6) };
            let whole = builder.payload(&payload).gso(size);
            let headers = l4_header_end(whole.bytes(), &whole.meta().offload).unwrap();
            let finished = segments(&whole, true);
            let mut unfinished = segments(&whole, false);
            let mut seen = Vec::new();
            for ((bytes, _), (partial, offload)) in finished.iter().zip(&mut unfinished) {
                oracle::assert_checksums(bytes);
                prop_assert!(bytes.len() <= headers + usize::from(size));
                seen.extend_from_slice(&bytes[headers..]);
                // The unfinished segment is known as such, and finished becomes the same.
                prop_assert_eq!(crate::recognise(partial), offload.csum);
                complete(partial, offload.csum.unwrap()).unwrap();
                prop_assert_eq!(bytes, partial);
            }
            prop_assert_eq!(seen, payload);
        }

        #[test]
        fn hostile_bytes_and_metadata_never_panic(
            mut bytes in any::<Vec<u8>>(), start in 0..80_u16, offset in 0..20_u16, size in any::<u16>(), kind in 0..3_usize, flip in any::<(usize, u8)>(),
        ) {
            let mut whole = v4().tcp(1, 2, 0x10).payload(&bytes).gso(1).bytes().to_vec();
            let at = flip.0 % 60 % whole.len();
            whole[at] ^= flip.1;
            let kind = [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp][kind];
            let gso = Some(Gso { kind, size, ecn: false });
            for (bytes, csum) in [
                (&mut whole, Csum { start: 34, offset: 16 }),
                (&mut bytes, Csum { start, offset }),
            ] {
                if let Ok(mut segmenter) = Segmenter::new(bytes, &Offload { csum: Some(csum), gso }) {
                    let mut buffer = [0; 2000];
                    while segmenter.next_into(&mut buffer, true).is_some() {}
                }
            }
        }
    }
}
