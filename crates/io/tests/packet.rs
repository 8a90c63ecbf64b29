//! The AF_PACKET driver on veth pairs. Needs root.
#![allow(clippy::unwrap_used)]

mod net;

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::Ordering;

use net::{
    End, Netns, Seen, assert_all_free, datagrams, ethernet, forwarding, pool, snmp, transfer, unfinished,
    wait_until,
};
use vswitch_io::{OpenError, Opened, Pool, packet};
use vswitch_wire::{Csum, FrameMeta, Gso, GsoKind, Tag};

fn open(netns: &Netns, name: &str) -> Opened {
    netns.within(|| packet::open(name, 1, None)).unwrap()
}

/// A veth pair with the driver at both ends.
fn linked() -> (Netns, [End; 2], &'static Pool) {
    let (netns, pool) = (Netns::new(), pool());
    netns.veth("left", &netns, "right");
    let ends = ["left", "right"].map(|name| End::new(open(&netns, name), pool));
    (netns, ends, pool)
}

/// The programs that this process holds by tcx links, each once.
fn programs_of_links() -> BTreeSet<String> {
    let infos = fs::read_dir("/proc/self/fdinfo").unwrap();
    // Another test may close one meanwhile.
    let infos: Vec<String> = infos.filter_map(|info| fs::read_to_string(info.unwrap().path()).ok()).collect();
    let links = infos.iter().filter(|info| info.contains("link_type:\ttcx"));
    links
        .flat_map(|info| info.lines().filter(|line| line.starts_with("prog_id:")))
        .map(str::to_owned)
        .collect()
}

#[test]
fn filters_share_the_program_that_keeps_the_host_off() {
    let netns = Netns::new();
    netns.veth("left", &netns, "right");
    let _filters = std::thread::scope(|scope| {
        ["left", "right"]
            .map(|name| scope.spawn(|| netns.keep_off(name, None)))
            .map(|held| held.join().unwrap())
    });
    assert_eq!(programs_of_links().len(), 1);
}

fn plain(len: usize, seed: u8) -> (Vec<u8>, FrameMeta) {
    (ethernet(len, seed), FrameMeta::default())
}

fn tagged(tag: Tag) -> (Vec<u8>, FrameMeta) {
    (ethernet(100, 7), FrameMeta { tag: Some(tag), ..FrameMeta::default() })
}

#[test]
fn frames_arrive_whole_and_in_order() {
    let (netns, [mut left, mut right], pool) = linked();
    netns.ip("link set left mtu 9000");
    netns.ip("link set right mtu 9000");
    // Around the sizes at which the way changes: ring, waiting socket, wire and large frames.
    let lengths = [60, 1514, 9014, 60, 1800, 1930, 61, 2000, 3000, 62, 4000, 5000, 1942, 1943, 63, 9014];
    let sent: Vec<_> = (0..).zip(lengths).map(|(seed, len)| plain(len, seed)).collect();
    assert_eq!(left.send(&sent).sent, 16);
    assert_eq!(right.receive(16), sent);
    assert_eq!(right.send(&sent).sent_bytes, lengths.iter().sum::<usize>() as u64);
    assert_eq!(left.receive(16), sent);
    assert_eq!((left.port.rx[0].missed(), right.port.rx[0].missed()), (0, 0));
    drop((left, right));
    assert_all_free(pool);
}

#[test]
fn tags_travel_beside_the_bytes() {
    let (_netns, [mut left, mut right], _) = linked();
    let mut double = tagged(Tag { tpid: 0x88a8, tci: 200 });
    double.0.splice(12..12, [0x81, 0, 0, 30]);
    let sent = vec![
        tagged(Tag::dot1q(10)),
        tagged(Tag::dot1q(0xe000 | 0x1000 | 4094)),
        tagged(Tag::dot1q(0x6000)),
        tagged(Tag { tpid: 0x88a8, tci: 100 }),
        double,
        plain(100, 1),
    ];
    assert_eq!(left.send(&sent).sent, 6);
    assert_eq!(right.receive(6), sent);
    // The same tag within the bytes comes out beside them.
    let mut inside = plain(100, 7);
    inside.0.splice(12..12, [0x81, 0, 0, 10]);
    assert_eq!(right.send(&[inside]).sent, 1);
    assert_eq!(left.receive(1), [tagged(Tag::dot1q(10))]);
}

