//! Any frames to the switch as a host: it answers each at most once, from its own MAC, and falls over none.

#![no_main]

use std::net::IpAddr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use vswitch_protocols::host::Host;
use vswitch_wire::{Instant, Mac};

const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);

fuzz_target!(|bytes: &[u8]| {
    let addresses = [(IpAddr::from([10, 0, 0, 1]), 24), ("2001:db8::1".parse().expect("an address"), 64)];
    let mut host = Host::new(OWN, &addresses, 1500, 1);
    let mut now = Instant::ZERO;
    let mut rest = bytes;
    // A length and a time, then a frame of that length.
    while let Some((&[len, wait], tail)) = rest.split_first_chunk() {
        let (frame, tail) = tail.split_at(tail.len().min(usize::from(len)));
        rest = tail;
        let mut sent = 0;
        host.input(now, frame, |answer| {
            assert_eq!(answer[6..12], OWN.0);
            sent += 1;
        });
        assert!(sent <= 1);
        now = now + Duration::from_millis(u64::from(wait) * 10);
        host.poll(now, |_| ());
    }
});
