//! The noise gate: is this machine, right now, one to measure on?
//!
//! Two things make figures worthless. *Other processes* show in `/proc/stat` as CPU time that is not ours. A
//! *hypervisor that moves the CPUs apart* shows nowhere, steal stays 0, yet a cache line then takes five times as
//! long from one to the other and every figure of two threads falls to a half: so two threads pass a line to and
//! fro, before and after each sample. A sample waits a little for a quiet moment; one that was disturbed all the
//! same is taken again, a bounded number of times; the last is kept then, and marked.

use std::collections::HashMap;
use std::fs;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::{Result, clock};

/// The first two CPUs: what makes frames and what switches them run on one each.
pub(crate) const CPUS: [usize; 2] = [0, 1];

/// Longest time that a cache line may take to the other CPU and back.
const CORE_TO_CORE_MAX_NS: f64 = 150.0;
/// Most CPU time of others, as a share of one CPU.
const OTHERS_MAX: f64 = 0.1;
/// Times that a cache line goes to the other CPU and back.
const ROUND_TRIPS: u32 = 50_000;
/// Ten times as long as they take on a machine that is worth measuring on.
const ROUND_TRIPS_LIMIT: Duration = Duration::from_millis(100);
/// Longest wait for a quiet moment, and the time between two looks.
const QUIET_WAIT: Duration = Duration::from_secs(2);
const QUIET_PAUSE: Duration = Duration::from_millis(50);
/// Waiting threads look at the clock each time after so many looks at the line.
const LOOKS_PER_CHECK: u32 = 1 << 12;
/// Ticks of a second in `/proc` (`USER_HZ`: 100 on every architecture).
const TICKS_PER_SECOND: f64 = 100.0;

/// One figure, and how quiet the machine was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// The figure.
    pub(crate) value: f64,
    /// The gate was not passed.
    pub(crate) noisy: bool,
    /// The round trip of a cache line, before or after, whichever was longer, in nanoseconds.
    pub(crate) core_to_core_ns: f64,
    /// CPU time of others, as a share of one CPU.
    pub(crate) others: f64,
}

impl Sample {
    /// A figure that no noise touches.
    pub(crate) const fn exact(value: f64) -> Self {
        Self { value, noisy: false, core_to_core_ns: 0.0, others: 0.0 }
    }
}

/// Takes a sample at most `attempts` times, until one passes.
pub(crate) fn sample(attempts: u32, mut measure: impl FnMut() -> Result<f64>) -> Result<Sample> {
    let mut attempt = 1;
    loop {
        let (before, use_before) = (core_to_core_at_best_ns(), CpuUse::now()?);
        let value = measure()?;
        let (others, after) = (use_before.others_since()?, core_to_core_ns());
        let core_to_core_ns = before.max(after);
        let noisy = core_to_core_ns > CORE_TO_CORE_MAX_NS || others > OTHERS_MAX;
        if !noisy || attempt >= attempts {
            return Ok(Sample { value, noisy, core_to_core_ns, others });
        }
        attempt += 1;
    }
}

/// Pins the calling thread.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// Two lines, since neighbours are fetched in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Line(AtomicU32);

impl Line {
    /// Waits for a value; false when that takes too long.
    fn wait_for(&self, value: u32, deadline: Instant) -> bool {
        let mut looks = 0_u32;
        while self.0.load(Ordering::Acquire) != value {
            spin_loop();
            looks += 1;
            if looks.is_multiple_of(LOOKS_PER_CHECK) && clock::now() > deadline {
                return false;
            }
        }
        true
    }
}

/// Round trips of a cache line as seen by the thread that sends first, or by the one that answers.
fn round_trips(cpu: usize, sends: &Line, sees: &Line, is_first: bool) -> Option<Duration> {
    pin(cpu).ok()?;
    let mut begin = clock::now();
    let deadline = begin + ROUND_TRIPS_LIMIT;
    for n in 1..=ROUND_TRIPS + 1 {
        if is_first {
            sends.0.store(n, Ordering::Release);
        }
        if !sees.wait_for(n, deadline) {
            return None;
        }
        if !is_first {
            sends.0.store(n, Ordering::Release);
        }
        if n == 1 {
            begin = clock::now(); // the first trip waits for the other thread to start
        }
    }
    Some(begin.elapsed())
}

