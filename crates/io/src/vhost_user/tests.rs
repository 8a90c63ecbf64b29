//! The queues against a pretended guest, without a socket.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proptest::prelude::*;
use vswitch_wire::testing::frame as build;
use vswitch_wire::{Csum, FrameBuf, FrameMeta, Gso, GsoKind, Mac, Offload, Segmenter, Tag, checksum, vnet};

use super::device::Device;
use super::features::Features;
use super::guest::{Driver, Guest};
use super::store::death;
use super::tx::Tx;
use crate::{FrameClass, FrameVec, Pool, PoolCache, PoolConfig, RxQueue, TxQueue, TxReport};

const VERSION_1: u64 = 1 << 32;
const PACKED: u64 = 1 << 34;
const MRG: u64 = 1 << 15;
const GUEST_CSUM: u64 = 1 << 1;
const GUEST_TSO4: u64 = 1 << 7;
const NO_VNET: [u8; 10] = [0; 10];

fn features(bits: u64) -> Features {
    Features::acknowledged(bits).unwrap()
}

fn pool() -> &'static Pool {
    Pool::new(PoolConfig { wire: 512, large: 16 }).unwrap()
}

fn assert_all_free(pool: &Pool) {
    for class in [FrameClass::Wire, FrameClass::Large] {
        assert_eq!(pool.free(class), pool.total(class), "{class:?} frames were lost");
    }
}

fn send(queue: &mut impl TxQueue, cache: &mut PoolCache, frames: &[(Vec<u8>, FrameMeta)]) -> TxReport {
    let mut vec = FrameVec::new(frames.len());
    for (bytes, meta) in frames {
        let mut frame = cache.acquire_for(bytes.len()).unwrap();
        frame.set_len(bytes.len());
        frame.bytes_mut().copy_from_slice(bytes);
        *frame.meta_mut() = *meta;
        vec.push(frame).unwrap();
    }
    let report = queue.tx(cache, &mut vec);
    assert!(vec.is_empty());
    assert_eq!((report.sent + report.full + report.refused) as usize, frames.len(), "{report:?}");
    report
}

fn receive(queue: &mut impl RxQueue, cache: &mut PoolCache) -> Vec<(Vec<u8>, FrameMeta)> {
    let mut vec = FrameVec::new(64);
    let count = queue.rx(cache, &mut vec).unwrap();
    assert_eq!(count, vec.len());
    let take = |frame: crate::Frame| {
        let got = (frame.bytes().to_vec(), *frame.meta());
        cache.release(frame);
        got
    };
    vec.drain().map(take).collect()
}

