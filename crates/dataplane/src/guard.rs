//! Guard: what a port's frames may claim to be. Before the FDB learns of them.
//!
//! A port whose security names MACs brings in frames with these sources alone; one that names addresses brings in these
//! source addresses alone. A guarded port is held to both, and to them in ARP and neighbour discovery too, and it is
//! neither DHCP server nor router unless it is trusted. What hides from this step what a receiver would find in it
//! ([`Hidden`]) does not pass where that matters.
//!
//! A frame that is to be cut into segments has the headers that they will have, and is judged by them once. A port
//! without security costs one branch a batch.

mod arp;
mod ip;
mod refusal;
mod security;

use alloc::format;
use alloc::string::ToString;
use core::net::{Ipv4Addr, Ipv6Addr};

use vswitch_wire::vlan::{TPID_8021AD, TPID_8021Q, TPIDS_OF_OLD};
use vswitch_wire::{FrameBuf, Instant, Mac, ethernet};

use crate::NetId;
use crate::pipeline::Effects;
use crate::vector::{Context, Vector};
pub(crate) use refusal::{Hidden, Refusal};
pub use security::{Learnt, Security};

pub(crate) fn run<F: FrameBuf>(cx: &Context<'_>, vector: &mut Vector<'_, F>, effects: &mut impl Effects) {
    let Some(security) = &cx.port.security else { return };
    for (frame, slot) in vector.undecided() {
        let Some(network) = slot.network else { continue };
        let judge = Judge { security, trusted: cx.port.trusted, network, now: cx.now, source: slot.source };
        match judge.frame(frame.bytes()) {
            Ok(()) => {
                effects.say("guard", || format!("claims nothing that is not {{port {}}}'s", cx.ingress.0));
            }
            Err(refusal) => {
                effects.say("guard", || refusal.to_string());
                slot.drop("guard", refusal.reason(), effects);
            }
        }
    }
}

/// What a frame is judged by.
struct Judge<'a> {
    security: &'a Security,
    trusted: bool,
    network: NetId,
    now: Instant,
    /// The frame's source MAC.
    source: Mac,
}

impl Judge<'_> {
    /// Judges a frame, whose outermost 802.1Q tag is not in its bytes.
    fn frame(&self, bytes: &[u8]) -> Result<(), Refusal> {
        if !self.security.has_mac(self.source) {
            return Err(Refusal::Mac(self.source));
        }
        if !self.security.holds_addresses() {
            return Ok(());
        }
        let Some((header, payload)) = bytes.split_first_chunk::<{ ethernet::HEADER_LEN }>() else {
            return Ok(()); // `parse` has seen a header
        };
        let [.., high, low] = *header;
        let ether_type = u16::from_be_bytes([high, low]);
        match ether_type {
            ethernet::TYPE_IPV4 => self.ipv4(payload),
            ethernet::TYPE_IPV6 => self.ipv6(payload),
            ethernet::TYPE_ARP if self.security.is_guarded() => self.arp(payload),
            // Stations give each other addresses by it, and nobody has a use for it any more.
            ethernet::TYPE_RARP if self.security.is_guarded() => Err(Hidden::Rarp.into()),
            TPID_8021Q | TPID_8021AD => Err(Hidden::Tag(ether_type).into()),
            old if TPIDS_OF_OLD.contains(&old) => Err(Hidden::Tag(old).into()),
            // LLC with SNAP may carry any of the above, and some stations take it in (CVE-2021-27854).
            length if length < ethernet::TYPE_MIN => Err(Hidden::Llc.into()),
            _ => Ok(()),
        }
    }

    /// It must be neither server nor router.
    fn is_no_authority(&self) -> bool {
        self.security.is_guarded() && !self.trusted
    }

    fn may_be_v4(&self, address: Ipv4Addr) -> bool {
        self.security.has_v4(address, self.network, self.now)
    }

    fn may_be_v6(&self, address: Ipv6Addr) -> bool {
        self.security.has_v6(address, self.source, self.network, self.now)
    }
}
