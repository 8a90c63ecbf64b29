//! Explicit congestion notification in a tunnel (RFC 6040), over the TOS or traffic class byte of an IP header.

use crate::checksum::Sum;
use crate::ethernet::{self, TYPE_IPV4, TYPE_IPV6};
use crate::{ipv4, ipv6};

/// The two low bits of TOS and traffic class (RFC 3168 section 5).
const FIELD: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const CE: u8 = 0b11;

/// The outer packet says that there was congestion, and the inner one's sender does not understand it: section 4.2 has
/// it dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Congested;

/// The ECN field of the IP packet in `frame`; "not capable" for a frame without one. In normal mode (section 4.1) it is
/// that of the outer header too.
#[inline]
#[must_use]
pub fn of_frame(frame: &[u8]) -> u8 {
    match locate(frame) {
        Some((l3, TYPE_IPV4)) => frame.get(l3 + 1).map_or(NOT_ECT, |tos| tos & FIELD),
        Some((l3, _)) => frame.get(l3 + 1).map_or(NOT_ECT, |class| class >> 4 & FIELD),
        None => NOT_ECT,
    }
}

/// Brings what the path said in the outer header, `outer`, into the IP packet in `frame` (section 4.2, figure 4). A frame
/// without one has nowhere to put it, and stays as it is.
///
/// # Errors
/// [`Congested`]: the frame is to be dropped.
#[inline]
pub fn decapsulate(outer: u8, frame: &mut [u8]) -> Result<(), Congested> {
    // What most paths say: nothing.
    if outer & FIELD == NOT_ECT || outer & FIELD == 0b10 {
        return Ok(());
    }
    if locate(frame).is_none() {
        return Ok(());
    }
    let inner = of_frame(frame);
    match (inner, outer & FIELD) {
        (NOT_ECT, CE) => Err(Congested),
        (NOT_ECT | CE, _) => Ok(()),
        (_, ECT_1 | CE) => {
            set(frame, inner, outer & FIELD);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Where the IP header begins, and its EtherType. An L3 header that is cut short has no field.
#[inline]
fn locate(frame: &[u8]) -> Option<(usize, u16)> {
    let (ether_type, l3) = ethernet::payload(frame).ok()?;
    let (version, len) = match ether_type {
        TYPE_IPV4 => (4, ipv4::HEADER_LEN),
        TYPE_IPV6 => (6, ipv6::HEADER_LEN),
        _ => return None,
    };
    let header = frame.get(l3..l3 + len)?;
    (header.first()? >> 4 == version).then_some((l3, ether_type))
}

/// Writes the field, and keeps IPv4's header checksum right (RFC 1624).
fn set(frame: &mut [u8], old: u8, new: u8) {
    let Some((l3, ether_type)) = locate(frame) else { return };
    if ether_type == TYPE_IPV6 {
        if let Some(class) = frame.get_mut(l3 + 1) {
            *class = *class & !(FIELD << 4) | new << 4;
        }
        return;
    }
    let Some(header) = frame.get_mut(l3..).and_then(<[u8]>::first_chunk_mut::<{ ipv4::HEADER_LEN }>) else {
        return;
    };
    header[1] = header[1] & !FIELD | new;
    let sum = Sum::of_word(u64::from(!u16::from_be_bytes([header[10], header[11]])));
    let checksum = sum.minus(u16::from(old)).plus(Sum::of_word(u64::from(new))).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::Mac;
    use crate::Tag;
    use crate::testing::frame;

    const ECT_0: u8 = 0b10;

    fn packet(v6: bool, tagged: bool, field: u8) -> Vec<u8> {
        let base = frame(Mac([2; 6]), Mac([4; 6]));
        let base = if tagged { base.tag(Tag::dot1q(5)) } else { base };
        let base = if v6 { base.ip([1; 16], [2; 16]) } else { base.ip([10, 0, 0, 1], [10, 0, 0, 2]) };
        let mut bytes = base.udp(1, 2).payload(b"payload").bytes();
        set(&mut bytes, NOT_ECT, field);
        bytes
    }

    /// RFC 6040 figure 4, line by line: inner, outer, result.
    #[test]
    fn the_table_of_rfc_6040() {
        let table = [
            (NOT_ECT, NOT_ECT, Ok(NOT_ECT)),
            (NOT_ECT, ECT_0, Ok(NOT_ECT)),
            (NOT_ECT, ECT_1, Ok(NOT_ECT)),
            (NOT_ECT, CE, Err(Congested)),
            (ECT_0, NOT_ECT, Ok(ECT_0)),
            (ECT_0, ECT_0, Ok(ECT_0)),
            (ECT_0, ECT_1, Ok(ECT_1)),
            (ECT_0, CE, Ok(CE)),
            (ECT_1, NOT_ECT, Ok(ECT_1)),
            (ECT_1, ECT_0, Ok(ECT_1)),
            (ECT_1, ECT_1, Ok(ECT_1)),
            (ECT_1, CE, Ok(CE)),
            (CE, NOT_ECT, Ok(CE)),
            (CE, ECT_0, Ok(CE)),
            (CE, ECT_1, Ok(CE)),
            (CE, CE, Ok(CE)),
        ];
        for (inner, outer, result) in table {
            for (v6, tagged) in [(false, false), (true, false), (false, true), (true, true)] {
                let mut bytes = packet(v6, tagged, inner);
                // The DSCP of the outer header is no part of it.
                let outcome = decapsulate(0xb8 | outer, &mut bytes);
                assert_eq!(outcome, result.map(|_| ()), "{inner} {outer}");
                assert_eq!(of_frame(&bytes), result.unwrap_or(inner), "{inner} {outer}");
                crate::oracle::assert_checksums(&bytes);
            }
        }
    }

    #[test]
    fn what_is_no_ip_packet_has_no_field_and_stays() {
        let whole = packet(false, false, ECT_0);
        for len in 0..=14 + 19 {
            let mut cut = whole[..len].to_vec();
            assert_eq!(decapsulate(CE, &mut cut), Ok(()), "{len}");
            assert_eq!(cut, whole[..len]);
        }
        let arp = frame(Mac([2; 6]), Mac([4; 6])).ether_type(0x0806).payload(&[3; 28]).bytes();
        assert_eq!(decapsulate(ECT_1, &mut arp.clone()), Ok(()));
    }
}
