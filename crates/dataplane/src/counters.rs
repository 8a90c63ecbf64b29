//! Counters: one writer (a worker), any number of readers, never locked.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::Reason;

/// A counter with a single writer. Readers may see it late, never torn.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call it: load and store, no locked instruction.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The value.
    #[inline]
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What one worker counted at one port. Bytes are those of the frame without FCS, tag included.
///
/// Over the whole switch, once traffic is quiet:
/// `rx + originated + replicated = tx + consumed + sum(drops)`, in packets.
#[derive(Debug, Default)]
#[repr(align(128))] // two lines: neighbours are prefetched in pairs, and another worker's must not share them
pub struct PortCounters {
    /// Frames that came in by this port.
    pub rx_packets: Counter,
    /// Their bytes.
    pub rx_bytes: Counter,
    /// Frames that left by this port.
    pub tx_packets: Counter,
    /// Their bytes.
    pub tx_bytes: Counter,
    /// Copies and segments made for this port (egress), beyond the frame that came in.
    pub replicated: Counter,
    /// Frames that the switch itself made, to leave by this port.
    pub originated: Counter,
    /// Frames that the switch itself took, that came in by this port.
    pub consumed: Counter,
    /// Frames that the kernel dropped before the switch saw them (not part of the sum).
    pub rx_missed: Counter,
    /// Frames from this port that were flooded.
    pub flooded: Counter,
    /// Source MACs that were not learnt because a limit was reached.
    pub learn_refused: Counter,
    /// Drops by [`Reason`]: an ingress reason at the port that the frame came in by, an egress reason at
    /// the port that it should have left by.
    pub drops: [Counter; Reason::COUNT],
}

impl PortCounters {
    /// Counts `n` frames as dropped for `reason`.
    #[inline]
    pub fn drop(&self, reason: Reason, n: u64) {
        self.drops[reason.index()].add(n);
    }
}

/// What one worker counted in one network: frames and bytes admitted to it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct NetworkCounters {
    /// Frames admitted to the network.
    pub packets: Counter,
    /// Their bytes.
    pub bytes: Counter,
    /// Frames of them that were flooded.
    pub flooded: Counter,
}
