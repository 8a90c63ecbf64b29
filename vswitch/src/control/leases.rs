//! Addresses that guarded ports have learnt from DHCP.
//!
//! Workers tell what servers at trusted ports give (`worker/herald.rs`). A lease is kept for the ports of its network that
//! own the client's MAC, until it ends, and goes with the port; links may come and go. The snapshot has them all, each
//! with its end, so that nothing needs to be published when one is over. What is new is published at a bounded pace, and
//! to note it costs the same however many there are.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use vswitch_api::response;
use vswitch_api::topology::Port;
use vswitch_dataplane::{EgressVlan, Learnt, Lease, NetId, PortId};
use vswitch_wire::{Instant, Mac};

use super::Control;
use super::ids::Ids;

/// Leases that may wait for control.
const INBOX: usize = 1024;
/// The most leases of one port: a station that asks as many clients cannot have the memory of all others.
const LEASES_MAX: usize = 64;
/// How often new leases are published at most.
const PACE: Duration = Duration::from_millis(100);
/// A lease that ends later by less than this is as it was.
const SAME: Duration = Duration::from_secs(1);
/// The lifetime that is for ever (RFC 2131 section 3.3, RFC 8415 section 7.7).
const FOR_EVER: u32 = u32::MAX;
/// The end of a lease that is for ever.
const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// Network and address: nobody else has the same.
type Place = (String, IpAddr);

/// Who was given an address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Given {
    mac: Mac,
    until: Instant,
    ports: Vec<String>,
}

/// One lease of one port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Binding {
    place: Place,
    mac: Mac,
    until: Instant,
}

/// The leases of all ports.
pub(super) struct Leases {
    inbox: mpsc::Receiver<Lease>,
    given: BTreeMap<Place, Given>,
    /// The snapshot has not all of them.
    is_new: bool,
    published_at: Instant,
    /// Whose each MAC is, among guarded ports.
    owners: HashMap<Mac, Vec<String>>,
    /// As the snapshot has them.
    by_port: HashMap<String, Vec<Binding>>,
}

impl Leases {
    /// No lease, and the way in for new ones.
    pub(super) fn new() -> (Self, mpsc::Sender<Lease>) {
        let (sender, inbox) = mpsc::channel(INBOX);
        let leases = Self {
            inbox,
            given: BTreeMap::new(),
            is_new: false,
            published_at: Instant::ZERO,
            owners: HashMap::new(),
            by_port: HashMap::new(),
        };
        (leases, sender)
    }

    /// The next that a worker tells.
    pub(super) async fn next(&mut self) -> Option<Lease> {
        self.inbox.recv().await
    }

    /// Notes that a server has given an address in `network`; `may_have` says of an owner of its client's MAC whether it
    /// learns there. Whoever had the address before has lost it.
    fn note(&mut self, lease: &Lease, network: &str, may_have: impl Fn(&str) -> bool, now: Instant) {
        let Lease { client: mac, address, seconds, .. } = *lease;
        let place = (network.to_owned(), address);
        let until = if seconds == FOR_EVER { NEVER } else { now + Duration::from_secs(seconds.into()) };
        let has_room = |port: &str| {
            let bindings = self.by_port.get(port).map_or(&[][..], |all| all);
            bindings.len() < LEASES_MAX || bindings.iter().any(|b| b.place == place)
        };
        let owners = self.owners.get(&mac).into_iter().flatten();
        let ports: Vec<String> = owners.filter(|port| may_have(port) && has_room(port)).cloned().collect();
        if until <= now || ports.is_empty() {
            self.is_new |= self.given.remove(&place).is_some();
            return;
        }
        let given = Given { mac, until, ports };
        let is_same = |known: &Given| {
            let moved = until.since(known.until).max(known.until.since(until));
            moved < SAME && (known.mac, &known.ports) == (mac, &given.ports)
        };
        if !self.given.get(&place).is_some_and(is_same) {
            self.given.insert(place, given);
            self.is_new = true;
        }
    }

