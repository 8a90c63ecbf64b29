//! Case `veth-l2`: frames of 64 bytes, as many as the switch carries.
//!
//! Frames are made by a thread on the first CPU, in the sender's namespace, by the batched transmit of the
//! `packet` driver: they enter the veth as those of the host's own stack do, with the whole of the kernel's
//! receive path behind them, and faster than any of the switches carries them. What reaches the other end of
//! the receiver's veth counts; there a tcx program drops it, the cheapest end there is for an skb. A userspace
//! switch has its thread on the second CPU; the bridge works in the context of the sender.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vswitch_io::hoststack::HostFilter;
use vswitch_io::{FrameClass, FrameVec, Opened, Pool, PoolConfig, packet};
use vswitch_netns::Namespace;
use vswitch_wire::FrameBuf;
use vswitch_wire::testing::frame;

use super::{Load, compare};
use crate::bed::{Bed, HOST};
use crate::report::Row;
use crate::{Effort, Result, clock, noise};

/// Bytes of a frame without its FCS, with which it has 64.
const FRAME_LEN: usize = 60;
/// Bytes of the headers in it.
const HEADERS_LEN: usize = 14 + 20 + 8;
/// Frames of one transmit call.
const BATCH: usize = 64;
/// Time for queues to fill before counting begins.
const WARM_UP: Duration = Duration::from_millis(300);

/// Packets per second of every subject.
pub(crate) fn frames(effort: Effort) -> Result<Vec<Row>> {
    compare::<Flood>(effort)
}

/// Both ends.
struct Flood {
    generator: Generator,
    /// Drops what arrives, as long as it lives.
    _sink: HostFilter,
}

/// Where frames come from.
struct Generator {
    frame: Vec<u8>,
    pool: &'static Pool,
}

impl Load for Flood {
    const NAMES: [&'static str; 3] = ["veth-l2", "64B", "Mpps"];

    fn prepare(bed: &Bed) -> Result<Self> {
        let sink = keep_host_off(&bed.receiver)?;
        let (from, to) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let datagram = frame(bed.receiver_mac, bed.sender_mac).ip(from, to).udp(1024, 9);
        let frame = datagram.payload(&[0; FRAME_LEN - HEADERS_LEN]).bytes();
        let pool = Pool::new(PoolConfig { wire: 4 * BATCH as u32, large: 0 })?;
        Ok(Self { generator: Generator { frame, pool }, _sink: sink })
    }

    fn measure(&mut self, bed: &Bed, effort: Effort) -> Result<f64> {
        // Switches forget.
        bed.announce_receiver()?;
        let stop = AtomicBool::new(false);
        let deadline = clock::now() + WARM_UP + 2 * effort.sample_time();
        thread::scope(|scope| {
            let sending = scope.spawn(|| self.generator.send(&bed.sender, &stop, deadline));
            let counted = count(&bed.receiver, effort.sample_time());
            stop.store(true, Ordering::Relaxed);
            sending.join().map_err(|_| "the sender has failed")??;
            counted
        })
    }
}

impl Generator {
    /// Sends until told to stop, and for no longer than until `deadline`.
    fn send(&self, sender: &Namespace, stop: &AtomicBool, deadline: Instant) -> Result<(), String> {
        let send = || -> Result<()> {
            noise::pin(noise::CPUS[0])?;
            let _filter = keep_host_off(sender)?;
            // The sockets that would receive are closed at once.
            let Opened { mut tx, .. } = packet::open(HOST, 1, None)?;
            let way_out = tx.first_mut().ok_or("the driver gave no way out")?;
            let mut cache = self.pool.cache();
            let mut batch = FrameVec::new(BATCH);
            while !stop.load(Ordering::Relaxed) && clock::now() < deadline {
                while batch.room() > 0 {
                    let mut frame =
                        cache.acquire(FrameClass::Wire).ok_or("the pool of the sender is empty")?;
                    frame.set_len(FRAME_LEN);
                    frame.bytes_mut().copy_from_slice(&self.frame);
                    let _ = batch.push(frame); // there is room
                }
                way_out.tx(&mut cache, &mut batch);
            }
            Ok(())
        };
        // Errors of this thread are passed on as text: those of others cannot be sent.
        sender.enter(|| send().map_err(|error| error.to_string())).map_err(|error| error.to_string())?
    }
}

/// Drops what comes out of the host's link, as long as the result lives.
fn keep_host_off(host: &Namespace) -> Result<HostFilter> {
    let link = host.link(HOST)?.ok_or("the host's link is gone")?;
    Ok(host.enter(|| HostFilter::attach(link.index, None))??)
}

/// Millions of frames per second that arrive, over `time` after the warm-up.
fn count(receiver: &Namespace, time: Duration) -> Result<f64> {
    let arrived = || -> Result<(u64, Instant)> {
        let link = receiver.link(HOST)?.ok_or("the receiver's link is gone")?;
        Ok((link.counters.rx_packets, clock::now()))
    };
    clock::pass(WARM_UP);
    let (before, begin) = arrived()?;
    clock::pass(time);
    let (after, end) = arrived()?;
    let micros = end.duration_since(begin).as_secs_f64() * 1e6;
    Ok((after - before) as f64 / micros)
}
