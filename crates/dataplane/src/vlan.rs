//! VLAN: which network a frame belongs to (IEEE 802.1Q-2022 clause 6.9.1), by its port and outermost 802.1Q tag.
//!
//! The tag itself stays in the metadata: its priority is wanted when the frame leaves tagged. An 802.1ad tag is
//! payload here, so a frame that begins with one is untagged. So is a second 802.1Q tag behind the first:
//! it is carried, never looked at, and `egress` sees to it that it never becomes the first.

use alloc::format;

use vswitch_wire::vlan::TPID_8021Q;
use vswitch_wire::{FrameBuf, Tag};

use crate::pipeline::Effects;
use crate::vector::{Context, Vector};
use crate::{Attachment, NetId, Reason};

/// The VLAN ID of a priority tag: the frame counts as untagged (table 9-2).
const VID_PRIORITY: u16 = 0;
/// Reserved for implementations, never on the wire (table 9-2).
const VID_RESERVED: u16 = 4095;

pub(crate) fn run<F: FrameBuf>(cx: &Context<'_>, vector: &mut Vector<'_, F>, effects: &mut impl Effects) {
    for (frame, slot) in vector.undecided() {
        match classify(cx, frame) {
            Ok(network) => {
                slot.network = Some(network);
                effects.say("vlan", || {
                    let how = match cx.port.attachment {
                        Attachment::Tunnel(_) => "that of its VNI",
                        Attachment::Trunk(_) if vid(frame.meta().tag) == VID_PRIORITY => {
                            "the trunk's native network"
                        }
                        Attachment::Trunk(_) => "by its VLAN ID on this trunk",
                        _ => "the access port's network",
                    };
                    format!("belongs to {{network {}}}, {how}", network.0)
                });
            }
            Err(reason) => slot.drop("vlan", reason, effects),
        }
    }
}

#[inline]
fn classify<F: FrameBuf>(cx: &Context<'_>, frame: &F) -> Result<NetId, Reason> {
    let tag = frame.meta().tag;
    match &cx.port.attachment {
        Attachment::None => Err(Reason::NoNetwork),
        Attachment::Access(_) if is_tagged(frame) => Err(Reason::TaggedOnAccess),
        Attachment::Tunnel(_) if is_tagged(frame) => Err(Reason::VxlanInnerTag),
        Attachment::Tunnel(_) => cx.network.ok_or(Reason::NoNetwork),
        Attachment::Access(network) => Ok(*network),
        Attachment::Trunk(trunk) => match vid(tag) {
            VID_PRIORITY => trunk.native().ok_or(Reason::UntaggedNoNative),
            VID_RESERVED => Err(Reason::ReservedVid),
            vid => trunk.network_of(vid).ok_or(Reason::VlanNotAllowed),
        },
    }
}

/// Whether the frame has an 802.1Q tag that names a VLAN. A priority tag in front of one does not hide it.
#[inline]
fn is_tagged<F: FrameBuf>(frame: &F) -> bool {
    let tag = frame.meta().tag;
    tag.is_some() && (vid(tag) != VID_PRIORITY || has_dot1q(frame.bytes()))
}

/// The VLAN ID; an untagged frame has that of a priority tag, as it has the same meaning.
#[inline]
fn vid(tag: Option<Tag>) -> u16 {
    tag.map_or(VID_PRIORITY, Tag::vid)
}

/// Whether the bytes begin with an 802.1Q tag, be it cut short.
#[inline]
pub(crate) fn has_dot1q(bytes: &[u8]) -> bool {
    bytes.get(12..14) == Some(&TPID_8021Q.to_be_bytes())
}
