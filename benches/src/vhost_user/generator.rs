//! Two guests that pass frames to and fro: one testpmd with both front ends, on the first CPU.
//!
//! The loop is closed. So many frames are on their way all the time, no more and no less: whoever gets one sends it back, from its
//! own address to the other's (mode `mac`), so that a switch learns both addresses and each stays where it is. What
//! the generator could make beside that does not matter, nor does it spend time on frames that the ring has no room for. (Mode
//! `flowgen`, with its flows, sends from one and the same address by both ports: a switch that learns sees it move without end.)
//!
//! The frames come from testpmd's own first burst. It can vary the source address of IPv4 256 times on each of its
//! threads: so four threads make 256 frames each, and one of them passes all on.

use std::path::Path;

use vswitch_netns::Namespace;

use crate::dpdk::{Memory, RING, Testpmd};
use crate::subject::SOCKETS;
use crate::{Result, noise};

const MACS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];
/// Bytes of a frame without its FCS, with which it has 64.
const FRAME_LEN: u32 = 60;
/// Threads that make frames.
const MAKERS: u32 = 4;
/// Bursts of 32 frames of each thread from each port: 1024 frames in all, which one ring has room for.
const BURSTS: u32 = 4;

/// What the guests send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) packed: bool,
    /// Every frame from another IPv4 address; all the same otherwise.
    pub(super) many_flows: bool,
}

/// The guests, at rest.
pub(super) struct Generator {
    program: Testpmd,
}

impl Generator {
    /// Connects to the switch whose sockets are in `switch`; `folder` is its own.
    pub(super) fn start(
        namespace: &Namespace,
        switch: &Path,
        folder: &Path,
        memory: Memory,
        traffic: Traffic,
    ) -> Result<Self> {
        let cpu = noise::CPUS[0];
        let lcores: Vec<String> = (0..=MAKERS).map(|lcore| format!("{lcore}@{cpu}")).collect();
        let devices = [0, 1].map(|n| {
            let (mac, path) = (MACS[n], switch.join(SOCKETS[n]));
            let packed = u8::from(traffic.packed);
            format!(
                "net_virtio_user{n},path={},mac={mac},queues=1,queue_size={RING},packed_vq={packed}",
                path.display()
            )
        });
        let peers = [0, 1].map(|n| format!("--eth-peer={n},{}", MACS[1 - n]));
        let len = format!("--txpkts={FRAME_LEN}");
        let mut args = vec!["--forward-mode=mac", &peers[0], &peers[1], &len];
        args.extend(traffic.many_flows.then_some("--txonly-multi-flow"));
        let program = Testpmd::start(namespace, folder, memory, &lcores.join(","), &devices, &args)?;
        Ok(Self { program })
    }

    /// Sends the frames on their way. Those of the last time are gone.
    pub(super) fn go(&mut self) -> Result<()> {
        let tell = |program: &mut Testpmd, commands: &[&str]| {
            commands.iter().try_for_each(|command| program.tell(command).map(drop))
        };
        tell(&mut self.program, &["set flush_rx on", "start", "stop", "set flush_rx off"])?;
        for maker in 1..=MAKERS {
            let [cores, burst] = [format!("set corelist {maker}"), format!("start tx_first {BURSTS}")];
            tell(&mut self.program, &[&cores, &burst, "stop"])?;
        }
        tell(&mut self.program, &["set corelist 1", "start"])
    }

    /// Frames that came to the guests until now.
    pub(super) fn received(&mut self) -> Result<u64> {
        self.program.received()
    }

    /// No guest sends any more.
    pub(super) fn stop(&mut self) -> Result<()> {
        self.program.tell("stop").map(drop)
    }
}
