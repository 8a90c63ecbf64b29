//! Records what passes a port into a pcap file, for tests.
//!
//! Tags are written into the bytes; offload metadata is not recorded. There is no clock here: a frame's time stamp is
//! its number in microseconds, so that recordings of the same run are equal.

use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use vswitch_wire::vlan::TAG_LEN;
use vswitch_wire::{FrameBuf, Tag};

use crate::port::{Opened, PortError, RxQueue, TxQueue, TxReport};
use crate::{FrameVec, PoolCache};

/// Longer than any frame.
const SNAPLEN: u32 = 256 << 10;

/// The same port; what it receives and is given to send goes to `out` as well, as a pcap file.
///
/// # Errors
/// The file's header could not be written.
pub fn record<W: Write + Send + 'static>(port: Opened, out: W) -> io::Result<Opened> {
    let header = PcapHeader { snaplen: SNAPLEN, ..PcapHeader::default() };
    let writer = PcapWriter::with_header(out, header).map_err(io::Error::other)?;
    let recorder = Arc::new(Mutex::new(Recorder { writer, count: 0 }));
    let rx = port
        .rx
        .into_iter()
        .map(|inner| Box::new(RecordedRx { inner, recorder: Arc::clone(&recorder) }) as Box<dyn RxQueue>);
    let tx = port
        .tx
        .into_iter()
        .map(|inner| Box::new(RecordedTx { inner, recorder: Arc::clone(&recorder) }) as Box<dyn TxQueue>);
    Ok(Opened { rx: rx.collect(), tx: tx.collect(), ..port })
}

struct Recorder<W: Write> {
    writer: PcapWriter<W>,
    count: u64,
}

impl<W: Write> Recorder<W> {
    fn write(&mut self, bytes: &[u8], tag: Option<Tag>) -> Result<(), pcap_file::PcapError> {
        let mut data = bytes.to_vec();
        if let (Some(tag), true) = (tag, bytes.len() >= 12) {
            let [t0, t1] = tag.tpid.to_be_bytes();
            let [c0, c1] = tag.tci.to_be_bytes();
            let tag: [u8; TAG_LEN] = [t0, t1, c0, c1];
            data.splice(12..12, tag);
        }
        let packet = PcapPacket::new(Duration::from_micros(self.count), data.len() as u32, &data);
        self.count += 1;
        self.writer.write_packet(&packet).map(drop)
    }
}

/// A recording that cannot be written ends the test, not the traffic: what it lacks shows there.
fn write_all<W: Write>(recorder: &Mutex<Recorder<W>>, frames: &[crate::Frame]) {
    let mut recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner);
    for frame in frames {
        let _ = recorder.write(frame.bytes(), frame.meta().tag);
    }
}

struct RecordedRx<W: Write> {
    inner: Box<dyn RxQueue>,
    recorder: Arc<Mutex<Recorder<W>>>,
}

impl<W: Write + Send> RxQueue for RecordedRx<W> {
    fn rx(&mut self, pool: &mut PoolCache, out: &mut FrameVec) -> Result<usize, PortError> {
        let before = out.len();
        let count = self.inner.rx(pool, out)?;
        write_all(&self.recorder, &out.as_slice()[before..]);
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

struct RecordedTx<W: Write> {
    inner: Box<dyn TxQueue>,
    recorder: Arc<Mutex<Recorder<W>>>,
}

impl<W: Write + Send> TxQueue for RecordedTx<W> {
    fn tx(&mut self, pool: &mut PoolCache, frames: &mut FrameVec) -> TxReport {
        write_all(&self.recorder, frames.as_slice());
        self.inner.tx(pool, frames)
    }

    fn reclaim(&mut self, pool: &mut PoolCache) {
        self.inner.reclaim(pool);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use pcap_file::pcap::PcapReader;
    use vswitch_wire::{Caps, FrameMeta};

    use super::*;
    use crate::{Pool, PoolConfig, loopback};

    /// A buffer that the test keeps a hold of.
    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_passes_is_recorded_with_its_tag() {
        let pool = Pool::new(PoolConfig { wire: 8, large: 2 }).unwrap();
        let mut cache = pool.cache();
        let (a, b) = loopback::pair(1, Caps::ALL).unwrap();
        let (sent, received) = (Shared::default(), Shared::default());
        let (mut a, mut b) = (record(a, sent.clone()).unwrap(), record(b, received.clone()).unwrap());
        let mut frames = FrameVec::new(8);
        for (len, tag) in [(60, None), (14, Some(Tag::dot1q(10))), (5, Some(Tag::dot1q(1))), (65_549, None)] {
            let mut frame = cache.acquire_for(len).unwrap();
            frame.set_len(len);
            frame.bytes_mut().fill(1);
            *frame.meta_mut() = FrameMeta { tag, ..FrameMeta::default() };
            frames.push(frame).unwrap();
        }
        assert_eq!(a.tx[0].tx(&mut cache, &mut frames).sent, 4);
        assert_eq!(b.rx[0].rx(&mut cache, &mut frames).unwrap(), 4);
        let file = sent.0.lock().unwrap().clone();
        assert_eq!(file, *received.0.lock().unwrap());
        let mut reader = PcapReader::new(&file[..]).unwrap();
        let mut tagged = vec![1; 18];
        tagged[12..16].copy_from_slice(&[0x81, 0, 0, 10]);
        for (n, expected) in [vec![1; 60], tagged, vec![1; 5], vec![1; 65_549]].into_iter().enumerate() {
            let packet = reader.next_packet().unwrap().unwrap();
            assert_eq!((packet.timestamp.as_micros() as usize, &*packet.data), (n, &expected[..]));
        }
        assert!(reader.next_packet().is_none());
    }
}
