//! Worker threads: run to completion, in batches, on frames that drivers bring.
//!
//! Control reaches a worker in two ways only. *Snapshots* are values, the newest wins; *commands* carry
//! owned things (a port's queues) and are taken at a batch boundary, after which the worker reads the
//! newest snapshot. So, once a [`Workers::settle`] that followed a [`Workers::publish`] is done, no worker knows
//! anything of an older one. A worker reaches control by counters, which it never waits for, by [`Event`]s
//! and by leases that it has heard of.

mod dispatch;
mod herald;
mod queues;
mod recirculate;
mod run;
mod scout;
#[cfg(test)]
mod tests;
mod waiting;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::oneshot;
use vswitch_dataplane::{Lease, PortId, Snapshot, Stranger};
use vswitch_io::shortcut::Shortcut;
use vswitch_io::{Pool, PortError, RxQueue, TxQueue};

use crate::clock::Clock;
pub use run::CHORES;
use run::Worker;

/// How workers wait for frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polling {
    /// A queue is polled while it has traffic and waited for after a short empty spell.
    Adaptive,
    /// Every queue is polled always.
    Busy,
}

/// What the workers are made with.
pub struct Setup {
    /// The CPU that each worker is pinned to, or `None` where it is not; one entry a worker.
    pub cpus: Vec<Option<usize>>,
    /// How they wait.
    pub polling: Polling,
    /// Their frames.
    pub pool: &'static Pool,
    /// Where flows go that need no worker.
    pub shortcut: Option<&'static Shortcut>,
    /// The daemon's clock.
    pub clock: Clock,
    /// Where events go. It must hold one event for each port and worker; what does not fit is lost, and control
    /// learns of the device by netlink alone.
    pub events: tokio::sync::mpsc::Sender<Event>,
    /// Where it is told which addresses DHCP servers give. What does not fit is lost.
    pub leases: tokio::sync::mpsc::Sender<Lease>,
}

/// What a worker tells control.
#[derive(Debug)]
pub enum Event {
    /// A port's device is lost; its queues rest until control detaches the port.
    PortLost {
        /// The port.
        port: PortId,
        /// Which of its attachments: the port may have another device by now.
        attachment: u64,
        /// Why.
        error: PortError,
    },
    /// A VTEP is to become a peer of a network.
    Stranger(Stranger),
}

/// A port's queues for one worker.
pub struct Queues {
    /// Receive queues that this worker serves.
    pub rx: Vec<Box<dyn RxQueue>>,
    /// This worker's way out.
    pub tx: Box<dyn TxQueue>,
}

enum Command {
    Attach { port: PortId, attachment: u64, queues: Queues, done: oneshot::Sender<()> },
    Detach { port: PortId, done: oneshot::Sender<Option<Queues>> },
    Settle { done: oneshot::Sender<()> },
    Stop,
}

/// A worker's end of what joins it to its [`Thread`].
struct Line {
    inbox: mpsc::Receiver<Command>,
    wake: Arc<EventFd>,
    pulse: Arc<Pulse>,
}

/// The worker threads. Dropping stops and joins them.
pub struct Workers {
    threads: Vec<Thread>,
    snapshot: Arc<ArcSwap<Snapshot>>,
}

/// What a worker is doing, for `status`.
#[derive(Debug, Default)]
pub struct Pulse {
    /// When it last did its chores, in nanoseconds of the daemon's clock: every [`CHORES`], asleep or not, unless it
    /// hangs.
    pub beat_ns: AtomicU64,
    /// Receive queues that it serves.
    pub queues: AtomicU32,
    /// Waits for a frame.
    pub asleep: AtomicBool,
}

struct Thread {
    commands: mpsc::Sender<Command>,
    pulse: Arc<Pulse>,
    wake: Arc<EventFd>,
    join: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts the threads, each with no port.
    ///
    /// # Errors
    /// What the kernel said to the first thread, epoll or eventfd that it refused.
    pub fn start(setup: &Setup, snapshot: Arc<Snapshot>) -> io::Result<Self> {
        let snapshot = Arc::new(ArcSwap::new(snapshot));
        let mut workers = Self { threads: Vec::new(), snapshot };
        for (index, cpu) in setup.cpus.iter().enumerate() {
            let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
            let (commands, inbox) = mpsc::channel();
            let pulse = Arc::new(Pulse::default());
            pulse.beat_ns.store(setup.clock.now().as_nanos(), Ordering::Relaxed);
            let line = Line { inbox, wake: Arc::clone(&wake), pulse: Arc::clone(&pulse) };
            let worker = Worker::new(index, *cpu, setup, Arc::clone(&workers.snapshot), line)?;
            let join = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || abort_on_panic(|| worker.run()))?;
            workers.threads.push(Thread { commands, pulse, wake, join: Some(join) });
        }
        Ok(workers)
    }

    /// What each is doing.
    pub fn pulses(&self) -> impl Iterator<Item = &Pulse> {
        self.threads.iter().map(|t| &*t.pulse)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// Gives the workers a new snapshot; each reads it at its next batch.
    /// Returns the one before, to be freed by control: it is no worker's business.
    pub fn publish(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        self.snapshot.swap(snapshot)
    }

    /// Done when no worker uses a snapshot older than the last one published before the call.
    pub async fn settle(&self) {
        for thread in &self.threads {
            let (done, settled) = oneshot::channel();
            thread.send(Command::Settle { done });
            let _ = settled.await;
        }
    }

    /// Gives every worker its share of a port's queues: `tx` holds one for each worker. Done when every worker has
    /// taken it. `attachment` comes back in events about these queues.
    pub async fn attach(
        &self,
        port: PortId,
        attachment: u64,
        rx: Vec<Box<dyn RxQueue>>,
        tx: Vec<Box<dyn TxQueue>>,
    ) {
        let count = self.count();
        let mut shares: Vec<Queues> = tx.into_iter().map(|tx| Queues { rx: Vec::new(), tx }).collect();
        debug_assert_eq!(shares.len(), count, "one transmit queue for each worker");
        // Start at a worker that depends on the port, so that many ports of one queue use all workers.
        for (i, queue) in rx.into_iter().enumerate() {
            if let Some(share) = shares.get_mut((port.index() + i) % count) {
                share.rx.push(queue);
            }
        }
        for (thread, queues) in self.threads.iter().zip(shares) {
            let (done, taken) = oneshot::channel();
            thread.send(Command::Attach { port, attachment, queues, done });
            let _ = taken.await;
        }
    }

    /// Takes a port's queues from every worker and returns them, to be dropped by the caller.
    pub async fn detach(&self, port: PortId) -> Vec<Queues> {
        let mut all = Vec::new();
        for thread in &self.threads {
            let (done, taken) = oneshot::channel();
            thread.send(Command::Detach { port, done });
            all.extend(taken.await.ok().flatten());
        }
        all
    }
}

impl Thread {
    /// A worker that has stopped takes no command; only `Drop` stops one.
    fn send(&self, command: Command) {
        if self.commands.send(command).is_ok() {
            // It fails only when 2^64 - 1 wake-ups wait already.
            let _ = self.wake.write(1);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for thread in &self.threads {
            thread.send(Command::Stop);
        }
        for thread in &mut self.threads {
            if let Some(join) = thread.join.take() {
                let _ = join.join();
            }
        }
    }
}

/// A worker that panics leaves frames and rings in an unknown state, and its ports silent: end the daemon,
/// so that the service manager starts it anew and every bpf_link detaches.
fn abort_on_panic(body: impl FnOnce()) {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if std::thread::panicking() {
                std::process::abort();
            }
        }
    }
    let _bomb = Bomb;
    body();
}
