//! What DHCP servers give to stations, as it passes: for ports that learn their addresses.
//!
//! Only what comes in by a trusted port is believed. Whoever hands a port's leases to its [`crate::Security`] does so
//! at leisure: a client that was not heard asks again.

use core::net::IpAddr;

use vswitch_wire::classify::protocol;
use vswitch_wire::extension::Upper;
use vswitch_wire::{FrameBuf, Mac, dhcp, dhcpv6, ethernet, ipv4, udp};

use crate::{NetId, Verdict};

/// The most addresses of one message that are looked at.
const ADDRESSES_MAX: usize = 8;

/// An address that is given to a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// In which network.
    pub network: NetId,
    /// To whom.
    pub client: Mac,
    /// The address.
    pub address: IpAddr,
    /// For how long, in seconds; `u32::MAX` is for ever, 0 not any more.
    pub seconds: u32,
}

/// Tells what a server gives by this frame, which came in by a trusted port and was decided by
/// [`crate::Pipeline::process`].
pub fn read<F: FrameBuf>(frame: &F, verdict: Verdict, mut tell: impl FnMut(Lease)) {
    let (Verdict::Unicast { network, .. } | Verdict::Flood { network }) = verdict else { return };
    let Ok(header) = ethernet::Header::new_checked(frame.bytes()) else { return };
    let packet = &frame.bytes()[ethernet::HEADER_LEN..];
    match header.ether_type() {
        ethernet::TYPE_IPV4 => {
            if let Some((client, address, seconds)) = acknowledged(packet) {
                tell(Lease { network, client, address, seconds });
            }
        }
        ethernet::TYPE_IPV6 => {
            let addresses = replied(packet).into_iter().flatten().take(ADDRESSES_MAX);
            for dhcpv6::Address { address, valid_seconds } in addresses {
                let (client, address) = (header.destination(), address.into());
                tell(Lease { network, client, address, seconds: valid_seconds });
            }
        }
        _ => {}
    }
}

/// What a datagram carries that goes to this port.
#[inline]
fn datagram_to(port: u16, l4: &[u8]) -> Option<&[u8]> {
    let header = udp::Header::new_checked(l4).ok().filter(|header| header.destination_port() == port)?;
    l4.get(udp::HEADER_LEN..header.len())
}

/// Whom a DHCPACK gives which address (RFC 2131 section 4.3.1, table 3). One without a lease time gives none: it answers
/// DHCPINFORM.
#[inline]
fn acknowledged(packet: &[u8]) -> Option<(Mac, IpAddr, u32)> {
    let header = ipv4::Header::new_checked(packet).ok()?;
    if header.protocol() != protocol::UDP || header.is_fragment() {
        return None;
    }
    let payload = datagram_to(dhcp::CLIENT_PORT, packet.get(header.header_len()..header.total_len())?)?;
    let message = dhcp::Message::new_checked(payload).ok()?;
    let is_ack = message.op() == dhcp::REPLY && message.message_type() == Some(dhcp::ACK);
    let (client, address) = (message.client_mac()?, message.yiaddr());
    let seconds = message.lease_seconds()?;
    (is_ack && is_host(address.into())).then_some((client, address.into(), seconds))
}

/// The addresses in a Reply (RFC 8415 section 18.3).
#[inline]
fn replied(packet: &[u8]) -> Option<impl Iterator<Item = dhcpv6::Address>> {
    let upper = Upper::of(packet).ok().filter(|u| u.protocol == protocol::UDP && u.fragment.is_none())?;
    let payload = datagram_to(dhcpv6::CLIENT_PORT, packet.get(upper.offset..upper.end)?)?;
    let message = dhcpv6::Message::new_checked(payload).ok()?;
    let addresses = message.addresses().filter(|given| is_host(given.address.into()));
    (message.message_type() == dhcpv6::REPLY).then_some(addresses)
}

/// No server gives other addresses than those of a station.
fn is_host(address: IpAddr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
}
