//! What can be measured. `cargo xtask bench` takes this file in, so that both know the same cases.

use clap::ValueEnum;

/// What is measured; its name is that on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// Instructions and nanoseconds per packet through the forwarding pipeline
    Pipeline,
    /// Frames of 64 bytes from veth to veth
    VethL2,
    /// One TCP stream from veth to veth
    TcpVeth,
    /// Frames of 64 bytes from guest to guest
    VhostUserL2,
}
