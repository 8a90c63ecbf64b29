//! Who has which place on the board.
//!
//! Flows are found by whoever sends many frames, so room is shared as the FDB's is: a port has an eighth of it at most, and
//! what is left last is for ports below their equal share. A place counts for its port until it is free again.

use std::collections::HashMap;

use super::board::{FLOWS, KeyBytes};

/// One port has no more.
const OF_PORT_MAX: usize = FLOWS / 8;
/// Places for ports below their share alone.
const RESERVE: usize = FLOWS / 8;

pub(super) struct Places {
    /// What is in the index.
    taken: HashMap<KeyBytes, Taken>,
    /// No program sees them.
    free: Vec<u16>,
    /// They are not in the index any more; a program may still see them.
    left: Vec<Taken>,
    /// Places that are not free, by ingress port.
    of_port: HashMap<u16, usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) place: u16,
    pub(super) ingress: u16,
}

impl Places {
    pub(super) fn new() -> Self {
        let (taken, of_port) = (HashMap::new(), HashMap::new());
        Self { taken, free: (0..FLOWS as u16).rev().collect(), left: Vec::new(), of_port }
    }

    /// There is no flow, and was none a moment ago.
    pub(super) fn are_all_free(&self) -> bool {
        self.free.len() == FLOWS
    }

    /// Where a flow is.
    pub(super) fn get(&self, key: &KeyBytes) -> Option<Taken> {
        self.taken.get(key).copied()
    }

    /// All flows.
    pub(super) fn taken(&self) -> impl Iterator<Item = (&KeyBytes, Taken)> {
        self.taken.iter().map(|(key, taken)| (key, *taken))
    }

    /// A place for a flow of this port, if it may have one more: for [`Self::put`] or [`Self::give_back`].
    pub(super) fn take(&mut self, ingress: u16) -> Option<Taken> {
        let most = if self.free.len() > RESERVE { OF_PORT_MAX } else { self.share().min(OF_PORT_MAX) };
        let count = self.of_port.entry(ingress).or_default();
        let place = if *count < most { self.free.pop() } else { None };
        match place {
            Some(_) => *count += 1,
            None if *count == 0 => drop(self.of_port.remove(&ingress)),
            None => {}
        }
        Some(Taken { place: place?, ingress })
    }

    /// The equal share of a port.
    fn share(&self) -> usize {
        FLOWS / (self.of_port.len() + 1)
    }

    /// The index has the flow there from now on.
    pub(super) fn put(&mut self, key: &KeyBytes, taken: Taken) {
        self.left.extend(self.taken.insert(*key, taken));
    }

    /// The index has the flow no more.
    pub(super) fn remove(&mut self, key: &KeyBytes) {
        self.left.extend(self.taken.remove(key));
    }

    /// Places that are free as soon as the programs that run now have ended.
    pub(super) fn left(&mut self) -> Vec<Taken> {
        std::mem::take(&mut self.left)
    }

    /// These were left, and could not be waited for.
    pub(super) fn leave(&mut self, left: Vec<Taken>) {
        self.left.extend(left);
    }

    /// No program sees this place.
    pub(super) fn give_back(&mut self, Taken { place, ingress }: Taken) {
        self.free.push(place);
        if let Some(count) = self.of_port.get_mut(&ingress) {
            *count -= 1;
            if *count == 0 {
                self.of_port.remove(&ingress);
            }
        }
    }

    /// How many flows each port has beyond its share, where room is scarce.
    pub(super) fn excess(&self) -> HashMap<u16, usize> {
        if self.free.len() > RESERVE {
            return HashMap::new();
        }
        let share = self.share();
        let over = self.of_port.iter().filter(|(_, count)| **count > share);
        over.map(|(port, count)| (*port, count - share)).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn key(n: u32) -> KeyBytes {
        let mut key = KeyBytes::default();
        key[..4].copy_from_slice(&n.to_ne_bytes());
        key
    }

    /// As many new flows as the port may have; how many.
    fn fill(places: &mut Places, ingress: u16, from: u32) -> usize {
        let add = |n: &u32| places.take(ingress).map(|taken| places.put(&key(from + n), taken)).is_some();
        (0..).take_while(add).count()
    }

    /// What a sweep does about ports that have too much.
    fn sweep(places: &mut Places) {
        for (port, count) in places.excess() {
            let of_port = places.taken().filter(|(_, taken)| taken.ingress == port);
            let keys: Vec<KeyBytes> = of_port.map(|(key, _)| *key).take(count).collect();
            keys.iter().for_each(|key| places.remove(key));
        }
        places.left().into_iter().for_each(|taken| places.give_back(taken));
    }

    #[test]
    fn no_port_has_all_the_room_however_it_tries() {
        const PORTS: u16 = 32;
        let mut places = Places::new();
        let filled: Vec<usize> = (0..PORTS)
            .map(|port| {
                let filled = fill(&mut places, port, u32::from(port) << 16);
                sweep(&mut places);
                filled
            })
            .collect();
        assert_eq!(filled[..7], [OF_PORT_MAX; 7]);
        assert!(filled.iter().all(|&count| count > FLOWS / 64), "{filled:?}");
        let most = places.of_port.values().max().unwrap();
        assert!(*most <= FLOWS / 16, "the first ones have given up what is beyond their share: {most}");
        assert_eq!(places.of_port.len(), usize::from(PORTS));
    }

    #[test]
    fn a_flow_that_is_renewed_again_and_again_takes_the_room_of_its_port_alone() {
        let mut places = Places::new();
        let renew = |places: &mut Places| places.take(0).map(|taken| places.put(&key(1), taken)).is_some();
        let renewed = (0..100_000).take_while(|_| renew(&mut places)).count();
        assert_eq!(renewed, OF_PORT_MAX);
        assert_eq!(fill(&mut places, 1, 1 << 16), OF_PORT_MAX);
        places.left().into_iter().for_each(|taken| places.give_back(taken));
        assert!(renew(&mut places));
        assert_eq!(places.taken().count(), OF_PORT_MAX + 1);
    }
}
