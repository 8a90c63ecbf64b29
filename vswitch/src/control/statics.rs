//! Static FDB entries: from the topology into the FDB. One for which there is no room is a problem that `status` shows,
//! and is tried again until there is room.

use std::collections::BTreeSet;

use vswitch_api::response::Health;
use vswitch_api::topology::StaticEntry;
use vswitch_dataplane::{Fdb, NetId, PortId};
use vswitch_wire::{Instant, Mac};

use super::ids::Ids;
use super::overlay;

/// Entries that a message names at most.
const LISTED: usize = 3;

/// What became of the static entries.
#[derive(Debug, Default)]
pub(super) struct StaticEntries {
    /// By network and address: those that the FDB has no room for.
    left_out: BTreeSet<(String, Mac)>,
}

/// Where the entries go.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) fdb: &'a Fdb,
    pub(super) ports: &'a Ids,
    pub(super) networks: &'a Ids,
    pub(super) now: Instant,
}

/// The name of the port where the entry is, or of the one that stands for its VTEP.
fn place_of(entry: &StaticEntry) -> String {
    entry.port.clone().or(entry.vtep.map(overlay::port_name)).unwrap_or_default()
}

impl StaticEntries {
    /// Takes the entries of `old` out that are not in `new`, and sets those of `new`.
    pub(super) fn replace(&mut self, old: &[StaticEntry], new: &[StaticEntry], place: Place<'_>) {
        let kept: BTreeSet<_> = new.iter().map(|e| (&e.network, e.mac, place_of(e))).collect();
        for entry in old.iter().filter(|e| !kept.contains(&(&e.network, e.mac, place_of(e)))) {
            if let Some(network) = place.networks.get(&entry.network) {
                place.fdb.remove(NetId(network), entry.mac);
            }
        }
        let before = std::mem::take(&mut self.left_out);
        for entry in new {
            self.set(entry, place);
        }
        for (network, mac) in self.left_out.difference(&before) {
            tracing::error!(%mac, network, "no room in the FDB for a static entry");
        }
    }

    /// Tries again what found no room.
    pub(super) fn retry(&mut self, all: impl FnOnce() -> Vec<StaticEntry>, place: Place<'_>) {
        if self.left_out.is_empty() {
            return;
        }
        let left_out = std::mem::take(&mut self.left_out);
        for entry in all().iter().filter(|e| left_out.contains(&(e.network.clone(), e.mac))) {
            self.set(entry, place);
        }
    }

    fn set(&mut self, entry: &StaticEntry, place: Place<'_>) {
        let (network, port) = (place.networks.get(&entry.network), place.ports.get(&place_of(entry)));
        let (Some(network), Some(port)) = (network, port) else { return };
        if place.fdb.add_static(NetId(network), entry.mac, PortId(port), place.now).is_err() {
            self.left_out.insert((entry.network.clone(), entry.mac));
        }
    }

    /// The entry is in the FDB.
    pub(super) fn has(&self, entry: &StaticEntry) -> bool {
        self.left_out.is_empty() || !self.left_out.contains(&(entry.network.clone(), entry.mac))
    }

    /// What is wrong, if anything is.
    pub(super) fn health(&self) -> Option<Health> {
        let named = self.left_out.iter().take(LISTED).map(|(network, mac)| format!("{mac} of {network}"));
        let named = named.collect::<Vec<_>>().join(", ");
        let more = if self.left_out.len() > LISTED { ", ..." } else { "" };
        let text = format!(
            "no room for {} static entries ({named}{more}), which are tried again; make room: vswitchctl fdb flush, \
             or a lower max-macs of networks",
            self.left_out.len()
        );
        (!self.left_out.is_empty()).then(|| Health { part: "fdb".to_owned(), ok: false, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u64) -> StaticEntry {
        let mac = Mac::from_u64(0x0200_0000_0000 + n);
        StaticEntry { network: "red".to_owned(), mac, port: Some("a".to_owned()), vtep: None }
    }

    #[test]
    fn an_entry_without_room_is_told_and_tried_again() {
        // One entry and its reserve.
        let fdb = Fdb::new(1);
        let (mut ports, mut networks) = (Ids::default(), Ids::default());
        let (port, network) = (PortId(ports.acquire("a")), NetId(networks.acquire("red")));
        let place = Place { fdb: &fdb, ports: &ports, networks: &networks, now: Instant::ZERO };
        let mut statics = StaticEntries::default();

        let all = [entry(1), entry(2)];
        statics.replace(&[], &all[..1], place);
        assert_eq!(statics.health(), None);
        statics.replace(&all[..1], &all, place);
        assert!(statics.has(&all[0]) && !statics.has(&all[1]));
        let health = statics.health().unwrap();
        assert!(!health.ok && health.part == "fdb");
        assert!(
            health.text.starts_with("no room for 1 static entries (02:00:00:00:00:02 of red),"),
            "{health:?}"
        );

        statics.retry(|| all.to_vec(), place);
        assert!(statics.health().is_some(), "it is as full as before");
        assert!(fdb.remove(network, all[0].mac));
        statics.retry(|| all.to_vec(), place);
        assert_eq!(statics.health(), None);
        assert_eq!(fdb.lookup(network, all[1].mac), Some(port));

        statics.replace(&all, &[], place);
        assert!(fdb.is_empty());
    }

    #[test]
    fn an_entry_moves_with_its_port() {
        let fdb = Fdb::new(8);
        let (mut ports, mut networks) = (Ids::default(), Ids::default());
        let network = NetId(networks.acquire("red"));
        ports.acquire("a");
        let b = PortId(ports.acquire("b"));
        let place = Place { fdb: &fdb, ports: &ports, networks: &networks, now: Instant::ZERO };
        let (before, after) = (entry(1), StaticEntry { port: Some("b".to_owned()), ..entry(1) });
        let mut statics = StaticEntries::default();
        statics.replace(&[], std::slice::from_ref(&before), place);
        statics.replace(&[before], std::slice::from_ref(&after), place);
        assert_eq!((fdb.len(), fdb.lookup(network, after.mac)), (1, Some(b)));
    }
}
