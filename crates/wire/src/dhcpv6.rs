//! DHCP for IPv6 (RFC 8415), as far as one has to know which addresses are given for how long. Whom to says the frame:
//! a server's answer goes to the client's link-local address, and so to its MAC.

use core::net::Ipv6Addr;

use crate::Malformed;

/// The UDP port that servers and relay agents listen at.
pub const SERVER_PORT: u16 = 547;
/// The UDP port that clients listen at.
pub const CLIENT_PORT: u16 = 546;

/// The type of a server's message that gives addresses (section 7.3).
pub const REPLY: u8 = 7;

/// Bytes before the options: message type and transaction.
const HEADER_LEN: usize = 4;

/// A checked view of a message between a client and a server; one that a relay agent sends is none. Its options may end
/// anywhere: what is read of them is inside the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    header: &'a [u8; HEADER_LEN],
    options: &'a [u8],
}

/// An address that is given to a client (section 21.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: Ipv6Addr,
    /// For how long it may be used, in seconds; all ones for ever (section 7.7), 0: not any more.
    pub valid_seconds: u32,
}

impl<'a> Message<'a> {
    /// The message that a UDP datagram carries.
    ///
    /// # Errors
    /// [`Malformed::Truncated`], or [`Malformed::Foreign`] for what relay agents say to each other (section 9).
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        const RELAY_FORW: u8 = 12;
        const RELAY_REPL: u8 = 13;
        let (header, options) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::Truncated)?;
        match header {
            &[RELAY_FORW | RELAY_REPL, ..] => Err(Malformed::Foreign),
            _ => Ok(Self { header, options }),
        }
    }

    /// What sort of message it is.
    #[must_use]
    pub const fn message_type(&self) -> u8 {
        self.header[0]
    }

    /// The addresses in its identity associations for non-temporary addresses (section 21.4).
    pub fn addresses(&self) -> impl Iterator<Item = Address> + use<'a> {
        const IA_NA: u16 = 3;
        const IA_ADDR: u16 = 5;
        /// IAID, T1 and T2.
        const IA_NA_LEN: usize = 12;
        let associations = Options(self.options).filter(|(code, _)| *code == IA_NA);
        let inside = associations.flat_map(|(_, value)| Options(value.get(IA_NA_LEN..).unwrap_or_default()));
        inside.filter(|(code, _)| *code == IA_ADDR).filter_map(|(_, value)| {
            // The address, its preferred and its valid lifetime.
            let (address, rest) = value.split_first_chunk::<16>()?;
            let valid_seconds = u32::from_be_bytes(*rest.get(4..)?.first_chunk()?);
            Some(Address { address: Ipv6Addr::from(*address), valid_seconds })
        })
    }
}

/// Codes and values of the options that are left. Each takes 4 bytes at least.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[c0, c1, l0, l1], rest) = self.0.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
        self.0 = rest;
        Some((u16::from_be_bytes([c0, c1]), value))
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn option(code: u16, value: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes()[..], &(value.len() as u16).to_be_bytes(), value].concat()
    }

    fn address(last: u8, valid: u32) -> Vec<u8> {
        let mut octets = [0xfd; 16];
        octets[15] = last;
        option(5, &[&octets[..], &[0, 0, 0, 1], &valid.to_be_bytes(), &option(13, &[0, 0])].concat())
    }

    fn association(addresses: &[Vec<u8>]) -> Vec<u8> {
        option(3, &[vec![0; 12], addresses.concat()].concat())
    }

    fn read(bytes: &[u8]) -> Vec<(u8, u32)> {
        let message = Message::new_checked(bytes).unwrap();
        message.addresses().map(|a| (a.address.octets()[15], a.valid_seconds)).collect()
    }

    #[test]
    fn a_reply_with_several_addresses() {
        let ias =
            [association(&[address(1, 60), address(2, u32::MAX)]), option(1, &[0; 10]), association(&[])];
        let bytes = [vec![REPLY, 1, 2, 3], ias.concat(), association(&[address(3, 0)])].concat();
        assert_eq!(Message::new_checked(&bytes).unwrap().message_type(), REPLY);
        assert_eq!(read(&bytes), [(1, 60), (2, u32::MAX), (3, 0)]);
        for len in HEADER_LEN..bytes.len() {
            assert!(read(&bytes[..len]).len() < 3, "{len} bytes");
        }
        assert_eq!(Message::new_checked(&bytes[..3]).unwrap_err(), Malformed::Truncated);
        assert_eq!(Message::new_checked(&[13, 0, 0, 0]).unwrap_err(), Malformed::Foreign);
    }

    #[test]
    fn only_whole_addresses_of_associations_count() {
        let short = option(5, &[0xfd; 23]);
        let bytes = [vec![REPLY, 0, 0, 0], association(&[short, address(2, 7)]), address(3, 7)].concat();
        assert_eq!(read(&bytes), [(2, 7)]);
        assert_eq!(read(&[&[REPLY, 0, 0, 0][..], &option(3, &[0; 11])].concat()), []);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(given in prop::collection::vec(any::<(u8, u32)>(), 0..20), parts in 1..4_usize) {
            let addresses: Vec<Vec<u8>> = given.iter().map(|(last, valid)| address(*last, *valid)).collect();
            let ias: Vec<Vec<u8>> = addresses.chunks(parts).map(association).collect();
            prop_assert_eq!(read(&[vec![REPLY, 0, 0, 0], ias.concat()].concat()), given);
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(0..6_u8, 0..200)) {
            if let Ok(message) = Message::new_checked(&bytes) {
                prop_assert!(message.addresses().count() <= bytes.len() / 28);
            }
        }
    }
}
