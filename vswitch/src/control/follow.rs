//! Following the world: netdevs that come, go and change, and devices that fail under the workers.

use vswitch_api::topology::{Kind, Port};
use vswitch_dataplane::PortId;
use vswitch_io::{Opened, RxQueue, TxQueue, tap};

use super::backing::Backing;
use super::device::{self, Closing, Device, Fresh, NotOpened, Outlook};
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

/// What became of a port's link.
enum Followed {
    Same,
    /// The snapshot has to be made anew.
    Changed,
    /// The port's netdev is there no more.
    Gone,
}

/// The netdev of a tap is the switch's: it is up, and has the MTU that the port is given. Not before it is adopted,
/// since one that existed before is to be as it was when the change is refused.
fn set_up_tap(config: &Port) {
    let Some(netdev) = config.netdev() else { return };
    let mtu_set = config.mtu.map_or(Ok(()), |mtu| tap::set_mtu(netdev, mtu));
    if let Err(error) = mtu_set.and_then(|()| tap::set_up(netdev)) {
        tracing::warn!(port = config.name, %error, "cannot set the tap's MTU and link");
    }
}

impl Control {
    /// Brings every port in line with the links as they are now.
    pub(super) async fn follow_links(&mut self) {
        let configs = self.desired.port.clone();
        let mut changed = Vec::new();
        let mut gone = Vec::new();
        for config in &configs {
            match self.follow_link(config) {
                Followed::Same => {}
                Followed::Changed => changed.extend(self.port_ids.get(&config.name).map(PortId)),
                Followed::Gone => gone.push(config.name.clone()),
            }
        }
        self.detach(&gone, "its netdev was deleted or renamed").await;
        // Another one of the same name may be there already.
        let waiting: Vec<&Port> = configs.iter().filter(|c| self.waits_for(&c.name).is_some()).collect();
        let attached = self.try_attach(&waiting).await;
        if attached {
            return; // and published
        }
        if !gone.is_empty() {
            self.publish().await;
        } else if !changed.is_empty() {
            self.publish_links(&changed).await;
        }
    }

    /// Brings an attached port in line with its link.
    fn follow_link(&mut self, config: &Port) -> Followed {
        let Some(record) = self.ports.get_mut(&config.name) else { return Followed::Same };
        let DeviceState::Attached(device) = &mut record.device else { return Followed::Same };
        match device.look_at(self.links.table()) {
            Outlook::Same => Followed::Same,
            Outlook::Changed { was_up } => {
                let is_up = device.up;
                if was_up != is_up {
                    tracing::info!(port = config.name, up = is_up, "link state");
                }
                if was_up && !is_up {
                    self.mark_silent(&config.name);
                }
                Followed::Changed
            }
            Outlook::Elsewhere => {
                tracing::info!(port = config.name, "the tap's netdev left the namespace");
                Followed::Changed
            }
            Outlook::Gone => Followed::Gone,
        }
    }

    /// Tries to attach ports that wait; true when one of them is attached now, and the snapshot knows it.
    pub(super) async fn try_attach(&mut self, configs: &[&Port]) -> bool {
        let mut free = Vec::new();
        for &config in configs {
            let Some(record) = self.ports.get_mut(&config.name) else { continue };
            let link = config.netdev().and_then(|netdev| self.links.table().by_name(netdev));
            if let Some(link) = link.filter(|_| config.kind != Kind::Tap) {
                record.on_netdev(link.index);
            }
            if !record.may_try(self.clock.now()) {
                continue;
            }
            let safe = safety::check(&self.links, config, record.forced, None).await;
            record.protected = safe.is_err();
            match safe {
                Ok(()) => free.push(config),
                Err(danger) => self.stay_waiting(&config.name, NotOpened::Refused(danger.reason())),
            }
        }
        let mut queues = Vec::new();
        let opened = self.opener.open(&free, self.links.table(), &self.filters);
        for (&config, opened) in free.iter().zip(opened) {
            match opened {
                Ok(fresh) => queues.extend(self.adopt(config, fresh)),
                Err(error) => self.stay_waiting(&config.name, error),
            }
        }
        self.release_filters();
        if queues.is_empty() {
            return false;
        }
        self.publish().await;
        self.serve(queues).await;
        true
    }

    /// Gives netdevs back to the host that no port is configured for any more, or may have.
    pub(super) fn release_filters(&self) {
        let links = self.links.table();
        let wanted = |config: &Port| {
            let record = self.ports.get(&config.name)?;
            match &record.device {
                _ if config.kind == Kind::Tap || record.protected => None,
                DeviceState::Attached(device) => device.index,
                DeviceState::Waiting(_) => device::find(config.netdev()?, links).ok().map(|link| link.index),
            }
        };
        self.filters.keep(&self.desired.port.iter().filter_map(wanted).collect());
    }

