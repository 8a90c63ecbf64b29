//! Tenants on the real data path: they may use the same addresses and VLAN IDs, and never meet; limits are fair, and a
//! flood of one costs another nothing.

#![allow(clippy::unwrap_used, clippy::expect_used)] // set-up of tests
#![allow(clippy::disallowed_methods)] // how long a flood takes is told

use std::fs;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use vswitch_api::response::{LinkState, TenantState};
use vswitch_tests::{Frame, Host, Lab, Raw, SOON, Switch, scenario, topology_file, wait_until};
use vswitch_wire::Mac;

/// A station that is no host's own.
fn station(number: u64) -> Mac {
    Mac::from_u64(0x0201_0000_0000 + number)
}

fn tenant(switch: &Switch, name: &str) -> TenantState {
    switch.ask(&["tenant", "show", name])
}

fn ports_of(tenant: &TenantState) -> Vec<(&str, LinkState, bool)> {
    tenant.ports.iter().map(|port| (port.name.as_str(), port.state, port.shared)).collect()
}

/// Gives a host the hardware address of another.
fn impersonate(host: &Host, mac: Mac) {
    host.run("ip", ["link", "set", "dev", "eth0", "address", &mac.to_string()]);
}

/// Holds that no link of these has seen anything since the last look, but what its own tenant sends now.
fn have_seen_nothing([one, two, trunk]: [&Raw; 3], text: &str) {
    let from_one = Frame::new(Mac::BROADCAST, station(0xffff), &format!("the end of {text}"));
    one.send(&from_one);
    assert_eq!(two.until(&from_one), [], "{text}");
    assert_eq!(trunk.until(&from_one.tagged(10)), [], "{text}");
    let from_two = Frame::new(Mac::BROADCAST, station(0xfffe), &format!("the very end of {text}"));
    two.send(&from_two);
    assert_eq!(one.until(&from_two), [], "{text}");
    assert_eq!(trunk.until(&from_two.tagged(10)), [], "{text}");
}

#[test]
fn two_tenants_with_the_same_addresses_and_vlan_never_meet() {
    scenario(&topology_file("two-tenants.toml"), |lab| {
        for number in ["1", "2"] {
            impersonate(lab.host(&format!("beta{number}")), lab.host(&format!("acme{number}")).mac);
        }
        let acme = lab.raw(["acme1", "acme2", "acme-up"]);
        let beta = lab.raw(["beta1", "beta2", "beta-up"]);
        let sides = [("acme", &acme, &beta), ("beta", &beta, &acme)];
        for (name, own, other) in sides {
            // By the kernel's own stacks: ARP and ICMP.
            assert!(lab.host(&format!("{name}1")).reaches("10.0.0.2"), "{name}");
            assert!(lab.host(&format!("{name}2")).reaches("10.0.0.1"), "{name}");
            have_seen_nothing(other.each_ref(), &format!("{name}'s pings"));
            own.iter().for_each(|link| drop(link.drain()));

            // One station on both trunks, under the same VLAN ID.
            let [one, two, trunk] = own;
            let announced = Frame::new(Mac::BROADCAST, station(1), &format!("{name}'s station is here"));
            trunk.send(&announced.clone().tagged(10));
            one.sees([announced.clone()]);
            two.sees([announced]);
            let answer = Frame::new(station(1), lab.host("acme1").mac, &format!("to {name}'s station"));
            one.send(&answer);
            trunk.sees([answer.tagged(10)]);
            have_seen_nothing(other.each_ref(), &format!("{name}'s trunk"));
            have_seen_nothing(own.each_ref(), &format!("{name}'s known unicast"));
        }
        for name in ["acme", "beta"] {
            let place = |mac| lab.switch.place_of(&format!("{name}-lan"), mac);
            assert_eq!(place(lab.host("acme1").mac), Some(format!("{name}1")));
            assert_eq!(place(station(1)), Some(format!("{name}-up")));
        }
        they_are_listed(lab, &acme);
    });
}

