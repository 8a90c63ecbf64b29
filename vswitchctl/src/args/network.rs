//! `network`.

use std::net::IpAddr;
use std::time::Duration;

use clap::Subcommand;
use vswitch_api::value::{self, Cidr, Vid, Vni};

use super::{AclOptions, vid, vni};

#[derive(Debug, Subcommand)]
pub(crate) enum Network {
    /// Add a network
    Add {
        /// Its name
        name: String,
        /// Its 802.1Q VLAN ID on trunks, 1 to 4094
        #[arg(long, value_parser = vid)]
        vlan: Option<Vid>,
        /// Its VXLAN network identifier, 0 to 16777215
        #[arg(long, value_parser = vni)]
        vni: Option<Vni>,
        /// Another VTEP of it; may be given several times
        #[arg(long = "peer", value_name = "IP")]
        peers: Vec<IpAddr>,
        /// Whoever sends frames of it becomes a peer
        #[arg(long)]
        peers_any: bool,
        /// Learn which MAC is behind which peer; without, static entries alone say it
        #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
        remote_learning: bool,
        /// Its owner
        #[arg(long)]
        tenant: Option<String>,
        /// An address of the switch itself in it, as in 10.0.0.254/24; may be given several times
        #[arg(long, value_name = "CIDR")]
        address: Vec<Cidr>,
        /// Most MACs learnt in it
        #[arg(long, value_name = "N")]
        max_macs: Option<u32>,
        /// How long an unused FDB entry lives, as in 300s
        #[arg(long, value_name = "TIME", value_parser = value::duration::parse)]
        ageing: Option<Duration>,
        #[command(flatten)]
        acl: AclOptions,
    },
    /// Change a network: what is not named stays
    Set {
        /// Its name
        name: String,
        #[command(flatten)]
        acl: AclOptions,
    },
    /// Remove a network that no port uses
    Del {
        /// Its name
        name: String,
    },
    /// List all networks
    List,
}
