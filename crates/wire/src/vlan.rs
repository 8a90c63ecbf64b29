//! 802.1Q tags (IEEE 802.1Q-2022 clause 9), in the bytes and beside them.

use core::fmt;

use crate::{FrameBuf, NoHeadroom};

/// EtherType of a C-VLAN tag (IEEE 802.1Q table 9-1).
pub const TPID_8021Q: u16 = 0x8100;
/// EtherType of an S-VLAN tag, 802.1ad.
pub const TPID_8021AD: u16 = 0x88a8;
/// EtherTypes of tags before 802.1ad had one: "QinQ" of several makers.
pub const TPIDS_OF_OLD: [u16; 3] = [0x9100, 0x9200, 0x9300];
/// Bytes of one tag: TPID and TCI.
pub const TAG_LEN: usize = 4;
/// Bytes before a tag: destination and source.
const ADDRESSES_LEN: usize = 12;

/// A VLAN ID that names a VLAN: 1 to 4094 (0 marks a priority tag, 4095 is reserved: table 9-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vid(u16);

/// A number that is no [`Vid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidVid(pub u16);

impl fmt::Display for InvalidVid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not a VLAN ID: it must be 1 to 4094", self.0)
    }
}

impl core::error::Error for InvalidVid {}

impl Vid {
    /// The VLAN ID `vid`.
    ///
    /// # Errors
    /// [`InvalidVid`] unless `vid` is 1 to 4094.
    pub const fn new(vid: u16) -> Result<Self, InvalidVid> {
        if vid == 0 || vid > 4094 { Err(InvalidVid(vid)) } else { Ok(Self(vid)) }
    }

    /// The number, 1 to 4094.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Vid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An 802.1Q tag: the TPID and the TCI (PCP 3 bit, DEI 1 bit, VID 12 bit).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// [`TPID_8021Q`] or [`TPID_8021AD`].
    pub tpid: u16,
    /// Tag control information, host order.
    pub tci: u16,
}

impl Tag {
    /// A C-VLAN tag with this TCI.
    #[must_use]
    pub const fn dot1q(tci: u16) -> Self {
        Self { tpid: TPID_8021Q, tci }
    }

    /// The 12-bit VLAN ID, unchecked: 0 and 4095 occur on the wire.
    #[must_use]
    pub const fn vid(self) -> u16 {
        self.tci & 0x0fff
    }

    /// The same tag (PCP and DEI kept) with another VLAN ID.
    #[must_use]
    pub const fn with_vid(self, vid: Vid) -> Self {
        Self { tpid: self.tpid, tci: (self.tci & 0xf000) | vid.get() }
    }
}

/// Reads the outermost tag in the bytes, if the frame's first EtherType is one. `None` too for a frame too short.
#[must_use]
pub fn peek(bytes: &[u8]) -> Option<Tag> {
    let [.., t0, t1, c0, c1] = bytes.first_chunk::<16>()?;
    match u16::from_be_bytes([*t0, *t1]) {
        tpid @ (TPID_8021Q | TPID_8021AD) => Some(Tag { tpid, tci: u16::from_be_bytes([*c0, *c1]) }),
        _ => None,
    }
}

/// Takes the outermost 802.1Q (not 802.1ad) tag out of the bytes into the metadata, unless the metadata has one
/// already.
pub fn pop<F: FrameBuf>(frame: &mut F) {
    if frame.meta().tag.is_some() {
        return;
    }
    let Some(tag) = peek(frame.bytes()).filter(|t| t.tpid == TPID_8021Q) else { return };
    // `peek` has seen 16 bytes.
    frame.bytes_mut().copy_within(0..ADDRESSES_LEN, TAG_LEN);
    frame.shrink_front(TAG_LEN);
    let meta = frame.meta_mut();
    meta.tag = Some(tag);
    meta.offload.shift_back(TAG_LEN as u16);
}

