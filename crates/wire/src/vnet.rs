//! `virtio_net_hdr`, the ten bytes before each frame of a tap or packet socket (VIRTIO 1.2 section 5.1.6),
//! and their meaning as [`Offload`]. Numbers are in native order, as the kernel's legacy interface has them.

use crate::{BadOffload, Csum, Gso, GsoKind, Offload};

/// Bytes of the header.
pub const HEADER_LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What `header` says of `frame`, the bytes after it. A guest writes both, so nothing is taken on trust:
/// what is returned has passed [`Offload::check`]. `hdr_len`, a hint, is not looked at.
///
/// # Errors
/// [`BadOffload`]. Linux too refuses unknown kinds. GSO without an unfinished checksum is refused as VIRTIO 1.2
/// section 5.1.6.2 demands; so is UFO (`VIRTIO_NET_HDR_GSO_UDP`), which nobody negotiates here.
pub fn parse(header: &[u8; HEADER_LEN], frame: &[u8]) -> Result<Offload, BadOffload> {
    let [flags, gso_type, _, _, size0, size1, start0, start1, offset0, offset1] = *header;
    let csum = (flags & NEEDS_CSUM != 0).then(|| Csum {
        start: u16::from_ne_bytes([start0, start1]),
        offset: u16::from_ne_bytes([offset0, offset1]),
    });
    let size = u16::from_ne_bytes([size0, size1]);
    let kind = match gso_type {
        GSO_NONE => None,
        GSO_UDP_L4 => Some(GsoKind::Udp),
        tcp => match tcp & !GSO_ECN {
            GSO_TCPV4 => Some(GsoKind::Tcp4),
            GSO_TCPV6 => Some(GsoKind::Tcp6),
            _ => return Err(BadOffload::GsoKind(gso_type)),
        },
    };
    let gso = kind.map(|kind| Gso { kind, size, ecn: gso_type & GSO_ECN != 0 });
    let offload = Offload { csum, gso };
    offload.check(frame)?;
    Ok(offload)
}

