//! How often the control thread goes through its ports for the sake of events: a storm of them costs what one costs.

use std::time::Duration;

use vswitch_wire::Instant;

/// The least time from one pass to the next.
const PASS_MIN: Duration = Duration::from_millis(10);

/// Says when a pass is due. News that comes while one has to wait is part of it, so the last is never lost.
#[derive(Debug, Default)]
pub(super) struct Pace {
    has_news: bool,
    not_before: Instant,
}

impl Pace {
    /// There is something to pass on.
    pub(super) fn on_news(&mut self) {
        self.has_news = true;
    }

    /// How long until a pass is due; `None` where there is no news.
    pub(super) fn due_in(&self, now: Instant) -> Option<Duration> {
        self.has_news.then(|| self.not_before.since(now))
    }

    /// A pass begins.
    pub(super) fn on_pass(&mut self, now: Instant) {
        *self = Self { has_news: false, not_before: now + PASS_MIN };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn a_storm_is_one_pass_every_ten_milliseconds_and_its_last_event_has_one() {
        let mut pace = Pace::default();
        assert_eq!(pace.due_in(at(0)), None);
        let mut passes = Vec::new();
        for ms in 0..100 {
            // An event every millisecond up to the 55th.
            if ms <= 55 {
                pace.on_news();
            }
            if pace.due_in(at(ms)) == Some(Duration::ZERO) {
                pace.on_pass(at(ms));
                passes.push(ms);
            }
        }
        assert_eq!(passes, [0, 10, 20, 30, 40, 50, 60], "the pass at 60 has what came after 50");
        assert_eq!(pace.due_in(at(100)), None);
    }

    #[test]
    fn a_single_event_does_not_wait() {
        let mut pace = Pace::default();
        pace.on_pass(at(0));
        pace.on_news();
        assert_eq!(pace.due_in(at(3)), Some(Duration::from_millis(7)));
        assert_eq!(pace.due_in(at(50)), Some(Duration::ZERO));
    }
}
