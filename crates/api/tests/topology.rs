//! Properties of topologies: written and read again they are the same, and a difference leads from one to the other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed test may panic in its own functions too

use std::net::IpAddr;
use std::time::Duration;

use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;
use vswitch_api::request::NewPort;
use vswitch_api::topology::{
    Acl, AclAction, AclRule, AclUse, Action, Entry, Host, Kind, Network, Polling, Port, Role, Security,
    StaticEntry, Storm, Switch, Tenant, Topology, TrunkEntry, Underlay, actions, check, diff, load, to_toml,
};
use vswitch_api::value::{Cidr, Pps, Prefix};
use vswitch_wire::{Mac, Vid};

/// Few names, so that two topologies have some in common.
fn name(prefix: &'static str) -> impl Strategy<Value = String> {
    (0..5u8).prop_map(move |n| format!("{prefix}{n}"))
}

fn vid() -> impl Strategy<Value = Vid> {
    (1..=4094u16).prop_map(|n| Vid::new(n).unwrap())
}

fn network() -> impl Strategy<Value = Network> {
    let tunnels = (
        of((0..1u32 << 24).prop_map(|n| vswitch_wire::Vni::new(n).unwrap())),
        vec(any::<IpAddr>(), 0..3),
        any::<bool>(),
        any::<bool>(),
    );
    let address = vec((any::<IpAddr>(), 1..=32u8), 0..3)
        .prop_map(|all| all.into_iter().map(|(address, prefix)| Cidr { address, prefix }).collect());
    let times = (1..10_000u32, 1_000..100_000_000u64);
    (name("net"), of(name("tenant")), of(vid()), tunnels, address, times, acl_use()).prop_map(
        |(
            name,
            tenant,
            vlan,
            (vni, peers, peers_any, remote_learning),
            address,
            (max_macs, ageing_ms),
            acl,
        )| Network {
            name,
            tenant,
            vlan,
            vni,
            peers,
            peers_any,
            remote_learning,
            address,
            max_macs,
            ageing: Duration::from_millis(ageing_ms),
            acl,
        },
    )
}

fn tenant() -> impl Strategy<Value = Tenant> {
    (name("tenant"), of(1..9_999u32), of(1..9u32)).prop_map(|(name, max_macs, max_ports)| Tenant {
        name,
        max_macs,
        max_ports,
    })
}

fn trunk_entry() -> impl Strategy<Value = TrunkEntry> {
    (name("net"), of(vid())).prop_map(|(network, vlan)| TrunkEntry { network, vlan })
}

fn storm() -> impl Strategy<Value = Storm> {
    let rate = || weighted(0.3, any::<u32>().prop_map(Pps));
    (rate(), rate(), rate()).prop_map(|(broadcast, multicast, unknown)| Storm {
        broadcast,
        multicast,
        unknown,
    })
}

fn acl_use() -> impl Strategy<Value = AclUse> {
    (weighted(0.2, name("acl")), weighted(0.2, name("acl")))
        .prop_map(|(ingress, egress)| AclUse { ingress, egress })
}

