//! The same steps over one frame, in words.

use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::slice;

use vswitch_wire::{FrameBuf, Instant, Mac};

use crate::acl::{Acl, Place, Ruling};
use crate::egress::{Egress, plan};
use crate::fdb::Learn;
use crate::pipeline::{self, Effects, Stranger};
use crate::storm::Class;
use crate::vector::{Context, Slot, Vector};
use crate::{NetId, PortId, Reason, Snapshot, Verdict};

/// One decision of [`explain`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The pipeline step, as in `vlan`.
    pub stage: &'static str,
    /// What it decided and why, in words. Ports and networks as `{port N}` and `{network N}`, to be named by the
    /// caller.
    pub text: String,
}

/// What would become of a frame, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Never [`Verdict::Pending`].
    pub verdict: Verdict,
    /// The port it came in by; for a frame out of a tunnel, the VTEP that it came from.
    pub ingress: PortId,
    /// Every decision.
    pub steps: Vec<Step>,
}

/// Runs the same steps over one frame and says each decision in words. Changes nothing but the frame, which gets
/// its tag moved to the metadata: learns nothing, counts nothing. What depends on the rate of earlier frames is
/// said, not judged: a storm limit lets the frame pass, as does a limit on learning.
pub fn explain<F: FrameBuf>(snapshot: &Snapshot, now: Instant, ingress: PortId, frame: &mut F) -> Explained {
    let Some(port) = snapshot.port(ingress) else {
        let reason = Reason::PortGone;
        let steps = vec![Step { stage: "parse", text: format!("dropped: {reason}") }];
        return Explained { verdict: Verdict::Drop(reason), ingress, steps };
    };
    let mut cx = Context { snapshot, now, ingress, port, network: None };
    let mut words = Words { steps: Vec::new(), learnt: None };
    let mut verdict = words.decide(&cx, frame);
    if let Verdict::Decapsulated { network, peer } = verdict
        && let Some(port) = snapshot.port(peer)
    {
        cx = Context { ingress: peer, port, network: Some(network), ..cx };
        verdict = words.decide(&cx, frame);
    }
    match verdict {
        Verdict::Unicast { network, port } => words.leave(&cx, network, port, frame),
        Verdict::Flood { network } => {
            for port in snapshot.flood(network, cx.ingress) {
                words.leave(&cx, network, port, frame);
            }
        }
        Verdict::Decapsulated { .. } | Verdict::Drop(_) | Verdict::Pending => {}
    }
    Explained { verdict, ingress: cx.ingress, steps: words.steps }
}

/// Says everything, does nothing.
struct Words {
    steps: Vec<Step>,
    /// What would have been learnt.
    learnt: Option<Mac>,
}

impl Words {
    /// Takes the frame through the steps.
    fn decide<F: FrameBuf>(&mut self, cx: &Context<'_>, frame: &mut F) -> Verdict {
        let mut slot = Slot::EMPTY;
        let mut vector = Vector { frames: slice::from_mut(frame), slots: slice::from_mut(&mut slot) };
        pipeline::run(cx, &mut vector, self);
        slot.verdict
    }

    /// Says how the frame leaves by `port`.
    fn leave<F: FrameBuf>(&mut self, cx: &Context<'_>, network: NetId, port: PortId, frame: &F) {
        let note = |acl: &Acl, place, ruling| self.rule(acl, place, ruling);
        let plan = plan(cx.snapshot, network, cx.ingress, port, frame, note);
        self.say("egress", || match plan {
            Err(reason) => format!("dropped at {{port {}}}: {reason}", port.0),
            Ok(plan) => {
                let tag = plan.tag.map_or_else(
                    || String::from("untagged"),
                    |tag| format!("tagged with VLAN ID {}, PCP {}", tag.vid(), tag.tci >> 13),
                );
                let work = match plan.egress {
                    Egress::Segment => ", cut into segments",
                    Egress::Encapsulate => " in a tunnel",
                    Egress::Ready if plan.finish => ", its checksum finished",
                    Egress::Ready => "",
                };
                format!("leaves by {{port {}}} {tag}{work}", port.0)
            }
        });
    }
}

impl Effects for Words {
    fn learn(&mut self, cx: &Context<'_>, network: NetId, slot: &Slot) -> Learn {
        let source = slot.source;
        let learn = cx.snapshot.fdb().foresee(network, source, cx.ingress, cx.now);
        self.learnt = matches!(learn, Learn::Added | Learn::Moved { .. }).then_some(source);
        learn
    }

    fn lookup(&self, cx: &Context<'_>, slot: &Slot) -> Option<PortId> {
        match self.learnt {
            Some(source) if source == slot.destination => Some(cx.ingress),
            _ => cx.snapshot.fdb().lookup_probed(slot.probe),
        }
    }

    fn may_flood(&mut self, _cx: &Context<'_>, _class: Class, _frames: u32) -> bool {
        true
    }

    fn meet(&mut self, stranger: Stranger) {
        self.say("tunnel", || format!("{} becomes a peer", stranger.address));
    }

    fn rule(&mut self, acl: &Acl, place: Place, ruling: Ruling) {
        self.say("acl", || acl.words(place, ruling));
    }

    fn say(&mut self, stage: &'static str, text: impl FnOnce() -> String) {
        self.steps.push(Step { stage, text: text() });
    }
}
