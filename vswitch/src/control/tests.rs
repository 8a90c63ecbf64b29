//! The control task as it is, with ports whose netdevs do not exist: nothing on this host is touched.

mod underlay;

use vswitch_api::response::{Changes, LinkState};
use vswitch_api::topology::{Kind, Network, Port, StaticEntry, Tenant};
use vswitch_dataplane::fdb::Learn;
use vswitch_dataplane::{Attachment, NetId, PortId};
use vswitch_io::PoolConfig;
use vswitch_wire::Mac;

use super::*;

const FIXED: Mac = Mac([2, 0, 0, 0, 0, 1]);
const LEARNT: Mac = Mac([2, 0, 0, 0, 0, 2]);

/// Runs `body` with a control task that has `lab()` applied.
fn with_control(body: impl AsyncFnOnce(&mut Control)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let pool = Pool::new(PoolConfig { wire: 64, large: 8 }).unwrap();
        let mut control = Control::start(&Switch::default(), pool, None).await.unwrap();
        control.apply(lab(), Options::default()).await.unwrap();
        body(&mut control).await;
    });
}

/// Ports `a` and `b` on a trunk of `red` and `blue`, a static entry at `a`.
fn lab() -> Topology {
    let port = |name: &str| Port {
        kind: Kind::Packet,
        netdev: Some(format!("not-there-{name}")),
        trunk: vec!["red:1".parse().unwrap(), "blue:2".parse().unwrap()],
        native: Some("red".to_owned()),
        ..Port::new(name)
    };
    Topology {
        network: vec![Network::new("red"), Network::new("blue")],
        port: vec![port("a"), port("b")],
        fdb: vec![StaticEntry {
            network: "red".to_owned(),
            mac: FIXED,
            port: Some("a".to_owned()),
            vtep: None,
        }],
        ..Topology::default()
    }
}

impl Control {
    /// Learns an address, as a worker would.
    fn learn(&self, network: &str, port: &str) {
        let (network, port) = (self.net_ids.get(network).unwrap(), self.port_ids.get(port).unwrap());
        let now = self.clock.now();
        let learn = self.fdb.learn(&self.snapshot, NetId(network), LEARNT, PortId(port), now);
        assert_eq!(learn, Learn::Added);
    }

    /// Network, port and address of every FDB entry.
    fn known(&self) -> Vec<(String, String, Mac)> {
        let all = self.fdb_views(&vswitch_api::request::FdbQuery::default()).unwrap();
        all.into_iter().map(|e| (e.network, e.port.unwrap(), e.mac)).collect()
    }

    async fn change(&mut self, edit: impl FnOnce(&mut Topology)) -> Result<Changes, ErrorBody> {
        let mut next = self.desired.clone();
        edit(&mut next);
        self.apply(next, Options::default()).await
    }
}

fn entry(network: &str, port: &str, mac: Mac) -> (String, String, Mac) {
    (network.to_owned(), port.to_owned(), mac)
}

#[test]
fn what_is_refused_has_changed_nothing() {
    with_control(async |control| {
        let unknown = control.change(|t| t.port[0].access = Some("green".to_owned())).await.unwrap_err();
        assert_eq!((unknown.code, unknown.problems.len()), (ErrorCode::Invalid, 2));
        let fixed = control.change(|t| t.switch.cpus = vec![0]).await.unwrap_err();
        assert_eq!(fixed.code, ErrorCode::Conflict);
        assert_eq!(control.desired, lab());

        let dry = Options { dry_run: true, ..Options::default() };
        let changes = control.apply(Topology::default(), dry).await.unwrap();
        assert_eq!(changes.changes.len(), 5, "two ports, two networks, one entry");
        assert_eq!(control.desired, lab());
        assert_eq!(control.known(), [entry("red", "a", FIXED)]);
        assert_eq!(control.change(|_| ()).await.unwrap(), Changes::default());
    });
}

#[test]
fn ports_and_networks_are_listed_with_their_addresses() {
    with_control(async |control| {
        control.learn("red", "a");
        control.learn("blue", "b");
        let macs: Vec<_> = control.port_views().into_iter().map(|p| (p.name, p.macs, p.state)).collect();
        let waits = LinkState::Waiting;
        assert_eq!(macs, [("a".to_owned(), 2, waits), ("b".to_owned(), 1, waits)]);
        let [red, blue] = control.network_views().try_into().unwrap();
        assert_eq!((red.macs, blue.macs), (2, 1));
        assert_eq!(
            (red.ports, blue.ports),
            (vec!["a".to_owned(), "b".to_owned()], vec!["a".to_owned(), "b".to_owned()])
        );
        let status = control.status();
        assert!(
            status.health.iter().any(|h| h.part == "port a" && h.text.contains("does not exist")),
            "{status:?}"
        );
    });
}

