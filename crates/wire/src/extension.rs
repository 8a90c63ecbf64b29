//! What is behind the extension headers of an IPv6 packet (RFC 8200 section 4), for whoever must not be deceived by them.
//!
//! [`crate::classify`] wants to know where a checksum is, and takes what it does not know for a protocol. Here a chain
//! that hides what follows is an error, for such chains are made to get by a guard (RFC 7113).

use crate::ipv6::{HEADER_LEN, Header};
use crate::{Malformed, classify::protocol};

/// Extension headers that are followed; RFC 8200 section 4.1 names seven in its order.
const MAX_EXTENSIONS: usize = 8;

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// Its protocol.
    pub protocol: u8,
    /// Where it begins, in bytes from the IPv6 header on.
    pub offset: usize,
    /// Where the packet ends; what follows is padding.
    pub end: usize,
    /// The packet has a Fragment header, and this is what it says.
    pub fragment: Option<Fragment>,
}

/// Which part of a packet a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where its payload belongs, in units of 8 bytes. Only what belongs at 0 begins with the upper layer's header.
    pub offset: u16,
    /// There are parts behind it.
    pub more: bool,
}

impl Fragment {
    /// All of the packet, with a Fragment header that says nothing (RFC 6946).
    #[inline]
    #[must_use]
    pub const fn is_atomic(self) -> bool {
        self.offset == 0 && !self.more
    }
}

impl Upper {
    /// What the IPv6 packet at the front of `packet` carries.
    ///
    /// # Errors
    /// Why that cannot be told: besides lengths that do not fit, too many extension headers, or one that must not be
    /// there ([`Malformed::Order`]). Behind the Fragment header of a part of a packet it might hide in another part what
    /// it is (RFC 7112 section 5); hop-by-hop options come first or not at all (RFC 8200 section 4.1).
    pub fn of(packet: &[u8]) -> Result<Self, Malformed> {
        let header = Header::new_checked(packet)?;
        let end = HEADER_LEN + header.payload_len();
        let mut upper = Self { protocol: header.next_header(), offset: HEADER_LEN, end, fragment: None };
        for _ in 0..MAX_EXTENSIONS {
            if !is_extension(upper.protocol) {
                return Ok(upper);
            }
            let may_follow = match upper.fragment {
                Some(fragment) => fragment.is_atomic() && upper.protocol != protocol::FRAGMENT,
                None => true,
            };
            if !may_follow || (upper.protocol == protocol::HOP_BY_HOP && upper.offset != HEADER_LEN) {
                return Err(Malformed::Order);
            }
            upper.skip(packet)?;
        }
        Err(Malformed::TooDeep)
    }

    /// Goes behind one extension header.
    fn skip(&mut self, packet: &[u8]) -> Result<(), Malformed> {
        let header = packet.get(self.offset..self.end).and_then(<[u8]>::first_chunk);
        let &[next, len, c, d, ..]: &[u8; 8] = header.ok_or(Malformed::Truncated)?;
        self.offset += match self.protocol {
            protocol::FRAGMENT => {
                // Section 4.5: 13 bits of offset, two reserved, "more fragments".
                let word = u16::from_be_bytes([c, d]);
                self.fragment = Some(Fragment { offset: word >> 3, more: word & 1 != 0 });
                8
            }
            // RFC 4302 section 2.2: in words of four bytes, less two; the sequence number is always there.
            protocol::AUTHENTICATION if len == 0 => return Err(Malformed::Length),
            protocol::AUTHENTICATION => (usize::from(len) + 2) * 4,
            _ => (usize::from(len) + 1) * 8,
        };
        self.protocol = next;
        if self.offset > self.end { Err(Malformed::Truncated) } else { Ok(()) }
    }
}

