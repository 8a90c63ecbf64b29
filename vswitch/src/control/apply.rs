//! `apply`: one transaction. Check, open every new device, publish; or refuse, and nothing has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use vswitch_api::Topology;
use vswitch_api::request::{ApplyQuery, FdbKey, ForceQuery};
use vswitch_api::response::{Changes, ErrorBody, ErrorCode};
use vswitch_api::topology::{self, Port};
use vswitch_dataplane::fdb::Filter;
use vswitch_dataplane::{NetId, PortId};
use vswitch_io::{Opened, tap};
use vswitch_wire::Instant;

use super::device::{self, Closing, NotOpened};
use super::edit::{self, refuse};
use super::{Control, PortRecord, PortState, compile, safety};

/// What a transaction may do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Says what would change, and changes nothing.
    pub dry_run: bool,
    /// Takes even the netdev by which the host is reached.
    pub force: bool,
    /// Where the caller's session comes from.
    pub peer: Option<IpAddr>,
}

impl From<&ApplyQuery> for Options {
    fn from(q: &ApplyQuery) -> Self {
        Self { dry_run: q.dry_run, force: q.force, peer: q.session }
    }
}

impl From<&ForceQuery> for Options {
    fn from(q: &ForceQuery) -> Self {
        Self { dry_run: false, force: q.force, peer: q.session }
    }
}

/// What the protection of the operator says of a change.
#[derive(Default)]
struct Guarded {
    /// Ports that take a protected netdev, as the caller wants it.
    forced: BTreeSet<String>,
    /// Ports that have to wait, and why.
    waiting: BTreeMap<String, String>,
}

/// A port of the new topology that needs a device it does not have.
struct Prepared<'a> {
    config: &'a Port,
    /// `Err`: it waits, and why.
    device: Result<Opened, String>,
}

impl Control {
    /// Makes `next` the running configuration.
    ///
    /// # Errors
    /// Why it cannot be; nothing has changed then.
    pub async fn apply(&mut self, next: Topology, options: Options) -> Result<Changes, ErrorBody> {
        let changes = self.diff(&next)?;
        // A netdev made just before the command counts, whether its event has been read or not.
        let unread = |e| refuse(ErrorCode::Failed, format!("cannot read the links: {e}"), "");
        if self.links.resync().await.map_err(unread)? {
            self.follow_links().await;
        }
        let fresh: Vec<&Port> = next.port.iter().filter(|p| !self.keeps_device(p)).collect();
        let guarded = self.guard(&fresh, options).await?;
        if options.dry_run || (changes.changes.is_empty() && guarded.forced.is_empty()) {
            return Ok(changes);
        }
        self.check_kept_devices(&next)?;
        let in_the_way = self.in_the_way(&fresh);
        self.detach(&in_the_way, "its device is given to another port").await;
        match self.prepare(&fresh, &guarded) {
            Ok(prepared) => {
                self.commit(next.clone(), prepared, &guarded.forced).await;
                Ok(changes)
            }
            Err(error) => {
                self.restore(&in_the_way).await;
                Err(error)
            }
        }
    }

    /// What `apply` of `next` would change.
    ///
    /// # Errors
    /// The topology has mistakes, or cannot be applied to a running daemon.
    pub fn diff(&self, next: &Topology) -> Result<Changes, ErrorBody> {
        let problems = topology::check(next);
        if !problems.is_empty() {
            return Err(edit::mistakes(problems));
        }
        self.refuse_what_needs_a_restart(next)?;
        Ok(Changes { changes: topology::diff(&self.desired, next) })
    }

    /// `fdb del`: a static entry leaves the configuration too.
    ///
    /// # Errors
    /// There is no such network or entry.
    pub async fn del_fdb(&mut self, key: &FdbKey) -> Result<Changes, ErrorBody> {
        if let Some(next) = edit::del_fdb(self.desired.clone(), key) {
            return self.apply(next, Options::default()).await;
        }
        let network = self.net_ids.get(&key.network).ok_or_else(|| edit::no_network(&key.network))?;
        if self.fdb.remove(NetId(network), key.mac) {
            return Ok(Changes::default());
        }
        let message = format!("{} is not in the FDB of network {:?}", key.mac, key.network);
        Err(refuse(ErrorCode::NotFound, message, "`vswitchctl fdb list` shows all"))
    }

    fn refuse_what_needs_a_restart(&self, next: &Topology) -> Result<(), ErrorBody> {
        let (old, new) = (&self.started, &next.switch);
        if (&old.cpus, old.polling) == (&new.cpus, new.polling) {
            return Ok(());
        }
        let mend = "start the daemon anew with this file, or leave [switch] cpus and polling as they are";
        Err(refuse(ErrorCode::Conflict, "[switch] cpus and polling are fixed while the daemon runs", mend))
    }

