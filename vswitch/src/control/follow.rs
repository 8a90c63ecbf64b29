//! Following the world: netdevs that come, go and change, and devices that fail under the workers.

use std::time::Duration;

use vswitch_api::topology::{Kind, Port};
use vswitch_dataplane::PortId;
use vswitch_dataplane::fdb::Filter;
use vswitch_io::{Opened, RxQueue, TxQueue};
use vswitch_wire::Instant;

use super::device::{self, Device, NotOpened};
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

impl Control {
    /// Brings every port in line with the links as they are now.
    pub(super) async fn follow_links(&mut self) {
        let mut changed = false;
        let mut went_down = Vec::new();
        for config in self.desired.port.clone() {
            let was_up = self.is_up(&config.name);
            changed |= self.follow_link(&config).await;
            if was_up && !self.is_up(&config.name) {
                went_down.push(config.name);
            }
        }
        if changed {
            self.publish().await;
        }
        // Only now: with the old snapshot a worker would learn from the last frames of the port.
        for name in &went_down {
            self.flush_port(name);
        }
    }

    fn is_up(&self, name: &str) -> bool {
        matches!(self.ports.get(name).map(|r| &r.state), Some(PortState::Attached(device)) if device.up)
    }

    /// True when the snapshot has to be made anew.
    async fn follow_link(&mut self, config: &Port) -> bool {
        let Some(record) = self.ports.get_mut(&config.name) else { return false };
        let device = match &mut record.state {
            PortState::Waiting(_) => return self.try_attach(config).await,
            PortState::Attached(device) if device.elsewhere => return false,
            PortState::Attached(device) => device,
        };
        // A tap is newer than the last event when it is attached; its link is adopted by name.
        let index = device.index.or_else(|| self.links.by_name(&device.netdev).map(|l| l.index));
        let Some(index) = index else { return false };
        device.index = Some(index);
        let Some(link) = self.links.by_index(index).filter(|l| l.name == device.netdev) else {
            if device.facts.kind == vswitch_io::Kind::Tap {
                device.let_go();
                tracing::info!(port = config.name, "the tap's netdev left the namespace");
                return true;
            }
            let why = format!("the netdev {:?} was deleted or renamed", device.netdev);
            self.detach(&config.name, why).await;
            // Another one of the same name may be there already.
            self.try_attach(config).await;
            return true;
        };
        let was_up = std::mem::replace(&mut device.up, link.up);
        let old_mtu = std::mem::replace(&mut device.mtu, link.mtu);
        if was_up != device.up {
            tracing::info!(port = config.name, up = device.up, "link state");
        }
        was_up != device.up || old_mtu != device.mtu
    }

    /// Tries to attach a port that waits; true when it is attached now.
    ///
    /// A netdev that was refused is left alone for a while, longer each time: opening one may block the
    /// control thread, and turns settings of a NIC to and fro.
    pub(super) async fn try_attach(&mut self, config: &Port) -> bool {
        let Some(record) = self.ports.get(&config.name) else { return false };
        let forced = record.forced;
        if self.clock.now() < record.retry_at {
            return false;
        }
        let opened = match safety::check(&self.links, config, forced, None).await {
            Ok(()) => self.opener.open(config, &self.links),
            Err(refusal) => Err(NotOpened::Refused(refusal.message)),
        };
        match opened {
            Ok(opened) => {
                let queues = self.adopt(config, opened);
                self.publish().await;
                self.serve(queues.into_iter().collect()).await;
                true
            }
            Err(error) => {
                if let (NotOpened::Refused(_), Some(record)) = (&error, self.ports.get_mut(&config.name)) {
                    record.refusals += 1;
                    record.retry_at =
                        self.clock.now() + RETRY_MAX.min(RETRY_MIN * (1 << record.refusals.min(8)));
                }
                self.set_waiting(&config.name, error.into_text());
                false
            }
        }
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

    /// Takes a port's queues from the workers and closes its device. The snapshot is left to the caller.
    pub(super) async fn detach(&mut self, name: &str, why: String) {
        let Some(id) = self.port_ids.get(name) else { return };
        let Some(record) = self.ports.get_mut(name) else { return };
        if matches!(record.state, PortState::Waiting(_)) {
            return;
        }
        tracing::info!(port = name, why, "detached");
        let PortState::Attached(device) = std::mem::replace(&mut record.state, PortState::Waiting(why))
        else {
            return;
        };
        drop(self.workers.detach(PortId(id)).await);
        drop(device.guard);
        self.flush_port(name);
    }

    pub(super) fn flush_port(&self, name: &str) {
        if let Some(id) = self.port_ids.get(name) {
            self.fdb.flush(Filter { port: Some(PortId(id)), ..Filter::default() });
        }
    }

    pub(super) async fn detach_all(&mut self) {
        for name in self.ports.keys().cloned().collect::<Vec<_>>() {
            self.detach(&name, "the daemon ends".to_owned()).await;
        }
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
        self.detach(&name, device::in_words(&error)).await;
        self.publish().await;
    }

    /// What no event announces: a netdev that was refused may be free by now (another XDP program went, an
    /// owner let go), and AF_XDP must follow `ethtool -L`.
    pub(super) async fn check_devices(&mut self) {
        for config in self.desired.port.clone() {
            let Some(PortState::Attached(device)) = self.ports.get(&config.name).map(|r| &r.state) else {
                continue;
            };
            if device.has_other_queues() {
                self.detach(&config.name, "the number of queues has changed".to_owned()).await;
                if !self.try_attach(&config).await {
                    self.publish().await;
                }
            }
        }
        let waits =
            |c: &&Port| matches!(self.ports.get(&c.name).map(|r| &r.state), Some(PortState::Waiting(_)));
        let there = |c: &&Port| c.kind == Kind::Tap || self.links.by_name(c.netdev()).is_some();
        let configs: Vec<Port> = self.desired.port.iter().filter(waits).filter(there).cloned().collect();
        for config in &configs {
            self.try_attach(config).await;
        }
    }
}
