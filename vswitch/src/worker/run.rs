//! The worker's loop.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use arc_swap::{ArcSwap, Cache};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::epoll::EpollTimeout;
use nix::unistd::Pid;
use vswitch_dataplane::{BATCH_MAX, Batch, Pipeline, PortId, Snapshot, Verdict};
use vswitch_io::{FrameVec, RxQueue};
use vswitch_wire::Instant;

use super::dispatch::Dispatch;
use super::herald::Herald;
use super::queues::{RxSet, Slot};
use super::recirculate::Inner;
use super::scout::Scout;
use super::{Command, Event, Line, Polling, Queues, Setup};
use crate::clock::Clock;

/// How long an empty queue is polled before it is waited for, under [`Polling::Adaptive`].
const EMPTY_SPELL: Duration = Duration::from_micros(50);
/// How often parked queues and commands are looked for while other queues are busy: one system call.
const LOOK: Duration = Duration::from_micros(50);
/// How often what no event announces is done: completed transmissions, kernel drop counts.
const CHORES_MS: u16 = 500;
pub const CHORES: Duration = Duration::from_millis(CHORES_MS as u64);
/// The least time between two strangers that control is told of: each costs it a snapshot.
const STRANGERS: Duration = Duration::from_millis(20);

pub(super) struct Worker {
    index: usize,
    cpu: Option<usize>,
    polling: Polling,
    clock: Clock,
    snapshot: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    pipeline: Pipeline,
    rx: RxSet,
    dispatch: Dispatch,
    scout: Option<Scout>,
    herald: Herald,
    batch: FrameVec,
    verdicts: [Verdict; BATCH_MAX],
    line: Line,
    events: tokio::sync::mpsc::Sender<Event>,
    chores_at: Instant,
    /// When control was told of a stranger last.
    told_at: Instant,
}

impl Worker {
    pub(super) fn new(
        index: usize,
        cpu: Option<usize>,
        setup: &Setup,
        snapshot: Arc<ArcSwap<Snapshot>>,
        line: Line,
    ) -> io::Result<Self> {
        Ok(Self {
            index,
            cpu,
            polling: setup.polling,
            clock: setup.clock,
            snapshot: Cache::new(snapshot),
            pipeline: Pipeline::new(index),
            rx: RxSet::new(line.wake.as_fd())?,
            dispatch: Dispatch::new(index, setup.pool.cache()),
            scout: setup.shortcut.map(Scout::new),
            herald: Herald::new(setup.leases.clone(), setup.clock.now()),
            batch: FrameVec::new(BATCH_MAX),
            verdicts: [Verdict::Pending; BATCH_MAX],
            line,
            events: setup.events.clone(),
            chores_at: setup.clock.now(),
            told_at: Instant::ZERO,
        })
    }

    /// Works until told to stop.
    pub(super) fn run(mut self) {
        self.pin();
        let mut looked_at = self.clock.now();
        loop {
            let now = self.clock.now();
            self.serve(now);
            self.chores(now);
            if self.rx.active() > 0 && now.since(looked_at) < LOOK {
                continue;
            }
            looked_at = now;
            if self.polling == Polling::Adaptive {
                self.rx.park(|slot| now.since(slot.busy_at) > EMPTY_SPELL);
            }
            let timeout =
                if self.rx.active() > 0 { EpollTimeout::ZERO } else { EpollTimeout::from(CHORES_MS) };
            let clock = self.clock;
            self.line.pulse.asleep.store(self.rx.active() == 0, Relaxed);
            let commanded = self.rx.wait(timeout, || clock.now());
            self.line.pulse.asleep.store(false, Relaxed);
            if commanded && !self.obey() {
                return;
            }
        }
    }

    /// One batch of every active queue.
    pub(super) fn serve(&mut self, now: Instant) {
        for n in 0..self.rx.active() {
            let Some(slot) = self.rx.nth_active(n) else { break };
            if slot.has_more() {
                slot.busy_at = now;
            }
            match slot.receive(self.dispatch.pool(), &mut self.batch) {
                Ok(0) => {}
                Ok(count) => {
                    slot.busy_at = now;
                    let port = slot.port;
                    let emitted = self.forward(port, count, now);
                    if let Some(slot) = self.rx.nth_active(n) {
                        slot.charge(emitted);
                    }
                }
                Err(error) => {
                    let (port, attachment) = (slot.port, slot.attachment);
                    self.lose(port, attachment, error);
                    return; // the list of queues changed
                }
            }
        }
    }

