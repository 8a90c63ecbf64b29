//! Following the world: netdevs that come, go and change, and devices that fail under the workers.

use vswitch_api::topology::{Kind, Port};
use vswitch_dataplane::PortId;
use vswitch_io::{Opened, RxQueue, TxQueue};

use super::device::{self, Device, NotOpened, Outlook};
use super::record::DeviceState;
use super::{Control, safety};
use crate::worker::Event;

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
        for config in self.desired.port.clone() {
            changed |= self.follow_link(&config).await;
        }
        if changed {
            self.publish().await;
        }
    }

    /// True when the snapshot has to be made anew.
    async fn follow_link(&mut self, config: &Port) -> bool {
        let Some(record) = self.ports.get_mut(&config.name) else { return false };
        let DeviceState::Attached(device) = &mut record.device else {
            return self.try_attach(config).await;
        };
        let outlook = device.look_at(self.links.table());
        match outlook {
            Outlook::Same => false,
            Outlook::Changed { was_up } => {
                let is_up = device.up;
                if was_up != is_up {
                    tracing::info!(port = config.name, up = is_up, "link state");
                }
                if was_up && !is_up {
                    self.mark_silent(&config.name);
                }
                true
            }
            Outlook::Elsewhere => {
                tracing::info!(port = config.name, "the tap's netdev left the namespace");
                true
            }
            Outlook::Gone => {
                let why = format!("the netdev {:?} was deleted or renamed", device.netdev);
                self.detach(&config.name, why).await;
                // Another one of the same name may be there already.
                self.try_attach(config).await;
                true
            }
        }
    }

    /// Tries to attach a port that waits; true when it is attached now.
    pub(super) async fn try_attach(&mut self, config: &Port) -> bool {
        let Some(record) = self.ports.get(&config.name) else { return false };
        if !record.may_try(self.clock.now()) {
            return false;
        }
        let opened = match safety::check(&self.links, config, record.forced, None).await {
            Ok(()) => self.opener.open(config, self.links.table()),
            Err(danger) => Err(NotOpened::Refused(danger.reason())),
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
                    record.on_refusal(self.clock.now());
                }
                self.set_waiting(&config.name, error.into_text());
                false
            }
        }
    }

    /// Notes why a port waits, and logs it when that is news.
    pub(super) fn set_waiting(&mut self, name: &str, why: String) {
        if self.waits_for(name) != Some(&why) {
            tracing::info!(port = name, why, "the port waits");
        }
        if let Some(record) = self.ports.get_mut(name) {
            record.device = DeviceState::Waiting(why);
        }
    }

    /// Why the port waits, if it does.
    pub(super) fn waits_for(&self, name: &str) -> Option<&String> {
        match &self.ports.get(name)?.device {
            DeviceState::Waiting(why) => Some(why),
            DeviceState::Attached(_) => None,
        }
    }

    /// Makes an open device the port's. The queues are for [`Control::serve`], once a snapshot knows the port.
    pub(super) fn adopt(&mut self, config: &Port, opened: Opened) -> Option<NewQueues> {
        let Opened { rx, tx, facts, guard } = opened;
        let port = PortId(self.port_ids.get(&config.name)?);
        let record = self.ports.get_mut(&config.name)?;
        let link = self.links.table().by_name(config.netdev());
        self.attachments += 1;
        let attachment = self.attachments;
        tracing::info!(port = config.name, netdev = config.netdev(), kind = ?facts.kind, mode = facts.mode, "attached");
        record.try_at_once();
        record.device = DeviceState::Attached(Device {
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
        if record.device().is_none() {
            return;
        }
        tracing::info!(port = name, why, "detached");
        let DeviceState::Attached(device) = std::mem::replace(&mut record.device, DeviceState::Waiting(why))
        else {
            return;
        };
        drop(self.workers.detach(PortId(id)).await);
        drop(device.guard);
        self.mark_silent(name);
    }

    /// What was learnt at the port goes with the next snapshot: with this one a worker may learn from its last frames.
    fn mark_silent(&mut self, name: &str) {
        if let Some(id) = self.port_ids.get(name) {
            self.stale.on_silence(PortId(id));
        }
    }

    /// The daemon ends; nobody asks the FDB any more.
    pub(super) async fn detach_all(&mut self) {
        for name in self.ports.keys().cloned().collect::<Vec<_>>() {
            self.detach(&name, "the daemon ends".to_owned()).await;
        }
    }

    pub(super) async fn on_worker_event(&mut self, event: Event) {
        let Event::PortLost { port, attachment, error } = event;
        let Some(name) = self.port_ids.name(port.0).map(str::to_owned) else { return };
        // Netlink may have been faster, and every worker of the port tells it.
        let Some(device) = self.device(&name).filter(|d| d.attachment == attachment) else { return };
        let was_elsewhere = device.elsewhere;
        self.detach(&name, device::in_words(&error)).await;
        if was_elsewhere && let Some(record) = self.ports.get_mut(&name) {
            // Made anew it would be a tap of this host, in the network of whoever deleted it over there.
            record.give_up();
            record.device = DeviceState::Waiting(
                "its netdev was deleted in another network namespace; delete the port and add it to make a new one".into(),
            );
        }
        self.publish().await;
    }

    /// What no event announces: a netdev that was refused may be free by now (another XDP program went, an
    /// owner let go), and AF_XDP must follow `ethtool -L`.
    pub(super) async fn check_devices(&mut self) {
        for config in self.desired.port.clone() {
            if self.device(&config.name).is_some_and(Device::has_other_queues) {
                self.detach(&config.name, "the number of queues has changed".to_owned()).await;
                if !self.try_attach(&config).await {
                    self.publish().await;
                }
            }
        }
        let is_there = |c: &&Port| c.kind == Kind::Tap || self.links.table().by_name(c.netdev()).is_some();
        let waits = |c: &&Port| self.waits_for(&c.name).is_some();
        let configs: Vec<Port> = self.desired.port.iter().filter(waits).filter(is_there).cloned().collect();
        for config in &configs {
            self.try_attach(config).await;
        }
    }
}
