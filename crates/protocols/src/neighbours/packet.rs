//! ARP (RFC 826) and neighbour solicitations and advertisements (RFC 4861 sections 4.3 and 4.4), whole frames of them:
//! what concerns a neighbour is read, what is to be asked is written.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_wire::checksum::Sum;
use vswitch_wire::{Mac, ethernet, ipv6};

use super::{Event, Station};

/// EtherType, hardware and protocol of ARP for IPv4 over Ethernet, up to the operation.
const TYPE_ARP: u16 = 0x0806;
const ARP_FIXED: [u8; 6] = [0, 1, 8, 0, 6, 4];
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
const ARP_LEN: usize = 28;

const NEXT_ICMPV6: u8 = 58;
/// Whatever came over a router has a lower one (RFC 4861 section 7.1).
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Type, code, checksum, flags, target.
const ND_LEN: usize = 24;
const FLAG_SOLICITED: u8 = 0x40;
const OPTION_SOURCE: u8 = 1;
const OPTION_TARGET: u8 = 2;

/// The longest frame that is written.
pub(super) const FRAME_MAX: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + ND_LEN + 8;

/// What a frame says of a neighbour, if it is one to be heard by `own`.
pub(super) fn read(frame: &[u8], own: &Station) -> Option<(IpAddr, Event)> {
    let header = ethernet::Header::new_checked(frame).ok()?;
    let body = frame.get(ethernet::HEADER_LEN..)?;
    let is_for_us = header.destination() == own.mac || header.destination().is_multicast();
    if !is_for_us || header.source() == own.mac {
        return None;
    }
    match header.ether_type() {
        TYPE_ARP => read_arp(body, own, header.destination() == own.mac),
        ethernet::TYPE_IPV6 => read_nd(body, own),
        _ => None,
    }
}

fn read_arp(body: &[u8], own: &Station, is_to_us: bool) -> Option<(IpAddr, Event)> {
    let packet: &[u8; ARP_LEN] = body.first_chunk()?;
    if packet[..6] != ARP_FIXED {
        return None;
    }
    let operation = u16::from_be_bytes([packet[6], packet[7]]);
    let sender = Mac::from_slice(&packet[8..]).filter(|mac| mac.is_unicast() && *mac != own.mac)?;
    let address = |at: usize| packet[at..].first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets));
    let (from, to) = (address(14)?, address(24)?);
    let event = match operation {
        ARP_REPLY if is_to_us && own.v4 == Some(to) => Event::Answer(sender),
        ARP_REQUEST | ARP_REPLY => Event::Claim(sender),
        _ => return None,
    };
    Some((from.into(), event))
}

/// RFC 4861 sections 7.1.1 and 7.1.2 say what is valid. Between the headers nothing may be (RFC 6980 forbids fragments;
/// no stack writes other extensions here).
fn read_nd(body: &[u8], own: &Station) -> Option<(IpAddr, Event)> {
    let header = ipv6::Header::new_checked(body).ok()?;
    let icmp = body.get(ipv6::HEADER_LEN..)?.get(..header.payload_len())?;
    let sum = pseudo_header(header.source(), header.destination(), icmp.len()).plus(Sum::of(icmp));
    if header.next_header() != NEXT_ICMPV6 || body[7] != HOP_LIMIT || sum.folded() != 0xffff {
        return None;
    }
    let (fixed, options) = icmp.split_first_chunk::<ND_LEN>()?;
    let target = Ipv6Addr::from(*fixed[8..].first_chunk::<16>()?);
    let is_solicited = fixed[4] & FLAG_SOLICITED != 0;
    if fixed[1] != 0 || target.is_multicast() {
        return None;
    }
    match fixed[0] {
        ADVERTISEMENT if is_solicited && header.destination().is_multicast() => None,
        ADVERTISEMENT => {
            let mac = option(options, OPTION_TARGET).ok()?;
            let event = match mac.map(|mac| mac.filter(|mac| *mac != own.mac)) {
                Some(Some(mac)) if is_solicited => Event::Answer(mac),
                Some(Some(mac)) => Event::Claim(mac),
                None if is_solicited => Event::Confirm,
                Some(None) | None => return None,
            };
            Some((target.into(), event))
        }
        // Of use is only who asks, not what for. Whoever has no address yet says nothing of it.
        SOLICITATION if !header.source().is_unspecified() => {
            let mac = option(options, OPTION_SOURCE).ok()??;
            Some((header.source().into(), Event::Claim(mac.filter(|mac| *mac != own.mac)?)))
        }
        _ => None,
    }
}

