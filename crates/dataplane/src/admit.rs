//! Admission: frames that no bridge relays, and frames whose metadata would mislead a later step.

use alloc::format;

use vswitch_wire::{FrameBuf, Mac};

use crate::pipeline::Effects;
use crate::vector::{Context, Slot, Vector};
use crate::{Port, Reason, offload};

pub(crate) fn run<F: FrameBuf>(cx: &Context<'_>, vector: &mut Vector<'_, F>, effects: &mut impl Effects) {
    for (frame, slot) in vector.undecided() {
        match judge(cx.port, slot, frame) {
            Ok(()) => {
                effects.say("admit", || format!("admitted by {{port {}}}", cx.ingress.0));
            }
            Err(reason) => slot.drop("admit", reason, effects),
        }
    }
}

#[inline]
fn judge<F: FrameBuf>(port: &Port, slot: &mut Slot, frame: &F) -> Result<(), Reason> {
    if !slot.source.is_unicast() {
        return Err(Reason::BadSource);
    }
    if slot.destination == Mac::ZERO {
        return Err(Reason::ZeroDestination);
    }
    if slot.destination.is_reserved() {
        return Err(Reason::ReservedMac);
    }
    let work = &frame.meta().offload;
    if !offload::fits(frame.bytes(), work) {
        return Err(Reason::BadOffload);
    }
    slot.frames = offload::segments(frame.bytes(), work);
    if work.gso.is_some_and(|gso| !offload::is_plausible(gso, slot.frames)) {
        return Err(Reason::BadOffload);
    }
    // What a GSO frame stands for is known to be short enough only at the port where it leaves.
    if work.gso.is_none() && !offload::is_carried(frame, frame.meta().tag.is_some(), port.max_frame) {
        return Err(Reason::TooBigIngress);
    }
    Ok(())
}
