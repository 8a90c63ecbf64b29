//! Stores that the guest sees, or who takes a ring up after us: each behind all stores before it.

use std::sync::atomic::Ordering;

use vm_memory::volatile_memory::Error;
use vm_memory::{AtomicAccess, Bytes, VolatileSlice};

/// Stores a value at a place of `slice`.
#[inline]
pub(super) fn store<T: AtomicAccess>(slice: &VolatileSlice<'_>, value: T, place: usize) -> Result<(), Error> {
    #[cfg(test)]
    if !death::is_alive() {
        return Ok(());
    }
    slice.store(value, place, Ordering::Release)
}

/// A device that is killed between any two of its stores.
#[cfg(test)]
pub(super) mod death {
    use std::cell::Cell;

    thread_local! {
        /// Stores until the device of this thread is killed.
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// Whether the device still stores what it does. Counts one store.
    pub(super) fn is_alive() -> bool {
        LEFT.with(|left| {
            let is_alive = left.get() != Some(0);
            left.set(left.get().map(|left| left.saturating_sub(1)));
            is_alive
        })
    }

    /// The device is killed after so many stores, or never.
    pub(in crate::vhost_user) fn after(stores: Option<usize>) {
        LEFT.set(stores);
    }

    /// It was killed; from now on another one is there.
    pub(in crate::vhost_user) fn came() -> bool {
        LEFT.with(|left| left.get() == Some(0) && left.take().is_some())
    }
}
