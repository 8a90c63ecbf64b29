//! What the tests of the switch share: frames in memory, a few words to write topologies, and a worker's loop
//! around the pipeline without drivers.
#![allow(dead_code, unreachable_pub)] // part of each test, and each uses some of it
#![allow(clippy::unwrap_used, clippy::panic)] // these are tests, although not functions marked so

pub mod claim;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use etherparse::{EtherType, Ethernet2Header, SingleVlanHeader, VlanId, VlanPcp};
use vswitch_dataplane::acl::{Acl, Action, Rule};
use vswitch_dataplane::{
    Attachment, Batch, Egress, Fdb, NetId, Network, Pipeline, Port, PortId, Reason, Snapshot, Storm, Trunk,
    TrunkEntry, Verdict, egress, tunnel,
};
use vswitch_wire::testing::{FrameBuilder, VecFrame, frame};
use vswitch_wire::{Caps, FrameBuf, Instant, Mac, Segmenter, Vid, vlan};

pub const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
pub const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);
pub const GROUP: Mac = Mac([1, 0, 0x5e, 0, 0, 1]);
pub const DOT1Q: u16 = vlan::TPID_8021Q;
pub const DOT1AD: u16 = vlan::TPID_8021AD;

/// A frame as a driver hands it over whose device took the outermost tag out of the bytes.
pub fn out_of_band(bytes: &[u8]) -> VecFrame {
    let Some(tag) = vlan::peek(bytes).filter(|_| bytes.len() >= 18) else { return VecFrame::new(bytes) };
    VecFrame::new(&[&bytes[..12], &bytes[16..]].concat()).with_tag(tag)
}

/// TCP over IPv4 from A to B.
pub fn tcp(payload: usize) -> FrameBuilder {
    frame(B, A)
        .ip(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2))
        .tcp(1, 2, 0)
        .payload(&vec![7; payload])
}

/// A frame of IPv4's EtherType behind `tags` (TPID and TCI, outermost first), written by etherparse.
pub fn eth(destination: Mac, source: Mac, tags: &[(u16, u16)], payload: &[u8]) -> Vec<u8> {
    let types: Vec<u16> = tags.iter().map(|t| t.0).chain([EtherType::IPV4.0]).collect();
    let header =
        Ethernet2Header { source: source.0, destination: destination.0, ether_type: EtherType(types[0]) };
    let mut frame = header.to_bytes().to_vec();
    for (&(_, tci), &inner) in tags.iter().zip(&types[1..]) {
        let tag = SingleVlanHeader {
            pcp: VlanPcp::try_new((tci >> 13) as u8).unwrap(),
            drop_eligible_indicator: tci & 0x1000 != 0,
            vlan_id: VlanId::try_new(tci & 0x0fff).unwrap(),
            ether_type: EtherType(inner),
        };
        frame.extend_from_slice(&tag.to_bytes());
    }
    frame.extend_from_slice(payload);
    frame
}

pub fn access(network: u16) -> Attachment {
    Attachment::Access(NetId(network))
}

/// A trunk of (VLAN ID, network) entries.
pub fn trunk(entries: &[(u16, u16)], native: Option<u16>) -> Attachment {
    let entry = |&(vid, n): &(u16, u16)| TrunkEntry { vid: Vid::new(vid).unwrap(), network: NetId(n) };
    Attachment::Trunk(Arc::new(Trunk::new(&entries.iter().map(entry).collect::<Vec<_>>(), native.map(NetId))))
}

/// A port that is up, for an MTU of 1500, and takes finished frames only.
pub fn port(attachment: Attachment) -> Port {
    Port {
        attachment,
        isolated: false,
        up: true,
        max_frame: 1514,
        caps: Caps::NONE,
        shortcut_ifindex: None,
        security: None,
        trusted: false,
        max_macs: 1000,
        acl: Default::default(),
        storm: Storm::default(),
        counters: Arc::from(vec![Default::default()]),
    }
}

/// A list, compiled for one worker.
pub fn acl(rules: &[Rule], default: Action) -> Option<Arc<Acl>> {
    Some(Arc::new(Acl::new("list", rules, default, 1).unwrap()))
}

pub fn network() -> Network {
    Network::new(1000, Duration::from_secs(300), Arc::from(vec![Default::default()]))
}

pub fn snapshot(ports: &[Port], networks: &[Network], fdb: Arc<Fdb>) -> Snapshot {
    Snapshot::new(
        ports.iter().cloned().map(Some).collect(),
        networks.iter().cloned().map(Some).collect(),
        fdb,
    )
}

/// What became of one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// What left where, in the order of the ports; GSO frames uncut.
    pub out: Vec<(u16, Vec<u8>)>,
    /// What should have left, and why it did not.
    pub lost: Vec<(u16, Reason)>,
}

/// One switch with one worker.
pub struct Switch {
    pub fdb: Arc<Fdb>,
    pub networks: Vec<Network>,
    pub snapshot: Snapshot,
    pub pipeline: Pipeline,
    pub now: Instant,
}

impl Switch {
    pub fn new(ports: &[Port], networks: usize) -> Self {
        let fdb = Arc::new(Fdb::new(1024));
        let networks: Vec<Network> = (0..networks).map(|_| network()).collect();
        let snapshot = snapshot(ports, &networks, fdb.clone());
        Self { fdb, networks, snapshot, pipeline: Pipeline::new(0), now: Instant::from_secs(1000) }
    }

