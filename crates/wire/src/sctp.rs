//! SCTP's checksum (RFC 9260 section 6.8): a CRC32c, not the Internet checksum.
//!
//! Linux leaves it to devices with `NETIF_F_SCTP_CRC`, veth among them, and then sends the field as zero.
//! `virtio_net_hdr` cannot say that the checksum is a CRC; the field's offset of 8 bytes does, for no
//! protocol with an Internet checksum has its field there.

use crate::{BadOffload, Csum};

/// Bytes of the common header.
pub const HEADER_LEN: usize = 12;
/// Offset of the 32-bit checksum in the common header.
pub(crate) const CHECKSUM_OFFSET: u16 = 8;

/// CRC32c (Castagnoli) by one byte, reflected.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0x82f6_3b78 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

/// The CRC32c of `bytes`.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)])
}

/// Writes the CRC32c of everything from `csum.start` on, the field taken as zero.
pub(crate) fn complete(bytes: &mut [u8], csum: Csum) -> Result<(), BadOffload> {
    let packet = bytes.get_mut(usize::from(csum.start)..).ok_or(BadOffload::Csum)?;
    let field = |packet: &mut [u8], value: [u8; 4]| {
        let field = packet.get_mut(usize::from(csum.offset)..).and_then(<[u8]>::first_chunk_mut);
        *field.ok_or(BadOffload::Csum)? = value;
        Ok(())
    };
    field(packet, [0; 4])?;
    // RFC 9260 appendix A: transmitted least significant byte first.
    let crc = crc32c(packet).to_le_bytes();
    field(packet, crc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_check_values() {
        // RFC 3720 appendix B.4, and the check value of the catalogue of CRCs.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn the_old_field_does_not_matter() {
        let mut packets = [[7; 40]; 2];
        packets[0][22..26].fill(0);
        for packet in &mut packets {
            complete(packet, Csum { start: 14, offset: CHECKSUM_OFFSET }).unwrap();
        }
        assert_eq!(packets[0], packets[1]);
        let mut zeroed = packets[0];
        zeroed[22..26].fill(0);
        assert_eq!(packets[0][22..26], crc32c(&zeroed[14..]).to_le_bytes());
    }
}
