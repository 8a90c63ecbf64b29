//! Neighbour discovery (RFC 4861): who is who on a link, and who routes.

mod packet;

use core::net::Ipv6Addr;

pub use packet::{FRAME_LEN, Packet, advertisement, solicitation};

use crate::{Mac, Malformed};

/// The ICMPv6 types of neighbour discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks for routers.
    RouterSolicitation,
    /// Says "I am a router", and which prefixes there are.
    RouterAdvertisement,
    /// Asks for an address's owner.
    NeighbourSolicitation,
    /// Says "this address is mine".
    NeighbourAdvertisement,
    /// Says that somebody else is the better next hop.
    Redirect,
}

impl Kind {
    /// The kind of a message that begins with this ICMPv6 type; `None` where it is no neighbour discovery.
    #[inline]
    #[must_use]
    pub const fn of_type(icmp_type: u8) -> Option<Self> {
        Some(match icmp_type {
            133 => Self::RouterSolicitation,
            134 => Self::RouterAdvertisement,
            135 => Self::NeighbourSolicitation,
            136 => Self::NeighbourAdvertisement,
            137 => Self::Redirect,
            _ => return None,
        })
    }

    /// Bytes before the options (sections 4.1 to 4.5).
    const fn header_len(self) -> usize {
        match self {
            Self::RouterSolicitation => 8,
            Self::RouterAdvertisement => 16,
            Self::NeighbourSolicitation | Self::NeighbourAdvertisement => 24,
            Self::Redirect => 40,
        }
    }

    /// The ICMPv6 type.
    const fn icmp_type(self) -> u8 {
        match self {
            Self::RouterSolicitation => 133,
            Self::RouterAdvertisement => 134,
            Self::NeighbourSolicitation => 135,
            Self::NeighbourAdvertisement => 136,
            Self::Redirect => 137,
        }
    }

    const fn has_target(self) -> bool {
        !matches!(self, Self::RouterSolicitation | Self::RouterAdvertisement)
    }
}

/// A checked view of a message: its fixed part is whole, and so is each of its options.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    kind: Kind,
    bytes: &'a [u8],
}

/// What a neighbour's advertisement says of itself (section 4.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Its sender routes.
    pub router: bool,
    /// Somebody has asked for it, at the address that it goes to.
    pub solicited: bool,
    /// It takes the place of what is known.
    pub overrides: bool,
}

impl Flags {
    const fn of(byte: u8) -> Self {
        Self { router: byte & 0x80 != 0, solicited: byte & 0x40 != 0, overrides: byte & 0x20 != 0 }
    }

    const fn byte(self) -> u8 {
        (self.router as u8) << 7 | (self.solicited as u8) << 6 | (self.overrides as u8) << 5
    }
}

/// An option that says the Ethernet address of a node (section 4.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    /// That of whoever sends the message.
    Source(Mac),
    /// That of the target.
    Target(Mac),
}

/// Bytes in which options count their lengths (section 4.6).
const UNIT: usize = 8;
/// The sorts of options that say Ethernet addresses.
const SOURCE: u8 = 1;
const TARGET: u8 = 2;

impl<'a> Message<'a> {
    /// The ICMPv6 message that `bytes` are.
    ///
    /// # Errors
    /// [`Malformed::Foreign`] where it is no neighbour discovery, or a link-layer address none of Ethernet;
    /// [`Malformed::Length`] for an option of no length, which ends a message (section 4.6);
    /// [`Malformed::Truncated`].
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let kind = bytes.first().and_then(|&first| Kind::of_type(first)).ok_or(Malformed::Foreign)?;
        if bytes.len() < kind.header_len() {
            return Err(Malformed::Truncated);
        }
        let message = Self { kind, bytes };
        message.walk().try_for_each(|option| option.map(drop))?;
        Ok(message)
    }

    /// What it is.
    #[inline]
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The ICMPv6 code, 0 in all of them.
    #[inline]
    #[must_use]
    pub fn code(&self) -> u8 {
        self.bytes.get(1).copied().unwrap_or_default()
    }

    /// The address that it is about; that of a redirect is the better next hop's.
    #[inline]
    #[must_use]
    pub fn target(&self) -> Option<Ipv6Addr> {
        let octets: &[u8; 16] = self.bytes.get(8..).filter(|_| self.kind.has_target())?.first_chunk()?;
        Some(Ipv6Addr::from(*octets))
    }

    /// What it says of itself; nothing, where it is no neighbour's advertisement.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> Flags {
        let byte = self.bytes.get(4).filter(|_| matches!(self.kind, Kind::NeighbourAdvertisement));
        byte.copied().map_or_else(Flags::default, Flags::of)
    }

    /// Every Ethernet address in its options. There should be one of each sort; which of two a receiver believes is its
    /// own affair.
    pub fn link_layers(&self) -> impl Iterator<Item = LinkLayer> {
        self.walk().filter_map(|option| option.ok()?)
    }

    fn walk(&self) -> Options<'a> {
        Options(self.bytes.get(self.kind.header_len()..).unwrap_or_default())
    }
}

/// The options that are left. Each takes 8 bytes at least, so the bytes bound their number.
struct Options<'a>(&'a [u8]);

