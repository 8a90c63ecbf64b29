//! Ageing: what is old, or belongs nowhere any more, or is too much, goes.
//!
//! The table is looked at in [`STEPS`] slices, one a call. The hash spreads every network over all slices,
//! so the oldest of a slice stand for the oldest of the table: eviction needs no list of them, and a call
//! is bounded by its slice whatever an attacker does.
//!
//! Where a tenant has too much, its networks that have most are cut off at one level, so that all together are within
//! the limit (max-min fairness); where a network has more than its own limit or that level, its ports are in the same way.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use vswitch_wire::Instant;

use super::counts::Place;
use super::record::{Record, Seconds};
use super::{Fdb, place_of};
use crate::snapshot::{EgressVlan, Tenant};
use crate::sync::Ordering::Relaxed;
use crate::{NetId, PortId, Snapshot, TenantId};

/// Calls of one round.
pub(super) const STEPS: usize = 10;

/// Whose limit is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Over {
    /// The network's own, or its tenant's.
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
        let step = self.next_step.fetch_add(1, Relaxed) % STEPS;
        let buckets = self.table.buckets();
        let slice = step * buckets / STEPS..(step + 1) * buckets / STEPS;
        let excess = Excess::of(self, snapshot);
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
                excess.nominate(key, record, &mut candidates);
            }
        });
        taken + excess.evict(candidates, STEPS - step)
    }
}

/// What is learnt beyond limits.
struct Excess<'a> {
    fdb: &'a Fdb,
    snapshot: &'a Snapshot,
    /// Where the networks of a tenant that is over its limit are cut off.
    levels: BTreeMap<TenantId, u32>,
}

impl<'a> Excess<'a> {
    fn of(fdb: &'a Fdb, snapshot: &'a Snapshot) -> Self {
        let is_over = |tenant: &Tenant| fdb.counts.tenant(tenant.id) > tenant.max_macs;
        let level_of = |tenant: Tenant| {
            let networks = snapshot.networks_of(tenant.id).iter();
            // What is beyond a network's own limit goes in any case.
            let kept = |&id: &NetId| Some(fdb.counts.network(id).min(snapshot.network(id)?.max_macs));
            (tenant.id, level(networks.filter_map(kept).collect(), tenant.max_macs))
        };
        let levels = snapshot.tenants().filter(is_over).map(level_of).collect();
        Self { fdb, snapshot, levels }
    }

    /// Makes an entry a candidate for every limit that its network or port exceeds.
    fn nominate(&self, key: u64, record: Record, candidates: &mut Vec<Candidate>) {
        let Place { network, port } = place_of(key, record);
        for over in [Over::Network(network), Over::Port(port)] {
            if self.beyond(over) > 0 {
                candidates.push(Candidate { over, port, seen: record.seen(), key });
            }
        }
    }

    /// Entries beyond the limit.
    fn beyond(&self, over: Over) -> u32 {
        match over {
            Over::Network(id) => self.beyond_network(id),
            Over::Port(id) => {
                self.snapshot.port(id).map_or(0, |p| self.fdb.counts.port(id).saturating_sub(p.max_macs))
            }
        }
    }

    fn beyond_network(&self, id: NetId) -> u32 {
        let Some(network) = self.snapshot.network(id) else { return 0 };
        let counts = &self.fdb.counts;
        let beyond_level = self.levels.get(&network.tenant.id).map_or(0, |&level| {
            // Rounding leaves the level a little too low.
            let of_tenant = counts.tenant(network.tenant.id).saturating_sub(network.tenant.max_macs);
            counts.network(id).saturating_sub(level).min(of_tenant)
        });
        counts.network(id).saturating_sub(network.max_macs).max(beyond_level)
    }

    /// Takes out this slice's part of what exceeds each limit (all of it, in the last slice of a round),
    /// the oldest first.
    fn evict(&self, mut candidates: Vec<Candidate>, steps_left: usize) -> usize {
        candidates.sort_unstable();
        let mut taken = 0;
        for group in candidates.chunk_by(|a, b| a.over == b.over) {
            let over = group[0].over;
            let level = self.level_of_ports(over);
            for of_port in group.chunk_by(|a, b| a.port == b.port) {
                let surplus = self.count(over, of_port[0].port).saturating_sub(level) as usize;
                for oldest in &of_port[..surplus.div_ceil(steps_left).min(of_port.len())] {
                    // Rounding leaves the level a little too low.
                    if self.beyond(over) == 0 {
                        break;
                    }
                    let is_same =
                        |r: Record| !r.is_static && r.port == oldest.port && r.seen() == oldest.seen;
                    taken += usize::from(self.fdb.take(oldest.key, is_same));
                }
            }
        }
        taken
    }

    /// What a port may keep of what is limited.
    fn level_of_ports(&self, over: Over) -> u32 {
        let (network, id) = match over {
            Over::Port(id) => return self.snapshot.port(id).map_or(0, |port| port.max_macs),
            Over::Network(id) => match self.snapshot.network(id) {
                Some(network) => (network, id),
                None => return 0,
            },
        };
        let of_tenant = self.levels.get(&network.tenant.id).copied().unwrap_or(u32::MAX);
        let count = |&port: &PortId| self.fdb.counts.pair(Place { network: id, port });
        level(network.members().iter().map(count).collect(), network.max_macs.min(of_tenant))
    }

    /// What a port has of what is limited.
    fn count(&self, over: Over, port: PortId) -> u32 {
        match over {
            Over::Network(network) => self.fdb.counts.pair(Place { network, port }),
            Over::Port(port) => self.fdb.counts.port(port),
        }
    }
}

/// The level at which those that have most must be cut off so that all together are within `limit` (max-min fairness).
fn level(mut counts: Vec<u32>, limit: u32) -> u32 {
    counts.sort_unstable();
    let mut left = limit;
    for (i, &count) in counts.iter().enumerate() {
        let share = left / (counts.len() - i) as u32;
        if count > share {
            return share;
        }
        left -= count;
    }
    u32::MAX
}

/// Too old, or at a port that is gone or not of the network any more.
fn is_over_age(snapshot: &Snapshot, place: Place, record: Record, now: Seconds) -> bool {
    let (Some(network), Some(port)) = (snapshot.network(place.network), snapshot.port(place.port)) else {
        return true;
    };
    port.egress_vlan(place.network) == EgressVlan::NotMember
        || (!record.is_static && record.idle(now) > network.ageing)
}
