//! Finding unfinished checksums in frames that come without metadata.
//!
//! A veth or tap gives AF_XDP the bytes of a frame whose checksum the sender's kernel has left to "the
//! device", without saying so. But the bytes tell:
//!
//! * TCP and UDP: the field holds the folded sum of the pseudo-header. A finished checksum has this value
//!   in one frame of 65536, and finishing it once more gives the value that it has.
//! * SCTP: the field is zero (see [`crate::sctp`]), as it is by chance once in 2^32.
//! * GRE with a checksum: the field is zero; Linux sums the whole of it later.
//!
//! A sender's own tunnel (VXLAN, Geneve, GRE, IP in IP) leaves either the inner checksum unfinished, the
//! outer one being finished already for what the inner one will be, or the outer one over a finished inner.
//! When the outer one looks unfinished while the inner one does too, one of them does so by chance, and nothing tells
//! which: the inner one is finished on the spot, which is right in both cases, and after it the outer one may be.
//! Were it left at one of them, a flow whose outer checksum looks so (it is the same in each frame of a flow
//! and a length) would be lost for ever.

use crate::classify::{IpVersion, Layers, classify, protocol};
use crate::unfinished::checksum_offset;
use crate::{Csum, Gso, GsoKind, complete, tcp, tunnel};

/// The unfinished checksum of a frame that came without metadata, if it has one.
///
/// Writes only where both the checksum of a tunnel and the one inside it look unfinished, and then the inner
/// one. Fragments and packets with bytes other than zero behind them never have one.
#[inline]
pub fn recognise(bytes: &mut [u8]) -> Option<Csum> {
    let layers = classify(bytes).ok()?;
    let outer = unfinished(bytes, &layers);
    if is_plain(bytes, &layers) { outer } else { tunnelled(bytes, &layers, outer) }
}

/// How a frame without metadata is to be cut: one of TCP that is longer than its sender's `mtu`, in bytes. `csum`
/// is what [`recognise`] found in it.
///
/// The bytes do not tell the size of the segments, so they are as large as the MTU allows. (Its sender may have
/// asked for smaller ones, for a path with a smaller MTU; only metadata could tell.) UDP has no such answer, since
/// the size of its datagrams means something to the receiver.
#[must_use]
pub fn recognise_gso(bytes: &[u8], csum: Csum, mtu: usize) -> Option<Gso> {
    let outer = classify(bytes).ok()?;
    if bytes.len() <= outer.l3 + mtu {
        return None;
    }
    let is_here = |layers: &Layers| layers.l4 == usize::from(csum.start);
    let layers = if is_here(&outer) { outer } else { tunnel::inner(bytes, &outer).ok().filter(is_here)? };
    if layers.protocol != protocol::TCP {
        return None;
    }
    let kind = match layers.version {
        IpVersion::V4 => GsoKind::Tcp4,
        IpVersion::V6 => GsoKind::Tcp6,
    };
    let header = tcp::Header::new_checked(bytes.get(layers.l4..)?).ok()?;
    let headers = layers.l4 + header.header_len() - outer.l3;
    let size = u16::try_from(mtu.checked_sub(headers)?).ok().filter(|size| *size != 0)?;
    Some(Gso { kind, size, ecn: header.flags() & tcp::CWR != 0 })
}

/// TCP, or UDP that is no tunnel: nearly every frame.
#[inline]
fn is_plain(bytes: &[u8], layers: &Layers) -> bool {
    match layers.protocol {
        protocol::TCP => true,
        protocol::UDP => match bytes.get(layers.l4 + 2..).and_then(<[u8]>::first_chunk) {
            Some(port) => !tunnel::is_port(u16::from_be_bytes(*port)),
            None => true,
        },
        _ => false,
    }
}

/// The checksum of this packet itself.
#[inline]
fn unfinished(bytes: &[u8], layers: &Layers) -> Option<Csum> {
    let offset = checksum_offset(layers.protocol)?;
    let l4 = bytes.get(layers.l4..layers.end)?;
    let field = u16::from_be_bytes(*l4.get(usize::from(offset)..)?.first_chunk()?);
    let csum = Csum { start: u16::try_from(layers.l4).ok()?, offset };
    let matches = match layers.protocol {
        protocol::SCTP => field == 0 && is_unfinished_sctp(l4) && layers.end == bytes.len(),
        protocol::GRE => field == 0 && tunnel::has_gre_checksum(l4),
        _ => field == layers.pseudo_header().folded() && !layers.routed,
    };
    // The kernel sums to the frame's end, so what is behind the packet must not count.
    (matches && !layers.fragment && bytes.get(layers.end..)?.iter().all(|b| *b == 0)).then_some(csum)
}

