//! Both ends of a ring over a memfd, laid out as the kernel lays out its own.

use std::collections::VecDeque;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use proptest::prelude::*;

use super::*;

const OFFSETS: xdp_ring_offset = xdp_ring_offset { producer: 0, consumer: 64, desc: 192, flags: 128 };
const SIZE: u32 = 8;

struct Memory(OwnedFd);

impl Memory {
    /// Zeroed memory, both indices at `start`.
    fn new(start: u32) -> Self {
        // SAFETY: a new fd, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"ring".as_ptr(), 0)) };
        // SAFETY: a plain system call on our fd.
        assert_eq!(unsafe { libc::ftruncate(fd.as_raw_fd(), 4096) }, 0);
        let memory = Self(fd);
        let ring = memory.ring();
        ring.producer().store(start, Ordering::Relaxed);
        ring.consumer().store(start, Ordering::Relaxed);
        memory
    }

    fn ring(&self) -> Ring<u64> {
        Ring::map(self.0.as_fd(), 0, &OFFSETS, SIZE).unwrap()
    }

    fn ends(&self) -> (Producer<u64>, Consumer<u64>) {
        let fd = self.0.as_fd();
        (Producer::map(fd, 0, &OFFSETS, SIZE).unwrap(), Consumer::map(fd, 0, &OFFSETS, SIZE).unwrap())
    }
}

#[test]
fn entries_are_seen_when_published_and_slots_free_when_released() {
    let memory = Memory::new(0);
    let (mut producer, mut consumer) = memory.ends();
    assert!(producer.push(7));
    assert_eq!(consumer.available(), 0);
    producer.publish();
    assert_eq!((consumer.available(), consumer.pop(), consumer.pop()), (1, Some(7), None));
    assert_eq!(producer.outstanding(), 1);
    consumer.release();
    assert_eq!(producer.outstanding(), 0);
}

#[test]
fn a_full_ring_takes_no_more() {
    let memory = Memory::new(u32::MAX - 2);
    let (mut producer, mut consumer) = memory.ends();
    assert!((0..u64::from(SIZE)).all(|n| producer.push(n)));
    assert!(!producer.push(99));
    producer.publish();
    assert_eq!(consumer.available(), SIZE);
    assert_eq!(consumer.pop(), Some(0));
    assert!(!producer.push(99), "popped is not released");
    consumer.release();
    assert_eq!(producer.free(1), 1);
}

#[test]
fn wakeup_is_asked_for_by_flag() {
    let memory = Memory::new(0);
    let (producer, _) = memory.ends();
    assert!(!producer.needs_wakeup());
    memory.ring().flags().store(libc::XDP_RING_NEED_WAKEUP, Ordering::Relaxed);
    assert!(producer.needs_wakeup());
}

#[test]
fn a_ring_that_does_not_fit_its_memory_is_refused() {
    let memory = Memory::new(0);
    for offsets in [
        xdp_ring_offset { producer: 4096, ..OFFSETS },
        xdp_ring_offset { consumer: 1, ..OFFSETS },
        xdp_ring_offset { flags: u64::from(u32::MAX), ..OFFSETS },
        xdp_ring_offset { desc: !7, ..OFFSETS },
        xdp_ring_offset { desc: 4, ..OFFSETS },
    ] {
        assert!(Ring::<u64>::map(memory.0.as_fd(), 0, &offsets, SIZE).is_err(), "{offsets:?}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push,
    Publish,
    Pop,
    Release,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![4 => Just(Step::Push), 1 => Just(Step::Publish), 4 => Just(Step::Pop), 1 => Just(Step::Release)];
    prop::collection::vec(step, 0..400)
}

proptest! {
    /// Against a queue, over the wrap of the indices.
    #[test]
    fn a_ring_is_a_bounded_queue(start in prop_oneof![Just(0), u32::MAX - 40..=u32::MAX], steps in steps()) {
        let memory = Memory::new(start);
        let (mut producer, mut consumer) = memory.ends();
        let (mut hidden, mut shown, mut unreleased) = (VecDeque::new(), VecDeque::new(), 0);
        for (n, step) in (0..).zip(steps) {
            match step {
                Step::Push => {
                    let room = hidden.len() + shown.len() + unreleased < SIZE as usize;
                    prop_assert_eq!(producer.push(n), room);
                    if room {
                        hidden.push_back(n);
                    }
                }
                Step::Publish => {
                    producer.publish();
                    shown.append(&mut hidden);
                }
                Step::Pop => {
                    let expected = shown.pop_front();
                    prop_assert_eq!(consumer.pop(), expected);
                    unreleased += usize::from(expected.is_some());
                }
                Step::Release => {
                    consumer.release();
                    unreleased = 0;
                }
            }
            prop_assert_eq!(producer.outstanding() as usize, hidden.len() + shown.len() + unreleased);
        }
    }

    /// Whatever the other side's index says, no more is read or written than the ring holds.
    #[test]
    fn hostile_indices_are_bounded(hostile in prop::collection::vec(any::<u32>(), 1..20), start in any::<u32>()) {
        let memory = Memory::new(start);
        let other = memory.ring();
        let (mut producer, mut consumer) = memory.ends();
        for index in hostile {
            other.consumer().store(index, Ordering::Relaxed);
            prop_assert!(producer.free(SIZE) <= SIZE);
            prop_assert!(producer.outstanding() <= SIZE);
            let pushed = (0..2 * SIZE).filter(|_| producer.push(0)).count();
            prop_assert!(pushed <= SIZE as usize);
            other.producer().store(index, Ordering::Relaxed);
            prop_assert!(consumer.available() <= SIZE);
            let popped = (0..2 * SIZE).filter(|_| consumer.pop().is_some()).count();
            prop_assert!(popped <= 2 * SIZE as usize);
        }
    }
}
