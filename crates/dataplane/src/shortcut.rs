//! Flows that need no worker: every frame of one is decided alike, until something is learnt or configured.
//!
//! Known unicast between two ports is decided by the frame's port, tag and addresses alone, so whoever can carry that
//! out elsewhere may do so for the rest of a flow. What a step decides by anything else keeps its frames here:
//! [`Flow::of`] and [`find`] say which flows are left, and a new step has to say so there. Lengths and GSO, which differ
//! from frame to frame, are for whoever carries the flow out to look at, as [`Passage`] says.

use vswitch_wire::{FrameBuf, GsoKind, Mac, ethernet};

use crate::fdb::Mark;
use crate::{Attachment, EgressVlan, NetId, PortId, Snapshot};

/// What the frames of a flow have in common. They are IPv4 or IPv6: with another EtherType a frame may be tagged once
/// more, or be ARP, which is never many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The port that they come in by.
    pub ingress: PortId,
    /// The VLAN ID that they come in with; `None`: untagged.
    pub vid: Option<u16>,
    /// Who sends them.
    pub source: Mac,
    /// Whom to.
    pub destination: Mac,
}

/// Bytes of the shortest segments of a GSO frame that is for a passage. With shorter ones it may be a sender's bad
/// will, which the pipeline knows; with these it has 128 segments at most.
pub const MIN_SEGMENT: u16 = 512;

/// How a flow leaves: tagged as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Its network.
    pub network: NetId,
    /// Where it leaves.
    pub egress: PortId,
    /// Bytes of the longest frame (or segment of a GSO frame), from the destination MAC on without tag and FCS. What is
    /// longer is not for the passage, nor is a GSO frame of anything but TCP, or with segments below [`MIN_SEGMENT`].
    pub max_frame: u32,
    /// It holds while the source is known as it was...
    pub source: Mark,
    /// ...and the destination.
    pub destination: Mark,
}

impl Flow {
    /// The flow of a frame that came out of [`crate::Pipeline::process`].
    pub fn of<F: FrameBuf>(ingress: PortId, frame: &F) -> Option<Self> {
        let header = ethernet::Header::new_checked(frame.bytes()).ok()?;
        let meta = frame.meta();
        let vid = meta.tag.map(vswitch_wire::Tag::vid);
        let is_other_gso = meta.offload.gso.is_some_and(|gso| gso.kind == GsoKind::Udp);
        if !matches!(header.ether_type(), ethernet::TYPE_IPV4 | ethernet::TYPE_IPV6)
            || vid == Some(0)
            || is_other_gso
        {
            return None;
        }
        Some(Self { ingress, vid, source: header.source(), destination: header.destination() })
    }
}

/// How the frames of a flow leave, if nothing keeps them here. It holds as long as the snapshot, and its marks.
pub fn find(snapshot: &Snapshot, flow: &Flow) -> Option<Passage> {
    let &Flow { ingress, vid, source, destination } = flow;
    let from = snapshot.port(ingress)?;
    // admit: what is left to judge are lengths, and GSO.
    if !source.is_unicast() || destination.is_multicast() || destination == Mac::ZERO {
        return None;
    }
    // vlan
    let network = match (&from.attachment, vid) {
        (Attachment::Access(network), None) => *network,
        (Attachment::Trunk(trunk), None) => trunk.native()?,
        (Attachment::Trunk(trunk), Some(vid)) => trunk.network_of(vid)?,
        (Attachment::Access(_), Some(_)) | (Attachment::None | Attachment::Tunnel(_), _) => return None,
    };
    // acl: rules look at more than a flow has.
    let of_network = &snapshot.network(network)?.acl;
    if from.acl.ingress.is_some() || of_network.ingress.is_some() || of_network.egress.is_some() {
        return None;
    }
    // guard: each frame is judged by what it claims. Nor may a lease pass by unheard, where it is learnt from.
    if from.security.is_some() {
        return None;
    }
    // learn: what is known of the source stays as it is. Whoever carries the flow out keeps it from ageing.
    let fdb = snapshot.fdb();
    let marks = [source, destination].map(|mac| fdb.mark(network, mac));
    if fdb.lookup(network, source) != Some(ingress) {
        return None;
    }
    // forward: known unicast, which storm limits do not concern.
    let egress = fdb.lookup(network, destination)?;
    let to = snapshot.port(egress)?;
    if to.acl.egress.is_some() {
        return None;
    }
    if from.trusted && to.learns() {
        return None;
    }
    if egress == ingress || !from.up || !to.up || (from.isolated && to.isolated) {
        return None;
    }
    // egress: the tag stays.
    let is_as_it_came = match to.egress_vlan(network) {
        EgressVlan::NotMember => false,
        EgressVlan::Untagged if matches!(to.attachment, Attachment::Tunnel(_)) => false,
        EgressVlan::Untagged => vid.is_none(),
        EgressVlan::Tagged(own) => vid == Some(own.get()),
    };
    let max_frame = from.max_frame.min(to.max_frame);
    let [source, destination] = marks;
    is_as_it_came.then_some(Passage { network, egress, max_frame, source, destination })
}