#[test]
fn unfinished_work_travels_with_the_frame() {
    let (_netns, [mut left, mut right], _) = linked();
    let mut sent = vec![
        unfinished(GsoKind::Tcp4, false, 0, 0),
        unfinished(GsoKind::Udp, true, 1000, 0),
        unfinished(GsoKind::Tcp4, false, 64_000, 1448),
        unfinished(GsoKind::Tcp6, true, 64_000, 1428),
        unfinished(GsoKind::Udp, false, 40_000, 1400),
        unfinished(GsoKind::Udp, true, 40_000, 1400),
        unfinished(GsoKind::Tcp4, false, 1000, 500),
        unfinished(GsoKind::Tcp6, true, 3000, 1000),
    ];
    let mut tagged = unfinished(GsoKind::Tcp4, false, 30_000, 1444);
    tagged.1.tag = Some(Tag::dot1q(10));
    sent.push(tagged);
    assert_eq!(left.send(&sent).sent, sent.len() as u32);
    assert_eq!(right.receive(sent.len()), sent);
}

#[test]
fn metadata_that_cannot_be_true_is_refused() {
    let (_netns, [mut left, mut right], pool) = linked();
    let mut beyond = plain(60, 1);
    beyond.1.offload.csum = Some(Csum { start: 60, offset: 16 });
    let mut sizeless = unfinished(GsoKind::Tcp4, false, 3000, 1);
    sizeless.1.offload.gso = Some(Gso { kind: GsoKind::Tcp4, size: 0, ecn: false });
    let report = left.send(&[beyond, sizeless, plain(60, 2)]);
    assert_eq!((report.sent, report.refused), (1, 2));
    assert_eq!(right.receive(1), [plain(60, 2)]);
    drop((left, right));
    assert_all_free(pool);
}

#[test]
fn the_rings_go_round_many_times() {
    let (_netns, [mut left, mut right], pool) = linked();
    for round in 0..200_u8 {
        let sent: Vec<_> = (0..64).map(|i| plain(60 + usize::from(i), round ^ i)).collect();
        assert_eq!(left.send(&sent).sent, 64);
        assert_eq!(right.receive(64), sent);
    }
    drop((left, right));
    assert_all_free(pool);
}

/// Two hosts behind veths, and a loop that forwards between their ports.
fn with_hosts(mtu: u32, test: impl FnOnce(&Netns, &Netns, &Seen)) {
    let (switch, pool) = (Netns::new(), pool());
    let hosts = [1, 2].map(|n| {
        let host = Netns::new();
        switch.veth(&format!("s{n}"), &host, "eth0");
        switch.ip(&format!("link set s{n} mtu {mtu}"));
        host.ip(&format!("link set eth0 mtu {mtu}"));
        host.address(n, "eth0");
        host
    });
    let ports = [open(&switch, "s1"), open(&switch, "s2")];
    forwarding(ports, pool, |seen| test(&hosts[0], &hosts[1], seen));
}

#[test]
fn tcp_keeps_gso_and_every_byte() {
    with_hosts(1500, |a, b, seen| {
        for address in ["10.1.0.2:0", "[fd01::2]:0"] {
            seen.longest.store(0, Ordering::Relaxed);
            transfer(a, b, address.parse().unwrap(), 64 << 20);
            assert!(seen.longest.load(Ordering::Relaxed) > 30_000, "GSO was lost: {address}");
        }
        assert!(seen.gso.load(Ordering::Relaxed) > 100);
        assert_eq!(snmp(b, "Tcp", "InCsumErrors"), 0);
    });
}

#[test]
fn udp_keeps_gso_and_every_datagram() {
    with_hosts(1500, |a, b, seen| {
        for address in ["10.1.0.2:0", "[fd01::2]:0"] {
            seen.gso.store(0, Ordering::Relaxed);
            datagrams(a, b, address.parse().unwrap());
            assert_eq!(seen.gso.load(Ordering::Relaxed), 1, "GSO was lost: {address}");
        }
        assert_eq!(snmp(b, "Udp", "InCsumErrors"), 0);
    });
}

#[test]
fn tcp_in_a_tunnel_of_the_hosts_own_arrives() {
    with_hosts(1500, |a, b, _| {
        for (host, n, peer) in [(a, 1, 2), (b, 2, 1)] {
            host.ip(&format!(
                "link add vx0 type vxlan id 7 dstport 4789 local 10.1.0.{n} remote 10.1.0.{peer}"
            ));
            host.ip("link set vx0 up");
            host.ip(&format!("addr add 10.2.0.{n}/24 dev vx0"));
        }
        transfer(a, b, "10.2.0.2:0".parse().unwrap(), 16 << 20);
        assert_eq!(snmp(b, "Tcp", "InCsumErrors"), 0);
        assert_eq!(snmp(b, "Udp", "InCsumErrors"), 0);
    });
}

