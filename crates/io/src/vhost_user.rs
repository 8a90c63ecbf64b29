//! vhost-user: a guest's virtio-net rings in shared memory (VIRTIO 1.2; QEMU, docs/interop/vhost-user.rst).
//!
//! The front end (QEMU, Cloud Hypervisor, user-mode Linux, DPDK's virtio-user) connects to a Unix socket, or listens
//! on it, shares the guest's memory and says where the rings are. From then on workers copy frames out of and into
//! the guest's buffers, and no system call is made for a frame while both sides poll.
//!
//! | module | what |
//! |---|---|
//! | `memory`, `vanish` | the guest's memory, mapped; what happens when it is taken away |
//! | `ring`, `buffers` | both kinds of virtqueue, the device's side |
//! | `record`, `store` | where packed rings are, for whoever comes after this process |
//! | `rx`, `tx`, `features` | frames, and the unfinished work that was agreed upon |
//! | `message`, `session` | the protocol, without input or output |
//! | `connection`, `control` | the socket and the thread |
//! | `vring`, `device` | what workers and the control thread share: a ring behind a lock that is held for one batch |
//!
//! A port without a front end is open, receives nothing and drops what is sent to it; [`Watch`] tells when that
//! changes. A front end may leave and come back, as may the switch: rings are taken up where they are. That of a packed
//! ring is in no shared memory, and told by the record in [`Config::record`].
//!
//! Trust: a guest can stop its own rings at most, see [`ring`]. A front end can do no more, but for one thing: one
//! that clears `O_NONBLOCK` of what it is interrupted by, and fills it, makes the worker wait.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nix::sys::eventfd::EventFd;
use nix::sys::socket::UnixAddr;
use vswitch_wire::Caps;

use crate::port::{Facts, Kind, OpenError, Opened, RxQueue, TxQueue};

mod buffers;
mod connection;
mod control;
mod device;
mod features;
#[cfg(any(test, feature = "testing"))]
pub mod guest;
mod memory;
mod message;
mod record;
mod ring;
mod rx;
mod session;
mod store;
#[cfg(test)]
mod tests;
mod tx;
mod vanish;
mod vring;

pub use features::Features;
pub use ring::Broken;

use control::{Control, Shared, Source};
use device::Device;
use record::Records;
use rx::Rx;
use tx::Tx;
use vring::{eventfd, signal};

/// The largest MTU: what a large frame holds, and IP can say.
const MTU_LIMIT: u32 = 65535;
/// What a guest has unless it is told otherwise; the front end does not say.
const MTU: u32 = 1500;
/// Most queue pairs of a port: the device has a bit for each.
pub const MOST_PAIRS: u16 = 64;

/// Who listens on the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The switch.
    Server,
    /// The front end.
    Client,
}

/// How a port is opened.
#[derive(Clone, Debug)]
pub struct Config {
    /// The socket.
    pub socket: PathBuf,
    /// Who listens on it.
    pub role: Role,
    /// Queue pairs that a guest may use, at most [`MOST_PAIRS`].
    pub pairs: u16,
    /// The file in which it is written down where packed rings are, for the process that opens the port after this one.
    /// It stays while there is something in it.
    pub record: Option<PathBuf>,
}

/// What is known of a port's front end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// It is there.
    pub connected: bool,
    /// What it acknowledged.
    pub features: Features,
    /// Queue pairs by which frames pass both ways; the link is up when there is one.
    pub pairs: usize,
    /// Why a ring rests.
    pub broken: Option<Broken>,
    /// Front ends that came since the port was opened.
    pub sessions: u64,
    /// How many of them were sent away, and why the last one was.
    pub refused: u64,
    /// See `refused`.
    pub reason: Option<String>,
}

/// Tells of a port's front end.
pub struct Watch(Arc<Shared>);

impl Watch {
    /// What is known now. Until it changes, [`Watch::fd`] is not readable.
    pub fn state(&self) -> State {
        // It does not block; before the state is read, so that no change is missed.
        let _ = self.0.changed.read();
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Readable once the state has changed.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.changed.as_fd()
    }
}

