//! `apply`: one transaction. Check, open every new device, publish; or refuse, and nothing has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use vswitch_api::Topology;
use vswitch_api::request::{ApplyQuery, FdbKey, ForceQuery};
use vswitch_api::response::{Changes, ErrorBody, ErrorCode};
use vswitch_api::topology::{self, Port};
use vswitch_dataplane::NetId;
use vswitch_io::tap;

use super::backing::Backing;
use super::device::{self, Closing, Fresh, NotOpened};
use super::edit;
use super::overlay;
use super::record::PortRecord;
use super::{Control, acl, by_name, compile, safety};

/// What the kernel gives a new tap (`ETH_DATA_LEN`), in bytes.
const USUAL_MTU: u32 = 1500;

/// What a transaction may do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Says what would change, and changes nothing.
    pub dry_run: bool,
    /// Takes even the netdev by which the host is reached.
    pub force: bool,
    /// Where the caller's session comes from.
    pub peer: Option<IpAddr>,
    /// What becomes of a port whose netdev is there and cannot be had.
    pub on_refusal: OnRefusal,
}

/// What becomes of a transaction when a port's netdev is there and cannot be had: it belongs to a bridge, the host is
/// reached by it, the kernel refuses it. One that is missing never fails a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRefusal {
    /// Nothing is changed, and whoever asked is told why: a command.
    #[default]
    Fail,
    /// The port waits, with its reason, and all others run: a file that the daemon has from its start. Nobody is
    /// there to be asked, and a host with one port too few is better than one with none.
    Wait,
}

impl From<&ApplyQuery> for Options {
    fn from(q: &ApplyQuery) -> Self {
        Self { dry_run: q.dry_run, force: q.force, peer: q.session, ..Self::default() }
    }
}

impl From<&ForceQuery> for Options {
    fn from(q: &ForceQuery) -> Self {
        Self { force: q.force, peer: q.session, ..Self::default() }
    }
}

/// What the protection of the operator says of a change.
#[derive(Default)]
struct Guarded {
    /// Ports that take a protected netdev, as the caller says.
    forced: BTreeSet<String>,
    /// Ports that have to wait, and why.
    waiting: BTreeMap<String, String>,
}

/// A port of the new topology that needs a device it does not have.
struct Prepared<'a> {
    config: &'a Port,
    /// `Err`: it waits, and why.
    device: Result<Fresh, NotOpened>,
}

/// Closes what was opened for a change that does not take place.
fn close(prepared: Vec<Prepared<'_>>) {
    device::close(prepared.into_iter().filter_map(|p| p.device.ok()).map(Closing::from));
}

impl Control {
    /// Makes `next` the running configuration.
    ///
    /// # Errors
    /// Why it cannot be; nothing has changed then.
    pub async fn apply(&mut self, next: Topology, options: Options) -> Result<Changes, ErrorBody> {
        let result = self.transact(next, options).await;
        self.release_filters();
        result
    }

