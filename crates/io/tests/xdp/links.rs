//! Links that go, come and go down; ports that open again and leave nothing behind.

use vswitch_io::PortError;

use crate::lab::{Host, enter_switch, run};
use crate::net::wait_until;
use crate::port::Port;
use crate::{assert_whole, frame, pool};

#[test]
fn a_deleted_link_is_gone_and_its_frames_come_back() {
    enter_switch();
    let _host = Host::new("p1", "");
    let pool = pool();
    let mut port = Port::open("p1", pool);
    run("ip link del p1");
    wait_until("the port is gone", || matches!(port.poll(10), Err(PortError::Gone)));
    let report = port.send_bytes(&[frame(1, 60), frame(2, 60)]);
    assert_eq!((report.sent, report.refused, report.full), (0, 2, 0));
    assert!(matches!(port.poll(0), Err(PortError::Gone)), "for ever");
    drop(port);
    assert_whole(pool);
}

#[test]
fn sending_into_a_deleted_link_is_found_out() {
    enter_switch();
    let _host = Host::new("p1", "");
    let pool = pool();
    let mut port = Port::open("p1", pool);
    run("ip link del p1");
    port.send_bytes(&[frame(1, 60)]); // on the ring before the kernel says that it is gone
    assert!(matches!(port.rx(), Err(PortError::Gone)));
    drop(port);
    assert_whole(pool);
}

#[test]
fn a_link_that_is_down_is_no_error() {
    enter_switch();
    let host = Host::new("p1", "").socket();
    let pool = pool();
    let mut port = Port::open("p1", pool);
    run("ip link set p1 down");
    port.poll(10).unwrap();
    port.send_bytes(&[frame(1, 60)]); // finds out, and stays on the ring
    let report = port.send_bytes(&[frame(2, 60), frame(3, 60)]);
    assert_eq!((report.sent, report.refused, report.full), (0, 2, 0));
    port.poll(10).unwrap();
    run("ip link set p1 up");
    wait_until("frames are sent again", || port.send_bytes(&[frame(4, 60)]).sent == 1);
    wait_until("the frame arrives", || host.receive().is_some_and(|f| f.bytes == frame(4, 60)));
    host.send(&frame(5, 60));
    assert_eq!(port.receive().0, frame(5, 60));
    drop(port);
    assert_whole(pool);
}

#[test]
fn a_port_opens_while_its_link_is_down() {
    enter_switch();
    let host = Host::new("p1", "").socket();
    run("ip link set p1 down");
    let pool = pool();
    let mut port = Port::open("p1", pool);
    port.poll(10).unwrap();
    run("ip link set p1 up");
    wait_until("the link is up", || run("ip link show p1").contains("LOWER_UP"));
    host.send(&frame(1, 60));
    assert_eq!(port.receive().0, frame(1, 60));
}

#[test]
fn a_port_opens_again_at_once() {
    enter_switch();
    let host = Host::new("p1", "").socket();
    let pool = pool();
    for n in 0..5 {
        let mut port = Port::open("p1", pool);
        host.send(&frame(n, 60));
        assert_eq!(port.receive().0, frame(n, 60));
        assert_eq!(port.send_bytes(&[frame(n, 60)]).sent, 1);
        assert_eq!(host.receive().unwrap().bytes, frame(n, 60));
    }
    assert_whole(pool);
}

#[test]
fn nothing_is_left_on_the_device() {
    enter_switch();
    let host = Host::new("p1", "");
    // The kernel tells of the carrier in its own time.
    wait_until("the link to be up", || run("ip link show p1").contains("state UP"));
    let tso = || host.inside(|| run("ethtool -k eth"));
    let before = (run("ip -details link show p1"), tso());
    let port = Port::open("p1", pool());
    assert!(run("ip -details link show p1").contains("prog/xdp"));
    drop(port);
    assert_eq!((run("ip -details link show p1"), tso()), before);
}
