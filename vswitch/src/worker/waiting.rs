//! Frames for a VTEP whose next hop is not known yet: they wait, a few and not for long. The latest of them are kept (RFC
//! 1122 section 2.3.2.2, RFC 4861 section 7.2.2).

use std::collections::BTreeMap;
use std::sync::Arc;

use vswitch_dataplane::{NetId, PortCounters, PortId, Reason, Snapshot, tunnel};
use vswitch_io::Frame;

/// The most frames that wait for one VTEP...
const PER_PEER: usize = 16;
/// ...and for all.
const ALL: usize = 256;
/// Chores that a frame sees before it is given up: as long as three questions for the next hop take, a second each.
const CHORES_MAX: u8 = 6;

/// Those of one worker.
pub(super) struct Waiting {
    worker: usize,
    frames: Vec<Held>,
}

struct Held {
    network: NetId,
    peer: PortId,
    frame: Frame,
    /// Chores that it saw.
    chores: u8,
    /// The VTEP's, which may be gone when the frame goes.
    counters: Arc<[PortCounters]>,
}

/// A frame that waits no more.
pub(super) struct Resolved {
    pub(super) network: NetId,
    pub(super) peer: PortId,
    pub(super) frame: Frame,
}

impl Waiting {
    pub(super) fn new(worker: usize) -> Self {
        Self { worker, frames: Vec::new() }
    }

    /// Keeps a frame in place of the oldest, where too many wait for its VTEP, or of the network that has most. Hands it back
    /// where that is its own, or the VTEP is gone.
    pub(super) fn hold(
        &mut self,
        snapshot: &Snapshot,
        network: NetId,
        peer: PortId,
        frame: Frame,
    ) -> Result<(), Frame> {
        let mut of_peer = self.frames.iter().enumerate().filter(|(_, held)| held.peer == peer);
        let oldest = of_peer.next().map(|(at, _)| at);
        if let Some(at) = oldest.filter(|_| of_peer.count() + 1 >= PER_PEER) {
            let held = self.frames.remove(at);
            self.give_up(&held, Reason::NoNeighbour);
        }
        let Some(port) = snapshot.port(peer) else { return Err(frame) };
        if self.frames.len() >= ALL && !self.make_room(network) {
            return Err(frame);
        }
        let counters = Arc::clone(&port.counters);
        self.frames.push(Held { network, peer, frame, chores: 0, counters });
        Ok(())
    }

    /// Gives up the oldest frame of the network that has most, unless `network` has as many.
    fn make_room(&mut self, network: NetId) -> bool {
        let mut counts: BTreeMap<NetId, usize> = BTreeMap::new();
        self.frames.iter().for_each(|held| *counts.entry(held.network).or_default() += 1);
        let own = counts.get(&network).copied().unwrap_or(0);
        let Some((&most, &count)) = counts.iter().max_by_key(|(_, count)| **count) else { return false };
        let oldest = self.frames.iter().position(|held| held.network == most).filter(|_| count > own);
        let Some(at) = oldest else { return false };
        let held = self.frames.remove(at);
        self.give_up(&held, Reason::NoNeighbour);
        true
    }

    /// The worker ends.
    pub(super) fn give_up_all(&mut self) {
        std::mem::take(&mut self.frames).iter().for_each(|held| self.give_up(held, Reason::PortGone));
    }

    /// The frames that need not wait longer, in their order. Those of VTEPs that are gone, or have left the frame's network,
    /// are dropped.
    pub(super) fn take_resolved(&mut self, snapshot: &Snapshot) -> Vec<Resolved> {
        if self.frames.is_empty() {
            return Vec::new();
        }
        let mut resolved = Vec::new();
        for held in std::mem::take(&mut self.frames) {
            match tunnel::of(snapshot, held.peer) {
                // The number may be another network's before long.
                Some(tunnel) if !tunnel.carries(held.network) => self.give_up(&held, Reason::NotMember),
                Some(tunnel) if tunnel.outer.is_none() => self.frames.push(held),
                Some(_) => {
                    let Held { network, peer, frame, .. } = held;
                    resolved.push(Resolved { network, peer, frame });
                }
                None => self.give_up(&held, Reason::PortGone),
            }
        }
        resolved
    }

    /// Time has passed: what has waited too long is dropped.
    pub(super) fn on_chores(&mut self) {
        let (old, kept): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.frames).into_iter().partition(|held| held.chores >= CHORES_MAX);
        self.frames = kept;
        self.frames.iter_mut().for_each(|held| held.chores += 1);
        old.iter().for_each(|held| self.give_up(held, Reason::NoNeighbour));
    }

    fn give_up(&self, held: &Held, reason: Reason) {
        if let Some(counters) = held.counters.get(self.worker) {
            counters.drop(reason, 1);
        }
    }
}