    /// Forgets what has ended and what is of none of `ports` any more. What is left is what a snapshot has to have.
    fn settle(&mut self, ports: &[Port], now: Instant) {
        self.owners.clear();
        for port in ports.iter().filter(|port| port.security.guard) {
            for mac in &port.security.mac {
                self.owners.entry(*mac).or_default().push(port.name.clone());
            }
        }
        self.by_port.clear();
        (self.is_new, self.published_at) = (false, now);
        if self.given.is_empty() {
            return;
        }
        let configs = super::by_name(ports);
        self.given.retain(|place, given| {
            given.ports.retain(|name| {
                let is_its_own = configs.get(name.as_str()).is_some_and(|config| {
                    let security = &config.security;
                    security.guard && security.mac.contains(&given.mac) && config.carries(&place.0)
                });
                let bindings = self.by_port.entry(name.clone()).or_default();
                let is_kept = is_its_own && now < given.until && bindings.len() < LEASES_MAX;
                if is_kept {
                    bindings.push(Binding { place: place.clone(), mac: given.mac, until: given.until });
                }
                is_kept
            });
            !given.ports.is_empty()
        });
    }

    /// Those of one port, as a snapshot has them.
    pub(super) fn of(&self, port: &str, networks: &Ids) -> Vec<Learnt> {
        let learnt = |b: &Binding| {
            let (network, address) = &b.place;
            Some(Learnt { network: NetId(networks.get(network)?), address: *address, until: b.until })
        };
        self.by_port.get(port).into_iter().flatten().filter_map(learnt).collect()
    }

    /// Those of one port, for users.
    fn views(&self, port: &str, now: Instant) -> Vec<response::Lease> {
        let view = |b: &Binding| response::Lease {
            network: b.place.0.clone(),
            mac: b.mac,
            address: b.place.1,
            seconds: (b.until != NEVER).then(|| b.until.since(now).as_secs()),
        };
        self.by_port.get(port).into_iter().flatten().filter(|b| now < b.until).map(view).collect()
    }
}

impl Control {
    /// Takes in a lease, and those that wait behind it.
    pub(super) async fn learn_leases(&mut self, first: Lease) {
        self.note_lease(&first);
        // No more than may have waited, so that a storm of leases keeps nobody else waiting.
        for _ in 0..INBOX {
            let Ok(lease) = self.leases.inbox.try_recv() else { break };
            self.note_lease(&lease);
        }
        self.publish_leases().await;
    }

    fn note_lease(&mut self, lease: &Lease) {
        let Some(network) = self.net_ids.name(lease.network.0) else { return };
        let may_have = |name: &str| {
            let port = self.port_ids.get(name).and_then(|id| self.snapshot.port(PortId(id)));
            port.is_some_and(|p| p.learns() && p.egress_vlan(lease.network) != EgressVlan::NotMember)
        };
        self.leases.note(lease, network, may_have, self.clock.now());
    }

    /// Publishes new leases, unless that was done a moment ago.
    pub(super) async fn publish_leases(&mut self) {
        if self.leases.is_new && self.clock.now().since(self.leases.published_at) >= PACE {
            // Guarded ports have no flows past the workers, so those of others go on.
            self.exchange_snapshot().await;
        }
    }

    /// The next snapshot has all leases that hold.
    pub(super) fn settle_leases(&mut self) {
        self.leases.settle(&self.desired.port, self.clock.now());
    }