    async fn transact(&mut self, next: Topology, options: Options) -> Result<Changes, ErrorBody> {
        let changes = self.diff(&next)?;
        let acls = self.acls.compile(&next, self.workers.count())?;
        // A netdev made just before the command counts, whether its event has been read or not.
        let unread = |e| ErrorBody::new(ErrorCode::Failed, format!("cannot read the links: {e}"), "");
        if self.links.resync().await.map_err(unread)? {
            self.follow_links().await;
        }
        let fresh: Vec<&Port> =
            next.port.iter().filter(|p| !self.keeps_device(p, options.on_refusal)).collect();
        let guarded = self.guard(&fresh, options).await?;
        if options.dry_run || (changes.changes.is_empty() && guarded.forced.is_empty()) {
            return Ok(changes);
        }
        if options.on_refusal == OnRefusal::Fail {
            self.check_kept_devices(&next)?;
        }
        self.own.prepare(&next, self.opener.pool, self.workers.count())?;
        let in_the_way = self.in_the_way(&fresh);
        let held: BTreeSet<Backing> =
            self.ports.values().filter_map(PortRecord::device).map(|d| d.backing.clone()).collect();
        let (taken, free): (Vec<&Port>, Vec<&Port>) =
            fresh.into_iter().partition(|port| held.contains(&Backing::of(port)));
        // First what disturbs nobody, should it be refused.
        let mut prepared = self.prepare(&free, &guarded, options.on_refusal)?;
        self.detach(&in_the_way, "its device is given to another port").await;
        match self.prepare(&taken, &guarded, options.on_refusal) {
            Ok(others) => {
                prepared.extend(others);
                self.commit(next.clone(), prepared, &guarded, acls).await;
                Ok(changes)
            }
            Err(error) => {
                close(prepared);
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
            return Err(ErrorBody::mistakes(problems));
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
        let network = self.net_ids.get(&key.network).ok_or_else(|| ErrorBody::no_network(&key.network))?;
        if self.desired.own_entries().any(|own| own.network == key.network && own.mac == key.mac) {
            let message = format!("{} is the switch's own in network {:?}", key.mac, key.network);
            let mend = "it goes with the network's last address";
            return Err(ErrorBody::new(ErrorCode::Conflict, message, mend));
        }
        if self.fdb.remove(NetId(network), key.mac) {
            return Ok(Changes::default());
        }
        let message = format!("{} is not in the FDB of network {:?}", key.mac, key.network);
        Err(ErrorBody::new(ErrorCode::NotFound, message, "`vswitchctl fdb list` shows all"))
    }

    fn refuse_what_needs_a_restart(&self, next: &Topology) -> Result<(), ErrorBody> {
        let (old, new) = (&self.started, &next.switch);
        if (&old.cpus, old.polling, old.shortcut) == (&new.cpus, new.polling, new.shortcut) {
            return Ok(());
        }
        let mend = "start the daemon anew with this file, or leave these keys of [switch] as they are";
        Err(ErrorBody::new(
            ErrorCode::Conflict,
            "[switch] cpus, polling and shortcut are fixed while the daemon runs",
            mend,
        ))
    }

    /// A port of that name is attached, and the change does not concern its device. Where a refused port waits, one
    /// whose device cannot do what is wanted now is such a port.
    fn keeps_device(&self, next: &Port, on_refusal: OnRefusal) -> bool {
        self.wants_same_device(next)
            && self.device(&next.name).is_some_and(|attached| {
                on_refusal == OnRefusal::Fail || device::check(next, &attached.facts).is_ok()
            })
    }

    /// The running configuration has a port of that name, and for the same device.
    fn wants_same_device(&self, next: &Port) -> bool {
        self.ports.get(&next.name).is_some_and(|record| record.is_for_device_of(next))
    }

    /// Protects the netdevs by which the operator reaches the host. A port that waited for one before the change
    /// goes on waiting; any other refuses the change, unless the caller forces it or lets such ports wait.
    async fn guard(&self, fresh: &[&Port], options: Options) -> Result<Guarded, ErrorBody> {
        let mut guarded = Guarded::default();
        for port in fresh {
            let is_known = self.wants_same_device(port);
            let was_forced = is_known && self.ports.get(&port.name).is_some_and(|r| r.forced);
            let Err(danger) = safety::check(&self.links, port, was_forced, options.peer).await else {
                continue;
            };
            if options.force {
                guarded.forced.insert(port.name.clone());
            } else if is_known || options.on_refusal == OnRefusal::Wait {
                guarded.waiting.insert(port.name.clone(), danger.reason());
            } else {
                return Err(danger.refusal());
            }
        }
        Ok(guarded)
    }

    /// What a port that keeps its device wants of it now.
    fn check_kept_devices(&self, next: &Topology) -> Result<(), ErrorBody> {
        for port in next.port.iter().filter(|p| self.wants_same_device(p)) {
            let Some(attached) = self.device(&port.name) else { continue };
            device::check(port, &attached.facts).map_err(|why| {
                ErrorBody::new(ErrorCode::Failed, format!("port {:?}: {why}", port.name), "")
            })?;
        }
        Ok(())
    }

    /// Attached ports whose netdev or socket one of the `fresh` ones is to have.
    fn in_the_way(&self, fresh: &[&Port]) -> Vec<String> {
        let wanted: BTreeSet<Backing> = fresh.iter().map(|p| Backing::of(p)).collect();
        let has = |r: &PortRecord| r.device().is_some_and(|d| wanted.contains(&d.backing));
        self.ports.iter().filter(|(_, record)| has(record)).map(|(name, _)| name.clone()).collect()
    }

    /// Opens what can be opened. A netdev that is missing is a port that waits; one that is refused fails
    /// the transaction, unless the port was waiting for it before, or such ports are to wait.
    fn prepare<'a>(
        &self,
        fresh: &[&'a Port],
        guarded: &Guarded,
        on_refusal: OnRefusal,
    ) -> Result<Vec<Prepared<'a>>, ErrorBody> {
        let (waiting, free): (Vec<&Port>, Vec<&Port>) =
            fresh.iter().partition(|config| guarded.waiting.contains_key(&config.name));
        let why = |config: &Port| guarded.waiting.get(&config.name).cloned().unwrap_or_default();
        let mut prepared: Vec<_> = (waiting.into_iter())
            .map(|config| Prepared { config, device: Err(NotOpened::Refused(why(config))) })
            .collect();
        let opened = self.opener.open(&free, self.links.table(), &self.filters);
        prepared.extend(free.into_iter().zip(opened).map(|(config, device)| Prepared { config, device }));
        let refusal = prepared.iter().find_map(|p| match &p.device {
            Err(NotOpened::Refused(why)) if !self.wants_same_device(p.config) => {
                Some(format!("port {:?}: {why}", p.config.name))
            }
            _ => None,
        });
        match refusal {
            Some(message) if on_refusal == OnRefusal::Fail => {
                close(prepared);
                Err(ErrorBody::new(ErrorCode::Failed, message, "nothing was changed"))
            }
            _ => Ok(prepared),
        }
    }

    /// Gives the ports that had to stand aside their devices back.
    async fn restore(&mut self, names: &[String]) {
        let running = by_name(&self.desired.port);
        let configs: Vec<Port> =
            names.iter().filter_map(|name| running.get(name.as_str())).map(|&port| port.clone()).collect();
        if !self.try_attach(&configs.iter().collect::<Vec<_>>()).await {
            self.publish().await;
        }
        for port in names.iter().filter(|name| self.device(name).is_none()) {
            tracing::error!(port, "the port could not be attached again after a failed change");
        }
    }

    /// From here on nothing can fail.
    async fn commit(
        &mut self,
        next: Topology,
        prepared: Vec<Prepared<'_>>,
        guarded: &Guarded,
        acls: acl::Compiled,
    ) {
        let gone = self.detach_deleted(&next).await;
        let old = std::mem::replace(&mut self.desired, next.clone());
        self.add_records(&next, guarded);
        let has_vids = self.own.take_vids(&next);
        let replaced = self.acls.replace(&next, acls);
        self.stale.on_change(&old, &next, &self.port_ids, &self.net_ids);
        self.overlay.on_change(&mut self.stale, &next, &self.port_ids, &self.net_ids);
        self.mark_underlay(&old, &next);
        // A port that changes its device has the old one still, unless it was in the way of another.
        let changed: Vec<String> = prepared.iter().map(|p| p.config.name.clone()).collect();
        self.detach(&changed, "its device changes").await;
        let mut queues = Vec::with_capacity(prepared.len());
        for Prepared { config, device } in prepared {
            match device {
                Ok(fresh) => queues.extend(self.adopt(config, fresh)),
                Err(not_opened) => self.let_wait(&config.name, not_opened),
            }
        }
        self.publish().await;
        self.acls.carry_over(replaced);
        self.forget(&gone, &old);
        self.serve(queues).await;
        self.settle_own_port().await;
        if !has_vids {
            self.publish().await; // with those that others have given up
        }
        self.set_static_entries(&old);
        self.set_tap_mtus(&old);
    }

    /// A port of the new configuration begins to wait. That its netdev is missing is no fault; that netdev or socket is
    /// refused is.
    fn let_wait(&mut self, name: &str, not_opened: NotOpened) {
        let is_refused = matches!(not_opened, NotOpened::Refused(_));
        let why = not_opened.into_text();
        if is_refused && self.waits_for(name) != Some(&why) {
            tracing::warn!(port = name, why, "the netdev or socket is refused");
        }
        self.set_waiting(name, why);
    }

    /// A tap's netdev is the switch's, so it gets the MTU that the port is given. One that is in another namespace is
    /// its owner's to change; the port keeps to its own MTU either way. Without an MTU of its own it has the usual
    /// one again.
    fn set_tap_mtus(&self, old: &Topology) {
        let before = by_name(&old.port);
        for port in self.desired.port.iter().filter(|p| p.kind == topology::Kind::Tap) {
            let Some(attached) = self.device(&port.name) else { continue };
            let mtu = port.mtu.unwrap_or(USUAL_MTU);
            let is_new = before.get(port.name.as_str()).is_some_and(|before| before.mtu != port.mtu);
            if is_new
                && !attached.elsewhere
                && let Some(netdev) = attached.backing.netdev()
                && let Err(error) = tap::set_mtu(netdev, mtu)
            {
                tracing::warn!(port = port.name, mtu, %error, "cannot set the tap's MTU");
            }
        }
    }

    /// Detaches ports that `next` has not; they stay in the snapshot until the next one is published.
    async fn detach_deleted(&mut self, next: &Topology) -> Vec<String> {
        let kept = by_name(&next.port);
        let gone: Vec<String> =
            self.ports.keys().filter(|name| !kept.contains_key(name.as_str())).cloned().collect();
        self.detach(&gone, "the port is deleted").await;
        gone
    }

    fn add_records(&mut self, next: &Topology, guarded: &Guarded) {
        let workers = self.workers.count();
        self.tenants.acquire(next);
        let hidden = next.underlay.as_ref().map(|_| overlay::NETWORK);
        for network in next.network.iter().map(|n| n.name.as_str()).chain(hidden) {
            let id = self.net_ids.acquire(network);
            if !self.networks.contains_key(network) {
                self.count_network_anew(id);
                self.networks.insert(network.to_owned(), compile::counters(workers));
            }
        }
        self.overlay.add_peers(next, &mut self.port_ids, &self.net_ids, workers);
        for port in &next.port {
            let id = self.port_ids.acquire(&port.name);
            if !self.ports.contains_key(&port.name) {
                self.count_port_anew(id);
            }
            let new = || PortRecord::new(port, compile::counters(workers));
            let record = self.ports.entry(port.name.clone()).or_insert_with(new);
            record.want_device_of(port);
            record.forced |= guarded.forced.contains(&port.name);
            record.protected = guarded.waiting.contains_key(&port.name);
        }
    }

    /// Frees the numbers of what no worker knows any more.
    fn forget(&mut self, ports: &[String], old: &Topology) {
        for name in ports {
            let passed = self.passed_by_port(name);
            if let Some(record) = self.ports.remove(name) {
                self.retired.add_port(&record.counters, passed);
            }
            self.port_ids.release(name);
        }
        self.overlay.forget_peers(&mut self.port_ids, &mut self.retired);
        let kept: BTreeSet<&str> = self.desired.network.iter().map(|n| n.name.as_str()).collect();
        let gone = old.network.iter().map(|n| n.name.as_str()).filter(|name| !kept.contains(name));
        let has_none = old.underlay.is_some() && self.desired.underlay.is_none();
        for network in gone.chain(has_none.then_some(overlay::NETWORK)) {
            self.net_ids.release(network);
            self.networks.remove(network);
        }
        self.tenants.release(old, &self.desired);
    }
}
