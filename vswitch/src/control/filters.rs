//! The netdevs that the host's own stack is kept off.
//!
//! A filter belongs to a netdev for as long as a port is configured for it, attached or not: were it part of the
//! attachment, the host would hear and answer frames whenever a port is attached anew. Taps are the host's to use and
//! have none; nor have netdevs that the switch may not take.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vswitch_io::hoststack::HostFilter;
use vswitch_io::shortcut::Shortcut;

use crate::parallel;

/// By interface index; `Err`: what the kernel said.
type Held = HashMap<u32, io::Result<HostFilter>>;

pub(super) struct Filters {
    held: Mutex<Held>,
    /// Frames that take it are not dropped.
    shortcut: Option<&'static Shortcut>,
}

impl Filters {
    pub(super) fn new(shortcut: Option<&'static Shortcut>) -> Self {
        Self { held: Mutex::default(), shortcut }
    }

    /// Keeps the host off the netdev from here on. Many threads may call it at a time.
    pub(super) fn hold(&self, ifindex: u32) {
        if self.has(ifindex) {
            return;
        }
        // Some milliseconds, without the lock.
        let filter = HostFilter::attach(ifindex, self.shortcut);
        self.held().insert(ifindex, filter);
    }

    /// Whether the netdev has one.
    pub(super) fn has(&self, ifindex: u32) -> bool {
        matches!(self.held().get(&ifindex), Some(Ok(_)))
    }

    /// Why the host hears what comes in by this netdev.
    pub(super) fn refusal(&self, ifindex: u32) -> Option<String> {
        self.held().get(&ifindex)?.as_ref().err().map(ToString::to_string)
    }

    /// Gives all netdevs but these back to the host.
    pub(super) fn keep(&self, wanted: &HashSet<u32>) {
        let gone: Vec<_> = self.held().extract_if(|ifindex, _| !wanted.contains(ifindex)).collect();
        parallel::map(gone, drop);
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // The map is whole at every point where a thread could panic.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