/// The header for a frame with this offload. `hdr_len` is the bytes of all headers of a GSO frame, see
/// [`crate::segment::l4_header_end`]; it is not used for other frames.
#[must_use]
pub fn emit(offload: Offload, hdr_len: u16) -> [u8; HEADER_LEN] {
    let (mut flags, mut gso_type, mut len, mut size) = (0, GSO_NONE, 0, 0);
    let mut csum = Csum { start: 0, offset: 0 };
    if let Some(c) = offload.csum {
        flags = NEEDS_CSUM;
        csum = c;
    }
    if let Some(gso) = offload.gso {
        gso_type = match gso.kind {
            GsoKind::Tcp4 => GSO_TCPV4,
            GsoKind::Tcp6 => GSO_TCPV6,
            GsoKind::Udp => GSO_UDP_L4,
        };
        if gso.ecn {
            gso_type |= GSO_ECN;
        }
        (len, size) = (hdr_len, gso.size);
    }
    let ([l0, l1], [s0, s1]) = (len.to_ne_bytes(), size.to_ne_bytes());
    let ([c0, c1], [o0, o1]) = (csum.start.to_ne_bytes(), csum.offset.to_ne_bytes());
    [flags, gso_type, l0, l1, s0, s1, c0, c1, o0, o1]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Mac, testing::frame};

    fn tcp4() -> std::vec::Vec<u8> {
        frame(Mac([2; 6]), Mac([4; 6]))
            .ip([10, 0, 0, 1], [10, 0, 0, 2])
            .tcp(1, 2, 0x10)
            .payload(&[1; 3000])
            .bytes()
    }

    fn header(flags: u8, gso_type: u8, size: u16, start: u16, offset: u16) -> [u8; HEADER_LEN] {
        let ([s0, s1], [c0, c1], [o0, o1]) = (size.to_ne_bytes(), start.to_ne_bytes(), offset.to_ne_bytes());
        [flags, gso_type, 0, 0, s0, s1, c0, c1, o0, o1]
    }

    #[test]
    fn literal_headers() {
        let csum = Some(Csum { start: 34, offset: 16 });
        let gso = |kind, ecn| Some(Gso { kind, size: 1448, ecn });
        let cases = [
            (header(0, 0, 0, 0, 0), Ok(Offload::NONE)),
            (header(2, 0, 0, 0, 0), Ok(Offload::NONE)), // DATA_VALID
            (header(1, 0, 0, 34, 16), Ok(Offload { csum, gso: None })),
            (header(1, 1, 1448, 34, 16), Ok(Offload { csum, gso: gso(GsoKind::Tcp4, false) })),
            (header(1, 0x81, 1448, 34, 16), Ok(Offload { csum, gso: gso(GsoKind::Tcp4, true) })),
            (header(1, 4, 1448, 34, 16), Ok(Offload { csum, gso: gso(GsoKind::Tcp6, false) })),
            (header(1, 1, 0, 34, 16), Err(BadOffload::GsoSize)),
            (header(0, 1, 1448, 34, 16), Err(BadOffload::GsoCsum)),
            (header(1, 5, 1448, 34, 16), Err(BadOffload::GsoCsum)), // UDP with TCP's checksum
            (header(1, 3, 1448, 34, 6), Err(BadOffload::GsoKind(3))), // UFO
            (header(1, 0x80, 1448, 34, 16), Err(BadOffload::GsoKind(0x80))),
            (header(1, 0x85, 1448, 34, 6), Err(BadOffload::GsoKind(0x85))),
            (header(1, 0x24, 1448, 34, 16), Err(BadOffload::GsoKind(0x24))),
            (header(1, 0, 0, 33, 16), Err(BadOffload::Csum)), // in the addresses
            (header(1, 0, 0, 0, 12), Err(BadOffload::Csum)),  // the EtherType
            (header(1, 0, 0, 34, 65535), Err(BadOffload::Csum)),
            (header(1, 0, 0, 65535, 65535), Err(BadOffload::Csum)),
            (
                header(1, 0, 0, 3052, 0),
                Ok(Offload { csum: Some(Csum { start: 3052, offset: 0 }), gso: None }),
            ),
            (header(1, 0, 0, 3053, 0), Err(BadOffload::Csum)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(parse(&bytes, &tcp4()), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_checksum_in_a_tag_is_refused() {
        let mut tagged = tcp4();
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        assert_eq!(parse(&header(1, 0, 0, 37, 0), &tagged), Err(BadOffload::Csum));
        assert!(parse(&header(1, 0, 0, 38, 16), &tagged).is_ok());
        assert_eq!(parse(&header(1, 0, 0, 38, 16), &tagged[..17]), Err(BadOffload::Csum));
    }

    #[test]
    fn hdr_len_is_given_for_gso_only() {
        let csum = Some(Csum { start: 34, offset: 16 });
        assert_eq!(emit(Offload { csum, gso: None }, 54), header(1, 0, 0, 34, 16));
        let gso = Some(Gso { kind: GsoKind::Tcp4, size: 1448, ecn: false });
        let mut expected = header(1, 1, 1448, 34, 16);
        expected[2..4].copy_from_slice(&54_u16.to_ne_bytes());
        assert_eq!(emit(Offload { csum, gso }, 54), expected);
    }

    proptest! {
        #[test]
        fn what_is_parsed_is_emitted(bytes: [u8; HEADER_LEN], offset in 0..20_u16) {
            let mut bytes = bytes;
            bytes[8..].copy_from_slice(&offset.to_ne_bytes());
            if let Ok(offload) = parse(&bytes, &tcp4()) {
                prop_assert_eq!(parse(&emit(offload, 54), &tcp4()), Ok(offload));
            }
        }

        #[test]
        fn emitted_is_parsed(start in 34..3000_u16, kind in 0..4, size in 1..u16::MAX, ecn: bool) {
            let (kind, offset) = match kind {
                0 => (None, 0),
                1 => (Some(GsoKind::Tcp4), 16),
                2 => (Some(GsoKind::Tcp6), 16),
                _ => (Some(GsoKind::Udp), 6),
            };
            let gso = kind.map(|kind| Gso { kind, size, ecn: ecn && kind != GsoKind::Udp });
            let offload = Offload { csum: Some(Csum { start, offset }), gso };
            prop_assert_eq!(parse(&emit(offload, 54), &tcp4()), Ok(offload));
        }

        #[test]
        fn parse_never_panics(bytes: [u8; HEADER_LEN], frame: std::vec::Vec<u8>) {
            let _ = parse(&bytes, &frame);
        }
    }
}
