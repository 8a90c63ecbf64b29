//! Where packed rings are, in a file that outlives the process.
//!
//! A packed ring does not hold its position. A front end that loses its back end without a word cannot know it either,
//! and says again where the ring was when it was started last. So it is written down here, a page for each ring of a
//! port: which ring it is, by all that the front end said of it; its position; and what stood in the descriptors that
//! were used and not published yet, so that they can be made available again. `ring::packed` says when what is written.
//!
//! The pages are mapped, and the kernel keeps them when the process ends, in whatever way. They are allocated before
//! that: a write to a mapped page for which there is no memory would be a SIGBUS. (One that comes all the same, since the
//! file was cut, costs the records and no more: see `vanish`.) A file has one owner at a time, by a lock that the kernel
//! takes back from a process that ends. What is read is checked before it is used: another process may have written it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::fcntl::{Flock, FlockArg, posix_fallocate};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

use super::store::store;
use super::vanish::Watch;
use super::{MOST_PAIRS, identity};

/// Bytes of a ring's record.
const PAGE: usize = 4096;
/// In the first word of one that is valid: the version of what follows.
const VALID: u64 = u64::from_ne_bytes(*b"vswring1");

// Places in a page.
const IDENTITY: usize = 8;
const STATE: usize = 40;
const LOG: usize = 64;
const ENTRY: usize = 16;

/// Descriptors that a log has room for.
pub(super) const ENTRIES: u16 = ((PAGE - LOG) / ENTRY) as u16;

/// All that a front end says of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) areas: [u64; 3],
    pub(super) size: u16,
    /// The position at which it was started, by the front end's word.
    pub(super) said: u16,
}

impl Identity {
    fn words(&self) -> [u64; 4] {
        let [a, b, c] = self.areas;
        [a, b, c, u64::from(self.size) | u64::from(self.said) << 16]
    }
}

/// Where a ring is; positions as on the wire. In one word, which changes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    /// What the guest has seen for certain.
    pub(super) position: u16,
    /// Where the batch ends that is just being published; `position` while none is.
    pub(super) next: u16,
    /// Entries of the log that may have to be undone.
    pub(super) count: u16,
}

impl State {
    /// Between two batches.
    pub(super) const fn at(position: u16) -> Self {
        Self { position, next: position, count: 0 }
    }

    const fn word(self) -> u64 {
        self.position as u64 | (self.next as u64) << 16 | (self.count as u64) << 32
    }

    const fn from_word(word: u64) -> Self {
        Self { position: word as u16, next: (word >> 16) as u16, count: (word >> 32) as u16 }
    }
}

/// The records of a port's rings.
pub(super) struct Records {
    path: PathBuf,
    /// That there is room for; some may be of a port that had more.
    rings: usize,
    _watch: Watch, // dropped before the mapping
    mapping: MmapRegion,
    lock: Flock<File>, // dropped after the mapping
}

impl Records {
    /// Opens the file, which is made where there is none, for so many rings.
    ///
    /// # Errors
    /// Another has it, or it cannot be had.
    pub(super) fn open(path: &Path, rings: usize) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let lock = Flock::lock(options.open(path)?, FlockArg::LockExclusiveNonblock);
        let lock = lock.map_err(|(_, errno)| io::Error::from(errno))?;
        let metadata = lock.metadata()?;
        // Its last owner may have removed it before we had the lock.
        if !metadata.is_file() || identity(path) != Some((metadata.dev(), metadata.ino())) {
            return Err(io::Error::other("it is no file, or another by now"));
        }
        // The port may have as many rings again as it had.
        let had = usize::try_from(metadata.len()).unwrap_or(usize::MAX).div_ceil(PAGE);
        let rings = rings.max(had.min(2 * usize::from(MOST_PAIRS)));
        let len = (rings * PAGE) as u64;
        lock.set_len(len)?;
        posix_fallocate(&*lock, 0, len as i64)?; // holes too
        let mapping = MmapRegion::from_file(FileOffset::new(lock.try_clone()?, 0), rings * PAGE);
        let mapping = mapping.map_err(io::Error::other)?;
        // SAFETY: whole pages of a file's mapping, held by the same value; it is accessed through volatile slices only.
        let watch = unsafe { Watch::new(mapping.as_ptr(), mapping.size()) }?;
        Ok(Self { path: path.to_owned(), rings, _watch: watch, mapping, lock })
    }

    /// The record of one ring.
    pub(super) fn ring(self: &Arc<Self>, index: usize) -> Option<Record> {
        (index < self.rings).then(|| Record { records: Arc::clone(self), offset: index * PAGE })
    }
}

impl Drop for Records {
    /// A file that says nothing is not worth keeping.
    fn drop(&mut self) {
        let all = self.mapping.as_volatile_slice();
        let is_valid = |ring| all.load(ring * PAGE, Ordering::Acquire).ok() == Some(VALID);
        let ours = self.lock.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()));
        if !(0..self.rings).any(is_valid) && identity(&self.path) == ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The record of a ring. Whoever has the ring writes to it, and nobody else.
