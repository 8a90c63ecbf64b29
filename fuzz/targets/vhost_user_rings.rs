//! A guest that writes anything anywhere into its rings while the switch polls both of them: no panic, no access
//! outside of its memory, an end in bounded time, and no frame of ours lost. The switch is killed in between, and what it
//! finds in its record of packed rings may have been spoilt.

#![no_main]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use vswitch_io::vhost_user::Features;
use vswitch_io::vhost_user::guest::{Guest, PHYSICAL};
use vswitch_io::{FrameClass, FrameVec, Pool, PoolCache, PoolConfig, RxQueue, TxQueue};
use vswitch_wire::FrameBuf;

fn pool() -> &'static Pool {
    static POOL: OnceLock<&Pool> = OnceLock::new();
    POOL.get_or_init(|| Pool::new(PoolConfig { wire: 256, large: 16 }).expect("memory"))
}

/// The next number of the input, and the rest.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

fn send(tx: &mut impl TxQueue, cache: &mut PoolCache, len: usize) {
    let mut frames = FrameVec::new(1);
    let Some(mut frame) = cache.acquire_for(len) else { return };
    frame.set_len(len);
    frame.bytes_mut().fill(1);
    assert!(frames.push(frame).is_ok());
    let report = tx.tx(cache, &mut frames);
    assert_eq!(report.sent + report.full + report.refused, 1);
}

fn record() -> PathBuf {
    std::env::temp_dir().join(format!("vswitch-fuzz-{}.ring", std::process::id()))
}

fn run(mut bytes: &[u8], record: &Path) -> Option<()> {
    let _ = std::fs::remove_file(record); // of a process of the same number that crashed
    let mut cache = pool().cache();
    let [choice] = take(&mut bytes)?;
    // VERSION_1, with or without packed rings, mergeable buffers, and an event index.
    let features =
        1 << 32 | u64::from(choice & 1) << 34 | u64::from(choice & 2) << 14 | u64::from(choice & 4) << 27;
    let mut guest = Guest::new(Features::acknowledged(features)?, 16);
    let record = (choice & 1 == 1).then_some(record);
    let start = [guest.rx.base(), guest.tx.base()];
    let (mut rx, mut tx) = guest.attach_with(record, start);
    let mut frames = FrameVec::new(64);
    while let Some([step, a, b]) = take(&mut bytes) {
        let areas = [guest.rx.physical(), guest.tx.physical()].concat();
        match step % 9 {
            // Sound traffic, so that there is something to spoil.
            0 => drop(guest.send(
                [b, 0, 0, 0, 0, 0, a, 0, 16, 0],
                &[a; 100],
                &[usize::from(b % 30)],
                a & 1 == 1,
            )),
            1 => drop(guest.post(&[usize::from(b) * 8, 2000], a & 1 == 1)),
            // A descriptor whose address is near the memory's beginning or end.
            2 => {
                let offset = if b & 1 == 0 { u64::from(b) << 4 } else { guest.memory.size() - u64::from(b) };
                let place = areas[usize::from(a & 1) * 3] + 16 * u64::from(a >> 1 & 15);
                guest.memory.write(place, &(PHYSICAL + offset).to_le_bytes());
            }
            // Anything anywhere in a ring.
            3 | 4 => {
                let part: [u8; 4] = take(&mut bytes)?;
                guest.memory.write(areas[usize::from(a % 6)] + u64::from(b), &part);
            }
            5 => drop(rx.rx(&mut cache, &mut frames)),
            6 => send(&mut tx, &mut cache, 14 + usize::from(a) * usize::from(b)),
            7 => rx.arm(),
            _ => {
                drop((rx, tx));
                if let (Some(record), 1) = (record, a & 1) {
                    let part: [u8; 4] = take(&mut bytes).unwrap_or_default();
                    let place = u64::from(a & 2) << 11 | u64::from(b);
                    File::options().write(true).open(record).and_then(|f| f.write_all_at(&part, place)).ok();
                }
                (rx, tx) = guest.attach_with(record, start);
            }
        }
        frames.drain().for_each(|frame| cache.release(frame));
    }
    Some(())
}

fuzz_target!(|bytes: &[u8]| {
    let record = record();
    let _ = run(bytes, &record);
    let _ = std::fs::remove_file(record);
    for class in [FrameClass::Wire, FrameClass::Large] {
        assert_eq!(pool().free(class), pool().total(class), "frames were lost");
    }
});
