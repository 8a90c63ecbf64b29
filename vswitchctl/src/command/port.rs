//! `port`.

use serde::Serialize;
use serde_json::{Map, Value, json};
use vswitch_api::client::Client;
use vswitch_api::paths;
use vswitch_api::request::{ForceQuery, PortPatch};
use vswitch_api::response::{Changes, FrontEnd, Lease, PortState};
use vswitch_api::topology::{Kind, Role, Security};

use super::{acl, changes, render};
use crate::args::{self, Port, PortOptions, Setting};
use crate::failure::Failure;
use crate::table::{Table, facts};

pub(crate) async fn run(client: &Client, command: Port, json: bool) -> Result<String, Failure> {
    match command {
        Port::Add(options) => {
            let mut port = patch(&options);
            // A new port is at its defaults already.
            port.retain(|_, value| !value.is_null());
            port.insert("name".to_owned(), json!(options.name));
            let changed: Changes = client.post(paths::PORTS, &force(&options), &port).await?;
            render(&changed, json, changes)
        }
        Port::Set(options) => {
            let patch = PortPatch(patch(&options));
            let changed: Changes =
                client.patch(&paths::port(&options.name), &force(&options), &patch).await?;
            render(&changed, json, changes)
        }
        Port::Del { name } => {
            let changed: Changes = client.delete(&paths::port(&name), &()).await?;
            render(&changed, json, changes)
        }
        Port::List => {
            let ports: Vec<PortState> = client.get(paths::PORTS, &()).await?;
            render(&ports, json, |p| list(p))
        }
        Port::Show { name } => {
            let port: PortState = client.get(&paths::port(&name), &()).await?;
            render(&port, json, show)
        }
    }
}

fn force(options: &PortOptions) -> ForceQuery {
    ForceQuery { force: options.force, session: args::session() }
}

/// The options as a merge patch of the port: `null` where one takes the place of another, or sets it to its default.
fn patch(options: &PortOptions) -> Map<String, Value> {
    let mut patch = Map::new();
    let mut set = |key: &str, value: Value| drop(patch.insert(key.to_owned(), value));
    if let Some(kind) = options.kind {
        set("kind", json!(kind));
        // What the other kinds are attached to.
        let others: &[&str] =
            if kind == Kind::VhostUser { &["netdev"] } else { &["socket", "role", "queues"] };
        others.iter().for_each(|key| set(key, Value::Null));
    }
    if let Some(socket) = &options.socket {
        set("socket", json!(socket));
    }
    if let Some(role) = options.role {
        set("role", json!(role));
    }
    if let Some(queues) = options.queues {
        set("queues", value_or_null(queues));
    }
    if let Some(netdev) = &options.netdev {
        set("netdev", json!(netdev));
    }
    if options.access.is_some() || options.vlan.is_some() {
        set("access", options.access.as_deref().map_or(Value::Null, name_or_null));
        set("trunk", Value::Null);
        set("native", Value::Null);
    }
    if let Some(vlan) = options.vlan {
        set("vlan", json!(vlan.get()));
    }
    if let Some(trunk) = &options.trunk {
        set("access", Value::Null);
        set("trunk", json!(trunk));
    }
    if let Some(native) = &options.native {
        set("native", name_or_null(native));
    }
    if let Some(isolated) = options.isolated {
        set("isolated", json!(isolated));
    }
    for (key, setting) in [("max_macs", options.max_macs), ("mtu", options.mtu)] {
        if let Some(setting) = setting {
            set(key, value_or_null(setting));
        }
    }
    if let Some(acl) = acl::patch(&options.acl) {
        set("acl", acl);
    }
    let security = security(options);
    if !security.is_empty() {
        set("security", Value::Object(security));
    }
    if let Some(trusted) = options.trusted {
        set("trusted", json!(trusted));
    }
    if let Some(storm) = &options.storm {
        set("storm", storm.iter().map(|limit| (limit.class.to_owned(), value_or_null(limit.rate))).collect());
    }
    patch
}

