//! The one way in which a scenario waits.

#![allow(clippy::disallowed_methods)] // deadlines of tests are in real time

use std::thread;
use std::time::{Duration, Instant};

/// Deadline of what is done within milliseconds unless the machine is very busy.
pub const SOON: Duration = Duration::from_secs(20);

/// The pause between two looks. What is waited for is the state of other processes, as their own commands tell it,
/// and of that there is no event; so look again, at most so often.
const INTERVAL: Duration = Duration::from_millis(20);

/// Looks until there is something.
///
/// # Panics
/// When there is nothing at the `deadline`.
#[track_caller]
pub fn wait_for<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {deadline:?}");
        thread::sleep(INTERVAL);
    }
}

/// Looks until it is so.
///
/// # Panics
/// When it is not so at the `deadline`.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, mut is_so: impl FnMut() -> bool) {
    wait_for(what, deadline, || is_so().then_some(()));
}
