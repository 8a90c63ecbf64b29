//! Making room for a key whose two buckets are full: other entries move to their other bucket.

use super::Table;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicU64, spin_loop};

/// Buckets that one search looks at: four generations, 2 + 6 + 18 + 54.
const SEARCH: usize = 80;

/// A bucket that would have room for one more if `key` moved on from `parent`'s.
#[derive(Clone, Copy, Default)]
struct Node {
    bucket: usize,
    /// The key that moves here from the parent.
    key: u64,
    /// Its position in the search; the two roots have none.
    parent: Option<usize>,
}

impl Table {
    /// Makes a place in one of two full buckets. Searches breadth first for a bucket with room, without a
    /// lock, and then moves entries along the way back, farthest first, each under the lock of two buckets.
    /// False when there is no way, or a scan holds entries in place; else it is worth another look, which
    /// is not to say that there is a place: another writer may have changed the way, or been quicker.
    pub(super) fn make_room(&self, first: usize, second: usize) -> bool {
        let Some(_pass) = self.gate.pass() else { return false };
        let mut nodes = [Node::default(); SEARCH];
        nodes[0].bucket = first;
        nodes[1].bucket = second;
        let mut found = 2;
        for at in 0..SEARCH {
            if at == found {
                break;
            }
            let bucket = nodes[at].bucket;
            if self.buckets[bucket].empty_slot().is_some() {
                self.shift(&nodes, at);
                return true;
            }
            for (key, _) in self.buckets[bucket].entries().into_iter().flatten() {
                if let Some(node) = nodes.get_mut(found) {
                    *node = Node { bucket: self.other(key, bucket), key, parent: Some(at) };
                    found += 1;
                }
            }
        }
        false
    }

    /// Moves the entries on the way from `nodes[at]` to its root, as long as they are where they were.
    fn shift(&self, nodes: &[Node; SEARCH], mut at: usize) {
        while let Some(parent) = nodes[at].parent {
            if !self.relocate(nodes[at].key, nodes[parent].bucket, nodes[at].bucket) {
                return;
            }
            at = parent;
        }
    }

    /// Moves one entry between its two buckets, if it is still there and there is still room.
    pub(super) fn relocate(&self, key: u64, from: usize, to: usize) -> bool {
        let pair = self.lock(from, to);
        let Some(slot) = pair.first.0.slot_of(key) else { return false };
        let (Some(value), Some(empty)) = (slot.value(), pair.second.0.empty_slot()) else { return false };
        pair.second.fill(empty, key, value);
        slot.value.store(0, Release);
        true
    }

    /// The bucket of `key` that is not `bucket`.
    fn other(&self, key: u64, bucket: usize) -> usize {
        let (first, second) = self.candidates(key);
        if bucket == first { second } else { first }
    }
}

/// Lets either any number of writers move entries, or any number of scans rely on them to stay.
/// A writer does not wait for a scan: it is refused.
#[derive(Default)]
pub(super) struct Gate {
    /// Writers inside in the lower half, scans in the upper.
    state: AtomicU64,
}

const SCAN: u64 = 1 << 32;

/// While it lives, its holder is counted in the gate.
pub(super) struct Inside<'a> {
    gate: &'a Gate,
    weight: u64,
}

impl Gate {
    /// Lets a writer through unless a scan is on.
    pub(super) fn pass(&self) -> Option<Inside<'_>> {
        let before = self.state.fetch_add(1, Acquire);
        let inside = Inside { gate: self, weight: 1 };
        (before < SCAN).then_some(inside)
    }

    /// Lets no more writers through, and waits for those inside (a search and a few moves).
    pub(super) fn close(&self) -> Inside<'_> {
        self.state.fetch_add(SCAN, Relaxed);
        while self.state.load(Acquire) & (SCAN - 1) != 0 {
            spin_loop();
        }
        Inside { gate: self, weight: SCAN }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.gate.state.fetch_sub(self.weight, Release);
    }
}
