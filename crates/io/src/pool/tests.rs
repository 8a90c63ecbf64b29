#![allow(clippy::unwrap_used)]

use std::collections::HashSet;
use std::sync::mpsc;
use std::thread;

use proptest::prelude::*;
use vswitch_wire::{FrameBuf, NoHeadroom, Tag};

use super::*;

const CLASSES: [FrameClass; 2] = [FrameClass::Wire, FrameClass::Large];

fn pool(wire: u32, large: u32) -> &'static Pool {
    Pool::new(PoolConfig { wire, large }).unwrap()
}

fn assert_all_free(pool: &Pool) {
    for class in CLASSES {
        let free: HashSet<u32> = pool.list(class).iter().copied().collect();
        assert_eq!((pool.free(class), free.len()), (pool.total(class), pool.total(class)), "{class:?}");
    }
}

#[test]
fn every_frame_is_aligned_coloured_and_its_own() {
    let pool = pool(64, 8);
    let mut cache = pool.cache();
    let mut ranges = Vec::new();
    let mut starts = HashSet::new();
    let mut frames = Vec::new();
    for (class, capacity) in [(FrameClass::Wire, WIRE_CAPACITY), (FrameClass::Large, LARGE_CAPACITY)] {
        for _ in 0..pool.total(class) {
            let mut frame = cache.acquire(class).unwrap();
            assert_eq!((frame.class(), frame.bytes().len()), (class, 0));
            assert!(frame.capacity() >= capacity);
            frame.set_len(capacity);
            let start = frame.bytes().as_ptr() as usize;
            assert_eq!(start % LINE, 0);
            starts.insert(start / LINE % 64);
            ranges.push(start - HEADROOM..start + capacity);
            frames.push(frame);
        }
        assert!(cache.acquire(class).is_none(), "the pool is empty");
    }
    assert!(starts.len() >= COLOURS as usize);
    ranges.sort_by_key(|r| r.start);
    assert!(ranges.windows(2).all(|w| w[0].end <= w[1].start), "buffers overlap");
    drop((frames, cache));
    assert_all_free(pool);
}

#[test]
fn wire_chunks_are_contiguous_pages_at_the_front() {
    let pool = pool(4, 1);
    let (base, len) = pool.wire_area();
    assert_eq!((base.as_ptr() as usize % CHUNK, len), (0, 4 * CHUNK));
    assert_eq!(pool.buffer(3).as_ptr() as usize - base.as_ptr() as usize, 3 * CHUNK);
    assert_eq!(pool.buffer(4).as_ptr() as usize - base.as_ptr() as usize, 4 * CHUNK);
}

#[test]
fn front_grows_to_the_headroom_and_shrinks_to_nothing() {
    let mut frame = pool(1, 0).cache().acquire(FrameClass::Wire).unwrap();
    frame.set_len(100);
    let start = frame.capacity();
    assert_eq!(frame.grow_front(HEADROOM), Ok(()));
    assert_eq!((frame.bytes().len(), frame.capacity()), (100 + HEADROOM, start + HEADROOM));
    assert_eq!(frame.grow_front(CHUNK - frame.capacity() + 1), Err(NoHeadroom));
    assert_eq!(frame.bytes().len(), 100 + HEADROOM);
    frame.shrink_front(HEADROOM);
    frame.shrink_front(usize::MAX);
    assert_eq!(frame.bytes().len(), 0);
    frame.set_len(usize::MAX);
    assert_eq!(frame.bytes().len(), frame.capacity());
}

#[test]
fn copies_pick_the_class_by_length_and_keep_headroom() {
    let pool = pool(8, 4);
    let mut cache = pool.cache();
    for (len, class) in [
        (60, FrameClass::Wire),
        (WIRE_CAPACITY + 1, FrameClass::Wire),
        (CHUNK - HEADROOM, FrameClass::Wire),
        (CHUNK - HEADROOM + 1, FrameClass::Large),
        (LARGE_CAPACITY, FrameClass::Large),
    ] {
        let mut frame = cache.acquire(FrameClass::Large).unwrap();
        frame.set_len(len);
        frame.bytes_mut().fill(0xa5);
        frame.meta_mut().tag = Some(Tag::dot1q(7));
        let mut copy = cache.copy(&frame).unwrap();
        assert_eq!((copy.class(), copy.bytes(), copy.meta()), (class, frame.bytes(), frame.meta()), "{len}");
        assert_eq!(copy.grow_front(HEADROOM), Ok(()));
        cache.release(copy);
        cache.release(frame);
    }
    assert!(cache.acquire_for(LARGE_CAPACITY + 1).is_none());
    drop(cache);
    assert_all_free(pool);
}

