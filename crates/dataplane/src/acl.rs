//! Filters: ordered lists of rules, of a port and of a network, on the way in and on the way out.
//!
//! The first rule that matches a frame decides; where none does, the list's default. A frame passes if both the port's
//! list and the network's allow it, each of them where there is one. Nothing is remembered of earlier frames.
//!
//! *Fragments.* A later fragment of a datagram has no ports, flags or type, so no rule that asks for them matches it. What
//! was meant to be stopped is stopped all the same, since without its first fragment no datagram is put together
//! (RFC 1858 section 2); what was meant to pass needs a rule without ports.
//!
//! *What cannot be read* is dropped, whatever the rules are, if one of them asks for it: an IP header that is cut short
//! or contradicts itself, a first fragment without its whole transport header, a TCP fragment that could write over the flags
//! (RFC 1858, RFC 3128), a chain of extension headers that is not all in the first fragment (RFC 7112), an EtherType that
//! is hidden behind too many tags, tags of before 802.1ad, or LLC.
//!
//! A GSO frame is judged, and counted, once: its segments have its headers.

mod classifier;
mod headers;
mod rule;
mod table;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use vswitch_wire::FrameBuf;

use crate::pipeline::Effects;
use crate::vector::{Context, Vector};
use crate::{Counter, NetId, PortId, Reason};

use classifier::{Classifier, Found};
use headers::Headers;
pub use rule::{Action, MacMatch, Masked, Prefix, Rule};

/// The most rules of a list.
pub const RULES_MAX: usize = 4096;

/// The lists of a port or a network.
#[derive(Clone, Debug, Default)]
pub struct Acls {
    /// For frames that come in.
    pub ingress: Option<Arc<Acl>>,
    /// For frames that leave.
    pub egress: Option<Arc<Acl>>,
}

/// A list, compiled. Shared by all snapshots as long as it stays the same, so that it goes on counting.
#[derive(Debug)]
pub struct Acl {
    name: Box<str>,
    actions: Box<[Action]>,
    default: Action,
    classifier: Classifier,
    /// Of each worker: frames that each rule decided, then the default, then those that could not be read.
    counters: Box<[Box<[Counter]>]>,
}

/// A list was given more than [`RULES_MAX`] rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRules;

/// What a list says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// The first rule that matches it, from 0.
    Rule(u16, Action),
    /// No rule matches it.
    Default(Action),
    /// A rule asks for what cannot be read.
    Unreadable,
}

impl Acl {
    /// Compiles a list, with counters for so many workers.
    ///
    /// # Errors
    /// There are too many rules.
    pub fn new(name: &str, rules: &[Rule], default: Action, workers: usize) -> Result<Self, TooManyRules> {
        if rules.len() > RULES_MAX {
            return Err(TooManyRules);
        }
        let counters = || (0..rules.len() + 2).map(|_| Counter::default()).collect();
        Ok(Self {
            name: name.into(),
            actions: rules.iter().map(|rule| rule.action).collect(),
            default,
            classifier: Classifier::new(rules),
            counters: (0..workers).map(|_| counters()).collect(),
        })
    }

    /// Bytes that the compiled rules take.
    #[must_use]
    pub fn size(&self) -> usize {
        self.classifier.size()
    }

    /// Frames that each rule decided.
    #[must_use]
    pub fn rule_packets(&self) -> Vec<u64> {
        (0..self.actions.len()).map(|index| self.counted(index)).collect()
    }

    /// Frames that no rule matched.
    #[must_use]
    pub fn default_packets(&self) -> u64 {
        self.counted(self.actions.len())
    }

    /// Frames that could not be read.
    #[must_use]
    pub fn unreadable_packets(&self) -> u64 {
        self.counted(self.actions.len() + 1)
    }

    fn counted(&self, index: usize) -> u64 {
        self.counters.iter().filter_map(|worker| worker.get(index)).map(Counter::get).sum()
    }

