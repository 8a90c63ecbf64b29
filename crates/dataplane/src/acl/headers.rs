//! What rules ask of a frame, read once for all lists that judge it.

use vswitch_wire::classify::{self, IpVersion, Layers, protocol};
use vswitch_wire::vlan::TPIDS_OF_OLD;
use vswitch_wire::{FrameBuf, ethernet};

/// ICMP in IPv4 and in IPv6 (IANA "Protocol Numbers").
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Whether another EtherType may be behind this one that some stations find: that of LLC with SNAP (CVE-2021-27854), below
/// [`ethernet::TYPE_MIN`] being a length, or that behind a tag of before 802.1ad.
#[inline]
fn hides_its_type(ether_type: u16) -> bool {
    ether_type < ethernet::TYPE_MIN || TPIDS_OF_OLD.contains(&ether_type)
}

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

/// Fields that are no octets of the Ethernet header.
const VALUES: usize = 16;

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

    /// Where [`Headers`] has it.
    pub(super) const fn slot(self) -> Slot {
        Slot(match self {
            Self::EtherType => 0,
            Self::Vlan => 1,
            Self::Protocol => 2,
            Self::SourcePort => 3,
            Self::DestinationPort => 4,
            Self::TcpFlags => 5,
            Self::IcmpType => 6,
            Self::Source(word) => 8 + word,
            Self::Destination(word) => 12 + word,
            Self::Octet(index) => VALUES as u8 + index,
        })
    }
}

/// The place of a field: below [`VALUES`] one of the values, from there on an octet of the frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot(u8);

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
    values: [u32; VALUES],
    /// The values that the frame has, a bit each.
    has: u32,
}

impl<'a> Headers<'a> {
    #[inline]
    pub(crate) fn of<F: FrameBuf>(frame: &'a F) -> Self {
        let bytes = frame.bytes();
        let mut headers =
            Self { kind: Kind::Other, depth: Depth::Addresses, bytes, values: [0; VALUES], has: 0 };
        if let Some(tag) = frame.meta().tag.filter(|tag| tag.vid() != 0) {
            headers.set(Key::Vlan, tag.vid());
        }
        let Ok((ether_type, l3)) = ethernet::payload(bytes) else { return headers };
        if hides_its_type(ether_type) {
            return headers;
        }
        headers.set(Key::EtherType, ether_type);
        headers.depth = Depth::EtherType;
        headers.kind = match ether_type {
            ethernet::TYPE_IPV4 => Kind::V4,
            ethernet::TYPE_IPV6 => Kind::V6,
            _ => {
                // There is nothing more to read.
                headers.depth = Depth::Transport;
                return headers;
            }
        };
        if let Ok(layers) = classify::packet(bytes, ether_type, l3) {
            headers.enter(&layers);
        }
        headers
    }

    #[inline]
    fn set(&mut self, key: Key, value: impl Into<u32>) {
        let Slot(slot) = key.slot();
        self.values[usize::from(slot) % VALUES] = value.into();
        self.has |= 1 << slot;
    }

    #[inline]
    fn enter(&mut self, layers: &Layers) {
        self.depth = Depth::Ip;
        self.set(Key::Protocol, layers.protocol);
        self.set_addresses(layers);
        let has_transport = if layers.fragment { self.fragment(layers) } else { Some(true) };
        let is_whole = match has_transport {
            Some(true) => self.set_transport(layers).is_some(),
            Some(false) => true,
            None => false,
        };
        if is_whole {
            self.depth = Depth::Transport;
        }
    }

    #[inline]
    fn set_addresses(&mut self, layers: &Layers) {
        let packet = self.bytes.get(layers.l3..).unwrap_or_default();
        if layers.version == IpVersion::V4 {
            let Some(header) = packet.first_chunk::<20>() else { return };
            let [.., a, b, c, d, e, f, g, h] = *header;
            self.set(Key::Source(0), u32::from_be_bytes([a, b, c, d]));
            self.set(Key::Destination(0), u32::from_be_bytes([e, f, g, h]));
        } else if let Some(header) = packet.first_chunk::<40>() {
            let (words, _) = header[8..].as_chunks::<4>();
            for (number, word) in (0..4).zip(words) {
                self.set(Key::Source(number), u32::from_be_bytes(*word));
            }
            for (number, word) in (0..4).zip(&words[4..]) {
                self.set(Key::Destination(number), u32::from_be_bytes(*word));
            }
        }
    }

    /// Reads the transport header; `None` if it is not all there.
    #[inline]
    fn set_transport(&mut self, layers: &Layers) -> Option<()> {
        let header = self.bytes.get(layers.l4..layers.end)?;
        match (layers.protocol, layers.version) {
            (protocol::TCP, _) => {
                let header: &[u8; 20] = header.first_chunk()?;
                self.set_ports([header[0], header[1], header[2], header[3]]);
                self.set(Key::TcpFlags, header[13]);
            }
            (protocol::UDP, _) => {
                let [a, b, c, d, ..] = *header.first_chunk::<8>()?;
                self.set_ports([a, b, c, d]);
            }
            (protocol::SCTP, _) => {
                let [a, b, c, d, ..] = *header.first_chunk::<12>()?;
                self.set_ports([a, b, c, d]);
            }
            (ICMP, IpVersion::V4) | (ICMPV6, IpVersion::V6) => {
                let [icmp_type, ..] = *header.first_chunk::<4>()?;
                self.set(Key::IcmpType, icmp_type);
            }
            _ => {}
        }
        Some(())
    }

    #[inline]
    fn set_ports(&mut self, [a, b, c, d]: [u8; 4]) {
        self.set(Key::SourcePort, u16::from_be_bytes([a, b]));
        self.set(Key::DestinationPort, u16::from_be_bytes([c, d]));
    }

    /// Whether a fragment is to have the transport header; `None` where that cannot be told, or where it is made to
    /// deceive.
    #[cold]
    fn fragment(&self, layers: &Layers) -> Option<bool> {
        let half = |at: usize| Some(u16::from_be_bytes(*self.bytes.get(at..)?.first_chunk()?));
        let offset = match layers.version {
            IpVersion::V4 => half(layers.l3 + 6)? & 0x1fff,
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
                half(layers.l4 - 6)? >> 3
            }
        };
        // One that begins at the eighth octet could write new flags over those that were judged (RFC 1858 section 3, RFC
        // 3128 section 4).
        if offset == 1 && layers.protocol == protocol::TCP { None } else { Some(offset == 0) }
    }

    /// The value of a field; `None` if the frame has no such field.
    #[inline]
    pub(super) fn get(&self, Slot(slot): Slot) -> Option<u32> {
        let slot = usize::from(slot);
        if slot < VALUES {
            (self.has >> slot & 1 == 1).then_some(self.values[slot])
        } else {
            self.bytes.get(slot - VALUES).map(|&octet| octet.into())
        }
    }
}
