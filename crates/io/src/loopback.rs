//! Two ports joined by a cable in memory, for tests.
//!
//! What one port's transmit queue `n` sends, the other's receive queue `n` gets, bytes and metadata. As a device
//! does, it hands out frames of the receiver's own, so that each has its headroom.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vswitch_wire::{Caps, FrameBuf};

use crate::lane::Lane;
use crate::port::{Facts, Kind, Opened, PortError, RxQueue, TxQueue, TxReport};
use crate::{FrameVec, PoolCache};

/// Frames that fit into one direction of a cable.
const LIMIT: usize = 1024;
/// No netdev has a larger one.
const MTU_LIMIT: u32 = 65535;

/// Two ports with a queue in each direction for each of `workers` workers, that take the unfinished work of `caps`.
///
/// # Errors
/// No more fds.
pub fn pair(workers: usize, caps: Caps) -> io::Result<(Opened, Opened)> {
    let lanes = || (0..workers).map(|_| Lane::new(LIMIT).map(Arc::new)).collect::<io::Result<Vec<_>>>();
    let (there, back) = (lanes()?, lanes()?);
    Ok((port(&there, &back, caps), port(&back, &there, caps)))
}

fn port(out: &[Arc<Lane>], into: &[Arc<Lane>], caps: Caps) -> Opened {
    Opened {
        rx: into.iter().map(|lane| Box::new(Rx(Arc::clone(lane))) as Box<dyn RxQueue>).collect(),
        tx: out.iter().map(|lane| Box::new(Tx(Arc::clone(lane))) as Box<dyn TxQueue>).collect(),
        facts: Facts {
            kind: Kind::Loopback,
            mode: "in memory".to_owned(),
            rx_queues: into.len() as u32,
            caps,
            rx_caps: Caps::ALL,
            mtu_limit: MTU_LIMIT,
            mtu: 1500,
            vlan: Ok(()),
            shortcut_ifindex: None,
            why: "a test asked for it".to_owned(),
        },
        guard: Box::new(()),
    }
}

struct Rx(Arc<Lane>);

impl RxQueue for Rx {
    fn rx(&mut self, pool: &mut PoolCache, out: &mut FrameVec) -> Result<usize, PortError> {
        self.0.disarm();
        let mut frames = self.0.frames();
        let mut count = 0;
        while out.room() > 0 {
            let Some(copy) = frames.front().and_then(|frame| pool.copy(frame)) else { break };
            count += usize::from(out.push(copy).is_ok());
            frames.pop_front().into_iter().for_each(|frame| pool.release(frame));
        }
        Ok(count)
    }

    fn arm(&mut self) {
        self.0.arm();
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.fd())
    }

    fn missed(&mut self) -> u64 {
        0
    }
}

struct Tx(Arc<Lane>);

impl TxQueue for Tx {
    fn tx(&mut self, pool: &mut PoolCache, frames: &mut FrameVec) -> TxReport {
        let mut report = TxReport::default();
        let mut lane = self.0.frames();
        for frame in frames.drain() {
            if lane.len() < LIMIT {
                report.sent += 1;
                report.sent_bytes += frame.bytes().len() as u64;
                lane.push_back(frame);
            } else {
                report.full += 1;
                pool.release(frame);
            }
        }
        drop(lane);
        report.stalls = u32::from(report.full > 0);
        if report.sent > 0 {
            self.0.wake();
        }
        report
    }

    fn reclaim(&mut self, _pool: &mut PoolCache) {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::fd::AsRawFd;

    use vswitch_wire::{FrameMeta, Tag};

    use super::*;
    use crate::pool::HEADROOM;
    use crate::{FrameClass, Pool, PoolConfig};

    fn is_readable(queue: &dyn RxQueue) -> bool {
        let mut fd = libc::pollfd { fd: queue.fd().unwrap().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry.
        unsafe { libc::poll(&raw mut fd, 1, 0) == 1 }
    }

    #[test]
    fn frames_cross_with_metadata_wake_the_sleeper_and_are_counted() {
        let pool = Pool::new(PoolConfig { wire: 2048, large: 0 }).unwrap();
        let mut cache = pool.cache();
        let (mut a, mut b) = pair(1, Caps::ALL).unwrap();
        let mut frames = FrameVec::new(LIMIT + 1);
        b.rx[0].arm();
        assert_eq!(b.rx[0].rx(&mut cache, &mut frames).unwrap(), 0);
        b.rx[0].arm();
        assert!(!is_readable(&*b.rx[0]));
        for len in 0..=LIMIT {
            let mut frame = cache.acquire(FrameClass::Wire).unwrap();
            frame.set_len(len);
            frame.grow_front(HEADROOM).unwrap();
            *frame.meta_mut() = FrameMeta { tag: Some(Tag::dot1q(7)), ..FrameMeta::default() };
            frames.push(frame).unwrap();
        }
        let report = a.tx[0].tx(&mut cache, &mut frames);
        assert_eq!((report.sent, report.full, report.stalls, frames.len()), (LIMIT as u32, 1, 1, 0));
        assert!(is_readable(&*b.rx[0]));
        assert_eq!(b.rx[0].rx(&mut cache, &mut frames).unwrap(), LIMIT);
        assert!(!is_readable(&*b.rx[0]));
        for (len, frame) in frames.as_mut_slice().iter_mut().enumerate() {
            assert_eq!((frame.bytes().len(), frame.meta().tag), (len + HEADROOM, Some(Tag::dot1q(7))));
            assert_eq!(frame.grow_front(HEADROOM), Ok(()));
        }
        drop((a, b, frames, cache));
        assert_eq!(pool.free(FrameClass::Wire), 2048);
    }
}
