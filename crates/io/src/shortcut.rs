//! Frames of known flows pass from netdev to netdev in the kernel, past the workers and their copies.
//!
//! Whoever switches says which flows these are, by [`Shortcut::insert`], once it has forwarded some frames of one: the
//! rest would be decided in the same way. A frame meets two programs on its way up from a netdev (see `program`). The
//! socket filter of the `packet` driver looks for its flow; if there is one, the frame is counted, kept from the
//! socket, and its way is noted. The host filter behind it, which drops all others, sends it there.
//!
//! What was decided must not outlive its reasons:
//! - The *epoch* is that of the whole configuration. A flow holds in the epoch that it was inserted for;
//!   while there is none ([`Shortcut::pause`]) no flow holds.
//! - *Generations* count the changes of where each address is, in slots that addresses share by their hash. A flow
//!   names those of its two addresses, as they were before they were looked up.
//!
//! Both are words of memory that the programs read for every frame, so a store ends a flow. The flows are there too: a BPF
//! map has their places by key, and a place is used again only when no program can have found it before. So are the
//! counters, which are added to before a frame leaves.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::bpf::map::Barrier;
use crate::bpf::{self, Line, LoadError};

mod board;
pub(crate) mod program;

use board::{Board, FLOWS, GENERATIONS, Index, KeyBytes};
pub use board::{Mark, NETWORKS, PORTS, Traffic};

/// Flows of one ingress port at most, so that no port has them all.
const FLOWS_OF_PORT: u32 = FLOWS as u32 / 8;

/// A flow: IPv4 and IPv6 frames of one source and destination that come in by one netdev in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Interface index of the netdev.
    pub ifindex: u32,
    /// VLAN ID of the 802.1Q tag; `None`: untagged.
    pub vid: Option<u16>,
    /// Source MAC.
    pub source: [u8; 6],
    /// Destination MAC.
    pub destination: [u8; 6],
}

/// Where its frames leave, as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// [`Shortcut::epoch`], as it was before all else here was looked up.
    pub epoch: u64,
    /// Interface index of the netdev.
    pub ifindex: u32,
    /// The longest frame, or segment of one, in bytes from the destination MAC on without tag. Longer ones
    /// are left to the socket.
    pub max_frame: u32,
    /// What is known of the source.
    pub source: Mark,
    /// What is known of the destination.
    pub destination: Mark,
    /// The port that frames count as received by, below [`PORTS`].
    pub ingress: u16,
    /// The port that they count as transmitted by.
    pub egress: u16,
    /// The network that they count in, below [`NETWORKS`].
    pub network: u16,
}

/// A flow that holds, for [`Shortcut::sweep`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The port that its frames come in by.
    pub ingress: u16,
    /// Their network.
    pub network: u16,
    /// Their source.
    pub source: [u8; 6],
    /// Whole sweeps since its last frame: 0 where it had one since the last.
    pub idle: u64,
}