#[test]
fn addresses_go_with_what_they_belong_to_and_numbers_are_free_again() {
    with_control(async |control| {
        control.learn("red", "a");
        control.learn("blue", "b");
        control
            .change(|t| {
                t.port[1].trunk.pop();
            })
            .await
            .unwrap();
        assert_eq!(control.known(), [entry("red", "a", FIXED), entry("red", "a", LEARNT)], "b left blue");
        let a = control.port_ids.get("a");
        control
            .change(|t| {
                t.port.remove(0);
                t.fdb.clear();
            })
            .await
            .unwrap();
        assert_eq!(control.known(), []);
        control
            .change(|t| t.port.push(Port { netdev: Some("not-there-c".to_owned()), ..Port::new("c") }))
            .await
            .unwrap();
        assert_eq!(control.port_ids.get("c"), a, "the number is used again");
        control.apply(Topology::default(), Options::default()).await.unwrap();
        // One number is the switch's own.
        assert_eq!((control.net_ids.span(), control.port_ids.span(), control.ports.len()), (0, 1, 0));
    });
}

#[test]
fn a_static_entry_is_deleted_from_the_configuration_and_a_learnt_one_from_the_fdb() {
    with_control(async |control| {
        control.learn("red", "a");
        let key = |mac| vswitch_api::request::FdbKey { network: "red".to_owned(), mac };
        assert_eq!(control.del_fdb(&key(LEARNT)).await.unwrap(), Changes::default());
        assert_eq!(control.del_fdb(&key(FIXED)).await.unwrap().changes.len(), 1);
        assert_eq!(control.known(), []);
        assert_eq!(control.del_fdb(&key(FIXED)).await.unwrap_err().code, ErrorCode::NotFound);
    });
}

#[test]
fn a_guests_port_that_is_lost_is_opened_anew_and_waits_for_a_front_end() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vm1.sock");
    let port = Port {
        kind: Kind::VhostUser,
        socket: Some(socket.to_str().unwrap().to_owned()),
        access: Some("red".to_owned()),
        ..Port::new("vm1")
    };
    with_control(async |control| {
        let view = |control: &Control| control.port_views().into_iter().find(|p| p.name == "vm1").unwrap();
        control.change(|t| t.port.push(port)).await.unwrap();
        control.learn("red", "vm1");
        let first = control.device("vm1").unwrap().attachment;
        let waits = view(control);
        assert_eq!((waits.state, waits.kind), (LinkState::Down, Kind::VhostUser));
        assert_eq!(waits.reason.unwrap(), format!("waits for a front end on {}", socket.display()));

        let id = PortId(control.port_ids.get("vm1").unwrap());
        let lost = |attachment| Event::PortLost { port: id, attachment, error: vswitch_io::PortError::Gone };
        control.on_worker_event(lost(first + 1)).await;
        assert!(control.device("vm1").is_some(), "that was another device's");
        control.on_worker_event(lost(first)).await;
        assert_eq!((view(control).state, socket.exists()), (LinkState::Waiting, false));
        assert_eq!(control.known(), [entry("red", "a", FIXED)], "what was learnt there is forgotten");
        control.check_devices().await;
        assert_eq!((view(control).state, socket.exists()), (LinkState::Down, true));
        assert!(control.device("vm1").unwrap().attachment > first);

        control.detach_all().await;
        assert!(!socket.exists());
    });
}

/// `count` networks from the `first` on, with an address each.
fn addressed(first: usize, count: usize) -> Topology {
    let network = |n: usize| {
        let address = vec!["10.0.0.254/24".parse().unwrap()];
        Network { address, ..Network::new(format!("net{n}")) }
    };
    Topology { network: (first..first + count).map(network).collect(), ..Topology::default() }
}

/// The VLAN IDs of the switch's own port, by network.
fn own_vids(control: &Control) -> BTreeMap<NetId, u16> {
    let Attachment::Trunk(trunk) = &control.snapshot.port(control.own.id).unwrap().attachment else {
        panic!("it is a trunk")
    };
    (1..4095).filter_map(|vid| Some((trunk.network_of(vid)?, vid))).collect()
}

#[test]
fn the_own_port_has_a_vlan_id_for_each_network_with_an_address() {
    with_control(async |control| {
        assert!(control.snapshot.port(control.own.id).is_none(), "nobody needs it");
        assert!(control.stats().switch.is_none());
        let most = topology::ADDRESSED_NETWORKS_MAX;
        control.apply(addressed(0, most), Options::default()).await.unwrap();
        assert_eq!(own_vids(control).len(), most);
        assert!(control.statics.health().is_none() && control.known().len() == most);
        // All of them make room for others, in one change.
        control.apply(addressed(most, most), Options::default()).await.unwrap();
        let vids = own_vids(control);
        assert_eq!(vids.len(), most);
        assert!(vids.keys().all(|id| control.net_ids.name(id.0).is_some()));
        assert_eq!(control.known().len(), most);
        control.apply(Topology::default(), Options::default()).await.unwrap();
        assert_eq!((own_vids(control).len(), control.known().len()), (0, 0));
        assert_eq!(
            control.apply(addressed(0, most + 1), Options::default()).await.unwrap_err().code,
            ErrorCode::Invalid
        );
    });
}

