#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::vhost_user::buffers::Buffers;
use crate::vhost_user::guest::{Buffer, Driver, GuestMemory, Kind, PHYSICAL};

pub(in super::super) mod killed;

/// A ring with both its sides.
struct Pair {
    guest: GuestMemory,
    driver: Driver,
    memory: std::sync::Arc<Memory>,
    setup: Setup,
    ring: Ring,
}

fn pair(kind: Kind, size: u16, direction: Direction, event_idx: bool) -> Pair {
    let mut guest = GuestMemory::new(8 << 20);
    let driver = Driver::new(&mut guest, kind, size);
    let memory = guest.shared();
    let setup = Setup { size, areas: driver.areas(), direction, packed: kind == Kind::Packed, event_idx };
    let ring = Ring::new(&memory, setup, driver.base()).unwrap();
    Pair { guest, driver, memory, setup, ring }
}

impl Pair {
    fn post(&mut self, lengths: &[u32], indirect: bool, seed: u8) -> Option<Vec<u8>> {
        let writable = self.setup.direction == Direction::ToGuest;
        let mut bytes = Vec::new();
        let mut chain = Vec::new();
        for &len in lengths {
            let address = self.guest.allocate(u64::from(len));
            let part: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(7).wrapping_add(seed)).collect();
            self.guest.write(address, &part);
            bytes.extend(part);
            chain.push(Buffer { address, len, writable });
        }
        self.driver.post(&mut self.guest, &chain, indirect).map(|()| bytes)
    }

    fn take(&mut self, limit: usize) -> Result<Taken, Broken> {
        let mut taken = Taken::default();
        self.ring.queue().take(&self.memory, limit, &mut taken).map(|()| taken)
    }

    /// Overwrites a descriptor of the ring.
    fn overwrite(&self, slot: u16, address: u64, len: u32, tail: [u16; 2]) {
        let place = self.driver.physical()[0] + 16 * u64::from(slot);
        let words = [address.to_le_bytes().to_vec(), len.to_le_bytes().to_vec()].concat();
        self.guest.write(place, &words);
        self.guest.write(place + 12, &tail[0].to_le_bytes());
        self.guest.write(place + 14, &tail[1].to_le_bytes());
    }

    fn content(&self, taken: &Taken, chain: &Chain) -> Vec<u8> {
        let mut bytes = vec![0; chain.len as usize];
        Buffers::new(&self.memory, taken.spans(chain)).read(&mut bytes).unwrap();
        bytes
    }
}

const KINDS: [Kind; 2] = [Kind::Split, Kind::Packed];

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::Split), Just(Kind::Packed)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever a driver posts comes out whole and in order, over many rounds of the ring.
    #[test]
    fn chains_are_read_as_they_were_posted(
        kind in kind(),
        size in prop_oneof![Just(4_u16), Just(16), Just(256)],
        rounds in prop::collection::vec(
            (prop::collection::vec((prop::collection::vec(1..200_u32, 1..5), any::<bool>()), 0..12), 1..9_usize, 0..3_usize),
            1..40,
        ),
    ) {
        let mut pair = pair(kind, size, Direction::FromGuest, false);
        let mut expected = std::collections::VecDeque::new();
        for (seed, (posts, limit, back)) in rounds.into_iter().enumerate() {
            for (lengths, indirect) in posts {
                expected.extend(pair.post(&lengths, indirect, seed as u8));
            }
            let taken = pair.take(limit).unwrap();
            prop_assert_eq!(taken.chains().len(), limit.min(expected.len()));
            // Some are given back, and come again.
            let kept = taken.chains().len().saturating_sub(back);
            let (used, unused) = taken.chains().split_at(kept);
            for chain in used {
                prop_assert_eq!(pair.content(&taken, chain), expected.pop_front().unwrap());
                pair.ring.queue().put(&pair.memory, chain, 0).unwrap();
            }
            pair.ring.queue().untake(unused);
            pair.ring.queue().publish(&pair.memory).unwrap();
            prop_assert_eq!(std::iter::from_fn(|| pair.driver.collect(&pair.guest)).count(), kept);
            prop_assert_eq!(pair.driver.outstanding(), expected.len());
            // Taken up anew at its position, it goes on as if nothing had been.
            let base = pair.ring.queue().base();
            prop_assert_eq!(base, pair.driver.base());
            pair.ring = Ring::new(&pair.memory, pair.setup, base).unwrap();
        }
    }

    /// Random bytes in ring and tables: an end in bounded time, whatever comes out.
    #[test]
    fn random_rings_do_no_harm(
        kind in kind(),
        direction in prop_oneof![Just(Direction::FromGuest), Just(Direction::ToGuest)],
        bytes in prop::collection::vec(any::<u8>(), 0..1200),
        near in prop::collection::vec((0..64_u16, 0..0x4000_u64, 0..0x1000_u32, 0..8_u16, 0..40_u16), 0..32),
        available in 0..40_u16,
    ) {
        let mut pair = pair(kind, 32, direction, true);
        pair.guest.write(pair.driver.physical()[0], &bytes);
        for (slot, offset, len, flags, next) in near {
            let round = if kind == Kind::Packed { 1 << 7 } else { 0 };
            let tail = if kind == Kind::Packed { [next, flags | round] } else { [flags, next] };
            pair.overwrite(slot % 32, PHYSICAL + offset, len, tail);
        }
        if kind == Kind::Split {
            pair.guest.write(pair.driver.physical()[1] + 2, &available.to_le_bytes());
        }
        for _ in 0..4 {
            let Ok(taken) = pair.take(64) else { break };
            for chain in taken.chains() {
                prop_assert!(taken.spans(chain).len() <= CHAIN);
                let len: u64 = taken.spans(chain).iter().map(|span| u64::from(span.len)).sum();
                prop_assert_eq!(len, u64::from(chain.len));
                if pair.ring.queue().put(&pair.memory, chain, chain.len).is_err() {
                    break;
                }
            }
            let _ = pair.ring.queue().publish(&pair.memory);
            let _ = pair.ring.queue().arm(&pair.memory);
        }
    }
}