/// As text and as JSON.
fn they_are_listed(lab: &Lab, acme: &[Raw; 3]) {
    let dropped = Frame::new(Mac::BROADCAST, lab.host("acme1").mac, "access ports take no tag").tagged(10);
    acme[0].send(&dropped);
    wait_until("the frame is dropped", SOON, || lab.switch.drops("acme1", "tagged_on_access") == 1);
    lab.switch.wait_quiet();
    let all: Vec<TenantState> = lab.switch.ask(&["tenant", "list"]);
    let [acme, beta] = all.try_into().unwrap();
    assert_eq!((acme.name.as_str(), beta.name.as_str()), ("acme", "beta"));
    assert_eq!(
        (&acme.networks[..], &beta.networks[..]),
        (&["acme-lan".into()][..], &["beta-lan".into()][..])
    );
    let up = LinkState::Up;
    assert_eq!(ports_of(&acme), [("acme1", up, false), ("acme2", up, false), ("acme-up", up, false)]);
    assert_eq!(
        (acme.max_macs, acme.max_ports, beta.max_macs, beta.max_ports),
        (Some(1000), Some(3), Some(500), None)
    );
    assert_eq!((acme.learnt, acme.macs), (5, 5), "two hosts, and three stations of the test");
    assert_eq!((beta.learnt, beta.counters.dropped), (5, 0));
    assert_eq!((acme.counters.dropped, acme.counters.drops["tagged_on_access"]), (1, 1));
    let traffic = acme.counters.traffic;
    assert!(traffic.packets >= 10 && traffic.bytes >= 10 * 60 && traffic.flooded >= 5, "{traffic:?}");

    let stats = lab.switch.stats();
    let in_stats: Vec<_> = stats.tenants.into_iter().map(|t| (t.name, t.counters)).collect();
    assert_eq!(in_stats, [("acme".to_owned(), acme.counters), ("beta".to_owned(), beta.counters)]);
    let list = lab.switch.ctl(["tenant", "list"]).stdout;
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((rows.len(), &rows[1][..6]), (3, &["acme", "1", "3", "3", "5", "1000"][..]), "{list}");
    let show = lab.switch.ctl(["tenant", "show", "acme"]).stdout;
    for part in ["acme-lan", "3 (at most 3)", "5 (at most 1000)", "tagged_on_access 1", "acme-up"] {
        assert!(show.contains(part), "no {part:?} in:\n{show}");
    }
}

/// Tenant acme with two networks, of three ports each, and a network of beta on a trunk of acme's, too.
const LIMITED: &str = r#"
    tenant = [{ name = "acme", max-macs = 6 }]
    network = [
        { name = "red", tenant = "acme", vlan = 10 },
        { name = "pink", tenant = "acme", vlan = 11 },
        { name = "blue", tenant = "beta", vlan = 10 },
    ]
    port = [
        { name = "red1", access = "red" }, { name = "red2", access = "red" },
        { name = "pink1", access = "pink" }, { name = "pink2", access = "pink" },
        { name = "blue1", access = "blue" },
        { name = "both", trunk = ["red", { network = "blue", vlan = 20 }] },
    ]
    host = [
        { name = "red1", port = "red1" }, { name = "red2", port = "red2" },
        { name = "pink1", port = "pink1" }, { name = "pink2", port = "pink2" },
        { name = "blue1", port = "blue1" }, { name = "both", port = "both" },
    ]
"#;

/// These stations are heard on `link`, and `other` has heard them.
fn announce(link: &Raw, stations: impl IntoIterator<Item = u64>, other: &Raw) {
    for number in stations {
        let frame = Frame::new(Mac::BROADCAST, station(number), "here I am");
        link.send(&frame);
        other.until(&frame);
    }
}

