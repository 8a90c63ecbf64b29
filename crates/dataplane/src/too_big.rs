//! The answer to a packet that a tunnel cannot carry: ICMP "fragmentation needed" (RFC 1191 section 4) or ICMPv6 "packet too
//! big" (RFC 4443 section 3.2), into the sender's own network.
//!
//! A switch has no address there, so the answer comes from the packet's destination, as Linux' bridged tunnels do it: the
//! one address that the sender knows to be beyond the tunnel.

use core::net::{Ipv4Addr, Ipv6Addr};

use alloc::vec::Vec;

use vswitch_wire::checksum::Sum;
use vswitch_wire::classify::{IpVersion, Layers, classify};
use vswitch_wire::{Instant, Mac, ethernet, ipv4, ipv6};

use crate::PortId;
use crate::storm::Bucket;

/// Bytes of the longest answer.
pub const ANSWER_MAX: usize = ethernet::HEADER_LEN + V6_MAX;
/// Bytes of an answer's IPv4 packet: what every host takes (RFC 1812 section 4.3.2.3).
const V4_MAX: usize = 576;
/// Bytes of an answer's IPv6 packet: the least MTU of IPv6 (RFC 4443 section 2.4 (c)).
const V6_MAX: usize = 1280;
/// Bytes of the ICMP header of either.
const ICMP_LEN: usize = 8;
/// Answers a second for each port: enough for every connection that begins, too few to be a load.
const RATE: u32 = 100;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const DONT_FRAGMENT: u8 = 0x40;

/// Keeps answers to a bounded rate. A worker's own, as storm limits are.
#[derive(Debug, Default)]
pub struct Limiter(Vec<Option<Bucket>>);

impl Limiter {
    /// Whether the port may have one more answer.
    pub fn admits(&mut self, port: PortId, now: Instant) -> bool {
        if port.index() >= self.0.len() {
            self.0.resize(port.index() + 1, None);
        }
        self.0[port.index()].get_or_insert(Bucket::FULL).take(RATE, 1, now)
    }
}

/// Writes the answer to `frame`, which was longer than `max_frame` bytes, to the front of `out`, and returns its length.
/// `None` where none is due: what is no IP packet, was sent to or from a group, is an error message itself or a later
/// fragment, or may be fragmented on its way; or where `out` is shorter than [`ANSWER_MAX`].
#[must_use]
pub fn answer(frame: &[u8], max_frame: u32, out: &mut [u8]) -> Option<usize> {
    let ethernet = ethernet::Header::new_checked(frame).ok()?;
    let (to, from) = (ethernet.source(), ethernet.destination());
    let layers = classify(frame).ok().filter(|layers| layers.l3 == ethernet::HEADER_LEN)?;
    if !to.is_unicast() || !from.is_unicast() {
        return None;
    }
    let mtu = max_frame.checked_sub(ethernet::HEADER_LEN as u32)?;
    let packet = frame.get(layers.l3..layers.end)?;
    let (header, body) = out.get_mut(..ANSWER_MAX)?.split_at_mut(ethernet::HEADER_LEN);
    put_ethernet(header, to, from, ethernet.ether_type());
    let len = match layers.version {
        IpVersion::V4 => fragmentation_needed(packet, &layers, mtu, body)?,
        IpVersion::V6 => packet_too_big(packet, frame, &layers, mtu, body)?,
    };
    Some(ethernet::HEADER_LEN + len)
}

fn put_ethernet(header: &mut [u8], to: Mac, from: Mac, ether_type: u16) {
    header[..6].copy_from_slice(&to.0);
    header[6..12].copy_from_slice(&from.0);
    header[12..].copy_from_slice(&ether_type.to_be_bytes());
}

