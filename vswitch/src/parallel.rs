//! Many calls at a time that the kernel keeps waiting.
//!
//! Opening and closing a packet socket's ring waits for RCU grace periods, 10 ms and more each. Callers that wait at
//! the same time share them, so many threads on few CPUs are done sooner.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// Calls at a time.
const AT_ONCE: usize = 32;

/// Calls `f` with every item, and returns the results in the items' order. The caller waits, and does its share:
/// threads that cannot be had make it slower, no more. They are in the caller's network namespace.
pub fn map<T: Send, R: Send>(items: Vec<T>, f: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = items.len().min(AT_ONCE);
    let items = Mutex::new(items.into_iter().enumerate());
    let work = || {
        let mut done = Vec::new();
        loop {
            let next = items.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((index, item)) = next else { return done };
            done.push((index, f(item)));
        }
    };
    let mut results = thread::scope(|scope| {
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..threads).map_while(spawn).collect();
        let mut results = work();
        for other in others {
            results.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn results_are_in_order() {
        assert_eq!(map((0..100).collect(), |n| n * 2), (0..100).map(|n| n * 2).collect::<Vec<_>>());
        assert!(map(Vec::<u8>::new(), |n| n).is_empty());
    }

    #[test]
    fn calls_wait_together() {
        let all = Barrier::new(AT_ONCE);
        let leaders = map(vec![(); AT_ONCE], |()| all.wait().is_leader());
        assert_eq!(leaders.iter().filter(|&&leads| leads).count(), 1);
    }
}
