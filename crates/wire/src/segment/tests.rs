//! Segments against etherparse, and against the whole.

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
    assert!(refusal(whole.bytes(), Offload { csum: inner, gso }).is_some());
    assert!(!is_tunnelled(whole.bytes(), &whole.meta().offload));
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

/// `outer` with its payload of `header` and the GSO frame `inner`.
fn tunnelled(outer: &FrameBuilder, header: &[u8], inner: &VecFrame, skip: usize) -> VecFrame {
    let whole = outer.clone().payload(&[header, &inner.bytes()[skip..]].concat()).unfinished();
    let mut offload = inner.meta().offload;
    offload.shift_forward((whole.bytes().len() - inner.bytes().len()) as u16);
    VecFrame::new(whole.bytes()).with_offload(offload)
}

/// Asserts that the segments of `whole`, finished or not, are right at both levels; the inner frame is at `at`.
fn assert_tunnelled(whole: &VecFrame, at: usize, payload: &[u8]) {
    assert!(is_tunnelled(whole.bytes(), &whole.meta().offload));
    let headers = l4_header_end(whole.bytes(), &whole.meta().offload).unwrap();
    let mut seen = Vec::new();
    for ((bytes, offload), (mut partial, left)) in
        segments(whole, true).into_iter().zip(segments(whole, false))
    {
        assert_eq!(offload, Offload::NONE);
        if at > 34 {
            oracle::assert_checksums(&bytes[at..]);
        }
        assert_eq!(crate::recognise(&mut partial), left.csum);
        complete(&mut partial, left.csum.unwrap()).unwrap();
        assert_eq!(partial, bytes);
        seen.extend_from_slice(&bytes[headers..]);
    }
    assert_eq!(seen, payload);
}

#[test]
fn vxlan_is_cut_with_what_is_in_it() {
    let payload: Vec<u8> = (0..5000).map(|i| i as u8).collect();
    for (inner, outer) in [(v4(), v4()), (v6(), v4()), (v4(), v6()), (v6(), v6())] {
        let inner = inner.tcp(5, 6, 0x18).payload(&payload).gso(1399);
        let outer = outer.udp(50000, tunnel::VXLAN);
        let mut whole = tunnelled(&outer, &[8, 0, 0, 0, 0, 0, 7, 0], &inner, 0);
        let at = whole.bytes().len() - inner.bytes().len();
        assert_tunnelled(&whole, at, &payload);
        segments(&whole, true).iter().for_each(|(bytes, _)| oracle::assert_checksums(bytes));
        // Without an outer checksum there is none in the segments.
        let field = at - 10..at - 8;
        whole.bytes_mut()[field.clone()].fill(0);
        assert_tunnelled(&whole, at, &payload);
        assert!(segments(&whole, true).iter().all(|(bytes, _)| bytes[field.clone()] == [0, 0]));
    }
}

#[test]
fn gre_and_ip_in_ip_are_cut_with_what_is_in_them() {
    let inner = v4().tcp(5, 6, 0x18).payload(&[3; 3000]).gso(1000);
    let of = |protocol: u8, header: &[u8], skip: usize| {
        let mut whole = tunnelled(&v4(), header, &inner, skip);
        whole.bytes_mut()[23] = protocol;
        whole
    };
    assert_tunnelled(&of(protocol::IPV4, &[], 14), 34, &[3; 3000]);
    assert_tunnelled(&of(protocol::GRE, &[0, 0, 0x65, 0x58], 0), 38, &[3; 3000]);
    let checked = of(protocol::GRE, &[0x80, 0, 0x65, 0x58, 0, 0, 0, 0], 0);
    assert_tunnelled(&checked, 42, &[3; 3000]);
    for (bytes, _) in segments(&checked, true) {
        assert_eq!(Sum::of(&bytes[34..]).folded(), 0xffff);
    }
    let sequenced = of(protocol::GRE, &[0x10, 0, 0x65, 0x58, 0, 0, 0, 1], 0);
    let refusal = Segmenter::new(sequenced.bytes(), &sequenced.meta().offload).err();
    assert_eq!(refusal, Some(BadSegmentation::Protocol));
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