/// How long a cache line takes from one CPU to the other and back, in nanoseconds; infinite when that takes
/// longer than can be waited for.
pub(crate) fn core_to_core_ns() -> f64 {
    let (ping, pong) = (Line::default(), Line::default());
    let took = thread::scope(|scope| {
        let answering = scope.spawn(|| round_trips(CPUS[1], &pong, &ping, false));
        let first = scope.spawn(|| round_trips(CPUS[0], &ping, &pong, true));
        let (answered, took) = (answering.join().ok()?, first.join().ok()?);
        answered.and(took)
    });
    took.map_or(f64::INFINITY, |took| took.as_nanos() as f64 / f64::from(ROUND_TRIPS))
}

/// The same, in a quiet moment; waits at most [`QUIET_WAIT`] for one.
fn core_to_core_at_best_ns() -> f64 {
    let deadline = clock::now() + QUIET_WAIT;
    loop {
        let ns = core_to_core_ns();
        if ns <= CORE_TO_CORE_MAX_NS || clock::now() > deadline {
            return ns;
        }
        clock::pass(QUIET_PAUSE);
    }
}

/// CPU time used until now, in ticks.
struct CpuUse {
    at: Instant,
    all: u64,
    ours: u64,
}

impl CpuUse {
    fn now() -> Result<Self> {
        Ok(Self { at: clock::now(), all: ticks_of_all()?, ours: ticks_of_ours()? })
    }

    /// CPU time of others since then, as a share of one CPU.
    fn others_since(&self) -> Result<f64> {
        let now = Self::now()?;
        let others = (now.all - self.all).saturating_sub(now.ours.saturating_sub(self.ours));
        let seconds = now.at.duration_since(self.at).as_secs_f64().max(1.0 / TICKS_PER_SECOND);
        Ok(others as f64 / TICKS_PER_SECOND / seconds)
    }
}

/// Ticks that all CPUs worked (proc_stat(5): user, nice, system, irq and softirq).
fn ticks_of_all() -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    Ok([0, 1, 2, 5, 6].iter().filter_map(|&i| ticks.get(i)).sum())
}

/// Ticks of this process, its descendants, and ksoftirqd, which here works for nobody else. Those of a
/// descendant that has ended are in its parent's.
fn ticks_of_ours() -> Result<u64> {
    let mut processes = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // One that has ended meanwhile is skipped.
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok();
        processes.extend(stat.as_deref().and_then(Process::parse).map(|process| (id, process)));
    }
    let is_ours = |mut id: u32| loop {
        match processes.get(&id) {
            _ if id == std::process::id() => return true,
            Some(process) if process.parent != 0 => id = process.parent,
            _ => return false,
        }
    };
    let ours = processes.iter().filter(|(id, process)| process.is_softirq || is_ours(**id));
    Ok(ours.map(|(_, process)| process.ticks).sum())
}

/// What proc_pid_stat(5) says of a process.
struct Process {
    parent: u32,
    ticks: u64,
    is_softirq: bool,
}

impl Process {
    fn parse(stat: &str) -> Option<Self> {
        // The name is in parentheses, and may hold anything.
        let (head, tail) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        // Fields 14 to 17, of which the third is the first after the name: own user and system time, then
        // that of children waited for.
        let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
        Some(Self { parent: fields.get(1)?.parse().ok()?, ticks, is_softirq: head.contains("(ksoftirqd/") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_process_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 5 7 7 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 99 0 0";
        let process = Process::parse(stat).unwrap();
        assert_eq!((process.parent, process.ticks, process.is_softirq), (5, 100, false));
        assert!(
            Process::parse("12 (ksoftirqd/0) S 2 0 0 0 -1 0 0 0 0 0 0 9 0 0 20 0 1 0 1").unwrap().is_softirq
        );
        assert!(Process::parse("7 (cut").is_none());
    }

    #[test]
    fn our_own_work_is_not_that_of_others() {
        let before = ticks_of_ours().unwrap();
        let begin = clock::now();
        while ticks_of_ours().unwrap() < before + 3 {
            assert!(begin.elapsed() < Duration::from_secs(10), "30 ms of work within 10 s");
        }
    }
}
