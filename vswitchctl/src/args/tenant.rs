//! `tenant`.

use clap::Subcommand;

use super::Limit;

#[derive(Debug, Subcommand)]
pub(crate) enum Tenant {
    /// Limit a tenant: what is not named stays
    #[command(group(clap::ArgGroup::new("limit").required(true).multiple(true)))]
    Set {
        /// Its name, as networks have it; it need not have a network yet
        name: String,
        /// Most MACs learnt in its networks together
        #[arg(long, value_name = "N|none", group = "limit")]
        max_macs: Option<Limit>,
        /// Most ports that carry any of its networks
        #[arg(long, value_name = "N|none", group = "limit")]
        max_ports: Option<Limit>,
    },
    /// Forget a tenant that has no network
    Del {
        /// Its name
        name: String,
    },
    /// List all tenants
    List,
    /// Show one tenant: networks, ports, limits, counters
    Show {
        /// Its name
        name: String,
    },
}
