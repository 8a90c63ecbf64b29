//! Whether unfinished work is what a sender's stack leaves to a device.
//!
//! Whoever finishes a checksum writes two bytes (four for SCTP) that the sender of the frame has as good as chosen. Written
//! anywhere else than into a checksum they would change what guard and filters have judged: a port, an ICMP type, an
//! address in ARP.
//!
//! Linux leaves to devices the checksums of TCP, UDP and SCTP, and GRE's where it has one, in whole packets alone: what it
//! fragments it finishes first. Those of ICMP, ICMPv6, IGMP, DCCP and UDP-Lite it computes itself. A tunnel of its own leaves
//! either its own checksum or that of the packet inside.

use crate::classify::{IpVersion, Layers, classify, protocol};
use crate::{BadOffload, Csum, GsoKind, Offload, sctp, tcp, tunnel, udp};

/// Tunnels inside each other that are followed, as many as Linux makes (`IP_TUNNEL_RECURSION_LIMIT`).
const MAX_TUNNELS: usize = 4;

impl Offload {
    /// Whether this can be true of the frame `bytes`, which a guest wrote: what [`Offload::check`] asks, and that the
    /// checksum is that of a TCP, UDP, SCTP or GRE header of the frame's packet, or of one in a tunnel, and GSO is of
    /// that header's protocol.
    ///
    /// # Errors
    /// What does not fit.
    pub fn verify(&self, bytes: &[u8]) -> Result<(), BadOffload> {
        self.check_gso()?;
        let Some(csum) = self.csum else { return Ok(()) };
        let layers = owner(bytes, csum).ok_or(BadOffload::Csum)?;
        match self.gso {
            Some(gso) if !suits(gso.kind, &layers) => Err(BadOffload::GsoProtocol),
            _ => Ok(()),
        }
    }
}

/// Offset of the checksum that stacks leave unfinished in the header of this protocol, in bytes.
#[inline]
pub(crate) const fn checksum_offset(protocol: u8) -> Option<u16> {
    match protocol {
        protocol::TCP => Some(tcp::CHECKSUM_OFFSET),
        protocol::UDP => Some(udp::CHECKSUM_OFFSET),
        protocol::SCTP => Some(sctp::CHECKSUM_OFFSET),
        protocol::GRE => Some(tunnel::GRE_CHECKSUM_OFFSET),
        _ => None,
    }
}

/// Whether a packet with these headers can be cut as this kind says.
pub(crate) fn suits(kind: GsoKind, layers: &Layers) -> bool {
    match kind {
        GsoKind::Tcp4 => (layers.version, layers.protocol) == (IpVersion::V4, protocol::TCP),
        GsoKind::Tcp6 => (layers.version, layers.protocol) == (IpVersion::V6, protocol::TCP),
        GsoKind::Udp => layers.protocol == protocol::UDP,
    }
}

/// The packet whose checksum this is.
#[inline]
fn owner(bytes: &[u8], csum: Csum) -> Option<Layers> {
    let layers = classify(bytes).ok()?;
    let layers = if layers.l4 == usize::from(csum.start) { layers } else { tunnelled(bytes, layers, csum)? };
    let is_whole = !layers.fragment && csum.field_end() <= layers.end;
    (is_whole && has_checksum(bytes, &layers, csum)).then_some(layers)
}

/// The packet inside `outer` whose L4 header is where the checksum starts.
#[cold]
fn tunnelled(bytes: &[u8], outer: Layers, csum: Csum) -> Option<Layers> {
    let mut layers = outer;
    for _ in 0..MAX_TUNNELS {
        if layers.fragment {
            return None;
        }
        layers = tunnel::inner(bytes, &layers).ok()?;
        if layers.l4 == usize::from(csum.start) {
            return Some(layers);
        }
    }
    None
}

