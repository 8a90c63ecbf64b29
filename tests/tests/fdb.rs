//! The forwarding database on the real data path: learning, ageing, moves, static entries, limits.

#![allow(clippy::unwrap_used, clippy::expect_used)] // set-up of tests

use vswitch_tests::{Frame, Lab, Raw, SOON, scenario, wait_until};
use vswitch_wire::Mac;

/// Three hosts on one network, which send nothing unless told to. `lan` and `a` have more keys.
fn three(lan: &str, a: &str) -> String {
    format!(
        r#"
        network = [{{ name = "lan" {lan} }}]
        port = [
            {{ name = "a", access = "lan" {a} }},
            {{ name = "b", access = "lan" }},
            {{ name = "c", access = "lan" }},
        ]
        host = [{{ name = "a", port = "a" }}, {{ name = "b", port = "b" }}, {{ name = "c", port = "c" }}]
        "#
    )
}

/// A station that is no host's own.
const fn station(number: u8) -> Mac {
    Mac([2, 1, 0, 0, 0, number])
}

/// `from` is seen on `link`, and everybody else has seen it.
fn announce<const N: usize>(link: &Raw, from: Mac, others: [&Raw; N]) {
    let frame = Frame::new(Mac::BROADCAST, from, "here I am");
    link.send(&frame);
    for other in others {
        other.until(&frame);
    }
}

fn macs_at(lab: &Lab, port: &str) -> Vec<Mac> {
    lab.switch
        .fdb()
        .into_iter()
        .filter(|entry| entry.port.as_deref() == Some(port))
        .map(|entry| entry.mac)
        .collect()
}

#[test]
fn a_second_frame_to_a_station_is_not_flooded() {
    scenario(&three("", ""), |lab| {
        let [a, b, c] = lab.raw(["a", "b", "c"]);
        let [mac_a, mac_b] = ["a", "b"].map(|name| lab.host(name).mac);
        let first = Frame::new(mac_b, mac_a, "the destination is unknown");
        a.send(&first);
        b.sees([first.clone()]);
        c.sees([first]);

        let answer = Frame::new(mac_a, mac_b, "the source of the first frame is known");
        b.send(&answer);
        a.sees([answer]);
        let second = Frame::new(mac_b, mac_a, "the source of the answer is known");
        let last = Frame::new(Mac::BROADCAST, mac_a, "everybody sees this");
        a.send(&second);
        a.send(&last);
        b.sees([second, last.clone()]);
        c.sees([last]);
        assert_eq!(lab.switch.place_of("lan", mac_a).as_deref(), Some("a"));
        assert_eq!(lab.switch.place_of("lan", mac_b).as_deref(), Some("b"));
    });
}

#[test]
fn an_entry_ages_in_real_time() {
    let topology = r#"
        network = [{ name = "short", ageing = "1s" }, { name = "long" }]
        port = [
            { name = "a", access = "short" }, { name = "b", access = "short" }, { name = "c", access = "short" },
            { name = "x", access = "long" }, { name = "y", access = "long" },
        ]
        host = [
            { name = "a", port = "a" }, { name = "b", port = "b" }, { name = "c", port = "c" },
            { name = "x", port = "x" }, { name = "y", port = "y" },
        ]
    "#;
    scenario(topology, |lab| {
        let [a, b, c, x, y] = lab.raw(["a", "b", "c", "x", "y"]);
        announce(&x, station(1), [&y]);
        announce(&a, station(1), [&b, &c]);
        assert_eq!(lab.switch.place_of("short", station(1)).as_deref(), Some("a"));
        wait_until("the entry ages", SOON, || lab.switch.place_of("short", station(1)).is_none());
        assert_eq!(lab.switch.place_of("long", station(1)).as_deref(), Some("x"), "that is not its time yet");
        let frame = Frame::new(station(1), station(2), "unknown again");
        b.send(&frame);
        a.sees([frame.clone()]);
        c.sees([frame]);
    });
}

#[test]
fn a_station_that_moves_is_followed_at_once() {
    scenario(&three("", ""), |lab| {
        let [a, b, c] = lab.raw(["a", "b", "c"]);
        announce(&b, station(1), [&a, &c]);
        assert_eq!(lab.switch.place_of("lan", station(1)).as_deref(), Some("b"));
        announce(&b, station(1), [&a, &c]);
        assert_eq!(lab.switch.place_of("lan", station(1)).as_deref(), Some("b"));

        let frame = Frame::new(station(1), lab.host("c").mac, "where you are now");
        let last = Frame::new(Mac::BROADCAST, lab.host("c").mac, "everybody sees this");
        c.send(&frame);
        c.send(&last);
        b.sees([frame, last.clone()]);
        a.sees([last]);
    });
}

