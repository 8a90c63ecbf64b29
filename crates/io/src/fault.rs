//! Faults of a network on any queue, for tests: the same seed gives the same faults.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use vswitch_wire::FrameBuf;

use crate::port::{Opened, PortError, RxQueue, TxQueue, TxReport};
use crate::{Frame, FrameVec, PoolCache};

/// How often a frame meets with what, in 1/65536.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A received frame vanishes.
    pub drop: u16,
    /// A received frame comes twice.
    pub duplicate: u16,
    /// A received frame comes after the next one.
    pub reorder: u16,
    /// One bit of a received frame is flipped.
    pub corrupt: u16,
    /// The end of a received frame is cut off.
    pub truncate: u16,
    /// The device refuses a frame to be sent.
    pub refuse: u16,
}

/// The same port with faults on each of its queues.
#[must_use]
pub fn inject(port: Opened, faults: Faults, seed: u64) -> Opened {
    let mut random = Random(seed);
    let rx = port.rx.into_iter().map(|inner| {
        let (scratch, random) = (FrameVec::new(BATCH), Random(random.next()));
        let queue = FaultyRx { inner, faults, random, scratch, ready: VecDeque::new(), held: None };
        Box::new(queue) as Box<dyn RxQueue>
    });
    let rx = rx.collect();
    let tx = port.tx.into_iter().map(|inner| {
        let random = Random(random.next());
        Box::new(FaultyTx { inner, faults, random, kept: FrameVec::new(BATCH) }) as Box<dyn TxQueue>
    });
    Opened { rx, tx: tx.collect(), ..port }
}

/// Frames that are taken from, or given to, the queue within at a time.
const BATCH: usize = 64;

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// True `often` times of 65536.
    fn happens(&mut self, often: u16) -> bool {
        (self.next() as u16) < often
    }

    /// Below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

struct FaultyRx {
    inner: Box<dyn RxQueue>,
    faults: Faults,
    random: Random,
    scratch: FrameVec,
    /// What came through and found no room yet.
    ready: VecDeque<Frame>,
    /// A frame that is overtaken by the next one.
    held: Option<Frame>,
}

impl FaultyRx {
    fn pass(&mut self, mut frame: Frame, pool: &mut PoolCache) {
        if self.random.happens(self.faults.drop) {
            return pool.release(frame);
        }
        let len = frame.bytes().len();
        if len > 0 && self.random.happens(self.faults.corrupt) {
            let (at, bit) = (self.random.below(len), self.random.below(8));
            frame.bytes_mut()[at] ^= 1 << bit;
        }
        if len > 0 && self.random.happens(self.faults.truncate) {
            frame.set_len(self.random.below(len));
        }
        if self.random.happens(self.faults.duplicate) {
            self.ready.extend(pool.copy(&frame));
        }
        if self.held.is_none() && self.random.happens(self.faults.reorder) {
            self.held = Some(frame);
        } else {
            self.ready.push_back(frame);
            self.ready.extend(self.held.take());
        }
    }
}

impl RxQueue for FaultyRx {
    fn rx(&mut self, pool: &mut PoolCache, out: &mut FrameVec) -> Result<usize, PortError> {
        if self.ready.is_empty() {
            let mut scratch = std::mem::replace(&mut self.scratch, FrameVec::new(0));
            let received = self.inner.rx(pool, &mut scratch);
            scratch.drain().for_each(|frame| self.pass(frame, pool));
            self.scratch = scratch;
            if received? == 0 {
                self.ready.extend(self.held.take()); // nothing came to overtake it
            }
        }
        let count = self.ready.len().min(out.room());
        for frame in self.ready.drain(..count) {
            drop(out.push(frame)); // never refused: there is room
        }
        Ok(count)
    }

    fn arm(&mut self) {
        self.inner.arm();
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.fd()
    }

    fn missed(&mut self) -> u64 {
        self.inner.missed()
    }
}

struct FaultyTx {
    inner: Box<dyn TxQueue>,
    faults: Faults,
    random: Random,
    kept: FrameVec,
}

impl FaultyTx {
    fn flush(&mut self, pool: &mut PoolCache, report: &mut TxReport) {
        let inner = self.inner.tx(pool, &mut self.kept);
        report.sent += inner.sent;
        report.sent_bytes += inner.sent_bytes;
        report.full += inner.full;
        report.refused += inner.refused;
        report.stalls += inner.stalls;
    }
}

impl TxQueue for FaultyTx {
    fn tx(&mut self, pool: &mut PoolCache, frames: &mut FrameVec) -> TxReport {
        let mut report = TxReport::default();
        for frame in frames.drain() {
            if self.random.happens(self.faults.refuse) {
                report.refused += 1;
                pool.release(frame);
                continue;
            }
            if self.kept.room() == 0 {
                self.flush(pool, &mut report);
            }
            // There is room: the queue within takes every frame.
            report.refused += u32::from(self.kept.push(frame).is_err());
        }
        self.flush(pool, &mut report);
        report
    }

