//! A bounded concurrent table, `u64` to a non-zero `u64`: the memory behind the FDB.
//!
//! A bucket is one cache line of three entries, and a key may live in two buckets, its first by
//! preference, so that most lookups read one line. When both are full, entries are moved to their other
//! bucket (cuckoo hashing, [`relocate`]); a table filled to its capacity is three quarters full, far below
//! the 0.96 where two choices of three slots begin to fail.
//!
//! **Readers take no lock and wait for nobody**; they read again only when an entry came into the bucket
//! while they looked. What makes that right, with `Release` stores and `Acquire` loads throughout:
//! - A slot is empty when its value is 0. It is filled in the order key, version, value, version: a reader
//!   that pairs an old key with the new value sees a newer version after than before, and tries again.
//! - An entry is moved by filling the new slot and then emptying the old. A reader that found the key in
//!   neither bucket looks at the first one's version again: it is newer if the entry was moved there.
//! - To change the value of a key, or to empty its slot, is a single store.
//!
//! **Writers** lock both buckets of their key, the lower index first, for some tens of instructions.
//!
//! The hash is keyed, so that nobody outside can aim many keys at one bucket. It is not cryptographic:
//! the seed has to be secret and random, and hashes are never shown.

mod relocate;

#[cfg(test)]
mod loom;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use core::num::NonZeroU64;
use core::ops::Range;

use crate::sync::Ordering::{Acquire, Relaxed, Release};
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, spin_loop};
use relocate::Gate;

/// Entries of a bucket.
const WAYS: usize = 3;
/// Below this size chance alone could overfill two buckets. Under loom every atomic counts.
const MIN_BUCKETS: usize = if cfg!(loom) { 2 } else { 64 };
/// Bucket indexes have 32 bits.
const MAX_CAPACITY: usize = u32::MAX as usize;

/// The table.
pub(crate) struct Table {
    buckets: Box<[Bucket]>,
    seed: [u64; 2],
    len: AtomicUsize,
    gate: Gate,
}

/// No slot for a new key, even after moving others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// One cache line.
#[derive(Default)]
#[repr(align(64))]
struct Bucket {
    /// Held by the one writer.
    locked: AtomicBool,
    /// Grows when a slot is filled.
    version: AtomicU64,
    slots: [Slot; WAYS],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket>() == 64);

#[derive(Default)]
struct Slot {
    /// Means nothing while the value is 0.
    key: AtomicU64,
    /// 0: empty.
    value: AtomicU64,
}

/// A key, hashed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    key: u64,
    /// The first of its two buckets.
    first: u32,
    /// What the second is made of, where it comes to that.
    rest: u32,
}

impl Probe {
    pub(crate) const NONE: Self = Self { key: 0, first: 0, rest: 0 };

    /// Some 32 bits that depend on the key, and that nobody can foresee who does not know the seed.
    pub(crate) const fn spread(self) -> u32 {
        self.first ^ self.rest
    }
}

/// Both buckets of a key, locked.
struct Pair<'a> {
    first: Guard<'a>,
    second: Guard<'a>,
}

/// A locked bucket.
struct Guard<'a>(&'a Bucket);

impl Table {
    /// A table that holds at least `capacity` entries, in 28 bytes each. `seed` keys the hash.
    pub(crate) fn new(capacity: usize, seed: [u64; 2]) -> Self {
        // Four buckets of three slots for nine entries.
        let buckets = (capacity.min(MAX_CAPACITY).div_ceil(9) * 4).max(MIN_BUCKETS);
        Self {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            seed,
            len: AtomicUsize::new(0),
            gate: Gate::default(),
        }
    }

    /// Entries now.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// Buckets, for [`Self::scan`].
    pub(crate) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// The value of `key`.
    #[inline]
    pub(crate) fn get(&self, key: u64) -> Option<NonZeroU64> {
        self.find(self.hash(key))
    }

    /// Hashes `key`, and asks for the line that it is most likely in.
    #[inline]
    pub(crate) fn probe(&self, key: u64) -> Probe {
        let probe = self.hash(key);
        prefetch(&self.buckets[probe.first as usize]);
        probe
    }

