//! Packed rings whose device is killed between any two of its stores, and taken up by another that knows the record,
//! and of the front end only where the ring was in the beginning.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::vhost_user::record::Records;
use crate::vhost_user::store::death;

use super::*;

/// A guest, its ring, and the record of it.
struct Machine {
    pair: Pair,
    record: Record,
    /// What the front end says.
    said: u32,
    _folder: tempfile::TempDir,
    /// What was posted and not collected.
    posted: VecDeque<Vec<u8>>,
    seed: u8,
}

impl Machine {
    fn new(size: u16) -> Self {
        death::after(None); // a case that failed may have left it
        let folder = tempfile::tempdir().unwrap();
        let records = Arc::new(Records::open(&folder.path().join("record"), 1).unwrap());
        let record = records.ring(0).unwrap();
        let pair = pair(Kind::Packed, size, Direction::FromGuest, false);
        let said = pair.driver.base();
        let mut machine = Self { pair, record, said, _folder: folder, posted: VecDeque::new(), seed: 0 };
        machine.take_up();
        machine
    }

    /// A device that never saw the ring takes it up.
    fn take_up(&mut self) {
        let start = Start { record: Some(self.record.clone()), ..Start::from(self.said) };
        self.pair.ring = Ring::new(&self.pair.memory, self.pair.setup, start).unwrap();
    }

    fn post(&mut self, lengths: &[u32], indirect: bool) {
        self.seed = self.seed.wrapping_add(1);
        self.posted.extend(self.pair.post(lengths, indirect, self.seed));
    }

    /// Takes chains, each of which has to be the next, uses all but some, and publishes.
    fn work(&mut self, limit: usize, back: usize) {
        let mut waiting = self.pair.driver.clone();
        let used_before = std::iter::from_fn(|| waiting.collect(&self.pair.guest)).count();
        let taken = self.pair.take(limit).unwrap();
        let (used, unused) = taken.chains().split_at(taken.chains().len().saturating_sub(back));
        for (chain, expected) in used.iter().zip(self.posted.iter().skip(used_before)) {
            assert_eq!(self.pair.content(&taken, chain), *expected);
            self.pair.ring.queue().put(&self.pair.memory, chain, 0).unwrap();
        }
        self.pair.ring.queue().untake(unused);
        self.pair.ring.queue().publish(&self.pair.memory).unwrap();
    }

    /// Takes back what was used, which has to be what was posted first: the driver compares the ids.
    fn collect(&mut self, limit: usize) {
        for _ in 0..limit {
            if self.pair.driver.collect(&self.pair.guest).is_none() {
                break;
            }
            self.posted.pop_front().unwrap();
        }
    }

    /// Everything that was posted is used, and the ring goes on over its end.
    fn drain(&mut self) {
        for _ in 0..3 * self.pair.setup.size {
            self.post(&[10, 20], false);
            self.work(BATCH, 0);
            self.collect(usize::MAX);
            assert_eq!((self.posted.len(), self.pair.driver.outstanding()), (0, 0));
        }
    }
}

/// What a guest and its device do in turn.
#[derive(Clone, Debug)]
enum Step {
    Post(Vec<u32>, bool),
    Work { limit: usize, back: usize },
    Collect(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (prop::collection::vec(1..40_u32, 1..4), any::<bool>()).prop_map(|(l, i)| Step::Post(l, i)),
        2 => (1..9_usize, 0..3_usize).prop_map(|(limit, back)| Step::Work { limit, back }),
        1 => (1..6_usize).prop_map(Step::Collect),
    ]
}