/// Why there is no shortcut.
#[derive(Debug, thiserror::Error)]
pub enum ShortcutError {
    /// The kernel refused a step.
    #[error("the kernel refused to {step}: {source}")]
    System {
        /// What was tried.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// It refused a program; needed are CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.
    #[error("the kernel refused a program: {0}")]
    Program(io::Error),
}

impl From<LoadError> for ShortcutError {
    /// The verifier's log is left out: it is the whole program, and what is missing is the right.
    fn from(error: LoadError) -> Self {
        Self::Program(error.source)
    }
}

/// The shortcut of this process. One is made for its whole life.
pub struct Shortcut {
    board: &'static Board,
    board_map: OwnedFd,
    /// The places of flows on the board, for the programs.
    index: Index,
    passage: OwnedFd,
    /// Drops a frame, or sends it where its passage says.
    host_filter: OwnedFd,
    /// The last epoch.
    last_epoch: AtomicU64,
    /// A flow was inserted since the last pause.
    is_used: AtomicBool,
    places: Mutex<Places>,
    programs: Barrier,
}

/// Who has which place.
struct Places {
    /// What is in the index.
    taken: HashMap<KeyBytes, Taken>,
    /// No program sees them.
    free: Vec<u16>,
    /// They are not in the index any more; a program may still see them.
    left: Vec<u16>,
    /// Places taken, by ingress port.
    of_port: HashMap<u16, u32>,
}

#[derive(Clone, Copy)]
struct Taken {
    place: u16,
    ingress: u16,
}

impl Shortcut {
    /// Makes one, paused.
    ///
    /// # Errors
    /// [`ShortcutError`]: frames all go by the workers then.
    pub fn open() -> Result<&'static Self, ShortcutError> {
        let at = |step| move |source| ShortcutError::System { step, source };
        let (board_map, board) = board::make().map_err(at("make an array"))?;
        let index = board::index().map_err(at("make a map of flows"))?;
        let passage = board::passage().map_err(at("make an array for each CPU"))?;
        let host_filter = bpf::load(&bpf::Program {
            kind: bpf::PROG_TYPE_SCHED_CLS,
            insns: &program::obey(&passage),
            flags: 0,
            ifindex: 0,
            attach: bpf::ATTACH_TCX_INGRESS,
        })?;
        let shortcut = Self {
            board,
            board_map,
            index,
            passage,
            host_filter,
            last_epoch: AtomicU64::new(0),
            is_used: AtomicBool::new(false),
            places: Mutex::new(Places::new()),
            programs: Barrier::new().map_err(at("make a map of maps"))?,
        };
        // Whether sockets may have the other one.
        bpf::load(&bpf::Program {
            kind: bpf::PROG_TYPE_SOCKET_FILTER,
            insns: &program::alone(&shortcut),
            flags: 0,
            ifindex: 0,
            attach: 0,
        })?;
        Ok(Box::leak(Box::new(shortcut)))
    }

