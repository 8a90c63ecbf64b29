//! How the parts of the daemon are, for `status`.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use vswitch_api::response::Health;
use vswitch_io::{FrameClass, Pool};
use vswitch_wire::Instant;

use crate::worker::{CHORES, Pulse};

/// A worker that has not beaten for so long hangs, or gets no CPU. One that sleeps beats each second one [`CHORES`]
/// at the latest.
const SILENCE: Duration = CHORES.saturating_mul(6);
/// The pool runs low when fewer than one in so many frames are free.
const LOW: usize = 16;

/// A worker's health at `now`.
pub(super) fn worker(index: usize, pulse: &Pulse, now: Instant) -> Health {
    let doing = if pulse.asleep.load(Relaxed) { "sleeps until a frame comes" } else { "polls" };
    let queues = pulse.queues.load(Relaxed);
    let silent = now.since(Instant::from_nanos(pulse.beat_ns.load(Relaxed)));
    let ok = silent <= SILENCE;
    let text = if ok {
        format!("serves {queues} queues, {doing}")
    } else {
        format!(
            "has not come round for {} s, {queues} queues wait: it hangs, or something else takes its CPU",
            silent.as_secs()
        )
    };
    Health { part: format!("worker {index}"), ok, text }
}

/// The health of the frame pool. Frames in the caches of workers, in rings and in flight are not free.
pub(super) fn frames(pool: &Pool) -> Health {
    let classes = [FrameClass::Wire, FrameClass::Large].map(|class| (pool.free(class), pool.total(class)));
    let [(wire, wires), (large, larges)] = classes;
    let ok = classes.iter().all(|(free, total)| free * LOW >= *total);
    let mut text = format!("{wire} of {wires} wire frames and {large} of {larges} large ones are free");
    if !ok {
        text += "; frames are dropped when there are none: fewer AF_XDP queues (ethtool -L) need fewer";
    }
    Health { part: "frames".to_owned(), ok, text }
}

#[cfg(test)]
mod tests {
    use vswitch_io::PoolConfig;

    use super::*;

    #[test]
    fn a_worker_that_does_not_beat_is_not_well() {
        let pulse = Pulse::default();
        let beat = Instant::from_secs(100);
        pulse.beat_ns.store(beat.as_nanos(), Relaxed);
        assert!(worker(0, &pulse, beat).ok && worker(0, &pulse, beat + SILENCE).ok);
        let late = worker(0, &pulse, beat + SILENCE + Duration::from_secs(4));
        assert!(!late.ok && late.text.contains("for 7 s"), "{late:?}");
    }

    #[test]
    fn a_pool_that_runs_low_is_not_well() {
        let pool = Pool::new(PoolConfig { wire: 64, large: 32 }).unwrap();
        let all = frames(pool);
        assert_eq!((all.ok, &*all.text), (true, "64 of 64 wire frames and 32 of 32 large ones are free"));
        let mut cache = pool.cache();
        let mut taken = Vec::new();
        // A cache takes 16 large frames at a time.
        taken.extend((0..16).filter_map(|_| cache.acquire(FrameClass::Large)));
        assert!(frames(pool).ok);
        taken.extend(cache.acquire(FrameClass::Large));
        let low = frames(pool);
        assert!(!low.ok && low.text.starts_with("64 of 64 wire frames and 0 of 32"), "{low:?}");
    }
}
