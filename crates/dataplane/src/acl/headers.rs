//! What rules ask of a frame, read once for all lists that judge it.

use vswitch_wire::classify::{self, IpVersion, Layers, protocol};
use vswitch_wire::{FrameBuf, Tag, ethernet};

/// ICMP in IPv4 and in IPv6 (IANA "Protocol Numbers").
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// A field that rules may ask for, in parts of at most 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// An octet of the Ethernet header: 0 to 5 the destination, 6 to 11 the source.
    Octet(u8),
    EtherType,
    Vlan,
    /// A word of the IPv4 source (0 alone), or of the IPv6 source.
    Source(u8),
    Destination(u8),
    Protocol,
    SourcePort,
    DestinationPort,
    TcpFlags,
    IcmpType,
}

impl Key {
    /// How far one must be able to read.
    pub(super) const fn depth(self) -> Depth {
        match self {
            Self::Octet(_) | Self::Vlan => Depth::Addresses,
            Self::EtherType => Depth::EtherType,
            Self::Source(_) | Self::Destination(_) | Self::Protocol => Depth::Ip,
            Self::SourcePort | Self::DestinationPort | Self::TcpFlags | Self::IcmpType => Depth::Transport,
        }
    }
}

/// What kind of frame it is. Rules that cannot match a kind are not looked at for frames of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    V4,
    V6,
    Other,
}

/// How far a frame can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Depth {
    /// MAC addresses and the tag in the metadata.
    Addresses,
    /// The EtherType behind all tags.
    EtherType,
    /// The IP header, with its extension headers.
    Ip,
    /// Everything that is to be there: the transport header too, if this is no later fragment.
    Transport,
}

/// A frame as rules see it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Headers<'a> {
    pub(super) kind: Kind,
    pub(super) depth: Depth,
    bytes: &'a [u8],
    /// 0: none.
    vid: u16,
    ether_type: u16,
    l3: usize,
    /// Where the transport header is; past the end if there is none.
    l4: usize,
    protocol: u8,
}

impl<'a> Headers<'a> {
    #[inline]
    pub(crate) fn of<F: FrameBuf>(frame: &'a F) -> Self {
        let bytes = frame.bytes();
        let mut headers = Self {
            kind: Kind::Other,
            depth: Depth::Addresses,
            bytes,
            vid: frame.meta().tag.map_or(0, Tag::vid),
            ether_type: 0,
            l3: 0,
            l4: usize::MAX,
            protocol: 0,
        };
        let Ok((ether_type, l3)) = ethernet::payload(bytes) else { return headers };
        headers.ether_type = ether_type;
        headers.kind = match ether_type {
            ethernet::TYPE_IPV4 => Kind::V4,
            ethernet::TYPE_IPV6 => Kind::V6,
            // There is nothing more to read.
            _ => return Self { depth: Depth::Transport, ..headers },
        };
        headers.depth = Depth::EtherType;
        if let Ok(layers) = classify::packet(bytes, ether_type, l3) {
            headers.enter(&layers);
        }
        headers
    }

    #[inline]
    fn enter(&mut self, layers: &Layers) {
        self.l3 = layers.l3;
        self.protocol = layers.protocol;
        let has_transport = if layers.fragment { self.fragment(layers) } else { Some(true) };
        let needed = match layers.protocol {
            protocol::TCP => 20,
            protocol::UDP => 8,
            protocol::SCTP => 12,
            ICMP | ICMPV6 => 4,
            _ => 0,
        };
        self.depth = match has_transport {
            Some(true) if layers.l4_len() >= needed => {
                self.l4 = layers.l4;
                Depth::Transport
            }
            Some(false) => Depth::Transport,
            _ => Depth::Ip,
        };
    }

    /// Whether a fragment is to have the transport header; `None` where that cannot be told, or where it is made to
    /// deceive.
    #[cold]
    fn fragment(&self, layers: &Layers) -> Option<bool> {
        let offset = match layers.version {
            IpVersion::V4 => self.half(layers.l3 + 6)? & 0x1fff,
            IpVersion::V6 => {
                // The whole chain of headers must be in the first fragment (RFC 7112 section 5). Where it goes on behind
                // the fragment header, later fragments do not tell the protocol, so none is let through.
                const HOP_BY_HOP: u8 = 0;
                const ROUTING: u8 = 43;
                const FRAGMENT: u8 = 44;
                const DESTINATION: u8 = 60;
                if matches!(layers.protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
                    return None;
                }
                self.half(layers.l4 - 6)? >> 3
            }
        };
        // One that begins at the eighth octet could write new flags over those that were judged (RFC 1858 section 3, RFC
        // 3128 section 4).
        if offset == 1 && layers.protocol == protocol::TCP { None } else { Some(offset == 0) }
    }

    /// The value of a field; `None` if the frame has no such field.
    #[inline]
    pub(super) fn get(&self, key: Key) -> Option<u32> {
        match key {
            Key::Octet(index) => self.bytes.get(usize::from(index)).map(|&octet| octet.into()),
            Key::EtherType => (self.depth > Depth::Addresses).then_some(self.ether_type.into()),
            Key::Vlan => (self.vid != 0).then_some(self.vid.into()),
            Key::Source(word) => self.address(word, 12, 8),
            Key::Destination(word) => self.address(word, 16, 24),
            Key::Protocol => {
                (self.depth >= Depth::Ip && self.kind != Kind::Other).then_some(self.protocol.into())
            }
            Key::SourcePort => self.port(0),
            Key::DestinationPort => self.port(2),
            Key::TcpFlags => (self.protocol == protocol::TCP).then(|| self.octet(self.l4, 13))?,
            Key::IcmpType => {
                let icmp = if self.kind == Kind::V4 { ICMP } else { ICMPV6 };
                (self.protocol == icmp).then(|| self.octet(self.l4, 0))?
            }
        }
    }

    #[inline]
    fn address(&self, word: u8, v4: usize, v6: usize) -> Option<u32> {
        let offset = match self.kind {
            Kind::V4 => v4,
            Kind::V6 => v6 + 4 * usize::from(word),
            Kind::Other => return None,
        };
        if self.depth < Depth::Ip {
            return None;
        }
        Some(u32::from_be_bytes(*self.bytes.get(self.l3 + offset..)?.first_chunk()?))
    }

    #[inline]
    fn port(&self, offset: usize) -> Option<u32> {
        let has_ports = matches!(self.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
        if has_ports { self.half(self.l4.checked_add(offset)?).map(u32::from) } else { None }
    }

    #[inline]
    fn octet(&self, header: usize, offset: usize) -> Option<u32> {
        self.bytes.get(header.checked_add(offset)?).map(|&octet| octet.into())
    }

    #[inline]
    fn half(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(*self.bytes.get(at..)?.first_chunk()?))
    }
}