#[derive(Clone)]
pub(super) struct Record {
    records: Arc<Records>,
    offset: usize,
}

impl Record {
    fn page(&self) -> Option<VolatileSlice<'_>> {
        self.records.mapping.get_slice(self.offset, PAGE).ok()
    }

    #[inline]
    fn write(&self, place: usize, word: u64) {
        // Within the page, so it never fails.
        let _ = self.page().and_then(|page| store(&page, word, place).ok());
    }

    fn read(&self, place: usize) -> Option<u64> {
        self.page()?.load(place, Ordering::Acquire).ok()
    }

    /// It is of no ring any more.
    pub(super) fn erase(&self) {
        self.write(0, 0);
    }

    /// Nor is any other of the port's.
    pub(super) fn erase_all(&self) {
        (0..self.records.rings).filter_map(|index| self.records.ring(index)).for_each(|ring| ring.erase());
    }

    fn is_of(&self, ring: &Identity) -> bool {
        self.read(0) == Some(VALID)
            && ring.words().iter().enumerate().all(|(i, word)| self.read(IDENTITY + 8 * i) == Some(*word))
    }

    /// It is of this ring from now on.
    pub(super) fn begin(&self, ring: &Identity, state: State) {
        if self.is_of(ring) {
            return self.set(state);
        }
        self.erase();
        for (i, word) in ring.words().into_iter().enumerate() {
            self.write(IDENTITY + 8 * i, word);
        }
        self.set(state);
        self.write(0, VALID);
    }

    /// What it says of this ring, and the log.
    pub(super) fn of(&self, ring: &Identity) -> Option<(State, Vec<(u16, u64)>)> {
        let state = State::from_word(self.read(STATE).filter(|_| self.is_of(ring))?);
        let entry = |i: u16| {
            let place = LOG + ENTRY * usize::from(i);
            Some((u16::try_from(self.read(place)?).ok()?, self.read(place + 8)?))
        };
        let log = (state.count <= ENTRIES).then(|| (0..state.count).map(entry).collect::<Option<_>>());
        Some((state, log??))
    }

    #[inline]
    pub(super) fn set(&self, state: State) {
        self.write(STATE, state.word());
    }

    /// Appends to the log the slot of a descriptor, and what its upper half is before it is used. `state` counts the
    /// entry already.
    #[inline]
    pub(super) fn log(&self, state: State, slot: u16, descriptor: u64) {
        let place = LOG + ENTRY * usize::from(state.count.saturating_sub(1));
        let Some(page) = self.page() else { return };
        for (word, place) in [(u64::from(slot), place), (descriptor, place + 8), (state.word(), STATE)] {
            let _ = store(&page, word, place);
        }
    }
}

#[cfg(test)]
impl Record {
    /// Its bytes, as another process may have left them.
    pub(super) fn overwrite(&self, place: usize, bytes: &[u8]) {
        let page = self.page().into_iter();
        page.for_each(|page| drop(page.write_slice(bytes.get(..PAGE - place).unwrap_or(bytes), place)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_record_has_one_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let first = Records::open(&path, 2).unwrap();
        let refused = Records::open(&path, 2).map(|_| ()).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock, "{refused}");
        drop(first);
        assert!(!path.exists());
        std::os::unix::fs::symlink(folder.path().join("precious"), &path).unwrap();
        fs::write(folder.path().join("precious"), "precious").unwrap();
        assert!(Records::open(&path, 2).is_err());
        assert_eq!(fs::read_to_string(folder.path().join("precious")).unwrap(), "precious");
        // One of other rings, or cut short, is made to fit.
        for len in [0, 100, 4096, 1 << 20] {
            let path = folder.path().join("odd");
            fs::write(&path, vec![0x5a; len]).unwrap();
            drop(Records::open(&path, 2).unwrap());
            assert!(!path.exists());
        }
    }

    fn some_ring() -> Identity {
        Identity { areas: [16, 32, 48], size: 8, said: 3 }
    }

    /// The pairs of a port are fewer for a while.
    #[test]
    fn what_is_known_of_rings_outlives_a_port_without_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let open = |rings| Arc::new(Records::open(&path, rings).unwrap());
        open(4).ring(3).unwrap().begin(&some_ring(), State::at(5));
        drop(open(2));
        let found = open(4).ring(3).unwrap().of(&some_ring());
        assert_eq!(found, Some((State::at(5), Vec::new())));
    }

    #[test]
    fn a_file_that_is_cut_ends_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("record");
        let records = Arc::new(Records::open(&path, 2).unwrap());
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        let record = records.ring(1).unwrap();
        record.begin(&some_ring(), State::at(5));
        record.set(State::at(6));
    }
}
