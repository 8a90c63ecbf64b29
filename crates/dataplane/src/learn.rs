//! Learn: tells the FDB where the source is, once for each run of frames with the same source.

use alloc::format;

use vswitch_wire::{FrameBuf, Mac};

use crate::fdb::Learn;
use crate::pipeline::Effects;
use crate::vector::{Context, Vector};
use crate::{NetId, Reason};

pub(crate) fn run<F: FrameBuf>(cx: &Context<'_>, vector: &mut Vector<'_, F>, effects: &mut impl Effects) {
    // A port that is down was flushed; the last frames out of its queue must not bring its entries back.
    if !cx.port.up {
        return;
    }
    let mut last: Option<(NetId, Mac, Learn)> = None;
    for lane in vector.undecided() {
        let Some(network) = lane.slot.network else { continue };
        let source = lane.slot.source;
        let learnt = match last {
            Some((n, mac, learnt)) if n == network && mac == source => learnt,
            _ => effects.learn(cx, network, source),
        };
        last = Some((network, source, learnt));
        effects.say("learn", || match learnt {
            Learn::Known => format!("{source} is known at this port"),
            Learn::Added => format!("{source} is new, and learnt at this port"),
            Learn::Moved { from } => format!("{source} moves here from {{port {}}}", from.0),
            Learn::Static => format!("{source} has a static entry, which stays"),
            Learn::Refused => format!("{source} is not learnt: a limit is reached"),
            Learn::Held => format!("{source} is held at another port"),
        });
        if learnt == Learn::Held {
            lane.drop("learn", Reason::MacFlap, effects);
        }
    }
}
