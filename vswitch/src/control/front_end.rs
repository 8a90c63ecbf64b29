//! Front ends of vhost-user ports: they come, go, and start and stop their guests' rings.
//!
//! The driver tells of that by a descriptor. A task for each port waits for it and passes on what is so now, at most
//! once in [`PACE`]: what a front end or a guest makes of its port as fast as it can must not keep the control task
//! busy. The port's link is up while the rings of one queue pair run, and none rests.

use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use vswitch_api::response::{self, Offloads};
use vswitch_dataplane::PortId;
use vswitch_io::vhost_user::{Features, State, Watch};
use vswitch_wire::Instant;

use super::Control;
use super::backing::Backing;
use super::record::DeviceState;
use super::report::offload_words;

/// The least time between two looks at one port. A front end starts its rings by a dozen messages within this.
const PACE: Duration = Duration::from_millis(20);
/// News that waits for the control task; a port's task waits when it is full.
const NEWS: usize = 64;
/// Lines of the log that one port may have in [`LOG_WINDOW`].
const LOG_LINES: u32 = 10;
const LOG_WINDOW: Duration = Duration::from_secs(10);

/// What a task waits on.
struct Fd(Watch);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd().as_raw_fd()
    }
}

/// A watch that tokio knows.
pub(super) struct Watched(AsyncFd<Fd>);

impl Watched {
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// What the kernel refused.
    #[expect(
        deprecated,
        reason = "what takes its place is unsafe, for values that lie about their descriptor"
    )]
    pub(super) fn new(watch: Watch) -> std::io::Result<Self> {
        AsyncFd::with_interest(Fd(watch), Interest::READABLE).map(Self)
    }
}

/// A port's front end is in another state.
pub(super) struct News {
    port: PortId,
    attachment: u64,
    state: State,
}

/// The way by which news comes.
pub(super) struct FrontEnds {
    news: mpsc::Sender<News>,
    inbox: mpsc::Receiver<News>,
}

impl Default for FrontEnds {
    fn default() -> Self {
        let (news, inbox) = mpsc::channel(NEWS);
        Self { news, inbox }
    }
}

impl FrontEnds {
    /// Follows the front end of an attached port, until the returned value is dropped.
    pub(super) fn follow(&self, watched: Watched, port: PortId, attachment: u64) -> FrontEnd {
        let news = self.news.clone();
        let task = async move {
            // An error is the end of the runtime.
            while let Ok(mut ready) = watched.0.readable().await {
                ready.clear_ready();
                let state = watched.0.get_ref().0.state();
                if news.send(News { port, attachment, state }).await.is_err() {
                    return;
                }
                tokio::time::sleep(PACE).await;
            }
        };
        let task = tokio::spawn(task).abort_handle();
        FrontEnd { task, state: State::default(), log: LogLimit::default() }
    }

    /// The next news; never `None`, since a sender is kept here.
    pub(super) async fn next(&mut self) -> Option<News> {
        self.inbox.recv().await
    }
}

/// A port's front end, as it was when it was last looked at.
pub(super) struct FrontEnd {
    task: AbortHandle,
    state: State,
    log: LogLimit,
}

impl Drop for FrontEnd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What news means for the port.
struct Change {
    is_up: bool,
    /// The guest that was there is gone, though another may be there already.
    lost_guest: bool,
}

impl FrontEnd {
    /// Frames pass.
    pub(super) fn is_up(&self) -> bool {
        self.state.pairs > 0 && self.state.broken.is_none()
    }

    fn take_in(&mut self, state: State, port: &str, now: Instant) -> Change {
        let was_up = self.is_up();
        let before = std::mem::replace(&mut self.state, state);
        let is_up = self.is_up();
        self.log(&before, was_up, port, now);
        Change { is_up, lost_guest: was_up && (!is_up || before.sessions != self.state.sessions) }
    }

    fn log(&mut self, before: &State, was_up: bool, port: &str, now: Instant) {
        let (state, is_up) = (&self.state, self.is_up());
        let refusal = state.reason.as_ref().filter(|_| state.refused > before.refused);
        let broken = state.broken.filter(|_| state.broken != before.broken);
        if refusal.is_none() && broken.is_none() && was_up == is_up {
            return;
        }
        let Some(left_out) = self.log.line(now) else { return };
        if left_out > 0 {
            tracing::info!(port, left_out, "the front end changes too often for each change to be told");
        }
        if let Some(reason) = refusal {
            tracing::warn!(port, reason, "the front end broke the protocol and was sent away");
        }
        if let Some(why) = broken {
            tracing::warn!(port, %why, "a ring rests until the guest resets it");
        }
        if was_up != is_up {
            tracing::info!(port, up = is_up, features = %state.features, "link state");
        }
    }

