//! Forward: one port for a known destination, every other port of the network for any other.

use alloc::format;

use crate::pipeline::Effects;
use crate::storm::{Class, police};
use crate::vector::{Context, Slot, Vector};
use crate::{EgressVlan, NetId, Port, PortId, Reason, Verdict};

pub(crate) fn run<F>(cx: &Context<'_>, vector: &mut Vector<'_, F>, effects: &mut impl Effects) {
    for slot in vector.undecided_slots() {
        match decide(cx, slot, effects) {
            Ok(verdict) => slot.verdict = verdict,
            Err(reason) => slot.drop("forward", reason, effects),
        }
    }
}

#[inline]
fn decide(cx: &Context<'_>, slot: &Slot, effects: &mut impl Effects) -> Result<Verdict, Reason> {
    // The `vlan` step gave every undecided frame a network.
    let network = slot.network.ok_or(Reason::NoNetwork)?;
    let to = slot.destination;
    if to.is_multicast() {
        effects.say("forward", || format!("{to} is a group address: flooded"));
        return flood(cx, network);
    }
    if let Some((id, port)) = find(cx, slot, network, effects) {
        effects.say("forward", || format!("{to} is behind {{port {}}}", id.0));
        return unicast(cx, network, id, port);
    }
    effects.say("forward", || format!("{to} is unknown: flooded"));
    police(cx, Class::Unknown, slot.frames, effects)?;
    flood(cx, network)
}

/// Where the destination is. An entry that outlived its port, or the port's membership, counts for nothing.
#[inline]
fn find<'a>(
    cx: &Context<'a>,
    slot: &Slot,
    network: NetId,
    effects: &impl Effects,
) -> Option<(PortId, &'a Port)> {
    let id = effects.lookup(cx, slot)?;
    let port = cx.snapshot.port(id)?;
    (port.egress_vlan(network) != EgressVlan::NotMember).then_some((id, port))
}

#[inline]
fn unicast(cx: &Context<'_>, network: NetId, id: PortId, port: &Port) -> Result<Verdict, Reason> {
    if id == cx.ingress {
        return Err(Reason::SamePort);
    }
    cx.port.may_reach(port)?;
    if port.up { Ok(Verdict::Unicast { network, port: id }) } else { Err(Reason::PortDown) }
}

#[inline]
fn flood(cx: &Context<'_>, network: NetId) -> Result<Verdict, Reason> {
    match cx.snapshot.flood(network, cx.ingress).next() {
        Some(_) => Ok(Verdict::Flood { network }),
        None => Err(Reason::NoDestination),
    }
}
