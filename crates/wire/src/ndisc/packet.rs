//! What neighbours ask and answer, with the packet around it: read where it is valid, and written as whole frames.

use core::net::Ipv6Addr;

use super::{Flags, Kind, LinkLayer, Message, SOURCE, TARGET};
use crate::checksum::Sum;
use crate::classify::protocol;
use crate::{Mac, Malformed, ethernet, ipv6};

/// Bytes of a message that is written: its fixed part, and one option.
const MESSAGE_LEN: usize = 24 + 8;
/// Bytes of a frame that is written; it has no tag.
pub const FRAME_LEN: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + MESSAGE_LEN;

/// Whatever came over a router has a lower one (RFC 4861 section 7.1).
const HOP_LIMIT: u8 = 255;

/// A neighbour's solicitation or advertisement that whoever hears it is to believe. (Whom a station could deceive who
/// takes more for valid reads the [`Message`] alone.)
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Who sends it; nobody, where it asks whether an address is free (RFC 4862 section 5.4.2).
    pub source: Ipv6Addr,
    /// Whom it is for.
    pub destination: Ipv6Addr,
    /// The address that it is about.
    pub target: Ipv6Addr,
    /// The message.
    pub message: Message<'a>,
}

impl<'a> Packet<'a> {
    /// The IPv6 packet at the front of `bytes`; padding may follow it. Between its headers nothing may be (RFC 6980 forbids
    /// fragments; no stack writes other extensions here).
    ///
    /// # Errors
    /// [`Malformed::Foreign`] where it is no such message, [`Malformed::Void`] where RFC 4861 sections 7.1.1 and 7.1.2 want
    /// it ignored, and as [`Message::new_checked`].
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header = ipv6::Header::new_checked(bytes)?;
        let icmp = bytes.get(ipv6::HEADER_LEN..).and_then(|rest| rest.get(..header.payload_len()));
        let icmp = icmp.filter(|_| header.next_header() == protocol::ICMPV6).ok_or(Malformed::Foreign)?;
        let message = Message::new_checked(icmp)?;
        let is_neighbour =
            matches!(message.kind(), Kind::NeighbourSolicitation | Kind::NeighbourAdvertisement);
        let target = message.target().filter(|_| is_neighbour).ok_or(Malformed::Foreign)?;
        let packet = Self { source: header.source(), destination: header.destination(), target, message };
        let sum = ipv6::pseudo_header(packet.source, packet.destination, protocol::ICMPV6, icmp.len());
        let is_intact = header.hop_limit() == HOP_LIMIT
            && message.code() == 0
            && sum.plus(Sum::of(icmp)).folded() == 0xffff;
        if is_intact && packet.makes_sense() { Ok(packet) } else { Err(Malformed::Void) }
    }

    fn makes_sense(&self) -> bool {
        let from_nobody = self.source.is_unspecified();
        !self.target.is_multicast()
            && match self.message.kind() {
                Kind::NeighbourSolicitation if from_nobody => {
                    is_solicited_node(self.destination) && self.source_mac().is_none()
                }
                Kind::NeighbourAdvertisement => {
                    !(self.message.flags().solicited && self.destination.is_multicast())
                }
                _ => true,
            }
    }

    /// The Ethernet address that the sender says is its own; the first, if it says several.
    #[must_use]
    pub fn source_mac(&self) -> Option<Mac> {
        self.message.link_layers().find_map(|option| match option {
            LinkLayer::Source(mac) => Some(mac),
            LinkLayer::Target(_) => None,
        })
    }

    /// The Ethernet address that the target is said to have; the first, if several are said.
    #[must_use]
    pub fn target_mac(&self) -> Option<Mac> {
        self.message.link_layers().find_map(|option| match option {
            LinkLayer::Target(mac) => Some(mac),
            LinkLayer::Source(_) => None,
        })
    }
}

fn is_solicited_node(address: Ipv6Addr) -> bool {
    ipv6::solicited_node(address) == address
}

/// The frame by which `from` asks for the owner of `target`: all nodes that could be it, or the one that was `there`.
#[must_use]
pub fn solicitation(from: (Mac, Ipv6Addr), there: Option<Mac>, target: Ipv6Addr) -> [u8; FRAME_LEN] {
    let group = ipv6::solicited_node(target);
    let to = there.map_or((ipv6::group_mac(group), group), |mac| (mac, target));
    frame(from, to, target, (Kind::NeighbourSolicitation, Flags::default(), SOURCE))
}

/// The frame that tells `to` (a station, or [`ipv6::ALL_NODES`]) whose the address of `owner` is.
#[must_use]
pub fn advertisement(owner: (Mac, Ipv6Addr), to: (Mac, Ipv6Addr), flags: Flags) -> [u8; FRAME_LEN] {
    frame(owner, to, owner.1, (Kind::NeighbourAdvertisement, flags, TARGET))
}