/// Any rule, whether it passes [`check`] or not. Values are given as texts, which have tests of their own.
fn acl_rule() -> impl Strategy<Value = AclRule> {
    fn one<T: std::str::FromStr<Err: std::fmt::Debug> + Clone + std::fmt::Debug>(
        texts: &[&'static str],
    ) -> impl Strategy<Value = Option<T>> {
        of(prop::sample::select(texts.to_vec()).prop_map(|text| text.parse().unwrap()))
    }
    let action = prop::sample::select(vec![AclAction::Allow, AclAction::Deny]);
    let mac = || one(&["02:00:00:00:00:01", "01:00:00:00:00:00/01:00:00:00:00:00"]);
    let prefix = || one(&["10.0.0.1", "0.0.0.0/0", "10.0.0.0/8", "fd00::/64", "::1"]);
    let range = || one(&["80", "0-65535", "8000-8080"]);
    let l2 = (mac(), mac(), one(&["arp", "ipv6", "0x88cc"]), of(vid()));
    let l4 = (range(), range(), one(&["syn/syn,ack", "none/fin,psh", "rst"]), of(any::<u8>()));
    (action, l2, prefix(), prefix(), one(&["tcp", "89", "icmpv6"]), l4).prop_map(
        |(action, l2, source, destination, protocol, l4)| AclRule {
            action,
            source_mac: l2.0,
            destination_mac: l2.1,
            ether_type: l2.2,
            vlan: l2.3,
            source,
            destination,
            protocol,
            source_port: l4.0,
            destination_port: l4.1,
            tcp_flags: l4.2,
            icmp_type: l4.3,
        },
    )
}

fn acl() -> impl Strategy<Value = Acl> {
    let default = prop::sample::select(vec![AclAction::Allow, AclAction::Deny]);
    (name("acl"), default, vec(acl_rule(), 0..4)).prop_map(|(name, default, rule)| Acl {
        name,
        default,
        rule,
    })
}

fn security() -> impl Strategy<Value = (Security, bool)> {
    let mac = prop::collection::btree_set((0..9_u8).prop_map(|n| Mac([2, 0, 0, 0, 0, n])), 0..3);
    let single =
        any::<std::net::IpAddr>().prop_map(|ip| Prefix::new(ip, if ip.is_ipv4() { 32 } else { 128 }));
    let prefix = (0..=64_u8).prop_map(|len| Prefix::new("2001:db8::".parse().unwrap(), 64 + len));
    let ip = prop::collection::btree_set(prop_oneof![single, prefix].prop_map(Option::unwrap), 0..3);
    (mac, ip, any::<bool>(), any::<bool>()).prop_map(|(mac, ip, guard, trusted)| {
        (Security { mac: mac.into_iter().collect(), ip: ip.into_iter().collect(), guard }, trusted)
    })
}

fn port() -> impl Strategy<Value = Port> {
    let kind = prop::sample::select(vec![Kind::Auto, Kind::Xdp, Kind::Tap, Kind::Packet, Kind::VhostUser]);
    let attachment = prop_oneof![
        of(name("net")).prop_map(|access| (access, Vec::new(), None)),
        (vec(trunk_entry(), 1..4), of(name("net"))).prop_map(|(trunk, native)| (None, trunk, native)),
    ];
    let limits = (any::<bool>(), of(1..999u32), acl_use(), storm(), of(68..=65535u32), any::<bool>());
    let role = prop::sample::select(vec![Role::Server, Role::Client]);
    let device = (kind, of("[!-.0-9;-~]{1,15}"), of("/[!-.0-9;-~]{1,15}"), role, of(1..=64u16));
    (name("port"), device, attachment, limits, security()).prop_map(
        |(
            name,
            (kind, netdev, socket, role, queues),
            (access, trunk, native),
            (isolated, max_macs, acl, storm, mtu, force),
            (security, trusted),
        )| Port {
            name,
            kind,
            netdev,
            socket,
            role,
            queues,
            access,
            trunk,
            native,
            isolated,
            max_macs,
            acl,
            storm,
            security,
            trusted,
            mtu,
            force,
        },
    )
}

fn static_entry() -> impl Strategy<Value = StaticEntry> {
    (name("net"), 0..3u8, of(name("port")), of(any::<IpAddr>())).prop_map(|(network, mac, port, vtep)| {
        StaticEntry { network, mac: Mac([2, 0, 0, 0, 0, mac]), port, vtep }
    })
}

fn underlay() -> impl Strategy<Value = Underlay> {
    let address = (any::<IpAddr>(), 0..=32u8).prop_map(|(address, prefix)| Cidr { address, prefix });
    let packets = (any::<u16>(), any::<bool>(), any::<u8>(), any::<u8>());
    (address, name("port"), of(vid()), of(any::<IpAddr>()), packets).prop_map(
        |(address, port, vlan, gateway, (udp_port, udp_checksum, ttl, dscp))| Underlay {
            address,
            port,
            vlan,
            gateway,
            udp_port,
            udp_checksum,
            ttl,
            dscp,
        },
    )
}

fn host() -> impl Strategy<Value = Host> {
    let address = (any::<IpAddr>(), 0..=32u8).prop_map(|(address, prefix)| Cidr { address, prefix });
    (name("host"), name("port"), vec(address, 0..3), of(".{0,20}"))
        .prop_map(|(name, port, address, run)| Host { name, port, address, run })
}

/// Any topology whose names are unique, whether it passes [`check`] or not.
fn topology() -> impl Strategy<Value = Topology> {
    let switch = (
        name("switch"),
        prop::collection::btree_set(0..64u32, 0..3).prop_map(|cpus| cpus.into_iter().collect()),
        prop::sample::select(vec![Polling::Adaptive, Polling::Busy]),
        any::<bool>(),
    )
        .prop_map(|(name, cpus, polling, shortcut)| Switch { name, cpus, polling, shortcut });
    let lists = (
        vec(tenant(), 0..3),
        vec(network(), 0..5),
        vec(port(), 0..5),
        vec(acl(), 0..4),
        vec(static_entry(), 0..4),
        vec(host(), 0..4),
    );
    (switch, of(underlay()), lists).prop_map(|(switch, underlay, (tenant, network, port, acl, fdb, host))| {
        unique(Topology { switch, tenant, network, port, underlay, acl, fdb, host })
    })
}

/// In the order of [`diff`], without a second entry of one name.
fn unique(mut topology: Topology) -> Topology {
    topology.tenant.sort_by(|a, b| a.name.cmp(&b.name));
    topology.tenant.dedup_by(|a, b| a.name == b.name);
    topology.network.sort_by(|a, b| a.name.cmp(&b.name));
    topology.network.dedup_by(|a, b| a.name == b.name);
    topology.port.sort_by(|a, b| a.name.cmp(&b.name));
    topology.port.dedup_by(|a, b| a.name == b.name);
    for port in &mut topology.port {
        port.trunk.sort_by(|a, b| (&a.network, a.vlan).cmp(&(&b.network, b.vlan)));
    }
    topology.acl.sort_by(|a, b| a.name.cmp(&b.name));
    topology.acl.dedup_by(|a, b| a.name == b.name);
    topology.fdb.sort_by_key(|e| (e.network.clone(), e.mac));
    topology.fdb.dedup_by(|a, b| (&a.network, a.mac) == (&b.network, b.mac));
    topology.host.sort_by(|a, b| a.name.cmp(&b.name));
    topology.host.dedup_by(|a, b| a.name == b.name);
    topology
}

fn add(topology: &mut Topology, entry: &Entry) {
    match entry.clone() {
        Entry::Switch(switch) => topology.switch = switch,
        Entry::Tenant(tenant) => topology.tenant.push(tenant),
        Entry::Network(network) => topology.network.push(network),
        Entry::Port(port) => topology.port.push(port),
        Entry::Underlay(underlay) => topology.underlay = Some(underlay),
        Entry::Acl(acl) => topology.acl.push(acl),
        Entry::Fdb(entry) => topology.fdb.push(entry),
        Entry::Host(host) => topology.host.push(host),
    }
}

fn remove(topology: &mut Topology, entry: &Entry) {
    match entry {
        Entry::Switch(_) => {}
        Entry::Tenant(gone) => topology.tenant.retain(|t| t.name != gone.name),
        Entry::Network(gone) => topology.network.retain(|n| n.name != gone.name),
        Entry::Port(gone) => topology.port.retain(|p| p.name != gone.name),
        Entry::Underlay(_) => topology.underlay = None,
        Entry::Acl(gone) => topology.acl.retain(|a| a.name != gone.name),
        Entry::Fdb(gone) => topology.fdb.retain(|e| (&e.network, e.mac) != (&gone.network, gone.mac)),
        Entry::Host(gone) => topology.host.retain(|h| h.name != gone.name),
    }
}

fn apply(mut topology: Topology, actions: &[Action]) -> Topology {
    for action in actions {
        match action {
            Action::Add(entry) => add(&mut topology, entry),
            Action::Remove(entry) => remove(&mut topology, entry),
            Action::Change { from, to } => {
                remove(&mut topology, from);
                add(&mut topology, to);
            }
        }
    }
    unique(topology)
}

/// The topology without the entries that [`check`] finds a mistake in.
fn pruned(mut topology: Topology) -> Topology {
    while let Some(problem) = check(&topology).first() {
        let Some((list, rest)) = problem.path.split_once('[') else {
            topology.underlay = None;
            continue;
        };
        let (index, rest) = rest.split_once(']').unwrap();
        let index: usize = index.parse().unwrap();
        if let Some((rule, _)) = rest.strip_prefix(".rule[").and_then(|rest| rest.split_once(']')) {
            topology.acl[index].rule.remove(rule.parse().unwrap());
            continue;
        }
        match list {
            "acl" => drop(topology.acl.remove(index)),
            "tenant" => drop(topology.tenant.remove(index)),
            "network" => drop(topology.network.remove(index)),
            "port" => drop(topology.port.remove(index)),
            "fdb" => drop(topology.fdb.remove(index)),
            "host" => drop(topology.host.remove(index)),
            other => panic!("no list {other}"),
        }
    }
    topology
}

proptest! {
    #[test]
    fn a_difference_leads_from_one_to_the_other(a in topology(), b in topology()) {
        prop_assert_eq!(apply(a.clone(), &actions(&a, &b)), b);
    }

    #[test]
    fn nothing_differs_from_itself(a in topology()) {
        prop_assert_eq!(actions(&a, &a), vec![]);
    }

    #[test]
    fn the_order_in_a_file_means_nothing(a in topology()) {
        let mut b = a.clone();
        b.port.reverse();
        b.network.reverse();
        b.tenant.reverse();
        b.port.iter_mut().for_each(|p| p.trunk.reverse());
        prop_assert_eq!(actions(&a, &b), vec![]);
    }

    #[test]
    fn what_is_written_reads_the_same(a in topology().prop_map(pruned)) {
        let json = serde_json::to_string(&a).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Topology>(&json).unwrap(), &a);
        prop_assert_eq!(load(&to_toml(&a), "dump.toml"), Ok(a));
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}") {
        let _ = load(&text, "x.toml");
    }

    #[test]
    fn no_file_of_keys_and_brackets_makes_it_panic(
        text in "(\\[\\[(port|network|tenant|host|fdb|acl|acl.rule)\\]\\]\n|\\[(switch|port)\\]\n|(name|access|trunk|storm|é) = (\"a\"|1|\\[\"a\", \\{network=1\\}\\]|\\{ unknown = \"é\" \\})\n){0,12}"
    ) {
        let _ = load(&text, "x.toml");
    }
}