    /// A port of that name is attached, and the change does not concern its device.
    fn keeps_device(&self, next: &Port) -> bool {
        self.is_attached(&next.name) && self.wants_same_device(next)
    }

    /// The running configuration has a port of that name, and for the same device.
    fn wants_same_device(&self, next: &Port) -> bool {
        let is_it =
            |old: &Port| (&old.name, old.kind, old.netdev()) == (&next.name, next.kind, next.netdev());
        self.desired.port.iter().any(is_it)
    }

    /// Protects the netdevs by which the operator reaches the host. A port that waited for one before the change
    /// goes on waiting; any other refuses the change, unless the caller forces it.
    async fn guard(&self, fresh: &[&Port], options: Options) -> Result<Guarded, ErrorBody> {
        let mut guarded = Guarded::default();
        for port in fresh {
            let was_forced = self.ports.get(&port.name).is_some_and(|r| r.forced);
            let Err(refusal) = safety::check(&self.links, port, was_forced, options.peer).await else {
                continue;
            };
            if options.force {
                guarded.forced.insert(port.name.clone());
            } else if self.wants_same_device(port) {
                guarded.waiting.insert(port.name.clone(), refusal.message);
            } else {
                return Err(refusal);
            }
        }
        Ok(guarded)
    }

    /// What a port that keeps its device wants of it now.
    fn check_kept_devices(&self, next: &Topology) -> Result<(), ErrorBody> {
        for port in next.port.iter().filter(|p| self.keeps_device(p)) {
            let Some(PortState::Attached(device)) = self.ports.get(&port.name).map(|r| &r.state) else {
                continue;
            };
            device::check(port, &device.facts)
                .map_err(|why| refuse(ErrorCode::Failed, format!("port {:?}: {why}", port.name), ""))?;
        }
        Ok(())
    }

    /// Attached ports whose netdev one of the `fresh` ones is to have.
    fn in_the_way(&self, fresh: &[&Port]) -> Vec<String> {
        let wanted: BTreeSet<&str> = fresh.iter().map(|p| p.netdev()).collect();
        let has =
            |r: &PortRecord| matches!(&r.state, PortState::Attached(d) if wanted.contains(d.netdev.as_str()));
        self.ports.iter().filter(|(_, record)| has(record)).map(|(name, _)| name.clone()).collect()
    }

