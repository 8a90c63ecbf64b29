//! The control thread: desired state in, snapshots out.
//!
//! One task owns everything here, so nothing needs a lock. It is told what to do by [`Job`]s (from the HTTP
//! API), by netlink, by workers' events and by one timer. Desired state ([`Topology`]) is the source of truth:
//! a change is checked, its devices are opened, and only then is it published; if a step fails the old state
//! stands. A port whose netdev is missing waits; it is attached when the netdev comes, or comes back.

mod acl;
mod apply;
mod backing;
mod compile;
mod device;
pub mod edit;
mod filters;
mod follow;
mod front_end;
mod health;
mod ids;
mod leases;
mod overlay;
mod own;
mod record;
mod report;
mod ring_records;
mod safety;
mod shortcut;
mod stale;
mod statics;
mod tenant;
#[cfg(test)]
mod tests;
mod trace;
mod tunnels;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use vswitch_api::Topology;
use vswitch_api::response::{ErrorBody, ErrorCode};
use vswitch_api::topology::{self, Port, StaticEntry, Switch};
use vswitch_dataplane::counters::NetworkCounters;
use vswitch_dataplane::fdb::Words;
use vswitch_dataplane::{Fdb, PortId, Snapshot};
use vswitch_io::Pool;
use vswitch_io::shortcut::Shortcut;
use vswitch_wire::Instant;

use crate::clock::Clock;
use crate::netlink::Links;
use crate::worker::{Event, Polling, Setup, Workers};
use backing::Backing;
use device::{Device, Opener};
use filters::Filters;
use front_end::FrontEnds;
use ids::Ids;
use leases::Leases;
use overlay::Overlay;
use own::Own;
use record::PortRecord;
use stale::Stale;
use statics::{Place, StaticEntries};
use tenant::Tenants;

pub use apply::{OnRefusal, Options};
pub use ring_records::RingRecords;

/// FDB entries that there is room for.
const FDB_CAPACITY: usize = 1 << 20;
/// How often the FDB ages a part of itself.
const AGEING_STEP: Duration = Duration::from_millis(100);
/// How often devices are looked at for what netlink does not announce.
const DEVICE_CHECK: Duration = Duration::from_secs(1);

/// One thing for the control task to do.
pub type Job = Box<dyn for<'a> FnOnce(&'a mut Control) -> Pin<Box<dyn Future<Output = ()> + 'a>> + Send>;

/// What no tenant can guess: which MACs fall into the same place of the FDB. The standard library draws its keys
/// from the kernel's random numbers.
fn secret_seed() -> [u64; 2] {
    use std::hash::{BuildHasher, RandomState};
    [RandomState::new().hash_one(0), RandomState::new().hash_one(1)]
}

/// The way to the control task, from anywhere.
#[derive(Clone)]
pub struct Remote(mpsc::Sender<Job>);

impl Remote {
    /// Has `ask` done by the control task.
    ///
    /// # Errors
    /// The daemon is about to end.
    pub async fn ask<T: Send + 'static>(
        &self,
        ask: impl for<'a> FnOnce(&'a mut Control) -> Pin<Box<dyn Future<Output = T> + 'a>> + Send + 'static,
    ) -> Result<T, ErrorBody> {
        let ending = || ErrorBody::new(ErrorCode::Internal, "the daemon is about to end", "");
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |control| {
            let result = ask(control);
            Box::pin(async move {
                let _ = reply.send(result.await); // a client that went away wants no answer
            })
        });
        self.0.send(job).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())
    }
}

fn by_name(ports: &[Port]) -> HashMap<&str, &Port> {
    ports.iter().map(|port| (port.name.as_str(), port)).collect()
}

/// What is static in the FDB: what the user has set, and the switch's own place in its networks.
fn static_entries(topology: &Topology) -> Vec<StaticEntry> {
    topology.fdb.iter().cloned().chain(topology.own_entries()).collect()
}

