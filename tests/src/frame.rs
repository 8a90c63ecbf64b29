//! Frames as scenarios write them and see them.

use std::fmt;

use vswitch_wire::Mac;
use vswitch_wire::vlan::{TPID_8021AD, TPID_8021Q};

/// IEEE 802 local experimental EtherType 1 (IEEE 802-2014 clause 9.2.4): no stack answers it.
const EXPERIMENTAL: u16 = 0x88b5;
/// The shortest payload, so that no device pads a frame (IEEE 802.3-2022 clause 4A.4.2).
pub const PAYLOAD_MIN: usize = 46;

/// An Ethernet frame with its VLAN tags.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Destination.
    pub to: Mac,
    /// Source.
    pub from: Mac,
    /// TPID and TCI of each tag, outermost first.
    pub tags: Vec<(u16, u16)>,
    /// What the payload is.
    pub ether_type: u16,
    /// Everything behind the EtherType.
    pub payload: Vec<u8>,
}

impl Frame {
    /// An untagged frame of an experimental protocol. `text` tells it from all others.
    #[must_use]
    pub fn new(to: Mac, from: Mac, text: &str) -> Self {
        let mut payload = text.as_bytes().to_vec();
        payload.resize(payload.len().max(PAYLOAD_MIN), 0);
        Self { to, from, tags: Vec::new(), ether_type: EXPERIMENTAL, payload }
    }

    /// The frame behind one more 802.1Q tag, outside of those that it has.
    #[must_use]
    pub fn tagged(self, vid: u16) -> Self {
        self.with_tag(TPID_8021Q, vid)
    }

    /// The frame behind an 802.1ad service tag.
    #[must_use]
    pub fn service_tagged(self, vid: u16) -> Self {
        self.with_tag(TPID_8021AD, vid)
    }

    /// The frame behind one more tag: PCP, DEI and VLAN ID as they are in `tci`.
    #[must_use]
    pub fn with_tag(mut self, tpid: u16, tci: u16) -> Self {
        self.tags.insert(0, (tpid, tci));
        self
    }

    /// The frame without its outermost tag.
    #[must_use]
    pub fn untagged(mut self) -> Self {
        self.tags.remove(0);
        self
    }

    /// As it is on the wire, without FCS.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.to.0, self.from.0].concat();
        for (tpid, tci) in &self.tags {
            bytes.extend(tpid.to_be_bytes());
            bytes.extend(tci.to_be_bytes());
        }
        bytes.extend(self.ether_type.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// In hexadecimal, as `trace` wants it.
    #[must_use]
    pub fn hex(&self) -> String {
        self.bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads what came out of a link.
    ///
    /// # Panics
    /// When it is cut off: no kernel delivers that.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Self {
        let word = |at: usize| {
            let word = bytes.get(at..at + 2).unwrap_or_else(|| panic!("a frame cut off: {bytes:02x?}"));
            u16::from_be_bytes([word[0], word[1]])
        };
        let mac = |at: usize| bytes.get(at..).and_then(Mac::from_slice).expect("an address");
        let (mut at, mut tags) = (12, Vec::new());
        while [TPID_8021Q, TPID_8021AD].contains(&word(at)) {
            tags.push((word(at), word(at + 2)));
            at += 4;
        }
        Self { to: mac(0), from: mac(6), tags, ether_type: word(at), payload: bytes[at + 2..].to_vec() }
    }
}

impl fmt::Debug for Frame {
    /// As in `02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff 8100:000a 88b5 "text" (46 bytes)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}", self.from, self.to)?;
        for (tpid, tci) in &self.tags {
            write!(f, " {tpid:04x}:{tci:04x}")?;
        }
        let text = self.payload.iter().take(PAYLOAD_MIN).take_while(|byte| **byte != 0);
        let text: String = text.flat_map(|byte| byte.escape_ascii()).map(char::from).collect();
        write!(f, " {:04x} \"{text}\" ({} bytes)", self.ether_type, self.payload.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let frame = Frame::new(Mac::BROADCAST, Mac([2, 0, 0, 0, 0, 1]), "text").tagged(10).service_tagged(20);
        assert_eq!(frame.bytes()[12..20], [0x88, 0xa8, 0, 20, 0x81, 0, 0, 10]);
        assert_eq!(Frame::read(&frame.bytes()), frame);
        assert_eq!(
            format!("{frame:?}"),
            "02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff 88a8:0014 8100:000a 88b5 \"text\" (46 bytes)"
        );
    }
}