#[test]
fn at_its_limit_a_tenant_takes_from_its_largest_network_and_from_nobody_else() {
    scenario(LIMITED, |lab| {
        let [red1, red2, pink1, pink2, blue1, both] =
            lab.raw(["red1", "red2", "pink1", "pink2", "blue1", "both"]);
        let tagged = |number| Frame::new(Mac::BROADCAST, station(number), "of beta").tagged(20);
        (1..=10).for_each(|number| both.send(&tagged(number)));
        blue1.until(&tagged(10).untagged());
        announce(&red1, 101..=120, &red2);
        assert_eq!((tenant(&lab.switch, "acme").learnt, tenant(&lab.switch, "beta").learnt), (6, 10));
        // Half of it is the other network's.
        announce(&pink1, 201..=203, &pink2);
        let of = |network: &str| lab.switch.fdb().iter().filter(|entry| entry.network == network).count();
        assert_eq!(of("pink"), 3);
        wait_until("the flooded network makes room", SOON, || tenant(&lab.switch, "acme").learnt == 6);
        assert_eq!((of("red"), of("pink"), of("blue")), (3, 3, 10));

        let acme = tenant(&lab.switch, "acme");
        assert_eq!(acme.counters.learn_refused, 14);
        assert!(acme.ports.iter().all(|port| port.shared == (port.name == "both")), "{:?}", acme.ports);
        let beta = tenant(&lab.switch, "beta");
        assert_eq!((beta.ports.len(), beta.max_macs, beta.max_ports), (2, None, None));

        assert_eq!(
            lab.switch.change(&["tenant", "set", "acme", "--max-macs", "4"]),
            ["~ tenant acme: max-macs 6 -> 4"]
        );
        wait_until("the lower limit holds", SOON, || tenant(&lab.switch, "acme").learnt == 4);
        assert_eq!((of("red"), of("pink"), of("blue")), (2, 2, 10));
    });
}

#[test]
fn a_port_too_many_for_its_tenant_is_refused() {
    scenario(LIMITED, |lab| {
        let beyond = |count: u32, most: u32, ports: &str| {
            format!(
                "vswitchctl: tenant[0].max-ports: {count} ports carry networks of tenant \"acme\", which may have {most} \
                 (beyond the limit: {ports}); raise max-ports, or take the tenant's networks from a port"
            )
        };
        let limit = |most| ["tenant", "set", "acme", "--max-ports", most];
        assert_eq!(lab.switch.refusal(&limit("3")), beyond(5, 3, "pink2, both"));
        assert_eq!(lab.switch.change(&limit("5")), ["~ tenant acme: max-ports default -> 5"]);
        let add = ["port", "add", "red3", "--access", "red"];
        assert_eq!(lab.switch.refusal(&add), beyond(6, 5, "red3"));
        let move_there = ["port", "set", "blue1", "--access", "red"];
        assert_eq!(lab.switch.refusal(&move_there), beyond(6, 5, "both"));
        assert_eq!(tenant(&lab.switch, "acme").ports.len(), 5, "a refused command has changed nothing");

        assert_eq!(lab.switch.change(&limit("none")), ["~ tenant acme: max-ports 5 -> default"]);
        assert_eq!(lab.switch.change(&add), ["+ port red3: access red"]);
        assert_eq!(tenant(&lab.switch, "acme").ports.len(), 6);
        let refused = lab.switch.refusal(&["tenant", "del", "acme"]);
        assert!(refused.contains("has network red, pink"), "{refused}");
        let dump = lab.switch.ctl(["dump"]).stdout;
        assert!(dump.contains("[[tenant]]\nname = \"acme\"\nmax-macs = 6\n"), "{dump}");
    });
}

/// Two tenants: one with a flooder, and a second network of its own; the other with much to lose.
const FLOODED: &str = r#"
    tenant = [{ name = "acme", max-macs = 5000 }]
    network = [
        { name = "acme-lan", tenant = "acme" },
        { name = "acme-two", tenant = "acme" },
        { name = "beta-lan", tenant = "beta" },
    ]
    port = [
        { name = "flooder", access = "acme-lan" }, { name = "acme1", access = "acme-lan" },
        { name = "two1", access = "acme-two" }, { name = "two2", access = "acme-two" },
        { name = "beta1", access = "beta-lan" }, { name = "beta2", access = "beta-lan" },
    ]
    host = [
        { name = "flooder", port = "flooder" }, { name = "acme1", port = "acme1" },
        { name = "two1", port = "two1" }, { name = "two2", port = "two2" },
        { name = "beta1", port = "beta1", address = ["10.0.0.1/24"] },
        { name = "beta2", port = "beta2", address = ["10.0.0.2/24"] },
    ]
"#;

