//! A pipeline with two ports, stations behind both, and a batch of frames between them.

use std::sync::Arc;
use std::time::Duration;

use vswitch_dataplane::fdb::Learn;
use vswitch_dataplane::{
    Acls, Attachment, Batch, Fdb, NetId, Network, Pipeline, Port, PortId, Snapshot, Storm, Verdict,
};
use vswitch_io::{Frame, FrameClass, Pool, PoolConfig};
use vswitch_wire::testing::frame;
use vswitch_wire::{Caps, FrameBuf, Instant, Mac};

use super::filter::{Filter, Random};
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
    handled: u64,
}

impl Rig {
    /// A rig for batches of `batch` frames, with `macs` stations in the FDB: half of them behind each port, one at
    /// least. With `rules`, a list of so many judges what comes in.
    pub(super) fn new(batch: usize, macs: u32, rules: Option<usize>) -> Result<Self> {
        let stations = (macs / 2).max(1);
        let fdb = Arc::new(Fdb::new(2 * stations as usize));
        let network = Network::new(u32::MAX, Duration::from_secs(300), Arc::from([Default::default()]));
        let filter = rules.map(Filter::new);
        let list = filter.as_ref().map(Filter::compile).transpose()?.map(Arc::new);
        let ingress = Port { acl: Acls { ingress: list, ..Acls::default() }, ..port() };
        let ports = [ingress, port()].map(Some).into();
        let snapshot = Snapshot::new(ports, vec![Some(network)], fdb);
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
        let bytes = ip.tcp(0, 0, 0).payload(&[0; FRAME_LEN - 54]).bytes();
        let frames = (0..batch).map(|_| {
            let mut frame = cache.acquire(FrameClass::Wire)?;
            frame.set_len(FRAME_LEN);
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
            handled: 0,
        })
    }

    /// Gives every frame a random source behind the ingress port, and a random destination behind the other.
    pub(super) fn address(&mut self) {
        for frame in &mut self.frames {
            let (high, low) = (self.random.draw(), self.random.draw());
            let pick = |random: u32| ((u64::from(random) * u64::from(self.stations)) >> 32) as u32;
            let bytes = frame.bytes_mut();
            bytes[..6].copy_from_slice(&station(EGRESS, pick(high)).0);
            bytes[6..12].copy_from_slice(&station(INGRESS, pick(low)).0);
            if let Some(filter) = &self.filter {
                filter.address(&mut self.random, &mut bytes[14..]);
            }
        }
    }

    /// One batch through the pipeline, as a worker runs it.
    pub(super) fn process(&mut self) {
        self.verdicts.fill(Verdict::Pending);
        let mut batch =
            Batch { ingress: INGRESS, network: None, frames: &mut self.frames, verdicts: &mut self.verdicts };
        self.pipeline.process(&self.snapshot, self.now, &mut batch);
        self.handled += self.frames.len() as u64;
    }

    /// Whether every frame so far was forwarded to the other port, and to no more.
    pub(super) fn expect_unicast(&self) -> Result<()> {
        let verdict = Verdict::Unicast { network: NETWORK, port: EGRESS };
        let counters = &self.snapshot.port(INGRESS).ok_or("the port is gone")?.counters[0];
        let (received, flooded) = (counters.rx_packets.get(), counters.flooded.get());
        if self.verdicts.iter().all(|v| *v == verdict) && received == self.handled && flooded == 0 {
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