#[test]
fn what_no_driver_may_write_breaks_the_ring() {
    let inside = PHYSICAL + 0x1000;
    let end = PHYSICAL + (8 << 20);
    // Flags and next of a split descriptor; a packed one has id and flags there.
    let cases: [(&str, u64, u32, u16, u16, Broken, Broken); 9] = [
        ("before the memory", PHYSICAL - 1, 10, 0, 0, Broken::Buffer, Broken::Buffer),
        ("behind it", end - 5, 10, 0, 0, Broken::Buffer, Broken::Buffer),
        ("at the end of all addresses", u64::MAX - 4, 10, 0, 0, Broken::Buffer, Broken::Buffer),
        ("to be written", inside, 10, WRITE, 0, Broken::Direction, Broken::Direction),
        ("a loop", inside, 10, NEXT, 1, Broken::Endless, Broken::Endless),
        ("out of the ring", inside, 10, NEXT, 16, Broken::Head, Broken::Endless),
        ("a table of no length", inside, 0, INDIRECT, 0, Broken::Table, Broken::Table),
        ("a table of half an entry", inside, 24, INDIRECT, 0, Broken::Table, Broken::Table),
        ("a table in a chain", inside, 16, INDIRECT | NEXT, 1, Broken::Table, Broken::Table),
    ];
    for (name, address, len, flags, next, split, packed) in cases {
        for (kind, expected) in KINDS.into_iter().zip([split, packed]) {
            let mut pair = pair(kind, 16, Direction::FromGuest, false);
            pair.post(&[10], false, 1).unwrap();
            if kind == Kind::Split {
                pair.overwrite(1, address, len, [flags, next]); // the driver begins there
            } else {
                (0..16).for_each(|slot| pair.overwrite(slot, address, len, [0, flags | 1 << 7]));
            }
            assert_eq!(pair.take(4).err(), Some(expected), "{name}, {kind:?}");
        }
    }
}

#[test]
fn tables_do_not_nest_and_have_an_end() {
    for kind in KINDS {
        let mut pair = pair(kind, 16, Direction::FromGuest, false);
        assert!(pair.post(&[1; CHAIN], true, 1).is_some());
        assert_eq!(pair.take(1).unwrap().chains()[0].len as usize, CHAIN);
        assert!(pair.post(&[1; CHAIN + 1], true, 1).is_some());
        assert_eq!(pair.take(1).err(), Some(Broken::Endless), "{kind:?}");
    }
    let mut pair = pair(Kind::Split, 16, Direction::FromGuest, false);
    pair.post(&[10], true, 1).unwrap();
    // The table's only entry points to a table.
    let table =
        pair.guest.read(pair.driver.physical()[0] + 16, 8).try_into().map(u64::from_le_bytes).unwrap();
    pair.guest.write(table + 12, &INDIRECT.to_le_bytes());
    assert_eq!(pair.take(1).err(), Some(Broken::Table));
}

#[test]
fn an_index_that_jumps_breaks_the_ring() {
    let mut pair = pair(Kind::Split, 16, Direction::FromGuest, false);
    (0..16).for_each(|_| drop(pair.post(&[10], false, 1).unwrap()));
    assert_eq!(pair.take(64).unwrap().chains().len(), 16);
    pair.guest.write(pair.driver.physical()[1] + 2, &33_u16.to_le_bytes());
    assert_eq!(pair.take(64).err(), Some(Broken::Index));
}