fn fragmentation_needed(packet: &[u8], layers: &Layers, mtu: u32, out: &mut [u8]) -> Option<usize> {
    let header = ipv4::Header::new_checked(packet).ok()?;
    let (source, destination) = (header.source(), header.destination());
    // From 224.0.0.0 on there are groups, and what is reserved.
    let is_host = |a: Ipv4Addr| !(a.is_unspecified() || a.is_loopback() || a.octets()[0] >= 224);
    // RFC 1122 section 3.2.2: no error about a later fragment, or about an error.
    let offset = u16::from_be_bytes([packet[6], packet[7]]) & 0x1fff;
    let is_error = layers.protocol == ICMP && !is_query(packet.get(header.header_len())?);
    if packet[6] & DONT_FRAGMENT == 0 || offset != 0 || is_error || !is_host(source) || !is_host(destination)
    {
        return None;
    }
    let quoted = &packet[..packet.len().min(V4_MAX - ipv4::HEADER_LEN - ICMP_LEN)];
    let total = ipv4::HEADER_LEN + ICMP_LEN + quoted.len();
    let (ip, icmp) = out.get_mut(..total)?.split_at_mut(ipv4::HEADER_LEN);
    ip.copy_from_slice(&[0x45, 0xc0, 0, 0, 0, 0, 0, 0, 64, ICMP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    ip[2..4].copy_from_slice(&(total as u16).to_be_bytes());
    ip[12..16].copy_from_slice(&destination.octets());
    ip[16..].copy_from_slice(&source.octets());
    let checksum = Sum::of(ip).checksum();
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let [high, low] = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
    icmp[..ICMP_LEN].copy_from_slice(&[3, 4, 0, 0, 0, 0, high, low]);
    icmp[ICMP_LEN..].copy_from_slice(quoted);
    let checksum = Sum::of(icmp).checksum();
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(total)
}

/// Whether an ICMP message of this type asks or answers; all others are errors, or not known (RFC 1812 section 4.3.2.7).
const fn is_query(kind: &u8) -> bool {
    matches!(*kind, 0 | 8 | 9 | 10 | 13..=18)
}

fn packet_too_big(packet: &[u8], frame: &[u8], layers: &Layers, mtu: u32, out: &mut [u8]) -> Option<usize> {
    let header = ipv6::Header::new_checked(packet).ok()?;
    let (source, destination) = (header.source(), header.destination());
    let is_host = |a: Ipv6Addr| !(a.is_unspecified() || a.is_multicast() || a.is_loopback());
    // ICMPv6 types below 128 are errors (RFC 4443 section 2.1).
    let is_error = layers.protocol == ICMPV6 && frame.get(layers.l4).is_none_or(|kind| *kind < 128);
    if is_error || !is_host(source) || !is_host(destination) || (mtu as usize) < V6_MAX {
        return None;
    }
    let quoted = &packet[..packet.len().min(V6_MAX - ipv6::HEADER_LEN - ICMP_LEN)];
    let len = ICMP_LEN + quoted.len();
    let (ip, icmp) = out.get_mut(..ipv6::HEADER_LEN + len)?.split_at_mut(ipv6::HEADER_LEN);
    ip[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, ICMPV6, 64]);
    ip[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    ip[8..24].copy_from_slice(&destination.octets());
    ip[24..].copy_from_slice(&source.octets());
    icmp[..4].copy_from_slice(&[2, 0, 0, 0]);
    icmp[4..ICMP_LEN].copy_from_slice(&mtu.to_be_bytes());
    icmp[ICMP_LEN..].copy_from_slice(quoted);
    let pseudo_header =
        Sum::of(&ip[8..]).plus(Sum::of_word(u64::from(ICMPV6))).plus(Sum::of_word(len as u64));
    let checksum = Sum::of(icmp).plus(pseudo_header).checksum();
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(ipv6::HEADER_LEN + len)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use core::time::Duration;
    use std::vec;

    use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice, icmpv4};
    use proptest::prelude::*;
    use vswitch_wire::testing::{FrameBuilder, frame};

    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
    const MAX_FRAME: u32 = 1464;

    fn v4() -> FrameBuilder {
        frame(B, A).ip([10, 0, 0, 1], [10, 0, 0, 2])
    }

    fn v6() -> FrameBuilder {
        frame(B, A).ip([0xfd; 16], [0xfc; 16])
    }

    fn answer_to(bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = [0xa5; ANSWER_MAX];
        answer(bytes, MAX_FRAME, &mut out).map(|len| out[..len].to_vec())
    }

    #[test]
    fn ipv4_is_told_that_fragmentation_is_needed() {
        let question = v4().tcp(1, 2, 0x10).payload(&[7; 1460]).bytes();
        let bytes = answer_to(&question).unwrap();
        let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
        assert_eq!(bytes[..12], [A.0, B.0].concat());
        let Some(NetSlice::Ipv4(ip)) = &packet.net else { panic!() };
        let header = ip.header().to_header();
        assert_eq!((header.source, header.destination), ([10, 0, 0, 2], [10, 0, 0, 1]));
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        let Some(TransportSlice::Icmpv4(icmp)) = &packet.transport else { panic!() };
        let expected = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1450 };
        assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(expected));
        assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
        assert_eq!(icmp.payload(), &question[14..14 + 548]);
        assert_eq!(bytes.len(), 14 + 576);
    }

    #[test]
    fn ipv6_is_told_that_the_packet_is_too_big() {
        let question = v6().udp(1, 2).payload(&[7; 1440]).bytes();
        let bytes = answer_to(&question).unwrap();
        let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
        let Some(NetSlice::Ipv6(ip)) = &packet.net else { panic!() };
        assert_eq!((ip.header().source(), ip.header().destination()), ([0xfc; 16], [0xfd; 16]));
        let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else { panic!() };
        assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: 1450 });
        assert!(icmp.is_checksum_valid([0xfc; 16], [0xfd; 16]));
        assert_eq!(icmp.payload(), &question[14..14 + 1280 - 48]);
        assert_eq!(bytes.len(), ANSWER_MAX);
    }

    #[test]
    fn no_answer_where_none_is_due() {
        let with = |builder: FrameBuilder, at: usize, byte: u8| {
            let mut bytes = builder.udp(1, 2).payload(&[7; 1460]).bytes();
            bytes[at] = byte;
            bytes
        };
        let cases = [
            with(v4(), 20, 0),    // may be fragmented
            with(v4(), 21, 1),    // a later fragment
            with(v4(), 30, 224),  // to a group
            with(v4(), 26, 0xff), // from one
            with(v4(), 26, 127),
            with(v4(), 0, 1), // a group of MACs
            with(v6(), 38, 0xff),
            with(frame(B, A).ip([0; 16], [0xfc; 16]), 22, 0),
            frame(B, A).ether_type(0x0806).payload(&[1; 1500]).bytes(),
            frame(B, A).tag(vswitch_wire::Tag::dot1q(5)).ip([10, 0, 0, 1], [10, 0, 0, 2]).bytes(),
        ];
        for (n, bytes) in cases.iter().enumerate() {
            assert_eq!(answer_to(bytes), None, "{n}");
        }
        // An error message, and a question, of either ICMP.
        for (is_v6, kind, is_answered) in
            [(false, 3, false), (false, 8, true), (true, 1, false), (true, 128, true)]
        {
            let mut bytes = if is_v6 { v6() } else { v4() }.payload(&[0; 1460]).bytes();
            let (protocol, at) = if is_v6 { (20, 54) } else { (23, 34) };
            bytes[protocol] = if is_v6 { ICMPV6 } else { ICMP };
            bytes[at] = kind;
            assert_eq!(answer_to(&bytes).is_some(), is_answered, "{is_v6} {kind}");
        }
        let mut out = [0; ANSWER_MAX];
        assert_eq!(answer(&v6().udp(1, 2).payload(&[7; 1400]).bytes(), 1279 + 14, &mut out), None);
    }

    #[test]
    fn a_port_gets_answers_at_a_bounded_rate() {
        let mut limiter = Limiter::default();
        let start = Instant::from_secs(5);
        let answers = |limiter: &mut Limiter, ms| {
            let now = start + Duration::from_millis(ms);
            (0..1000).filter(|_| limiter.admits(PortId(3), now)).count()
        };
        assert_eq!((answers(&mut limiter, 0), answers(&mut limiter, 20)), (10, 2));
        assert!(limiter.admits(PortId(4), start), "another port has its own");
    }

    proptest! {
        #[test]
        fn any_bytes(bytes: Vec<u8>, max_frame in 0..2000_u32, len in 0..1400_usize, at in 12..60_usize, byte: u8) {
            let mut whole = v4().tcp(1, 2, 0).payload(&[7; 100]).bytes();
            whole[at] = byte;
            for frame in [bytes, whole] {
                let _ = answer(&frame, max_frame, &mut vec![0; len]);
            }
        }
    }
}
