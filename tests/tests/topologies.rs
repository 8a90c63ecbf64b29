//! Every file of `topologies/`, on the real data path.

#![allow(clippy::unwrap_used, clippy::expect_used)] // set-up of tests

use std::fs;
use std::path::Path;

use vswitch_api::response::AclState;
use vswitch_tests::{Host, Lab, scenario, topology_file};

/// Every host of `hosts` reaches every other; each with its IPv4 and, where it has one, IPv6 address.
fn all_reach_each_other(lab: &Lab, hosts: &[(&str, &[&str])]) {
    for (from, _) in hosts {
        for (to, addresses) in hosts.iter().filter(|(to, _)| to != from) {
            for address in *addresses {
                assert!(lab.host(from).reaches(address), "{from} does not reach {to} at {address}");
            }
        }
    }
}

#[test]
fn access() {
    scenario(&topology_file("access.toml"), |lab| {
        let [first, second] = [["10.0.0.1", "fd00::1"], ["10.0.0.2", "fd00::2"]];
        for colour in ["red", "blue"] {
            let (one, two) = (format!("{colour}1"), format!("{colour}2"));
            all_reach_each_other(lab, &[(&one, &first), (&two, &second)]);
            let place = lab.switch.place_of(colour, lab.host(&one).mac);
            assert_eq!(place, Some(one), "the address is learnt in its own network");
        }
    });
}

#[test]
fn acl() {
    scenario(&topology_file("acl.toml"), |lab| {
        let [client, other, web] = ["client", "other", "web"].map(|name| lab.host(name));
        let open =
            |host: &Host, address: &str| [80, 81, 25].map(|port| host.listen(&format!("{address}:{port}")));
        let _listening = [
            open(web, "10.0.0.3"),
            open(web, "[fd00::3]"),
            open(client, "10.0.0.1"),
            open(client, "[fd00::1]"),
        ];
        for (of_client, of_web) in [("10.0.0.1", "10.0.0.3"), ("[fd00::1]", "[fd00::3]")] {
            assert!(client.connects_to(&format!("{of_web}:80")));
            assert!(client.cannot_connect_to(&format!("{of_web}:81")), "to-web allows port 80 alone");
            assert!(web.cannot_connect_to(&format!("{of_client}:80")), "from-web lets no connection begin");
            assert!(other.connects_to(&format!("{of_client}:81")));
            assert!(other.cannot_connect_to(&format!("{of_client}:25")), "the network lets no mail out");
        }
        all_reach_each_other(
            lab,
            &[("client", &["10.0.0.1", "fd00::1"]), ("other", &["10.0.0.2", "fd00::2"])],
        );
        assert!(client.is_cut_off_from("10.0.0.3") && client.is_cut_off_from("fd00::3"));
        let no_mail: AclState = lab.switch.ask(&["acl", "show", "no-mail"]);
        assert_eq!(no_mail.rules[0].packets, 2);
        assert_eq!(lab.switch.drops("other", "acl_ingress"), 2);
    });
}

#[test]
fn demo() {
    scenario(&topology_file("demo.toml"), |lab| {
        let red: &[(&str, &[&str])] =
            &[("red1", &["10.0.10.1", "fd00:10::1"]), ("red2", &["10.0.10.2", "fd00:10::2"])];
        let blue: &[(&str, &[&str])] =
            &[("blue1", &["10.0.20.1", "fd00:20::1"]), ("blue2", &["10.0.20.2", "fd00:20::2"])];
        all_reach_each_other(lab, red);
        all_reach_each_other(lab, blue);
        assert!(lab.host("red1").is_cut_off_from("10.0.10.3"), "blue2 has that address, in another VLAN");
        for guest in ["guest1", "guest2"] {
            assert!(lab.host(guest).reaches("10.0.30.254"));
        }
        assert!(lab.host("guest1").is_cut_off_from("10.0.30.2"));
    });
}

#[test]
fn kinds() {
    scenario(&topology_file("kinds.toml"), |lab| {
        assert_eq!(["xdp1", "packet1"].map(|port| lab.switch.port(port).kind.name()), ["xdp", "packet"]);
        all_reach_each_other(
            lab,
            &[
                ("auto1", &["10.0.0.1", "fd00::1"]),
                ("xdp1", &["10.0.0.2", "fd00::2"]),
                ("packet1", &["10.0.0.3", "fd00::3"]),
            ],
        );
    });
}

#[test]
fn port_security() {
    scenario(&topology_file("port-security.toml"), |lab| {
        let gate: &[&str] = &["10.0.0.254", "fd00::254"];
        all_reach_each_other(lab, &[("gate", gate), ("fixed", &["10.0.0.11", "fd00::11"])]);
        let drops = lab.switch.port("fixed").counters.drops;
        assert!(
            drops.is_empty(),
            "a host that takes its addresses and listens to groups is honest: {drops:?}"
        );
        let dynamic = lab.switch.port("dynamic");
        assert!(dynamic.security.guard && dynamic.leases.is_empty());
    });
}

#[test]
fn trunk() {
    scenario(&topology_file("trunk.toml"), |lab| {
        all_reach_each_other(lab, &[("red1", &["10.0.0.1"]), ("native", &["10.0.0.2"])]);
    });
}

#[test]
fn two_tenants() {
    scenario(&topology_file("two-tenants.toml"), |lab| {
        for tenant in ["acme", "beta"] {
            let (one, two) = (format!("{tenant}1"), format!("{tenant}2"));
            all_reach_each_other(lab, &[(&one, &["10.0.0.1"]), (&two, &["10.0.0.2"])]);
        }
    });
}

#[test]
fn every_file_has_its_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../topologies");
    let tests = [
        include_str!("topologies.rs"),
        include_str!("guests/main.rs"),
        include_str!("address.rs"),
        include_str!("vxlan/linux.rs"),
        include_str!("vxlan/switches.rs"),
    ]
    .concat();
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(tests.contains(&format!("topology_file(\"{name}\")")), "{name} is run by no test");
    }
}
