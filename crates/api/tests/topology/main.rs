//! Properties of topologies: written and read again they are the same, and a difference leads from one to the other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed test may panic in its own functions too

use proptest::prelude::*;
use vswitch_api::request::NewPort;
use vswitch_api::topology::{
    Acl, AclAction, AclRule, Action, Entry, Network, Polling, Port, StaticEntry, Tenant, Topology,
    TrunkEntry, actions, check, diff, load, to_toml,
};
use vswitch_wire::{Mac, Vid};

mod any;

use any::topology;

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
