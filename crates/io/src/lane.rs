//! A bounded queue of frames in memory, from any thread to one that polls it or sleeps on an eventfd.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Frame;

/// An eventfd: readable from a call of [`Bell::ring`] to one of [`Bell::hush`].
#[derive(Debug)]
pub(crate) struct Bell(File);

impl Bell {
    /// # Errors
    /// No more fds.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: plain integers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new fd that nobody else owns.
        Ok(Self(File::from(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    pub(crate) fn ring(&self) {
        // It fails only when the counter is at its end: then whoever listens is awake for long.
        let _ = (&self.0).write(&1_u64.to_ne_bytes());
    }

    pub(crate) fn hush(&self) {
        // Nothing to be read means nobody rang.
        let _ = (&self.0).read(&mut [0; 8]);
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// One direction between two queues.
#[derive(Debug)]
pub(crate) struct Lane {
    frames: Mutex<VecDeque<Frame>>,
    /// The receiver wants to be woken.
    armed: AtomicBool,
    bell: Bell,
}

impl Lane {
    /// A queue that has room for `limit` frames before it allocates; who sends keeps to it.
    ///
    /// # Errors
    /// No more fds.
    pub(crate) fn new(limit: usize) -> io::Result<Self> {
        let frames = Mutex::new(VecDeque::with_capacity(limit));
        Ok(Self { frames, armed: AtomicBool::new(false), bell: Bell::new()? })
    }

    pub(crate) fn frames(&self) -> MutexGuard<'_, VecDeque<Frame>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the sender, once frames are in.
    pub(crate) fn wake(&self) {
        if self.armed.load(Ordering::SeqCst) {
            self.bell.ring();
        }
    }

    /// For the receiver, before it takes frames.
    pub(crate) fn disarm(&self) {
        if self.armed.swap(false, Ordering::AcqRel) {
            self.bell.hush();
        }
    }

    /// For the receiver: the fd is readable when there is a frame, from now on.
    pub(crate) fn arm(&self) {
        self.armed.store(true, Ordering::SeqCst);
        // One that came before the arming woke nobody.
        if !self.frames().is_empty() {
            self.bell.ring();
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.bell.fd()
    }
}
