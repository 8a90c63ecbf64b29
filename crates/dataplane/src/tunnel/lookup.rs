//! Numbers to small values, made once for a snapshot.

use alloc::boxed::Box;
use alloc::vec;

/// An open-addressing table, at most half full. Where anyone may be a peer, strangers choose keys: which of them fall into one
/// place is the seed's secret.
#[derive(Debug, Clone)]
pub(super) struct Lookup<V> {
    slots: Box<[Option<(u128, V)>]>,
    seed: [u64; 2],
}

impl<V: Copy> Lookup<V> {
    /// A later value of the same key is in vain.
    pub(super) fn new(entries: impl ExactSizeIterator<Item = (u128, V)>, seed: [u64; 2]) -> Self {
        let mut slots = vec![None; (entries.len() * 2).next_power_of_two()].into_boxed_slice();
        for (key, value) in entries {
            let mut at = home(key, slots.len(), seed);
            while slots[at].is_some_and(|(other, _)| other != key) {
                at = (at + 1) & (slots.len() - 1);
            }
            slots[at].get_or_insert((key, value));
        }
        Self { slots, seed }
    }

    #[inline]
    pub(super) fn get(&self, key: u128) -> Option<V> {
        let mut at = home(key, self.slots.len(), self.seed);
        // One slot is free at least.
        loop {
            match self.slots.get(at).copied().flatten() {
                Some((other, value)) if other == key => return Some(value),
                Some(_) => at = (at + 1) & (self.slots.len() - 1),
                None => return None,
            }
        }
    }
}

/// Where a key is looked for first, in a table of a power of two of slots: both halves of a product that depends on all of
/// the key and of the seed.
#[inline]
const fn home(key: u128, slots: usize, [s0, s1]: [u64; 2]) -> usize {
    // The digits of pi, so that a seed of zeros is one too.
    let low = key as u64 ^ s0 ^ 0x243f_6a88_85a3_08d3;
    let high = (key >> 64) as u64 ^ s1 ^ 0x1319_8a2e_0370_7344;
    let product = low as u128 * high as u128;
    ((product >> 64) as u64 ^ product as u64) as usize & (slots - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_table_has_nothing() {
        assert_eq!(Lookup::<u8>::new([].into_iter(), [0; 2]).get(0), None);
    }

    proptest! {
        #[test]
        fn it_is_a_map(entries: Vec<(u8, u16)>, others: Vec<u128>, seed: u64) {
            let table = Lookup::new(entries.iter().map(|&(key, value)| (u128::from(key), value)), [seed, !seed]);
            let mut model = HashMap::new();
            for &(key, value) in &entries {
                model.entry(u128::from(key)).or_insert(value);
            }
            for key in (0..=255).chain(others) {
                prop_assert_eq!(table.get(key), model.get(&key).copied());
            }
        }
    }

    /// With `peers-any` the keys are not the operator's: whoever can send from many addresses chooses them.
    #[test]
    fn no_address_costs_a_long_search_whoever_chose_them() {
        const PEERS: usize = 4096;
        let slots = PEERS * 2;
        // Addresses of one /8, as a stranger beyond a gateway may have.
        let keys = (0x0a00_0000_u32..=0x0aff_ffff)
            .map(|a| core::net::Ipv4Addr::from_bits(a).to_ipv6_mapped().to_bits())
            .filter(|key| home(*key, slots, [0; 2]) < 4)
            .take(PEERS);
        let all: Vec<(u128, u16)> = keys.zip(0..).collect();
        assert_eq!(all.len(), PEERS);
        let table = Lookup::new(all.iter().copied(), [1, 2]);
        let run = table.slots.split(Option::is_none).map(<[_]>::len).max().unwrap();
        assert!(run < 64, "the last peer, and any stranger of the same place, is looked for in {run} slots");
    }
}
