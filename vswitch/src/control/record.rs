//! What became of a port of the desired state.

use std::sync::Arc;
use std::time::Duration;

use vswitch_api::topology::{Kind, Port, Role};
use vswitch_dataplane::PortCounters;
use vswitch_wire::Instant;

use super::backing::Backing;
use super::device::Device;

/// How long a netdev that was refused is left alone: the first time, and at most.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A port of the desired state, and what became of it.
pub(super) struct PortRecord {
    pub(super) counters: Arc<[PortCounters]>,
    /// The device that the port is to have.
    kind: Kind,
    backing: Backing,
    role: Role,
    queues: Option<u16>,
    /// A command said that this netdev may be taken although the host is reached by it.
    pub(super) forced: bool,
    /// The host is reached by its netdev, which therefore stays the host's.
    pub(super) protected: bool,
    /// Interface index of the netdev that was last tried.
    tried: Option<u32>,
    /// How often in a row its netdev was refused, and when to try again.
    refusals: u32,
    retry_at: Instant,
    pub(super) device: DeviceState,
}

/// Whether the port has its device.
pub(super) enum DeviceState {
    /// Not attached, and why.
    Waiting(String),
    /// Served by the workers.
    Attached(Device),
}

impl PortRecord {
    pub(super) fn new(config: &Port, counters: Arc<[PortCounters]>) -> Self {
        Self {
            counters,
            kind: config.kind,
            backing: Backing::of(config),
            role: config.role,
            queues: config.queues,
            forced: false,
            protected: false,
            tried: None,
            refusals: 0,
            retry_at: Instant::ZERO,
            device: DeviceState::Waiting("is about to be attached".to_owned()),
        }
    }

    /// The device, when it is attached.
    pub(super) fn device(&self) -> Option<&Device> {
        match &self.device {
            DeviceState::Attached(device) => Some(device),
            DeviceState::Waiting(_) => None,
        }
    }

    /// `config` wants the device that the port is to have already.
    pub(super) fn is_for_device_of(&self, config: &Port) -> bool {
        (self.kind, self.role, self.queues) == (config.kind, config.role, config.queues)
            && self.backing == Backing::of(config)
    }

    /// The port is to have another device from now on: what was said of the old one is over.
    pub(super) fn want_device_of(&mut self, config: &Port) {
        if !self.is_for_device_of(config) {
            (self.kind, self.backing) = (config.kind, Backing::of(config));
            (self.role, self.queues) = (config.role, config.queues);
            self.forced = false;
            self.try_at_once();
        }
    }

    /// The netdev that is to be tried now. Refusals of another one do not count.
    pub(super) fn on_netdev(&mut self, index: u32) {
        if self.tried.replace(index).is_some_and(|tried| tried != index) {
            self.try_at_once();
        }
    }

    /// Its device was refused: it is left alone for a while, longer each time. Opening one may block the control
    /// thread, and turns settings of a NIC to and fro.
    pub(super) fn on_refusal(&mut self, now: Instant) {
        self.retry_at = now + RETRY_MAX.min(RETRY_MIN * (1 << self.refusals.min(8)));
        self.refusals += 1;
    }

    /// It is not to be tried again.
    pub(super) fn give_up(&mut self) {
        self.retry_at = Instant::from_secs(u64::MAX);
    }

    /// No refusal counts any more.
    pub(super) fn try_at_once(&mut self) {
        (self.refusals, self.retry_at) = (0, Instant::ZERO);
    }

    /// It may be tried now.
    pub(super) fn may_try(&self, now: Instant) -> bool {
        now >= self.retry_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_netdev_is_left_alone_longer_each_time() {
        let mut record = PortRecord::new(&Port::new("a"), Arc::from([]));
        let mut now = Instant::from_secs(100);
        assert!(record.may_try(now));
        let mut waits = Vec::new();
        for _ in 0..8 {
            record.on_refusal(now);
            let until = record.retry_at;
            waits.push(until.since(now).as_secs());
            assert!(!record.may_try(now) && record.may_try(until));
            now = until;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        record.try_at_once();
        assert!(record.may_try(now));
        record.give_up();
        assert!(!record.may_try(Instant::from_secs(1 << 30)));
    }

    #[test]
    fn what_was_forced_for_one_netdev_is_not_for_another() {
        let mut record = PortRecord::new(&Port::new("a"), Arc::from([]));
        record.forced = true;
        record.on_refusal(Instant::ZERO);
        let again = Port { max_macs: Some(5), netdev: Some("a".to_owned()), ..Port::new("a") };
        record.want_device_of(&again);
        assert!(record.forced && !record.may_try(Instant::ZERO));
        record.want_device_of(&Port { netdev: Some("eth0".to_owned()), ..again });
        assert!(!record.forced && record.may_try(Instant::ZERO));
    }
}
