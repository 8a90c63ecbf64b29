//! Chunks of closed sockets of which the kernel may still read or write some.
//!
//! Each waits here until it is shown that the socket has ended, by a bind of its queue that succeeds, whoever binds
//! it. A receiver that sits on its frames can put that off for as long as it likes. So after the closing socket has
//! waited for it in vain, it is looked for again, without waiting, each time that a port is opened or closed. A look
//! costs a few milliseconds for each queue that waits (a bind pins the pool's pages), which is none as a rule.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::socket::{Queue, is_torn_down};
use super::umem::Lent;

static WAITING: Mutex<Vec<(Queue, Lent)>> = Mutex::new(Vec::new());

fn waiting() -> MutexGuard<'static, Vec<(Queue, Lent)>> {
    // The list is whole at every point where a thread could panic.
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps what the socket of a queue has lent. To be called before that one is closed.
pub(super) fn add(queue: Queue, lent: Lent) {
    waiting().push((queue, lent));
}

/// Gives back what earlier sockets of the queue have lent: they have ended.
pub(super) fn settle(queue: Queue) {
    for (_, mut lent) in waiting().extract_if(.., |(of, _)| *of == queue) {
        lent.reclaim();
    }
}

/// Looks once at each queue that waits, in the calling thread's network namespace.
pub(super) fn retry() {
    let mut queues: Vec<_> = waiting().iter().map(|(queue, lent)| (*queue, lent.pool())).collect();
    queues.dedup_by_key(|(queue, _)| *queue);
    for (queue, pool) in queues {
        is_torn_down(queue, pool, 1);
    }
}
