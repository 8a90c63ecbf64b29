//! What is known of one neighbour, and how that changes: RFC 4861 section 7.3.2, as far as somebody needs it who wants
//! its few next hops resolved always.
//!
//! Two states are missing. `STALE` and `DELAY` put off a probe until there is something to send; here there always may
//! be, so that a neighbour that is not known to be reachable any more is probed at once. And a resolution that failed
//! does not end (RFC 4861 section 7.2.2): it goes on, ever more rarely.
//!
//! Who answers is believed when nothing better is known. Who contradicts what is known is not (RFC 4861 section 7.2.5
//! would let an Override flag do it, and RFC 826 any frame at all): the neighbour is probed at the address where it
//! was, and only when it does not answer there it is looked for anew. So nobody takes a neighbour's place while that is
//! alive, and one that has moved and says so is found after [`PROBES`] seconds.

use vswitch_wire::Mac;

/// Unicast probes without an answer, after which a neighbour is looked for anew (`MAX_UNICAST_SOLICIT`, RFC 4861
/// section 10).
pub(super) const PROBES: u32 = 3;

/// What is known of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing. It was asked for so many times, all nodes of the network that is.
    Incomplete { asked: u32 },
    /// It answered from there lately.
    Reachable { mac: Mac },
    /// It was there, and was asked there so many times whether it still is.
    Probe { mac: Mac, asked: u32 },
}

/// What happens to a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It says where it is, to us, as if it had been asked.
    Answer(Mac),
    /// It says that it is there, and not where (RFC 4861 section 7.2.4 lets it, when it was asked by unicast).
    Confirm,
    /// It says where it is, and nobody asked.
    Claim(Mac),
    /// The time is over that its state gives it.
    Timeout,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing, and the timer runs on.
    Nothing,
    /// All nodes are asked for it.
    AskAll,
    /// It is asked itself, where it was.
    AskThere(Mac),
    /// It is asked as soon as that may be: not twice within the time that an answer may take.
    Hasten,
    /// It is left alone until it may have gone.
    Rest,
}

impl State {
    /// Nothing known, nobody asked.
    pub(super) const NEW: Self = Self::Incomplete { asked: 0 };

    /// Where it is.
    pub(super) fn mac(self) -> Option<Mac> {
        match self {
            Self::Incomplete { .. } => None,
            Self::Reachable { mac } | Self::Probe { mac, .. } => Some(mac),
        }
    }

    /// The whole machine.
    pub(super) fn on(self, event: Event) -> (Self, Action) {
        match (self, event) {
            // Asked, and answered.
            (Self::Incomplete { asked: 1.. }, Event::Answer(mac)) => (Self::Reachable { mac }, Action::Rest),
            (Self::Probe { mac, asked: 1.. }, Event::Confirm) => (Self::Reachable { mac }, Action::Rest),
            (Self::Probe { mac, asked: 1.. }, Event::Answer(from)) if from == mac => {
                (Self::Reachable { mac }, Action::Rest)
            }
            // A sign of life: worth a question.
            (Self::Incomplete { .. }, Event::Claim(_)) => (self, Action::Hasten),
            // Another place than the known one: is it still where it was?
            (Self::Reachable { mac }, Event::Answer(from) | Event::Claim(from)) if from != mac => {
                (Self::Probe { mac, asked: 0 }, Action::Hasten)
            }
            (Self::Incomplete { asked }, Event::Timeout) => {
                (Self::Incomplete { asked: asked.saturating_add(1) }, Action::AskAll)
            }
            (Self::Reachable { mac }, Event::Timeout) => {
                (Self::Probe { mac, asked: 1 }, Action::AskThere(mac))
            }
            (Self::Probe { mac, asked }, Event::Timeout) if asked < PROBES => {
                (Self::Probe { mac, asked: asked + 1 }, Action::AskThere(mac))
            }
            (Self::Probe { .. }, Event::Timeout) => (Self::Incomplete { asked: 1 }, Action::AskAll),
            // Nobody asked, or it is known already, or somebody else speaks while it is being asked.
            (Self::Incomplete { .. } | Self::Reachable { .. } | Self::Probe { .. }, _) => {
                (self, Action::Nothing)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const ELSEWHERE: Mac = Mac([2, 0, 0, 0, 0, 2]);

    /// Every state with every event; `None`: the state stays, and nothing is done.
    #[test]
    fn every_state_with_every_event() {
        let incomplete = |asked| State::Incomplete { asked };
        let reachable = State::Reachable { mac: HERE };
        let probe = |asked| State::Probe { mac: HERE, asked };
        let found = |mac| Some((State::Reachable { mac }, Action::Rest));
        let all = |asked| Some((incomplete(asked), Action::AskAll));
        let there = |asked| Some((probe(asked), Action::AskThere(HERE)));
        let doubt = Some((probe(0), Action::Hasten));
        let again = |state| Some((state, Action::Hasten));
        let events = [
            Event::Answer(HERE),
            Event::Answer(ELSEWHERE),
            Event::Confirm,
            Event::Claim(HERE),
            Event::Claim(ELSEWHERE),
            Event::Timeout,
        ];
        #[rustfmt::skip]
        let table = [
            // state           answer here      elsewhere         confirm      claim here              elsewhere               timeout
            (incomplete(0),  [None,             None,             None,        again(incomplete(0)), again(incomplete(0)), all(1)]),
            (incomplete(1),  [found(HERE),      found(ELSEWHERE), None,        again(incomplete(1)), again(incomplete(1)), all(2)]),
            (incomplete(9),  [found(HERE),      found(ELSEWHERE), None,        again(incomplete(9)), again(incomplete(9)), all(10)]),
            (reachable,      [None,             doubt,            None,        None,                 doubt,                there(1)]),
            (probe(0),       [None,             None,             None,        None,                 None,                 there(1)]),
            (probe(1),       [found(HERE),      None,             found(HERE), None,                 None,                 there(2)]),
            (probe(2),       [found(HERE),      None,             found(HERE), None,                 None,                 there(3)]),
            (probe(3),       [found(HERE),      None,             found(HERE), None,                 None,                 all(1)]),
        ];
        for (state, row) in table {
            for (event, expected) in events.into_iter().zip(row) {
                let expected = expected.unwrap_or((state, Action::Nothing));
                assert_eq!(state.on(event), expected, "{state:?} on {event:?}");
            }
        }
        assert_eq!(incomplete(u32::MAX).on(Event::Timeout).0, incomplete(u32::MAX));
    }
}