#[test]
fn chunks_lent_to_a_ring_come_back_or_are_refused() {
    let pool = pool(4, 1);
    let mut cache = pool.cache();
    let mut frame = cache.acquire(FrameClass::Wire).unwrap();
    frame.set_len(3);
    frame.bytes_mut().copy_from_slice(b"abc");
    let span = frame.into_chunk();
    for bad in [
        Span { chunk: 5, ..span },
        Span { chunk: u32::MAX, ..span },
        Span { len: CHUNK as u32 + 1 - span.start, ..span },
        Span { start: u32::MAX, len: u32::MAX, ..span },
    ] {
        // SAFETY: the chunk is owned by nobody, and a refusal takes no ownership.
        assert!(unsafe { Frame::from_chunk(pool, bad) }.is_none(), "{bad:?}");
    }
    // SAFETY: the span comes from `into_chunk` above.
    let frame = unsafe { Frame::from_chunk(pool, span) }.unwrap();
    assert_eq!(frame.bytes(), b"abc");
    drop(frame);
    drop(cache);
    assert_all_free(pool);
}

#[test]
fn a_frame_of_another_pool_goes_home() {
    let (ours, other) = (pool(2, 0), pool(2, 0));
    let frame = other.cache().acquire(FrameClass::Wire).unwrap();
    ours.cache().release(frame);
    assert_all_free(ours);
    assert_all_free(other);
}

#[test]
fn a_frame_vector_never_grows() {
    let pool = pool(3, 0);
    let mut cache = pool.cache();
    let mut vec = FrameVec::new(2);
    for len in [1, 2] {
        let mut frame = cache.acquire(FrameClass::Wire).unwrap();
        frame.set_len(len);
        vec.push(frame).unwrap();
    }
    assert_eq!((vec.room(), vec.len(), vec.is_empty()), (0, 2, false));
    let refused = vec.push(cache.acquire(FrameClass::Wire).unwrap()).unwrap_err();
    cache.release(refused);
    assert_eq!(vec.drain().map(|f| f.bytes().len()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(vec.room(), 2);
    drop(cache);
    assert_all_free(pool);
}

/// What a thread may do with the frames it holds.
#[derive(Clone, Debug)]
enum Step {
    Acquire(bool),
    Release(prop::sample::Index),
    Drop(prop::sample::Index),
    Copy(prop::sample::Index),
    Send(prop::sample::Index),
    Receive,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => any::<bool>().prop_map(Step::Acquire),
        2 => index().prop_map(Step::Release),
        1 => index().prop_map(Step::Drop),
        2 => index().prop_map(Step::Copy),
        2 => index().prop_map(Step::Send),
        2 => Just(Step::Receive),
    ]
}

/// Fills a frame with a pattern that no other frame of the run has, and returns it.
fn stamp(frame: &mut Frame, stamp: u64) -> u64 {
    frame.set_len(64);
    frame.bytes_mut().chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&stamp.to_ne_bytes()));
    stamp
}

fn is_stamped(frame: &Frame, stamp: u64) -> bool {
    frame.bytes().chunks_exact(8).all(|word| word == stamp.to_ne_bytes())
}

/// Runs the steps, checking at every touch that nobody else wrote to a frame of ours.
fn run(
    pool: &'static Pool,
    thread: u64,
    steps: Vec<Step>,
    to: mpsc::Sender<(u64, Frame)>,
    from: mpsc::Receiver<(u64, Frame)>,
) {
    let mut cache = pool.cache();
    let mut held: Vec<(u64, Frame)> = Vec::new();
    for (n, step) in steps.into_iter().enumerate() {
        let new = thread << 32 | n as u64;
        match step {
            Step::Acquire(wire) => {
                let class = if wire { FrameClass::Wire } else { FrameClass::Large };
                held.extend(cache.acquire(class).map(|mut f| (stamp(&mut f, new), f)));
            }
            Step::Receive => held.extend(from.try_recv().ok()),
            Step::Release(_) | Step::Drop(_) | Step::Copy(_) | Step::Send(_) if held.is_empty() => {}
            Step::Release(i) => cache.release(held.swap_remove(i.index(held.len())).1),
            Step::Drop(i) => drop(held.swap_remove(i.index(held.len()))),
            Step::Send(i) => drop(to.send(held.swap_remove(i.index(held.len())))), // the other may have ended
            Step::Copy(i) => {
                let (old, frame) = &held[i.index(held.len())];
                if let Some(mut copy) = cache.copy(frame) {
                    assert!(is_stamped(&copy, *old));
                    held.push((stamp(&mut copy, new), copy));
                }
            }
        }
        assert!(held.iter().all(|(stamp, frame)| is_stamped(frame, *stamp)), "two owners of one frame");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_threads_never_share_nor_lose_a_frame(
        a in prop::collection::vec(step(), 0..400),
        b in prop::collection::vec(step(), 0..400),
    ) {
        let pool = pool(200, 20);
        let (to_b, from_a) = mpsc::channel();
        let (to_a, from_b) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || run(pool, 1, a, to_b, from_b));
            scope.spawn(move || run(pool, 2, b, to_a, from_a));
        });
        assert_all_free(pool);
    }
}
