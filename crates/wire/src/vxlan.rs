//! VXLAN headers (RFC 7348 section 5).

use core::fmt;

use crate::Malformed;

/// Bytes of a header.
pub const HEADER_LEN: usize = 8;
/// The UDP port that IANA assigned.
pub const UDP_PORT: u16 = 4789;
/// The I flag: the VNI is valid. Every other flag is reserved: sent as zero, ignored when received.
const FLAG_VNI: u8 = 0x08;

/// A VXLAN network identifier, 24 bits. RFC 7348 reserves none, so 0 is one too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vni(u32);

/// A number that is no [`Vni`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidVni(pub u32);

impl fmt::Display for InvalidVni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a VNI: it must be 0 to 16777215", self.0)
    }
}

impl core::error::Error for InvalidVni {}

impl Vni {
    /// The VNI `vni`.
    ///
    /// # Errors
    /// [`InvalidVni`] unless `vni` has 24 bits.
    pub const fn new(vni: u32) -> Result<Self, InvalidVni> {
        if vni >> 24 == 0 { Ok(Self(vni)) } else { Err(InvalidVni(vni)) }
    }

    /// The number, 0 to 16777215.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The VNI of the header at the front of `bytes`.
///
/// # Errors
/// [`Malformed::Truncated`], or [`Malformed::Version`] without the I flag.
#[inline]
pub fn vni(bytes: &[u8]) -> Result<Vni, Malformed> {
    let [flags, _, _, _, high, middle, low, _]: [u8; HEADER_LEN] =
        *bytes.first_chunk().ok_or(Malformed::Truncated)?;
    if flags & FLAG_VNI == 0 {
        return Err(Malformed::Version);
    }
    Ok(Vni(u32::from_be_bytes([0, high, middle, low])))
}

/// The header of a frame of this network.
#[inline]
#[must_use]
pub const fn header(vni: Vni) -> [u8; HEADER_LEN] {
    let [_, high, middle, low] = vni.0.to_be_bytes();
    [FLAG_VNI, 0, 0, 0, high, middle, low, 0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn vnis_have_24_bits() {
        assert_eq!(Vni::new(0).map(Vni::get), Ok(0));
        assert_eq!(Vni::new(0xff_ffff).map(Vni::get), Ok(0xff_ffff));
        assert_eq!(Vni::new(0x100_0000), Err(InvalidVni(0x100_0000)));
    }

    #[test]
    fn a_header_without_the_i_flag_or_cut_short_is_none() {
        let whole = header(Vni(5));
        assert_eq!(vni(&[0xf7, 0xff, 0xff, 0xff, 0, 0, 5, 0]), Err(Malformed::Version));
        for len in 0..HEADER_LEN {
            assert_eq!(vni(&whole[..len]), Err(Malformed::Truncated));
        }
    }

    proptest! {
        #[test]
        fn headers_are_read_as_written_and_reserved_bits_ignored(n in 0_u32..1 << 24, noise: [u8; 4], last: u8) {
            let vni_in = Vni::new(n).unwrap();
            let mut bytes = header(vni_in);
            prop_assert_eq!(vni(&bytes), Ok(vni_in));
            bytes[0] |= noise[0];
            bytes[1..4].copy_from_slice(&noise[1..]);
            bytes[7] = last;
            prop_assert_eq!(vni(&bytes), Ok(vni_in));
        }
    }
}