impl Iterator for Options<'_> {
    type Item = Result<Option<LinkLayer>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&kind, rest) = self.0.split_first()?;
        let len = rest.first().map_or(0, |&units| usize::from(units) * UNIT);
        let option = match self.0.get(..len) {
            Some([]) if rest.is_empty() => Err(Malformed::Truncated),
            Some([]) => Err(Malformed::Length),
            None => Err(Malformed::Truncated),
            // RFC 2464 section 6: one unit for Ethernet.
            Some(&[SOURCE, 1, a, b, c, d, e, f]) => Ok(Some(LinkLayer::Source(Mac([a, b, c, d, e, f])))),
            Some(&[TARGET, 1, a, b, c, d, e, f]) => Ok(Some(LinkLayer::Target(Mac([a, b, c, d, e, f])))),
            Some(_) if matches!(kind, SOURCE | TARGET) => Err(Malformed::Foreign),
            Some(_) => Ok(None),
        };
        // Nothing can be said of what is behind one that is wrong.
        self.0 = if option.is_ok() { self.0.get(len..).unwrap_or_default() } else { &[] };
        Some(option)
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use etherparse::icmpv6::{NdpOptionSlice, NdpOptionsIterator};
    use proptest::prelude::*;

    use super::*;

    const NINE: [u8; 8] = [SOURCE, 1, 2, 0, 0, 0, 0, 9];
    const EIGHT: [u8; 8] = [TARGET, 1, 2, 0, 0, 0, 0, 8];

    fn message(icmp_type: u8, options: &[u8]) -> Vec<u8> {
        let len = Kind::of_type(icmp_type).map_or(8, Kind::header_len);
        let mut bytes = std::vec![0; len];
        bytes[0] = icmp_type;
        if let Some(target) = bytes.get_mut(8..24) {
            target.fill(0xfd);
        }
        bytes.extend_from_slice(options);
        bytes
    }

    #[test]
    fn each_kind_with_its_target_and_its_options() {
        let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
        let options = [NINE, nonce, EIGHT].concat();
        for icmp_type in 133..=137 {
            let bytes = message(icmp_type, &options);
            let read = Message::new_checked(&bytes).unwrap();
            assert_eq!(Some(read.kind()), Kind::of_type(icmp_type));
            assert_eq!(read.kind().icmp_type(), icmp_type);
            assert_eq!(read.target(), (icmp_type > 134).then_some([0xfd; 16].into()));
            let macs =
                [LinkLayer::Source(Mac([2, 0, 0, 0, 0, 9])), LinkLayer::Target(Mac([2, 0, 0, 0, 0, 8]))];
            assert!(read.link_layers().eq(macs));
            let ends = [0, 8, 16, 24].map(|n| bytes.len() - n);
            for len in 0..bytes.len() {
                assert_eq!(Message::new_checked(&bytes[..len]).is_ok(), ends.contains(&len), "{len} bytes");
            }
        }
    }

    #[test]
    fn what_is_refused() {
        let refusal = |bytes: &[u8]| Message::new_checked(bytes).unwrap_err();
        assert_eq!(refusal(&message(128, &[])), Malformed::Foreign);
        assert_eq!(refusal(&message(135, &[1, 0, 0, 0, 0, 0, 0, 0])), Malformed::Length);
        assert_eq!(refusal(&message(135, &[14, 2, 0, 0, 0, 0, 0, 0])), Malformed::Truncated);
        assert_eq!(refusal(&message(136, &[&[2, 2][..], &[0; 14]].concat())), Malformed::Foreign);
        assert_eq!(refusal(&message(136, &[2])), Malformed::Truncated);
    }

    proptest! {
        #[test]
        fn agrees_with_etherparse(
            icmp_type in 133..=137_u8,
            options in prop::collection::vec((0..6_u8, 0..3_u8, any::<[u8; 14]>()), 0..5),
            cut in 0..20_usize,
        ) {
            let options: Vec<u8> = (options.iter())
                .flat_map(|(kind, units, rest)| {
                    let len = (usize::from(*units) * UNIT).max(2) - 2;
                    [&[*kind, *units][..], &rest[..len.min(14)]].concat()
                })
                .collect();
            let options = &options[..options.len() - cut.min(options.len())];
            let bytes = message(icmp_type, options);
            let theirs: Result<Vec<_>, _> = NdpOptionsIterator::from_slice(options).collect();
            match (Message::new_checked(&bytes), theirs) {
                // It takes link-layer addresses of any length, and judges options that mean nothing here.
                (Err(Malformed::Foreign), _) | (_, Err(_)) => {}
                (ours, Ok(theirs)) => {
                    let expected = theirs.iter().filter_map(|option| match option {
                        NdpOptionSlice::SourceLinkLayerAddress(slice) => {
                            Mac::from_slice(slice.link_layer_address()).map(LinkLayer::Source)
                        }
                        NdpOptionSlice::TargetLinkLayerAddress(slice) => {
                            Mac::from_slice(slice.link_layer_address()).map(LinkLayer::Target)
                        }
                        _ => None,
                    });
                    prop_assert!(ours.expect("etherparse takes it").link_layers().eq(expected));
                }
            }
        }

        #[test]
        fn any_bytes(mut bytes: Vec<u8>, icmp_type in 133..=137_u8, is_ours: bool) {
            if let Some(first) = bytes.first_mut().filter(|_| is_ours) {
                *first = icmp_type;
            }
            if let Ok(message) = Message::new_checked(&bytes) {
                prop_assert!(message.link_layers().count() <= bytes.len() / UNIT);
                prop_assert_eq!(message.target().is_some(), message.kind().has_target());
            }
        }
    }
}
