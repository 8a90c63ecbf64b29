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
//!   names those of its two addresses, as they were before they were looked up. Ports have generations too, for what
//!   happens to one of them.
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
use crate::bpf::{self, Insn, LoadError};

mod board;
mod places;
pub(crate) mod program;

use board::{Board, GENERATIONS, Index, KeyBytes};
pub use board::{Mark, NETWORKS, PORTS, Traffic};
use places::{Places, Taken};

/// Bytes of the shortest segments of GSO frames that pass; others are left to the socket.
pub const MIN_SEGMENT: u16 = 512;

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
    /// The port that frames count as received by.
    pub ingress: Side,
    /// The port that they count as transmitted by.
    pub egress: Side,
    /// The network that they count in, below [`NETWORKS`].
    pub network: u16,
}

/// A port of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// Below [`PORTS`].
    pub port: u16,
    /// [`Shortcut::port_generation`], at a time when all that was looked up of the port was so.
    pub generation: u32,
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

/// Frames that were kept for the shortcut and did not arrive there: somebody's program on the netdev has them, whose
/// place is before ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The port that they came in by.
    pub port: u16,
    /// How many.
    pub frames: u64,
}

/// The shortcut of this process. One is made for its whole life.
pub struct Shortcut {
    board: &'static Board,
    maps: Maps,
    /// Drops a frame, or sends it where its word says.
    host_filter: OwnedFd,
    /// The last epoch.
    last_epoch: AtomicU64,
    /// A flow was inserted since the last pause.
    is_used: AtomicBool,
    places: Mutex<Places>,
    /// What each port had kept at the last sweep.
    kept: Mutex<Box<[u64]>>,
    programs: Barrier,
}

/// What the programs see.
pub(crate) struct Maps {
    board: OwnedFd,
    /// The places of flows on the board.
    index: Index,
}