    /// The value of a key that was hashed by [`Self::probe`] of this table.
    #[inline]
    pub(crate) fn get_probed(&self, probe: Probe) -> Option<NonZeroU64> {
        self.find(probe)
    }

    #[inline]
    fn find(&self, probe: Probe) -> Option<NonZeroU64> {
        let (key, first) = (probe.key, &self.buckets[probe.first as usize]);
        loop {
            let version = first.version.load(Acquire);
            if let Some(value) = first.find(key) {
                if first.version.load(Relaxed) == version {
                    return Some(value);
                }
                continue;
            }
            let second = &self.buckets[self.second(probe)];
            let second_version = second.version.load(Acquire);
            let found = second.find(key);
            if found.is_some() && second.version.load(Relaxed) != second_version {
                continue;
            }
            // A miss counts only if the entry was not moved from the second to the first meanwhile.
            if found.is_some() || first.version.load(Relaxed) == version {
                return found;
            }
        }
    }

    /// Gives `key` the value that `change` makes of its present one, or takes it out for `None`.
    /// `change` runs once with the key locked (keep it short, and let it touch no key of this table), or,
    /// when the key is absent and finds no place, not at all.
    pub(crate) fn upsert(
        &self,
        key: u64,
        change: impl FnOnce(Option<NonZeroU64>) -> Option<NonZeroU64>,
    ) -> Result<(), Full> {
        let (first, second) = self.candidates(key);
        // A place that was made for this key may be taken by another writer's; more than a few times in a
        // row means that the table is as good as full.
        for _ in 0..8 {
            let pair = self.lock(first, second);
            if let Some(slot) = pair.slot_of(key) {
                self.store(slot, change(slot.value()));
                return Ok(());
            }
            if let Some((bucket, slot)) = pair.empty_slot() {
                if let Some(value) = change(None) {
                    bucket.fill(slot, key, value);
                    self.len.fetch_add(1, Relaxed);
                }
                return Ok(());
            }
            drop(pair);
            if !self.make_room(first, second) {
                break;
            }
        }
        Err(Full)
    }

    /// As [`Self::upsert`], for a key that is present only; says whether it was.
    pub(crate) fn update(&self, key: u64, change: impl FnOnce(NonZeroU64) -> Option<NonZeroU64>) -> bool {
        let (first, second) = self.candidates(key);
        let pair = self.lock(first, second);
        let Some((slot, value)) = pair.slot_of(key).and_then(|s| Some((s, s.value()?))) else { return false };
        self.store(slot, change(value));
        true
    }

    /// Shows every entry of some buckets to `visit`, which may change the table. An entry that moves
    /// meanwhile may be missed or shown twice.
    pub(crate) fn scan(&self, buckets: Range<usize>, mut visit: impl FnMut(u64, NonZeroU64)) {
        for bucket in self.buckets.get(buckets).unwrap_or_default() {
            for (key, value) in bucket.entries().into_iter().flatten() {
                visit(key, value);
            }
        }
    }

    /// Shows every entry to `visit`, which may change entries or take them out. None is missed or shown
    /// twice: no entry moves meanwhile, so a new key may find no place.
    pub(crate) fn scan_all(&self, visit: impl FnMut(u64, NonZeroU64)) {
        let _closed = self.gate.close();
        self.scan(0..self.buckets.len(), visit);
    }

    /// The two buckets of `key`, never the same.
    #[inline]
    fn candidates(&self, key: u64) -> (usize, usize) {
        let probe = self.hash(key);
        (probe.first as usize, self.second(probe))
    }

    /// The first bucket of `key`, and what the second is made of.
    #[inline]
    fn hash(&self, key: u64) -> Probe {
        let hash = hash(key, self.seed);
        // Multiply and shift maps 32 bits of hash to 0..n evenly, for any n (Lemire 2019).
        let first = ((hash >> 32) * self.buckets.len() as u64) >> 32;
        Probe { key, first: first as u32, rest: hash as u32 }
    }

