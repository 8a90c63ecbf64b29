//! UDP headers (RFC 768).

use core::ops::{Deref, DerefMut};

use crate::Malformed;

/// Bytes of a header.
pub const HEADER_LEN: usize = 8;
/// Offset of the checksum in the header, in bytes.
pub const CHECKSUM_OFFSET: u16 = 6;

/// A checked view of a header. Written through when made by [`Header::new_checked_mut`].
#[derive(Clone, Copy, Debug)]
pub struct Header<B>(B);

impl<'a> Header<&'a [u8; HEADER_LEN]> {
    /// The header at the front of `bytes`, with its payload inside `bytes`.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] or [`Malformed::Length`].
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header = Self(bytes.first_chunk().ok_or(Malformed::Truncated)?);
        if header.len() < HEADER_LEN {
            return Err(Malformed::Length);
        }
        if header.len() > bytes.len() { Err(Malformed::Truncated) } else { Ok(header) }
    }
}

impl<'a> Header<&'a mut [u8; HEADER_LEN]> {
    /// As [`Header::new_checked`], to be written. The length is not checked: it may be what is to be set.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when `bytes` is shorter than [`HEADER_LEN`].
    #[inline]
    pub fn new_checked_mut(bytes: &'a mut [u8]) -> Result<Self, Malformed> {
        bytes.first_chunk_mut().map(Self).ok_or(Malformed::Truncated)
    }
}

#[allow(clippy::len_without_is_empty)] // the length field, never 0 in a checked header
impl<B: Deref<Target = [u8; HEADER_LEN]>> Header<B> {
    /// The source port.
    #[inline]
    #[must_use]
    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// The destination port.
    #[inline]
    #[must_use]
    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.0[2], self.0[3]])
    }

    /// Bytes of header and payload.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(u16::from_be_bytes([self.0[4], self.0[5]]))
    }

    /// The checksum; 0 when the sender made none.
    #[inline]
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }
}

impl<B: DerefMut<Target = [u8; HEADER_LEN]>> Header<B> {
    /// Sets the bytes of header and payload.
    pub fn set_len(&mut self, len: u16) {
        self.0[4..6].copy_from_slice(&len.to_be_bytes());
    }

    /// Sets the checksum.
    pub fn set_checksum(&mut self, checksum: u16) {
        self.0[6..8].copy_from_slice(&checksum.to_be_bytes());
    }
}