    #[inline]
    fn judge(&self, headers: &Headers<'_>) -> Ruling {
        match self.classifier.find(headers) {
            Found::Rule(rule) => {
                Ruling::Rule(rule, self.actions.get(usize::from(rule)).copied().unwrap_or(Action::Deny))
            }
            Found::Nothing => Ruling::Default(self.default),
            Found::Unreadable => Ruling::Unreadable,
        }
    }

    /// Counts a frame. Only this worker may call it.
    #[inline]
    pub(crate) fn count(&self, worker: usize, ruling: Ruling) {
        let index = match ruling {
            Ruling::Rule(rule, _) => rule.into(),
            Ruling::Default(_) => self.actions.len(),
            Ruling::Unreadable => self.actions.len() + 1,
        };
        if let Some(counter) = self.counters.get(worker).and_then(|counters| counters.get(index)) {
            counter.add(1);
        }
    }

    /// What the list said of a frame. Users count rules from 1.
    pub(crate) fn words(&self, place: Place, ruling: Ruling) -> String {
        let name = &self.name;
        let did = |action| if action == Action::Allow { "allowed" } else { "denied" };
        match ruling {
            Ruling::Rule(rule, action) => {
                format!("{} by rule {} of acl {name}, {place}", did(action), u32::from(rule) + 1)
            }
            Ruling::Default(action) => format!("{} by the default of acl {name}, {place}", did(action)),
            Ruling::Unreadable => format!("acl {name}, {place}, asks for what cannot be read"),
        }
    }
}

/// Whose list it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner {
    Port(PortId),
    Network(NetId),
}

/// Where a list judges, with the reason for what it denies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

/// What a list is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    direction: Direction,
    owner: Owner,
}

impl core::fmt::Display for Place {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self.direction {
            Direction::Ingress => "ingress of ",
            Direction::Egress => "egress of ",
        })?;
        match self.owner {
            Owner::Port(id) => write!(f, "{{port {}}}", id.0),
            Owner::Network(id) => write!(f, "{{network {}}}", id.0),
        }
    }
}

/// The lists that judge a frame, in their order.
pub(crate) type Lists<'a> = [Option<(&'a Acl, Owner)>; 2];

/// Judges a frame by the lists there are, up to the first that does not let it pass; each ruling goes to `note`.
#[inline]
pub(crate) fn judge<F: FrameBuf>(
    lists: Lists<'_>,
    frame: &F,
    direction: Direction,
    mut note: impl FnMut(&Acl, Place, Ruling),
) -> Result<(), Reason> {
    let headers = Headers::of(frame);
    for list in &lists {
        let &Some((acl, owner)) = list else { continue };
        let ruling = acl.judge(&headers);
        note(acl, Place { direction, owner }, ruling);
        match ruling {
            Ruling::Rule(_, Action::Allow) | Ruling::Default(Action::Allow) => {}
            Ruling::Rule(_, Action::Deny) | Ruling::Default(Action::Deny) => {
                return Err(match direction {
                    Direction::Ingress => Reason::AclIngress,
                    Direction::Egress => Reason::AclEgress,
                });
            }
            Ruling::Unreadable => return Err(Reason::AclUnreadable),
        }
    }
    Ok(())
}

/// The lists for frames that come in; those that leave are judged in [`crate::egress`].
pub(crate) fn run<F: FrameBuf>(cx: &Context<'_>, vector: &mut Vector<'_, F>, effects: &mut impl Effects) {
    let of_port = cx.port.acl.ingress.as_deref().map(|acl| (acl, Owner::Port(cx.ingress)));
    if of_port.is_none() && !cx.snapshot.filters_networks() {
        return;
    }
    for (frame, slot) in vector.undecided() {
        let of_network = slot.network.and_then(|id| {
            let acl = cx.snapshot.network(id)?.acl.ingress.as_deref()?;
            Some((acl, Owner::Network(id)))
        });
        if of_port.is_none() && of_network.is_none() {
            continue;
        }
        let note = |acl: &Acl, place, ruling| effects.rule(acl, place, ruling);
        if let Err(reason) = judge([of_port, of_network], &*frame, Direction::Ingress, note) {
            slot.drop("acl", reason, effects);
        }
    }
}