/// What the control task owns.
pub struct Control {
    clock: Clock,
    opener: Opener,
    cpus: Vec<Option<usize>>,
    workers: Workers,
    links: Links,
    filters: Filters,
    worker_events: mpsc::Receiver<Event>,
    front_ends: FrontEnds,
    /// What the workers were started with.
    started: Switch,
    desired: Topology,
    port_ids: Ids,
    net_ids: Ids,
    tenants: Tenants,
    ports: BTreeMap<String, PortRecord>,
    /// The switch as a station of its networks.
    own: Own,
    /// Devices that were attached since the start.
    attachments: u64,
    networks: BTreeMap<String, Arc<[NetworkCounters]>>,
    overlay: Overlay,
    acls: acl::Filters,
    fdb: Arc<Fdb>,
    /// The way of frames past the workers; `None` where the kernel refuses it.
    shortcut: Option<&'static Shortcut>,
    /// Why it is not used any more.
    shortcut_given_up: Option<String>,
    /// When its flows were last looked at.
    swept_at: Instant,
    /// Entries of the FDB that go when the next snapshot is published.
    stale: Stale,
    statics: StaticEntries,
    leases: Leases,
    /// The published snapshot.
    snapshot: Arc<Snapshot>,
    /// What ports counted that are gone.
    retired: report::Totals,
}

impl Control {
    /// Starts the workers as `switch` has it, with an empty topology. Packed rings of guests do not outlive a killed daemon
    /// without `records`. Needs a tokio runtime.
    ///
    /// # Errors
    /// What the kernel refused.
    pub async fn start(
        switch: &Switch,
        pool: &'static Pool,
        records: Option<RingRecords>,
    ) -> io::Result<Self> {
        let clock = Clock::start();
        let shortcut = switch.shortcut.then(shortcut::open).flatten();
        let words = shortcut.map(|shortcut| Box::new(shortcut.generations()) as Words);
        let fdb = Arc::new(Fdb::with_seed(FDB_CAPACITY, secret_seed(), words));
        let snapshot = Arc::new(Snapshot::new(Vec::new(), Vec::new(), Arc::clone(&fdb)));
        let (events, worker_events) = mpsc::channel(topology::PORTS_MAX * switch.cpus.len().max(1));
        let cpus = match switch.cpus.as_slice() {
            [] => vec![None],
            cpus => cpus.iter().map(|&c| Some(c as usize)).collect(),
        };
        let polling = match switch.polling {
            topology::Polling::Adaptive => Polling::Adaptive,
            topology::Polling::Busy => Polling::Busy,
        };
        let (leases, told) = Leases::new();
        let setup = Setup { cpus: cpus.clone(), polling, pool, shortcut, clock, events, leases: told };
        let workers = Workers::start(&setup, Arc::clone(&snapshot))?;
        let mut port_ids = Ids::default();
        let own = Own::new(&mut port_ids);
        Ok(Self {
            clock,
            opener: Opener { pool, workers: workers.count(), shortcut, records },
            cpus,
            workers,
            links: Links::open(clock).await?,
            filters: Filters::new(shortcut),
            worker_events,
            front_ends: FrontEnds::default(),
            started: switch.clone(),
            acls: acl::Filters::default(),
            desired: Topology { switch: switch.clone(), ..Topology::default() },
            port_ids,
            net_ids: Ids::default(),
            tenants: Tenants::default(),
            ports: BTreeMap::new(),
            own,
            attachments: 0,
            networks: BTreeMap::new(),
            overlay: Overlay::new(secret_seed()),
            fdb,
            shortcut,
            shortcut_given_up: None,
            swept_at: clock.now(),
            stale: Stale::default(),
            statics: StaticEntries::default(),
            leases,
            snapshot,
            retired: report::Totals::default(),
        })
    }

    /// The running configuration.
    pub fn desired(&self) -> &Topology {
        &self.desired
    }

    /// A way to this task, and the jobs that come by it, for [`Control::run`].
    pub fn remote() -> (Remote, mpsc::Receiver<Job>) {
        let (jobs, inbox) = mpsc::channel(64);
        (Remote(jobs), inbox)
    }

