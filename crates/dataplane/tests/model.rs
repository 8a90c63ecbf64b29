//! The pipeline against a reference model of an 802.1Q bridge, over random topologies and frames.
//!
//! The model is written from the standard's words and for reading alone: it knows ports by their configuration,
//! frames by their bytes on the wire, and copies everything. It shares no code with the switch.

mod testbed;

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use testbed::{A, B, DOT1AD, DOT1Q, GROUP, Switch, access, eth, out_of_band, trunk};
use vswitch_dataplane::{Attachment, Port, Storm};
use vswitch_wire::Mac;
use vswitch_wire::testing::VecFrame;

const NETWORKS: u16 = 3;
const MTU: usize = 30;
const VIDS: [u16; 3] = [10, 20, 30];

/// A port as a user configures it.
#[derive(Clone, Debug)]
struct Config {
    /// VLAN ID -> network; `None` is an access port.
    trunk: Option<BTreeMap<u16, u16>>,
    /// Of an access port, or a trunk's native one.
    untagged: Option<u16>,
    isolated: bool,
    up: bool,
    mtu: usize,
}

/// A frame inside the model's bridge: the priority of its tag, and the bytes without it.
struct Inside {
    network: u16,
    priority: u16,
    addresses: Vec<u8>,
    rest: Vec<u8>,
}

#[derive(Default)]
struct Model {
    ports: Vec<Config>,
    stations: BTreeMap<(u16, Vec<u8>), usize>,
}

fn word(bytes: &[u8]) -> u16 {
    bytes.first_chunk().map_or(0, |w| u16::from_be_bytes(*w))
}

/// Length without the outermost tag, as an MTU counts it, and without the addresses and the EtherType.
fn payload_len(frame: &[u8]) -> usize {
    let tag = if [DOT1Q, DOT1AD].contains(&word(&frame[12..])) && frame.len() >= 16 { 4 } else { 0 };
    (frame.len() - tag).saturating_sub(14)
}

impl Model {
    /// What a port makes of a frame on its wire; `None` is a drop.
    fn classify(&self, port: usize, frame: &[u8]) -> Option<Inside> {
        let config = &self.ports[port];
        let is_tagged = frame.len() >= 14 && word(&frame[12..]) == DOT1Q;
        if frame.len() < if is_tagged { 18 } else { 14 } {
            return None;
        }
        let (addresses, rest) = (frame[..12].to_vec(), &frame[12..]);
        let (tci, rest) = if is_tagged { (word(&rest[2..]), rest[4..].to_vec()) } else { (0, rest.to_vec()) };
        let (to, from) = addresses.split_at(6);
        let is_reserved = to[..5] == [1, 0x80, 0xc2, 0, 0] && to[5] < 16;
        let is_bad = from[0] & 1 == 1 || from == [0; 6] || to == [0; 6] || is_reserved;
        if is_bad || payload_len(frame) > config.mtu {
            return None;
        }
        let network = match (&config.trunk, tci & 0xfff) {
            (None, 0) if is_tagged && word(&rest) == DOT1Q => None,
            (_, 0) => config.untagged,
            (Some(trunk), vid) => trunk.get(&vid).copied(),
            (None, _) => None,
        };
        Some(Inside { network: network?, priority: tci & 0xf000, addresses, rest })
    }

    /// What is on the wire when a frame leaves by `port`; `None` when it may not.
    fn leave(&self, from: usize, port: usize, frame: &Inside) -> Option<Vec<u8>> {
        let config = &self.ports[port];
        if from == port || !config.up || config.isolated && self.ports[from].isolated {
            return None;
        }
        let trunk = config.trunk.iter().flatten().find(|(_, network)| **network == frame.network);
        let middle = match trunk {
            _ if config.untagged == Some(frame.network) => vec![],
            Some((vid, _)) => [DOT1Q.to_be_bytes(), (frame.priority | vid).to_be_bytes()].concat(),
            None => return None,
        };
        let is_hop = middle.is_empty() && word(&frame.rest) == DOT1Q;
        let wire =
            [&frame.addresses, &middle, &frame.rest].into_iter().flatten().copied().collect::<Vec<_>>();
        (!is_hop && payload_len(&wire) <= config.mtu).then_some(wire)
    }

    /// Every (port, bytes) that a batch of frames brings about, for each of them.
    fn receive(&mut self, port: usize, batch: &[Vec<u8>]) -> Vec<Vec<(u16, Vec<u8>)>> {
        let frames: Vec<_> = batch.iter().map(|frame| self.classify(port, frame)).collect();
        for frame in frames.iter().flatten().filter(|_| self.ports[port].up) {
            self.stations.insert((frame.network, frame.addresses[6..].to_vec()), port);
        }
        frames.iter().map(|frame| frame.as_ref().map_or(vec![], |frame| self.forward(port, frame))).collect()
    }

    fn forward(&self, from: usize, frame: &Inside) -> Vec<(u16, Vec<u8>)> {
        let is_member = |port: &usize| {
            let config = &self.ports[*port];
            let mut networks = config.trunk.iter().flat_map(|t| t.values()).chain(&config.untagged);
            networks.any(|network| *network == frame.network)
        };
        let known = self.stations.get(&(frame.network, frame.addresses[..6].to_vec())).copied();
        let all = (0..self.ports.len()).collect();
        let to = known.filter(is_member).map_or(all, |port| vec![port]);
        to.into_iter().filter_map(|port| Some((port as u16, self.leave(from, port, frame)?))).collect()
    }
}

