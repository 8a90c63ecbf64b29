//! Why a namespace, link or process could not be made.

use std::io;

/// What failed, in words; the kernel's reason is the source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("cannot {what}")]
    System {
        /// The operation, to be read after "cannot".
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No link of that name is in the namespace.
    #[error("no link {0:?} in this network namespace")]
    NoLink(String),
    /// Not an address with a prefix length.
    #[error("{0:?} is no address with a prefix length, such as 10.0.0.1/24 or fd00::1/64")]
    Address(String),
    /// The condition did not come true in time.
    #[error("{0} did not happen in time")]
    Timeout(String),
    /// A program ended with something else than success.
    #[error("{command} ended with {status}: {stderr}")]
    Failed {
        /// The program and its arguments.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it wrote to stderr, trimmed.
        stderr: String,
    },
}

/// The result of everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Wraps the kernel's answer; `what` is read after "cannot".
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }

    /// Like [`Error::system`], for calls through nix.
    pub(crate) fn errno(what: impl Into<String>) -> impl FnOnce(nix::errno::Errno) -> Self {
        let what = what.into();
        move |errno| Self::System { what, source: errno.into() }
    }

    /// Like [`Error::system`], for answers to netlink requests.
    pub(crate) fn netlink(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Self {
        let what = what.into();
        move |error| Self::System {
            what,
            source: match error {
                rtnetlink::Error::NetlinkError(message) => message.to_io(),
                other => io::Error::other(other),
            },
        }
    }

    /// The kernel's error number behind this error, if it has one.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::System { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
