//! The state of the fake daemon.

use std::collections::BTreeMap;
use std::time::Duration;

use vswitch_api::Topology;
use vswitch_api::paths;
use vswitch_api::response::*;
use vswitch_api::topology::{
    Acl, AclAction, AclRule, AclUse, Kind, Network, Port, Role, Security, Storm, Tenant, diff,
};
use vswitch_api::value::{Mac, Pps, Vid};

const GUEST: Mac = Mac([2, 0, 0, 0, 0, 0x11]);

/// Answers as the daemon would, to a method and a path with query.
pub(crate) fn answer(method: &str, uri: &str) -> (u16, Vec<u8>) {
    let path = uri.split('?').next().unwrap_or(uri);
    match (method, path) {
        ("GET", paths::STATUS) => ok(&status()),
        ("GET", paths::CONFIG) => ok(&topology()),
        ("GET", paths::NETWORKS) => ok(&networks()),
        ("GET", paths::TENANTS) => ok(&tenants()),
        ("GET", "/v1/tenants/acme") => ok(&tenants()[0]),
        ("GET", "/v1/tenants/beta") => ok(&tenants()[1]),
        ("PATCH", "/v1/tenants/acme") => ok(&Changes::default()),
        ("GET", paths::PORTS) => ok(&ports()),
        ("GET", "/v1/ports/web1") => ok(&ports()[0]),
        ("GET", "/v1/ports/up") => ok(&ports()[1]),
        ("GET", "/v1/ports/vm1") => ok(&ports()[2]),
        ("GET", paths::ACLS) => ok(&acls()),
        ("GET", "/v1/acls/web") => ok(&acl()),
        ("GET", paths::FDB) => ok(&fdb()),
        ("GET", paths::STATS) => ok(&stats()),
        ("POST", paths::TRACE) => ok(&trace()),
        ("POST", paths::FDB_FLUSH) => ok(&Flushed { flushed: 3 }),
        ("PUT", paths::CONFIG) | ("POST", paths::CONFIG_DIFF | paths::PORTS) => {
            ok(&Changes { changes: diff(&Topology::default(), &topology()) })
        }
        ("PATCH", "/v1/ports/web1") => ok(&Changes::default()),
        ("DELETE", "/v1/networks/red") => refused(&ErrorBody {
            code: ErrorCode::Conflict,
            message: "network \"red\" is used by port web1".to_owned(),
            mend: "remove these ports first, or give them another network".to_owned(),
            problems: Vec::new(),
        }),
        _ => (404, b"no such thing".to_vec()),
    }
}

fn ok(body: &impl serde::Serialize) -> (u16, Vec<u8>) {
    (200, serde_json::to_vec(body).unwrap())
}

fn refused(body: &ErrorBody) -> (u16, Vec<u8>) {
    (body.code.http_status(), serde_json::to_vec(body).unwrap())
}

fn topology() -> Topology {
    let red = Network {
        tenant: Some("acme".to_owned()),
        vlan: Vid::new(10).ok(),
        address: vec!["10.0.0.254/24".parse().unwrap()],
        ageing: Duration::from_millis(1500),
        ..Network::new("red")
    };
    let web1 = Port { access: Some("red".to_owned()), max_macs: Some(32), ..Port::new("web1") };
    let up = Port {
        kind: Kind::Packet,
        netdev: Some("eth1".to_owned()),
        trunk: vec!["red".parse().unwrap(), "blue:200".parse().unwrap()],
        native: Some("blue".to_owned()),
        storm: Storm { broadcast: Some(Pps(1000)), ..Storm::default() },
        trusted: true,
        ..Port::new("up")
    };
    let vm1 = Port {
        kind: Kind::VhostUser,
        socket: Some("/run/vm1.sock".to_owned()),
        role: Role::Client,
        queues: Some(2),
        access: Some("red".to_owned()),
        acl: AclUse { ingress: Some("web".to_owned()), egress: None },
        security: Security { mac: vec![GUEST], ip: vec!["fe80::/10".parse().unwrap()], guard: true },
        ..Port::new("vm1")
    };
    let web = Acl { rule: rules(), ..Acl::new("web") };
    let acme = Tenant { max_macs: Some(500), ..Tenant::new("acme") };
    Topology {
        tenant: vec![acme],
        network: vec![red, Network::new("blue")],
        port: vec![web1, up, vm1],
        acl: vec![web],
        ..Topology::default()
    }
}

fn rules() -> Vec<AclRule> {
    let allow = AclRule { action: AclAction::Allow, ..AclRule::default() };
    let web = AclRule {
        source: "10.0.0.0/8".parse().ok(),
        protocol: "tcp".parse().ok(),
        destination_port: "80".parse().ok(),
        ..allow.clone()
    };
    vec![web, AclRule { ether_type: "arp".parse().ok(), ..allow }, AclRule::default()]
}