    fn reclaim(&mut self, pool: &mut PoolCache) {
        self.inner.reclaim(pool);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::HashMap;

    use vswitch_wire::Caps;

    use super::*;
    use crate::{FrameClass, Pool, PoolConfig, loopback};

    const COUNT: u64 = 1000;

    /// What arrives of 1000 numbered frames, and how many were refused.
    fn run(faults: Faults, seed: u64) -> (Vec<Vec<u8>>, u32) {
        let pool = Pool::new(PoolConfig { wire: 512, large: 0 }).unwrap();
        let mut cache = pool.cache();
        let (a, b) = loopback::pair(1, Caps::ALL).unwrap();
        let (mut a, mut b) = (inject(a, faults, seed), inject(b, faults, seed));
        let (mut frames, mut got, mut refused) = (FrameVec::new(100), Vec::new(), 0);
        for number in 0..COUNT {
            let mut frame = cache.acquire(FrameClass::Wire).unwrap();
            frame.set_len(64);
            frame.bytes_mut().fill(0);
            frame.bytes_mut()[..8].copy_from_slice(&number.to_be_bytes());
            frames.push(frame).unwrap();
            if frames.room() > 0 {
                continue;
            }
            let report = a.tx[0].tx(&mut cache, &mut frames);
            assert_eq!(report.sent + report.full + report.refused, 100);
            refused += report.refused;
            while b.rx[0].rx(&mut cache, &mut frames).unwrap() > 0 {
                got.extend(frames.as_slice().iter().map(|frame| frame.bytes().to_vec()));
                frames.drain().for_each(|frame| cache.release(frame));
            }
        }
        drop((a, b, cache));
        assert_eq!(pool.free(FrameClass::Wire), 512);
        (got, refused)
    }

    fn number(bytes: &[u8]) -> u64 {
        u64::from_be_bytes(*bytes.first_chunk().unwrap())
    }

    const OFTEN: u16 = 6554; // a tenth

    #[test]
    fn without_faults_everything_arrives_in_order() {
        let (got, refused) = run(Faults::default(), 1);
        assert_eq!((got.iter().map(|b| number(b)).collect::<Vec<_>>(), refused), ((0..COUNT).collect(), 0));
    }

    #[test]
    fn each_fault_does_what_it_says() {
        let (got, _) = run(Faults { drop: OFTEN, ..Faults::default() }, 2);
        assert!((850..950).contains(&got.len()), "{}", got.len());
        let (got, refused) = run(Faults { refuse: OFTEN, ..Faults::default() }, 3);
        assert!(refused > 50 && got.len() as u32 + refused == COUNT as u32);
        let (got, _) = run(Faults { duplicate: OFTEN, ..Faults::default() }, 4);
        let mut counts = HashMap::new();
        got.iter().for_each(|bytes| *counts.entry(number(bytes)).or_insert(0) += 1);
        assert!(counts.len() as u64 == COUNT && counts.values().all(|&n| n <= 2) && got.len() > 1050);
        let (got, _) = run(Faults { reorder: OFTEN, ..Faults::default() }, 5);
        let numbers: Vec<u64> = got.iter().map(|b| number(b)).collect();
        assert!(got.len() as u64 == COUNT && !numbers.is_sorted());
        assert!(numbers.iter().zip(0..).all(|(n, at)| n.abs_diff(at) <= 1));
        let (got, _) = run(Faults { corrupt: OFTEN, ..Faults::default() }, 6);
        let ones = got.iter().zip(0_u64..).map(|(bytes, n)| {
            let sent = n.to_be_bytes();
            bytes.iter().enumerate().map(|(i, b)| (b ^ sent.get(i).unwrap_or(&0)).count_ones()).sum::<u32>()
        });
        let ones: Vec<u32> = ones.collect();
        assert!(ones.iter().all(|&n| n <= 1) && ones.iter().sum::<u32>() > 50);
        let (got, _) = run(Faults { truncate: OFTEN, ..Faults::default() }, 7);
        assert!(got.len() as u64 == COUNT && got.iter().filter(|b| b.len() < 64).count() > 50);
    }

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let all = Faults {
            drop: 9,
            duplicate: OFTEN,
            reorder: OFTEN,
            corrupt: OFTEN,
            truncate: OFTEN,
            refuse: OFTEN,
        };
        assert_eq!(run(all, 8), run(all, 8));
        assert_ne!(run(all, 8), run(all, 9));
    }
}
