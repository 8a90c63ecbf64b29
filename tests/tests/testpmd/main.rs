//! DPDK's testpmd as two guests on ports of kind vhost-user: millions of frames, and each of them accounted for by both sides.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // set-up of tests
#![allow(clippy::disallowed_methods)] // how long traffic lasts is real time

mod guests;

use std::time::{Duration, Instant};

use vswitch_api::response::PortCounters;
use vswitch_tests::{Lab, SOON, scenario, wait_until};

use guests::{Guests, PORTS, Setup};

/// Seconds that the traffic of each test lasts, where they are told.
const SECONDS: &str = "VSWITCH_TEST_TESTPMD_SECONDS";
const SECONDS_DEFAULT: u64 = 3;
/// Bursts of 32 frames that the queues of a guest begin with. Those of both guests fit into one ring.
const BURSTS: u32 = 16;
/// Frames that are sent to nobody who takes them: many times what the rings hold.
const TOO_MANY: u64 = 100_000;

fn topology(setup: Setup) -> String {
    let port = |name: &str| {
        let Setup { role, queues, .. } = setup;
        format!(
            r#"{{ name = "{name}", kind = "vhost-user", socket = "/run/vswitch/{name}.sock", role = "{role}", queues = {queues}, access = "lan" }},"#
        )
    };
    let ports = PORTS.map(port).join("\n");
    format!("network = [{{ name = \"lan\" }}]\nport = [\n{ports}\n]\n")
}

fn duration() -> Duration {
    let told = std::env::var(SECONDS).ok().map(|text| text.parse().expect("a number of seconds"));
    Duration::from_secs(told.unwrap_or(SECONDS_DEFAULT))
}

fn counters(lab: &Lab) -> [PortCounters; 2] {
    PORTS.map(|port| lab.switch.port(port).counters)
}

/// Takes all frames that are on their way out of the rings, and holds that both sides have counted the same. What the
/// switch has dropped until now is the result: its ports' transmit queues were full.
#[track_caller]
fn settle(lab: &Lab, guests: &mut Guests) -> u64 {
    guests.tell("set fwd rxonly");
    guests.tell("start");
    wait_until("both sides have counted the same", SOON, || {
        let pairs = guests.counters().into_iter().zip(counters(lab));
        pairs
            .into_iter()
            .all(|(guest, switch)| (guest.sent, guest.received) == (switch.rx_packets, switch.tx_packets))
    });
    lab.switch.wait_quiet();
    guests.tell("stop");
    let (guests, switch) = (guests.counters(), counters(lab));
    for (guest, switch) in guests.iter().zip(&switch) {
        assert_eq!((guest.sent, guest.received), (switch.rx_packets, switch.tx_packets), "{switch:?}");
        assert_eq!((guest.errors, switch.missed), (0, 0));
        assert!(switch.drops.keys().all(|reason| reason == "tx_full"), "{switch:?}");
    }
    // What one has sent, the other has received, or its port has dropped it.
    for (from, to) in [(0, 1), (1, 0)] {
        assert_eq!(guests[from].sent, guests[to].received + switch[to].dropped);
    }
    let balance = lab.switch.stats().conservation;
    assert_eq!((balance.originated, balance.replicated, balance.consumed), (0, 0, 0));
    switch.iter().map(|counters| counters.dropped).sum()
}

fn every_frame_is_accounted_for(setup: Setup) {
    scenario(&topology(setup), |lab| {
        let mut guests = Guests::start(lab, setup);
        lab.wait_up(PORTS);
        for port in PORTS {
            let front_end = lab.switch.port(port).front_end.unwrap();
            assert_eq!(front_end.queue_pairs, setup.queues);
            let is_packed = front_end.features.iter().any(|feature| feature == "RING_PACKED");
            assert_eq!(is_packed, setup.packed && port == PORTS[1], "{:?}", front_end.features);
        }

        // To and fro, never more on their way than the rings hold: nothing is lost.
        guests.tell("set fwd mac");
        guests.tell(&format!("start tx_first {}", BURSTS / setup.queues));
        let begin = Instant::now();
        while begin.elapsed() < duration() {
            let before = guests.received();
            wait_until("frames go on", SOON, || guests.received() > before);
        }
        guests.tell("stop");
        assert_eq!(settle(lab, &mut guests), 0);
        let passed = guests.received();

        // Nobody takes them: what finds no room is dropped, and counted.
        guests.tell("set fwd txonly");
        guests.tell("start");
        let before = lab.switch.stats().conservation.received;
        wait_until("too many frames have come", SOON, || {
            lab.switch.stats().conservation.received > before + TOO_MANY
        });
        guests.tell("stop");
        let dropped = settle(lab, &mut guests);
        assert!(dropped > 0);
        println!(
            "{passed} frames to and fro, then {} received and {dropped} dropped",
            guests.received() - passed
        );
    });
}

#[test]
fn of_guests_that_connect() {
    every_frame_is_accounted_for(Setup { role: "server", queues: 1, packed: false });
}

#[test]
fn of_guests_that_connect_with_two_pairs() {
    every_frame_is_accounted_for(Setup { role: "server", queues: 2, packed: false });
}

#[test]
fn of_guests_that_listen() {
    every_frame_is_accounted_for(Setup { role: "client", queues: 1, packed: false });
}

#[test]
fn of_guests_that_listen_with_two_pairs() {
    every_frame_is_accounted_for(Setup { role: "client", queues: 2, packed: false });
}

#[test]
fn of_guests_with_split_and_with_packed_rings() {
    every_frame_is_accounted_for(Setup { role: "server", queues: 1, packed: true });
}