fn users() -> Vec<AclUser> {
    vec![AclUser { item: "port".to_owned(), name: "vm1".to_owned(), direction: "ingress".to_owned() }]
}

fn acls() -> Vec<AclSummary> {
    let summary =
        |name: &str, default, rules, used_by| AclSummary { name: name.to_owned(), default, rules, used_by };
    vec![summary("web", AclAction::Deny, 3, users()), summary("open", AclAction::Allow, 0, Vec::new())]
}

fn acl() -> AclState {
    let rules = rules().into_iter().zip([12_345, 7, 0]);
    AclState {
        name: "web".to_owned(),
        default: AclAction::Deny,
        rules: rules.map(|(rule, packets)| AclRuleState { rule, packets }).collect(),
        default_packets: 3,
        unreadable_packets: 1,
        used_by: users(),
    }
}

fn status() -> Status {
    let wrong = |part: &str, text: &str| Health { part: part.to_owned(), ok: false, text: text.to_owned() };
    Status {
        name: "lab".to_owned(),
        version: "0.1.0".to_owned(),
        pid: 4711,
        uptime_seconds: 90_061,
        workers: vec![
            Worker { index: 0, cpu: Some(1), queues: 2, asleep: false },
            Worker { index: 1, cpu: None, queues: 0, asleep: true },
        ],
        ports: PortTotals { total: 2, up: 1, down: 0, waiting: 1 },
        networks: 2,
        fdb: FdbTotals { entries: 3, capacity: 65_536 },
        health: vec![wrong("port up", "netdev eth1 does not exist; it is attached when it comes")],
    }
}

fn networks() -> Vec<NetworkState> {
    let network = |name: &str, tenant: Option<&str>, vlan: Option<u16>, macs, ports: &[&str]| NetworkState {
        name: name.to_owned(),
        tenant: tenant.map(str::to_owned),
        vlan: vlan.and_then(|v| Vid::new(v).ok()),
        vni: None,
        peers: Vec::new(),
        address: tenant
            .iter()
            .flat_map(|_| ["10.0.0.254/24", "2001:db8::1/64"])
            .map(|a| a.parse().unwrap())
            .collect(),
        own_mac: tenant.map(|_| "02:00:00:00:00:fe".to_owned()),
        ageing: "300s".to_owned(),
        macs,
        max_macs: 8192,
        ports: ports.iter().map(|p| (*p).to_owned()).collect(),
        acl: AclUse::default(),
    };
    vec![network("red", Some("acme"), Some(10), 3, &["web1", "up"]), network("blue", None, None, 0, &[])]
}

fn tenants() -> Vec<TenantState> {
    let port = |name: &str, state, shared| TenantPort { name: name.to_owned(), state, shared };
    vec![
        TenantState {
            name: "acme".to_owned(),
            networks: vec!["red".to_owned()],
            ports: vec![
                port("web1", LinkState::Up, false),
                port("up", LinkState::Waiting, true),
                port("vm1", LinkState::Up, false),
            ],
            max_ports: None,
            macs: 3,
            learnt: 2,
            max_macs: Some(500),
            counters: acme_counters(),
        },
        TenantState {
            name: "beta".to_owned(),
            networks: Vec::new(),
            ports: Vec::new(),
            max_ports: Some(4),
            macs: 0,
            learnt: 0,
            max_macs: None,
            counters: TenantCounters::default(),
        },
    ]
}

fn acme_counters() -> TenantCounters {
    TenantCounters {
        traffic: Traffic { packets: 991, bytes: 63_424, flooded: 4 },
        learn_refused: 12,
        dropped: 9,
        drops: web1_counters().drops,
    }
}

