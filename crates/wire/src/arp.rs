//! ARP between IPv4 and Ethernet (RFC 826).

use core::net::Ipv4Addr;

use crate::{Mac, Malformed, ethernet};

/// Bytes of a message.
pub const PACKET_LEN: usize = 28;

/// Bytes of a frame of one message, without a tag and without padding.
pub const FRAME_LEN: usize = ethernet::HEADER_LEN + PACKET_LEN;

/// What asks for an address's owner.
pub const REQUEST: u16 = 1;
/// What answers.
pub const REPLY: u16 = 2;

/// Ethernet (1), IPv4, and the lengths of their addresses.
const IPV4_OVER_ETHERNET: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// A checked view of a message about IPv4 addresses on Ethernet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a>(&'a [u8; PACKET_LEN]);

impl<'a> Packet<'a> {
    /// The message at the front of `bytes`; padding may follow it.
    ///
    /// # Errors
    /// [`Malformed::Truncated`], or [`Malformed::Foreign`] for other addresses than IPv4 and Ethernet.
    #[inline]
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let packet = Self(bytes.first_chunk().ok_or(Malformed::Truncated)?);
        if packet.0.starts_with(&IPV4_OVER_ETHERNET) { Ok(packet) } else { Err(Malformed::Foreign) }
    }

    /// What it is, [`REQUEST`] or [`REPLY`] as a rule.
    #[inline]
    #[must_use]
    pub const fn operation(self) -> u16 {
        u16::from_be_bytes([self.0[6], self.0[7]])
    }

    /// Who says that [`Packet::sender_ip`] is its own: whoever hears the message believes it.
    #[inline]
    #[must_use]
    pub const fn sender_mac(self) -> Mac {
        let [_, _, _, _, _, _, _, _, a, b, c, d, e, f, ..] = *self.0;
        Mac([a, b, c, d, e, f])
    }

    /// The sender's address; 0.0.0.0 in a probe (RFC 5227 section 2.1.1).
    #[inline]
    #[must_use]
    pub const fn sender_ip(self) -> Ipv4Addr {
        Ipv4Addr::new(self.0[14], self.0[15], self.0[16], self.0[17])
    }

    /// Who is answered; means nothing in a request.
    #[inline]
    #[must_use]
    pub const fn target_mac(self) -> Mac {
        let [.., a, b, c, d, e, f, _, _, _, _] = *self.0;
        Mac([a, b, c, d, e, f])
    }

    /// Whose address is asked for.
    #[inline]
    #[must_use]
    pub const fn target_ip(self) -> Ipv4Addr {
        let [.., a, b, c, d] = *self.0;
        Ipv4Addr::new(a, b, c, d)
    }
}

/// The frame by which `from` asks for the owner of `target`: all nodes, or the one that was `there`.
#[must_use]
pub fn request(from: (Mac, Ipv4Addr), there: Option<Mac>, target: Ipv4Addr) -> [u8; FRAME_LEN] {
    frame(there.unwrap_or(Mac::BROADCAST), REQUEST, from, (Mac::ZERO, target))
}

/// The frame that tells `to` whose the address of `owner` is.
#[must_use]
pub fn reply(owner: (Mac, Ipv4Addr), to: (Mac, Ipv4Addr)) -> [u8; FRAME_LEN] {
    frame(to.0, REPLY, owner, to)
}

