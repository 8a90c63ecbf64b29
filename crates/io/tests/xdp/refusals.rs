//! Devices that cannot be had, and the reason that is told.

use vswitch_io::OpenError;
use vswitch_io::xdp::{self, Options};

use crate::lab::{Host, enter_switch, run};
use crate::port::Port;
use crate::{assert_whole, bpf, ifindex, pool};

#[test]
fn a_queue_in_use_is_refused() {
    enter_switch();
    let _host = Host::new("p1", "");
    let (pool, other) = (pool(), pool());
    let port = Port::open("p1", pool);
    let refused = xdp::open("p1", 1, other, Options::default()).err().unwrap();
    assert!(refused.to_string().contains("queue 0 of `p1` is served by"), "{refused}");
    assert_whole(other);
    drop(port);
    assert_whole(pool);
}

#[test]
fn a_foreign_program_is_left_alone() {
    enter_switch();
    let _host = Host::new("p1", "");
    let pool = pool();
    let foreign = bpf::pass(ifindex(c"p1")).unwrap();
    let refused = xdp::open("p1", 1, pool, Options::default()).err().unwrap();
    assert!(refused.to_string().contains("another XDP program (id "), "{refused}");
    assert!(run("ip -details link show p1").contains("prog/xdp"));
    assert_whole(pool);
    drop(foreign);
    drop(Port::open("p1", pool));
    assert_whole(pool);
}

#[test]
fn devices_that_do_not_suit_are_refused_with_the_reason() {
    enter_switch();
    let pool = pool();
    let refusal = |name: &str| xdp::open(name, 1, pool, Options::default()).err().unwrap();
    for name in ["none", "", "a/b", "a-name-that-is-too-long"] {
        assert!(matches!(refusal(name), OpenError::NoDevice(_)), "{name}");
    }
    run("ip link add name br type bridge");
    let refused = refusal("br").to_string();
    assert!(refused.contains("would lose VLAN tags") && refused.contains("packet"), "{refused}");
    assert_whole(pool);
}