/// Opens a port for `workers` workers, with a thread that waits for its front end.
///
/// # Errors
/// [`OpenError`]; nothing is left behind then.
pub fn open(config: &Config, workers: usize) -> Result<(Opened, Watch), OpenError> {
    let path = config.socket.display();
    if config.pairs == 0 || config.pairs > MOST_PAIRS {
        let text = format!("a vhost-user port has 1 to {MOST_PAIRS} queue pairs, not {}", config.pairs);
        return Err(OpenError::Refused(text));
    }
    if UnixAddr::new(&config.socket).is_err() {
        return Err(OpenError::Refused(format!("`{path}` is too long for the name of a socket")));
    }
    let record = |path| Records::open(path, 2 * usize::from(config.pairs)).map(Arc::new);
    let records = config.record.as_deref().map(record).transpose();
    let device = Device::new(config.pairs, records.as_ref().ok().and_then(Option::as_ref));
    let device = device.map(Arc::new).map_err(OpenError::at("make eventfds"))?;
    let shared = eventfd().map(|changed| Arc::new(Shared { state: Mutex::default(), changed }));
    let shared = shared.map_err(OpenError::at("make an eventfd"))?;
    let stop = eventfd().map(Arc::new).map_err(OpenError::at("make an eventfd"))?;
    let mut guard = Guard { stop: Arc::clone(&stop), thread: None, socket: None };
    let source = match config.role {
        Role::Client => Source::Path(config.socket.clone()),
        Role::Server => {
            let listener = listen(&config.socket)?;
            guard.socket = identity(&config.socket).map(|id| (config.socket.clone(), id));
            Source::Listener(listener)
        }
    };
    let control = Control { source, device: Arc::clone(&device), shared: Arc::clone(&shared), stop };
    let thread = thread::Builder::new().name("vhost-user".to_owned()).spawn(|| control.run());
    guard.thread = Some(thread.map_err(OpenError::at("start a thread"))?);
    let rx = (0..device.pairs()).map(|pair| Box::new(Rx::new(Arc::clone(&device), pair)) as Box<dyn RxQueue>);
    let tx = (0..workers).map(|_| Box::new(Tx::new(Arc::clone(&device))) as Box<dyn TxQueue>);
    let mut facts = facts(config);
    if let Err(error) = records {
        facts.why +=
            &format!("; its packed rings do not outlive a killed switch: no record of them: {error}");
    }
    let opened = Opened { rx: rx.collect(), tx: tx.collect(), facts, guard: Box::new(guard) };
    Ok((opened, Watch(shared)))
}

fn facts(config: &Config) -> Facts {
    // What the guest does not take is finished on the way into its buffers.
    let caps = Caps { uso: false, ..Caps::ALL };
    Facts {
        kind: Kind::VhostUser,
        mode: match config.role {
            Role::Server => "rings in shared memory, server".to_owned(),
            Role::Client => "rings in shared memory, client".to_owned(),
        },
        rx_queues: u32::from(config.pairs),
        caps,
        rx_caps: caps,
        mtu_limit: MTU_LIMIT,
        mtu: MTU,
        vlan: Ok(()),
        shortcut_ifindex: None,
        why: "the guest's front end speaks vhost-user".to_owned(),
    }
}

/// Listens on `path`, in the place of a socket that nobody listens on any more.
fn listen(path: &Path) -> Result<UnixListener, OpenError> {
    let name = path.display();
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(OpenError::Refused(format!("`{name}` exists and is no socket")));
        }
        Ok(_) if is_refused(path) => fs::remove_file(path).map_err(OpenError::at("remove the old socket"))?,
        Ok(_) => return Err(OpenError::Refused(format!("another program listens on `{name}`"))),
        Err(_) => {} // bind says why it cannot be
    }
    let listener = UnixListener::bind(path).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => OpenError::Refused(format!("the folder of `{name}` does not exist")),
        _ => OpenError::System { step: "listen on the socket", source: e },
    })
}

/// Nobody listens on the socket.
fn is_refused(path: &Path) -> bool {
    control::connect_to(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

/// Tells a file from another that takes its name.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Ends the thread, and takes the socket away.
struct Guard {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    socket: Option<(PathBuf, (u64, u64))>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        signal(&self.stop);
        if let Some(thread) = self.thread.take() {
            // A panic in it has said so already, and shows as a lost port.
            let _ = thread.join();
        }
        if let Some((path, id)) = self.socket.take()
            && identity(&path) == Some(id)
        {
            // Somebody else may have been faster.
            let _ = fs::remove_file(path);
        }
    }
}