impl Machine {
    fn run(&mut self, step: &Step) {
        match step {
            Step::Post(lengths, indirect) => self.post(lengths, *indirect),
            Step::Work { limit, back } => self.work(*limit, *back),
            Step::Collect(limit) => self.collect(*limit),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Every chain is used once, in its turn, however often and wherever the device is killed, be it at being taken up.
    #[test]
    fn a_killed_device_loses_and_repeats_nothing(
        size in prop_oneof![Just(4_u16), Just(5), Just(16)],
        steps in prop::collection::vec(step(), 1..150),
        kills in prop::collection::vec(0..60_usize, 1..20),
    ) {
        let mut machine = Machine::new(size);
        let mut kills = kills.into_iter();
        kills.next().into_iter().for_each(|stores| death::after(Some(stores)));
        for step in &steps {
            machine.run(step);
            while death::came() {
                // What the guest does meanwhile.
                machine.collect(2);
                machine.post(&[7], false);
                kills.next().into_iter().for_each(|stores| death::after(Some(stores)));
                machine.take_up();
            }
        }
        death::after(None);
        machine.take_up();
        machine.drain();
    }
}

/// Batches of one, of some over the ring's end, and of chains that take up several entries: killed after each store.
#[test]
fn wherever_a_device_is_killed_it_is_taken_up_right() {
    let batches: [&[usize]; 5] = [&[1], &[1, 1, 1], &[2, 1], &[3, 2], &[1, 2, 1, 1]];
    for stores in 0.. {
        let mut machine = Machine::new(5);
        death::after(Some(stores));
        let mut killed = false;
        for batch in batches {
            batch.iter().for_each(|entries| machine.post(&vec![9; *entries], false));
            machine.work(BATCH, 0);
            if death::came() {
                killed = true;
                machine.take_up();
                machine.work(BATCH, 0);
            }
            machine.collect(usize::MAX);
            assert_eq!(machine.posted.len(), 0, "killed after {stores} stores");
        }
        death::after(None);
        machine.drain();
        if !killed {
            assert!(stores > 20, "{stores}");
            break;
        }
    }
}

/// More chains than the log has room for go in several batches; the guest is interrupted as for one.
#[test]
fn a_log_that_is_full_is_no_limit() {
    let mut machine = Machine::new(1024);
    (0..1000).for_each(|_| machine.post(&[5], false));
    for part in 0..1000 / BATCH {
        // Interrupts are not wanted for the last parts.
        machine.pair.driver.set_interrupts(&machine.pair.guest, part < 8);
        let taken = machine.pair.take(BATCH).unwrap();
        for chain in taken.chains() {
            machine.pair.ring.queue().put(&machine.pair.memory, chain, 0).unwrap();
        }
    }
    machine.collect(usize::MAX);
    assert!((40..300).contains(&machine.posted.len()), "{} wait to be published", machine.posted.len());
    assert!(machine.pair.ring.queue().publish(&machine.pair.memory).unwrap());
    assert!(!machine.pair.ring.queue().publish(&machine.pair.memory).unwrap());
    machine.work(BATCH, 0);
    machine.collect(usize::MAX);
    assert_eq!(machine.posted.len(), 0);
}

/// A machine whose ring went on for some chains since the front end said where it is.
fn moved(size: u16, chains: usize) -> Machine {
    let mut machine = Machine::new(size);
    for _ in 0..chains {
        machine.post(&[5], false);
        machine.work(1, 0);
        machine.collect(1);
    }
    machine
}

impl Machine {
    /// Where a device takes up the ring.
    fn position(&mut self, said: u32) -> u32 {
        self.said = said;
        self.take_up();
        self.pair.ring.queue().base()
    }
}

#[test]
fn a_record_of_another_ring_is_not_used() {
    const START: u32 = 0x8000_8000;
    let at = |slot: u32| START + slot * 0x1_0001;
    assert_eq!(moved(16, 3).position(START), at(3));
    assert_eq!(moved(16, 3).position(at(1)), at(1), "the front end knows of another start");
    let mut machine = moved(16, 3);
    machine.pair.setup.areas[1] += 16;
    assert_eq!(machine.position(START), at(0), "another place");
    let mut machine = moved(16, 3);
    machine.pair.setup.size = 8;
    assert_eq!(machine.position(START), at(0), "another size");
    let mut machine = moved(16, 3);
    machine.record.erase();
    assert_eq!(machine.position(START), at(0), "the position was told");
    // A device without a record was there meanwhile.
    let mut machine = moved(16, 3);
    machine.pair.ring = Ring::new(&machine.pair.memory, machine.pair.setup, START).unwrap();
    assert_eq!(machine.position(START), at(0));
    // It was of a split ring meanwhile.
    let mut machine = moved(16, 3);
    let split = Setup { packed: false, ..machine.pair.setup };
    let start = Start { record: Some(machine.record.clone()), ..Start::from(0) };
    drop(Ring::new(&machine.pair.memory, split, start));
    assert_eq!(machine.position(START), at(0));
    // This process knows better.
    let mut machine = moved(16, 3);
    let record = Some(machine.record.clone());
    let start = Start { base: at(5), said: START, known: true, record };
    machine.pair.ring = Ring::new(&machine.pair.memory, machine.pair.setup, start).unwrap();
    assert_eq!(machine.position(START), at(5), "and so does the one after it");
}

/// The guest is started anew while nobody is there: the same place, the same beginning, and nothing in it but what it has
/// posted since.
#[test]
fn a_record_of_a_ring_that_was_set_up_anew_is_not_used() {
    for chains in [1, 3, 4, 5, 8, 11] {
        let mut machine = moved(4, chains);
        machine.pair.guest.reset();
        machine.posted.clear();
        machine.pair.driver = Driver::new(&mut machine.pair.guest, Kind::Packed, 4);
        machine.post(&[6], false);
        machine.take_up();
        machine.drain();
    }
}

/// Chains over the ring's end, until no descriptor in the ring says that it was used.
#[test]
fn a_ring_without_a_used_descriptor_need_not_be_new() {
    let mut machine = Machine::new(4);
    for entries in [2, 2, 2, 1, 2] {
        machine.post(&vec![5; entries], false);
        machine.work(1, 0);
        machine.collect(1);
    }
    (0..3).for_each(|_| machine.post(&[5], false));
    machine.take_up();
    machine.work(BATCH, 0);
    machine.collect(usize::MAX);
    assert_eq!(machine.posted.len(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever is in a record, the ring is taken up somewhere in it.
    #[test]
    fn a_record_of_anything_does_no_harm(
        writes in prop::collection::vec((prop_oneof![0..64_usize, 64..4096_usize], prop::collection::vec(any::<u8>(), 1..40)), 1..8),
        batch in 1..6_usize,
        stores in 0..20_usize,
    ) {
        let mut machine = moved(8, 3);
        (0..batch).for_each(|_| machine.post(&[5], false));
        death::after(Some(stores));
        machine.work(BATCH, 0);
        death::after(None);
        for (place, bytes) in writes {
            machine.record.overwrite(place, &bytes);
        }
        let base = machine.position(machine.said);
        prop_assert!(base & 0x7fff < 8);
        for _ in 0..4 {
            let Ok(taken) = machine.pair.take(64) else { break };
            for chain in taken.chains() {
                let _ = machine.pair.ring.queue().put(&machine.pair.memory, chain, 0);
            }
            let _ = machine.pair.ring.queue().publish(&machine.pair.memory);
        }
    }
}