/// The same port as control would compile it.
fn compile(config: &Config) -> Port {
    let attachment = match (&config.trunk, config.untagged) {
        (None, None) => Attachment::None,
        (None, Some(network)) => access(network),
        (Some(vids), native) => trunk(&vids.iter().map(|(v, n)| (*v, *n)).collect::<Vec<_>>(), native),
    };
    Port {
        isolated: config.isolated,
        up: config.up,
        max_frame: 14 + config.mtu as u32,
        storm: Storm::default(),
        ..testbed::port(attachment)
    }
}

fn config() -> impl Strategy<Value = Config> {
    let networks = Just((0..NETWORKS).collect::<Vec<_>>()).prop_shuffle();
    // Translation: which VLAN ID stands for which network is each trunk's own choice.
    let trunk = (networks, 0..=VIDS.len())
        .prop_map(|(networks, n)| VIDS.into_iter().zip(networks).take(n).collect::<BTreeMap<_, _>>());
    let trunk = prop_oneof![Just(None), trunk.prop_map(Some)];
    let untagged = prop_oneof![4 => (0..NETWORKS).prop_map(Some), 1 => Just(None)];
    let rare = || prop::bool::weighted(0.2);
    (trunk, untagged, rare(), rare(), 0..=8usize).prop_map(|(trunk, untagged, isolated, down, less)| Config {
        trunk,
        untagged,
        isolated,
        up: !down,
        mtu: MTU - less,
    })
}

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let stations = vec![A, B, Mac([2, 0, 0, 0, 0, 0xc]), Mac([2, 0, 0, 0, 0, 0xd])];
    let special = vec![Mac::BROADCAST, GROUP, Mac::ZERO, Mac([1, 0x80, 0xc2, 0, 0, 3])];
    let mac = move |odd| prop_oneof![9 => select(stations.clone()), odd => select(special.clone())];
    let tpid = prop_oneof![4 => Just(DOT1Q), 1 => Just(DOT1AD)];
    let vid = prop_oneof![8 => select(VIDS.to_vec()), 2 => Just(0), 1 => Just(4095), 1 => Just(40)];
    let tag = (tpid, vid, 0..16u16).prop_map(|(tpid, vid, priority)| (tpid, priority << 12 | vid));
    let payload = vec(any::<u8>(), 0..=MTU + 2);
    let whole = (mac(3), mac(1), vec(tag, 0..=3), payload)
        .prop_map(|(to, from, tags, payload)| eth(to, from, &tags, &payload));
    let cut = (whole.clone(), 0..20usize).prop_map(|(frame, len)| frame[..len.min(frame.len())].to_vec());
    prop_oneof![19 => whole, 1 => cut]
}

#[derive(Clone, Debug)]
enum Event {
    /// Frames by a port, each with its tag in the bytes or beside them.
    Batch(prop::sample::Index, Vec<(Vec<u8>, bool)>),
    /// A port gets another configuration; the FDB stays.
    Configure(prop::sample::Index, Config),
}

fn event() -> impl Strategy<Value = Event> {
    let batch = vec((frame(), any::<bool>()), 1..=6);
    prop_oneof![
        12 => (any::<prop::sample::Index>(), batch).prop_map(|(port, frames)| Event::Batch(port, frames)),
        1 => (any::<prop::sample::Index>(), config()).prop_map(|(port, to)| Event::Configure(port, to)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_pipeline_is_an_8021q_bridge(configs in vec(config(), 1..=6), events in vec(event(), 1..=25)) {
        let mut ports: Vec<Port> = configs.iter().map(compile).collect();
        let mut switch = Switch::new(&ports, usize::from(NETWORKS));
        let mut model = Model { ports: configs, stations: BTreeMap::new() };
        for event in events {
            // Long enough that no move counts as flapping, short enough that nothing ages.
            switch.now = switch.now + Duration::from_secs(5);
            match event {
                Event::Configure(port, to) => {
                    let port = port.index(ports.len());
                    let counters = ports[port].counters.clone();
                    ports[port] = Port { counters, ..compile(&to) };
                    model.ports[port] = to;
                    switch.configure(&ports);
                }
                Event::Batch(port, frames) => {
                    let port = port.index(ports.len());
                    let wire: Vec<Vec<u8>> = frames.iter().map(|f| f.0.clone()).collect();
                    let receive = |(bytes, beside): &(Vec<u8>, bool)| {
                        if *beside { out_of_band(bytes) } else { VecFrame::new(bytes) }
                    };
                    let mut batch: Vec<VecFrame> = frames.iter().map(receive).collect();
                    let outcomes = switch.receive(port as u16, &mut batch);
                    let expected = model.receive(port, &wire);
                    for ((frame, outcome), expected) in wire.iter().zip(outcomes).zip(expected) {
                        prop_assert_eq!(&outcome.out, &expected, "{:02x?} by port {}: {:?}", frame, port, outcome);
                        // Isolation, by another way round: whoever receives it finds it in the network it was sent to.
                        let network = model.classify(port, frame).map(|inside| inside.network);
                        for (to, bytes) in &outcome.out {
                            let found = model.classify(usize::from(*to), bytes).map(|inside| inside.network);
                            prop_assert_eq!(found, network, "{:02x?} leaves network by port {}", frame, to);
                        }
                    }
                }
            }
            switch.assert_conserved();
        }
    }
}