    /// The second bucket.
    #[inline]
    fn second(&self, probe: Probe) -> usize {
        let len = self.buckets.len() as u64;
        let distance = 1 + ((u64::from(probe.rest) * (len - 1)) >> 32);
        let second = u64::from(probe.first) + distance;
        (if second < len { second } else { second - len }) as usize
    }

    /// Locks two buckets, the lower index first, as every writer does.
    fn lock(&self, first: usize, second: usize) -> Pair<'_> {
        let (a, b) = (&self.buckets[first], &self.buckets[second]);
        if first < second {
            let first = a.lock();
            Pair { first, second: b.lock() }
        } else {
            let second = b.lock();
            Pair { first: a.lock(), second }
        }
    }

    /// Changes or empties a slot in use; its bucket is locked.
    fn store(&self, slot: &Slot, value: Option<NonZeroU64>) {
        if value.is_none() {
            self.len.fetch_sub(1, Relaxed);
        }
        if value != slot.value() {
            slot.value.store(value.map_or(0, NonZeroU64::get), Release);
        }
    }
}

impl Bucket {
    /// The value of `key`, to be trusted only if the version is still the one from before.
    #[inline]
    fn find(&self, key: u64) -> Option<NonZeroU64> {
        self.slots.iter().filter(|s| s.key.load(Acquire) == key).find_map(Slot::value)
    }

    /// A consistent copy.
    fn entries(&self) -> [Option<(u64, NonZeroU64)>; WAYS] {
        loop {
            let version = self.version.load(Acquire);
            let entries = self.slots.each_ref().map(|slot| {
                let key = slot.key.load(Acquire);
                Some((key, slot.value()?))
            });
            if self.version.load(Relaxed) == version {
                return entries;
            }
        }
    }

    fn empty_slot(&self) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.value().is_none())
    }

    /// The slot of `key`; the bucket is locked.
    fn slot_of(&self, key: u64) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.key.load(Relaxed) == key && slot.value().is_some())
    }

    fn lock(&self) -> Guard<'_> {
        while self.locked.compare_exchange(false, true, Acquire, Relaxed).is_err() {
            spin_loop();
        }
        Guard(self)
    }
}

impl Slot {
    #[inline]
    fn value(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.value.load(Acquire))
    }
}

impl Guard<'_> {
    /// Puts an entry into an empty slot of this bucket. The order of the stores is the readers' safety.
    fn fill(&self, slot: &Slot, key: u64, value: NonZeroU64) {
        slot.key.store(key, Release);
        self.bump();
        slot.value.store(value.get(), Release);
        self.bump();
    }

    fn bump(&self) {
        self.0.version.store(self.0.version.load(Relaxed) + 1, Release);
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.locked.store(false, Release);
    }
}

impl Pair<'_> {
    fn slot_of(&self, key: u64) -> Option<&Slot> {
        self.first.0.slot_of(key).or_else(|| self.second.0.slot_of(key))
    }

    fn empty_slot(&self) -> Option<(&Guard<'_>, &Slot)> {
        [&self.first, &self.second].into_iter().find_map(|guard| Some((guard, guard.0.empty_slot()?)))
    }
}

/// Asks the CPU for the bucket's line, without waiting for it.
#[inline]
fn prefetch(bucket: &Bucket) {
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    // SAFETY: the address is that of a live reference, and a prefetch reads nothing that the program could see.
    unsafe {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(bucket).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bucket;
}

/// Two rounds of multiply and fold, keyed by `seed`.
#[inline]
fn hash(key: u64, seed: [u64; 2]) -> u64 {
    const fn fold(a: u64, b: u64) -> u64 {
        let product = a as u128 * b as u128;
        (product >> 64) as u64 ^ product as u64
    }
    // The second factor is the golden ratio: any odd number without a pattern will do.
    fold(fold(key ^ seed[0], seed[1] | 1) ^ seed[0].rotate_left(32), 0x9e37_79b9_7f4a_7c15)
}