fn bytes(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn plain(len: usize, seed: u8) -> (Vec<u8>, FrameMeta) {
    (bytes(len, seed), FrameMeta::default())
}

fn tcp(payload: usize) -> (Vec<u8>, Offload) {
    let frame = build(Mac([2; 6]), Mac([4; 6])).ip([10, 0, 0, 1], [10, 0, 0, 2]).tcp(1, 2, 0x18);
    let frame = frame.payload(&bytes(payload, 1)).unfinished();
    let csum = frame.meta().offload.csum;
    let gso = Some(Gso { kind: GsoKind::Tcp4, size: 1000, ecn: false });
    (frame.bytes().to_vec(), Offload { csum, gso: gso.filter(|_| payload > 1000) })
}

fn meta(offload: Offload) -> FrameMeta {
    FrameMeta { offload, ..FrameMeta::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn what_a_guest_sends_is_received(
        bits in prop::sample::select(vec![0, MRG, VERSION_1, VERSION_1 | PACKED, VERSION_1 | PACKED | MRG]),
        frames in prop::collection::vec(
            (1..9000_usize, prop::collection::vec(1..2000_usize, 0..4), any::<bool>()), 1..100,
        ),
    ) {
        let pool = pool();
        let mut cache = pool.cache();
        let mut guest = Guest::new(features(bits), 64);
        let (mut rx, tx) = guest.attach();
        let mut expected = std::collections::VecDeque::new();
        for (seed, (len, lengths, indirect)) in frames.into_iter().enumerate() {
            let frame = plain(len, seed as u8);
            if guest.send(NO_VNET, &frame.0, &lengths, indirect) {
                expected.push_back(frame);
            }
            if seed % 7 == 0 {
                for got in receive(&mut rx, &mut cache) {
                    prop_assert_eq!(Some(got), expected.pop_front());
                }
                guest.sent();
                prop_assert_eq!(guest.tx.outstanding(), expected.len());
            }
        }
        while let Some(first) = expected.front().cloned() {
            let got = receive(&mut rx, &mut cache);
            prop_assert_eq!(got.first(), Some(&first));
            expected.drain(..got.len());
        }
        prop_assert_eq!(rx.missed(), 0);
        drop((rx, tx, cache));
        assert_all_free(pool);
    }

    #[test]
    fn what_is_sent_a_guest_receives(
        bits in prop::sample::select(vec![0, MRG, VERSION_1, VERSION_1 | PACKED, VERSION_1 | PACKED | MRG]),
        rounds in prop::collection::vec(
            (prop::collection::vec((prop::collection::vec(16..2000_usize, 1..4), any::<bool>()), 0..20),
             prop::collection::vec(1..4000_usize, 1..10)),
            1..20,
        ),
    ) {
        let pool = pool();
        let mut cache = pool.cache();
        let mut guest = Guest::new(features(bits), 64);
        let (rx, mut tx) = guest.attach();
        for (seed, (posts, lengths)) in rounds.into_iter().enumerate() {
            for (buffers, indirect) in posts {
                guest.post(&buffers, indirect);
            }
            let frames: Vec<_> = lengths.into_iter().map(|len| plain(len, seed as u8)).collect();
            let report = send(&mut tx, &mut cache, &frames);
            let got: Vec<_> = std::iter::from_fn(|| guest.receive()).collect();
            prop_assert_eq!(got.len(), report.sent as usize);
            // What was not sent is missing, the order is kept.
            let mut frames = frames.iter();
            for (header, bytes) in got {
                prop_assert_eq!(header, NO_VNET);
                prop_assert!(frames.any(|frame| frame.0 == bytes));
            }
        }
        drop((rx, tx, cache));
        assert_all_free(pool);
    }

    /// Random bytes anywhere in the rings, while both queues are polled.
    #[test]
    fn a_hostile_guest_loses_no_frame_of_ours(
        packed in any::<bool>(),
        writes in prop::collection::vec((0..6_usize, 0..600_u64, prop::collection::vec(any::<u8>(), 1..20)), 1..60),
    ) {
        let pool = pool();
        let mut cache = pool.cache();
        let mut guest = Guest::new(features(VERSION_1 | MRG | if packed { PACKED } else { 0 }), 32);
        let (mut rx, mut tx) = guest.attach();
        for (area, offset, bytes) in writes {
            guest.post(&[2000], false);
            guest.send(NO_VNET, &bytes, &[12], false);
            let areas = [guest.rx.physical(), guest.tx.physical()].concat();
            guest.memory.write(areas[area] + offset, &bytes);
            receive(&mut rx, &mut cache);
            send(&mut tx, &mut cache, &[plain(60, 1), plain(3000, 2)]);
        }
        drop((rx, tx, cache));
        assert_all_free(pool);
    }
}

#[test]
fn work_that_the_guest_takes_is_left_to_it() {
    let pool = pool();
    let mut cache = pool.cache();
    for bits in [GUEST_CSUM | GUEST_TSO4, GUEST_CSUM, 0] {
        for packed in [0, PACKED] {
            let mut guest = Guest::new(features(VERSION_1 | MRG | packed | bits), 128);
            let (_rx, mut tx) = guest.attach();
            (0..100).for_each(|_| assert!(guest.post(&[1500], false)));
            let (small, csum) = tcp(100);
            let (large, gso) = tcp(10_000);
            let sent = [(small.clone(), meta(csum)), (large.clone(), meta(gso))];
            assert_eq!(send(&mut tx, &mut cache, &sent).sent, 2);
            let got: Vec<_> = std::iter::from_fn(|| guest.receive()).collect();
            let parsed = |i: usize| vnet::parse(&got.get(i).unwrap().0, &got.get(i).unwrap().1).unwrap();
            if bits & GUEST_CSUM == 0 {
                let mut finished = small;
                checksum::complete(&mut finished, csum.csum.unwrap()).unwrap();
                assert_eq!((parsed(0), &got[0].1), (Offload::NONE, &finished));
            } else {
                assert_eq!((parsed(0), &got[0].1), (csum, &small));
            }
            if bits & GUEST_TSO4 != 0 {
                assert_eq!((parsed(1), &got[1].1, got.len()), (gso, &large, 2));
                assert_eq!(got[1].0[2..4], 54_u16.to_ne_bytes(), "the headers' length");
                continue;
            }
            let (mut segments, mut buffer) = (Segmenter::new(&large, &gso).unwrap(), vec![0; 2000]);
            for (i, _) in (1..).zip(0..segments.count()) {
                let (len, rest) = segments.next_into(&mut buffer, bits & GUEST_CSUM == 0).unwrap();
                assert_eq!((parsed(i), &got[i].1[..]), (rest, &buffer[..len]));
            }
            assert_eq!(got.len(), 11);
        }
    }
}

#[test]
fn work_that_was_not_agreed_upon_is_not_accepted() {
    let pool = pool();
    let mut cache = pool.cache();
    let (small, csum) = tcp(100);
    let (large, gso) = tcp(10_000);
    let headers = [vnet::emit(csum, 0), vnet::emit(gso, 54)];
    for (bits, accepted) in [(0, 0), (1, 1), (1 | 1 << 11, 2), (1 << 11, 0)] {
        let mut guest = Guest::new(features(VERSION_1 | bits), 128);
        let (mut rx, _tx) = guest.attach();
        assert!(guest.send(headers[0], &small, &[], false));
        assert!(guest.send(headers[1], &large, &[12], true));
        assert!(guest.send(
            vnet::emit(Offload { csum: Some(Csum { start: 2, offset: 2 }), gso: None }, 0),
            &small,
            &[],
            false
        ));
        assert!(guest.send(NO_VNET, &[], &[], false), "a header alone");
        assert!(guest.send(NO_VNET, &vec![1; 70_000], &[], false), "longer than any frame");
        let expected = [(small.clone(), meta(csum)), (large.clone(), meta(gso))];
        assert_eq!(receive(&mut rx, &mut cache), expected[..accepted]);
        assert_eq!((rx.missed(), guest.sent()), (5 - accepted as u64, 5), "{bits:#x}");
    }
}

#[test]
fn a_tag_goes_into_the_bytes_and_buffers_that_are_too_small_stay() {
    let pool = pool();
    let mut cache = pool.cache();
    let mut guest = Guest::new(features(VERSION_1), 16);
    let (_rx, mut tx) = guest.attach();
    assert_eq!(send(&mut tx, &mut cache, &[plain(60, 1)]).full, 1);
    assert!(guest.post(&[100], false));
    let tagged = (bytes(60, 2), FrameMeta { tag: Some(Tag::dot1q(10)), ..FrameMeta::default() });
    let report = send(&mut tx, &mut cache, &[plain(89, 1), tagged, plain(60, 3)]);
    assert_eq!((report.refused, report.sent, report.full, report.sent_bytes), (1, 1, 1, 64));
    let mut expected = bytes(60, 2);
    expected.splice(12..12, [0x81, 0, 0, 10]);
    assert_eq!(guest.receive().unwrap().1, expected);
}

#[test]
fn without_free_frames_a_guest_waits() {
    let pool = Pool::new(PoolConfig { wire: 4, large: 0 }).unwrap();
    let mut cache = pool.cache();
    for packed in [0, PACKED] {
        let mut guest = Guest::new(features(VERSION_1 | packed), 64);
        let (mut rx, _tx) = guest.attach();
        (0..9).for_each(|seed| assert!(guest.send(NO_VNET, &bytes(60, seed), &[12], false)));
        assert!(guest.send(NO_VNET, &bytes(9000, 9), &[], false));
        let mut seen = Vec::new();
        for count in [4, 4, 1] {
            let mut vec = FrameVec::new(64);
            assert_eq!(rx.rx(&mut cache, &mut vec).unwrap(), count);
            seen.extend(vec.drain().map(|frame| frame.bytes()[0]));
        }
        assert_eq!(seen, (0..9).collect::<Vec<_>>());
        assert_eq!((rx.missed(), guest.sent()), (1, 10), "there are no large frames to wait for");
    }
}

/// A guest that starts and stops pairs of queues while flows go to it: each flow keeps its order, and no frame goes
/// where nobody takes it.
#[test]
fn flows_are_spread_over_the_pairs_that_a_guest_receives_by() {
    const PAIRS: usize = 3;
    let pool = pool();
    let mut cache = pool.cache();
    let device = Arc::new(Device::new(PAIRS as u16, None).unwrap());
    let mut pairs = [0; PAIRS].map(|_| Guest::new(features(VERSION_1 | MRG), 64));
    let mut tx = Tx::new(Arc::clone(&device));
    let of_flow = |port: u16, number: u8| {
        let frame = build(Mac([2; 6]), Mac([4; 6])).ip([10, 0, 0, 1], [10, 0, 0, 2]).udp(port, 9);
        (frame.payload(&[number]).bytes(), FrameMeta::default())
    };
    let mut number = 0;
    for running in [&[][..], &[1], &[0, 1], &[0, 1, 2], &[0, 2], &[2], &[], &[0, 1, 2]] {
        for (pair, guest) in pairs.iter_mut().enumerate() {
            device.stop(2 * pair);
            if running.contains(&pair) {
                (0..60).for_each(|_| assert!(guest.post(&[200], false)));
                guest.attach_to(&device, pair, [guest.rx.base(), guest.tx.base()]);
            }
        }
        number += 2;
        let batch: Vec<_> =
            [number, number + 1].iter().flat_map(|n| (0..16).map(|p| of_flow(p, *n))).collect();
        let report = send(&mut tx, &mut cache, &batch);
        let expected = if running.is_empty() { (0, 32) } else { (32, 0) };
        assert_eq!((report.sent, report.full), expected, "{running:?}");
        let mut seen = Vec::new();
        for (pair, guest) in pairs.iter_mut().enumerate() {
            let got: Vec<_> = std::iter::from_fn(|| guest.receive().map(|(_, bytes)| bytes)).collect();
            assert_eq!(!got.is_empty(), running.contains(&pair), "{running:?}: pair {pair} has its share");
            for port in 0..16 {
                let flow = [of_flow(port, number).0, of_flow(port, number + 1).0];
                let of_it: Vec<_> = got.iter().filter(|bytes| flow.contains(bytes)).cloned().collect();
                assert!(
                    of_it.is_empty() || of_it == flow,
                    "flow {port} in order, and by one pair: {of_it:?}"
                );
            }
            seen.extend(got);
            guest.reboot();
        }
        assert_eq!(seen.len(), report.sent as usize);
    }
}

#[test]
fn memory_that_vanishes_stops_its_own_port_alone() {
    let pool = pool();
    let mut cache = pool.cache();
    let mut guests = [0, 1].map(|_| Guest::new(features(VERSION_1 | MRG), 64));
    let [(mut rx, mut tx), (mut other, _tx)] = [0, 1].map(|i: usize| guests[i].attach());
    let [guest, neighbour] = &mut guests;
    guest.post(&[2000], false);
    guest.send(NO_VNET, &bytes(60, 1), &[], false);
    guest.memory.cut();
    // The first access faults; that batch may hold zeros, and no other comes.
    receive(&mut rx, &mut cache);
    assert_eq!(send(&mut tx, &mut cache, &[plain(60, 1)]).full, 1);
    assert_eq!(receive(&mut rx, &mut cache), []);
    neighbour.send(NO_VNET, &bytes(60, 2), &[], false);
    assert_eq!(receive(&mut other, &mut cache), [plain(60, 2)]);
}

#[test]
fn a_sleeping_worker_is_woken_by_what_came_before() {
    let pool = pool();
    let mut cache = pool.cache();
    let mut guest = Guest::new(features(VERSION_1), 64);
    let (mut rx, _tx) = guest.attach();
    let readable = |rx: &dyn RxQueue| {
        let mut fds = [nix::poll::PollFd::new(rx.fd().unwrap(), nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO).unwrap() == 1
    };
    assert!(readable(&rx), "a new ring is news");
    assert!(receive(&mut rx, &mut cache).is_empty());
    guest.send(NO_VNET, &bytes(60, 2), &[], false);
    rx.arm();
    assert!(readable(&rx));
    assert_eq!(receive(&mut rx, &mut cache).len(), 1);
    assert!(!readable(&rx));
}

/// A batch that is larger than the log: wherever the device is looked at, or killed, the guest sees a frame whole or not
/// at all (VIRTIO 1.2 section 5.1.6.4.1: the buffers of one packet are used together).
#[test]
fn a_frame_in_many_buffers_is_seen_whole_or_not_at_all() {
    let pool = pool();
    let mut cache = pool.cache();
    let folder = tempfile::tempdir().unwrap();
    for stores in 0.. {
        let mut guest = Guest::new(features(VERSION_1 | PACKED | MRG), 512);
        (0..400).for_each(|_| assert!(guest.post(&[200], false)));
        let record = folder.path().join(stores.to_string());
        let bases = [&guest.rx, &guest.tx].map(Driver::base);
        let (_rx, mut tx) = guest.attach_with(Some(&record), bases);
        death::after(Some(stores));
        send(&mut tx, &mut cache, &vec![plain(9000, 1); 8]);
        let killed = death::came();
        while guest.receive().is_some() {}
        if !killed {
            assert!(stores > 1000, "{stores}");
            break;
        }
    }
}