    /// Why no frame passes, in words.
    pub(super) fn reason(&self, backing: &Backing) -> String {
        let State { connected, broken, reason, .. } = &self.state;
        match (connected, broken) {
            (true, Some(broken)) => format!("a ring rests until the guest resets it: {broken}"),
            (true, None) => format!(
                "the front end on {backing} is there, its guest has started no rings: it boots, has no driver, or its memory \
                 is not shared"
            ),
            (false, _) => {
                let waits = format!("waits for a front end on {backing}");
                reason
                    .as_ref()
                    .map_or(waits.clone(), |reason| format!("{waits}; one was sent away: {reason}"))
            }
        }
    }

    /// For `port show`.
    pub(super) fn view(&self) -> response::FrontEnd {
        let State { connected, features, pairs, broken, sessions, refused, reason } = &self.state;
        // Before the guest's driver runs, nothing is agreed upon.
        let slow = if *pairs > 0 { features.slow() } else { Vec::new() };
        response::FrontEnd {
            connected: *connected,
            features: features.to_string().split_whitespace().map(str::to_owned).collect(),
            slow: slow.into_iter().map(str::to_owned).collect(),
            queue_pairs: *pairs as u32,
            broken: broken.map(|broken| broken.to_string()),
            sessions: *sessions,
            refused: *refused,
            last_refusal: reason.clone(),
        }
    }

    /// The unfinished work that the guest has agreed to take, and to leave.
    pub(super) fn offloads(&self) -> Offloads {
        let features: Features = self.state.features;
        Offloads { tx: offload_words(features.to_guest()), rx: offload_words(features.from_guest()) }
    }
}

/// Lets so many lines of one port into the log, and counts the others.
#[derive(Debug, Default)]
struct LogLimit {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl LogLimit {
    /// `None` when the line is to be left out, else how many were before it.
    fn line(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.since(since) >= LOG_WINDOW) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines == LOG_LINES {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Control {
    /// Brings ports in line with their front ends: the one of this news, and those whose news has come meanwhile.
    pub(super) async fn follow_front_ends(&mut self, first: News) {
        let mut news = vec![first];
        while let Ok(more) = self.front_ends.inbox.try_recv() {
            news.push(more);
        }
        let mut changed = Vec::new();
        for news in news {
            let port = news.port;
            if self.follow_front_end(news) {
                changed.push(port);
            }
        }
        if !changed.is_empty() {
            self.publish_links(&changed).await;
        }
    }

    /// True when the snapshot has to be made anew.
    fn follow_front_end(&mut self, News { port, attachment, state }: News) -> bool {
        let now = self.clock.now();
        let Some(name) = self.port_ids.name(port.0).map(str::to_owned) else { return false };
        let Some(record) = self.ports.get_mut(&name) else { return false };
        let DeviceState::Attached(device) = &mut record.device else { return false };
        let Some(front_end) = device.front_end.as_mut().filter(|_| device.attachment == attachment) else {
            return false;
        };
        let Change { is_up, lost_guest } = front_end.take_in(state, &name, now);
        let was_up = std::mem::replace(&mut device.up, is_up);
        if lost_guest {
            self.mark_silent(&name);
        }
        lost_guest || was_up != is_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn front_end() -> FrontEnd {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let task = runtime.spawn(async {}).abort_handle();
        FrontEnd { task, state: State::default(), log: LogLimit::default() }
    }

    #[test]
    fn the_link_is_up_while_rings_run_and_none_rests() {
        let mut it = front_end();
        let backing = Backing::Socket("/run/vm1.sock".into());
        let steps = [
            (State::default(), (false, false), "waits for a front end on /run/vm1.sock"),
            (
                State { connected: true, sessions: 1, ..State::default() },
                (false, false),
                "has started no rings",
            ),
            (State { connected: true, sessions: 1, pairs: 1, ..State::default() }, (true, false), ""),
            // It went and came back between two looks.
            (State { connected: true, sessions: 2, pairs: 1, ..State::default() }, (true, true), ""),
            (
                State {
                    connected: true,
                    sessions: 2,
                    pairs: 1,
                    broken: Some(vswitch_io::vhost_user::Broken::Endless),
                    ..State::default()
                },
                (false, true),
                "a ring rests until the guest resets it: a chain",
            ),
            (
                State { sessions: 2, refused: 1, reason: Some("it said no".to_owned()), ..State::default() },
                (false, false),
                "waits for a front end on /run/vm1.sock; one was sent away: it said no",
            ),
        ];
        for (state, expected, reason) in steps {
            let outlook = it.take_in(state.clone(), "vm1", Instant::ZERO);
            assert_eq!((outlook.is_up, outlook.lost_guest), expected, "{state:?}");
            assert!(it.reason(&backing).contains(reason), "{}", it.reason(&backing));
            assert_eq!(it.view().slow.is_empty(), state.pairs == 0, "nothing was agreed upon here");
        }
    }

    #[test]
    fn a_port_that_flaps_does_not_fill_the_log() {
        let mut limit = LogLimit::default();
        let start = Instant::from_secs(100);
        let told = (0..100).filter_map(|_| limit.line(start)).count();
        assert_eq!(told, LOG_LINES as usize);
        assert_eq!(limit.line(start + LOG_WINDOW), Some(90));
        assert_eq!(limit.line(start + LOG_WINDOW), Some(0));
    }
}
