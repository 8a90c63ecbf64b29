//! `vxlan`.

use vswitch_api::client::Client;
use vswitch_api::paths;
use vswitch_api::request::NewPeer;
use vswitch_api::response::{Changes, UnderlayState, VxlanState};

use super::{changes, render};
use crate::args::{Peer, Vxlan};
use crate::failure::Failure;
use crate::table::Table;

pub(crate) async fn run(client: &Client, command: Vxlan, json: bool) -> Result<String, Failure> {
    match command {
        Vxlan::Show => {
            let state: VxlanState = client.get(paths::VXLAN, &()).await?;
            render(&state, json, text)
        }
        Vxlan::Peer(Peer::Add { network, address }) => {
            let path = paths::peers(&network);
            let changed: Changes = client.post(&path, &(), &NewPeer { address }).await?;
            render(&changed, json, changes)
        }
        Vxlan::Peer(Peer::Del { network, address }) => {
            let changed: Changes = client.delete(&paths::peer(&network, address), &()).await?;
            render(&changed, json, changes)
        }
    }
}

fn text(state: &VxlanState) -> String {
    let mut out = state.underlay.as_ref().map_or_else(|| "no underlay\n".to_owned(), underlay);
    let number = |n: Option<u32>| n.map_or(String::new(), |n| n.to_string());
    if !state.networks.is_empty() {
        let mut table = Table::new(["NETWORK", "VNI", "MTU", "PEERS"]);
        for network in &state.networks {
            let peers: Vec<String> = network.peers.iter().map(ToString::to_string).collect();
            let vni = network.vni.map_or(String::new(), |vni| vni.to_string());
            table.row([network.name.clone(), vni, number(network.mtu), peers.join(" ")]);
        }
        out.push_str(&format!("\n{table}"));
    }
    if !state.peers.is_empty() {
        let mut table = Table::new([
            "PEER",
            "STATE",
            "NEXT HOP",
            "MAC",
            "NETWORKS",
            "MACS",
            "RX",
            "TX",
            "DROPPED",
            "BY REASON",
        ]);
        for peer in &state.peers {
            let c = &peer.counters;
            let reasons: Vec<_> = c.drops.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
            table.row([
                peer.address.to_string(),
                peer.reach.to_string(),
                peer.next_hop.map_or(String::new(), |hop| hop.to_string()),
                peer.mac.clone().unwrap_or_default(),
                peer.networks.to_string(),
                peer.macs.to_string(),
                c.rx_packets.to_string(),
                c.tx_packets.to_string(),
                c.dropped.to_string(),
                reasons.join(", "),
            ]);
        }
        out.push_str(&format!("\n{table}"));
    }
    out
}

fn underlay(underlay: &UnderlayState) -> String {
    let UnderlayState { address, mac, port, vlan, gateway, udp_port, up, mtu } = underlay;
    let mut line = format!("vtep {address} mac {mac} port {port}");
    line.extend(vlan.map(|vlan| format!(" vlan {vlan}")));
    line.extend(gateway.map(|gateway| format!(" gateway {gateway}")));
    line.push_str(&format!(" udp-port {udp_port} {}", if *up { "up" } else { "down" }));
    line.extend(mtu.map(|mtu| format!(" mtu {mtu}")));
    line + "\n"
}
