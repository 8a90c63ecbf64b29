//! A pipeline with two ports, stations behind both, and a batch of frames between them.

use std::sync::Arc;
use std::time::Duration;

use vswitch_dataplane::fdb::Learn;
use vswitch_dataplane::tunnel::encapsulate;
use vswitch_dataplane::{
    Acls, Attachment, Batch, Egress, Fdb, NetId, Network, Pipeline, Port, PortId, Snapshot, Storm, Verdict,
    egress,
};
use vswitch_io::{Frame, FrameClass, Pool, PoolConfig};
use vswitch_wire::testing::frame;
use vswitch_wire::{Caps, FrameBuf, Instant, Mac};

use super::Variant;
use super::filter::{Filter, Random};
use super::tunnel::{self, OVERHEAD, UNDERLAY, UPLINK, Way};
use crate::Result;

const NETWORK: NetId = NetId(0);
const INGRESS: PortId = PortId(0);
const EGRESS: PortId = PortId(1);
/// Bytes of a frame without its FCS, with which it has 64.
const FRAME_LEN: usize = 60;

/// Everything that the loop touches.
pub(super) struct Rig {
    pipeline: Pipeline,
    snapshot: Snapshot,
    now: Instant,
    frames: Vec<Frame>,
    verdicts: Vec<Verdict>,
    /// Behind each port.
    stations: u32,
    random: Random,
    filter: Option<Filter>,
    tunnel: Option<Way>,
    handled: u64,
    /// Frames that did not go into the tunnel.
    refused: u64,
}

impl Rig {
    /// A rig for batches of `batch` frames, with `macs` stations in the FDB: half of them behind each port, one at
    /// least. With `rules`, a list of so many judges what comes in. With a tunnel, one of the ports is another VTEP.
    pub(super) fn new(Variant { batch, macs, rules, tunnel }: Variant) -> Result<Self> {
        let stations = (macs / 2).max(1);
        let fdb = Arc::new(Fdb::new(2 * stations as usize));
        let network = || Network::new(u32::MAX, Duration::from_secs(300), Arc::from([Default::default()]));
        let mut red = network();
        red.vni = Some(tunnel::vni()?);
        let networks = vec![Some(red), Some(network())];
        let filter = rules.map(Filter::new);
        let list = filter.as_ref().map(Filter::compile).transpose()?.map(Arc::new);
        let ingress = Port { acl: Acls { ingress: list, ..Acls::default() }, ..port() };
        let uplink = Port { attachment: Attachment::Access(UNDERLAY), ..port() };
        let (ports, peer) = match tunnel {
            None => (vec![Some(ingress), Some(port())], None),
            Some(Way::Encap) => {
                (vec![Some(ingress), Some(tunnel::peer(NETWORK)), Some(uplink)], Some(EGRESS))
            }
            Some(Way::Decap) => {
                (vec![Some(tunnel::peer(NETWORK)), Some(port()), Some(uplink)], Some(INGRESS))
            }
        };
        let mut snapshot = Snapshot::new(ports, networks, fdb);
        if let Some(peer) = peer {
            snapshot = tunnel::with_underlay(snapshot, peer, NETWORK)?;
        }
        let now = Instant::from_secs(1000);
        for port in [INGRESS, EGRESS] {
            for number in 0..stations {
                let learnt = snapshot.fdb().learn(&snapshot, NETWORK, station(port, number), port, now);
                if learnt != Learn::Added {
                    return Err(format!("the FDB does not take station {number}: {learnt:?}").into());
                }
            }
        }
        let pool = Pool::new(PoolConfig { wire: batch as u32, large: 0 })?;
        let mut cache = pool.cache();
        let ip = frame(Mac::ZERO, Mac::ZERO).ip([0; 4], [0; 4]);
        let mut bytes = ip.tcp(0, 0, 0).payload(&[0; FRAME_LEN - 54]).bytes();
        if tunnel == Some(Way::Decap) {
            bytes = tunnel::packet(&bytes)?;
        }
        let frames = (0..batch).map(|_| {
            let mut frame = cache.acquire(FrameClass::Wire)?;
            frame.set_len(bytes.len());
            frame.bytes_mut().copy_from_slice(&bytes);
            Some(frame)
        });
        let frames: Vec<Frame> = frames.collect::<Option<_>>().ok_or("the pool is smaller than a batch")?;
        let verdicts = vec![Verdict::Pending; batch];
        let pipeline = Pipeline::new(0);
        Ok(Self {
            pipeline,
            snapshot,
            now,
            frames,
            verdicts,
            stations,
            random: Random(1),
            filter,
            tunnel,
            handled: 0,
            refused: 0,
        })
    }

