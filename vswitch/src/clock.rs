//! The daemon's one clock. Everything else gets time as a value.

use vswitch_wire::Instant;

/// A monotonic clock that starts with the daemon.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// A clock that reads zero now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the time")]
    pub fn start() -> Self {
        Self { origin: std::time::Instant::now() }
    }

    /// Time since the start.
    pub fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
