//! Locate: hashes the addresses and asks for their lines of the FDB, so that the cache misses of a whole batch
//! overlap before `learn` and `forward` read the first of them.

use crate::fdb::Probe;
use crate::vector::{Context, Vector};

pub(crate) fn run<F>(cx: &Context<'_>, vector: &mut Vector<'_, F>) {
    let fdb = cx.snapshot.fdb();
    let mut last = None;
    let mut source_probe = Probe::NONE;
    for slot in vector.undecided_slots() {
        let Some(network) = slot.network else { continue };
        slot.probe = fdb.probe(network, slot.destination);
        let source = Some((network, slot.source.to_u64()));
        if source != last {
            source_probe = fdb.probe(network, slot.source);
            last = source;
        }
        slot.source_probe = source_probe;
    }
}
