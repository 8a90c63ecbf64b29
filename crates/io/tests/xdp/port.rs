//! An open port with what a worker has.

use std::os::fd::AsRawFd;

use vswitch_io::xdp::{self, Options};
use vswitch_io::{FrameVec, Opened, Pool, PoolCache, PortError, TxReport};
use vswitch_wire::{FrameBuf, vlan};

use crate::ETHERTYPE;
use crate::net::wait_until;

/// An open port with one worker's things.
pub struct Port {
    /// Of the worker.
    pub cache: PoolCache,
    /// What came in last.
    pub batch: FrameVec,
    pub opened: Opened,
}

impl Port {
    pub fn open(netdev: &str, pool: &'static Pool) -> Self {
        let opened = xdp::open(netdev, 1, pool, Options::default()).unwrap();
        Self { cache: pool.cache(), batch: FrameVec::new(64), opened }
    }

    /// One look at every queue, after waiting for a frame for at most `ms`.
    pub fn poll(&mut self, ms: i32) -> Result<usize, PortError> {
        for queue in &mut self.opened.rx {
            queue.arm();
        }
        if self.rx()? == 0 {
            let fd = |queue: &dyn vswitch_io::RxQueue| queue.fd().unwrap().as_raw_fd();
            let mut fds: Vec<libc::pollfd> = (self.opened.rx.iter())
                .map(|queue| libc::pollfd { fd: fd(&**queue), events: libc::POLLIN, revents: 0 })
                .collect();
            // SAFETY: the descriptors are as many as is said.
            unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as u64, ms) };
            self.rx()?;
        }
        Ok(self.batch.len())
    }

    pub fn rx(&mut self) -> Result<usize, PortError> {
        let mut got = 0;
        for queue in &mut self.opened.rx {
            got += queue.rx(&mut self.cache, &mut self.batch)?;
        }
        Ok(got)
    }

    /// Drops frames that are none of the tests' own, such as IPv6 router solicitations.
    pub fn keep_ours(&mut self) {
        let all: Vec<_> = self.batch.drain().collect();
        for frame in all {
            if frame.bytes().get(12..14) == Some(&ETHERTYPE) || frame.bytes().get(16..18) == Some(&ETHERTYPE)
            {
                self.batch.push(frame).unwrap();
            }
        }
    }

    /// The next frame of the tests' own: bytes and metadata.
    pub fn receive(&mut self) -> (Vec<u8>, vswitch_wire::FrameMeta) {
        let mut found = None;
        wait_until("a frame", || {
            self.poll(100).unwrap();
            self.keep_ours();
            assert!(self.batch.len() <= 1, "more than one frame");
            found = self.batch.drain().next().map(|f| (f.bytes().to_vec(), *f.meta()));
            found.is_some()
        });
        found.unwrap()
    }

    /// Sends the batch of another port.
    pub fn send(&mut self, batch: &mut FrameVec) -> TxReport {
        self.opened.tx[0].tx(&mut self.cache, batch)
    }

    pub fn send_bytes(&mut self, frames: &[Vec<u8>]) -> TxReport {
        let mut batch = FrameVec::new(frames.len());
        for bytes in frames {
            let mut frame = self.cache.acquire_for(bytes.len()).unwrap();
            frame.set_len(bytes.len());
            frame.bytes_mut().copy_from_slice(bytes);
            batch.push(frame).unwrap();
        }
        self.send(&mut batch)
    }
}

/// Moves what waits at `from` to `to`, tags put into the bytes; returns how many.
pub fn relay(from: &mut Port, to: &mut Port) -> usize {
    from.poll(20).unwrap();
    from.keep_ours();
    for frame in from.batch.as_mut_slice() {
        vlan::push(frame).unwrap();
    }
    let given = from.batch.len();
    let report = to.send(&mut from.batch);
    assert_eq!((report.sent, report.full, report.refused), (given as u32, 0, 0));
    given
}

/// Moves what waits at `from` to `to`, with its checksums finished.
pub fn carry(from: &mut Port, to: &mut Port) {
    from.poll(1).unwrap();
    for frame in from.batch.as_mut_slice() {
        if let Some(csum) = frame.meta_mut().offload.csum.take() {
            vswitch_wire::complete(frame.bytes_mut(), csum).unwrap();
        }
    }
    to.send(&mut from.batch);
}