#[test]
fn a_static_entry_neither_moves_nor_ages() {
    let topology = three(r#", ageing = "1s""#, "")
        + r#"fdb = [{ network = "lan", mac = "02:01:00:00:00:01", port = "c" }]"#;
    scenario(&topology, |lab| {
        let [a, b, c] = lab.raw(["a", "b", "c"]);
        let frame = Frame::new(station(1), lab.host("a").mac, "to where the file says");
        let last = Frame::new(Mac::BROADCAST, lab.host("a").mac, "everybody sees this");
        a.send(&frame);
        a.send(&last);
        c.sees([frame.clone(), last.clone()]);
        b.sees([last.clone()]);

        announce(&b, station(1), [&a, &c]);
        announce(&b, station(2), [&a, &c]);
        wait_until("what was learnt ages", SOON, || lab.switch.place_of("lan", station(2)).is_none());
        let entries = lab.switch.fdb();
        let entry = entries.iter().find(|entry| entry.mac == station(1)).unwrap();
        assert_eq!((entry.port.as_deref(), entry.is_static), (Some("c"), true));

        let [mac, other] = [station(1), station(3)].map(|mac| mac.to_string());
        assert_eq!(lab.switch.change(&["fdb", "add", "lan", &other, "--port", "b"]).len(), 1);
        lab.switch.change(&["fdb", "del", "lan", &mac]);
        a.send(&frame);
        a.send(&Frame { to: station(3), ..frame.clone() });
        a.send(&last);
        b.sees([frame.clone(), Frame { to: station(3), ..frame.clone() }, last.clone()]);
        c.sees([frame, last]);
    });
}

#[test]
fn entries_are_deleted_and_flushed_by_command() {
    scenario(&three("", ""), |lab| {
        let [a, b, c] = lab.raw(["a", "b", "c"]);
        for number in 1..=3 {
            announce(&a, station(number), [&b, &c]);
        }
        announce(&b, station(4), [&a, &c]);
        lab.switch.change(&["fdb", "del", "lan", &station(1).to_string()]);
        assert_eq!(macs_at(lab, "a"), [station(2), station(3)]);
        let again = lab.switch.refusal(&["fdb", "del", "lan", &station(1).to_string()]);
        assert!(again.contains("is not in the FDB"), "{again}");
        let flushed: serde_json::Value = lab.switch.ask(&["fdb", "flush", "--port", "a"]);
        assert_eq!(flushed["flushed"], 2);
        assert_eq!((macs_at(lab, "a"), macs_at(lab, "b")), (vec![], vec![station(4)]));
    });
}

#[test]
fn a_port_learns_no_more_than_its_limit_and_counts_what_it_refused() {
    scenario(&three("", ", max-macs = 2"), |lab| {
        let [a, b, c] = lab.raw(["a", "b", "c"]);
        for number in 1..=5 {
            announce(&a, station(number), [&b, &c]);
        }
        assert_eq!(macs_at(lab, "a"), [station(1), station(2)]);
        assert_eq!(lab.switch.port("a").counters.learn_refused, 3);
        announce(&b, station(9), [&a, &c]);
        assert_eq!(macs_at(lab, "b"), [station(9)], "the limit is the port's own");
    });
}

#[test]
fn a_flood_of_addresses_costs_no_other_port_its_share_of_a_full_network() {
    scenario(&three(", max-macs = 6", ""), |lab| {
        let [a, b, c] = lab.raw(["a", "b", "c"]);
        for number in 1..=20 {
            announce(&a, station(number), [&b, &c]);
        }
        assert_eq!(macs_at(lab, "a").len(), 6);
        announce(&b, station(101), [&a, &c]);
        announce(&c, station(102), [&a, &b]);
        wait_until("the flooder's entries make room", SOON, || lab.switch.fdb().len() == 6);
        assert_eq!(
            (macs_at(lab, "b"), macs_at(lab, "c"), macs_at(lab, "a").len()),
            (vec![station(101)], vec![station(102)], 4)
        );
    });
}

#[test]
fn a_station_in_two_places_is_held_in_one() {
    scenario(&three("", ""), |lab| {
        let [a, b, c] = lab.raw(["a", "b", "c"]);
        let everybody = |text: &str| Frame::new(Mac::BROADCAST, station(1), text);
        // Learnt at a; four moves are taken at their word, the fifth is one too many.
        for link in [&a, &b, &a, &b, &a] {
            let frame = everybody("here I am");
            link.send(&frame);
            c.until(&frame);
        }
        b.send(&everybody("here I am"));
        wait_until("the frame from elsewhere is dropped", SOON, || lab.switch.drops("b", "mac_flap") == 1);
        let held = lab.switch.fdb().into_iter().find(|entry| entry.mac == station(1)).unwrap();
        assert_eq!((held.port.as_deref(), held.held), (Some("a"), true));
        let from_a = everybody("from where it is held");
        a.send(&from_a);
        assert_eq!(c.until(&from_a), [], "and the dropped frame was not sent");

        wait_until("the hold ends", 2 * SOON, || lab.switch.fdb().iter().all(|entry| !entry.held));
        announce(&a, station(1), [&b, &c]);
        assert_eq!(lab.switch.place_of("lan", station(1)).as_deref(), Some("a"));
    });
}

#[test]
fn a_link_that_goes_down_takes_its_entries_along() {
    scenario(&three("", ""), |lab| {
        let [a, b, c] = lab.raw(["a", "b", "c"]);
        announce(&b, station(1), [&a, &c]);
        announce(&c, station(2), [&a, &b]);
        lab.host("b").set_up(false);
        wait_until("the entries at the port are gone", SOON, || macs_at(lab, "b").is_empty());
        assert_eq!(macs_at(lab, "c"), [station(2)]);
        assert_eq!(lab.switch.port("b").state, vswitch_api::response::LinkState::Down);
        let frame = Frame::new(station(1), lab.host("a").mac, "unknown again");
        a.send(&frame);
        c.sees([frame]);

        lab.host("b").set_up(true);
        lab.wait_up(["b"]);
        announce(&lab.host("b").raw(), station(1), [&a, &c]);
        assert_eq!(macs_at(lab, "b"), [station(1)]);
    });
}
