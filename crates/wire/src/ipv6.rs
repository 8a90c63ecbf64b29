//! IPv6 headers (RFC 8200 section 3).

use core::net::Ipv6Addr;
use core::ops::{Deref, DerefMut};

use crate::checksum::Sum;
use crate::{Mac, Malformed};

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;

/// The link-local address that a station makes of its MAC (RFC 4291 section 2.5.6 and appendix A, RFC 2464 section 5).
#[must_use]
pub fn link_local_of(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// The group of all nodes on a link (RFC 4291 section 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The group in which a node listens that has this address (RFC 4291 section 2.7.1).
#[must_use]
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The MAC of a group (RFC 2464 section 7).
#[must_use]
pub const fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// The sum of the pseudo-header of `len` bytes of `protocol` (RFC 8200 section 8.1).
#[must_use]
pub fn pseudo_header(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, len: usize) -> Sum {
    let addresses = Sum::of(&source.octets()).plus(Sum::of(&destination.octets()));
    addresses.plus(Sum::of_word((u64::from(protocol) << 32) | len as u64))
}

/// A checked view of the fixed header. Written through when made by [`Header::new_checked_mut`].
#[derive(Clone, Copy, Debug)]
pub struct Header<B>(B);

impl<'a> Header<&'a [u8; HEADER_LEN]> {
    /// The header at the front of `bytes`, with its payload inside `bytes`.
    ///
    /// # Errors
    /// What does not fit, see [`Malformed`].
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header = Self(bytes.first_chunk().ok_or(Malformed::Truncated)?);
        if header.0[0] >> 4 != 6 {
            return Err(Malformed::Version);
        }
        if HEADER_LEN + header.payload_len() > bytes.len() { Err(Malformed::Truncated) } else { Ok(header) }
    }
}

impl<'a> Header<&'a mut [u8; HEADER_LEN]> {
    /// As [`Header::new_checked`], to be written. Lengths are not checked: they may be what is to be set.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when `bytes` is shorter than [`HEADER_LEN`].
    #[inline]
    pub fn new_checked_mut(bytes: &'a mut [u8]) -> Result<Self, Malformed> {
        bytes.first_chunk_mut().map(Self).ok_or(Malformed::Truncated)
    }
}

impl<B: Deref<Target = [u8; HEADER_LEN]>> Header<B> {
    /// Bytes after the fixed header, extension headers included.
    #[inline]
    #[must_use]
    pub fn payload_len(&self) -> usize {
        usize::from(u16::from_be_bytes([self.0[4], self.0[5]]))
    }

    /// The type of what follows the fixed header.
    #[inline]
    #[must_use]
    pub fn next_header(&self) -> u8 {
        self.0[6]
    }

    /// How many routers it may pass yet.
    #[inline]
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        self.0[7]
    }

    /// The source.
    #[inline]
    #[must_use]
    pub fn source(&self) -> Ipv6Addr {
        let [_, _, _, _, _, _, _, _, src @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *self.0;
        Ipv6Addr::from(src)
    }

    /// The destination.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> Ipv6Addr {
        let [.., a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *self.0;
        Ipv6Addr::from([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    /// The sum of the two addresses, for a pseudo-header.
    #[inline]
    pub(crate) fn address_sum(&self) -> Sum {
        Sum::of(&self.0[8..])
    }
}

impl<B: DerefMut<Target = [u8; HEADER_LEN]>> Header<B> {
    /// Sets the bytes after the fixed header.
    pub fn set_payload_len(&mut self, len: u16) {
        self.0[4..6].copy_from_slice(&len.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_local_address_is_made_of_a_mac() {
        let address = link_local_of(Mac([0x02, 0x00, 0x5e, 0x10, 0x00, 0xab]));
        assert_eq!(Ok(address), "fe80::5eff:fe10:ab".parse());
        assert_eq!(Ok(link_local_of(Mac([0; 6]))), "fe80::200:ff:fe00:0".parse());
    }

    #[test]
    fn groups_and_their_macs() {
        let group = solicited_node("2001:db8::12:3456".parse().unwrap());
        assert_eq!(Ok(group), "ff02::1:ff12:3456".parse());
        assert_eq!(group_mac(group), Mac([0x33, 0x33, 0xff, 0x12, 0x34, 0x56]));
        assert_eq!(group_mac(ALL_NODES), Mac([0x33, 0x33, 0, 0, 0, 1]));
    }
}
