//! Port security: a guarded host is itself and nobody else, and what it is it may learn from DHCP.

#![allow(clippy::unwrap_used, clippy::expect_used)] // set-up of tests

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use vswitch_netns::Process;
use vswitch_tests::{Frame, Host, Lab, SOON, scenario, topology_file, wait_for, wait_until};
use vswitch_wire::testing::{FrameBuilder, frame};
use vswitch_wire::{Mac, ethernet, ipv6, vlan};

const MAC: Mac = Mac([2, 0, 0, 0, 0, 0x11]);
const OWN4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const GATE4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x11);
const GATE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xfe);

/// Hosts that send no IPv6 of themselves, so that every frame of a test is counted.
const TWO: &str = r#"
    network = [{ name = "lan" }]
    port = [
        { name = "guest", access = "lan", security = { mac = ["02:00:00:00:00:11"], ip = ["10.0.0.11", "fd00::11"], guard = true } },
        { name = "gate", access = "lan", trusted = true },
    ]
    host = [
        { name = "guest", port = "guest", address = ["10.0.0.11/24"] },
        { name = "gate", port = "gate", address = ["10.0.0.254/24"] },
    ]
"#;

/// To everybody.
fn from(mac: Mac) -> FrameBuilder {
    frame(Mac::BROADCAST, mac)
}

fn arp(operation: u16, (mac, ip): (Mac, Ipv4Addr), target: Ipv4Addr) -> Vec<u8> {
    let head = [&[0, 1, 8, 0, 6, 4][..], &operation.to_be_bytes()].concat();
    let message = [&head[..], &mac.0, &ip.octets(), &[0; 6], &target.octets(), &[0; 18]].concat();
    from(MAC).ether_type(ethernet::TYPE_ARP).payload(&message).bytes()
}

/// ICMPv6 from the guest, with a target or without.
fn icmp6(source: Ipv6Addr, icmp_type: u8, target: Option<Ipv6Addr>, option: Option<(u8, Mac)>) -> Vec<u8> {
    let mut message = vec![icmp_type, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.into_iter().flat_map(|target| target.octets()));
    // A router advertisement says more, and here all that is zero.
    message.resize(message.len() + if icmp_type == 134 { 8 } else { 0 }, 0);
    message.extend(option.into_iter().flat_map(|(kind, Mac(mac))| [&[kind, 1][..], &mac].concat()));
    let mut bytes = from(MAC).ip(source, GATE6).payload(&message).bytes();
    bytes[ethernet::HEADER_LEN + 6] = 58;
    bytes
}

fn dhcp_client(client: Mac) -> Vec<u8> {
    let mut message = vec![0; 300];
    message[..3].copy_from_slice(&[1, 1, 6]);
    message[28..34].copy_from_slice(&client.0);
    message
}

/// What the guest may not say, by the reason that it is dropped for.
fn lies(gate: Mac) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let own = ipv6::link_local_of(MAC);
    let tcp = |source: IpAddr, to: IpAddr| from(MAC).ip(source, to).tcp(1, 2, 2).payload(b"a lie").bytes();
    let udp = |source, ports: (u16, u16), payload: &[u8]| {
        from(MAC).ip(source, Ipv4Addr::BROADCAST).udp(ports.0, ports.1).payload(payload).bytes()
    };
    let in_fragment = {
        let mut bytes = icmp6(own, 134, None, None);
        let fragment = [58, 0, 0, 0, 0, 0, 0, 1];
        bytes[ethernet::HEADER_LEN + 6] = 44;
        bytes[ethernet::HEADER_LEN + 5] += 8;
        bytes.splice(54..54, fragment);
        bytes
    };
    vec![
        ("spoofed_mac", vec![from(gate).ip(OWN4, GATE4).tcp(1, 2, 2).bytes(), from(Mac([2; 6])).bytes()]),
        ("spoofed_ip", vec![tcp(GATE4.into(), OWN4.into()), tcp(GATE6.into(), OWN6.into())]),
        (
            "spoofed_arp",
            vec![arp(1, (MAC, GATE4), OWN4), arp(2, (MAC, GATE4), OWN4), arp(2, (gate, OWN4), GATE4)],
        ),
        (
            "spoofed_nd",
            vec![
                icmp6(own, 136, Some(GATE6), Some((2, MAC))),
                icmp6(OWN6, 136, Some(OWN6), Some((2, gate))),
                icmp6(GATE6, 135, Some(OWN6), Some((1, MAC))),
                icmp6(Ipv6Addr::UNSPECIFIED, 135, Some(GATE6), None),
            ],
        ),
        ("spoofed_dhcp", vec![udp(Ipv4Addr::UNSPECIFIED, (68, 67), &dhcp_client(gate))]),
        (
            "rogue_dhcp",
            vec![
                udp(OWN4, (67, 68), &dhcp_client(gate)),
                from(MAC).ip(own, GATE6).udp(547, 546).payload(&[7; 8]).bytes(),
            ],
        ),
        ("rogue_ra", vec![icmp6(own, 134, None, Some((1, MAC))), in_fragment]),
        (
            "unjudged",
            vec![
                from(MAC).ether_type(ethernet::TYPE_RARP).payload(&[0; 46]).bytes(),
                from(MAC).ether_type(vlan::TPID_8021AD).payload(&[0; 46]).bytes(),
                from(MAC).ether_type(46).payload(&[0xaa; 46]).bytes(),
            ],
        ),
    ]
}

