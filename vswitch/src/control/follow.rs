//! Following the world: netdevs that come, go and change, and devices that fail under the workers.

use std::time::Duration;

use vswitch_api::topology::{Kind, Port};
use vswitch_dataplane::PortId;
use vswitch_dataplane::fdb::Filter;
use vswitch_io::{Opened, RxQueue, TxQueue};
use vswitch_wire::Instant;

use super::device::{self, Closing, Device, NotOpened};
use super::{Control, PortRecord, PortState, safety};
use crate::worker::Event;

/// How long a netdev that was refused is left alone: the first time, and at most.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Queues of a port that no worker has yet.
pub(super) struct NewQueues {
    port: PortId,
    attachment: u64,
    rx: Vec<Box<dyn RxQueue>>,
    tx: Vec<Box<dyn TxQueue>>,
}

/// What became of a port's link.
enum Followed {
    Same,
    /// The snapshot has to be made anew.
    Changed,
    /// The port's netdev is there no more.
    Gone,
}

impl Control {
    /// Brings every port in line with the links as they are now.
    pub(super) async fn follow_links(&mut self) {
        let configs = self.desired.port.clone();
        let were_up: Vec<&str> =
            configs.iter().map(|c| c.name.as_str()).filter(|name| self.is_up(name)).collect();
        let mut changed = false;
        let mut gone = Vec::new();
        for config in &configs {
            match self.follow_link(config) {
                Followed::Same => {}
                Followed::Changed => changed = true,
                Followed::Gone => gone.push(config.name.clone()),
            }
        }
        self.detach(&gone, "its netdev was deleted or renamed").await;
        // Another one of the same name may be there already.
        let waiting: Vec<Port> = configs.iter().filter(|c| !self.is_attached(&c.name)).cloned().collect();
        let attached = self.try_attach(&waiting).await;
        if !attached && (changed || !gone.is_empty()) {
            self.publish().await;
        }
        let went_down: Vec<&str> = were_up.into_iter().filter(|name| !self.is_up(name)).collect();
        // Only now: with the old snapshot a worker would learn from the last frames of the port.
        for name in went_down {
            self.flush_port(name);
        }
    }

    pub(super) fn is_attached(&self, name: &str) -> bool {
        matches!(self.ports.get(name).map(|r| &r.state), Some(PortState::Attached(_)))
    }

    fn is_up(&self, name: &str) -> bool {
        matches!(self.ports.get(name).map(|r| &r.state), Some(PortState::Attached(device)) if device.up)
    }

    /// Brings an attached port in line with its link.
    fn follow_link(&mut self, config: &Port) -> Followed {
        let Some(record) = self.ports.get_mut(&config.name) else { return Followed::Same };
        let device = match &mut record.state {
            PortState::Attached(device) if !device.elsewhere => device,
            PortState::Attached(_) | PortState::Waiting(_) => return Followed::Same,
        };
        // A tap is newer than the last event when it is attached; its link is adopted by name.
        let index = device.index.or_else(|| self.links.by_name(&device.netdev).map(|l| l.index));
        let Some(index) = index else { return Followed::Same };
        device.index = Some(index);
        let Some(link) = self.links.by_index(index).filter(|l| l.name == device.netdev) else {
            if device.facts.kind == vswitch_io::Kind::Tap {
                device.let_go();
                tracing::info!(port = config.name, "the tap's netdev left the namespace");
                return Followed::Changed;
            }
            return Followed::Gone;
        };
        let was_up = std::mem::replace(&mut device.up, link.up);
        let old_mtu = std::mem::replace(&mut device.mtu, link.mtu);
        if was_up != device.up {
            tracing::info!(port = config.name, up = device.up, "link state");
        }
        if was_up != device.up || old_mtu != device.mtu { Followed::Changed } else { Followed::Same }
    }

    /// Tries to attach ports that wait; true when one of them is attached now, and the snapshot knows it.
    ///
    /// A netdev that was refused is left alone for a while, longer each time: opening one may block the
    /// control thread, and turns settings of a NIC to and fro.
    pub(super) async fn try_attach(&mut self, configs: &[Port]) -> bool {
        let mut free = Vec::new();
        for config in configs {
            let Some(record) = self.ports.get(&config.name) else { continue };
            if self.clock.now() < record.retry_at {
                continue;
            }
            match safety::check(&self.links, config, record.forced, None).await {
                Ok(()) => free.push(config),
                Err(refusal) => self.stay_waiting(&config.name, NotOpened::Refused(refusal.message)),
            }
        }
        let mut queues = Vec::new();
        for (&config, opened) in free.iter().zip(self.opener.open(&free, &self.links)) {
            match opened {
                Ok(opened) => queues.extend(self.adopt(config, opened)),
                Err(error) => self.stay_waiting(&config.name, error),
            }
        }
        if queues.is_empty() {
            return false;
        }
        self.publish().await;
        self.serve(queues).await;
        true
    }

    fn stay_waiting(&mut self, name: &str, error: NotOpened) {
        if let (NotOpened::Refused(_), Some(record)) = (&error, self.ports.get_mut(name)) {
            record.refusals += 1;
            record.retry_at = self.clock.now() + RETRY_MAX.min(RETRY_MIN * (1 << record.refusals.min(8)));
        }
        self.set_waiting(name, error.into_text());
    }

