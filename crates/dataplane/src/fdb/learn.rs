//! Learning: whoever sends is behind the port that the frame came in by.

use vswitch_wire::{Instant, Mac};

use super::counts::{Limits, Place};
use super::record::{Record, Seconds};
use super::{Fdb, Learn, Probe, key};
use crate::{NetId, PortId, Snapshot};

impl Fdb {
    /// Learns that a frame of `network` with source `mac` came in by `port`. Limits come from the snapshot.
    #[inline]
    pub fn learn(&self, snapshot: &Snapshot, network: NetId, mac: Mac, port: PortId, now: Instant) -> Learn {
        self.learn_probed(snapshot, self.probe(network, mac), (network, mac), port, now)
    }

    /// [`Self::learn`] of an address that was probed in this FDB.
    #[inline]
    pub(crate) fn learn_probed(
        &self,
        snapshot: &Snapshot,
        probe: Probe,
        (network, mac): (NetId, Mac),
        port: PortId,
        now: Instant,
    ) -> Learn {
        let now = Seconds::from(now);
        if let Some(record) = self.table.get_probed(probe).map(Record::unpack) {
            if record.is_static {
                return Learn::Static;
            }
            if record.port == port && record.is_fresh(now) {
                return Learn::Known;
            }
            if record.port != port && record.is_held(now) {
                return Learn::Held;
            }
        }
        self.write(snapshot, mac, Place { network, port }, now)
    }

    /// The part of [`Self::learn`] that writes: once a second for each address, and on news.
    #[cold]
    fn write(&self, snapshot: &Snapshot, mac: Mac, place: Place, now: Seconds) -> Learn {
        let Some(limits) = Limits::of(snapshot, place).filter(|_| mac.is_unicast()) else {
            return Learn::Refused;
        };
        let Place { network, port } = place;
        let mut outcome = Learn::Refused;
        // A full table is refused, as any other limit.
        let _ = self.table.upsert(key(network, mac), |word| {
            let (learn, record) = match word.map(Record::unpack) {
                None => self.admit(snapshot, place, limits, now),
                Some(record) if record.is_static => (Learn::Static, Some(record)),
                Some(record) if record.port == port => (Learn::Known, Some(record.refreshed(now))),
                Some(record) => self.relocate(network, record, port, limits.port, now),
            };
            outcome = learn;
            if let Learn::Moved { .. } = learn {
                self.on_change(key(network, mac));
            }
            record.map(Record::pack)
        });
        if let Learn::Moved { .. } = outcome {
            self.on_change(key(network, mac));
        }
        outcome
    }

    /// What [`Self::learn`] would say, limits aside; it changes nothing.
    pub(crate) fn foresee(&self, network: NetId, mac: Mac, port: PortId, now: Instant) -> Learn {
        match self.table.get(key(network, mac)).map(Record::unpack) {
            None => Learn::Added,
            Some(record) if record.is_static => Learn::Static,
            Some(record) if record.port == port => Learn::Known,
            Some(record) if record.moved(port, now.into()).is_err() => Learn::Held,
            Some(record) => Learn::Moved { from: record.port },
        }
    }

    /// A new address: counted and added, or refused.
    fn admit(
        &self,
        snapshot: &Snapshot,
        place: Place,
        limits: Limits,
        now: Seconds,
    ) -> (Learn, Option<Record>) {
        if self.has_room(snapshot, place.network, limits.networks) && self.counts.add(place, limits) {
            (Learn::Added, Some(Record::learnt(place.port, now)))
        } else {
            (Learn::Refused, None)
        }
    }

    /// The table is not full, or what is kept back for those with little has room for this network, one of so many of
    /// its tenant. The shares of all tenants together are half of that, those of their networks the other half.
    fn has_room(&self, snapshot: &Snapshot, network: NetId, networks: u32) -> bool {
        if self.table.len() < self.capacity {
            return true;
        }
        let Some(tenant) = snapshot.network(network).map(|network| network.tenant.id) else { return false };
        let share = self.reserve / 2 / snapshot.tenant_count().max(1);
        (self.counts.tenant(tenant) as usize) < share
            || (self.counts.network(network) as usize) < share / networks.max(1) as usize
    }

    /// A known address at another port than before: moved, held, or refused.
    fn relocate(
        &self,
        network: NetId,
        record: Record,
        to: PortId,
        port_limit: u32,
        now: Seconds,
    ) -> (Learn, Option<Record>) {
        let from = record.port;
        match record.moved(to, now) {
            Err(held) => (Learn::Held, Some(held)),
            Ok(moved) if self.counts.shift(Place { network, port: from }, to, port_limit) => {
                (Learn::Moved { from }, Some(moved))
            }
            Ok(_) => (Learn::Refused, Some(record)),
        }
    }

    /// Notes that the address was seen at `port`, by somebody who may be late: where it is not there any more nothing
    /// changes.
    pub fn refresh(&self, network: NetId, mac: Mac, port: PortId, now: Instant) {
        self.table.update(key(network, mac), |word| {
            let record = Record::unpack(word);
            let is_there = record.port == port && !record.is_static;
            Some(if is_there { record.refreshed(now.into()).pack() } else { word })
        });
    }
}
