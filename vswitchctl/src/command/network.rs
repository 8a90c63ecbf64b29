//! `network`.

use vswitch_api::client::Client;
use vswitch_api::paths;
use vswitch_api::request::NetworkPatch;
use vswitch_api::response::{Changes, NetworkState};
use vswitch_api::topology;

use super::acl::{self, named};
use super::{changes, render};
use crate::args::Network;
use crate::failure::Failure;
use crate::table::Table;

pub(crate) async fn run(client: &Client, command: Network, json: bool) -> Result<String, Failure> {
    match command {
        Network::Add {
            name,
            vlan,
            vni,
            peers,
            peers_any,
            remote_learning,
            tenant,
            address,
            max_macs,
            ageing,
            acl,
        } => {
            let default = topology::Network::new(name);
            let network = topology::Network {
                vlan,
                vni,
                peers,
                peers_any,
                remote_learning,
                tenant,
                address,
                max_macs: max_macs.unwrap_or(default.max_macs),
                ageing: ageing.unwrap_or(default.ageing),
                acl: topology::AclUse { ingress: named(acl.acl_ingress), egress: named(acl.acl_egress) },
                ..default
            };
            let changed: Changes = client.post(paths::NETWORKS, &(), &network).await?;
            render(&changed, json, changes)
        }
        Network::Set { name, acl } => {
            let patch =
                NetworkPatch(acl::patch(&acl).map(|acl| ("acl".to_owned(), acl)).into_iter().collect());
            let changed: Changes = client.patch(&paths::network(&name), &(), &patch).await?;
            render(&changed, json, changes)
        }
        Network::Del { name } => {
            let changed: Changes = client.delete(&paths::network(&name), &()).await?;
            render(&changed, json, changes)
        }
        Network::List => {
            let networks: Vec<NetworkState> = client.get(paths::NETWORKS, &()).await?;
            render(&networks, json, |n| list(n))
        }
    }
}

fn list(networks: &[NetworkState]) -> String {
    let mut table =
        Table::new(["NETWORK", "TENANT", "VLAN", "VNI", "MACS", "MAX", "AGEING", "ADDRESS", "PORTS"]);
    for network in networks {
        table.row([
            network.name.clone(),
            network.tenant.clone().unwrap_or_default(),
            network.vlan.map_or(String::new(), |v| v.to_string()),
            network.vni.map_or(String::new(), |v| v.to_string()),
            network.macs.to_string(),
            network.max_macs.to_string(),
            network.ageing.clone(),
            network.address.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            network.ports.join(" "),
        ]);
    }
    table.to_string()
}