#[test]
fn jumbo_tcp_without_segmentation_offload_arrives() {
    with_hosts(9000, |a, b, seen| {
        assert!(a.succeeds("ethtool -K eth0 tso off gso off"), "ethtool is installed");
        transfer(a, b, "10.1.0.2:0".parse().unwrap(), 32 << 20);
        assert_eq!(seen.longest.load(Ordering::Relaxed), 9014);
        assert_eq!(snmp(b, "Tcp", "InCsumErrors"), 0);
    });
}

#[test]
fn the_host_of_the_switch_stays_silent() {
    let (switch, host, pool) = (Netns::new(), Netns::new(), pool());
    switch.veth("s1", &host, "eth0");
    switch.ip("addr add 10.1.0.1/24 dev s1");
    host.ip("addr add 10.1.0.2/24 dev eth0");
    let filter = switch.keep_off("s1", None);
    let mut end = End::new(open(&switch, "s1"), pool);
    assert_eq!(end.port.facts.mode, "vnet headers, batched transmit");
    assert!(!host.succeeds("ping -c 2 -i 0.2 -W 1 10.1.0.1"), "the host's stack answered");
    assert_eq!(end.poll().unwrap().len(), 0);
    drop((end, filter));
    assert!(host.succeeds("ping -c 1 -W 5 10.1.0.1"), "without the filter it answers again");
}

/// Waits until frames pass, then asserts that none sent before is among them.
fn carries_what_is_new(from: &mut End, to: &mut End) {
    let probe = plain(60, 99);
    wait_until("the carrier is back", || {
        from.send(std::slice::from_ref(&probe));
        let got = to.poll().unwrap();
        assert!(got.iter().all(|frame| *frame == probe), "an old frame came late");
        !got.is_empty()
    });
    let sent: Vec<_> = (100..120).map(|i| plain(60, i)).collect();
    assert_eq!(from.send(&sent).sent, 20);
    let mut got = Vec::new();
    wait_until("the frames arrive", || {
        got.extend(to.poll().unwrap().into_iter().filter(|frame| *frame != probe));
        got.len() >= 20
    });
    assert_eq!(got, sent);
}

#[test]
fn a_link_that_is_down_is_no_error_and_recovers() {
    let (netns, [mut left, mut right], pool) = linked();
    netns.ip("link set left down");
    assert_eq!(left.send(&[plain(60, 1), plain(5000, 2), plain(61, 3)]).refused, 3);
    left.port.rx[0].arm();
    assert_eq!(left.poll().unwrap(), []);
    // The peer is up, but its frames go nowhere: each is counted, none blocks the ring.
    let early: Vec<_> = (0..20).map(|i| plain(60, i)).collect();
    right.send(&early);
    netns.ip("link set left up");
    carries_what_is_new(&mut right, &mut left);
    carries_what_is_new(&mut left, &mut right);
    drop((left, right));
    assert_all_free(pool);
}

#[test]
fn frames_over_the_mtu_are_counted_and_do_not_block_the_others() {
    let (netns, [mut left, mut right], _) = linked();
    netns.ip("link set left mtu 1000");
    netns.ip("link set right mtu 1000");
    let sent = [plain(1500, 1), plain(1014, 2), plain(1501, 3), plain(60, 4), plain(9000, 5), plain(61, 6)];
    let report = left.send(&sent);
    assert_eq!((report.sent, report.full + report.refused), (3, 3), "{report:?}");
    assert_eq!(right.receive(3), [sent[1].clone(), sent[3].clone(), sent[5].clone()]);
}

#[test]
fn a_deleted_netdev_is_gone() {
    let (netns, [mut left, mut right], pool) = linked();
    netns.ip("link del left");
    left.wait_gone();
    assert_eq!(left.send(&[plain(60, 1), plain(5000, 2)]).refused, 2);
    wait_until("a queue that is only polled notices too", || right.poll().is_err());
    drop((left, right));
    assert_all_free(pool);
    assert!(
        matches!(netns.within(|| packet::open("left", 1, None)), Err(OpenError::NoDevice(name)) if name == "left")
    );
}

#[test]
fn what_is_no_ethernet_is_refused() {
    let netns = Netns::new();
    let error = netns.within(|| packet::open("lo", 1, None)).err().unwrap();
    assert_eq!(error.to_string(), "`lo` is no Ethernet device");
}