    /// Opens what can be opened. A netdev that is missing is a port that waits; one that is refused fails
    /// the transaction, unless the port was waiting for it before.
    fn prepare<'a>(&self, fresh: &[&'a Port], guarded: &Guarded) -> Result<Vec<Prepared<'a>>, ErrorBody> {
        let (waiting, free): (Vec<&Port>, Vec<&Port>) =
            fresh.iter().partition(|config| guarded.waiting.contains_key(&config.name));
        let why = |config: &Port| guarded.waiting.get(&config.name).cloned().unwrap_or_default();
        let mut prepared: Vec<_> =
            waiting.into_iter().map(|config| Prepared { config, device: Err(why(config)) }).collect();
        let mut refusal = None;
        for (config, opened) in free.iter().zip(self.opener.open(&free, &self.links)) {
            let device = match opened {
                Ok(opened) => Ok(opened),
                Err(NotOpened::Missing(why)) => Err(why),
                Err(NotOpened::Refused(why)) if self.wants_same_device(config) => Err(why),
                Err(NotOpened::Refused(why)) => {
                    refusal.get_or_insert_with(|| format!("port {:?}: {why}", config.name));
                    continue;
                }
            };
            prepared.push(Prepared { config, device });
        }
        let Some(message) = refusal else { return Ok(prepared) };
        device::close(prepared.into_iter().filter_map(|p| p.device.ok()).map(Closing::from));
        Err(refuse(ErrorCode::Failed, message, "nothing was changed"))
    }

    /// Gives the ports that had to stand aside their devices back.
    async fn restore(&mut self, names: &[String]) {
        let configs: Vec<Port> =
            self.desired.port.iter().filter(|p| names.contains(&p.name)).cloned().collect();
        if !self.try_attach(&configs).await {
            self.publish().await;
        }
        for port in names.iter().filter(|name| !self.is_attached(name)) {
            tracing::error!(port, "the port could not be attached again after a failed change");
        }
    }

    /// From here on nothing can fail.
    async fn commit(&mut self, next: Topology, prepared: Vec<Prepared<'_>>, forced: &BTreeSet<String>) {
        let gone = self.remove_ports(&next).await;
        let old = std::mem::replace(&mut self.desired, next.clone());
        self.add_records(&next, forced);
        // A port that changes its device has the old one still, unless it was in the way of another.
        let changed: Vec<String> = prepared.iter().map(|p| p.config.name.clone()).collect();
        self.detach(&changed, "its device changes").await;
        let mut queues = Vec::with_capacity(prepared.len());
        for Prepared { config, device } in prepared {
            match device {
                Ok(opened) => queues.extend(self.adopt(config, opened)),
                Err(why) => self.set_waiting(&config.name, why),
            }
        }
        self.publish().await;
        self.forget(&gone, &old);
        self.serve(queues).await;
        self.set_static_entries(&old);
        self.set_tap_mtus(&old);
    }

    /// A tap's netdev is the switch's, so it gets the MTU that the port is given. One that is in another namespace is
    /// its owner's to change; the port keeps to its own MTU either way.
    fn set_tap_mtus(&self, old: &Topology) {
        for port in self.desired.port.iter().filter(|p| p.kind == topology::Kind::Tap) {
            let Some(mtu) = port.mtu else { continue };
            let is_new = old.port.iter().any(|before| before.name == port.name && before.mtu != port.mtu);
            let Some(PortState::Attached(device)) = self.ports.get(&port.name).map(|r| &r.state) else {
                continue;
            };
            if is_new
                && !device.elsewhere
                && let Err(error) = tap::set_mtu(&device.netdev, mtu)
            {
                tracing::warn!(port = port.name, mtu, %error, "cannot set the tap's MTU");
            }
        }
    }

    /// Detaches ports that `next` has not; they stay in the snapshot until the next one is published.
    async fn remove_ports(&mut self, next: &Topology) -> Vec<String> {
        let gone: Vec<String> =
            self.ports.keys().filter(|name| next.port.iter().all(|p| p.name != **name)).cloned().collect();
        self.detach(&gone, "the port is deleted").await;
        gone
    }

    fn add_records(&mut self, next: &Topology, forced: &BTreeSet<String>) {
        let workers = self.workers.count();
        for network in &next.network {
            self.net_ids.acquire(&network.name);
            self.networks.entry(network.name.clone()).or_insert_with(|| compile::counters(workers));
        }
        for port in &next.port {
            self.port_ids.acquire(&port.name);
            let record = self.ports.entry(port.name.clone()).or_insert_with(|| PortRecord {
                counters: compile::counters(workers),
                forced: false,
                refusals: 0,
                retry_at: Instant::ZERO,
                state: PortState::Waiting("is about to be attached".to_owned()),
            });
            record.forced |= forced.contains(&port.name);
        }
    }

    /// Frees the numbers of what no worker knows any more, and takes its FDB entries out.
    fn forget(&mut self, ports: &[String], old: &Topology) {
        for name in ports {
            if let Some(record) = self.ports.remove(name) {
                self.retired.add_all(&record.counters);
            }
            if let Some(id) = self.port_ids.get(name) {
                self.fdb.flush(Filter { port: Some(PortId(id)), network: None, statics: true });
                self.port_ids.release(name);
            }
        }
        for network in &old.network {
            if self.desired.network.iter().any(|n| n.name == network.name) {
                continue;
            }
            if let Some(id) = self.net_ids.get(&network.name) {
                self.fdb.flush(Filter { network: Some(NetId(id)), port: None, statics: true });
                self.net_ids.release(&network.name);
            }
            self.networks.remove(&network.name);
        }
        self.flush_left_memberships(old);
    }

    /// Learnt entries of networks that a port does not carry any more.
    fn flush_left_memberships(&self, old: &Topology) {
        for port in &self.desired.port {
            let Some(before) = old.port.iter().find(|p| p.name == port.name) else { continue };
            let left = old.network.iter().map(|n| &n.name).filter(|n| before.carries(n) && !port.carries(n));
            for name in left {
                if let (Some(p), Some(n)) = (self.port_ids.get(&port.name), self.net_ids.get(name)) {
                    self.fdb.flush(Filter { port: Some(PortId(p)), network: Some(NetId(n)), statics: false });
                }
            }
        }
    }

    fn set_static_entries(&self, old: &Topology) {
        let network = |name: &str| self.net_ids.get(name).map(NetId);
        for entry in old.fdb.iter().filter(|e| !self.desired.fdb.contains(e)) {
            if let Some(network) = network(&entry.network) {
                self.fdb.remove(network, entry.mac);
            }
        }
        for entry in &self.desired.fdb {
            let (Some(network), Some(port)) = (network(&entry.network), self.port_ids.get(&entry.port))
            else {
                continue;
            };
            if self.fdb.add_static(network, entry.mac, PortId(port), self.clock.now()).is_err() {
                tracing::error!(mac = %entry.mac, network = entry.network, "no room in the FDB for a static entry");
            }
        }
    }
}
