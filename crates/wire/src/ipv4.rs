//! IPv4 headers (RFC 791 section 3.1).

use core::net::Ipv4Addr;
use core::ops::{Deref, DerefMut};

use crate::Malformed;
use crate::checksum::Sum;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// A checked view of a header; options are beyond it. Written through when made by [`Header::new_checked_mut`].
#[derive(Clone, Copy, Debug)]
pub struct Header<B>(B);

impl<'a> Header<&'a [u8; HEADER_LEN]> {
    /// The header at the front of `bytes`, with options and payload inside `bytes`.
    ///
    /// # Errors
    /// What does not fit, see [`Malformed`].
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header = Self(bytes.first_chunk().ok_or(Malformed::Truncated)?);
        if header.0[0] >> 4 != 4 {
            return Err(Malformed::Version);
        }
        if header.header_len() < HEADER_LEN || header.total_len() < header.header_len() {
            return Err(Malformed::Length);
        }
        if header.total_len() > bytes.len() { Err(Malformed::Truncated) } else { Ok(header) }
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
    /// Bytes of the header with its options.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        usize::from(self.0[0] & 0xf) * 4
    }

    /// Bytes of header and payload.
    #[inline]
    #[must_use]
    pub fn total_len(&self) -> usize {
        usize::from(u16::from_be_bytes([self.0[2], self.0[3]]))
    }

    /// The identification.
    #[inline]
    #[must_use]
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.0[4], self.0[5]])
    }

    /// Part of a fragmented packet: "more fragments" is set, or the offset is not 0.
    #[inline]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        u16::from_be_bytes([self.0[6], self.0[7]]) & 0x3fff != 0
    }

    /// Where the payload belongs in its packet, in units of 8 bytes: what belongs at 0 begins with the header of the
    /// protocol.
    #[inline]
    #[must_use]
    pub fn fragment_offset(&self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]]) & 0x1fff
    }

    /// The protocol of the payload.
    #[inline]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.0[9]
    }

    /// The header's checksum.
    #[inline]
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.0[10], self.0[11]])
    }

    /// The source.
    #[inline]
    #[must_use]
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[12], self.0[13], self.0[14], self.0[15])
    }

    /// The destination.
    #[inline]
    #[must_use]
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[16], self.0[17], self.0[18], self.0[19])
    }

    /// The sum of the two addresses, for a pseudo-header.
    #[inline]
    pub(crate) fn address_sum(&self) -> Sum {
        let [.., a, b, c, d, e, f, g, h] = *self.0;
        Sum::of_word(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

impl<B: DerefMut<Target = [u8; HEADER_LEN]>> Header<B> {
    /// Sets the bytes of header and payload.
    pub fn set_total_len(&mut self, len: u16) {
        self.0[2..4].copy_from_slice(&len.to_be_bytes());
    }

    /// Sets the identification.
    pub fn set_id(&mut self, id: u16) {
        self.0[4..6].copy_from_slice(&id.to_be_bytes());
    }

    /// Sets the header's checksum.
    pub fn set_checksum(&mut self, checksum: u16) {
        self.0[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}