/// An option that makes the whole message invalid.
struct BadOption;

/// The link-layer address in the option of this kind; `Some(None)`: it is none of one station.
fn option(mut options: &[u8], kind: u8) -> Result<Option<Option<Mac>>, BadOption> {
    let mut found = None;
    while let [of, units, ..] = *options {
        // A length of zero would be no progress (RFC 4861 section 4.6).
        let len = usize::from(units) * 8;
        let option = options.get(..len).filter(|option| !option.is_empty()).ok_or(BadOption)?;
        if of == kind && found.is_none() {
            found = Some(Mac::from_slice(&option[2..]).filter(|mac| mac.is_unicast() && len == 8));
        }
        options = &options[len..];
    }
    if options.is_empty() { Ok(found) } else { Err(BadOption) }
}

/// The sum of the pseudo-header of an ICMPv6 message (RFC 8200 section 8.1).
fn pseudo_header(source: Ipv6Addr, destination: Ipv6Addr, len: usize) -> Sum {
    Sum::of(&source.octets())
        .plus(Sum::of(&destination.octets()))
        .plus(Sum::of_word(len as u64 + u64::from(NEXT_ICMPV6)))
}

/// Writes the question where `ip` is: to all nodes, or to the one that was there.
pub(super) fn ask(own: &Station, ip: IpAddr, there: Option<Mac>, out: &mut [u8; FRAME_MAX]) -> Option<usize> {
    match ip {
        IpAddr::V4(ip) => Some(ask_arp(own.mac, own.v4?, ip, there, out)),
        IpAddr::V6(ip) => Some(ask_nd(own.mac, own.source_for(ip)?, ip, there, out)),
    }
}

fn ask_arp(mac: Mac, from: Ipv4Addr, ip: Ipv4Addr, there: Option<Mac>, out: &mut [u8; FRAME_MAX]) -> usize {
    let mut frame = Writer { out, len: 0 };
    frame.put(&there.unwrap_or(Mac::BROADCAST).0).put(&mac.0).put(&TYPE_ARP.to_be_bytes());
    frame.put(&ARP_FIXED).put(&ARP_REQUEST.to_be_bytes());
    frame.put(&mac.0).put(&from.octets()).put(&[0; 6]).put(&ip.octets());
    frame.len
}

fn ask_nd(mac: Mac, from: Ipv6Addr, ip: Ipv6Addr, there: Option<Mac>, out: &mut [u8; FRAME_MAX]) -> usize {
    // The solicited-node address (RFC 4291 section 2.7.1), and its MAC (RFC 2464 section 7).
    let [.., x, y, z] = ip.octets();
    let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z];
    let to = there.unwrap_or(Mac([0x33, 0x33, 0xff, x, y, z]));
    if there.is_some() {
        group = ip.octets();
    }
    let mut frame = Writer { out, len: 0 };
    frame.put(&to.0).put(&mac.0).put(&ethernet::TYPE_IPV6.to_be_bytes());
    frame.put(&[0x60, 0, 0, 0, 0, (ND_LEN + 8) as u8, NEXT_ICMPV6, HOP_LIMIT]);
    frame.put(&from.octets()).put(&group);
    frame.put(&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0]).put(&ip.octets());
    frame.put(&[OPTION_SOURCE, 1]).put(&mac.0);
    let len = frame.len;
    let icmp = &mut out[ethernet::HEADER_LEN + ipv6::HEADER_LEN..len];
    let sum = pseudo_header(from, Ipv6Addr::from(group), icmp.len()).plus(Sum::of(icmp));
    icmp[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    len
}

/// Fills a buffer from its front. What would not fit is left out; [`FRAME_MAX`] sees to it that all fits.
struct Writer<'a> {
    out: &'a mut [u8; FRAME_MAX],
    len: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        if let Some(place) = self.out.get_mut(self.len..self.len + bytes.len()) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
        self
    }
}
