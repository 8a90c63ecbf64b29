//! The switch on the underlay: a station as in any network, that keeps the next hops of its tunnels resolved besides.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::rc::Rc;

use vswitch_protocols::host::Host;
use vswitch_protocols::neighbours::{Neighbours, Station};
use vswitch_wire::ipv6::link_local_of;
use vswitch_wire::{Instant, Mac};

use super::Member;

/// What control and the station tell each other.
#[derive(Debug, Default)]
pub struct NextHops {
    /// Those that are wanted.
    wanted: BTreeSet<IpAddr>,
    /// How often that changed.
    revision: u64,
    /// Those whose place has changed, and where they are now.
    news: Vec<(IpAddr, Option<Mac>)>,
}

impl NextHops {
    /// Wants these and no others; true when that is another will than before.
    pub fn want(&mut self, hops: BTreeSet<IpAddr>) -> bool {
        let is_new = self.wanted != hops;
        if is_new {
            self.wanted = hops;
            self.revision += 1;
        }
        is_new
    }

    /// What has changed since the last call.
    pub fn take_news(&mut self) -> Vec<(IpAddr, Option<Mac>)> {
        std::mem::take(&mut self.news)
    }
}

/// The station.
pub struct Vtep {
    host: Host,
    neighbours: Neighbours,
    shared: Rc<RefCell<NextHops>>,
    /// The revision of the will that it follows.
    follows: u64,
}

impl Vtep {
    /// A station of this MAC and address, which follows what is wanted in `shared`. `seed` is one that nobody can guess.
    pub fn new(
        mac: Mac,
        (address, prefix): (IpAddr, u8),
        mtu: u32,
        seed: u64,
        shared: Rc<RefCell<NextHops>>,
    ) -> Self {
        let (v4, v6) = match address {
            IpAddr::V4(v4) => (Some(v4), None),
            IpAddr::V6(v6) => (None, Some(v6)),
        };
        let station = Station { mac, v4, v6, link_local: Some(link_local_of(mac)) };
        Self {
            host: Host::new(mac, &[(address, prefix)], mtu, seed),
            neighbours: Neighbours::new(station, seed),
            shared,
            follows: 0,
        }
    }

    /// Takes in what is wanted.
    fn follow(&mut self, now: Instant) {
        let shared = self.shared.borrow();
        if shared.revision == self.follows {
            return;
        }
        self.follows = shared.revision;
        let gone: Vec<IpAddr> = self.neighbours.wanted().filter(|ip| !shared.wanted.contains(ip)).collect();
        gone.into_iter().for_each(|ip| self.neighbours.forget(ip));
        for ip in &shared.wanted {
            if let Err(error) = self.neighbours.want(now, *ip) {
                tracing::warn!(next_hop = %ip, %error, "a next hop of tunnels cannot be resolved");
            }
        }
    }

    fn tell(&mut self) {
        let mut shared = self.shared.borrow_mut();
        while let Some(change) = self.neighbours.next_change() {
            shared.news.push(change);
        }
    }
}

impl Member for Vtep {
    fn input(&mut self, now: Instant, frame: &[u8], send: &mut dyn FnMut(&[u8])) {
        self.host.input(now, frame, &mut *send);
        self.neighbours.input(now, frame);
        self.tell();
    }

    fn poll(&mut self, now: Instant, send: &mut dyn FnMut(&[u8])) {
        self.follow(now);
        if self.host.next_deadline().is_some_and(|at| at <= now) {
            self.host.poll(now, &mut *send);
        }
        self.neighbours.poll(now, send);
        self.tell();
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.host.next_deadline().into_iter().chain(self.neighbours.next_deadline()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);

    #[test]
    fn a_next_hop_is_asked_for_and_its_answer_told() {
        let shared = Rc::new(RefCell::new(NextHops::default()));
        let own = IpAddr::from([192, 0, 2, 1]);
        let hop = IpAddr::from([192, 0, 2, 2]);
        let mut vtep = Vtep::new(OWN, (own, 24), 1500, 7, Rc::clone(&shared));
        let now = Instant::from_secs(10);
        vtep.poll(now, &mut |_| ());
        assert!(shared.borrow_mut().want([hop].into()) && !shared.borrow_mut().want([hop].into()));
        let mut asked = Vec::new();
        vtep.poll(now, &mut |frame| asked.push(frame.to_vec()));
        let [question] = asked.try_into().unwrap();
        assert_eq!(question[12..14], [8, 6]);
        // The answer: who asked is the target, and the other way round.
        let mut answer = question.clone();
        answer[..6].copy_from_slice(&OWN.0);
        answer[6..12].copy_from_slice(&OTHER.0);
        answer[21] = 2;
        answer[22..28].copy_from_slice(&OTHER.0);
        answer[28..32].copy_from_slice(&[192, 0, 2, 2]);
        answer[32..38].copy_from_slice(&OWN.0);
        answer[38..42].copy_from_slice(&[192, 0, 2, 1]);
        vtep.input(now, &answer, &mut |_| ());
        assert_eq!(shared.borrow_mut().take_news(), [(hop, Some(OTHER))]);
        assert_eq!(shared.borrow_mut().take_news(), []);
    }
}
