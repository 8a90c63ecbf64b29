//! Learn: tells the FDB where the source is, once for each run of frames with the same source.

use alloc::format;

use crate::Reason;
use crate::fdb::Learn;
use crate::pipeline::Effects;
use crate::vector::{Context, Vector};

pub(crate) fn run<F>(cx: &Context<'_>, vector: &mut Vector<'_, F>, effects: &mut impl Effects) {
    if !cx.network.is_none_or(|id| cx.snapshot.network(id).is_some_and(|n| n.learns_remote)) {
        return;
    }
    // A port that is down was flushed; the last frames out of its queue must not bring its entries back.
    if !cx.port.up {
        return;
    }
    let mut last = None;
    let mut learnt = Learn::Known;
    for slot in vector.undecided_slots() {
        let Some(network) = slot.network else { continue };
        let source = slot.source;
        let key = Some((network, source.to_u64()));
        if key != last {
            learnt = effects.learn(cx, network, slot);
            last = key;
        }
        effects.say("learn", || match learnt {
            Learn::Known => format!("{source} is known at this port"),
            Learn::Added => format!("{source} is new, and learnt at this port"),
            Learn::Moved { from } => format!("{source} moves here from {{port {}}}", from.0),
            Learn::Static => format!("{source} has a static entry, which stays"),
            Learn::Refused => format!("{source} is not learnt: a limit is reached"),
            Learn::Held => format!("{source} is held at another port"),
        });
        if learnt == Learn::Held {
            slot.drop("learn", Reason::MacFlap, effects);
        }
    }
}