    /// One word for each slot of generations: to be added to when what is known of an address of that slot has changed.
    pub fn generations(&self) -> &'static [AtomicU32] {
        &self.board.generations
    }

    /// What [`Way::epoch`] wants. `None` while it is paused.
    pub fn epoch(&self) -> Option<u64> {
        Some(self.board.epoch.load(Acquire)).filter(|&epoch| epoch > 0)
    }

    /// Ends all flows. On return no frame is on its way by one. Where flows were inserted this waits for the
    /// programs that run, some milliseconds.
    pub fn pause(&self) {
        self.board.epoch.store(0, Release);
        if self.is_used.swap(false, AcqRel) {
            // Should the kernel lack the memory for this: programs end in microseconds all the same.
            let _ = self.programs.wait();
        }
    }

    /// Lets flows be inserted: a new epoch. Whatever reads it sees all that was stored before the call.
    pub fn resume(&self) {
        let epoch = self.last_epoch.fetch_add(1, Relaxed) + 1;
        self.board.epoch.store(epoch, Release);
    }

    /// Has the frames of `flow` go this way from now on, as long as the epoch and both addresses stay as they are.
    /// False: there is no room, or somebody else is at it. They go on as they went then. Never waits.
    ///
    /// # Errors
    /// What the kernel said; as above.
    pub fn insert(&self, flow: &Flow, way: &Way) -> io::Result<bool> {
        let Ok(mut places) = self.places.try_lock() else { return Ok(false) };
        let key = flow.key();
        let Some(place) = places.take(&key, way.ingress) else { return Ok(false) };
        self.is_used.store(true, Release);
        self.board.places[usize::from(place)].set(&key, way, self.board.tick.load(Relaxed));
        // A system call: whoever finds the place by it sees what is there.
        let inserted = self.index.insert(&key, place.into());
        places.put(&key, Taken { place, ingress: way.ingress }, inserted.is_ok());
        inserted.map(|()| true)
    }

    /// Takes out what holds no more, shows each other flow to `keep`, and takes it out where that is false. May wait for
    /// the programs that run.
    pub fn sweep(&self, mut keep: impl FnMut(&Seen) -> bool) {
        let tick = self.board.tick.load(Relaxed);
        let mut places = self.places();
        let over: Vec<KeyBytes> = (places.taken.iter())
            .filter(|(key, taken)| self.look(key, **taken, tick).is_none_or(|seen| !keep(&seen)))
            .map(|(key, _)| *key)
            .collect();
        for key in over {
            // It is there: nobody else takes one out.
            let _ = self.index.remove(&key);
            places.leave(&key);
        }
        self.board.tick.store(tick + 1, Relaxed);
        let left = std::mem::take(&mut places.left);
        drop(places);
        if left.is_empty() {
            return;
        }
        let waited = self.programs.wait();
        let mut places = self.places();
        match waited {
            Ok(()) => places.free.extend(left),
            Err(_) => places.left.extend(left), // next time
        }
    }

    /// What is known of a flow, if it holds.
    fn look(&self, key: &KeyBytes, taken: Taken, tick: u64) -> Option<Seen> {
        let place = &self.board.places[usize::from(taken.place)];
        let is_current = |mark: Mark| {
            self.board.generations[mark.slot as usize % GENERATIONS].load(Acquire) == mark.generation
        };
        let holds = self.epoch() == Some(place.epoch.load(Relaxed))
            && is_current(place.source.get())
            && is_current(place.destination.get());
        holds.then(|| Seen {
            ingress: taken.ingress,
            network: place.network.load(Relaxed) as u16,
            source: std::array::from_fn(|n| key[14 + n]),
            idle: tick.saturating_sub(place.seen.load(Relaxed)),
        })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // It is whole at every point where a thread could panic.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What passed in by `port`, and out.
    pub fn port(&self, port: u16) -> (Traffic, Traffic) {
        let count = &self.board.ports[usize::from(port) % PORTS];
        (count.received.get(), count.transmitted.get())
    }

    /// What passed in `network`.
    pub fn network(&self, network: u16) -> Traffic {
        self.board.networks[usize::from(network) % NETWORKS].get()
    }

    /// Counts from 0 for a port; while no flow has it.
    pub fn clear_port(&self, port: u16) {
        let count = &self.board.ports[usize::from(port) % PORTS];
        count.received.clear();
        count.transmitted.clear();
    }

    /// Counts from 0 for a network; while no flow has it.
    pub fn clear_network(&self, network: u16) {
        self.board.networks[usize::from(network) % NETWORKS].clear();
    }

    /// What is to be the host filter of a netdev whose frames may pass.
    pub(crate) fn host_filter(&self) -> BorrowedFd<'_> {
        self.host_filter.as_fd()
    }

    /// The part of a socket's filter that lets a frame pass: see [`program::decide`].
    pub(crate) fn decide(&self) -> Vec<Line> {
        program::decide(self)
    }
}

impl Places {
    fn new() -> Self {
        let (taken, of_port) = (HashMap::new(), HashMap::new());
        Self { taken, free: (0..FLOWS as u16).rev().collect(), left: Vec::new(), of_port }
    }

    /// A free place for a flow, which another one may have had so far.
    fn take(&mut self, key: &KeyBytes, ingress: u16) -> Option<u16> {
        let is_new = !self.taken.contains_key(key);
        let of_port = self.of_port.get(&ingress).copied().unwrap_or(0);
        if is_new && of_port >= FLOWS_OF_PORT { None } else { self.free.pop() }
    }

    /// The index has the flow at this place from now on, or has not.
    fn put(&mut self, key: &KeyBytes, taken: Taken, is_in_index: bool) {
        if !is_in_index {
            return self.free.push(taken.place);
        }
        self.leave(key);
        self.taken.insert(*key, taken);
        *self.of_port.entry(taken.ingress).or_default() += 1;
    }

    /// The index has the flow no more at the place where it was.
    fn leave(&mut self, key: &KeyBytes) {
        let Some(Taken { place, ingress }) = self.taken.remove(key) else { return };
        self.left.push(place);
        if let Some(count) = self.of_port.get_mut(&ingress) {
            *count -= 1;
            if *count == 0 {
                self.of_port.remove(&ingress);
            }
        }
    }
}
