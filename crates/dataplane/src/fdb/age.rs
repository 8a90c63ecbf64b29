//! Ageing: what is old, or belongs nowhere any more, or is too much, goes.
//!
//! The table is looked at in [`STEPS`] slices, one a call. The hash spreads every network over all slices,
//! so the oldest of a slice stand for the oldest of the table: eviction needs no list of them, and a call
//! is bounded by its slice whatever an attacker does.

use alloc::vec::Vec;

use vswitch_wire::Instant;

use super::counts::Place;
use super::record::{Record, Seconds};
use super::{Fdb, place_of};
use crate::snapshot::EgressVlan;
use crate::sync::Ordering::Relaxed;
use crate::{NetId, PortId, Snapshot};

/// Calls of one round.
pub(super) const STEPS: usize = 10;

/// Whose limit is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Over {
    Network(NetId),
    /// Only after the limit was lowered.
    Port(PortId),
}

/// An entry that may have to go. In order: by limit, by port, oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    over: Over,
    port: PortId,
    seen: Seconds,
    key: u64,
}

impl Fdb {
    pub(super) fn age_step(&self, snapshot: &Snapshot, now: Instant) -> usize {
        let now = Seconds::from(now);
        let networks = snapshot.networks().count().max(1);
        self.network_share.store(self.reserve / networks, Relaxed);

        let step = self.next_step.fetch_add(1, Relaxed) % STEPS;
        let buckets = self.table.buckets();
        let slice = step * buckets / STEPS..(step + 1) * buckets / STEPS;
        let mut taken = 0;
        let mut candidates = Vec::new();
        self.table.scan(slice, |key, word| {
            let record = Record::unpack(word);
            if is_over_age(snapshot, place_of(key, record), record, now) {
                taken += usize::from(self.take(key, |r| is_over_age(snapshot, place_of(key, r), r, now)));
            } else if !record.is_static {
                if record.settled(now) != record {
                    self.table.update(key, |word| Some(Record::unpack(word).settled(now).pack()));
                }
                self.nominate(snapshot, key, record, &mut candidates);
            }
        });
        taken + self.evict(snapshot, candidates, STEPS - step)
    }

    /// Makes an entry a candidate for every limit that its network or port exceeds.
    fn nominate(&self, snapshot: &Snapshot, key: u64, record: Record, candidates: &mut Vec<Candidate>) {
        let Place { network, port } = place_of(key, record);
        for over in [Over::Network(network), Over::Port(port)] {
            if self.excess(snapshot, over) > 0 {
                candidates.push(Candidate { over, port, seen: record.seen(), key });
            }
        }
    }

    /// Entries beyond the limit.
    fn excess(&self, snapshot: &Snapshot, over: Over) -> u32 {
        match over {
            Over::Network(id) => {
                snapshot.network(id).map_or(0, |n| self.counts.network(id).saturating_sub(n.max_macs))
            }
            Over::Port(id) => {
                snapshot.port(id).map_or(0, |p| self.counts.port(id).saturating_sub(p.max_macs))
            }
        }
    }

    /// Takes out this slice's part of what exceeds each limit (all of it, in the last slice of a round),
    /// the oldest first.
    fn evict(&self, snapshot: &Snapshot, mut candidates: Vec<Candidate>, steps_left: usize) -> usize {
        candidates.sort_unstable();
        let mut taken = 0;
        for group in candidates.chunk_by(|a, b| a.over == b.over) {
            let over = group[0].over;
            let level = self.level(snapshot, over);
            for of_port in group.chunk_by(|a, b| a.port == b.port) {
                let surplus = self.count(over, of_port[0].port).saturating_sub(level) as usize;
                for oldest in &of_port[..surplus.div_ceil(steps_left).min(of_port.len())] {
                    // Rounding leaves the level a little too low.
                    if self.excess(snapshot, over) == 0 {
                        break;
                    }
                    let is_same =
                        |r: Record| !r.is_static && r.port == oldest.port && r.seen() == oldest.seen;
                    taken += usize::from(self.take(oldest.key, is_same));
                }
            }
        }
        taken
    }

    /// What a port may keep of what is limited: for a network the level at which the ports that have most
    /// must be cut off so that all together are within the limit (max-min fairness).
    fn level(&self, snapshot: &Snapshot, over: Over) -> u32 {
        let (network, id) = match over {
            Over::Port(id) => return snapshot.port(id).map_or(0, |port| port.max_macs),
            Over::Network(id) => match snapshot.network(id) {
                Some(network) => (network, id),
                None => return 0,
            },
        };
        let mut counts: Vec<u32> =
            network.members().iter().map(|&port| self.counts.pair(Place { network: id, port })).collect();
        counts.sort_unstable();
        let mut left = network.max_macs;
        for (i, &count) in counts.iter().enumerate() {
            let share = left / (counts.len() - i) as u32;
            if count > share {
                return share;
            }
            left -= count;
        }
        u32::MAX
    }

    /// What a port has of what is limited.
    fn count(&self, over: Over, port: PortId) -> u32 {
        match over {
            Over::Network(network) => self.counts.pair(Place { network, port }),
            Over::Port(port) => self.counts.port(port),
        }
    }
}

/// Too old, or at a port that is gone or not of the network any more.
fn is_over_age(snapshot: &Snapshot, place: Place, record: Record, now: Seconds) -> bool {
    let (Some(network), Some(port)) = (snapshot.network(place.network), snapshot.port(place.port)) else {
        return true;
    };
    port.egress_vlan(place.network) == EgressVlan::NotMember
        || (!record.is_static && record.idle(now) > network.ageing)
}