fn ports() -> Vec<PortState> {
    let [web1, up, vm1] = topology().port.try_into().unwrap();
    let state = |config: Port, kind, state| PortState {
        netdev: config.netdev().map(str::to_owned),
        socket: config.socket.clone(),
        role: config.socket.is_some().then_some(config.role),
        name: config.name,
        kind,
        configured_kind: config.kind,
        state,
        reason: None,
        mode: None,
        why: None,
        queues: 0,
        offloads: Offloads::default(),
        front_end: None,
        mtu: None,
        configured_mtu: config.mtu,
        mtu_limit: None,
        access: config.access,
        trunk: config.trunk,
        native: config.native,
        isolated: config.isolated,
        acl: config.acl,
        macs: 0,
        max_macs: config.max_macs,
        storm: config.storm,
        security: config.security,
        trusted: config.trusted,
        leases: Vec::new(),
        counters: PortCounters::default(),
    };
    let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
    vec![
        PortState {
            mode: Some("native, copy".to_owned()),
            why: Some("veth: small frames are faster by AF_XDP".to_owned()),
            queues: 2,
            offloads: Offloads { tx: Vec::new(), rx: words(&["csum", "tso4"]) },
            mtu: Some(1500),
            mtu_limit: Some(3506),
            macs: 3,
            counters: web1_counters(),
            ..state(web1, Kind::Xdp, LinkState::Up)
        },
        PortState {
            reason: Some("netdev eth1 does not exist; it is attached when it comes".to_owned()),
            ..state(up, Kind::Packet, LinkState::Waiting)
        },
        PortState {
            mode: Some("rings in shared memory, client".to_owned()),
            why: Some("the guest's front end speaks vhost-user".to_owned()),
            queues: 1,
            offloads: Offloads { tx: words(&["csum"]), rx: words(&["csum", "tso4"]) },
            front_end: Some(front_end()),
            leases: vec![lease("10.0.0.11", Some(3600)), lease("fd00::11", None)],
            mtu: Some(1500),
            mtu_limit: Some(65535),
            ..state(vm1, Kind::VhostUser, LinkState::Up)
        },
    ]
}

fn lease(address: &str, seconds: Option<u64>) -> Lease {
    Lease { network: "red".to_owned(), mac: GUEST, address: address.parse().unwrap(), seconds }
}

fn front_end() -> FrontEnd {
    FrontEnd {
        connected: true,
        features: vec!["VERSION_1".to_owned(), "CSUM".to_owned()],
        slow: vec!["the switch cuts and sums what the guest receives".to_owned()],
        queue_pairs: 1,
        broken: None,
        sessions: 3,
        refused: 1,
        last_refusal: Some("there is no ring 99".to_owned()),
    }
}

fn web1_counters() -> PortCounters {
    PortCounters {
        rx_packets: 1000,
        rx_bytes: 64_000,
        tx_packets: 12,
        tx_bytes: 1_200,
        tx_stalls: 2,
        flooded: 4,
        learn_refused: 0,
        shortcut: 0,
        missed: 1,
        dropped: 9,
        drops: BTreeMap::from([("storm_broadcast".to_owned(), 2), ("vlan_not_allowed".to_owned(), 7)]),
    }
}

fn fdb() -> Vec<FdbEntry> {
    let entry = |mac, is_static, held, idle_seconds| FdbEntry {
        network: "red".to_owned(),
        mac: Mac([2, 0, 0, 0, 0, mac]),
        port: Some("web1".to_owned()),
        vtep: None,
        is_static,
        held,
        idle_seconds,
    };
    vec![entry(0x11, true, false, 0), entry(0x12, false, false, 17), entry(0x13, false, true, 0)]
}

fn stats() -> Stats {
    let traffic = Traffic { packets: 991, bytes: 63_424, flooded: 4 };
    Stats {
        ports: vec![
            PortStats { name: "web1".to_owned(), counters: web1_counters() },
            PortStats { name: "up".to_owned(), counters: PortCounters::default() },
        ],
        switch: Some(PortCounters {
            rx_packets: 2,
            rx_bytes: 196,
            tx_packets: 3,
            tx_bytes: 240,
            ..PortCounters::default()
        }),
        networks: vec![
            NetworkStats { name: "red".to_owned(), tenant: Some("acme".to_owned()), traffic },
            NetworkStats { name: "blue".to_owned(), tenant: None, traffic: Traffic::default() },
        ],
        tenants: vec![TenantStats { name: "acme".to_owned(), counters: acme_counters() }],
        drops: web1_counters().drops,
        reasons: BTreeMap::from([
            ("storm_broadcast".to_owned(), "the port's limit for broadcast is reached".to_owned()),
            ("vlan_not_allowed".to_owned(), "the trunk does not carry this VLAN".to_owned()),
        ]),
        conservation: Conservation {
            received: 1000,
            originated: 2,
            replicated: 8,
            transmitted: 998,
            consumed: 3,
            dropped: 9,
        },
    }
}

fn trace() -> TraceResult {
    let step = |stage: &str, text: &str| TraceStep { stage: stage.to_owned(), text: text.to_owned() };
    TraceResult {
        steps: vec![
            step("admit", "source 02:00:00:00:00:11"),
            step("vlan", "untagged on access port web1: network red"),
        ],
        outcome: Outcome::Flood,
        network: Some("red".to_owned()),
        ports: vec!["up".to_owned(), "web2".to_owned()],
        reason: None,
    }
}
