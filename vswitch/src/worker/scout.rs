//! Looks for flows that are worth a way of their own, past the worker.
//!
//! One frame of each batch is looked at, so the search costs the same whatever the traffic is, and finds those
//! that have many frames. A flow's frames that a passage is not for (too long, UDP in GSO frames) come here still.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use vswitch_dataplane::shortcut::{self, Flow};
use vswitch_dataplane::{PortId, Snapshot, Verdict, fdb};
use vswitch_io::Frame;
use vswitch_io::shortcut::{self as kernel, Mark, NETWORKS, Shortcut, Side, Way};
use vswitch_wire::Instant;

/// Flows that are watched at a time; a power of two.
const WATCHED: usize = 256;
/// A flow seen so often is worth it, for the price of a system call...
const ENOUGH: u8 = 8;
/// ...within this time.
const WINDOW: Duration = Duration::from_secs(1);

/// Counts how often flows are seen. Flows that share a place take turns: the one that is seen more often stays.
pub(super) struct Scout {
    shortcut: &'static Shortcut,
    hasher: RandomState,
    watched: Box<[Option<Watched>; WATCHED]>,
}

#[derive(Clone, Copy)]
struct Watched {
    flow: Flow,
    seen: u8,
    since: Instant,
}

impl Scout {
    pub(super) fn new(shortcut: &'static Shortcut) -> Self {
        Self { shortcut, hasher: RandomState::new(), watched: Box::new([None; WATCHED]) }
    }

    /// Looks at a batch that has its verdicts. A flow that was seen often enough by now.
    pub(super) fn look(
        &mut self,
        snapshot: &Snapshot,
        ingress: PortId,
        frames: &[Frame],
        verdicts: &[Verdict],
        now: Instant,
    ) -> Option<Flow> {
        let has_shortcut = |port| snapshot.port(port).is_some_and(|port| port.shortcut_ifindex.is_some());
        if !has_shortcut(ingress) {
            return None;
        }
        let (frame, verdict) = (frames.last()?, verdicts.last()?);
        match *verdict {
            Verdict::Unicast { port, .. } if has_shortcut(port) => {}
            _ => return None,
        }
        self.watch(Flow::of(ingress, frame)?, now)
    }

    fn watch(&mut self, flow: Flow, now: Instant) -> Option<Flow> {
        let place = self.place_of(&flow);
        let place = &mut self.watched[place];
        match place.as_mut().filter(|watched| now.since(watched.since) <= WINDOW) {
            Some(watched) if watched.flow == flow => {
                watched.seen += 1;
                if watched.seen >= ENOUGH {
                    *place = None;
                    return Some(flow);
                }
            }
            Some(other) if other.seen > 1 => other.seen -= 1,
            _ => *place = Some(Watched { flow, seen: 1, since: now }),
        }
        None
    }

    /// Has the frames of the flow pass from now on, where that can be.
    pub(super) fn let_pass(&self, flow: &Flow, snapshots: &mut Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>) {
        // The epoch first: the snapshot is of that one then, or of a later, for which the way will not hold.
        let Some(epoch) = self.shortcut.epoch() else { return };
        let snapshot = Arc::clone(snapshots.load());
        let Some((flow, way)) = self.way(&snapshot, flow, epoch) else { return };
        // The ports' generations were read while the snapshot was the newest. They grow once more behind a newer.
        if Arc::ptr_eq(&snapshot, snapshots.load()) {
            // A kernel that refuses it leaves the frames to us.
            let _ = self.shortcut.insert(&flow, &way);
        }
    }

    /// How the flow passes, if it does.
    fn way(&self, snapshot: &Snapshot, flow: &Flow, epoch: u64) -> Option<(kernel::Flow, Way)> {
        let passage = shortcut::find(snapshot, flow)?;
        let netdev = |port| snapshot.port(port)?.shortcut_ifindex;
        let side = |port: PortId| Side { port: port.0, generation: self.shortcut.port_generation(port.0) };
        let mark = |fdb::Mark { slot, generation }| Mark { slot, generation };
        if passage.network.index() >= NETWORKS {
            return None;
        }
        let way = Way {
            epoch,
            ifindex: netdev(passage.egress)?,
            max_frame: passage.max_frame,
            source: mark(passage.source),
            destination: mark(passage.destination),
            ingress: side(flow.ingress),
            egress: side(passage.egress),
            network: passage.network.0,
        };
        let (source, destination) = (flow.source.0, flow.destination.0);
        Some((kernel::Flow { ifindex: netdev(flow.ingress)?, vid: flow.vid, source, destination }, way))
    }

    /// Where a flow is watched. Nobody outside knows which flows share a place.
    fn place_of(&self, flow: &Flow) -> usize {
        self.hasher.hash_one(flow) as usize % WATCHED
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use vswitch_wire::Mac;

    use super::*;

    fn flow(n: u8) -> Flow {
        let (source, destination) = (Mac([2, 0, 0, 0, 0, n]), Mac([2, 0, 0, 0, 1, n]));
        Flow { ingress: PortId(1), vid: None, source, destination }
    }

    fn scout() -> Scout {
        Scout::new(Shortcut::open().unwrap())
    }

    #[test]
    fn a_flow_is_found_when_it_is_seen_often_and_soon() {
        let mut scout = scout();
        let at = |ms| Instant::from_secs(1) + Duration::from_millis(ms);
        for again in 0..2 {
            let found: Vec<_> = (0..8).map(|n| scout.watch(flow(1), at(again * 500 + n))).collect();
            assert_eq!(found.iter().flatten().count(), 1);
            assert_eq!(found[7], Some(flow(1)));
        }
        assert!((0..100).all(|n| scout.watch(flow(1), at(2000 + n * 150)).is_none()), "too slow");
    }

    #[test]
    fn of_two_flows_in_one_place_the_larger_is_found() {
        let mut scout = scout();
        let others =
            (0..=255).flat_map(|port| (2..=255).map(move |n| Flow { ingress: PortId(port), ..flow(n) }));
        let same = { others }.find(|other| scout.place_of(other) == scout.place_of(&flow(1))).unwrap();
        let now = Instant::from_secs(1);
        let seen: Vec<Flow> = (0..40).map(|n| if n % 4 == 0 { same } else { flow(1) }).collect();
        let found: Vec<_> = seen.iter().filter_map(|&flow| scout.watch(flow, now)).collect();
        assert!(!found.is_empty() && found.iter().all(|&found| found == flow(1)), "{found:?}");
    }
}
