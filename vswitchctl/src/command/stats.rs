//! `stats`.

use std::process::ExitCode;
use std::time::Duration;

use vswitch_api::client::Client;
use vswitch_api::paths;
use vswitch_api::response::{Conservation, Drops, Stats, Traffic};
use vswitch_api::topology::OWN_PORT;

use super::render;
use crate::failure::Failure;
use crate::print;
use crate::table::Table;

/// The time between two prints of `--watch`.
const PERIOD: Duration = Duration::from_secs(1);

pub(crate) async fn run(client: &Client, json: bool) -> Result<String, Failure> {
    let stats: Stats = client.get(paths::STATS, &()).await?;
    render(&stats, json, text)
}

/// Prints until it is interrupted or nobody reads any more: a new screen each time, or a JSON document each.
pub(crate) async fn watch(client: &Client, json: bool) -> Result<ExitCode, Failure> {
    const CLEAR: &str = "\x1b[H\x1b[2J"; // ECMA-48 8.3.21 and 8.3.39: cursor home, erase the page
    let mut timer = tokio::time::interval(PERIOD);
    loop {
        timer.tick().await;
        let clear = if json { "" } else { CLEAR };
        if !print(&format!("{clear}{}", run(client, json).await?))? {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

fn text(stats: &Stats) -> String {
    let mut out = ports(stats);
    out.push_str(&format!("\n{}", networks(stats)));
    if !stats.tenants.is_empty() {
        out.push_str(&format!("\n{}", tenants(stats)));
    }
    if !stats.drops.is_empty() {
        out.push_str(&format!("\n{}", drops(stats)));
    }
    out.push_str(&format!("\n{}", balance(&stats.conservation)));
    out
}

fn ports(stats: &Stats) -> String {
    let mut table = Table::new([
        "PORT",
        "RX",
        "RX-BYTES",
        "TX",
        "TX-BYTES",
        "TX-STALLS",
        "FLOODED",
        "MISSED",
        "DROPPED",
        "BY REASON",
    ]);
    let ports = stats.ports.iter().map(|port| (port.name.as_str(), &port.counters));
    let own = stats.switch.iter().map(|counters| (OWN_PORT, counters));
    for (name, c) in ports.chain(own) {
        table.row([
            name.to_owned(),
            c.rx_packets.to_string(),
            c.rx_bytes.to_string(),
            c.tx_packets.to_string(),
            c.tx_bytes.to_string(),
            c.tx_stalls.to_string(),
            c.flooded.to_string(),
            c.missed.to_string(),
            c.dropped.to_string(),
            reasons(&c.drops),
        ]);
    }
    table.to_string()
}

/// Networks with their tenants.
fn networks(stats: &Stats) -> String {
    let mut table = Table::new(["NETWORK", "TENANT", "PACKETS", "BYTES", "FLOODED"]);
    for network in &stats.networks {
        let [packets, bytes, flooded] = numbers(&network.traffic);
        let tenant = network.tenant.clone().unwrap_or_default();
        table.row([network.name.clone(), tenant, packets, bytes, flooded]);
    }
    table.to_string()
}

/// Sums over the networks of tenants, and over ports that carry no others.
fn tenants(stats: &Stats) -> String {
    let mut table =
        Table::new(["TENANT", "PACKETS", "BYTES", "FLOODED", "NOT-LEARNT", "DROPPED", "BY REASON"]);
    for tenant in &stats.tenants {
        let c = &tenant.counters;
        let [packets, bytes, flooded] = numbers(&c.traffic);
        let (refused, dropped) = (c.learn_refused.to_string(), c.dropped.to_string());
        table.row([tenant.name.clone(), packets, bytes, flooded, refused, dropped, reasons(&c.drops)]);
    }
    table.to_string()
}

fn numbers(t: &Traffic) -> [String; 3] {
    [t.packets, t.bytes, t.flooded].map(|n| n.to_string())
}

/// As in `runt 2, vlan_not_allowed 7`.
fn reasons(drops: &Drops) -> String {
    drops.iter().map(|(reason, n)| format!("{reason} {n}")).collect::<Vec<_>>().join(", ")
}

fn drops(stats: &Stats) -> String {
    let mut table = Table::new(["DROPPED", "REASON", "MEANING"]);
    for (reason, count) in &stats.drops {
        let meaning = stats.reasons.get(reason).cloned().unwrap_or_default();
        table.row([count.to_string(), reason.clone(), meaning]);
    }
    table.to_string()
}

fn balance(c: &Conservation) -> String {
    format!(
        "received {} + originated {} + replicated {} {} transmitted {} + consumed {} + dropped {}\n",
        c.received,
        c.originated,
        c.replicated,
        if c.is_balanced() { "=" } else { "!= (frames are in flight)" },
        c.transmitted,
        c.consumed,
        c.dropped
    )
}
