//! The last step: how a frame leaves by a port. Run once for each port that it leaves by.

use vswitch_wire::FrameBuf;

use crate::{NetId, PortId, Reason, Snapshot};

/// What is left to do with a frame that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// It can be sent.
    Ready,
    /// The port cannot take it as one: cut it with `vswitch_wire::segment` first.
    Segment,
}

/// Makes `frame` of `network` ready to leave by `port`: membership, link, isolation from `ingress`, MTU, the
/// tag (PCP and DEI are kept) written into the bytes, the checksum finished where the port cannot.
/// Counts nothing: the caller counts the drop at `port`.
///
/// # Errors
/// The reason to drop it.
pub fn prepare<F: FrameBuf>(
    _snapshot: &Snapshot,
    _network: NetId,
    _ingress: PortId,
    _port: PortId,
    _frame: &mut F,
) -> Result<Egress, Reason> {
    todo!()
}
