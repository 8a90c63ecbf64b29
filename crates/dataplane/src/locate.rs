//! Locate: hashes the addresses and asks for their lines of the FDB, so that the cache misses of a whole batch
//! overlap before `learn` and `forward` read the first of them.

use vswitch_wire::Mac;

use crate::vector::{Context, Vector};

pub(crate) fn run<F>(cx: &Context<'_>, vector: &mut Vector<'_, F>) {
    let fdb = cx.snapshot.fdb();
    let mut last = Mac::ZERO;
    for slot in vector.undecided_slots() {
        let Some(network) = slot.network else { continue };
        slot.probe = fdb.probe(network, slot.destination);
        if slot.source != last {
            last = slot.source;
            fdb.probe(network, last);
        }
    }
}
