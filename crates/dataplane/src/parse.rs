//! Parse: reads the addresses, and brings the outermost tag into the one form that later steps know.

use alloc::{format, string::String};

use vswitch_wire::ethernet::{HEADER_LEN, Header};
use vswitch_wire::vlan::{TAG_LEN, TPID_8021Q};
use vswitch_wire::{FrameBuf, Mac, vlan};

use crate::Reason;
use crate::pipeline::Effects;
use crate::vector::{Slot, Vector};
use crate::vlan::has_dot1q;

pub(crate) fn run<F: FrameBuf>(vector: &mut Vector<'_, F>, effects: &mut impl Effects) {
    for (frame, slot) in vector.frames.iter_mut().zip(vector.slots.iter_mut()) {
        *slot = Slot { len: wire_len(frame), ..Slot::EMPTY };
        match parse(frame) {
            Ok((destination, source)) => {
                slot.destination = destination;
                slot.source = source;
                effects.say("parse", || words(slot, frame));
            }
            Err(reason) => slot.drop("parse", reason, effects),
        }
    }
}

/// Bytes that came in, with a tag that the driver got out of band.
#[inline]
fn wire_len<F: FrameBuf>(frame: &F) -> u32 {
    let tag = if frame.meta().tag.is_some() { TAG_LEN } else { 0 };
    (frame.bytes().len() + tag) as u32
}

/// Destination and source of a frame whose 802.1Q tag, if it has one, is moved to the metadata.
#[inline]
fn parse<F: FrameBuf>(frame: &mut F) -> Result<(Mac, Mac), Reason> {
    let header = Header::new_checked(frame.bytes()).map_err(|_| Reason::Runt)?;
    let addresses = (header.destination(), header.source());
    if header.ether_type() == TPID_8021Q || frame.meta().tag.is_some() {
        take_tag(frame)?;
    }
    Ok(addresses)
}

/// Moves the outermost tag of a frame, which has a whole header, to where it belongs.
fn take_tag<F: FrameBuf>(frame: &mut F) -> Result<(), Reason> {
    // A driver hands over any tag that its device took out; one that is not 802.1Q is payload to this switch.
    if frame.meta().tag.is_some_and(|tag| tag.tpid != TPID_8021Q) {
        vlan::push(frame).map_err(|_| Reason::NoHeadroom)?;
    }
    vlan::pop(frame);
    // Too short a tag would become a whole one when a device pads the frame, so no such frame is let in.
    let is_cut = frame.meta().tag.is_none() && has_dot1q(frame.bytes());
    if is_cut || frame.bytes().len() < HEADER_LEN { Err(Reason::Runt) } else { Ok(()) }
}

fn words<F: FrameBuf>(slot: &Slot, frame: &F) -> String {
    let Slot { destination, source, len, .. } = slot;
    let tag = match frame.meta().tag {
        None => String::from("untagged"),
        Some(tag) if tag.vid() == 0 => format!("priority-tagged, PCP {}", tag.tci >> 13),
        Some(tag) => format!("tagged with VLAN ID {}, PCP {}", tag.vid(), tag.tci >> 13),
    };
    format!("{len} bytes from {source} to {destination}, {tag}")
}
