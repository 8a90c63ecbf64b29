//! Connections of TCP between hosts.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::{Host, SOON};

/// No host's first SYN is repeated within this time (RFC 6298 section 2.1: after one second).
const BEFORE_ITS_REPETITION: Duration = Duration::from_millis(500);

impl Host {
    /// Listens at an address, as in `10.0.0.1:80`, for as long as the result lives. The kernel takes the connections.
    #[must_use]
    #[track_caller]
    pub fn listen(&self, address: &str) -> TcpListener {
        let listener = self.namespace.enter(|| TcpListener::bind(address)).expect("the host's namespace");
        listener.unwrap_or_else(|error| panic!("host {}: {address}: {error}", self.name))
    }

    /// Whether a connection is taken at an address.
    #[track_caller]
    pub fn connects_to(&self, address: &str) -> bool {
        self.connect(address, SOON)
    }

    /// Whether one SYN is not answered.
    #[track_caller]
    pub fn cannot_connect_to(&self, address: &str) -> bool {
        !self.connect(address, BEFORE_ITS_REPETITION)
    }

    fn connect(&self, address: &str, timeout: Duration) -> bool {
        let address: SocketAddr = address.parse().expect("an address and a port");
        let connect = || TcpStream::connect_timeout(&address, timeout);
        self.namespace.enter(connect).expect("the host's namespace").is_ok()
    }
}