/// What the options say of the port's security.
fn security(options: &PortOptions) -> Map<String, Value> {
    let mac = options.mac.as_ref().map(|macs| macs.0.iter().map(ToString::to_string).collect());
    let ip = options.ip.as_ref().map(|ips| json!(ips.0));
    let guard = options.guard.map(|guard| json!(guard));
    let all = [("mac", mac), ("ip", ip), ("guard", guard)];
    all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

fn name_or_null(name: &str) -> Value {
    if name.is_empty() { Value::Null } else { json!(name) }
}

fn value_or_null(setting: Setting<impl Serialize>) -> Value {
    match setting {
        Setting::To(value) => json!(value),
        Setting::Default => Value::Null,
    }
}

fn list(ports: &[PortState]) -> String {
    let mut table =
        Table::new(["PORT", "STATE", "KIND", "NETDEV", "MTU", "NETWORKS", "MACS", "RX", "TX", "DROPPED"]);
    for port in ports {
        table.row([
            port.name.clone(),
            port.state.to_string(),
            port.kind.to_string(),
            device(port).to_owned(),
            text(port.mtu),
            networks(port),
            port.macs.to_string(),
            port.counters.rx_packets.to_string(),
            port.counters.tx_packets.to_string(),
            port.counters.dropped.to_string(),
        ]);
    }
    table.to_string()
}

/// The netdev or the socket.
fn device(port: &PortState) -> &str {
    port.netdev.as_deref().or(port.socket.as_deref()).unwrap_or_default()
}

/// As in `red`, or `trunk red,blue:200 native red`.
fn networks(port: &PortState) -> String {
    let mut words: Vec<String> = port.access.iter().cloned().collect();
    if !port.trunk.is_empty() {
        let trunk: Vec<_> = port.trunk.iter().map(ToString::to_string).collect();
        words.push(format!("trunk {}", trunk.join(",")));
    }
    words.extend(port.native.iter().map(|native| format!("native {native}")));
    words.join(" ")
}

fn show(port: &PortState) -> String {
    let kind = match port.kind == port.configured_kind {
        true => port.kind.to_string(),
        false => format!("{} ({} asked for)", port.kind, port.configured_kind),
    };
    let state = match &port.reason {
        Some(reason) => format!("{}: {reason}", port.state),
        None => port.state.to_string(),
    };
    let wanted = match port.configured_mtu.filter(|_| port.mtu != port.configured_mtu) {
        Some(wanted) if port.mtu.is_some() => format!("{wanted} asked for, the netdev has less; "),
        _ => String::new(),
    };
    let mtu = match (port.mtu, port.mtu_limit) {
        (Some(mtu), Some(limit)) => format!("{mtu} ({wanted}at most {limit})"),
        (mtu, _) => text(mtu),
    };
    let storm = [
        ("broadcast", port.storm.broadcast),
        ("multicast", port.storm.multicast),
        ("unknown", port.storm.unknown),
    ];
    let storm: Vec<_> =
        storm.iter().filter_map(|(class, rate)| rate.map(|r| format!("{class} {r}"))).collect();
    let macs = port.max_macs.map_or(port.macs.to_string(), |max| format!("{} (at most {max})", port.macs));
    let c = &port.counters;
    let drops: Vec<_> = c.drops.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
    facts(&[
        ("port", port.name.clone()),
        ("state", state),
        ("kind", kind),
        ("mode", port.mode.clone().unwrap_or_default()),
        ("why", port.why.clone().unwrap_or_default()),
        ("netdev", port.netdev.clone().unwrap_or_default()),
        ("socket", socket(port)),
        ("front end", port.front_end.as_ref().map_or(String::new(), front_end)),
        ("features", port.front_end.as_ref().map_or(String::new(), |f| f.features.join(" "))),
        ("slow", port.front_end.as_ref().map_or(String::new(), |f| f.slow.join("; "))),
        ("queues", port.queues.to_string()),
        ("offloads tx", words(&port.offloads.tx)),
        ("offloads rx", words(&port.offloads.rx)),
        ("mtu", mtu),
        ("networks", networks(port)),
        ("isolated", if port.isolated { "yes".to_owned() } else { String::new() }),
        ("acl", acl::used(&port.acl)),
        ("macs", macs),
        ("storm limits", storm.join(", ")),
        ("security", held(&port.security)),
        ("leases", port.leases.iter().map(lease).collect::<Vec<_>>().join(", ")),
        ("trusted", if port.trusted { "yes".to_owned() } else { String::new() }),
        ("rx", format!("{} packets, {} bytes", c.rx_packets, c.rx_bytes)),
        ("tx", format!("{} packets, {} bytes", c.tx_packets, c.tx_bytes)),
        ("tx stalls", c.tx_stalls.to_string()),
        ("shortcut", format!("{} packets of rx", c.shortcut)),
        ("flooded", c.flooded.to_string()),
        ("not learnt", c.learn_refused.to_string()),
        ("missed", c.missed.to_string()),
        ("dropped", c.dropped.to_string()),
        ("drops", drops.join(", ")),
    ])
}

/// As in `guarded; mac 02:00:00:00:00:11; ip 10.0.0.11 fd00::/64`.
fn held(security: &Security) -> String {
    let mut words = Vec::new();
    if security.guard {
        words.push("guarded".to_owned());
    }
    if !security.mac.is_empty() {
        words.push(format!("mac {}", joined(&security.mac)));
    }
    if !security.ip.is_empty() {
        words.push(format!("ip {}", joined(&security.ip)));
    }
    words.join("; ")
}

fn joined(values: &[impl ToString]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// As in `10.0.0.11 of 02:00:00:00:00:11 in red for 3600 s`.
fn lease(lease: &Lease) -> String {
    let end = lease.seconds.map_or("for ever".to_owned(), |seconds| format!("for {seconds} s"));
    format!("{} of {} in {} {end}", lease.address, lease.mac, lease.network)
}

/// As in `/run/vswitch/vm1.sock, the switch listens`.
fn socket(port: &PortState) -> String {
    let listens = match port.role {
        Some(Role::Server) => ", the switch listens",
        Some(Role::Client) => ", the switch connects",
        None => "",
    };
    port.socket.as_ref().map_or(String::new(), |socket| format!("{socket}{listens}"))
}

fn front_end(f: &FrontEnd) -> String {
    let mut words = match f.connected {
        true => format!("connected, queue pairs that run: {}", f.queue_pairs),
        false => "none".to_owned(),
    };
    if let Some(broken) = &f.broken {
        words += &format!("; a ring rests until the guest resets it: {broken}");
    }
    words += &format!("; {} came so far, {} broke the protocol", f.sessions, f.refused);
    if let Some(reason) = &f.last_refusal {
        words += &format!(", the last by: {reason}");
    }
    words
}

fn words(words: &[String]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(" ") }
}

fn text(value: Option<u32>) -> String {
    value.map_or(String::new(), |v| v.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command, DaemonCommand};

    fn patch_of(line: &str) -> Value {
        let words = ["vswitchctl", "port", "set", "web1"]
            .into_iter()
            .chain(line.split(' ').filter(|w| !w.is_empty()));
        match Cli::read(words.map(Into::into)).unwrap().command {
            Command::Daemon(DaemonCommand::Port(Port::Set(options))) => Value::Object(patch(&options)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_become_a_merge_patch() {
        let cases = [
            ("", json!({})),
            ("--access red", json!({"access": "red", "trunk": null, "native": null})),
            ("--access=", json!({"access": null, "trunk": null, "native": null})),
            ("--vlan 10", json!({"access": null, "trunk": null, "native": null, "vlan": 10})),
            (
                "--trunk red,blue:200",
                json!({"access": null, "trunk": ["red", {"network": "blue", "vlan": 200}]}),
            ),
            ("--trunk red --native red", json!({"access": null, "trunk": ["red"], "native": "red"})),
            ("--native=", json!({"native": null})),
            ("--isolated", json!({"isolated": true})),
            ("--isolated=false", json!({"isolated": false})),
            ("--mtu 9000 --max-macs default", json!({"mtu": 9000, "max_macs": null})),
            (
                "--storm broadcast=9pps,unknown=default",
                json!({"storm": {"broadcast": "9pps", "unknown": null}}),
            ),
            (
                "--kind tap --netdev t0",
                json!({"kind": "tap", "netdev": "t0", "socket": null, "role": null, "queues": null}),
            ),
            (
                "--kind vhost-user --socket /s --role client --queues 4",
                json!({"kind": "vhost-user", "netdev": null, "socket": "/s", "role": "client", "queues": 4}),
            ),
            ("--queues default", json!({"queues": null})),
            ("--acl-ingress web --acl-egress none", json!({"acl": {"ingress": "web", "egress": null}})),
            ("--acl-egress web", json!({"acl": {"egress": "web"}})),
            (
                "--mac 02:00:00:00:00:01,02:00:00:00:00:02 --ip 10.0.0.1,fd00::/64 --guard",
                json!({"security": {
                    "mac": ["02:00:00:00:00:01", "02:00:00:00:00:02"],
                    "ip": ["10.0.0.1", "fd00::/64"],
                    "guard": true,
                }}),
            ),
            ("--mac= --guard=false", json!({"security": {"mac": [], "guard": false}})),
            ("--ip=", json!({"security": {"ip": []}})),
            ("--trusted", json!({"trusted": true})),
            ("--trusted=false", json!({"trusted": false})),
        ];
        for (line, expected) in cases {
            assert_eq!(patch_of(line), expected, "{line}");
        }
    }
}
