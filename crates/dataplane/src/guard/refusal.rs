//! Why the guard lets a frame not in, with what was found in it.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_wire::ndisc::Kind;
use vswitch_wire::{Mac, Malformed};

use crate::Reason;

/// What a frame claimed, and may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// This source MAC.
    Mac(Mac),
    /// This source address.
    Ip(IpAddr),
    /// By ARP: to be this MAC.
    ArpMac(Mac),
    /// By ARP: to have this address, or to be about to take it.
    ArpIp(Ipv4Addr),
    /// By neighbour discovery: to be this MAC.
    NdMac(Mac),
    /// By neighbour discovery: to have this address, or to be about to take it.
    NdIp(Ipv6Addr),
    /// To ask for the DHCP client with this MAC, or with other hardware than Ethernet.
    Dhcp(Option<Mac>),
    /// To be a DHCP server: it says so from this port, to that one.
    Server(u16, u16),
    /// To be a router.
    Router(Kind),
    /// Something that this step cannot see.
    Hidden(Hidden),
}

/// What keeps one from seeing what a frame claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hidden {
    /// A tag inside of the frame, of this EtherType.
    Tag(u16),
    /// An LLC header in place of an EtherType.
    Llc,
    /// Reverse ARP.
    Rarp,
    /// An ARP message that neither asks nor answers.
    ArpOperation(u16),
    /// A part of a message that must come as a whole (RFC 6980 for neighbour discovery).
    Fragment,
    /// Headers or messages that are not what they should be.
    Malformed(Malformed),
}

impl Refusal {
    /// The reason that the drop is counted under.
    pub(crate) const fn reason(self) -> Reason {
        match self {
            Self::Mac(_) => Reason::SpoofedMac,
            Self::Ip(_) => Reason::SpoofedIp,
            Self::ArpMac(_) | Self::ArpIp(_) => Reason::SpoofedArp,
            Self::NdMac(_) | Self::NdIp(_) => Reason::SpoofedNd,
            Self::Dhcp(_) => Reason::SpoofedDhcp,
            Self::Server(..) => Reason::RogueDhcp,
            Self::Router(_) => Reason::RogueRa,
            Self::Hidden(_) => Reason::Unjudged,
        }
    }
}

impl From<Hidden> for Refusal {
    fn from(hidden: Hidden) -> Self {
        Self::Hidden(hidden)
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::Hidden(Hidden::Malformed(malformed))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => write!(f, "the source MAC is {mac}"),
            Self::Ip(address) => write!(f, "the source address is {address}"),
            Self::ArpMac(mac) => write!(f, "the ARP sender is {mac}"),
            Self::ArpIp(address) => write!(f, "the ARP message claims {address}"),
            Self::NdMac(mac) => write!(f, "the neighbour discovery message names {mac}"),
            Self::NdIp(address) => write!(f, "the neighbour discovery message claims {address}"),
            Self::Dhcp(Some(mac)) => write!(f, "the DHCP client is {mac}"),
            Self::Dhcp(None) => f.write_str("the DHCP client has no Ethernet address"),
            Self::Server(source, destination) => {
                write!(f, "UDP from port {source} to {destination} is what a DHCP server says")
            }
            Self::Router(Kind::Redirect) => f.write_str("it is a redirect, which routers send"),
            Self::Router(_) => f.write_str("it is a router advertisement"),
            Self::Hidden(hidden) => hidden.fmt(f),
        }
    }
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tpid) => write!(f, "the payload begins with a tag of EtherType {tpid:#06x}"),
            Self::Llc => {
                f.write_str("the frame has a length in place of an EtherType, and anything behind it")
            }
            Self::Rarp => f.write_str("it is reverse ARP"),
            Self::ArpOperation(operation) => {
                write!(f, "the ARP message neither asks nor answers: operation {operation}")
            }
            Self::Fragment => f.write_str("it is a fragment of a message that must come as a whole"),
            Self::Malformed(malformed) => malformed.fmt(f),
        }
    }
}
