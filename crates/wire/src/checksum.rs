//! The Internet checksum (RFC 1071), and finishing one that a sender left to the device.
//!
//! A sum is kept as [`Sum`], a value in network order that is folded and complemented only at the end.
//! The bytes are added as native words and swapped once: a ones' complement sum does not care (RFC 1071
//! section 2 (B)).

use crate::{BadOffload, Csum, sctp};

/// A ones' complement sum of 16-bit big-endian words, not folded yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of `bytes`; a last odd byte counts as if a zero followed it. So only the last of several
    /// parts that are added may have an odd length.
    #[inline]
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        // Halves of 32 bit in 64-bit lanes cannot overflow below 16 GiB, so no carry is followed.
        let mut sum = 0;
        for word in words {
            let word = u64::from_ne_bytes(*word);
            sum += (word & 0xffff_ffff) + (word >> 32);
        }
        let (pairs, odd) = rest.as_chunks::<2>();
        for pair in pairs {
            sum += u64::from(u16::from_ne_bytes(*pair));
        }
        if let [last] = odd {
            sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        Self(u64::from(u16::from_be(fold(sum))))
    }

    /// The sum of the four 16-bit words of `word`, a value in network order.
    #[inline]
    #[must_use]
    pub const fn of_word(word: u64) -> Self {
        Self((word & 0xffff_ffff) + (word >> 32))
    }

    /// Both sums together.
    #[inline]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// This sum without the 16-bit `word` that is part of it (RFC 1624 section 3).
    #[inline]
    #[must_use]
    pub const fn minus(self, word: u16) -> Self {
        Self(self.0 + !word as u64)
    }

    /// The sum in 16 bits; 0 only when nothing but zeros was added.
    #[inline]
    #[must_use]
    pub const fn folded(self) -> u16 {
        fold(self.0)
    }

    /// The checksum: the complement of the folded sum.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !self.folded()
    }
}

#[inline]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Finishes an unfinished checksum in place: sums from `csum.start` to the end of the frame, the field
/// with the pseudo-header's sum included, and stores the complement. SCTP's CRC32c (see
/// [`Csum::is_crc32c`]) is computed instead where that is what was left.
///
/// A result of zero is stored as 0xffff, which means the same to every protocol but UDP, where zero would
/// say "no checksum" (RFC 768).
///
/// When `start` lies in the inner headers of a sender's own tunnel, the outer UDP checksum needs no work:
/// it is zero, or was computed for the finished inner checksum (the region from an unfinished checksum's
/// start on sums to the complement of its pseudo-header, whatever the payload: Linux' "local checksum offload").
///
/// # Errors
/// [`BadOffload::Csum`] when the field is not inside `bytes`, which are unchanged then.
pub fn complete(bytes: &mut [u8], csum: Csum) -> Result<(), BadOffload> {
    if csum.is_crc32c() {
        return sctp::complete(bytes, csum);
    }
    let region = bytes.get_mut(usize::from(csum.start)..).ok_or(BadOffload::Csum)?;
    let checksum = Sum::of(region).checksum();
    let field = region.get_mut(usize::from(csum.offset)..).and_then(<[u8]>::first_chunk_mut);
    *field.ok_or(BadOffload::Csum)? = if checksum == 0 { [0xff; 2] } else { checksum.to_be_bytes() };
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::FrameBuf;
    use crate::Mac;
    use crate::testing::frame;

    /// RFC 1071 section 3, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum: u32 = 0;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::of(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), 0xddf2);
        assert_eq!(sum.checksum(), !0xddf2);
    }

    #[test]
    fn zero_is_stored_as_all_ones() {
        let mut bytes = [0xff, 0xff, 0, 0, 0, 0, 0, 0];
        complete(&mut bytes, Csum { start: 0, offset: 6 }).unwrap();
        assert_eq!(bytes, [0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff]);
    }

    #[test]
    fn a_field_outside_is_refused_and_nothing_written() {
        for (start, offset) in
            [(0, 59), (59, 0), (60, 0), (61, 0), (0, 60), (65535, 65535), (50, 8), (0, 65535)]
        {
            let mut bytes = [0xa5; 60];
            assert_eq!(
                complete(&mut bytes, Csum { start, offset }),
                Err(BadOffload::Csum),
                "{start} {offset}"
            );
            assert_eq!(bytes, [0xa5; 60]);
        }
    }

    #[test]
    fn finished_checksums_verify_by_etherparse() {
        let (a, b) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        for len in [0, 1, 2, 3, 7, 8, 9, 1399, 1400] {
            let payload = alloc::vec![0x5a; len];
            let v4 = frame(a, b).ip([10, 0, 0, 1], [10, 0, 0, 2]).payload(&payload);
            let v6 = frame(a, b).ip([0xfd; 16], [0xfe; 16]).payload(&payload);
            for base in [v4, v6] {
                for built in [base.clone().tcp(1, 2, 0x18), base.udp(3, 4)] {
                    let mut unfinished = built.unfinished();
                    let csum = unfinished.meta().offload.csum.unwrap();
                    complete(unfinished.bytes_mut(), csum).unwrap();
                    crate::oracle::assert_checksums(unfinished.bytes());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn sums_as_the_reference_at_any_alignment(bytes: std::vec::Vec<u8>, skip in 0..16_usize) {
            let bytes = bytes.get(skip..).unwrap_or_default();
            prop_assert_eq!(Sum::of(bytes).folded(), reference(bytes));
        }

        #[test]
        fn parts_of_even_length_add_up(a: std::vec::Vec<[u8; 2]>, b: std::vec::Vec<u8>) {
            let whole = [a.as_flattened(), &b].concat();
            prop_assert_eq!(Sum::of(a.as_flattened()).plus(Sum::of(&b)).folded(), reference(&whole));
        }

        #[test]
        fn a_word_is_summed_as_its_bytes(word: u64) {
            prop_assert_eq!(Sum::of_word(word).folded(), reference(&word.to_be_bytes()));
        }

        #[test]
        fn complete_never_panics(mut bytes: std::vec::Vec<u8>, start in 0..300_u16, offset in 0..40_u16) {
            let len = bytes.len();
            let fits = usize::from(start) + usize::from(offset) + if offset == 8 { 4 } else { 2 } <= len;
            prop_assert_eq!(complete(&mut bytes, Csum { start, offset }).is_ok(), fits);
        }
    }
}