    /// Decides on a batch and carries it out; how many frames left.
    fn forward(&mut self, ingress: PortId, count: usize, now: Instant) -> u32 {
        let snapshot = self.snapshot.load();
        let verdicts = &mut self.verdicts[..count];
        verdicts.fill(Verdict::Pending);
        let frames = self.batch.as_mut_slice();
        self.pipeline.process(snapshot, now, &mut Batch { ingress, network: None, frames, verdicts });
        let verdicts = &self.verdicts[..count];
        self.herald.look(snapshot, ingress, (self.batch.as_slice(), verdicts), now);
        let found = self
            .scout
            .as_mut()
            .and_then(|scout| scout.look(snapshot, ingress, self.batch.as_slice(), verdicts, now));
        let mut emitted = self.dispatch.run(snapshot, ingress, &mut self.batch, verdicts, now);
        // By the same snapshot: a newer one may not know the VTEP, and its frame would be nobody's.
        if !self.dispatch.inner().is_empty() {
            let snapshot = Arc::clone(snapshot);
            emitted += self.forward_inner(&snapshot, now);
        }
        self.tell_of_strangers(now);
        // Behind those of its frames that are here.
        if let (Some(scout), Some(flow)) = (&self.scout, found) {
            scout.let_pass(&flow, &mut self.snapshot);
        }
        emitted
    }

    /// Tells control of a VTEP that is to become a peer, now and then.
    fn tell_of_strangers(&mut self, now: Instant) {
        let Some(stranger) = self.pipeline.take_stranger() else { return };
        // Ports that are lost come by the same way, and must have room.
        let has_room = self.events.capacity() > self.events.max_capacity() / 2;
        if has_room && now.since(self.told_at) >= STRANGERS {
            self.told_at = now;
            let _ = self.events.try_send(Event::Stranger(stranger)); // it will be met again
        }
    }

    /// Decides on the frames that were in tunnels and carries it out; how many frames left.
    fn forward_inner(&mut self, snapshot: &Snapshot, now: Instant) -> u32 {
        let mut emitted = 0;
        while let Some(Inner { network, peer }) = self.dispatch.inner().take_batch(&mut self.batch) {
            let verdicts = &mut self.verdicts[..self.batch.len()];
            let frames = self.batch.as_mut_slice();
            let mut batch = Batch { ingress: peer, network: Some(network), frames, verdicts };
            self.pipeline.process(snapshot, now, &mut batch);
            emitted += self.dispatch.run(snapshot, peer, &mut self.batch, verdicts, now);
        }
        emitted
    }

    /// Tells control, and lets the port's queues rest: they are dropped when control detaches the port.
    fn lose(&mut self, port: PortId, attachment: u64, error: vswitch_io::PortError) {
        // The channel holds more events than there are ports, and each port is lost once.
        let _ = self.events.try_send(Event::PortLost { port, attachment, error });
        drop(self.take_queues(port));
    }

    /// Takes the queues of a port out. What they had and did not get to is counted.
    fn take_queues(&mut self, port: PortId) -> Vec<Box<dyn RxQueue>> {
        self.rx.all().filter(|slot| slot.port == port).for_each(Slot::give_up_rest);
        self.count_missed(|slot| slot.port == port);
        self.rx.remove(port)
    }

    /// Counts what was missed at these queues since the last time.
    fn count_missed(&mut self, is_meant: impl Fn(&Slot) -> bool) {
        let snapshot = self.snapshot.load();
        for slot in self.rx.all().filter(|slot| is_meant(slot)) {
            let missed = slot.newly_missed();
            if let Some(counters) = snapshot.port(slot.port).and_then(|p| p.counters.get(self.index)) {
                counters.rx_missed.add(missed);
            }
        }
    }

    fn chores(&mut self, now: Instant) {
        if now.since(self.chores_at) < CHORES {
            return;
        }
        self.chores_at = now;
        self.line.pulse.beat_ns.store(now.as_nanos(), Relaxed);
        self.dispatch.do_chores();
        // A queue that rests without frames to receive into would rest for ever, and one whose device is gone
        // would not tell.
        self.rx.unpark(now);
        self.count_missed(|_| true);
    }

    /// Carries out the commands that wait; false when told to stop.
    pub(super) fn obey(&mut self) -> bool {
        let _ = self.line.wake.read(); // clears it; nothing to clear is no harm
        while let Ok(command) = self.line.inbox.try_recv() {
            // From here on this worker uses a snapshot at least as new as the command.
            let _ = self.snapshot.load();
            match command {
                Command::Attach { port, attachment, queues, done } => {
                    let now = self.clock.now();
                    self.dispatch.insert(port, queues.tx);
                    for queue in queues.rx {
                        self.rx.insert(port, attachment, queue, now);
                    }
                    let _ = done.send(());
                }
                Command::Detach { port, done } => {
                    let rx = self.take_queues(port);
                    let tx = self.dispatch.remove(port);
                    let _ = done.send(tx.map(|tx| Queues { rx, tx }));
                }
                Command::Settle { done } => {
                    self.dispatch.retry(self.snapshot.load());
                    let _ = done.send(());
                }
                Command::Stop => {
                    self.dispatch.give_up_waiting();
                    return false;
                }
            }
        }
        self.line.pulse.queues.store(self.rx.all().count() as u32, Relaxed);
        true
    }

    fn pin(&self) {
        let Some(cpu) = self.cpu else { return };
        let mut set = CpuSet::new();
        if let Err(error) = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set)) {
            tracing::warn!(worker = self.index, cpu, %error, "cannot pin the worker to its CPU");
        }
    }
}