    fn stay_waiting(&mut self, name: &str, error: NotOpened) {
        if let (NotOpened::Refused(_), Some(record)) = (&error, self.ports.get_mut(name)) {
            record.on_refusal(self.clock.now());
        }
        self.set_waiting(name, error.into_text());
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
    pub(super) fn adopt(&mut self, config: &Port, fresh: Fresh) -> Option<NewQueues> {
        let Fresh { opened: Opened { rx, tx, mut facts, guard }, watched } = fresh;
        let port = PortId(self.port_ids.get(&config.name)?);
        let record = self.ports.get_mut(&config.name)?;
        let backing = Backing::of(config);
        let link = backing.netdev().and_then(|netdev| self.links.table().by_name(netdev));
        if let Some(why) = link.and_then(|link| self.filters.refusal(link.index)) {
            facts.mode += &format!("; the host's own stack hears the frames too, tcx was refused: {why}");
        }
        self.attachments += 1;
        let attachment = self.attachments;
        tracing::info!(port = config.name, device = %backing, kind = ?facts.kind, mode = facts.mode, "attached");
        if config.kind == Kind::Tap {
            set_up_tap(config);
        }
        record.try_at_once();
        let front_end = watched.map(|watched| Box::new(self.front_ends.follow(watched, port, attachment)));
        record.device = DeviceState::Attached(Device {
            index: link.map(|l| l.index),
            backing,
            attachment,
            elsewhere: false,
            // A guest's port is down until the front end is heard of.
            up: front_end.is_none() && link.is_none_or(|l| l.up),
            front_end,
            mtu: facts.mtu,
            facts,
            guard,
        });
        Some(NewQueues { port, attachment, rx, tx })
    }

    /// Gives queues to the workers. After the snapshot, since a frame of a port that it does not know could not be
    /// counted.
    pub(super) async fn serve(&self, queues: Vec<NewQueues>) {
        for NewQueues { port, attachment, rx, tx } in queues {
            self.workers.attach(port, attachment, rx, tx).await;
        }
    }

    /// Takes the queues of those ports that are attached from the workers, and closes their devices. The snapshot is
    /// left to the caller.
    pub(super) async fn detach(&mut self, names: &[String], why: &str) {
        let mut devices = Vec::new();
        if names.iter().any(|name| self.device(name).is_some()) {
            self.pause_shortcut();
        }
        for name in names {
            let (Some(id), Some(record)) = (self.port_ids.get(name), self.ports.get_mut(name)) else {
                continue;
            };
            if record.device().is_none() {
                continue;
            }
            let waiting = DeviceState::Waiting(why.to_owned());
            let DeviceState::Attached(device) = std::mem::replace(&mut record.device, waiting) else {
                continue;
            };
            tracing::info!(port = name, why, "detached");
            devices.push(Closing::new(self.workers.detach(PortId(id)).await, device));
            self.mark_silent(name);
        }
        device::close(devices);
    }

    /// What was learnt at the port goes with the next snapshot: with this one a worker may learn from its last frames.
    pub(super) fn mark_silent(&mut self, name: &str) {
        if let Some(id) = self.port_ids.get(name) {
            self.stale.on_silence(PortId(id));
        }
    }

    /// The daemon ends; nobody asks the FDB any more.
    pub(super) async fn detach_all(&mut self) {
        let all: Vec<String> = self.ports.keys().cloned().collect();
        self.detach(&all, "the daemon ends").await;
    }

    pub(super) async fn on_worker_event(&mut self, event: Event) {
        let (port, attachment, error) = match event {
            Event::PortLost { port, attachment, error } => (port, attachment, error),
            Event::Stranger(stranger) => return self.on_stranger(stranger).await,
        };
        let Some(name) = self.port_ids.name(port.0).map(str::to_owned) else { return };
        // Netlink may have been faster, and every worker of the port tells it.
        let Some(device) = self.device(&name).filter(|d| d.attachment == attachment) else { return };
        let was_elsewhere = device.elsewhere;
        self.detach(std::slice::from_ref(&name), &device::in_words(&error)).await;
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
        let changed: Vec<String> = (self.desired.port.iter().map(|config| &config.name))
            .filter(|name| self.device(name).is_some_and(Device::has_other_queues))
            .cloned()
            .collect();
        self.detach(&changed, "the number of queues has changed").await;
        // What is made by opening it is always there.
        let is_there = |c: &&Port| {
            c.kind == Kind::Tap
                || c.netdev().is_none_or(|netdev| self.links.table().by_name(netdev).is_some())
        };
        let waits = |c: &&Port| self.waits_for(&c.name).is_some();
        let configs: Vec<Port> = self.desired.port.iter().filter(waits).filter(is_there).cloned().collect();
        if !self.try_attach(&configs.iter().collect::<Vec<_>>()).await && !changed.is_empty() {
            self.publish().await;
        }
    }
}
