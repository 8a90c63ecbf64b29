//! The table in one thread.

#![cfg(not(loom))]

use core::num::NonZeroU64;
use std::collections::HashMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::{Full, Table};

const SEED: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

fn value(n: u64) -> NonZeroU64 {
    NonZeroU64::new(n).unwrap()
}

/// Distinct keys without a pattern (an odd multiplication is a bijection).
fn keys(n: u64) -> impl Iterator<Item = u64> {
    (0..n).map(|i| (i ^ 0x5bd1_e995).wrapping_mul(0xd6e8_feb8_6659_fd93))
}

fn filled(capacity: usize, entries: u64) -> (Table, usize) {
    let table = Table::new(capacity, SEED);
    let refused =
        keys(entries).filter(|&key| table.upsert(key, |_| Some(value(key | 1))) == Err(Full)).count();
    (table, refused)
}

#[derive(Clone, Debug)]
enum Op {
    Get(u64),
    Insert(u64, u64),
    Update(u64, u64),
    Remove(u64),
}

fn op() -> impl Strategy<Value = Op> {
    // Few enough keys to meet again, key 0 among them, more than the smallest table has slots.
    let key = 0..250_u64;
    prop_oneof![
        key.clone().prop_map(Op::Get),
        (key.clone(), 1..u64::MAX).prop_map(|(k, v)| Op::Insert(k, v)),
        (key.clone(), 1..u64::MAX).prop_map(|(k, v)| Op::Update(k, v)),
        key.prop_map(Op::Remove),
    ]
}

proptest! {
    #[test]
    fn table_is_a_map(ops in prop::collection::vec(op(), 0..600)) {
        let table = Table::new(100, SEED);
        let mut model = HashMap::new();
        for op in ops {
            match op {
                Op::Get(k) => prop_assert_eq!(table.get(k), model.get(&k).copied()),
                Op::Insert(k, v) => {
                    let is_in = table.upsert(k, |old| { assert_eq!(old, model.get(&k).copied()); Some(value(v)) });
                    // Beyond its capacity it may be full, but not for a key that it has.
                    prop_assert!(is_in.is_ok() || model.len() >= 100 && !model.contains_key(&k));
                    if is_in.is_ok() { model.insert(k, value(v)); }
                }
                Op::Update(k, v) => {
                    let was_there = table.update(k, |_| Some(value(v)));
                    prop_assert_eq!(was_there, model.contains_key(&k));
                    model.entry(k).and_modify(|old| *old = value(v));
                }
                Op::Remove(k) => prop_assert_eq!(table.update(k, |_| None), model.remove(&k).is_some()),
            }
            prop_assert_eq!(table.len(), model.len());
        }
        let mut seen = HashMap::new();
        table.scan_all(|k, v| assert!(seen.insert(k, v).is_none()));
        prop_assert_eq!(seen, model);
    }
}

#[test]
fn a_million_keys_fit_a_capacity_of_a_million() {
    let (table, refused) = filled(1_000_000, 1_000_000);
    assert_eq!((table.len(), refused), (1_000_000, 0));
    assert!(keys(1_000_000).all(|key| table.get(key) == Some(value(key | 1))));
}

#[test]
fn every_small_capacity_is_kept() {
    for capacity in 0..500 {
        let (table, refused) = filled(capacity, capacity as u64);
        assert_eq!((table.len(), refused), (capacity, 0));
    }
}

#[test]
fn refusal_beyond_the_capacity_leaves_the_rest_intact() {
    let (table, refused) = filled(100, 1_000);
    assert_eq!(table.len(), 1_000 - refused);
    assert!(table.len() >= 64 * super::WAYS * 9 / 10, "cuckoo moves fill nine tenths, got {}", table.len());
    assert_eq!(keys(1_000).filter(|&key| table.get(key) == Some(value(key | 1))).count(), table.len());
}

#[test]
fn keys_that_share_a_bucket_of_one_seed_part_with_another() {
    let aimed: Vec<u64> = {
        let victim = Table::new(100_000, SEED);
        keys(10_000_000).filter(|&key| victim.candidates(key).0 == 7).take(100).collect()
    };
    assert_eq!(aimed.len(), 100);
    let other = Table::new(100_000, [SEED[0], SEED[1] ^ 2]);
    let refused = aimed.iter().filter(|&&key| other.upsert(key, |_| Some(value(1))).is_err()).count();
    assert_eq!(refused, 0);
    let mut buckets: Vec<_> = aimed.iter().map(|&key| other.candidates(key).0).collect();
    buckets.sort_unstable();
    buckets.dedup();
    assert!(buckets.len() > 90, "{} buckets of 100 keys", buckets.len());
}

#[test]
fn both_buckets_of_a_key_are_never_the_same() {
    for capacity in [0, 1_000, 1_000_000] {
        let table = Table::new(capacity, [0, 0]);
        for key in keys(10_000) {
            let (first, second) = table.candidates(key);
            assert!(first != second && first < table.buckets() && second < table.buckets());
        }
    }
}

#[test]
fn nothing_moves_during_a_whole_scan_and_refusal_ends_with_it() {
    let (table, _) = filled(100, 140);
    let mut refused = None;
    table.scan_all(|_, _| {
        refused =
            refused.or_else(|| keys(10_000).skip(140).find(|&key| table.upsert(key, |_| None).is_err()));
    });
    let refused = refused.unwrap();
    assert_eq!(table.upsert(refused, |_| Some(value(1))), Ok(()));
}