/// Resident memory of a process in KiB (proc(5)).
fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Sends a frame from each of these sources, to as many destinations that nobody knows.
fn flood(link: &Raw, sources: Range<u64>) {
    let mut frame = Frame::new(Mac::ZERO, Mac::ZERO, "one of very many").bytes();
    for n in sources {
        frame[..6].copy_from_slice(&Mac::from_u64(0x0600_0000_0000 + n).0);
        frame[6..12].copy_from_slice(&Mac::from_u64(0x0a00_0000_0000 + n).0);
        link.send_bytes(&frame);
    }
}

/// Goes when what is done meanwhile is over, in any way.
struct During<'a>(&'a AtomicBool);

impl Drop for During<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Pings until it is over; how often.
fn ping_on(from: &Host, to: &str, is_over: &AtomicBool) -> u32 {
    const BURST: u32 = 20;
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        let burst = BURST.to_string();
        let report = from.run("ping", ["-q", "-c", &burst, "-i", "0.01", "-W", "5", to]);
        assert!(report.contains(" 0% packet loss"), "after {sent} pings: {report}");
        sent += BURST;
    }
    sent
}

#[test]
fn a_flood_of_a_million_addresses_costs_another_tenant_nothing() {
    /// Of which the switch hears.
    const SOURCES: u64 = 1_000_000;
    const SLICE: u64 = 100_000;
    const SENT_MAX: u64 = 40 * SOURCES;
    const KNOWN: u64 = 2_000;
    /// Far less than so many addresses would take, and more than a daemon's answers to this test.
    const GROWTH_MAX_KIB: u64 = 16 << 10;
    scenario(FLOODED, |lab| {
        let [flooder, two1, two2, beta1, beta2] = lab.raw(["flooder", "two1", "two2", "beta1", "beta2"]);
        announce(&beta2, 1..=KNOWN, &beta1);
        announce(&two1, 1..=100, &two2);
        let entries = |network: &str| -> Vec<(Mac, String)> {
            let all = lab.switch.fdb().into_iter().filter(|entry| entry.network == network);
            all.map(|entry| (entry.mac, entry.port.expect("at a port"))).collect()
        };
        assert!(lab.host("beta1").reaches("10.0.0.2"));
        let (of_beta, of_two) = (entries("beta-lan"), entries("acme-two"));
        assert_eq!((of_beta.len(), of_two.len()), (2 + KNOWN as usize, 100));
        lab.switch.wait_quiet();
        let memory = resident_kib(lab.switch.pid());

        let (begin, is_over, mut sent) = (Instant::now(), AtomicBool::new(false), 0);
        let pings = thread::scope(|scope| {
            let during = During(&is_over);
            let pinging = scope.spawn(|| ping_on(lab.host("beta1"), "10.0.0.2", &is_over));
            // What the daemon does not get to, the kernel drops.
            let received = || lab.switch.port("flooder").counters.rx_packets;
            while received() < SOURCES {
                assert!(sent < SENT_MAX, "the switch receives {} of {sent} frames", received());
                flood(&flooder, sent..sent + SLICE);
                sent += SLICE;
            }
            drop(during);
            pinging.join().unwrap()
        });
        lab.switch.wait_quiet();
        let (took, grown) = (begin.elapsed(), resident_kib(lab.switch.pid()).saturating_sub(memory));
        let counters = lab.switch.port("flooder").counters;
        println!(
            "frames of {sent} sources in {took:.1?}, {} of them received; {} sources not learnt; {pings} pings of the other \
             tenant answered; resident memory {memory} KiB, and {grown} KiB more after it",
            counters.rx_packets, counters.learn_refused
        );

        assert_eq!(entries("beta-lan"), of_beta);
        assert_eq!(entries("acme-two"), of_two, "nor does it cost the tenant's other network what it has");
        assert!(pings >= 20);
        assert!(grown <= GROWTH_MAX_KIB, "{grown} KiB");
        let acme = tenant(&lab.switch, "acme");
        assert_eq!((acme.learnt, acme.counters.learn_refused), (5_000, counters.learn_refused));
        assert!(counters.learn_refused >= counters.rx_packets - 5_000);
        // Whoever is below its share still learns, in both tenants.
        announce(&beta1, 10_001..=10_100, &beta2);
        announce(&two2, 10_001..=10_100, &two1);
        assert_eq!((entries("beta-lan").len(), entries("acme-two").len()), (of_beta.len() + 100, 200));
    });
}