fn frame(
    destination: Mac,
    operation: u16,
    sender: (Mac, Ipv4Addr),
    target: (Mac, Ipv4Addr),
) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    let (header, packet) = frame.split_at_mut(ethernet::HEADER_LEN);
    header.copy_from_slice(&ethernet::header(destination, sender.0, ethernet::TYPE_ARP));
    packet[..6].copy_from_slice(&IPV4_OVER_ETHERNET);
    packet[6..8].copy_from_slice(&operation.to_be_bytes());
    packet[8..14].copy_from_slice(&sender.0.0);
    packet[14..18].copy_from_slice(&sender.1.octets());
    packet[18..24].copy_from_slice(&target.0.0);
    packet[24..].copy_from_slice(&target.1.octets());
    frame
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use etherparse::{ArpEthIpv4Packet, ArpOperation, ArpPacketSlice};
    use proptest::prelude::*;

    use super::*;

    const WHO_HAS: [u8; PACKET_LEN] =
        [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 2, 0, 0, 0, 0, 2, 10, 0, 0, 2];

    #[test]
    fn fields() {
        let packet = Packet::new_checked(&WHO_HAS).unwrap();
        assert_eq!(packet.operation(), REQUEST);
        assert_eq!(
            (packet.sender_mac(), packet.sender_ip()),
            (Mac([2, 0, 0, 0, 0, 1]), [10, 0, 0, 1].into())
        );
        assert_eq!(
            (packet.target_mac(), packet.target_ip()),
            (Mac([2, 0, 0, 0, 0, 2]), [10, 0, 0, 2].into())
        );
        for len in 0..PACKET_LEN {
            assert_eq!(Packet::new_checked(&WHO_HAS[..len]).unwrap_err(), Malformed::Truncated);
        }
        for at in 0..6 {
            let mut foreign = WHO_HAS;
            foreign[at] ^= 1;
            assert_eq!(Packet::new_checked(&foreign).unwrap_err(), Malformed::Foreign, "byte {at}");
        }
    }

    #[test]
    fn what_is_asked_and_answered() {
        let (asker, owner) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let ips = [Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)];
        let read = |frame: &[u8]| {
            let header = ethernet::Header::new_checked(frame).unwrap();
            assert_eq!(header.ether_type(), ethernet::TYPE_ARP);
            let packet = Packet::new_checked(&frame[ethernet::HEADER_LEN..]).unwrap();
            assert_eq!(header.source(), packet.sender_mac());
            let (sender, target) = (packet.sender_ip(), packet.target_ip());
            (
                header.destination(),
                packet.operation(),
                packet.sender_mac(),
                sender,
                packet.target_mac(),
                target,
            )
        };
        let to_all = request((asker, ips[0]), None, ips[1]);
        assert_eq!(read(&to_all), (Mac::BROADCAST, REQUEST, asker, ips[0], Mac::ZERO, ips[1]));
        let to_one = request((asker, ips[0]), Some(owner), ips[1]);
        assert_eq!(read(&to_one), (owner, REQUEST, asker, ips[0], Mac::ZERO, ips[1]));
        let answer = reply((owner, ips[1]), (asker, ips[0]));
        assert_eq!(read(&answer), (asker, REPLY, owner, ips[1], asker, ips[0]));
    }

    proptest! {
        #[test]
        fn agrees_with_etherparse(mut bytes: Vec<u8>, is_ours: bool, padding in 0..40_usize) {
            if is_ours {
                bytes.resize(PACKET_LEN + padding, 0x5a);
                bytes[..6].copy_from_slice(&IPV4_OVER_ETHERNET);
            }
            let theirs = ArpPacketSlice::from_slice(&bytes).ok();
            let theirs = theirs.and_then(|slice| ArpEthIpv4Packet::try_from(slice.to_packet()).ok());
            let ours = Packet::new_checked(&bytes).ok();
            prop_assert_eq!(ours.is_some(), theirs.is_some());
            let Some((ours, theirs)) = ours.zip(theirs) else { return Ok(()) };
            prop_assert_eq!(ArpOperation(ours.operation()), theirs.operation);
            prop_assert_eq!(ours.sender_mac().0, theirs.sender_mac);
            prop_assert_eq!(ours.sender_ip().octets(), theirs.sender_ipv4);
            prop_assert_eq!(ours.target_mac().0, theirs.target_mac);
            prop_assert_eq!(ours.target_ip().octets(), theirs.target_ipv4);
        }
    }
}
