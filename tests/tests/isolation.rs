//! VLAN isolation: whatever members of one VLAN send, no member of another ever sees it.
//!
//! Both networks use the same addresses. From each, an access port and a trunk of this network alone send
//! everything that might get across, while every link of the switch is watched.

#![allow(clippy::unwrap_used, clippy::expect_used)] // set-up of tests

use std::collections::{BTreeMap, BTreeSet};

use vswitch_tests::{Frame, Lab, Raw, Scenario};
use vswitch_wire::Mac;
use vswitch_wire::vlan::{TPID_8021AD, TPID_8021Q};

/// Colour and VLAN ID of the two networks.
const COLOURS: [(&str, u16); 2] = [("red", 10), ("blue", 20)];

/// Two access ports and a trunk for each network, a trunk of both, and one with blue as its native network; each
/// with its host's address.
const PORTS: [(&str, &str, Option<&str>); 8] = [
    ("red1", r#"access = "red""#, Some("10.0.0.1/24")),
    ("red2", r#"access = "red""#, Some("10.0.0.2/24")),
    ("redtrunk", r#"trunk = ["red"]"#, None),
    ("blue1", r#"access = "blue""#, Some("10.0.0.1/24")),
    ("blue2", r#"access = "blue""#, Some("10.0.0.2/24")),
    ("bluetrunk", r#"trunk = ["blue"]"#, None),
    ("both", r#"trunk = ["red", "blue"]"#, None),
    ("mixed", "trunk = [\"red\"]\nnative = \"blue\"", None),
];

/// Runs `body` with ports that are of these kinds by turns.
fn with_ports(kinds: &[&str], body: impl FnOnce(&mut Lab)) {
    let mut text =
        String::from("network = [{ name = \"red\", vlan = 10 }, { name = \"blue\", vlan = 20 }]\n");
    let mut taps = Vec::new();
    for ((name, networks, address), kind) in PORTS.into_iter().zip(kinds.iter().cycle()) {
        text.push_str(&format!("[[port]]\nname = \"{name}\"\nkind = \"{kind}\"\n{networks}\n"));
        if *kind == "tap" {
            taps.push((name, address.map(str::to_owned)));
        } else {
            let address = address.map_or_else(String::new, |address| format!("\"{address}\""));
            text.push_str(&format!(
                "[[host]]\nname = \"{name}\"\nport = \"{name}\"\naddress = [{address}]\n"
            ));
        }
    }
    let scenario = Scenario::new(&text);
    taps.into_iter().fold(scenario, |scenario, (name, address)| scenario.tap_host(name, address)).run(body);
}

/// Every link of the switch, watched.
struct Watch<'a> {
    lab: &'a Lab,
    links: BTreeMap<&'a str, Raw>,
}

impl<'a> Watch<'a> {
    fn new(lab: &'a Lab) -> Self {
        Self { lab, links: lab.hosts().map(|host| (host.name.as_str(), host.raw())).collect() }
    }

    fn link(&self, host: &str) -> &Raw {
        &self.links[host]
    }

    /// How a frame of this network comes out of the link of `host`; `None`: never.
    fn form(&self, host: &str, (colour, vid): (&str, u16), frame: Frame) -> Option<Frame> {
        match host {
            "both" => Some(frame.tagged(vid)),
            "mixed" if colour == "blue" => Some(frame),
            "mixed" => Some(frame.tagged(vid)),
            _ if !host.starts_with(colour) => None,
            _ if host.ends_with("trunk") => Some(frame.tagged(vid)),
            _ => Some(frame),
        }
    }

    /// What every link has seen once all that these hosts have sent has arrived.
    fn seen(&self, attackers: &[String], colour: (&str, u16)) -> BTreeMap<&'a str, Vec<Frame>> {
        // When a broadcast of the attacker's has come through, so has all that it sent before.
        let witness = self.link(&format!("{}2", colour.0));
        let mut seen: BTreeMap<&str, Vec<Frame>> = BTreeMap::new();
        for attacker in attackers {
            let end = Frame::new(Mac::BROADCAST, self.lab.host(attacker).mac, "the end of this attack");
            let sent = if attacker.ends_with("trunk") { end.clone().tagged(colour.1) } else { end.clone() };
            self.link(attacker).send(&sent);
            seen.entry(self.key(&format!("{}2", colour.0))).or_default().extend(witness.until(&end));
        }
        // What was sent to a link by then, it has seen when it sees this.
        for colour in COLOURS {
            for sender in ["1", "2"].map(|number| format!("{}{number}", colour.0)) {
                let end = Frame::new(Mac::BROADCAST, self.lab.host(&sender).mac, "the end");
                self.link(&sender).send(&end);
                for (&host, link) in self.links.iter().filter(|(host, _)| **host != sender) {
                    if let Some(end) = self.form(host, colour, end.clone()) {
                        seen.entry(host).or_default().extend(link.until(&end));
                    }
                }
            }
        }
        seen
    }

    fn key(&self, host: &str) -> &'a str {
        self.links.get_key_value(host).unwrap().0
    }
}

/// Every form of a frame that might get into the other VLAN.
fn attacks(own: u16, other: u16) -> Vec<(&'static str, Vec<(u16, u16)>)> {
    let q = |vid| (TPID_8021Q, vid);
    vec![
        ("untagged", vec![]),
        ("own tag", vec![q(own)]),
        ("the other's tag", vec![q(other)]),
        ("priority tag", vec![q(0)]),
        ("reserved tag", vec![q(4095)]),
        ("double tag, the other's inside", vec![q(own), q(other)]),
        ("double tag, the other's outside", vec![q(other), q(own)]),
        ("double tag of the other", vec![q(other), q(other)]),
        ("priority tag before the other's", vec![q(0), q(other)]),
        ("two priority tags before the other's", vec![q(0), q(0), q(other)]),
        ("service tag of the other", vec![(TPID_8021AD, other)]),
        ("service tag before the other's", vec![(TPID_8021AD, own), q(other)]),
        ("own tag before a service tag", vec![q(own), (TPID_8021AD, other), q(other)]),
    ]
}

fn no_frame_crosses(kinds: &[&str]) {
    with_ports(kinds, |lab| {
        let used: BTreeSet<_> = lab.switch.ports().iter().map(|port| port.kind.name().to_owned()).collect();
        assert_eq!(used, kinds.iter().map(|&kind| kind.to_owned()).collect());
        let [red, blue] = COLOURS;
        for (own, other) in [(red, blue), (blue, red)] {
            let watch = Watch::new(lab);
            assert!(lab.host(&format!("{}1", own.0)).reaches("10.0.0.2"));
            let attackers = [format!("{}1", own.0), format!("{}trunk", own.0)];
            let victim = lab.host(&format!("{}1", other.0)).mac;
            let neighbour = lab.host(&format!("{}2", own.0)).mac;
            let group = Mac([1, 0, 0x5e, 0, 0, 0xfb]);
            let destinations = [Mac::BROADCAST, group, victim, neighbour, Mac([2, 9, 9, 9, 9, 9])];
            for attacker in &attackers {
                let own_mac = lab.host(attacker).mac;
                for (what, tags) in attacks(own.1, other.1) {
                    for (to, from) in destinations.iter().map(|to| (*to, own_mac)).chain([(own_mac, victim)])
                    {
                        let text = format!("{} {what}", own.0);
                        watch
                            .link(attacker)
                            .send(&Frame { tags: tags.clone(), ..Frame::new(to, from, &text) });
                    }
                }
            }
            let seen = watch.seen(&attackers, own);
            assert_nothing_crossed(lab, &seen, own.0);
            assert_own_frames_arrived(&seen, own.0);
        }
        for reason in
            ["tagged_on_access", "vlan_not_allowed", "reserved_vid", "untagged_no_native", "inner_tag"]
        {
            assert!(lab.switch.stats().drops.contains_key(reason), "no frame was dropped for {reason}");
        }
    });
}

/// The network that a frame was sent into: it says so itself, or else its source does.
fn colour_of(lab: &Lab, frame: &Frame) -> &'static str {
    let from = lab.hosts().find(|host| host.mac == frame.from);
    let says = |colour: &str| frame.payload.starts_with(format!("{colour} ").as_bytes());
    let is_of = |colour: &str| from.is_some_and(|host| host.name.starts_with(colour));
    let says_so = COLOURS.iter().find(|(colour, _)| says(colour));
    says_so.or_else(|| COLOURS.iter().find(|(colour, _)| is_of(colour))).expect("a known source").0
}

fn assert_nothing_crossed(lab: &Lab, seen: &BTreeMap<&str, Vec<Frame>>, attacker: &str) {
    for (host, frames) in seen {
        for frame in frames {
            let colour = colour_of(lab, frame);
            let outer =
                frame.tags.first().filter(|(tpid, _)| *tpid == TPID_8021Q).map(|(_, tci)| tci & 0xfff);
            let allowed = match (*host, colour) {
                ("both", "red") | ("mixed", "red") => outer == Some(10),
                ("both", _) => outer == Some(20),
                ("mixed", _) => outer.is_none(),
                (host, colour) if host.ends_with("trunk") => {
                    host.starts_with(colour) && outer == COLOURS.iter().find(|c| c.0 == colour).map(|c| c.1)
                }
                (host, colour) => host.starts_with(colour) && outer.is_none(),
            };
            assert!(allowed, "attack from {attacker}: host {host} saw {frame:?} of {colour}");
        }
    }
}

/// Else the isolation of a dead switch would pass.
fn assert_own_frames_arrived(seen: &BTreeMap<&str, Vec<Frame>>, colour: &str) {
    let text = format!("{colour} untagged");
    for host in [format!("{colour}2"), format!("{colour}trunk"), "both".to_owned(), "mixed".to_owned()] {
        let arrived = seen[host.as_str()].iter().any(|frame| frame.payload.starts_with(text.as_bytes()));
        assert!(arrived, "host {host} never saw a frame {text:?}");
    }
}

#[test]
fn no_frame_crosses_between_vlans_on_packet_ports() {
    no_frame_crosses(&["packet"]);
}

#[test]
fn no_frame_crosses_between_vlans_on_xdp_ports() {
    no_frame_crosses(&["xdp"]);
}

#[test]
fn no_frame_crosses_between_vlans_on_taps() {
    no_frame_crosses(&["tap"]);
}

#[test]
fn no_frame_crosses_between_vlans_on_ports_of_different_kinds() {
    no_frame_crosses(&["packet", "xdp", "tap"]);
}
