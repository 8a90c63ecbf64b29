//! Storm limits over time.

mod testbed;

use std::time::Duration;

use proptest::prelude::*;
use testbed::*;
use vswitch_dataplane::{Port, Reason, Storm, Verdict};
use vswitch_wire::Mac;
use vswitch_wire::testing::VecFrame;

fn limited(broadcast: u32) -> Switch {
    let storm = Storm { broadcast: Some(broadcast), ..Storm::default() };
    Switch::new(&[Port { storm, ..port(access(0)) }, port(access(0))], 1)
}

/// Sends so many broadcasts at once; how many were flooded.
fn burst(switch: &mut Switch, frames: usize) -> usize {
    let mut batch = vec![VecFrame::new(&eth(Mac::BROADCAST, A, &[], b"storm")); frames];
    switch.receive(0, &mut batch).iter().filter(|o| matches!(o.verdict, Verdict::Flood { .. })).count()
}

#[test]
fn a_burst_is_a_tenth_of_a_second_and_at_least_one_frame() {
    for (rate, frames) in [(0, 0), (1, 1), (9, 1), (10, 1), (20, 2), (1000, 100), (1009, 100)] {
        let mut switch = limited(rate);
        assert_eq!(burst(&mut switch, 300), frames, "at {rate} packets/s");
        assert_eq!(burst(&mut switch, 300), 0, "at {rate} packets/s, again");
    }
}

#[test]
fn what_is_over_the_limit_is_counted() {
    let mut switch = limited(20);
    burst(&mut switch, 5);
    let counters = &switch.snapshot.port(vswitch_dataplane::PortId(0)).unwrap().counters[0];
    assert_eq!(counters.drops[Reason::StormBroadcast.index()].get(), 3);
    assert_eq!(counters.flooded.get(), 2);
    switch.assert_conserved();
}

#[test]
fn tokens_come_back_at_the_rate_to_the_nanosecond() {
    let mut switch = limited(1000);
    burst(&mut switch, 100);
    switch.now = switch.now + Duration::from_nanos(999_999);
    assert_eq!(burst(&mut switch, 1), 0);
    switch.now = switch.now + Duration::from_nanos(1);
    assert_eq!(burst(&mut switch, 2), 1);
    // Not more than a burst, however long it was quiet.
    switch.now = switch.now + Duration::from_secs(1_000_000);
    assert_eq!(burst(&mut switch, 300), 100);
}

#[test]
fn a_lower_limit_holds_at_once() {
    let mut switch = limited(1000);
    let storm = Storm { broadcast: Some(20), ..Storm::default() };
    switch.configure(&[Port { storm, ..port(access(0)) }, port(access(0))]);
    assert_eq!(burst(&mut switch, 300), 2);
}

#[test]
fn a_clock_that_stands_or_goes_back_gives_nothing() {
    let mut switch = limited(1000);
    burst(&mut switch, 300);
    let then = switch.now;
    switch.now = vswitch_wire::Instant::ZERO;
    assert_eq!(burst(&mut switch, 10), 0);
    switch.now = then;
    assert_eq!(burst(&mut switch, 10), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Over any time, what passes is at most the burst and the rate. Under constant pressure it is exactly that,
    /// unless a gap fills the bucket: up to one token is in it before the gap, so it has room for the others.
    #[test]
    fn the_rate_holds_over_any_time(rate in 1..10_000_u32, gaps in prop::collection::vec(1..50_000_000_u64, 1..40)) {
        let mut switch = limited(rate);
        let most = u64::from((rate / 10).max(1));
        let room = (most - 1) * 1_000_000_000 / u64::from(rate);
        let pressure = usize::try_from(most).unwrap() + 1;
        let mut passed = burst(&mut switch, pressure) as u64;
        prop_assert_eq!(passed, most);
        let (mut elapsed, mut overflowed) = (0, false);
        for gap in gaps {
            elapsed += gap;
            overflowed |= gap > room;
            switch.now = switch.now + Duration::from_nanos(gap);
            passed += burst(&mut switch, pressure) as u64;
            let due = most + elapsed * u64::from(rate) / 1_000_000_000;
            prop_assert!(passed <= due, "{} of {} frames passed", passed, due);
            prop_assert!(overflowed || passed == due, "{} of {} frames passed", passed, due);
        }
    }
}
