//! The table under concurrent writers; see [`crate::sync::model`].

use alloc::sync::Arc;
use core::num::NonZeroU64;

use super::{Guard, Table};
use crate::sync::{model, thread};

/// Two buckets under loom, so that all keys have both, in one order or the other.
const SEED: [u64; 2] = [0, 0];

fn value(n: u64) -> NonZeroU64 {
    NonZeroU64::new(n).unwrap()
}

fn insert(table: &Table, key: u64, n: u64) {
    table.upsert(key, |_| Some(value(n))).unwrap();
}

/// `n` keys with the same first bucket as key 1, itself among them.
fn same_bucket(table: &Table, n: usize) -> impl Iterator<Item = u64> {
    let first = table.candidates(1).0;
    (1..).filter(move |&key| table.candidates(key).0 == first).take(n)
}

fn table() -> Arc<Table> {
    Arc::new(Table::new(1, SEED))
}

#[test]
fn loom_reader_never_sees_the_value_of_another_key() {
    model(|| {
        let table = table();
        let keys: [u64; 2] = core::array::from_fn(|i| same_bucket(&table, 2).nth(i).unwrap());
        insert(&table, keys[0], 10);
        let writer = thread::spawn({
            let table = Arc::clone(&table);
            move || {
                // The second key takes over the slot of the first.
                assert!(table.update(keys[0], |_| None));
                insert(&table, keys[1], 20);
            }
        });
        let first = table.get(keys[0]);
        assert!(first.is_none_or(|v| v == value(10)), "{first:?}");
        let second = table.get(keys[1]);
        assert!(second.is_none_or(|v| v == value(20)), "{second:?}");
        writer.join().unwrap();
        assert_eq!((table.get(keys[0]), table.get(keys[1])), (None, Some(value(20))));
    });
}

#[test]
fn loom_scan_never_pairs_a_key_with_the_value_of_another() {
    model(|| {
        let table = table();
        let keys: [u64; 2] = core::array::from_fn(|i| same_bucket(&table, 2).nth(i).unwrap());
        insert(&table, keys[0], 10);
        let writer = thread::spawn({
            let table = Arc::clone(&table);
            move || {
                assert!(table.update(keys[0], |_| None));
                insert(&table, keys[1], 20);
            }
        });
        table.scan(0..table.buckets(), |k, v| {
            assert!([(keys[0], value(10)), (keys[1], value(20))].contains(&(k, v)), "{k} {v}");
        });
        writer.join().unwrap();
    });
}

#[test]
fn loom_insert_of_one_key_by_two_gives_one_entry() {
    model(|| {
        let table = table();
        let other = thread::spawn({
            let table = Arc::clone(&table);
            move || table.upsert(1, |old| Some(value(old.map_or(1, |n| n.get() + 1)))).unwrap()
        });
        table.upsert(1, |old| Some(value(old.map_or(1, |n| n.get() + 1)))).unwrap();
        other.join().unwrap();
        assert_eq!((table.len(), table.get(1)), (1, Some(value(2))));
    });
}

#[test]
fn loom_removal_by_two_counts_once() {
    model(|| {
        let table = table();
        insert(&table, 1, 10);
        insert(&table, 2, 20);
        let other = thread::spawn({
            let table = Arc::clone(&table);
            move || table.update(1, |_| None)
        });
        let is_mine = table.update(1, |_| None);
        assert_ne!(is_mine, other.join().unwrap());
        assert_eq!((table.len(), table.get(1), table.get(2)), (1, None, Some(value(20))));
    });
}

/// An entry goes to its other bucket and another key takes its slot, or it comes from there.
fn moves_under_a_reader(to_other: bool) {
    model(move || {
        let table = table();
        let keys: [u64; 2] = core::array::from_fn(|i| same_bucket(&table, 2).nth(i).unwrap());
        let (first, second) = table.candidates(keys[0]);
        insert(&table, keys[0], 10);
        if !to_other {
            assert!(table.relocate(keys[0], first, second));
        }
        let writer = thread::spawn({
            let table = Arc::clone(&table);
            move || {
                let (from, to) = if to_other { (first, second) } else { (second, first) };
                assert!(table.relocate(keys[0], from, to));
                insert(&table, keys[1], 20);
            }
        });
        assert_eq!(table.get(keys[0]), Some(value(10)));
        let second = table.get(keys[1]);
        assert!(second.is_none_or(|v| v == value(20)), "{second:?}");
        writer.join().unwrap();
        assert_eq!(
            (table.len(), table.get(keys[0]), table.get(keys[1])),
            (2, Some(value(10)), Some(value(20)))
        );
    });
}

#[test]
fn loom_reader_finds_an_entry_that_moves_to_its_other_bucket() {
    moves_under_a_reader(true);
}

#[test]
fn loom_reader_finds_an_entry_that_moves_to_its_first_bucket() {
    moves_under_a_reader(false);
}

#[test]
fn loom_whole_scan_misses_nothing_while_another_key_wants_room() {
    model(|| {
        let table = table();
        let (first, second) = table.candidates(1);
        // The first bucket is full; making room means a move.
        let mut keys = same_bucket(&table, 4);
        let stay: [u64; 3] = core::array::from_fn(|_| keys.next().unwrap());
        for key in stay {
            insert(&table, key, 10);
        }
        let writer = thread::spawn({
            let table = Arc::clone(&table);
            move || {
                if let Some(_pass) = table.gate.pass() {
                    assert!(table.relocate(stay[0], first, second));
                }
            }
        });
        let mut seen = 0;
        table.scan_all(|_, _| seen += 1);
        writer.join().unwrap();
        assert_eq!((seen, table.len()), (3, 3));
    });
}

#[test]
fn loom_locks_in_either_order_do_not_deadlock() {
    model(|| {
        let table = table();
        let (first, second) = table.candidates(1);
        let other = thread::spawn({
            let table = Arc::clone(&table);
            move || drop(table.lock(second, first))
        });
        let pair = table.lock(first, second);
        let locked =
            |guard: &Guard<'_>, bucket: usize| core::ptr::eq(guard.0, &raw const table.buckets[bucket]);
        assert!(locked(&pair.first, first) && locked(&pair.second, second));
        drop(pair);
        other.join().unwrap();
    });
}
