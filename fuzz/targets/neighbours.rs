//! Any frames between questions: nobody is believed who was not asked, and no time is without an end.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use vswitch_protocols::neighbours::{BURST, Neighbours, Station};
use vswitch_wire::{Instant, Mac};

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10));

fuzz_target!(|bytes: &[u8]| {
    let own = Station {
        mac: Mac([2, 0, 0, 0, 0, 1]),
        v4: Some(Ipv4Addr::new(192, 0, 2, 1)),
        v6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        link_local: None,
    };
    let mut machine = Neighbours::new(own, 1);
    let mut now = Instant::ZERO;
    let mut is_asked = false;
    for ip in [V4, V6] {
        machine.want(now, ip).expect("it can be asked for");
    }
    let mut rest = bytes;
    // A length and a time, then a frame of that length.
    while let Some((&[len, wait], tail)) = rest.split_first_chunk() {
        let (frame, tail) = tail.split_at(tail.len().min(usize::from(len)));
        rest = tail;
        machine.input(now, frame);
        assert!(is_asked || [V4, V6].iter().all(|ip| machine.lookup(*ip).is_none()));
        assert!([V4, V6].iter().filter_map(|ip| machine.lookup(*ip)).all(Mac::is_unicast));
        now = now + Duration::from_millis(u64::from(wait) * 100);
        let mut sent = 0;
        machine.poll(now, |_| sent += 1);
        assert!(sent <= BURST);
        is_asked |= sent > 0;
        assert!(machine.next_deadline().is_some());
    }
});