/// Writes the metadata's tag, if any, into the bytes, behind the addresses. A frame too short to have both
/// addresses is no frame, and is left as it is.
///
/// # Errors
/// [`NoHeadroom`] when there is no room before the frame, which is unchanged then.
pub fn push<F: FrameBuf>(frame: &mut F) -> Result<(), NoHeadroom> {
    let Some(tag) = frame.meta().tag else { return Ok(()) };
    if frame.bytes().len() < ADDRESSES_LEN {
        return Ok(());
    }
    frame.grow_front(TAG_LEN)?;
    let Some(header) = frame.bytes_mut().first_chunk_mut::<{ ADDRESSES_LEN + TAG_LEN }>() else {
        return Ok(());
    };
    header.copy_within(TAG_LEN.., 0);
    header[12..14].copy_from_slice(&tag.tpid.to_be_bytes());
    header[14..].copy_from_slice(&tag.tci.to_be_bytes());
    let meta = frame.meta_mut();
    meta.tag = None;
    meta.offload.shift_forward(TAG_LEN as u16);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::VecFrame;
    use crate::{Csum, Offload};

    const TAGGED: [u8; 18] = [2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 0x81, 0x00, 0xe0, 0x0a, 0x08, 0x00];
    const UNTAGGED: [u8; 14] = [2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 0x08, 0x00];

    #[test]
    fn vids() {
        assert_eq!(Vid::new(1).map(Vid::get), Ok(1));
        assert_eq!(Vid::new(4094).map(Vid::get), Ok(4094));
        for bad in [0, 4095, 4096, u16::MAX] {
            assert_eq!(Vid::new(bad), Err(InvalidVid(bad)));
        }
    }

    #[test]
    fn a_new_vid_keeps_priority_and_dei() {
        let tag = Tag::dot1q(0xf00a).with_vid(Vid::new(0x123).unwrap());
        assert_eq!((tag.tci, tag.vid()), (0xf123, 0x123));
    }

    #[test]
    fn pop_and_push_are_inverse() {
        let csum = |start| Offload { csum: Some(Csum { start, offset: 16 }), gso: None };
        let mut frame = VecFrame::new(&TAGGED).with_offload(csum(38));
        pop(&mut frame);
        assert_eq!(frame.bytes(), UNTAGGED);
        assert_eq!(frame.meta().tag, Some(Tag::dot1q(0xe00a)));
        assert_eq!(frame.meta().offload, csum(34));
        push(&mut frame).unwrap();
        assert_eq!(frame.bytes(), TAGGED);
        assert_eq!(frame.meta().tag, None);
        assert_eq!(frame.meta().offload, csum(38));
    }

    #[test]
    fn pop_leaves_what_is_no_outermost_8021q_tag() {
        let mut service = TAGGED;
        service[12..14].copy_from_slice(&TPID_8021AD.to_be_bytes());
        let beside = Tag::dot1q(7);
        for frame in
            [VecFrame::new(&UNTAGGED), VecFrame::new(&service), VecFrame::new(&TAGGED).with_tag(beside)]
        {
            let mut popped = frame.clone();
            pop(&mut popped);
            assert_eq!((popped.bytes(), popped.meta()), (frame.bytes(), frame.meta()));
        }
    }

    #[test]
    fn frames_of_every_length() {
        for len in 0..TAGGED.len() {
            let mut frame = VecFrame::new(&TAGGED[..len]);
            pop(&mut frame);
            assert_eq!(frame.meta().tag.is_some(), len >= 16);
            let mut frame = VecFrame::new(&TAGGED[..len]).with_tag(Tag::dot1q(9));
            push(&mut frame).unwrap();
            assert_eq!(frame.bytes().len(), if len < 12 { len } else { len + 4 });
        }
    }

    #[test]
    fn push_without_headroom_changes_nothing() {
        let mut frame = VecFrame::with_headroom(&UNTAGGED, 3).with_tag(Tag::dot1q(9));
        assert_eq!(push(&mut frame), Err(NoHeadroom));
        assert_eq!(frame.bytes(), UNTAGGED);
        assert_eq!(frame.meta().tag, Some(Tag::dot1q(9)));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes: std::vec::Vec<u8>, tci: u16) {
            let mut frame = VecFrame::new(&bytes);
            pop(&mut frame);
            push(&mut frame).unwrap();
            prop_assert_eq!(frame.bytes(), &bytes[..]);
            let mut frame = VecFrame::new(&bytes).with_tag(Tag::dot1q(tci));
            push(&mut frame).unwrap();
            if bytes.len() >= 12 {
                prop_assert_eq!(peek(frame.bytes()), Some(Tag::dot1q(tci)));
            }
        }
    }
}