#[test]
fn a_guarded_host_is_itself_and_each_lie_is_counted() {
    scenario(TWO, |lab| {
        assert!(lab.host("guest").reaches("10.0.0.254"));
        let [guest, gate] = lab.raw(["guest", "gate"]);
        let lies = lies(lab.host("gate").mac);
        for lie in lies.iter().flat_map(|(_, frames)| frames) {
            guest.send_bytes(lie);
        }
        let truths = [
            arp(1, (MAC, OWN4), GATE4),
            icmp6(OWN6, 136, Some(OWN6), Some((2, MAC))),
            icmp6(Ipv6Addr::UNSPECIFIED, 135, Some(OWN6), None),
            from(MAC)
                .ip(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST)
                .udp(68, 67)
                .payload(&dhcp_client(MAC))
                .bytes(),
        ];
        truths.iter().for_each(|truth| guest.send_bytes(truth));
        let last = Frame::new(Mac::BROADCAST, MAC, "the end");
        guest.send(&last);
        let seen = gate.until(&last);
        for truth in &truths {
            assert!(seen.contains(&Frame::read(truth)), "{truth:02x?} is missing");
        }
        for (reason, frames) in &lies {
            for lie in frames {
                assert!(!seen.contains(&Frame::read(lie)), "{reason}: {lie:02x?} passed");
            }
            assert_eq!(lab.switch.drops("guest", reason), frames.len() as u64, "{reason}");
        }
        let claims = lies.iter().map(|(_, frames)| frames.len() as u64).sum::<u64>();
        assert_eq!(lab.switch.port("guest").counters.dropped, claims);
        assert_eq!(lab.switch.place_of("lan", lab.host("gate").mac).as_deref(), Some("gate"));
        assert!(lab.host("guest").reaches("10.0.0.254"), "all that changes nothing for the honest");
    });
}

#[test]
fn trace_tells_what_is_refused_and_commands_change_it() {
    scenario(TWO, |lab| {
        let spoofed = Frame::read(&arp(2, (MAC, GATE4), OWN4));
        let told = lab.switch.trace("guest", &spoofed);
        assert_eq!(told.reason.as_deref(), Some("spoofed_arp"));
        assert!(
            told.steps.iter().any(|s| s.stage == "guard" && s.text == "the ARP message claims 10.0.0.254")
        );
        let [guest, gate] = lab.raw(["guest", "gate"]);
        lab.switch.change(&["port", "set", "guest", "--ip", "10.0.0.11,10.0.0.254"]);
        guest.send(&spoofed);
        gate.until(&spoofed);
        lab.switch.change(&["port", "set", "guest", "--ip", "10.0.0.11"]);
        guest.send(&spoofed);
        lab.switch.change(&["port", "set", "guest", "--guard=false", "--ip=", "--mac="]);
        let last = Frame::new(Mac::BROADCAST, Mac([2, 9, 9, 9, 9, 9]), "anybody");
        guest.send(&last);
        assert!(!gate.until(&last).contains(&spoofed));
        assert_eq!(lab.switch.drops("guest", "spoofed_arp"), 1);
        let refusal = lab.switch.refusal(&["port", "set", "guest", "--guard"]);
        assert!(refusal.contains("a guarded port needs to be told whose it is"), "{refusal}");
    });
}

/// The command that the topology has for its gate.
fn serve_dhcp(lab: &Lab) -> Process {
    let topology = vswitch_api::topology::load(&topology_file("port-security.toml"), "").unwrap();
    let run = topology.host.into_iter().find_map(|host| host.run).expect("the gate serves");
    lab.host("gate").start("sh", ["-c", &run])
}

/// A client that gives the link the address that it gets.
fn ask_for_address(lab: &Lab, host: &Host, family: &str) -> Process {
    let script = lab.switch.write(
        "dhclient-script",
        "#!/bin/sh\ncase \"$reason\" in\n\
         BOUND) ip address add \"$new_ip_address/24\" dev \"$interface\" ;;\n\
         BOUND6) ip address add \"$new_ip6_address/64\" dev \"$interface\" ;;\n\
         esac\n",
    );
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let leases = lab.switch.file(&format!("leases{family}"));
    let [script, leases] = [script, leases].map(|path| path.to_str().unwrap().to_owned());
    host.start("dhclient", [family, "-d", "-q", "--no-pid", "-sf", &script, "-lf", &leases, "eth0"])
}

