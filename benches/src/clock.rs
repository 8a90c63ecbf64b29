//! Time: the one place that reads it, and lets it pass.

use std::time::{Duration, Instant};

use crate::Result;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two questions.
const PAUSE: Duration = Duration::from_millis(20);

/// Now.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Lets time pass.
#[expect(clippy::disallowed_methods, reason = "a sample takes its time")]
pub(crate) fn pass(time: Duration) {
    std::thread::sleep(time);
}

/// Asks until the answer is yes; an error when it takes too long.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = now() + PATIENCE;
    while !condition()? {
        if now() > deadline {
            return Err(format!("not within {PATIENCE:?}: {what}").into());
        }
        pass(PAUSE);
    }
    Ok(())
}

/// The date.
#[expect(clippy::disallowed_methods, reason = "a report says when it was made")]
pub(crate) fn seconds_since_1970() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
