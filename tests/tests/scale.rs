//! Many ports, and more than one worker.

#![allow(clippy::unwrap_used, clippy::expect_used)] // set-up of tests
#![allow(clippy::disallowed_methods)] // how long it takes is told

use std::time::{Duration, Instant};

use vswitch_api::response::LinkState;
use vswitch_tests::{Frame, Host, Scenario, scenario, wait_for};
use vswitch_wire::Mac;

/// Two workers, and a port of each kind for each of them: ports go to workers in turn.
const TWO_WORKERS: &str = r#"
    switch = { cpus = [0, 1] }
    network = [{ name = "lan" }]
    port = [
        { name = "packet0", kind = "packet", access = "lan" },
        { name = "packet1", kind = "packet", access = "lan" },
        { name = "xdp0", kind = "xdp", access = "lan" },
        { name = "xdp1", kind = "xdp", access = "lan" },
    ]
    host = [
        { name = "packet0", port = "packet0", address = ["10.0.0.1/24"] },
        { name = "packet1", port = "packet1", address = ["10.0.0.2/24"] },
        { name = "xdp0", port = "xdp0", address = ["10.0.0.3/24"] },
        { name = "xdp1", port = "xdp1", address = ["10.0.0.4/24"] },
    ]
"#;

#[test]
fn two_workers_pass_each_other_s_traffic() {
    scenario(TWO_WORKERS, |lab| {
        let status = lab.switch.status();
        let workers: Vec<_> = status.workers.iter().map(|worker| (worker.cpu, worker.queues)).collect();
        assert_eq!(workers, [(Some(0), 2), (Some(1), 2)]);
        for from in lab.hosts() {
            for number in 1..=4 {
                assert!(from.reaches(&format!("10.0.0.{number}")), "{} to {number}", from.name);
            }
        }
        // A port of each worker to one of the other, and all four at once.
        let servers = [lab.host("packet1").serve_iperf(), lab.host("xdp1").serve_iperf()];
        let transfer = |from: &str, to: &str, reverse: &[&str]| {
            let report = lab.host(from).iperf(to, &[&["--time", "2"], reverse].concat());
            let received = report["end"]["sum_received"]["bytes"].as_u64();
            assert!(received.is_some_and(|bytes| bytes > 1_000_000), "{report:#}");
        };
        std::thread::scope(|scope| {
            scope.spawn(|| transfer("packet0", "10.0.0.2", &[]));
            scope.spawn(|| transfer("xdp0", "10.0.0.4", &["--reverse"]));
        });
        drop(servers);
    });
}

#[test]
fn frames_of_one_sender_keep_their_order_over_two_workers() {
    scenario(TWO_WORKERS, |lab| {
        let links = lab.raw(["packet0", "packet1", "xdp0", "xdp1"]);
        let macs = ["packet0", "packet1", "xdp0", "xdp1"].map(|host| lab.host(host).mac);
        for (from, to) in [(0, 1), (1, 0), (2, 3), (3, 2), (0, 3), (2, 1)] {
            let frames = (0..200).map(|n| Frame::new(macs[to], macs[from], &format!("{from} to {to}: {n}")));
            let announced = Frame::new(Mac::BROADCAST, macs[to], &format!("{to} is here for {from}"));
            links[to].send(&announced);
            links[from].until(&announced);
            frames.clone().for_each(|frame| links[from].send(&frame));
            let last = frames.clone().next_back().unwrap();
            let mut seen = links[to].until(&last);
            seen.push(last);
            seen.retain(|frame| frame.from == macs[from] && frame.to == macs[to]);
            assert!(seen == frames.collect::<Vec<_>>(), "{from} to {to}: {seen:#?}");
        }
    });
}

#[test]
fn two_hundred_ports_see_each_broadcast_once() {
    const PORTS: usize = 200;
    /// Opening a port takes milliseconds; on a machine that does other things too, some more.
    const ATTACH: Duration = Duration::from_secs(60);
    let mut topology = String::from("network = [{ name = \"lan\" }]\n");
    for n in 0..PORTS {
        topology.push_str(&format!("[[port]]\nname = \"p{n}\"\naccess = \"lan\"\n"));
        topology.push_str(&format!("[[host]]\nname = \"h{n}\"\nport = \"p{n}\"\n"));
    }
    Scenario::new(&topology).unplugged().run(|lab| {
        lab.hosts().for_each(Host::plug);
        let start = Instant::now();
        wait_for("all ports are up", ATTACH, || (lab.switch.status().ports.up == PORTS as u64).then_some(()));
        println!("{PORTS} ports were up {:?} after the last netdev came", start.elapsed());
        let watched: Vec<_> = lab.hosts().map(|host| (host, host.raw())).collect();
        let (sender, link) = &watched[0];
        let first = Frame::new(Mac::BROADCAST, sender.mac, "to everybody");
        let last = Frame::new(Mac::BROADCAST, sender.mac, "once more");
        link.send(&first);
        link.send(&last);
        for (_, other) in &watched[1..] {
            other.sees([first.clone(), last.clone()]);
        }
        assert_eq!(link.drain(), [], "the sender's own port is left out");

        lab.switch.wait_quiet();
        let balance = lab.switch.stats().conservation;
        assert_eq!((balance.received, balance.transmitted, balance.dropped), (2, 2 * 199, 0));
        assert_eq!(balance.replicated, 2 * 198);

        let (receiver, answering) = &watched[PORTS - 1];
        let answer = Frame::new(sender.mac, receiver.mac, "to one");
        answering.send(&answer);
        link.sees([answer]);
        assert!(watched[1..PORTS - 1].iter().all(|(_, other)| other.drain().is_empty()));
        assert!(lab.switch.ports().iter().all(|port| port.state == LinkState::Up));
    });
}