    /// Notes why a port waits, and logs it when that is news.
    pub(super) fn set_waiting(&mut self, name: &str, why: String) {
        let Some(record) = self.ports.get_mut(name) else { return };
        if !matches!(&record.state, PortState::Waiting(old) if *old == why) {
            tracing::info!(port = name, why, "the port waits");
        }
        record.state = PortState::Waiting(why);
    }

    /// Makes an open device the port's. The queues are for [`Control::serve`], once a snapshot knows the port.
    pub(super) fn adopt(&mut self, config: &Port, opened: Opened) -> Option<NewQueues> {
        let Opened { rx, tx, facts, guard } = opened;
        let port = PortId(self.port_ids.get(&config.name)?);
        let record = self.ports.get_mut(&config.name)?;
        let link = self.links.by_name(config.netdev());
        self.attachments += 1;
        let attachment = self.attachments;
        tracing::info!(port = config.name, netdev = config.netdev(), kind = ?facts.kind, mode = facts.mode, "attached");
        (record.refusals, record.retry_at) = (0, Instant::ZERO);
        record.state = PortState::Attached(Device {
            index: link.map(|l| l.index),
            netdev: config.netdev().to_owned(),
            attachment,
            elsewhere: false,
            up: link.is_none_or(|l| l.up),
            mtu: facts.mtu,
            facts,
            guard,
        });
        Some(NewQueues { port, attachment, rx, tx })
    }

    /// Gives queues to the workers. After the snapshot, since a frame of a port that it does not know could not be counted.
    pub(super) async fn serve(&self, queues: Vec<NewQueues>) {
        for NewQueues { port, attachment, rx, tx } in queues {
            self.workers.attach(port, attachment, rx, tx).await;
        }
    }

    /// Takes the queues of those ports that are attached from the workers, and closes their devices. The snapshot is
    /// left to the caller.
    pub(super) async fn detach(&mut self, names: &[String], why: &str) {
        let mut devices = Vec::new();
        let mut detached = Vec::new();
        for name in names {
            let (Some(id), Some(record)) = (self.port_ids.get(name), self.ports.get_mut(name)) else {
                continue;
            };
            if matches!(record.state, PortState::Waiting(_)) {
                continue;
            }
            let waiting = PortState::Waiting(why.to_owned());
            let PortState::Attached(device) = std::mem::replace(&mut record.state, waiting) else { continue };
            tracing::info!(port = name, why, "detached");
            devices.push(Closing::new(self.workers.detach(PortId(id)).await, device));
            detached.push(name);
        }
        device::close(devices);
        for name in detached {
            self.flush_port(name);
        }
    }

    pub(super) fn flush_port(&self, name: &str) {
        if let Some(id) = self.port_ids.get(name) {
            self.fdb.flush(Filter { port: Some(PortId(id)), ..Filter::default() });
        }
    }

    pub(super) async fn detach_all(&mut self) {
        let all: Vec<String> = self.ports.keys().cloned().collect();
        self.detach(&all, "the daemon ends").await;
    }

    pub(super) async fn on_worker_event(&mut self, event: Event) {
        let Event::PortLost { port, attachment, error } = event;
        let Some(name) = self.port_ids.name(port.0).map(str::to_owned) else { return };
        // Netlink may have been faster, and every worker of the port tells it.
        let is_current =
            |r: &PortRecord| matches!(&r.state, PortState::Attached(d) if d.attachment == attachment);
        if !self.ports.get(&name).is_some_and(is_current) {
            return;
        }
        let was_elsewhere =
            matches!(self.ports.get(&name).map(|r| &r.state), Some(PortState::Attached(d)) if d.elsewhere);
        self.detach(std::slice::from_ref(&name), &device::in_words(&error)).await;
        if was_elsewhere && let Some(record) = self.ports.get_mut(&name) {
            // Made anew it would be a tap of this host, in the network of whoever deleted it over there.
            record.retry_at = Instant::from_secs(u64::MAX);
            record.state = PortState::Waiting(
                "its netdev was deleted in another network namespace; delete the port and add it to make a new one".into(),
            );
        }
        self.publish().await;
    }

    /// What no event announces: a netdev that was refused may be free by now (another XDP program went, an
    /// owner let go), and AF_XDP must follow `ethtool -L`.
    pub(super) async fn check_devices(&mut self) {
        let mut changed = Vec::new();
        for config in &self.desired.port {
            if let Some(PortState::Attached(device)) = self.ports.get(&config.name).map(|r| &r.state)
                && device.has_other_queues()
            {
                changed.push(config.name.clone());
            }
        }
        self.detach(&changed, "the number of queues has changed").await;
        let waits = |c: &&Port| !self.is_attached(&c.name);
        let there = |c: &&Port| c.kind == Kind::Tap || self.links.by_name(c.netdev()).is_some();
        let configs: Vec<Port> = self.desired.port.iter().filter(waits).filter(there).cloned().collect();
        if !self.try_attach(&configs).await && !changed.is_empty() {
            self.publish().await;
        }
    }
}
