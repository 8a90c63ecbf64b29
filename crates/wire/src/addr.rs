//! MAC addresses (IEEE 802-2014 clause 8).

use core::fmt;
use core::str::FromStr;

/// A 48-bit MAC address, in transmission order.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// `00:00:00:00:00:00`, never a valid source or destination.
    pub const ZERO: Self = Self([0; 6]);

    /// The first six bytes of `bytes`; `None` when there are fewer.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(*bytes.first_chunk()?))
    }

    /// The address as the low 48 bits of a word, first octet highest.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_be_bytes([0, 0, a, b, c, d, e, f])
    }

    /// The low 48 bits of `word`, first octet highest.
    #[must_use]
    pub const fn from_u64(word: u64) -> Self {
        let [_, _, a, b, c, d, e, f] = word.to_be_bytes();
        Self([a, b, c, d, e, f])
    }

    /// The I/G bit: a group address (multicast or broadcast).
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// All ones.
    #[must_use]
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }

    /// May be learnt: an individual address other than zero.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        !self.is_multicast() && self != Self::ZERO
    }

    /// `01-80-C2-00-00-00` to `-0F`, which a bridge never relays (IEEE 802.1Q-2022 table 8-1).
    #[must_use]
    pub const fn is_reserved(self) -> bool {
        matches!(self.0, [0x01, 0x80, 0xc2, 0, 0, 0x00..=0x0f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not six hexadecimal octets parted by `:` or `-`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseMacError;

impl fmt::Display for ParseMacError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a MAC address: six hexadecimal octets are expected, as in 02:00:00:00:00:11")
    }
}

impl core::error::Error for ParseMacError {}

impl FromStr for Mac {
    type Err = ParseMacError;

    fn from_str(s: &str) -> Result<Self, ParseMacError> {
        let mut octets = [0; 6];
        let mut parts = s.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2).ok_or(ParseMacError)?;
            // `from_str_radix` alone would take a sign.
            if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(ParseMacError);
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| ParseMacError)?;
        }
        if parts.next().is_some() { Err(ParseMacError) } else { Ok(Self(octets)) }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn kinds_of_address() {
        let mac = |s: &str| s.parse::<Mac>().unwrap();
        assert!(mac("02:00:00:00:00:11").is_unicast());
        assert!(!Mac::ZERO.is_unicast());
        assert!(mac("33:33:00:00:00:01").is_multicast() && !mac("33:33:00:00:00:01").is_unicast());
        assert!(Mac::BROADCAST.is_multicast() && Mac::BROADCAST.is_broadcast());
        assert!(mac("01-80-c2-00-00-00").is_reserved() && mac("01:80:C2:00:00:0f").is_reserved());
        assert!(!mac("01:80:c2:00:00:10").is_reserved());
    }

    #[test]
    fn what_is_no_address() {
        for bad in
            ["", "02", "02:00:00:00:00", "02:00:00:00:00:11:22", "02:00:00:00:00:1", "02:00:00:00:00:+1", "x"]
        {
            assert_eq!(bad.parse::<Mac>(), Err(ParseMacError), "{bad}");
        }
        assert_eq!(Mac::from_slice(&[1, 2, 3, 4, 5]), None);
        assert_eq!(Mac::from_slice(&[1, 2, 3, 4, 5, 6, 7]), Some(Mac([1, 2, 3, 4, 5, 6])));
    }

    proptest! {
        #[test]
        fn words_and_text_give_the_same_back(octets: [u8; 6], text: std::string::String) {
            let mac = Mac(octets);
            prop_assert_eq!(Mac::from_u64(mac.to_u64()), mac);
            prop_assert_eq!(mac.to_string().parse(), Ok(mac));
            let _ = text.parse::<Mac>();
        }
    }
}