#[test]
fn rings_that_do_not_fit_are_refused() {
    for kind in KINDS {
        let pair = pair(kind, 16, Direction::ToGuest, true);
        let with = |change: &dyn Fn(&mut Setup)| {
            let mut setup = pair.setup;
            change(&mut setup);
            Ring::new(&pair.memory, setup, pair.driver.base()).err()
        };
        assert_eq!(with(&|_| ()), None);
        assert_eq!(with(&|setup| setup.size = 0), Some(BadRing::Size(0)));
        assert_eq!(with(&|setup| setup.size = 65535), Some(BadRing::Size(65535)));
        for area in 0..3 {
            assert_eq!(with(&|setup| setup.areas[area] += 1), Some(BadRing::Address), "{kind:?} {area}");
            assert_eq!(with(&|setup| setup.areas[area] = 0), Some(BadRing::Address), "{kind:?} {area}");
            assert_eq!(with(&|setup| setup.areas[area] += (8 << 20) - 16), Some(BadRing::Address));
        }
    }
    let pair = pair(Kind::Packed, 5, Direction::ToGuest, true);
    assert!(Ring::new(&pair.memory, pair.setup, 4).is_ok());
    assert!(matches!(Ring::new(&pair.memory, pair.setup, 5), Err(BadRing::Size(5))));
    let split = Setup { size: 5, packed: false, ..pair.setup };
    assert!(matches!(Ring::new(&pair.memory, split, 0), Err(BadRing::Size(5))));
}

#[test]
fn a_new_packed_ring_may_be_said_to_be_in_round_0() {
    let mut pair = pair(Kind::Packed, 4, Direction::FromGuest, false);
    for round in 0..2 {
        pair.ring = Ring::new(&pair.memory, pair.setup, 0).unwrap();
        for _ in 0..4 {
            pair.post(&[10], false, 1).unwrap();
            let taken = pair.take(1).unwrap();
            assert_eq!(taken.chains().len(), 1, "round {round}");
            pair.ring.queue().put(&pair.memory, &taken.chains()[0], 0).unwrap();
            pair.ring.queue().publish(&pair.memory).unwrap();
            assert!(pair.driver.collect(&pair.guest).is_some());
        }
    }
}

/// The first descriptor need not be a used one at the end of a round: here it was the second of a chain.
#[test]
fn a_chain_over_the_end_is_no_new_packed_ring() {
    let mut pair = pair(Kind::Packed, 4, Direction::FromGuest, false);
    for chain in [1, 1, 1, 2, 1, 1, 2, 1, 1, 1, 1] {
        let base = pair.ring.queue().base();
        pair.ring = Ring::new(&pair.memory, pair.setup, base).unwrap();
        pair.post(&vec![10; chain], false, 1).unwrap();
        let taken = pair.take(1).unwrap();
        assert_eq!(taken.chains().len(), 1, "at {base:#x}");
        pair.ring.queue().put(&pair.memory, &taken.chains()[0], 0).unwrap();
        pair.ring.queue().publish(&pair.memory).unwrap();
        assert!(pair.driver.collect(&pair.guest).is_some());
    }
}

#[test]
fn interrupts_and_kicks_come_when_they_are_wanted() {
    for kind in KINDS {
        let mut pair = pair(kind, 8, Direction::FromGuest, false);
        let use_one = |pair: &mut Pair| {
            pair.post(&[10], false, 1).unwrap();
            let taken = pair.take(1).unwrap();
            pair.ring.queue().put(&pair.memory, &taken.chains()[0], 0).unwrap();
            let wanted = pair.ring.queue().publish(&pair.memory).unwrap();
            assert!(pair.driver.collect(&pair.guest).is_some());
            wanted
        };
        assert!(!pair.driver.wants_kick(&pair.guest), "{kind:?}: it polls");
        assert!(use_one(&mut pair));
        pair.driver.set_interrupts(&pair.guest, false);
        assert!(!use_one(&mut pair));
        assert!(!pair.ring.queue().publish(&pair.memory).unwrap(), "nothing is published");
        assert!(!pair.ring.queue().arm(&pair.memory).unwrap());
        assert!(pair.driver.wants_kick(&pair.guest));
        pair.post(&[10], false, 1).unwrap();
        assert!(pair.ring.queue().arm(&pair.memory).unwrap(), "one came before");
        pair.ring.queue().disarm(&pair.memory).unwrap();
        assert!(!pair.driver.wants_kick(&pair.guest));
    }
}

#[test]
fn an_event_index_gives_one_interrupt() {
    for kind in KINDS {
        let mut pair = pair(kind, 8, Direction::FromGuest, true);
        // Over several rounds, so that events lie in the next one too.
        for round in 0..40 {
            pair.driver.set_event(&pair.guest, 2);
            let mut wanted = Vec::new();
            for _ in 0..4 {
                pair.post(&[10], false, 1).unwrap();
                let taken = pair.take(1).unwrap();
                pair.ring.queue().put(&pair.memory, &taken.chains()[0], 0).unwrap();
                wanted.push(pair.ring.queue().publish(&pair.memory).unwrap());
            }
            assert_eq!(wanted, [false, false, true, false], "{kind:?} {round}");
            assert_eq!(std::iter::from_fn(|| pair.driver.collect(&pair.guest)).count(), 4);
        }
    }
}