/// Headers that something else follows. (Behind those of Mobility, HIP and ESP comes nothing that a host would take in
/// without having agreed to it.)
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION_OPTIONS
    )
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use etherparse::{IpNumber, Ipv6Slice};
    use proptest::prelude::*;

    use super::*;
    use crate::testing::frame;
    use crate::{Mac, ethernet};

    /// A packet whose payload is this, beginning with a header of the type `next`.
    fn packet(next: u8, payload: &[u8]) -> Vec<u8> {
        let frame = frame(Mac([2; 6]), Mac([4; 6])).ip([0xfd; 16], [0xfe; 16]).payload(payload);
        let mut packet = frame.bytes().split_off(ethernet::HEADER_LEN);
        packet[6] = next;
        packet
    }

    #[test]
    fn chains() {
        let options = [60, 0, 1, 4, 0, 0, 0, 0];
        let authentication = [58, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1];
        let upper =
            Upper::of(&packet(0, &[&options[..], &[51, 0, 1, 4, 0, 0, 0, 0], &authentication].concat()));
        assert_eq!(upper, Ok(Upper { protocol: 58, offset: 40 + 28, end: 68, fragment: None }));
        let many = options.repeat(MAX_EXTENSIONS);
        assert_eq!(Upper::of(&packet(60, &many)), Err(Malformed::TooDeep));
        assert_eq!(Upper::of(&packet(60, &[0; 16])), Err(Malformed::Order));
        assert_eq!(Upper::of(&packet(51, &[58, 0, 0, 0, 0, 0, 0, 0])), Err(Malformed::Length));
        let whole = packet(0, &[58, 0, 1, 4, 0, 0, 0, 0]);
        for len in 0..whole.len() {
            assert!(Upper::of(&whole[..len]).is_err());
        }
        assert_eq!(Upper::of(&packet(60, &[58, 1, 0, 0, 0, 0, 0, 0])), Err(Malformed::Truncated));
    }

    #[test]
    fn fragments_begin_with_the_upper_layer_or_are_refused() {
        let fragment = |next, word: u16, rest: &[u8]| {
            let [hi, lo] = word.to_be_bytes();
            Upper::of(&packet(44, &[&[next, 0, hi, lo, 0, 0, 0, 1], rest].concat()))
        };
        let ours = |offset, more| Some(Fragment { offset, more });
        assert_eq!(fragment(58, 1, &[0; 8]).unwrap().fragment, ours(0, true));
        assert_eq!(fragment(58, 5 << 3, &[0; 8]).unwrap().fragment, ours(5, false));
        for hidden in [0, 43, 44, 51, 60] {
            assert_eq!(fragment(hidden, 1, &[58, 0, 0, 0, 0, 0, 0, 0]), Err(Malformed::Order));
        }
        assert_eq!(fragment(44, 0, &[58, 0, 0, 8, 0, 0, 0, 0]), Err(Malformed::Order), "twice");
        let atomic = fragment(60, 0, &[58, 0, 1, 4, 0, 0, 0, 0]).unwrap();
        assert_eq!((atomic.protocol, atomic.offset, atomic.fragment), (58, 56, ours(0, false)));
    }

    proptest! {
        /// What etherparse finds behind a chain of extension headers, as they come in any order.
        #[test]
        fn agrees_with_etherparse(
            kinds in prop::collection::vec(prop::sample::select(&[43_u8, 51, 60][..]), 0..7),
            bytes in prop::collection::vec(any::<u8>(), 0..160),
        ) {
            let mut payload = bytes;
            let mut at = 0;
            for next in kinds.iter().skip(1).copied().chain([58]) {
                if at + 2 > payload.len() || kinds.is_empty() {
                    break;
                }
                payload[at] = next;
                payload[at + 1] &= 3;
                at += usize::from(payload[at + 1] + 2) * 4;
            }
            let whole = packet(kinds.first().copied().unwrap_or(58), &payload);
            let (Ok(ours), Ok(theirs)) = (Upper::of(&whole), Ipv6Slice::from_slice(&whole)) else {
                return Ok(());
            };
            let carried = theirs.payload();
            // It ends where it has seen a header of each kind.
            if is_extension(carried.ip_number.0) || payload.is_empty() {
                return Ok(());
            }
            prop_assert_eq!(IpNumber(ours.protocol), carried.ip_number);
            prop_assert_eq!(&whole[ours.offset..ours.end], carried.payload);
        }

        #[test]
        fn any_bytes(bytes: Vec<u8>) {
            if let Ok(upper) = Upper::of(&bytes) {
                prop_assert!(upper.offset <= upper.end && upper.end <= bytes.len());
            }
        }
    }
}