#[cold]
fn tunnelled(bytes: &mut [u8], layers: &Layers, outer: Option<Csum>) -> Option<Csum> {
    if layers.fragment {
        return None;
    }
    let inner = tunnel::inner(bytes, layers).ok().and_then(|inner| unfinished(bytes, &inner));
    match (outer, inner) {
        (Some(outer), Some(inner)) => {
            // Cannot fail: `unfinished` has read the field.
            complete(bytes, inner).ok()?;
            Some(outer)
        }
        (outer, inner) => outer.or(inner),
    }
}

fn is_unfinished_sctp(l4: &[u8]) -> bool {
    l4.get(8..12).is_some_and(|field| field == [0; 4])
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::checksum::Sum;
    use crate::testing::{FrameBuilder, frame};
    use crate::{FrameBuf, Mac, Tag, oracle, sctp};

    fn v4() -> FrameBuilder {
        frame(Mac([2; 6]), Mac([4; 6])).ip([10, 0, 0, 1], [10, 0, 0, 2])
    }

    fn v6() -> FrameBuilder {
        frame(Mac([2; 6]), Mac([4; 6])).ip([0xfd; 16], [0xfe; 16])
    }

    /// Recognises until nothing is unfinished, as ports do before a frame that must be whole.
    fn finish(bytes: &mut [u8]) {
        if let Some(csum) = recognise(bytes) {
            complete(bytes, csum).unwrap();
        }
    }

    /// `inner` behind a VXLAN header (RFC 7348 section 5).
    fn vxlan(inner: &[u8]) -> Vec<u8> {
        [&[8, 0, 0, 0, 0, 0, 7, 0], inner].concat()
    }

    /// An IPv4 frame of any protocol.
    fn raw_v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = v4().payload(payload).bytes();
        bytes[23] = protocol;
        bytes[24..26].fill(0);
        let checksum = Sum::of(&bytes[14..34]).checksum();
        bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// The outer UDP checksum as Linux makes it over an unfinished inner one: right once that is finished.
    fn finish_outer_for_inner(frame: &mut [u8], inner_start: usize) {
        let outer = recognise_level(frame);
        let mut whole = frame.to_vec();
        let inner = Csum { start: inner_start as u16, offset: 16 };
        complete(&mut whole, inner).unwrap();
        complete(&mut whole, outer).unwrap();
        let field = usize::from(outer.start + outer.offset);
        frame[field..field + 2].copy_from_slice(&whole[field..field + 2]);
    }

    fn recognise_level(frame: &[u8]) -> Csum {
        unfinished(frame, &classify(frame).unwrap()).unwrap()
    }

    #[test]
    fn plain_frames_of_each_kind() {
        for ip in [v4(), v6()] {
            for tags in 0..3 {
                let tagged = (0..tags).fold(ip.clone(), |frame, _| frame.tag(Tag::dot1q(10)));
                for built in [tagged.clone().tcp(1, 2, 0x10), tagged.udp(3, 4)] {
                    let built = built.payload(b"payload");
                    let mut frame = built.unfinished();
                    let csum = frame.meta().offload.csum;
                    assert_eq!(recognise(frame.bytes_mut()), csum);
                    finish(frame.bytes_mut());
                    assert_eq!(frame.bytes(), built.bytes());
                    assert_eq!(recognise(frame.bytes_mut()), None);
                }
            }
        }
    }

    #[test]
    fn what_has_no_l4_checksum_is_left_alone() {
        let mut no_udp_checksum = v4().udp(1, 2).bytes();
        no_udp_checksum[40..42].fill(0);
        let mut fragment = v4().udp(1, 2).unfinished().bytes().to_vec();
        fragment[20] |= 0x20;
        let mut padded = v4().udp(1, 2).unfinished().bytes().to_vec();
        padded.push(1);
        for mut frame in [no_udp_checksum, fragment, padded, v4().bytes(), raw_v4(1, &[0; 20])] {
            let before = frame.clone();
            assert_eq!(recognise(&mut frame), None);
            assert_eq!(frame, before);
        }
    }

    #[test]
    fn zero_padding_does_not_matter() {
        let built = v4().udp(1, 2).payload(b"odd");
        let mut padded = built.unfinished().bytes().to_vec();
        padded.resize(60, 0);
        finish(&mut padded);
        assert_eq!(padded[..45], built.bytes());
    }

    #[test]
    fn a_chance_hit_changes_nothing() {
        // Make the finished checksum equal the pseudo-header's sum by choice of two bytes.
        let built = v4().udp(1, 2).payload(&[0; 2]);
        let pseudo_header = classify(&built.bytes()).unwrap().pseudo_header();
        let header = Sum::of(&built.bytes()[34..40]);
        // sum(all) = 0xffff, with the field equal to the pseudo-header's sum.
        let word = pseudo_header.plus(pseudo_header).plus(header).checksum();
        let mut frame = built.payload(&word.to_be_bytes()).bytes();
        oracle::assert_checksums(&frame);
        let before = frame.clone();
        assert!(recognise(&mut frame).is_some());
        finish(&mut frame);
        assert_eq!(frame, before);
    }

    #[test]
    fn a_tunnels_inner_checksum() {
        let inner = v6().tcp(5, 6, 0x18).payload(b"inside");
        let finished = vxlan(&inner.bytes());
        let unfinished = vxlan(inner.unfinished().bytes());
        for outer in [v4(), v6()] {
            for port in [tunnel::VXLAN, tunnel::VXLAN_LINUX] {
                let outer = outer.clone().udp(50000, port);
                let whole = outer.clone().payload(&finished).bytes();
                let at = whole.len() - inner.bytes().len();
                // The outer one finished for what the inner one will be.
                let mut frame = outer.clone().payload(&unfinished).unfinished().bytes().to_vec();
                finish_outer_for_inner(&mut frame, at + 54);
                finish(&mut frame);
                assert_eq!(frame, whole);
                // The outer one unfinished over a finished inner.
                let mut frame = outer.clone().payload(&finished).unfinished().bytes().to_vec();
                finish(&mut frame);
                assert_eq!(frame, whole);
                // Both look so: one may by chance.
                let mut frame = outer.clone().payload(&unfinished).unfinished().bytes().to_vec();
                finish(&mut frame);
                assert_eq!(frame, whole);
                // Both finished.
                assert_eq!(recognise(&mut whole.clone()), None);
            }
        }
    }

    #[test]
    fn other_tunnels() {
        let inner = v4().tcp(5, 6, 0x18).payload(b"inside");
        let (whole, part) = (inner.bytes(), inner.unfinished().bytes().to_vec());
        let behind = |header: &[u8], inner: &[u8]| [header, inner].concat();
        let geneve = |inner: &[u8]| {
            let header = [1, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 3, 4];
            let mut frame = v4().udp(50000, tunnel::GENEVE).payload(&behind(&header, inner)).bytes();
            frame[40..42].fill(0); // no outer checksum
            frame
        };
        let cases = [
            (geneve(&part), geneve(&whole)),
            (raw_v4(protocol::IPV4, &part[14..]), raw_v4(protocol::IPV4, &whole[14..])),
            (
                raw_v4(protocol::GRE, &behind(&[0, 0, 8, 0], &part[14..])),
                raw_v4(protocol::GRE, &behind(&[0, 0, 8, 0], &whole[14..])),
            ),
            (
                raw_v4(protocol::GRE, &behind(&[0x30, 0, 0x65, 0x58, 0, 0, 0, 1, 0, 0, 0, 2], &part)),
                raw_v4(protocol::GRE, &behind(&[0x30, 0, 0x65, 0x58, 0, 0, 0, 1, 0, 0, 0, 2], &whole)),
            ),
        ];
        for (mut frame, whole) in cases {
            finish(&mut frame);
            assert_eq!(frame, whole);
        }
    }

    #[test]
    fn gre_with_a_checksum() {
        let inner = v4().tcp(5, 6, 0x18).bytes();
        let mut frame = raw_v4(protocol::GRE, &[&[0x80, 0, 0x65, 0x58, 0, 0, 0, 0], &inner[..]].concat());
        assert_eq!(recognise(&mut frame), Some(Csum { start: 34, offset: 4 }));
        finish(&mut frame);
        assert_eq!(Sum::of(&frame[34..]).folded(), 0xffff);
        assert_eq!(recognise(&mut frame), None);
    }

    #[test]
    fn sctp_has_a_zero_field() {
        let mut frame = raw_v4(protocol::SCTP, &[9, 9, 9, 9, 1, 1, 1, 1, 0, 0, 0, 0, 3, 0, 0, 4]);
        let csum = recognise(&mut frame).unwrap();
        assert_eq!(csum, Csum { start: 34, offset: 8 });
        assert!(csum.is_crc32c());
        let crc = sctp::crc32c(&frame[34..]);
        finish(&mut frame);
        assert_eq!(frame[42..46], crc.to_le_bytes());
        assert_eq!(recognise(&mut frame), None);
        frame[42..46].fill(0);
        frame.push(0); // padding would be part of the CRC
        assert_eq!(recognise(&mut frame), None);
    }

    #[test]
    fn a_routed_packet_is_left_alone() {
        // RFC 8200 section 4.4: the checksum is over the last address of the routing header.
        let mut frame = v6().udp(1, 2).unfinished().bytes().to_vec();
        frame.splice(54..54, [17, 2, 0, 1].into_iter().chain([0; 20]));
        frame[20] = 43;
        frame[19] += 24;
        assert!(classify(&frame).unwrap().routed);
        assert_eq!(recognise(&mut frame), None);
        frame[57] = 0; // no segments left: the destination is the final one
        assert!(recognise(&mut frame).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes(mut bytes: Vec<u8>) {
            finish(&mut bytes);
        }

        #[test]
        fn flipped_and_cut_frames(
            which in 0..4_usize, at in any::<usize>(), flip in any::<u8>(), len in 0..200_usize,
        ) {
            let inner = v4().tcp(5, 6, 0x18).payload(b"inside").unfinished();
            let frames = [
                v6().udp(50000, tunnel::VXLAN).payload(&vxlan(inner.bytes())).unfinished().bytes().to_vec(),
                raw_v4(protocol::GRE, &[&[0x80, 0, 0x65, 0x58, 0, 0, 0, 0], inner.bytes()].concat()),
                raw_v4(protocol::IPV4, &inner.bytes()[14..]),
                inner.bytes().to_vec(),
            ];
            let mut frame = frames[which].clone();
            let at = at % frame.len();
            frame[at] ^= flip;
            frame.truncate(len);
            let before = frame.clone();
            finish(&mut frame);
            prop_assert_eq!(frame.len(), before.len());
            // Nothing before the L4 header is ever written.
            prop_assert_eq!(frame.get(..34), before.get(..34));
        }
    }

    #[test]
    fn only_tcp_beyond_the_mtu_is_to_be_cut() {
        const MTU: usize = 1500;
        let gso = |frame: &FrameBuilder| {
            let frame = frame.unfinished();
            recognise_gso(frame.bytes(), frame.meta().offload.csum.unwrap(), MTU)
        };
        let tcp = |ip: FrameBuilder, payload| ip.tcp(1, 2, tcp::CWR).payload(&[7; 60000][..payload]);
        let of = |kind, size| Some(Gso { kind, size, ecn: true });
        for tag in [None, Some(Tag::dot1q(10))] {
            let with_tag = |ip: FrameBuilder| tag.iter().fold(ip, |ip, tag| ip.tag(*tag));
            let (v4, v6) = (|| with_tag(v4()), || with_tag(v6()));
            assert_eq!(gso(&tcp(v4(), 1460)), None, "just as large as it may be");
            assert_eq!(gso(&tcp(v4(), 1461)), of(GsoKind::Tcp4, 1460));
            assert_eq!(gso(&tcp(v6(), 1440)), None);
            assert_eq!(gso(&tcp(v6(), 60000)), of(GsoKind::Tcp6, 1440));
            assert_eq!(gso(&v4().udp(1, 2).payload(&[7; 3000])), None, "datagrams have a meaning");
        }
    }

    #[test]
    fn tcp_in_a_tunnel_is_cut_so_that_the_outside_fits() {
        let inner = v6().tcp(1, 2, 0).payload(&[7; 3000]).unfinished();
        let outer = v4().udp(50000, tunnel::VXLAN).payload(&vxlan(inner.bytes())).bytes();
        let before = outer.len() - inner.bytes().len();
        let csum = inner.meta().offload.csum.unwrap();
        let csum = Csum { start: csum.start + before as u16, ..csum };
        let gso = recognise_gso(&outer, csum, 1500).unwrap();
        assert_eq!((gso.kind, gso.size), (GsoKind::Tcp6, 1500 - 20 - 8 - 8 - 14 - 40 - 20));
        assert_eq!(
            recognise_gso(&outer, Csum { start: 40, offset: 16 }, 1500),
            None,
            "no header begins there"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_have_gso_or_not(bytes: Vec<u8>, start: u16, mtu in 0_usize..70000) {
            let _ = recognise_gso(&bytes, Csum { start, offset: 16 }, mtu);
        }
    }
}
