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

fn table() -> Arc<Table> {
    Arc::new(Table::new(1, SEED))
}

/// Runs `write` here while `read` runs in a second thread. Not the other way round: loom tries a switch at
/// an access only when its *last* rival is of another thread, and writers read what they are about to
/// write, so a reader that comes first would hide behind them.
fn at_once(table: &Arc<Table>, read: impl FnOnce(&Table) + Send + 'static, write: impl FnOnce(&Table)) {
    let reader = thread::spawn({
        let table = Arc::clone(table);
        move || read(&table)
    });
    write(table);
    reader.join().unwrap();
}

/// Two keys for one slot: the first is in it with value 10, the slot is in its first or in its second
/// bucket; the first bucket of the second is this one.
fn rivals(table: &Table, is_in_second: bool) -> [u64; 2] {
    let (first, second) = table.candidates(1);
    insert(table, 1, 10);
    if is_in_second {
        assert!(table.relocate(1, first, second));
    }
    let bucket = if is_in_second { second } else { first };
    [1, (2..).find(|&key| table.candidates(key).0 == bucket).unwrap()]
}

/// The second of [`rivals`] takes over the slot of the first, with value 20.
fn take_over(table: &Table, keys: [u64; 2]) {
    assert!(table.update(keys[0], |_| None));
    insert(table, keys[1], 20);
}

/// A reader looks for one of two rivals, and may find nothing or its value.
fn take_over_under_a_reader(is_in_second: bool, sought: usize) {
    model(move || {
        let table = table();
        let keys = rivals(&table, is_in_second);
        let read = move |table: &Table| {
            let found = table.get(keys[sought]);
            assert!(found.is_none_or(|v| v == value([10, 20][sought])), "{found:?}");
        };
        at_once(&table, read, |table| take_over(table, keys));
        assert_eq!((table.get(keys[0]), table.get(keys[1])), (None, Some(value(20))));
    });
}

#[test]
fn loom_reader_never_sees_the_value_of_the_next_key() {
    take_over_under_a_reader(false, 0);
    take_over_under_a_reader(true, 0);
}

#[test]
fn loom_reader_never_sees_the_value_of_the_previous_key() {
    take_over_under_a_reader(false, 1);
    take_over_under_a_reader(true, 1);
}

#[test]
fn loom_scan_never_pairs_a_key_with_the_value_of_another() {
    model(|| {
        let table = table();
        let keys = rivals(&table, false);
        let first = table.candidates(keys[0]).0;
        let read = move |table: &Table| {
            table.scan(first..first + 1, |k, v| {
                assert!([(keys[0], value(10)), (keys[1], value(20))].contains(&(k, v)), "{k} {v}");
            });
        };
        at_once(&table, read, |table| take_over(table, keys));
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

/// An entry moves between its buckets, once or to and fro, while a reader looks for it.
fn moves_under_a_reader(is_in_second: bool, moves: usize) {
    model(move || {
        let table = table();
        let keys = rivals(&table, is_in_second);
        let (first, second) = table.candidates(keys[0]);
        let (mut from, mut to) = if is_in_second { (second, first) } else { (first, second) };
        let mut relocate = |table: &Table| {
            assert!(table.relocate(keys[0], from, to));
            core::mem::swap(&mut from, &mut to);
        };
        let read = move |table: &Table| assert_eq!(table.get(keys[0]), Some(value(10)));
        at_once(&table, read, |table| (0..moves).for_each(|_| relocate(table)));
        assert_eq!((table.len(), table.get(keys[0])), (1, Some(value(10))));
    });
}

#[test]
fn loom_reader_finds_an_entry_that_moves_to_its_other_bucket() {
    moves_under_a_reader(false, 1);
}

#[test]
fn loom_reader_finds_an_entry_that_moves_to_its_first_bucket() {
    moves_under_a_reader(true, 1);
}

#[test]
fn loom_reader_finds_an_entry_that_moves_to_and_fro() {
    moves_under_a_reader(false, 2);
    moves_under_a_reader(true, 2);
}

#[test]
fn loom_whole_scan_misses_nothing_while_an_entry_wants_to_move() {
    model(|| {
        let table = table();
        let keys = rivals(&table, false);
        let (first, second) = table.candidates(keys[0]);
        let read = move |table: &Table| {
            let mut seen = 0;
            table.scan_all(|_, _| seen += 1);
            assert_eq!(seen, 1);
        };
        at_once(&table, read, |table| {
            if let Some(_pass) = table.gate.pass() {
                assert!(table.relocate(keys[0], first, second));
            }
        });
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
