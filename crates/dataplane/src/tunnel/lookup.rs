//! Numbers to small values, made once for a snapshot.

use alloc::boxed::Box;
use alloc::vec;

/// An open-addressing table, at most half full. Its keys are the operator's, so no secret is needed.
#[derive(Debug, Clone)]
pub(super) struct Lookup<V>(Box<[Option<(u128, V)>]>);

impl<V: Copy> Lookup<V> {
    /// A later value of the same key is in vain.
    pub(super) fn new(entries: impl ExactSizeIterator<Item = (u128, V)>) -> Self {
        let mut slots = vec![None; (entries.len() * 2).next_power_of_two()].into_boxed_slice();
        for (key, value) in entries {
            let mut at = home(key, slots.len());
            while slots[at].is_some_and(|(other, _)| other != key) {
                at = (at + 1) & (slots.len() - 1);
            }
            slots[at].get_or_insert((key, value));
        }
        Self(slots)
    }

    #[inline]
    pub(super) fn get(&self, key: u128) -> Option<V> {
        let mut at = home(key, self.0.len());
        // One slot is free at least.
        loop {
            match self.0.get(at).copied().flatten() {
                Some((other, value)) if other == key => return Some(value),
                Some(_) => at = (at + 1) & (self.0.len() - 1),
                None => return None,
            }
        }
    }
}

/// Where a key is looked for first, in a table of a power of two of slots.
#[inline]
const fn home(key: u128, slots: usize) -> usize {
    // The golden ratio, as a fraction of 2^64: neighbours come to lie far apart.
    let spread = (key as u64 ^ (key >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (spread >> 32) as usize & (slots - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_table_has_nothing() {
        assert_eq!(Lookup::<u8>::new([].into_iter()).get(0), None);
    }

    proptest! {
        #[test]
        fn it_is_a_map(entries: Vec<(u8, u16)>, others: Vec<u128>) {
            let table = Lookup::new(entries.iter().map(|&(key, value)| (u128::from(key), value)));
            let mut model = HashMap::new();
            for &(key, value) in &entries {
                model.entry(u128::from(key)).or_insert(value);
            }
            for key in (0..=255).chain(others) {
                prop_assert_eq!(table.get(key), model.get(&key).copied());
            }
        }
    }
}
