//! The control thread of a port: waits for the front end, and serves it until it leaves. Then everything that came
//! from it is gone, and the next may come.
//!
//! As a client it asks for the socket again and again, since nothing tells of a server that begins to listen.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::State;
use super::connection::{Closed, Connection};
use super::device::Device;
use super::session::{Refused, Session};
use super::vring::signal;

/// How long a client waits before it asks for the socket again.
const RETRY: Duration = Duration::from_millis(200);

/// Messages that are obeyed before the thread looks for anything else.
const MESSAGES: usize = 64;

/// Where front ends come from.
pub(super) enum Source {
    /// They connect to us, one at a time: the next waits until the one before it has left.
    Listener(UnixListener),
    /// We connect to them.
    Path(PathBuf),
}

/// What others may know, and when it changed.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Readable when the state has changed.
    pub(super) changed: EventFd,
}

/// What the thread works with.
pub(super) struct Control {
    pub(super) source: Source,
    pub(super) device: Arc<Device>,
    pub(super) shared: Arc<Shared>,
    /// Readable when the thread is to end.
    pub(super) stop: Arc<EventFd>,
}

/// Why a session is over.
#[derive(Debug, thiserror::Error)]
enum Over {
    #[error(transparent)]
    Closed(#[from] Closed),
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The port is closed.
    #[error("the port was closed")]
    Stopped,
}

impl Control {
    /// The thread's life. When it ends by itself, the port is lost.
    pub(super) fn run(self) {
        // Whatever happens, a worker hears of it.
        struct Ended<'a>(&'a Device);
        impl Drop for Ended<'_> {
            fn drop(&mut self) {
                self.0.ended.store(true, Ordering::Relaxed);
                self.0.wake();
            }
        }
        let _ended = Ended(&self.device);
        while let Ok(Some(stream)) = self.next_stream() {
            let over = match Connection::new(stream) {
                Ok(connection) => self.serve(connection),
                Err(e) => Over::Closed(e.into()),
            };
            let reason = match &over {
                Over::Stopped => return,
                Over::Closed(Closed::End) => None,
                over => Some(over.to_string()),
            };
            self.update(|state| {
                let refused = state.refused + u64::from(reason.is_some());
                let reason = reason.or_else(|| state.reason.take());
                *state = State { refused, reason, sessions: state.sessions, ..State::default() };
            });
        }
    }

    /// The next front end; `None` when the port is closed.
    fn next_stream(&self) -> io::Result<Option<UnixStream>> {
        loop {
            let stream = match &self.source {
                Source::Listener(listener) => match wait([self.stop.as_fd(), listener.as_fd()], None)? {
                    [true, _] => return Ok(None),
                    _ => listener.accept().map(|(stream, _)| stream),
                },
                Source::Path(path) => connect_to(path),
            };
            match stream {
                Ok(stream) => return Ok(Some(stream)),
                // It is not there yet, or left again, or this process is out of file descriptors: all may pass.
                Err(_) if wait([self.stop.as_fd()], Some(RETRY))? == [true] => return Ok(None),
                Err(_) => {}
            }
        }
    }

    fn serve(&self, mut connection: Connection) -> Over {
        let mut session = Session::new(Arc::clone(&self.device));
        self.update(|state| (state.connected, state.sessions) = (true, state.sessions + 1));
        loop {
            let fds = [self.stop.as_fd(), self.device.notice.as_fd(), connection.fd()];
            let result = match wait(fds, None) {
                Ok([true, ..]) => return Over::Stopped,
                Ok([_, notice, message]) => {
                    if notice {
                        // It is ours, and does not block.
                        let _ = self.device.notice.read();
                        session.report_broken();
                    }
                    if message { obey(&mut connection, &mut session) } else { Ok(()) }
                }
                Err(e) => Err(Closed::from(e).into()),
            };
            if let Err(over) = result {
                // Its guest is gone. One that was sent away has it still, and may come back; and one that started no
                // ring has no guest, or cannot serve it with what it was offered.
                if matches!(over, Over::Closed(Closed::End)) && session.has_run() {
                    self.device.forget();
                }
                return over;
            }
            self.update(|state| {
                state.features = session.features();
                state.pairs = session.running_pairs();
                state.broken = self.device.vrings().iter().find_map(super::vring::Vring::broken);
            });
        }
    }

    /// Changes the state, and says so where it is another then.
    fn update(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.clone();
        change(&mut state);
        if *state != before {
            signal(&self.shared.changed);
        }
    }
}

/// Obeys some of the messages that have come: a front end that sends and sends must not keep the port from being
/// closed.
fn obey(connection: &mut Connection, session: &mut Session) -> Result<(), Over> {
    for _ in 0..MESSAGES {
        let Some(message) = connection.receive()? else { break };
        if let Some(reply) = session.on_message(message)? {
            connection.send(reply)?;
        }
    }
    Ok(())
}

/// Connects without waiting, as a connect to a server that does not accept would.
pub(super) fn connect_to(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(fd.into())
}

/// Waits until one of the descriptors is readable, or has ended; which ones are.
fn wait<const N: usize>(fds: [BorrowedFd<'_>; N], timeout: Option<Duration>) -> io::Result<[bool; N]> {
    let timeout = timeout.map_or(PollTimeout::NONE, |t| PollTimeout::try_from(t).unwrap_or(PollTimeout::MAX));
    let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    match poll(&mut fds, timeout) {
        Ok(_) => Ok(fds.map(|fd| fd.any().unwrap_or(true))),
        Err(Errno::EINTR) => Ok([false; N]),
        Err(e) => Err(e.into()),
    }
}