impl Shortcut {
    /// Makes one, paused.
    ///
    /// # Errors
    /// [`ShortcutError`]: frames all go by the workers then.
    pub fn open() -> Result<&'static Self, ShortcutError> {
        let at = |step| move |source| ShortcutError::System { step, source };
        let (board_map, board) = board::make().map_err(at("make an array"))?;
        let maps = Maps { board: board_map, index: board::index().map_err(at("make a map of flows"))? };
        let load = |kind, insns: &[Insn], attach| {
            bpf::load(&bpf::Program { kind, insns, flags: 0, ifindex: 0, attach })
        };
        let host_filter = load(bpf::PROG_TYPE_SCHED_CLS, &program::obey(&maps), bpf::ATTACH_TCX_INGRESS)?;
        // Whether sockets may have the other one.
        load(bpf::PROG_TYPE_SOCKET_FILTER, &program::alone(&maps), 0)?;
        Ok(Box::leak(Box::new(Self {
            board,
            maps,
            host_filter,
            last_epoch: AtomicU64::new(0),
            is_used: AtomicBool::new(false),
            places: Mutex::new(Places::new()),
            kept: Mutex::new(vec![0; PORTS].into()),
            programs: Barrier::new().map_err(at("make a map of maps"))?,
        })))
    }

    /// One word for each slot of generations: to be added to when what is known of an address of that slot has changed.
    pub fn generations(&self) -> &'static [AtomicU32] {
        &self.board.generations
    }

    /// What [`Side::generation`] wants.
    pub fn port_generation(&self, port: u16) -> u32 {
        self.board_port(port).generation.load(Acquire)
    }

    /// Ends the flows from and to a port. A frame that is on its way by one still arrives.
    pub fn end_port(&self, port: u16) {
        self.board_port(port).generation.fetch_add(1, Release);
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
            // Of netdevs whose socket is closed: no program wipes these out.
            self.board.words.iter().for_each(|word| word.skb.store(0, Relaxed));
        }
    }

    /// Lets flows be inserted: a new epoch. Whatever reads it sees all that was stored before the call.
    pub fn resume(&self) {
        let epoch = self.last_epoch.fetch_add(1, Relaxed) + 1;
        self.board.epoch.store(epoch, Release);
    }

    /// Has the frames of `flow` go this way from now on, as long as the epoch, both ports and both addresses stay as
    /// they are. False: no room, or another thread is inserting; the frames then go as before. Never waits.
    ///
    /// # Errors
    /// What the kernel said; as above.
    pub fn insert(&self, flow: &Flow, way: &Way) -> io::Result<bool> {
        let Ok(mut places) = self.places.try_lock() else { return Ok(false) };
        let key = flow.key();
        if places.get(&key).is_some_and(|taken| self.place(taken).has(way)) {
            return Ok(true); // its frames are here for another reason, too long for example
        }
        let Some(taken) = places.take(way.ingress.port) else { return Ok(false) };
        self.is_used.swap(true, AcqRel);
        self.place(taken).set(&key, way, self.board.tick.load(Relaxed));
        // A system call: whoever finds the place by it sees what is there.
        let inserted = self.maps.index.insert(&key, taken.place.into());
        match inserted {
            Ok(()) => places.put(&key, taken),
            Err(_) => places.give_back(taken),
        }
        inserted.map(|()| true)
    }

    /// Takes out what holds no more, shows each other flow to `keep`, and takes it out where that is false, or where its
    /// port has too many. May wait for the programs that run.
    ///
    /// # Errors
    /// Frames get lost. It has to be paused for good.
    pub fn sweep(&self, mut keep: impl FnMut(&Seen) -> bool) -> Result<(), Lost> {
        let tick = self.board.tick.load(Relaxed);
        let mut places = self.places();
        if places.are_all_free() {
            return Ok(()); // an idle switch is not to read all counters of all ports
        }
        let (mut over, mut held) = (Vec::new(), Vec::new());
        for (key, taken) in places.taken() {
            match self.look(key, taken, tick).filter(|seen| keep(seen)) {
                Some(seen) => held.push((seen.idle, taken.ingress, *key)),
                None => over.push(*key),
            }
        }
        over.extend(superfluous(held, places.excess()));
        for key in over {
            match self.maps.index.remove(&key) {
                // The index has it still, and the programs its place.
                Err(e) if e.raw_os_error() != Some(libc::ENOENT) => {}
                _ => places.remove(&key),
            }
        }
        self.board.tick.store(tick + 1, Relaxed);
        let left = places.left();
        drop(places);
        if !left.is_empty() {
            let waited = self.programs.wait();
            let mut places = self.places();
            match waited {
                Ok(()) => left.into_iter().for_each(|taken| places.give_back(taken)),
                Err(_) => places.leave(left), // until the next time
            }
        }
        self.audit()
    }

    /// What was kept from sockets by the last time has been received since.
    fn audit(&self) -> Result<(), Lost> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for (port, (board, kept)) in (0..).zip(self.board.ports.iter().zip(kept.iter_mut())) {
            let received = || board.received.packets.load(Relaxed);
            if received() < *kept {
                // A CPU that the host took away may be amid a program.
                let waited = self.programs.wait();
                if waited.is_ok() && received() < *kept {
                    return Err(Lost { port, frames: *kept - received() });
                }
            }
            *kept = board.kept.load(Relaxed);
        }
        Ok(())
    }

    /// What is known of a flow, if it holds.
    fn look(&self, key: &KeyBytes, taken: Taken, tick: u64) -> Option<Seen> {
        let place = self.place(taken);
        let is_known = |mark: Mark| {
            self.board.generations[mark.slot as usize % GENERATIONS].load(Acquire) == mark.generation
        };
        let is_port_same = |mark: Mark| self.port_generation(mark.slot as u16) == mark.generation;
        let holds = self.epoch() == Some(place.epoch.load(Relaxed))
            && [&place.source, &place.destination].iter().all(|words| is_known(words.get()))
            && [&place.ingress, &place.egress].iter().all(|words| is_port_same(words.get()));
        holds.then(|| Seen {
            ingress: taken.ingress,
            network: place.network.load(Relaxed) as u16,
            source: std::array::from_fn(|n| key[14 + n]),
            idle: tick.saturating_sub(place.seen.load(Relaxed)),
        })
    }

    fn place(&self, taken: Taken) -> &'static board::Place {
        &self.board.places[usize::from(taken.place)]
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // It is whole at every point where a thread could panic.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn board_port(&self, port: u16) -> &'static board::Port {
        &self.board.ports[usize::from(port) % PORTS]
    }

    /// What passed in by `port`, and out.
    pub fn port(&self, port: u16) -> (Traffic, Traffic) {
        let port = self.board_port(port);
        (port.received.get(), port.transmitted.get())
    }

    /// What passed in `network`.
    pub fn network(&self, network: u16) -> Traffic {
        self.board.networks[usize::from(network) % NETWORKS].get()
    }

    /// Counts from 0 for a port; while no flow has it.
    pub fn clear_port(&self, port: u16) {
        let board = self.board_port(port);
        board.received.clear();
        board.transmitted.clear();
        board.kept.store(0, Relaxed);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept[usize::from(port) % PORTS] = 0;
    }

    /// Counts from 0 for a network; while no flow has it.
    pub fn clear_network(&self, network: u16) {
        self.board.networks[usize::from(network) % NETWORKS].clear();
    }

    /// What is to be the host filter of a netdev whose frames may pass.
    pub(crate) fn host_filter(&self) -> BorrowedFd<'_> {
        self.host_filter.as_fd()
    }

    /// What the programs see.
    pub(crate) fn maps(&self) -> &Maps {
        &self.maps
    }
}

/// Of each port as many flows as are too many, the longest idle.
fn superfluous(mut held: Vec<(u64, u16, KeyBytes)>, mut excess: HashMap<u16, usize>) -> Vec<KeyBytes> {
    if excess.is_empty() {
        return Vec::new();
    }
    held.sort_unstable_by(|a, b| b.cmp(a));
    held.retain(|(_, port, _)| match excess.get_mut(port) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    });
    held.into_iter().map(|(.., key)| key).collect()
}