fn base() -> Topology {
    let text = r#"
        [[network]]
        name = "red"
        vlan = 10
        [[network]]
        name = "blue"
        vlan = 20
        [[port]]
        name = "web1"
        access = "red"
        storm = { broadcast = "1000pps", unknown = "5pps" }
        [[port]]
        name = "up"
        trunk = ["red"]
        mtu = 9000
        force = true
    "#;
    load(text, "base.toml").unwrap()
}

fn words(a: &Topology, b: &Topology) -> Vec<String> {
    diff(a, b).iter().map(ToString::to_string).collect()
}

#[test]
fn changes_in_words() {
    let a = base();
    let mut b = a.clone();
    b.switch.polling = Polling::Busy;
    b.tenant.push(Tenant { max_macs: Some(500), ..Tenant::new("acme") });
    b.network.push(Network { tenant: Some("acme".to_owned()), ..Network::new("green") });
    b.port[0].access = Some("blue".to_owned());
    b.port[0].storm.broadcast = None;
    b.port[1].mtu = None;
    b.port[1].force = false;
    b.port.push(Port { access: Some("green".to_owned()), ..Port::new("web2") });
    b.fdb.push(StaticEntry {
        network: "blue".to_owned(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        port: Some("web1".to_owned()),
        vtep: None,
    });
    let there = [
        "~ switch vswitch: polling adaptive -> busy",
        "+ tenant acme: max-macs 500",
        "+ network green: tenant acme",
        r#"~ port web1: access red -> blue, storm { broadcast = "1000pps", unknown = "5pps" } -> { unknown = "5pps" }"#,
        "+ port web2: access green",
        "~ port up: force true -> default, mtu 9000 -> default",
        "+ fdb blue 02:00:00:00:00:01: port web1",
    ];
    let mut sorted = words(&a, &b);
    sorted.sort();
    let mut expected = there.map(str::to_owned);
    expected.sort();
    assert_eq!(sorted, expected);
    let back = words(&b, &a);
    assert_eq!(
        back[..4],
        ["- fdb blue 02:00:00:00:00:01", "- port web2", "- network green", "- tenant acme"]
            .map(str::to_owned),
        "what uses something goes before it"
    );
}

#[test]
fn a_new_port_has_no_unknown_field() {
    let read = serde_json::from_str::<NewPort>;
    assert_eq!(read(r#"{"name": "x", "vlan": 10}"#).unwrap().vlan, Vid::new(10).ok());
    assert_eq!(
        read(r#"{"name": "x", "isolated": true}"#).unwrap().port,
        Port { isolated: true, ..Port::new("x") }
    );
    assert!(read(r#"{"name": "x", "colour": 1}"#).is_err());
    assert!(read(r#"{"name": "x", "vlan": 4095}"#).is_err());
}

#[test]
fn more_than_the_most_is_refused() {
    let mut topology =
        Topology { port: (0..4096).map(|n| Port::new(format!("p{n}"))).collect(), ..Topology::default() };
    topology.network = (0..5000).map(|n| Network::new(format!("n{n}"))).collect();
    assert_eq!(check(&topology), []);
    topology.port.push(Port::new("one-too-many"));
    assert_eq!(check(&topology)[0].path, "port[4096]");
}

/// The one mistake of `topology`.
fn mistake(topology: &Topology) -> String {
    let problems = check(topology);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].to_string()
}

#[test]
fn lists_without_an_end_are_refused_with_their_limit() {
    let mut lab = base();
    lab.fdb = (0..=65_536)
        .map(|n| StaticEntry {
            network: "red".to_owned(),
            mac: Mac::from_u64(0x0200_0000_0000 + n),
            port: Some("web1".to_owned()),
            vtep: None,
        })
        .collect();
    assert_eq!(mistake(&lab), "fdb[65536]: 65537 fdb entries are too many; use at most 65536");
    lab.fdb.pop();
    assert_eq!(check(&lab), []);

    let mut lab = base();
    lab.network = (0..4095).map(|n| Network::new(format!("n{n}"))).collect();
    lab.network.push(Network::new("red"));
    let vlan = |n: u16| Vid::new(n % 4094 + 1).ok();
    lab.port[1].trunk = (0..4095).map(|n| TrunkEntry { network: format!("n{n}"), vlan: vlan(n) }).collect();
    assert_eq!(mistake(&lab), "port[1].trunk[4094]: 4095 networks of a trunk are too many; use at most 4094");
    lab.port[1].trunk.pop();
    assert_eq!(check(&lab), []);
    let trunk = lab.port[1].trunk.clone();
    lab.port.extend((0..256).map(|n| Port { trunk: trunk.clone(), ..Port::new(format!("p{n}")) }));
    let all = "port[257].trunk: 1052158 networks of all trunks are too many; use at most 1048576";
    assert_eq!(mistake(&lab), all);

    let mut lab = base();
    lab.switch.cpus = (0..257).collect();
    assert_eq!(mistake(&lab), "switch.cpus[256]: 257 CPUs are too many; use at most 256");
}

#[test]
fn mistakes_beyond_the_hundredth_are_counted() {
    let ports = |count: usize| -> Vec<Port> {
        (0..count)
            .map(|n| Port { access: Some("nowhere".to_owned()), ..Port::new(format!("p{n}")) })
            .collect()
    };
    let mut lab = Topology { port: ports(100), ..Topology::default() };
    assert_eq!(check(&lab).len(), 100);
    lab.port = ports(4000);
    let problems = check(&lab);
    assert_eq!(problems.len(), 101);
    assert_eq!(problems[99].path, "port[99].access");
    assert_eq!(problems[100].to_string(), "3900 more mistakes are not listed; mend these first");

    // A file's are in its order, those of keys and of meaning together.
    let mut text = to_toml(&lab);
    text.push_str("colour = 1\n");
    let problems = load(&text, "x.toml").unwrap_err();
    assert_eq!(problems.len(), 101);
    assert_eq!((problems[0].line, problems[0].problem.path.as_str()), (7, "port[0].access"));
    assert_eq!(problems[100].problem.what, "3901 more mistakes are not listed");
    let nonsense = "= 1\n".repeat(5000);
    let problems = load(&nonsense, "x.toml").unwrap_err();
    assert_eq!(problems.len(), 101);
    assert!(problems[100].problem.what.ends_with("more mistakes are not listed"), "{}", problems[100]);
}

#[test]
fn changed_rules_in_words() {
    let rule = |port: &str| AclRule {
        action: AclAction::Allow,
        protocol: Some("tcp".parse().unwrap()),
        destination_port: Some(port.parse().unwrap()),
        ..AclRule::default()
    };
    let list = |rules: &[&str]| Topology {
        acl: vec![Acl { rule: rules.iter().map(|port| rule(port)).collect(), ..Acl::new("web") }],
        ..Topology::default()
    };
    let old = list(&["1", "2", "3"]);
    assert_eq!(
        words(&Topology::default(), &list(&["1", "2"])),
        [
            "+ acl web: rule 1 allow protocol tcp destination-port 1, rule 2 allow protocol tcp destination-port 2"
        ]
    );
    assert_eq!(
        words(&old, &list(&["1", "3"])),
        ["~ acl web: rule 2 allow protocol tcp destination-port 2 -> none"]
    );
    assert_eq!(
        words(&old, &list(&["9", "1", "2", "3"])),
        ["~ acl web: rule 1 none -> allow protocol tcp destination-port 9"]
    );
    assert_eq!(
        words(&old, &list(&["1", "7", "3"])),
        ["~ acl web: rule 2 allow protocol tcp destination-port 2 -> allow protocol tcp destination-port 7"]
    );
    let mut open = old.clone();
    open.acl[0].default = AclAction::Allow;
    assert_eq!(words(&old, &open), ["~ acl web: default default -> allow"]);
}

#[test]
fn too_many_rules_are_refused() {
    let long = |name: &str, rules| Acl { rule: vec![AclRule::default(); rules], ..Acl::new(name) };
    let problems = |acl: Vec<Acl>| -> Vec<String> {
        check(&Topology { acl, ..Topology::default() }).iter().map(ToString::to_string).collect()
    };
    assert_eq!(problems(vec![long("a", 4096)]), Vec::<String>::new());
    assert_eq!(
        problems(vec![long("a", 4097)]),
        ["acl[0].rule[4096]: 4097 rules of a filter are too many; use at most 4096"]
    );
    let five: Vec<_> = ["a", "b", "c", "d", "e"].map(|name| long(name, 4000)).into();
    assert_eq!(problems(five), ["acl[4].rule: 20000 rules of all filters are too many; use at most 16384"]);
}
