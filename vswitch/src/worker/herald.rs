//! Tells control which addresses DHCP servers give, where ports learn theirs from it.
//!
//! It never waits, and tells so many a while at most: far more than stations ask for, so that only a flood is cut.

use std::time::Duration;

use tokio::sync::mpsc;
use vswitch_dataplane::{Lease, Network, PortId, Snapshot, Verdict, lease};
use vswitch_wire::{FrameBuf, Instant};

/// What one worker tells in a [`WHILE`] at most.
const MOST: u32 = 512;
const WHILE: Duration = Duration::from_millis(100);

pub(super) struct Herald {
    leases: mpsc::Sender<Lease>,
    since: Instant,
    told: u32,
}

impl Herald {
    pub(super) fn new(leases: mpsc::Sender<Lease>, now: Instant) -> Self {
        Self { leases, since: now, told: 0 }
    }

    /// Looks at frames that came in by a port, and were decided so.
    #[inline]
    pub(super) fn look<F: FrameBuf>(
        &mut self,
        snapshot: &Snapshot,
        ingress: PortId,
        (frames, verdicts): (&[F], &[Verdict]),
        now: Instant,
    ) {
        if !snapshot.learns() || !snapshot.port(ingress).is_some_and(|port| port.trusted) {
            return;
        }
        for (frame, verdict) in frames.iter().zip(verdicts) {
            lease::read(frame, *verdict, |lease| {
                if snapshot.network(lease.network).is_some_and(Network::learns) && self.may_tell(now) {
                    let _ = self.leases.try_send(lease);
                }
            });
        }
    }

    fn may_tell(&mut self, now: Instant) -> bool {
        if now.since(self.since) >= WHILE {
            (self.since, self.told) = (now, 0);
        }
        self.told = self.told.saturating_add(1);
        self.told <= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_while_are_told() {
        let (leases, _inbox) = mpsc::channel(1);
        let start = Instant::from_secs(5);
        let mut herald = Herald::new(leases, start);
        let mut told = |now| (0..1000).filter(|_| herald.may_tell(now)).count();
        assert_eq!(told(start), MOST as usize);
        assert_eq!(told(start + (WHILE - Duration::from_nanos(1))), 0);
        assert_eq!(told(start + WHILE), MOST as usize);
    }
}
