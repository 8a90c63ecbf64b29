//! The last step: how a frame leaves by a port. Run once for each port that it leaves by.

use vswitch_wire::segment::is_tunnelled;
use vswitch_wire::vlan::{self, Tag};
use vswitch_wire::{Caps, FrameBuf, Gso, Offload, checksum};

use crate::acl::{self, Acl, Direction, Owner, Place, Ruling};
use crate::offload::{fitting_size, is_carried};
use crate::vlan::has_dot1q;
use crate::{Attachment, EgressVlan, NetId, Port, PortId, Reason, Snapshot};

/// What is left to do with a frame that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// It can be sent.
    Ready,
    /// The port cannot take it as one: cut it with `vswitch_wire::segment` first. For a tunnel, encapsulate each
    /// segment then.
    Segment,
    /// It leaves by a tunnel: encapsulate it with [`crate::tunnel::encapsulate`].
    Encapsulate,
}

/// How a frame is to be changed before it leaves.
pub(crate) struct Plan {
    /// The tag that it leaves with.
    pub(crate) tag: Option<Tag>,
    /// Its checksum is to be finished here.
    pub(crate) finish: bool,
    /// How it is to be cut.
    pub(crate) gso: Option<Gso>,
    pub(crate) egress: Egress,
}

/// Makes `frame` of `network` ready to leave by `port`: membership, link, isolation from `ingress`, MTU, filters, the
/// tag (PCP and DEI are kept) written into the bytes, the checksum finished where the port cannot.
/// The caller counts the drop at `port`; what is counted here is the filters' rules, by `worker`. `None` counts nothing.
///
/// No frame leaves untagged whose bytes go on with an 802.1Q tag: the receiver would take the inner tag
/// for the outer one, and put the frame into a VLAN that the sender had no right to (VLAN hopping by double tags).
/// A network's tagged payload thus travels between trunks only, as it comes in by trunks only.
///
/// # Errors
/// The reason to drop it.
#[inline]
pub fn prepare<F: FrameBuf>(
    snapshot: &Snapshot,
    network: NetId,
    ingress: PortId,
    port: PortId,
    frame: &mut F,
    worker: Option<usize>,
) -> Result<Egress, Reason> {
    let note = |acl: &Acl, _place, ruling| {
        if let Some(worker) = worker {
            acl.count(worker, ruling);
        }
    };
    let plan = plan(snapshot, network, ingress, port, frame, note)?;
    let meta = frame.meta_mut();
    meta.tag = plan.tag;
    meta.offload.gso = plan.gso;
    if plan.finish {
        finish(frame)?;
    }
    vlan::push(frame).map_err(|_| Reason::NoHeadroom)?;
    Ok(plan.egress)
}

/// Decides how `frame` leaves by `port`; changes nothing. What filters say goes to `note`.
#[inline]
pub(crate) fn plan<F: FrameBuf>(
    snapshot: &Snapshot,
    network: NetId,
    ingress: PortId,
    port: PortId,
    frame: &F,
    note: impl FnMut(&Acl, Place, Ruling),
) -> Result<Plan, Reason> {
    let to = snapshot.port(port).ok_or(Reason::PortGone)?;
    let meta = frame.meta();
    let tag = match to.egress_vlan(network) {
        EgressVlan::NotMember => return Err(Reason::NotMember),
        EgressVlan::Untagged if has_dot1q(frame.bytes()) => return Err(Reason::InnerTag),
        EgressVlan::Untagged => None,
        EgressVlan::Tagged(vid) => Some(Tag::dot1q(meta.tag.map_or(0, |tag| tag.tci)).with_vid(vid)),
    };
    if !to.up {
        return Err(Reason::PortDown);
    }
    if let Some(from) = snapshot.port(ingress) {
        from.may_reach(to)?;
    }
    let is_tunnel = matches!(to.attachment, Attachment::Tunnel(_));
    let mut gso = meta.offload.gso;
    if !is_carried(frame, tag.is_some(), to.max_frame) {
        let size = if is_tunnel { fitting_size(frame, to.max_frame) } else { None };
        gso = Some(Gso { size: size.ok_or(Reason::TooBigEgress)?, ..gso.ok_or(Reason::TooBigEgress)? });
    }
    if to.acl.egress.is_some() || snapshot.filters_networks() {
        filter(snapshot, (network, port, to), frame, note)?;
    }
    let (finish, egress) = unfinished(to.caps, frame.bytes(), meta.offload);
    let egress = if is_tunnel && egress == Egress::Ready { Egress::Encapsulate } else { egress };
    Ok(Plan { tag, finish, gso, egress })
}

/// The lists for frames that leave: the port's and the network's.
fn filter<F: FrameBuf>(
    snapshot: &Snapshot,
    (network, id, port): (NetId, PortId, &Port),
    frame: &F,
    note: impl FnMut(&Acl, Place, Ruling),
) -> Result<(), Reason> {
    let of_port = port.acl.egress.as_deref().map(|acl| (acl, Owner::Port(id)));
    let of_network = snapshot.network(network).and_then(|n| n.acl.egress.as_deref());
    let lists = [of_port, of_network.map(|acl| (acl, Owner::Network(network)))];
    if lists.iter().all(Option::is_none) {
        return Ok(());
    }
    acl::judge(lists, frame, Direction::Egress, note)
}

/// Whether the checksum is to be finished here, and whether the frame must be cut, which finishes it too.
#[inline]
fn unfinished(caps: Caps, bytes: &[u8], work: Offload) -> (bool, Egress) {
    match work.gso {
        // A device that cuts a frame must finish the checksums of its segments (VIRTIO 1.2 section 5.1.3.1).
        Some(gso) if caps.csum && caps.takes(gso.kind) && !is_tunnelled(bytes, &work) => {
            (false, Egress::Ready)
        }
        Some(_) => (false, Egress::Segment),
        None => (work.csum.is_some_and(|csum| !caps.takes_csum(csum)), Egress::Ready),
    }
}

fn finish<F: FrameBuf>(frame: &mut F) -> Result<(), Reason> {
    if let Some(csum) = frame.meta().offload.csum {
        checksum::complete(frame.bytes_mut(), csum).map_err(|_| Reason::BadOffload)?;
        frame.meta_mut().offload.csum = None;
    }
    Ok(())
}
