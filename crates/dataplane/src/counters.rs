//! Counters: one writer (a worker), any number of readers, never locked.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::vector::Slot;
use crate::{NetId, Reason, Snapshot, Verdict};

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
#[derive(Debug)]
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
    /// Times that the way out took no more frames (no frames: not part of the sum).
    pub tx_stalls: Counter,
    /// Frames from this port that were flooded.
    pub flooded: Counter,
    /// Source MACs that were not learnt because a limit was reached.
    pub learn_refused: Counter,
    /// Drops by [`Reason`]: an ingress reason at the port that the frame came in by, an egress reason at
    /// the port that it should have left by.
    pub drops: [Counter; Reason::COUNT],
}

impl Default for PortCounters {
    // By hand: an array of more than 32 has no default of its own.
    fn default() -> Self {
        let zero = Counter::default;
        Self {
            rx_packets: zero(),
            rx_bytes: zero(),
            tx_packets: zero(),
            tx_bytes: zero(),
            replicated: zero(),
            originated: zero(),
            consumed: zero(),
            rx_missed: zero(),
            tx_stalls: zero(),
            flooded: zero(),
            learn_refused: zero(),
            drops: core::array::from_fn(|_| zero()),
        }
    }
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

/// Counts what became of one batch: reception, drops and floods at its port, and what its networks admitted.
pub(crate) fn account(snapshot: &Snapshot, worker: usize, port: &PortCounters, slots: &[Slot]) {
    let count = |network: Option<NetId>, run: &Tally| {
        if let Some(counters) = network.and_then(|id| snapshot.network(id)?.counters.get(worker)) {
            run.add_to(&counters.packets, &counters.bytes, &counters.flooded);
        }
    };
    let mut all = Tally::default();
    // Neighbours mostly share a network: one addition for each run of them.
    let mut run = Tally::default();
    let mut network = None;
    for slot in slots {
        if slot.network != network {
            count(network, &run);
            all.merge(&run);
            (network, run) = (slot.network, Tally::default());
        }
        run.packets += 1;
        run.bytes += u64::from(slot.len);
        match slot.verdict {
            Verdict::Flood { .. } => run.flooded += 1,
            Verdict::Drop(reason) => port.drop(reason, 1),
            Verdict::Unicast { .. } | Verdict::Pending => {}
        }
    }
    count(network, &run);
    all.merge(&run);
    all.add_to(&port.rx_packets, &port.rx_bytes, &port.flooded);
}

/// Sums of some frames.
#[derive(Default)]
struct Tally {
    packets: u64,
    bytes: u64,
    flooded: u64,
}

impl Tally {
    fn merge(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.flooded += other.flooded;
    }

    fn add_to(&self, packets: &Counter, bytes: &Counter, flooded: &Counter) {
        packets.add(self.packets);
        bytes.add(self.bytes);
        flooded.add(self.flooded);
    }
}
