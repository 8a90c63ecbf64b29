//! ARP (RFC 826) and neighbour solicitations and advertisements (RFC 4861 sections 4.3 and 4.4), whole frames of them:
//! what concerns a neighbour is read, what is to be asked is written.

use core::net::IpAddr;

use vswitch_wire::ndisc::Kind;
use vswitch_wire::{Mac, arp, ethernet, ndisc};

use super::{Event, Station};

/// What a frame says of a neighbour, if it is one to be heard by `own`.
pub(super) fn read(frame: &[u8], own: &Station) -> Option<(IpAddr, Event)> {
    let header = ethernet::Header::new_checked(frame).ok()?;
    let body = frame.get(ethernet::HEADER_LEN..)?;
    let is_for_us = header.destination() == own.mac || header.destination().is_multicast();
    if !is_for_us || header.source() == own.mac {
        return None;
    }
    match header.ether_type() {
        ethernet::TYPE_ARP => read_arp(body, own, header.destination() == own.mac),
        ethernet::TYPE_IPV6 => read_nd(body, own),
        _ => None,
    }
}

fn read_arp(body: &[u8], own: &Station, is_to_us: bool) -> Option<(IpAddr, Event)> {
    let packet = arp::Packet::new_checked(body).ok()?;
    let sender = anothers(packet.sender_mac(), own)?;
    let event = match packet.operation() {
        arp::REPLY if is_to_us && own.v4 == Some(packet.target_ip()) => Event::Answer(sender),
        arp::REQUEST | arp::REPLY => Event::Claim(sender),
        _ => return None,
    };
    Some((packet.sender_ip().into(), event))
}

fn read_nd(body: &[u8], own: &Station) -> Option<(IpAddr, Event)> {
    let packet = ndisc::Packet::new_checked(body).ok()?;
    if packet.message.kind() == Kind::NeighbourAdvertisement {
        let is_solicited = packet.message.flags().solicited;
        let event = match packet.target_mac() {
            Some(mac) if is_solicited => Event::Answer(anothers(mac, own)?),
            Some(mac) => Event::Claim(anothers(mac, own)?),
            None if is_solicited => Event::Confirm,
            None => return None,
        };
        return Some((packet.target.into(), event));
    }
    // Of use is only who asks, not what for. Whoever has no address yet says nothing of it.
    let mac = anothers(packet.source_mac()?, own)?;
    Some((packet.source.into(), Event::Claim(mac)))
}

/// The MAC, where it is one of another station than us.
fn anothers(mac: Mac, own: &Station) -> Option<Mac> {
    Some(mac).filter(|mac| mac.is_unicast() && *mac != own.mac)
}

/// Sends the question where `ip` is: to all nodes, or to the one that was there.
pub(super) fn ask(own: &Station, ip: IpAddr, there: Option<Mac>, mut send: impl FnMut(&[u8])) {
    match ip {
        IpAddr::V4(ip) => {
            if let Some(from) = own.v4 {
                send(&arp::request((own.mac, from), there, ip));
            }
        }
        IpAddr::V6(ip) => {
            if let Some(from) = own.source_for(ip) {
                send(&ndisc::solicitation((own.mac, from), there, ip));
            }
        }
    }
}
