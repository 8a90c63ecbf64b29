//! TCP headers (RFC 9293 section 3.1).

use core::ops::{Deref, DerefMut};

use crate::Malformed;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;
/// Offset of the checksum in the header, in bytes.
pub const CHECKSUM_OFFSET: u16 = 16;

/// The sender has reduced its window (RFC 3168 section 6.1.2).
pub const CWR: u8 = 0x80;
/// Push.
pub const PSH: u8 = 0x08;
/// No more data from the sender.
pub const FIN: u8 = 0x01;

/// A checked view of a header; options are beyond it. Written through when made by [`Header::new_checked_mut`].
#[derive(Clone, Copy, Debug)]
pub struct Header<B>(B);

impl<'a> Header<&'a [u8; HEADER_LEN]> {
    /// The header at the front of `bytes`, with its options inside `bytes`.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] or [`Malformed::Length`].
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header = Self(bytes.first_chunk().ok_or(Malformed::Truncated)?);
        if header.header_len() < HEADER_LEN {
            return Err(Malformed::Length);
        }
        if header.header_len() > bytes.len() { Err(Malformed::Truncated) } else { Ok(header) }
    }
}

impl<'a> Header<&'a mut [u8; HEADER_LEN]> {
    /// As [`Header::new_checked`], to be written. The data offset is not checked.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when `bytes` is shorter than [`HEADER_LEN`].
    #[inline]
    pub fn new_checked_mut(bytes: &'a mut [u8]) -> Result<Self, Malformed> {
        bytes.first_chunk_mut().map(Self).ok_or(Malformed::Truncated)
    }
}

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

    /// The sequence number.
    #[inline]
    #[must_use]
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes([self.0[4], self.0[5], self.0[6], self.0[7]])
    }

    /// Bytes of the header with its options.
    #[inline]
    #[must_use]
    pub fn header_len(&self) -> usize {
        usize::from(self.0[12] >> 4) * 4
    }

    /// The eight flags from CWR to FIN.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> u8 {
        self.0[13]
    }

    /// The checksum.
    #[inline]
    #[must_use]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.0[16], self.0[17]])
    }
}

impl<B: DerefMut<Target = [u8; HEADER_LEN]>> Header<B> {
    /// Sets the sequence number.
    pub fn set_sequence(&mut self, sequence: u32) {
        self.0[4..8].copy_from_slice(&sequence.to_be_bytes());
    }

    /// Sets the eight flags from CWR to FIN.
    pub fn set_flags(&mut self, flags: u8) {
        self.0[13] = flags;
    }

    /// Sets the checksum.
    pub fn set_checksum(&mut self, checksum: u16) {
        self.0[16..18].copy_from_slice(&checksum.to_be_bytes());
    }
}