/// Whether the L4 header of the packet has its checksum there.
#[inline]
fn has_checksum(bytes: &[u8], layers: &Layers, csum: Csum) -> bool {
    let is_optional = layers.protocol == protocol::GRE;
    checksum_offset(layers.protocol) == Some(csum.offset)
        && (!is_optional || bytes.get(layers.l4..layers.end).is_some_and(tunnel::has_gre_checksum))
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::testing::{FrameBuilder, frame};
    use crate::vlan::TPID_8021AD;
    use crate::{FrameBuf, Gso, Mac, Tag};

    fn v4() -> FrameBuilder {
        frame(Mac([2; 6]), Mac([4; 6])).ip([10, 0, 0, 1], [10, 0, 0, 2])
    }

    fn v6() -> FrameBuilder {
        frame(Mac([2; 6]), Mac([4; 6])).ip([0xfd; 16], [0xfe; 16])
    }

    /// A frame whose packet's payload, 40 bytes, is said to be of this protocol.
    fn raw(builder: FrameBuilder, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let is_v4 = classify(&builder.bytes()).unwrap().version == IpVersion::V4;
        let mut bytes = builder.payload(payload).bytes();
        bytes[if is_v4 { 14 + 9 } else { 14 + 6 }] = protocol;
        bytes
    }

    /// Every start and offset at which this frame may have an unfinished checksum.
    fn places(bytes: &[u8]) -> Vec<(u16, u16)> {
        let all = (0..=bytes.len() as u16 + 1).flat_map(|start| (0..24).map(move |offset| (start, offset)));
        let is_true = |&(start, offset): &(u16, u16)| {
            Offload { csum: Some(Csum { start, offset }), gso: None }.verify(bytes).is_ok()
        };
        all.filter(is_true).collect()
    }

    fn vxlan(inner: &[u8]) -> Vec<u8> {
        [&[8, 0, 0, 0, 0, 0, 7, 0], inner].concat()
    }

    #[test]
    fn one_place_for_each_protocol_and_none_for_others() {
        for (protocol, offset) in [(6, 16), (17, 6), (132, 8)] {
            assert_eq!(places(&raw(v4(), protocol, &[0; 40])), [(34, offset)]);
            assert_eq!(places(&raw(v6(), protocol, &[0; 40])), [(54, offset)]);
        }
        // ICMP, IGMP, DCCP, ESP, AH, ICMPv6, UDP-Lite, and GRE without a checksum.
        for protocol in [1, 2, 33, 50, 51, 58, 136, 47] {
            assert_eq!(places(&raw(v4(), protocol, &[0; 40])), []);
            assert_eq!(places(&raw(v6(), protocol, &[0; 40])), []);
        }
        assert_eq!(places(&raw(v4(), 47, &[&[0x80, 0, 8, 0][..], &[0; 36]].concat())), [(34, 4)]);
        let other = frame(Mac([2; 6]), Mac([4; 6])).payload(&[0; 60]);
        for ether_type in [60, 0x0806, 0x8100, 0x8864, 0x9100, 0x88b5] {
            assert_eq!(places(&other.clone().ether_type(ether_type).bytes()), []);
        }
    }

    #[test]
    fn behind_tags_options_and_extension_headers() {
        for tags in 0..4 {
            let tagged = (0..tags).fold(v6(), |b, vid| b.tag(Tag { tpid: TPID_8021AD, tci: vid }));
            assert_eq!(places(&tagged.tcp(1, 2, 0).bytes()), [(54 + 4 * tags, 16)]);
        }
        let mut options = raw(v4(), 6, &[0; 44]);
        options[14] = 0x46;
        assert_eq!(places(&options), [(38, 16)]);
        let udp = |extension: [u8; 8], next| raw(v6(), next, &[&extension[..], &[0; 20]].concat());
        assert_eq!(places(&udp([17, 0, 1, 4, 0, 0, 0, 0], 60)), [(62, 6)]);
        // On its way through a segment routing header (RFC 8754).
        assert_eq!(places(&udp([17, 0, 4, 1, 0, 0, 0, 0], 43)), [(62, 6)]);
        // An atomic fragment (RFC 6946), then real ones.
        assert_eq!(places(&udp([17, 0, 0, 0, 0, 0, 0, 1], 44)), [(62, 6)]);
        assert_eq!(places(&udp([17, 0, 0, 1, 0, 0, 0, 1], 44)), []);
        assert_eq!(places(&udp([17, 0, 0, 8, 0, 0, 0, 1], 44)), []);
        let mut fragment = v4().udp(1, 2).payload(&[0; 40]).bytes();
        fragment[20] = 0x20;
        assert_eq!(places(&fragment), []);
    }

    #[test]
    fn the_field_is_inside_the_packet() {
        let padded = [&raw(v4(), 17, &[0; 7])[..], &[0; 20]].concat();
        assert_eq!(places(&padded), []);
        assert_eq!(places(&raw(v4(), 132, &[0; 11])), []);
        assert_eq!(places(&raw(v4(), 132, &[0; 12])), [(34, 8)]);
    }

    #[test]
    fn a_tunnels_own_checksum_or_the_one_inside() {
        let inner = v6().tcp(5, 6, 0).bytes();
        // A port of the sender's choice too.
        for port in [4789, 8472, 5000] {
            let outer = v4().udp(1, port).payload(&vxlan(&inner)).bytes();
            assert_eq!(places(&outer), [(34, 6), (50 + 54, 16)]);
        }
        let geneve =
            v4().udp(1, 6081).payload(&[&[1, 0, 0x65, 0x58, 0, 0, 7, 0, 0, 0, 0, 0], &inner[..]].concat());
        assert_eq!(places(&geneve.bytes()), [(34, 6), (54 + 54, 16)]);
        assert_eq!(places(&raw(v4(), 41, &inner[14..])), [(34 + 40, 16)]);
        let gre = [&[0xb0, 0, 0x65, 0x58][..], &[0; 12], &inner].concat();
        assert_eq!(places(&raw(v4(), 47, &gre)), [(34, 4), (50 + 54, 16)]);
        // A tunnel in a tunnel: any of the three.
        let nested = v4().udp(1, 4789).payload(&vxlan(&raw(v4(), 47, &gre))).bytes();
        assert_eq!(places(&nested), [(34, 6), (84, 4), (50 + 50 + 54, 16)]);
        let mut fragment = nested;
        fragment[20] = 0x20;
        assert_eq!(places(&fragment), []);
        // No I flag: no VXLAN.
        let plain = v4().udp(1, 5000).payload(&[&[0; 8][..], &inner].concat()).bytes();
        assert_eq!(places(&plain), [(34, 6)]);
    }

    #[test]
    fn gso_is_of_the_frames_protocol() {
        let frames = [v4().tcp(1, 2, 0), v6().tcp(1, 2, 0), v4().udp(1, 2), v6().udp(1, 2)];
        let kinds = [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp, GsoKind::Udp];
        for (built, own) in frames.into_iter().zip(kinds) {
            let frame = built.payload(&[0; 100]).unfinished();
            for kind in [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp] {
                let gso = Some(Gso { kind, size: 50, ecn: false });
                let work = Offload { gso, ..frame.meta().offload };
                assert_eq!(work.verify(frame.bytes()).is_ok(), kind == own, "{kind:?} of {own:?}");
            }
        }
    }
}
