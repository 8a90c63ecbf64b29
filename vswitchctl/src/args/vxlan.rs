//! `vxlan`.

use std::net::IpAddr;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Vxlan {
    /// This switch's VTEP, the networks in tunnels, and the peers
    Show,
    /// The other VTEPs of a network
    #[command(subcommand)]
    Peer(Peer),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Peer {
    /// Add a peer to a network
    Add {
        /// The network
        network: String,
        /// The other VTEP's address
        address: IpAddr,
    },
    /// Remove a peer from a network
    Del {
        /// The network
        network: String,
        /// The other VTEP's address
        address: IpAddr,
    },
}
