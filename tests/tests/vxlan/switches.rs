//! Two switches, each the other's peer.

use vswitch_api::response::VxlanState;
use vswitch_netns::{Veth, veth};
use vswitch_tests::{Frame, Lab, SOON, Scenario, scenario, topology_file, transfer, wait_until};
use vswitch_wire::Mac;

/// Joins the two switches by a veth, their port `uplink`, and waits until both have it.
fn join(one: &Lab, other: &Lab) {
    let [near, far] = [one, other].map(|lab| &lab.switch.namespace);
    veth((near, "uplink"), (far, "uplink"), Veth::default()).unwrap();
    for namespace in [near, far] {
        namespace.disable_ipv6("uplink").unwrap();
        namespace.set_up("uplink").unwrap();
    }
    for lab in [one, other] {
        lab.wait_up(["uplink"]);
    }
}

/// Runs `body` with both switches of the example.
fn two_hosts(body: impl FnOnce(&mut Lab, &mut Lab)) {
    scenario(&topology_file("vxlan-two-hosts.toml"), |one| {
        Scenario::new(&topology_file("vxlan-two-hosts-other.toml")).other_macs().run(|other| {
            join(one, other);
            body(one, other);
        });
    });
}

#[test]
fn tenants_reach_over_both_hosts_and_not_each_other() {
    two_hosts(|one, other| {
        for (near, far) in [("acme1", "acme2"), ("bolt1", "bolt2")] {
            for address in ["10.0.0.2", "fd00::2"] {
                assert!(one.host(near).reaches(address), "{near} does not reach {far} at {address}");
                transfer::tcp(one.host(near), other.host(far), address, 1 << 20);
            }
        }
        assert!(one.host("office1").reaches("10.1.0.2"), "beside the underlay, on the same uplink");
        assert!(
            other.host("acme2").reaches("10.0.0.254"),
            "the first switch's own address, through the tunnel"
        );
        assert!(other.host("bolt2").is_cut_off_from("10.0.0.254"), "which is of another tenant");

        let frame = Frame::new(Mac::BROADCAST, one.host("acme1").mac, "of acme");
        let last = Frame::new(Mac::BROADCAST, one.host("bolt1").mac, "of bolt");
        let [bolt2, office2] = other.raw(["bolt2", "office2"]);
        let [acme1, bolt1] = one.raw(["acme1", "bolt1"]);
        acme1.send(&frame);
        bolt1.send(&last);
        assert!(!bolt2.until(&last).contains(&frame));
        assert!(!office2.drain().iter().any(|seen| *seen == frame || *seen == last));
    });
}

#[test]
fn a_static_entry_says_who_is_behind_which_vtep() {
    two_hosts(|one, other| {
        let silent = Mac([2, 0, 0, 0, 5, 5]);
        one.switch.change(&["fdb", "add", "acme-red", &silent.to_string(), "--vtep", "192.0.2.2"]);
        assert_eq!(one.switch.place_of("acme-red", silent).as_deref(), Some("192.0.2.2"));
        let [acme1] = one.raw(["acme1"]);
        let [acme2] = other.raw(["acme2"]);
        let frame = Frame::new(silent, one.host("acme1").mac, "to the silent one");
        acme1.send(&frame);
        acme2.until(&frame);
        let state: VxlanState = one.switch.ask(&["vxlan", "show"]);
        assert_eq!(state.peers[0].networks, 2);
        // Its peer gone, the entry goes too.
        one.switch.change(&["vxlan", "peer", "del", "acme-red", "192.0.2.2"]);
        assert_eq!(one.switch.place_of("acme-red", silent), None);
        assert!(one.host("acme1").is_cut_off_from("10.0.0.2"));
        assert!(one.host("bolt1").reaches("10.0.0.2"), "bolt's peer stays");
        one.switch.change(&["vxlan", "peer", "add", "acme-red", "192.0.2.2"]);
        assert!(one.host("acme1").reaches("10.0.0.2"));
    });
}

#[test]
fn a_stranger_is_dropped_unless_anyone_may_be_a_peer() {
    let topology = |own: u8, more: &str| {
        format!(
            "[underlay]\naddress = \"192.0.2.{own}/24\"\nport = \"uplink\"\n[[port]]\nname = \"uplink\"\n\
             [[network]]\nname = \"red\"\nvni = 7\n{more}\n[[port]]\nname = \"red{own}\"\naccess = \"red\"\n\
             [[host]]\nname = \"red{own}\"\nport = \"red{own}\"\naddress = [\"10.0.0.{own}/24\"]\n"
        )
    };
    let (closed, open, known) =
        (topology(1, ""), topology(1, "peers-any = true"), topology(2, "peers = [\"192.0.2.1\"]"));
    Scenario::new(&closed).run(|one| {
        Scenario::new(&known).other_macs().run(|other| {
            join(one, other);
            assert!(other.host("red2").is_cut_off_from("10.0.0.1"));
            assert!(one.switch.drops("uplink", "vxlan_unknown_peer") > 0);
            one.switch.apply(&open);
            // Its first frame is lost, and may be the last of the host's three questions for the address.
            wait_until("the stranger is a peer", SOON, || other.host("red2").reaches("10.0.0.1"));
            let state: VxlanState = one.switch.ask(&["vxlan", "show"]);
            assert_eq!(state.peers.iter().map(|p| p.address.to_string()).collect::<Vec<_>>(), ["192.0.2.2"]);
            one.switch.apply(&closed);
            wait_until("the guest is gone", SOON, || {
                one.switch.ask::<VxlanState>(&["vxlan", "show"]).peers.is_empty()
            });
            assert!(other.host("red2").is_cut_off_from("10.0.0.1"));
        });
    });
}

#[test]
fn the_next_hop_is_asked_for_again_when_it_is_another() {
    two_hosts(|one, other| {
        assert!(one.host("acme1").reaches("10.0.0.2"));
        // The uplink's other end is another device, with another MAC.
        one.switch.namespace.delete_link("uplink").unwrap();
        one.switch.wait_quiet();
        join(one, other);
        assert!(one.host("acme1").reaches("10.0.0.2"));
    });
}