#[test]
fn a_vlan_id_of_the_own_port_is_not_another_networks_within_one_change() {
    with_control(async |control| {
        control.apply(addressed(0, 1), Options::default()).await.unwrap();
        let vid = *own_vids(control).values().next().unwrap();
        control.apply(addressed(1, 1), Options::default()).await.unwrap();
        assert!(own_vids(control).values().all(|other| *other != vid));
        control.apply(addressed(2, 2), Options::default()).await.unwrap();
        assert!(own_vids(control).values().any(|other| *other == vid), "it is free by then");
    });
}

#[test]
fn the_own_place_is_kept_when_the_switch_is_renamed() {
    with_control(async |control| {
        control.change(|t| t.network[1].address = vec!["10.0.0.254/24".parse().unwrap()]).await.unwrap();
        let own = |switch| entry("blue", topology::OWN_PORT, topology::own_mac(switch, "blue"));
        assert_eq!(control.known(), [own("vswitch"), entry("red", "a", FIXED)]);
        control.change(|t| t.switch.name = "other".to_owned()).await.unwrap();
        assert_eq!(control.known(), [own("other"), entry("red", "a", FIXED)]);
        let query = vswitch_api::request::FdbQuery::default();
        assert_eq!(control.flush(&query).unwrap().flushed, 0);
        let key = vswitch_api::request::FdbKey {
            network: "blue".to_owned(),
            mac: topology::own_mac("other", "blue"),
        };
        assert_eq!(control.del_fdb(&key).await.unwrap_err().code, ErrorCode::Conflict);
        assert_eq!(control.network_views()[1].macs, 1);
    });
}

#[test]
fn tenants_have_their_limits_in_the_snapshot_and_their_numbers_again() {
    with_control(async |control| {
        let owned = |t: &mut Topology, red: &str, blue: &str| {
            for (network, tenant) in t.network.iter_mut().zip([red, blue]) {
                network.tenant = Some(tenant.to_owned());
            }
        };
        let limit = |control: &Control, network: &str| {
            let id = NetId(control.net_ids.get(network).unwrap());
            control.snapshot.network(id).unwrap().tenant.max_macs
        };
        control.learn("red", "a");
        control.change(|t| owned(t, "acme", "beta")).await.unwrap();
        control.learn("blue", "b");
        let acme = Tenant { max_macs: Some(7), max_ports: Some(2), ..Tenant::new("acme") };
        control.change(|t| t.tenant.push(acme)).await.unwrap();
        assert_eq!((limit(control, "red"), limit(control, "blue")), (7, u32::MAX));
        let learnt = |control: &Control| -> Vec<_> {
            let views = control.tenant_views().into_iter();
            views.map(|t| (t.name, t.networks.join(" "), t.ports.len(), t.learnt, t.macs)).collect()
        };
        let view = |name: &str, networks: &str, ports, learnt, macs| {
            (name.to_owned(), networks.to_owned(), ports, learnt, macs)
        };
        assert_eq!(learnt(control), [view("acme", "red", 2, 1, 2), view("beta", "blue", 2, 1, 1)]);
        assert!(control.tenant_views().iter().all(|t| t.ports.iter().all(|port| port.shared)));

        let third = Port { trunk: vec!["red:1".parse().unwrap()], ..Port::new("not-there-c") };
        let refused = control.change(|t| t.port.push(third)).await.unwrap_err();
        let why = "tenant[0].max-ports: 3 ports carry networks of tenant \"acme\", which may have 2 (beyond the limit: \
                   not-there-c); raise max-ports, or take the tenant's networks from a port";
        assert_eq!(refused.message, why);

        control.change(|t| owned(t, "beta", "beta")).await.unwrap();
        assert_eq!((limit(control, "red"), limit(control, "blue")), (u32::MAX, u32::MAX));
        assert_eq!(learnt(control), [view("acme", "", 0, 0, 0), view("beta", "red blue", 2, 2, 3)]);
        assert!(control.tenant_views().iter().all(|t| t.ports.iter().all(|port| !port.shared)));
        control.change(|t| owned(t, "beta", "gamma")).await.unwrap();
        let ids: Vec<_> = control.snapshot.tenants().map(|t| t.id.0).collect();
        assert_eq!(ids, [1, 2], "the number of acme is gamma's");
        assert_eq!(learnt(control)[1..], [view("beta", "red", 2, 1, 2), view("gamma", "blue", 2, 1, 1)]);
    });
}