/// The option says the sender's MAC.
fn frame(
    from: (Mac, Ipv6Addr),
    to: (Mac, Ipv6Addr),
    target: Ipv6Addr,
    (kind, flags, option): (Kind, Flags, u8),
) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    let (header, packet) = frame.split_at_mut(ethernet::HEADER_LEN);
    header.copy_from_slice(&ethernet::header(to.0, from.0, ethernet::TYPE_IPV6));
    let (header, icmp) = packet.split_at_mut(ipv6::HEADER_LEN);
    header[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, MESSAGE_LEN as u8, protocol::ICMPV6, HOP_LIMIT]);
    header[8..24].copy_from_slice(&from.1.octets());
    header[24..].copy_from_slice(&to.1.octets());
    icmp[0] = kind.icmp_type();
    icmp[4] = flags.byte();
    icmp[8..24].copy_from_slice(&target.octets());
    icmp[24..26].copy_from_slice(&[option, 1]);
    icmp[26..].copy_from_slice(&from.0.0);
    let sum = ipv6::pseudo_header(from.1, to.1, protocol::ICMPV6, MESSAGE_LEN).plus(Sum::of(icmp));
    icmp[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use etherparse::{SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    use super::*;

    const A: (Mac, Ipv6Addr) = (Mac([2, 0, 0, 0, 0, 0xa]), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xa));
    const B: (Mac, Ipv6Addr) = (Mac([2, 0, 0, 0, 0, 0xb]), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xb));
    const ASKED: Flags = Flags { router: false, solicited: true, overrides: true };
    const L4: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;

    fn read(frame: &[u8]) -> Result<Packet<'_>, Malformed> {
        Packet::new_checked(&frame[ethernet::HEADER_LEN..])
    }

    /// The frame with what `edit` does to it, and a right checksum.
    fn edited(frame: [u8; FRAME_LEN], edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut frame = frame.to_vec();
        edit(&mut frame);
        frame[L4 + 2..L4 + 4].fill(0);
        let (source, destination) = {
            let header = ipv6::Header::new_checked(&frame[ethernet::HEADER_LEN..]).unwrap();
            (header.source(), header.destination())
        };
        let icmp = &frame[L4..];
        let sum = ipv6::pseudo_header(source, destination, protocol::ICMPV6, icmp.len()).plus(Sum::of(icmp));
        frame[L4 + 2..L4 + 4].copy_from_slice(&sum.checksum().to_be_bytes());
        frame
    }

    #[test]
    fn what_is_written_is_read_and_etherparse_finds_it_whole() {
        let group = ipv6::solicited_node(B.1);
        let all = (ipv6::group_mac(ipv6::ALL_NODES), ipv6::ALL_NODES);
        let unasked = Flags { router: true, ..Flags::default() };
        let cases = [
            (solicitation(A, None, B.1), (ipv6::group_mac(group), group), Flags::default()),
            (solicitation(A, Some(B.0), B.1), B, Flags::default()),
            (advertisement(B, A, ASKED), A, ASKED),
            (advertisement(B, all, unasked), all, unasked),
        ];
        for (frame, to, flags) in cases {
            let packet = read(&frame).unwrap();
            let asks = packet.message.kind() == Kind::NeighbourSolicitation;
            let from = if asks { A } else { B };
            assert_eq!(frame[..12], [to.0.0, from.0.0].concat());
            assert_eq!((packet.source, packet.destination, packet.target), (from.1, to.1, B.1));
            assert_eq!(packet.message.flags(), flags);
            let macs = (packet.source_mac(), packet.target_mac());
            assert_eq!(macs, if asks { (Some(A.0), None) } else { (None, Some(B.0)) });

            let theirs = SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(TransportSlice::Icmpv6(icmp)) = theirs.transport else { panic!("{frame:02x?}") };
            assert!(icmp.is_checksum_valid(from.1.octets(), to.1.octets()));
        }
    }

    #[test]
    fn who_has_no_address_asks_a_group_and_says_no_mac() {
        let nobody = (A.0, Ipv6Addr::UNSPECIFIED);
        let bare = |there| {
            edited(solicitation(nobody, there, B.1), |frame| {
                frame.truncate(FRAME_LEN - 8);
                frame[19] = 24;
            })
        };
        assert_eq!(read(&bare(None)).unwrap().target, B.1);
        assert_eq!(read(&bare(Some(B.0))).unwrap_err(), Malformed::Void, "to one station");
        assert_eq!(read(&solicitation(nobody, None, B.1)).unwrap_err(), Malformed::Void, "with its MAC");
    }

    #[test]
    fn what_is_ignored() {
        let all = (ipv6::group_mac(ipv6::ALL_NODES), ipv6::ALL_NODES);
        let change = |at: usize, value: u8| edited(advertisement(B, A, ASKED), |frame| frame[at] = value);
        let cases = [
            ("a hop limit of 254", change(21, 254), Malformed::Void),
            ("a code", change(L4 + 1, 1), Malformed::Void),
            ("a group as its target", change(L4 + 8, 0xff), Malformed::Void),
            ("asked for by all", advertisement(B, all, ASKED).to_vec(), Malformed::Void),
            ("another protocol", change(20, protocol::UDP), Malformed::Foreign),
            ("an echo", change(L4, 128), Malformed::Foreign),
            ("a redirect", change(L4, 137), Malformed::Truncated),
            ("an option of no length", change(L4 + 25, 0), Malformed::Length),
        ];
        for (what, frame, expected) in cases {
            assert_eq!(read(&frame).unwrap_err(), expected, "{what}");
        }
        let frame = advertisement(B, A, ASKED);
        for len in ethernet::HEADER_LEN..FRAME_LEN {
            assert_eq!(read(&frame[..len]).unwrap_err(), Malformed::Truncated, "{len} bytes");
        }
        let mut spoilt = frame;
        spoilt[L4 + 2] ^= 1;
        assert_eq!(read(&spoilt).unwrap_err(), Malformed::Void, "the checksum");
    }

    proptest! {
        #[test]
        fn any_bytes(bytes: Vec<u8>, at in 0..FRAME_LEN, value: u8) {
            let _ = Packet::new_checked(&bytes);
            let mut frame = advertisement(B, A, ASKED);
            frame[at] = value;
            if let Ok(packet) = read(&frame) {
                prop_assert!(!packet.target.is_multicast() && packet.target_mac().is_some());
            }
        }
    }
}
