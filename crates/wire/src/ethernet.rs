//! Ethernet II headers (IEEE 802.3-2022 clause 3) and the EtherTypes that the switch looks at.

use crate::vlan::{TAG_LEN, TPID_8021AD, TPID_8021Q};
use crate::{Mac, Malformed};

/// Bytes of a header: two addresses and the EtherType.
pub const HEADER_LEN: usize = 14;
/// Tags that are followed inside a frame, the limit of Linux too (`VLAN_MAX_DEPTH`).
pub const MAX_TAGS: usize = 8;

/// EtherType of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const TYPE_ARP: u16 = 0x0806;
/// EtherType of RARP (RFC 903).
pub const TYPE_RARP: u16 = 0x8035;
/// EtherType of IPv6.
pub const TYPE_IPV6: u16 = 0x86dd;
/// The least number that is an EtherType; below it is the length of an LLC frame (IEEE 802.3-2022 clause 3.2.6).
pub const TYPE_MIN: u16 = 0x0600;
/// EtherType of a bridged Ethernet frame in GRE and Geneve ("transparent Ethernet bridging").
pub const TYPE_TEB: u16 = 0x6558;

/// A checked view of a header.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a>(&'a [u8; HEADER_LEN]);

impl<'a> Header<'a> {
    /// The header at the front of `bytes`.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] when `bytes` is shorter than [`HEADER_LEN`].
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        bytes.first_chunk().map(Self).ok_or(Malformed::Truncated)
    }

    /// The destination.
    #[inline]
    #[must_use]
    pub const fn destination(self) -> Mac {
        let [a, b, c, d, e, f, ..] = *self.0;
        Mac([a, b, c, d, e, f])
    }

    /// The source.
    #[inline]
    #[must_use]
    pub const fn source(self) -> Mac {
        let [_, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.0;
        Mac([a, b, c, d, e, f])
    }

    /// The EtherType (or, below 0x0600, the length of an 802.3 frame).
    #[inline]
    #[must_use]
    pub const fn ether_type(self) -> u16 {
        let [.., hi, lo] = *self.0;
        u16::from_be_bytes([hi, lo])
    }
}

/// The bytes of a header.
#[inline]
#[must_use]
pub const fn header(destination: Mac, source: Mac, ether_type: u16) -> [u8; HEADER_LEN] {
    let (Mac([a, b, c, d, e, f]), Mac([g, h, i, j, k, l])) = (destination, source);
    let [high, low] = ether_type.to_be_bytes();
    [a, b, c, d, e, f, g, h, i, j, k, l, high, low]
}

/// The EtherType behind all tags in the bytes, and the offset of what follows it.
///
/// # Errors
/// [`Malformed::Truncated`], or [`Malformed::TooDeep`] beyond [`MAX_TAGS`] tags.
#[inline]
pub fn payload(bytes: &[u8]) -> Result<(u16, usize), Malformed> {
    let ether_type = Header::new_checked(bytes)?.ether_type();
    if matches!(ether_type, TPID_8021Q | TPID_8021AD) {
        tagged_payload(bytes)
    } else {
        Ok((ether_type, HEADER_LEN))
    }
}

#[cold]
fn tagged_payload(bytes: &[u8]) -> Result<(u16, usize), Malformed> {
    let mut end = HEADER_LEN;
    for _ in 0..MAX_TAGS {
        end += TAG_LEN;
        let type_field = bytes.get(end - 2..).and_then(<[u8]>::first_chunk).ok_or(Malformed::Truncated)?;
        match u16::from_be_bytes(*type_field) {
            TPID_8021Q | TPID_8021AD => {}
            ether_type => return Ok((ether_type, end)),
        }
    }
    Err(Malformed::TooDeep)
}