    /// Gives every frame a random source behind the ingress port, and a random destination behind the other.
    pub(super) fn address(&mut self) {
        for frame in &mut self.frames {
            let (high, low) = (self.random.draw(), self.random.draw());
            let pick = |random: u32| ((u64::from(random) * u64::from(self.stations)) >> 32) as u32;
            let inner = if self.tunnel == Some(Way::Decap) { OVERHEAD } else { 0 };
            let bytes = &mut frame.bytes_mut()[inner..];
            bytes[..6].copy_from_slice(&station(EGRESS, pick(high)).0);
            bytes[6..12].copy_from_slice(&station(INGRESS, pick(low)).0);
            if let Some(filter) = &self.filter {
                filter.address(&mut self.random, &mut bytes[14..]);
            }
        }
    }

    /// One batch through the pipeline, as a worker runs it; with a tunnel, into it or out of it. The frames are as they
    /// were before, then.
    pub(super) fn process(&mut self) {
        match self.tunnel {
            None => self.decide(INGRESS, None),
            Some(Way::Encap) => {
                self.decide(INGRESS, None);
                self.encapsulate();
            }
            Some(Way::Decap) => {
                self.decide(UPLINK, None);
                self.decide(INGRESS, Some(NETWORK));
                for frame in &mut self.frames {
                    let _ = frame.grow_front(OVERHEAD); // where they were
                }
            }
        }
        self.handled += self.frames.len() as u64;
    }

    fn decide(&mut self, ingress: PortId, network: Option<NetId>) {
        self.verdicts.fill(Verdict::Pending);
        let mut batch = Batch { ingress, network, frames: &mut self.frames, verdicts: &mut self.verdicts };
        self.pipeline.process(&self.snapshot, self.now, &mut batch);
    }

    fn encapsulate(&mut self) {
        for frame in &mut self.frames {
            let ready = egress::prepare(&self.snapshot, NETWORK, INGRESS, EGRESS, frame, Some(0));
            let sent = encapsulate(&self.snapshot, NETWORK, EGRESS, frame, Some(0));
            if ready != Ok(Egress::Encapsulate) || sent != Ok(Some(UPLINK)) {
                self.refused += 1;
            }
            frame.shrink_front(OVERHEAD);
        }
    }

    /// Whether every frame so far was forwarded to the other port, and to no more.
    pub(super) fn expect_unicast(&self) -> Result<()> {
        let verdict = Verdict::Unicast { network: NETWORK, port: EGRESS };
        let counters = &self.snapshot.port(INGRESS).ok_or("the port is gone")?.counters[0];
        let (received, flooded) = (counters.rx_packets.get(), counters.flooded.get());
        if self.verdicts.iter().all(|v| *v == verdict)
            && received == self.handled
            && flooded + self.refused == 0
        {
            return Ok(());
        }
        Err(format!("not known unicast: {received} of {} received, {flooded} flooded", self.handled).into())
    }
}

/// The station of this number behind a port.
fn station(port: PortId, number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    Mac([2, port.0 as u8, a, b, c, d])
}

fn port() -> Port {
    Port {
        attachment: Attachment::Access(NETWORK),
        isolated: false,
        up: true,
        max_frame: 1514,
        caps: Caps::ALL,
        shortcut_ifindex: None,
        security: None,
        trusted: false,
        max_macs: u32::MAX,
        acl: Default::default(),
        storm: Storm::default(),
        counters: Arc::from([Default::default()]),
    }
}