/// Waits until the host has an address that begins so, and may use it.
fn wait_for_address(host: &Host, beginning: &str) -> String {
    wait_for("the host has its address", SOON, || {
        let shown = host.run("ip", ["-brief", "address", "show", "dev", "eth0", "-tentative"]);
        let found = shown.split_whitespace().find(|word| word.starts_with(beginning))?;
        found.split_once('/').map(|(address, _)| address.to_owned())
    })
}

fn pings_from(host: &Host, source: &str, to: &str) -> bool {
    host.namespace.run("ping", ["-c", "3", "-i", "0.2", "-W", "1", "-I", source, to]).is_ok()
}

fn leased(lab: &Lab) -> Vec<String> {
    lab.switch.port("dynamic").leases.iter().map(|lease| lease.address.to_string()).collect()
}

#[test]
fn a_guarded_host_learns_its_address_from_dhcp_and_has_no_other() {
    scenario(&topology_file("port-security.toml"), |lab| {
        let dynamic = lab.host("dynamic");
        dynamic.run("ip", ["address", "add", "10.0.0.50/24", "dev", "eth0"]);
        assert!(!pings_from(dynamic, "10.0.0.50", "10.0.0.254"), "nobody has given it an address");
        let _server = serve_dhcp(lab);
        let _client = ask_for_address(lab, dynamic, "-4");
        let own = wait_for_address(dynamic, "10.0.0.1");
        wait_until("the switch has learnt it", SOON, || leased(lab) == [own.as_str()]);
        assert!(pings_from(dynamic, &own, "10.0.0.254"));
        assert!(!pings_from(dynamic, "10.0.0.50", "10.0.0.254"));
        assert!(lab.switch.drops("dynamic", "spoofed_ip") + lab.switch.drops("dynamic", "spoofed_arp") >= 3);
        let lease = lab.switch.port("dynamic").leases.remove(0);
        assert_eq!((lease.network.as_str(), lease.mac), ("tenant", dynamic.mac));
        assert!(lease.seconds.is_some_and(|seconds| (1..=3600).contains(&seconds)));

        // It outlives the link, and not the MAC that it was given to.
        dynamic.set_up(false);
        wait_until("the link is down", SOON, || lab.switch.port("dynamic").state.to_string() == "down");
        assert_eq!(leased(lab), [own.as_str()]);
        dynamic.set_up(true);
        lab.wait_up(["dynamic"]);
        assert!(pings_from(dynamic, &own, "10.0.0.254"));
        lab.switch.change(&["port", "set", "dynamic", "--mac", "02:00:00:00:00:13"]);
        lab.switch.change(&["port", "set", "dynamic", "--mac", "02:00:00:00:00:12"]);
        assert!(leased(lab).is_empty() && !pings_from(dynamic, &own, "10.0.0.254"));
    });
}

#[test]
fn a_guarded_host_learns_its_ipv6_address_from_dhcp() {
    scenario(&topology_file("port-security.toml"), |lab| {
        let dynamic = lab.host("dynamic");
        dynamic.run("sh", ["-c", "echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6"]);
        wait_for_address(dynamic, "fe80::");
        let _server = serve_dhcp(lab);
        let _client = ask_for_address(lab, dynamic, "-6");
        let own = wait_for_address(dynamic, "fd00::1");
        wait_until("the switch has learnt it", SOON, || leased(lab) == [own.as_str()]);
        assert!(pings_from(dynamic, &own, "fd00::254"));
        dynamic.run("ip", ["address", "add", "fd00::50/64", "dev", "eth0", "nodad"]);
        assert!(!pings_from(dynamic, "fd00::50", "fd00::254"));
        assert!(lab.switch.drops("dynamic", "spoofed_ip") + lab.switch.drops("dynamic", "spoofed_nd") >= 3);
    });
}

/// A DHCP server at a port that is not trusted gives no address to a guarded one.
#[test]
fn leases_of_an_untrusted_server_are_not_believed() {
    scenario(&topology_file("port-security.toml"), |lab| {
        lab.switch.change(&["port", "set", "gate", "--trusted=false"]);
        let dynamic = lab.host("dynamic");
        let _server = serve_dhcp(lab);
        let _client = ask_for_address(lab, dynamic, "-4");
        let own = wait_for_address(dynamic, "10.0.0.1");
        assert!(!pings_from(dynamic, &own, "10.0.0.254"));
        assert!(leased(lab).is_empty());
    });
}