    /// The addresses that a port has learnt, if it is to.
    pub(super) fn leases_of(&self, port: &str) -> Vec<response::Lease> {
        let id = self.port_ids.get(port).map(PortId);
        match id.and_then(|id| self.snapshot.port(id)).is_some_and(vswitch_dataplane::Port::learns) {
            true => self.leases.views(port, self.clock.now()),
            false => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use vswitch_api::topology::Security;

    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const NOW: Instant = Instant::from_secs(1000);

    fn port(name: &str, mac: Mac) -> Port {
        let security = Security { mac: vec![mac], guard: true, ..Security::default() };
        Port { access: Some("red".to_owned()), security, ..Port::new(name) }
    }

    /// MAC is behind port a, OTHER behind port b.
    fn leases() -> Leases {
        let mut leases = Leases::new().0;
        leases.settle(&[port("a", MAC), port("b", OTHER)], NOW);
        leases
    }

    /// Whether it is new.
    fn note(leases: &mut Leases, client: Mac, last: u8, seconds: u32, now: Instant) -> bool {
        let address = [10, 0, 0, last].into();
        let lease = Lease { network: NetId(0), client, address, seconds };
        leases.note(&lease, "red", |_| true, now);
        let is_new = leases.is_new;
        leases.settle(&[port("a", MAC), port("b", OTHER)], now);
        is_new
    }

    fn held(leases: &Leases, port: &str, now: Instant) -> Vec<(String, Option<u64>)> {
        leases.views(port, now).into_iter().map(|l| (l.address.to_string(), l.seconds)).collect()
    }

    #[test]
    fn a_lease_holds_until_it_ends_and_is_renewed() {
        let mut leases = leases();
        assert!(note(&mut leases, MAC, 7, 60, NOW));
        assert!(!note(&mut leases, MAC, 7, 60, NOW), "said twice");
        let later = NOW + Duration::from_secs(30);
        assert_eq!(held(&leases, "a", later), [("10.0.0.7".to_owned(), Some(30))]);
        assert!(note(&mut leases, MAC, 7, 60, later));
        assert_eq!(held(&leases, "a", later), [("10.0.0.7".to_owned(), Some(60))]);
        assert_eq!(held(&leases, "a", later + Duration::from_secs(60)), []);
        assert!(note(&mut leases, MAC, 7, FOR_EVER, later));
        assert_eq!(held(&leases, "a", Instant::from_secs(1 << 33)), [("10.0.0.7".to_owned(), None)]);
        assert!(note(&mut leases, MAC, 7, 0, later), "taken back");
        assert_eq!(held(&leases, "a", later), []);
    }

    #[test]
    fn an_address_that_is_given_to_another_is_nobody_elses() {
        let mut leases = leases();
        note(&mut leases, MAC, 7, 60, NOW);
        assert!(note(&mut leases, OTHER, 7, 60, NOW));
        assert_eq!((held(&leases, "a", NOW).len(), held(&leases, "b", NOW).len()), (0, 1));
        assert!(note(&mut leases, Mac([2; 6]), 7, 60, NOW), "to a port that is not guarded");
        assert_eq!((held(&leases, "b", NOW).len(), leases.given.len()), (0, 0));
    }

    #[test]
    fn a_port_has_so_many() {
        let mut leases = leases();
        for n in 0..=LEASES_MAX as u8 {
            note(&mut leases, MAC, n, 100, NOW);
        }
        assert_eq!(held(&leases, "a", NOW).len(), LEASES_MAX);
        assert!(note(&mut leases, MAC, 0, 200, NOW), "what it has is renewed");
        let later = NOW + Duration::from_secs(100);
        leases.settle(&[port("a", MAC)], later);
        assert!(note(&mut leases, MAC, 99, 100, later), "there is room again");
        // All at once, before any of them was published.
        for last in 0..=255 {
            let lease =
                Lease { network: NetId(0), client: MAC, address: [10, 0, 1, last].into(), seconds: 9 };
            leases.note(&lease, "red", |_| true, later);
        }
        leases.settle(&[port("a", MAC)], later);
        assert_eq!((held(&leases, "a", later).len(), leases.given.len()), (LEASES_MAX, LEASES_MAX));
    }

    #[test]
    fn leases_go_with_what_made_them_the_ports() {
        let is_kept = |now, edit: fn(&mut Port)| {
            let mut leases = leases();
            note(&mut leases, MAC, 7, 60, NOW);
            let mut port = port("a", MAC);
            edit(&mut port);
            leases.settle(&[port], now);
            !leases.given.is_empty()
        };
        assert!(is_kept(NOW, |_| {}));
        assert!(!is_kept(NOW + Duration::from_secs(60), |_| {}));
        assert!(!is_kept(NOW, |p| p.name = "b".to_owned()));
        assert!(!is_kept(NOW, |p| p.access = None));
        assert!(!is_kept(NOW, |p| p.security.mac.clear()));
        assert!(!is_kept(NOW, |p| p.security.guard = false));
    }

    #[test]
    fn leases_are_only_of_ports_that_learn() {
        let mut leases = leases();
        let lease = Lease { network: NetId(0), client: MAC, address: [10, 0, 0, 7].into(), seconds: 9 };
        leases.note(&lease, "red", |port| port != "a", NOW);
        assert!(!leases.is_new && leases.given.is_empty());
    }
}
