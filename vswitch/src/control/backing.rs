//! What a port is attached to.

use std::fmt;
use std::path::{Path, PathBuf};

use vswitch_api::topology::Port;

/// A netdev or a socket. No two ports have the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Backing {
    Netdev(String),
    /// Of a front end that speaks vhost-user.
    Socket(PathBuf),
}

impl Backing {
    /// Where the port is to be.
    pub(super) fn of(port: &Port) -> Self {
        match port.netdev() {
            Some(netdev) => Self::Netdev(netdev.to_owned()),
            // `topology::check` refuses a vhost-user port without a socket.
            None => Self::Socket(port.socket.clone().unwrap_or_default().into()),
        }
    }

    pub(super) fn netdev(&self) -> Option<&str> {
        match self {
            Self::Netdev(netdev) => Some(netdev),
            Self::Socket(_) => None,
        }
    }

    pub(super) fn socket(&self) -> Option<&Path> {
        match self {
            Self::Netdev(_) => None,
            Self::Socket(socket) => Some(socket),
        }
    }
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netdev(netdev) => f.write_str(netdev),
            Self::Socket(socket) => socket.display().fmt(f),
        }
    }
}
