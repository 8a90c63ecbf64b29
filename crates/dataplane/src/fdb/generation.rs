//! Counts of changes, for what is decided once and holds until an address moves or goes.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::sync::AtomicU32;
use crate::sync::Ordering::{Acquire, Release};
use crate::table::Probe;

/// Memory of the counts, a power of two of words: wherever somebody sees them who is to notice.
pub type Words = Box<dyn AsRef<[AtomicU32]> + Send + Sync>;

/// How often addresses had changed that share a word by their hash. That an address is new is no change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which word.
    pub slot: u32,
    /// What it was.
    pub generation: u32,
}

pub(super) struct Generations(Words);

/// Words that nobody else sees.
pub(super) fn own() -> Words {
    let count = if cfg!(loom) { 1 } else { 64 };
    Box::new((0..count).map(|_| AtomicU32::new(0)).collect::<Vec<_>>())
}

impl Generations {
    pub(super) fn new(words: Words) -> Self {
        debug_assert!((*words).as_ref().len().is_power_of_two());
        Self(words)
    }

    fn words(&self) -> &[AtomicU32] {
        (*self.0).as_ref()
    }

    fn slot(&self, probe: Probe) -> usize {
        probe.spread() as usize & (self.words().len() - 1)
    }

    /// Whoever has this mark sees every change that it counts.
    pub(super) fn mark(&self, probe: Probe) -> Mark {
        let slot = self.slot(probe);
        Mark { slot: slot as u32, generation: self.words()[slot].load(Acquire) }
    }

    /// Ends every mark of this address. Called before a change and after it: see `Fdb::on_change`.
    pub(super) fn next(&self, probe: Probe) {
        self.words()[self.slot(probe)].fetch_add(1, Release);
    }
}