    /// Works until `end` is done, then detaches every port.
    ///
    /// # Errors
    /// The links can no longer be followed.
    pub async fn run(
        mut self,
        mut jobs: mpsc::Receiver<Job>,
        end: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let mut ageing = tokio::time::interval(AGEING_STEP);
        ageing.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut devices = tokio::time::interval(DEVICE_CHECK);
        devices.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(end);
        let ended = loop {
            tokio::select! {
                () = &mut end => break Ok(()),
                Some(job) = jobs.recv() => job(&mut self).await,
                Some(event) = self.worker_events.recv() => self.on_worker_event(event).await,
                () = self.own.hosts.ready(self.clock) => {
                    self.own.hosts.work(self.clock.now());
                    self.follow_next_hops().await;
                }
                Some(lease) = self.leases.next() => self.learn_leases(lease).await,
                Some(news) = self.front_ends.next() => self.follow_front_ends(news).await,
                changed = self.links.changed() => {
                    let caught_up = match changed {
                        Ok(()) => self.links.catch_up().await,
                        failed => failed,
                    };
                    if let Err(error) = caught_up {
                        break Err(error);
                    }
                    self.follow_links().await;
                }
                _ = ageing.tick() => {
                    self.sweep_flows(); // first: who is in use does not age
                    self.fdb.age(&self.snapshot, self.clock.now());
                    self.follow_next_hops().await;
                    self.publish_leases().await;
                }
                _ = devices.tick() => {
                    self.check_devices().await;
                    self.retry_static_entries();
                    self.age_guests().await;
                }
            }
        };
        self.detach_all().await;
        self.forget_records();
        ended
    }

    /// The next daemon is not to know of guests that had a port only once. (As long as this one runs their port may come
    /// back, and they with it.)
    fn forget_records(&self) {
        let Some(records) = &self.opener.records else { return };
        let backings: Vec<Backing> = self.desired.port.iter().map(Backing::of).collect();
        records.keep(backings.iter().filter_map(Backing::socket));
    }

    /// The device of a port, when it is attached.
    fn device(&self, port: &str) -> Option<&Device> {
        self.ports.get(port)?.device()
    }

    /// Compiles the desired state anew, publishes it, and waits until no worker uses an older one. Then nothing learns
    /// the stale entries of the FDB again, and they go. Meanwhile no frame passes by the shortcut.
    async fn publish(&mut self) {
        self.pause_shortcut();
        self.exchange_snapshot().await;
        self.resume_shortcut();
    }

    /// The same, where only links or MTUs of these ports have changed: flows between others go on passing.
    async fn publish_links(&mut self, ports: &[PortId]) {
        self.end_flows(ports);
        self.exchange_snapshot().await;
        // Those that a worker found by the old snapshot.
        self.end_flows(ports);
    }

    async fn exchange_snapshot(&mut self) {
        let uplink = self.uplink();
        self.place_vtep(uplink.as_ref());
        self.settle_leases();
        let ports = self.desired.port.iter().filter_map(|config| {
            let record = self.ports.get(&config.name)?;
            let device =
                record.device().map(|d| compile::DeviceInput { facts: &d.facts, up: d.up, mtu: d.mtu });
            let id = self.port_ids.get(&config.name)?;
            let shortcut_ifindex = self.shortcut_ifindex(id, record);
            let counters = Arc::clone(&record.counters);
            let learnt = self.leases.of(&config.name, &self.net_ids);
            Some((id, compile::PortInput { config, counters, device, shortcut_ifindex, learnt }))
        });
        let count = self.workers.count();
        let counters =
            |name: &str| self.networks.get(name).map_or_else(|| compile::counters(count), Arc::clone);
        let parts = compile::Parts {
            own: self.own.compiled(&self.desired, &self.net_ids),
            port_ids: &self.port_ids,
            net_ids: &self.net_ids,
            acls: &self.acls,
            tenants: &self.tenants,
            tunnels: uplink.as_ref().map(|uplink| (&self.overlay, uplink)),
        };
        let snapshot = compile::snapshot(&self.desired, ports, parts, counters, &self.fdb);
        self.fdb.assign(&snapshot);
        self.snapshot = Arc::new(snapshot);
        let old = self.workers.publish(Arc::clone(&self.snapshot));
        self.workers.settle().await;
        drop(old); // freed here, not by a worker
        self.stale.flush(&self.fdb);
        self.settle_vtep(uplink.as_ref());
    }

    /// The user's, and the switch's own.
    fn set_static_entries(&mut self, old: &Topology) {
        let (old, new) = (static_entries(old), static_entries(&self.desired));
        let place =
            Place { fdb: &self.fdb, ports: &self.port_ids, networks: &self.net_ids, now: self.clock.now() };
        self.statics.replace(&old, &new, place);
    }

    fn retry_static_entries(&mut self) {
        let place =
            Place { fdb: &self.fdb, ports: &self.port_ids, networks: &self.net_ids, now: self.clock.now() };
        self.statics.retry(|| static_entries(&self.desired), place);
    }
}
