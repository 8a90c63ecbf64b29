//! IPv4 and IPv6: source addresses, and what is said by DHCP and neighbour discovery.

use core::net::{Ipv4Addr, Ipv6Addr};

use vswitch_wire::classify::protocol;
use vswitch_wire::extension::Upper;
use vswitch_wire::ndisc::{Kind, LinkLayer, Message};
use vswitch_wire::{Malformed, dhcp, dhcpv6, ipv4, ipv6, udp};

use super::{Hidden, Judge, Refusal};

/// Source and destination port at the front of what is UDP's; a first fragment has no more of the header for sure.
fn ports(datagram: &[u8]) -> Result<(u16, u16), Malformed> {
    let &[s0, s1, d0, d1] = datagram.first_chunk().ok_or(Malformed::Truncated)?;
    Ok((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
}

impl Judge<'_> {
    pub(super) fn ipv4(&self, packet: &[u8]) -> Result<(), Refusal> {
        let header = ipv4::Header::new_checked(packet)?;
        let payload = packet.get(header.header_len()..header.total_len()).unwrap_or_default();
        let source = header.source();
        if header.protocol() == protocol::UDP && header.fragment_offset() == 0 {
            self.udp4(source, payload, header.is_fragment())
        } else {
            self.source4(source)
        }
    }

    fn source4(&self, source: Ipv4Addr) -> Result<(), Refusal> {
        if self.may_be_v4(source) { Ok(()) } else { Err(Refusal::Ip(source.into())) }
    }

    fn udp4(&self, source: Ipv4Addr, datagram: &[u8], is_fragment: bool) -> Result<(), Refusal> {
        let (from, to) = ports(datagram)?;
        // Clients look at the port that it comes to, not at the one that it comes from.
        if self.is_no_authority() && (from == dhcp::SERVER_PORT || to == dhcp::CLIENT_PORT) {
            return Err(Refusal::Server(from, to));
        }
        let is_to_server = to == dhcp::SERVER_PORT;
        // A client that has no address yet (RFC 2131 section 4.1).
        if !(is_to_server && !is_fragment && source.is_unspecified()) {
            self.source4(source)?;
        }
        if is_to_server && self.is_no_authority() { self.dhcp_client(datagram, is_fragment) } else { Ok(()) }
    }

    /// A server gives and takes addresses in the name of the hardware address that the message says.
    fn dhcp_client(&self, datagram: &[u8], is_fragment: bool) -> Result<(), Refusal> {
        if is_fragment {
            return Err(Hidden::Fragment.into());
        }
        let message = dhcp::Message::new_checked(datagram.get(udp::HEADER_LEN..).unwrap_or_default())?;
        match message.client_mac() {
            Some(mac) if self.security.has_mac(mac) => Ok(()),
            other => Err(Refusal::Dhcp(other)),
        }
    }

    pub(super) fn ipv6(&self, packet: &[u8]) -> Result<(), Refusal> {
        let upper = Upper::of(packet)?;
        let source = ipv6::Header::new_checked(packet)?.source();
        let payload = packet.get(upper.offset..upper.end).unwrap_or_default();
        // What belongs further behind has no header of the upper layer.
        let is_first = upper.fragment.is_none_or(|fragment| fragment.offset == 0);
        match upper.protocol {
            protocol::ICMPV6 if is_first => self.icmpv6(source, payload, upper.fragment.is_some()),
            protocol::UDP if is_first && self.is_no_authority() => {
                let (from, to) = ports(payload)?;
                if from == dhcpv6::SERVER_PORT || to == dhcpv6::CLIENT_PORT {
                    return Err(Refusal::Server(from, to));
                }
                self.source6(source)
            }
            _ => self.source6(source),
        }
    }

    fn source6(&self, source: Ipv6Addr) -> Result<(), Refusal> {
        if self.may_be_v6(source) { Ok(()) } else { Err(Refusal::Ip(source.into())) }
    }

    fn icmpv6(&self, source: Ipv6Addr, message: &[u8], is_fragment: bool) -> Result<(), Refusal> {
        let &icmp_type = message.first().ok_or(Malformed::Truncated)?;
        let kind = Kind::of_type(icmp_type);
        match kind {
            Some(kind @ (Kind::RouterAdvertisement | Kind::Redirect)) if self.is_no_authority() => {
                Err(Refusal::Router(kind))
            }
            // RFC 6980 section 5: receivers ignore them, and old ones do not.
            Some(_) if is_fragment && self.security.is_guarded() => Err(Hidden::Fragment.into()),
            Some(kind) if self.security.is_guarded() => self.neighbour(kind, source, message),
            _ if source.is_unspecified() && may_have_no_source(icmp_type) => Ok(()),
            _ => self.source6(source),
        }
    }

    fn neighbour(&self, kind: Kind, source: Ipv6Addr, message: &[u8]) -> Result<(), Refusal> {
        let message = Message::new_checked(message)?;
        // RFC 4861 sections 4.1 and 4.3: who asks may have no address yet.
        let asks = matches!(kind, Kind::RouterSolicitation | Kind::NeighbourSolicitation);
        let is_nobody = asks && source.is_unspecified();
        if !is_nobody && !self.may_be_v6(source) {
            return Err(Refusal::NdIp(source));
        }
        let claimed = match kind {
            Kind::NeighbourAdvertisement => message.target(),
            // RFC 4862 section 5.4.3: a station that takes an address, and hears that another does, leaves it.
            Kind::NeighbourSolicitation if is_nobody => message.target(),
            _ => None,
        };
        match claimed {
            Some(address) if !self.may_be_v6(address) => return Err(Refusal::NdIp(address)),
            _ => {}
        }
        // The target of a redirect is another station.
        let mut own = message.link_layers().filter_map(|option| match option {
            LinkLayer::Source(mac) => Some(mac),
            LinkLayer::Target(mac) => (kind != Kind::Redirect).then_some(mac),
        });
        match own.find(|mac| !self.security.has_mac(*mac)) {
            Some(mac) => Err(Refusal::NdMac(mac)),
            None => Ok(()),
        }
    }
}

/// What a station says before it has an address: solicitations (RFC 4861 sections 4.1 and 4.3), and which groups it
/// listens to (RFC 3590, RFC 3810 section 5.2.13).
fn may_have_no_source(icmp_type: u8) -> bool {
    const LISTENER_REPORT: u8 = 131;
    const LISTENER_DONE: u8 = 132;
    const LISTENER_REPORT_V2: u8 = 143;
    matches!(icmp_type, LISTENER_REPORT | LISTENER_DONE | LISTENER_REPORT_V2)
        || matches!(Kind::of_type(icmp_type), Some(Kind::RouterSolicitation | Kind::NeighbourSolicitation))
}
