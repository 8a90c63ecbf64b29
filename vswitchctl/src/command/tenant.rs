//! `tenant`.

use serde_json::{Map, Value, json};
use vswitch_api::client::Client;
use vswitch_api::paths;
use vswitch_api::request::TenantPatch;
use vswitch_api::response::{Changes, TenantPort, TenantState};

use super::{changes, render};
use crate::args::{Limit, Tenant};
use crate::failure::Failure;
use crate::table::{NOTHING, Table, facts};

pub(crate) async fn run(client: &Client, command: Tenant, json: bool) -> Result<String, Failure> {
    match command {
        Tenant::Set { name, max_macs, max_ports } => {
            let patch = TenantPatch(patch([("max_macs", max_macs), ("max_ports", max_ports)]));
            let changed: Changes = client.patch(&paths::tenant(&name), &(), &patch).await?;
            render(&changed, json, changes)
        }
        Tenant::Del { name } => {
            let changed: Changes = client.delete(&paths::tenant(&name), &()).await?;
            render(&changed, json, changes)
        }
        Tenant::List => {
            let tenants: Vec<TenantState> = client.get(paths::TENANTS, &()).await?;
            render(&tenants, json, |t| list(t))
        }
        Tenant::Show { name } => {
            let tenant: TenantState = client.get(&paths::tenant(&name), &()).await?;
            render(&tenant, json, show)
        }
    }
}

/// The limits that are given, as a merge patch of the tenant.
fn patch(limits: [(&str, Option<Limit>); 2]) -> Map<String, Value> {
    let given = limits.into_iter().filter_map(|(key, limit)| Some((key.to_owned(), limit?)));
    given
        .map(|(key, limit)| match limit {
            Limit::To(most) => (key, json!(most)),
            Limit::None => (key, Value::Null),
        })
        .collect()
}

fn list(tenants: &[TenantState]) -> String {
    let mut table = Table::new([
        "TENANT",
        "NETWORKS",
        "PORTS",
        "MAX",
        "LEARNT",
        "MAX",
        "PACKETS",
        "BYTES",
        "FLOODED",
        "NOT-LEARNT",
        "DROPPED",
    ]);
    for tenant in tenants {
        let (counters, traffic) = (&tenant.counters, &tenant.counters.traffic);
        table.row([
            tenant.name.clone(),
            tenant.networks.len().to_string(),
            tenant.ports.len().to_string(),
            tenant.max_ports.map_or(String::new(), |most| most.to_string()),
            tenant.learnt.to_string(),
            tenant.max_macs.map_or(String::new(), |most| most.to_string()),
            traffic.packets.to_string(),
            traffic.bytes.to_string(),
            traffic.flooded.to_string(),
            counters.learn_refused.to_string(),
            counters.dropped.to_string(),
        ]);
    }
    table.to_string()
}

fn show(tenant: &TenantState) -> String {
    let limited = |count: String, most: Option<u32>| match most {
        Some(most) => format!("{count} (at most {most})"),
        None => count,
    };
    let (counters, traffic) = (&tenant.counters, &tenant.counters.traffic);
    let drops: Vec<_> = counters.drops.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
    let is_shared = tenant.ports.iter().any(|port| port.shared);
    // Whoever has only ports of its own need not read of others.
    let at = if is_shared { " (at ports that are not shared)" } else { "" };
    let mut text = facts(&[
        ("tenant", tenant.name.clone()),
        ("networks", if tenant.networks.is_empty() { NOTHING.to_owned() } else { tenant.networks.join(" ") }),
        ("ports", limited(tenant.ports.len().to_string(), tenant.max_ports)),
        ("macs", tenant.macs.to_string()),
        ("learnt", limited(tenant.learnt.to_string(), tenant.max_macs)),
        ("traffic", format!("{} packets, {} bytes", traffic.packets, traffic.bytes)),
        ("flooded", traffic.flooded.to_string()),
        ("not learnt", format!("{}{at}", counters.learn_refused)),
        ("dropped", format!("{}{at}", counters.dropped)),
        ("drops", drops.join(", ")),
    ]);
    if !tenant.ports.is_empty() {
        text.push_str(&format!("\n{}", ports(&tenant.ports)));
    }
    text
}

fn ports(ports: &[TenantPort]) -> String {
    let mut table = Table::new(["PORT", "STATE", "SHARED"]);
    for port in ports {
        let shared = if port.shared { "with others" } else { "" };
        table.row([port.name.clone(), port.state.to_string(), shared.to_owned()]);
    }
    table.to_string()
}