    /// Publishes another snapshot, as a change of the configuration does.
    pub fn configure(&mut self, ports: &[Port]) {
        self.snapshot = snapshot(ports, &self.networks, self.fdb.clone());
    }

    /// One batch through the pipeline and out; what was in a tunnel goes through it once more.
    pub fn receive(&mut self, ingress: u16, frames: &mut [VecFrame]) -> Vec<Outcome> {
        let verdicts = self.process(PortId(ingress), None, frames);
        let finish = |(frame, verdict): (&mut VecFrame, Verdict)| match verdict {
            Verdict::Decapsulated { network, peer } => {
                let inner = self.process(peer, Some(network), std::slice::from_mut(frame));
                self.dispatch(peer, frame, inner[0])
            }
            other => self.dispatch(PortId(ingress), frame, other),
        };
        frames.iter_mut().zip(verdicts).map(finish).collect()
    }

    fn process(&mut self, ingress: PortId, network: Option<NetId>, frames: &mut [VecFrame]) -> Vec<Verdict> {
        let mut verdicts = vec![Verdict::Pending; frames.len()];
        self.pipeline.process(
            &self.snapshot,
            self.now,
            &mut Batch { ingress, network, frames, verdicts: &mut verdicts },
        );
        verdicts
    }

    /// Carries out one verdict, and counts as a worker does.
    fn dispatch(&self, ingress: PortId, frame: &VecFrame, verdict: Verdict) -> Outcome {
        let (network, to): (_, Vec<PortId>) = match verdict {
            Verdict::Pending | Verdict::Decapsulated { .. } => panic!("a frame was left undecided"),
            Verdict::Drop(_) => (NetId(0), Vec::new()),
            Verdict::Unicast { network, port } => (network, vec![port]),
            Verdict::Flood { network } => (network, self.snapshot.flood(network, ingress).collect()),
        };
        let mut outcome = Outcome { verdict, out: Vec::new(), lost: Vec::new() };
        for (n, &id) in to.iter().enumerate() {
            let counters = &self.snapshot.port(id).unwrap().counters[0];
            if n > 0 {
                counters.replicated.add(1);
            }
            let mut copy = frame.clone();
            let left = match egress::prepare(&self.snapshot, network, ingress, id, &mut copy, Some(0)) {
                Ok(Egress::Segment) if tunnel::of(&self.snapshot, id).is_some() => segments(&copy),
                Ok(_) => Ok(vec![copy]),
                Err(reason) => Err(reason),
            };
            let left = left.unwrap_or_else(|reason| {
                counters.drop(reason, 1);
                outcome.lost.push((id.0, reason));
                Vec::new()
            });
            counters.replicated.add(left.len().saturating_sub(1) as u64);
            for frame in left {
                self.send(&mut outcome, network, id, frame);
            }
        }
        outcome
    }

    /// The last step of a frame that leaves by `port`, by the underlay where that is a tunnel.
    fn send(&self, outcome: &mut Outcome, network: NetId, port: PortId, mut frame: VecFrame) {
        let sent = match tunnel::of(&self.snapshot, port) {
            Some(_) => tunnel::encapsulate(&self.snapshot, network, port, &mut frame, Some(0))
                .and_then(|underlay| underlay.ok_or(Reason::NoNeighbour)),
            None => Ok(port),
        };
        match sent {
            Ok(by) => {
                self.snapshot.port(by).unwrap().counters[0].tx_packets.add(1);
                outcome.out.push((by.0, frame.bytes().to_vec()));
            }
            Err(reason) => {
                self.snapshot.port(port).unwrap().counters[0].drop(reason, 1);
                outcome.lost.push((port.0, reason));
            }
        }
    }

    /// Bytes counted as received by a port.
    pub fn rx_bytes(&self, port: u16) -> u64 {
        self.snapshot.port(PortId(port)).unwrap().counters[0].rx_bytes.get()
    }

    /// `received + replicated = transmitted + dropped`, over all ports.
    pub fn assert_conserved(&self) {
        let (mut had, mut went) = (0, 0);
        for (_, port) in self.snapshot.ports() {
            let c = &port.counters[0];
            had += c.originated.get() + c.replicated.get();
            went += c.consumed.get() + c.drops.iter().map(vswitch_dataplane::Counter::get).sum::<u64>();
            // What comes and goes by a tunnel does so by the underlay's port.
            if !matches!(port.attachment, Attachment::Tunnel(_)) {
                had += c.rx_packets.get();
                went += c.tx_packets.get();
            }
        }
        assert_eq!(had, went, "frames had and frames accounted for");
    }
}

/// The segments of a GSO frame, all work done.
fn segments(whole: &VecFrame) -> Result<Vec<VecFrame>, Reason> {
    let cut = Segmenter::new(whole.bytes(), &whole.meta().offload);
    let mut cut = cut.map_err(|_| Reason::BadSegmentation)?;
    let mut buffer = vec![0; cut.longest()];
    let mut segments = Vec::new();
    while let Some((len, _)) = cut.next_into(&mut buffer, true) {
        segments.push(VecFrame::new(&buffer[..len]));
    }
    Ok(segments)
}

/// A tag's PCP and VLAN ID as a TCI.
pub fn tci(pcp: u16, vid: u16) -> u16 {
    pcp << 13 | vid
}
