//! The tap driver, with the host's stack or the AF_PACKET driver on the tap's netdev. Needs root.
#![allow(unsafe_code)] // an ioctl, capget and capset are system calls
#![allow(clippy::unwrap_used)]

mod net;

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use net::{
    End, Netns, Seen, assert_all_free, datagrams, ethernet, forwarding, pool, snmp, transfer, wait_until,
};
use vswitch_io::{OpenError, Opened, Pool, PortError, packet, tap};
use vswitch_wire::{FrameMeta, Gso, GsoKind, Tag};

fn open(netns: &Netns, name: &str, workers: usize) -> Result<Opened, OpenError> {
    netns.within(|| {
        let port = tap::open(name, workers)?;
        tap::set_up(name).unwrap();
        Ok(port)
    })
}

/// A tap with the driver at its fd, and the AF_PACKET driver at its netdev.
fn linked(workers: usize) -> (Netns, End, End, &'static Pool) {
    let (netns, pool) = (Netns::new(), pool());
    let fd = End::new(open(&netns, "tap0", workers).unwrap(), pool);
    let netdev = End::new(netns.within(|| packet::open("tap0", 1, None)).unwrap(), pool);
    (netns, fd, netdev, pool)
}

fn plain(len: usize, seed: u8) -> (Vec<u8>, FrameMeta) {
    (ethernet(len, seed), FrameMeta::default())
}

#[test]
fn frames_pass_whole_and_in_order() {
    let (netns, mut fd, mut netdev, pool) = linked(1);
    netns.ip("link set tap0 mtu 65521");
    let lengths = [60, 1514, 9014, 61, 3000, 3007, 3008, 3009, 62, 30_000, 65_535, 63];
    let sent: Vec<_> = (0..).zip(lengths).map(|(seed, len)| plain(len, seed)).collect();
    assert_eq!(fd.send(&sent).sent, 12);
    assert_eq!(netdev.receive(12), sent);
    assert_eq!(netdev.send(&sent).sent, 12);
    assert_eq!(fd.receive(12), sent);
    assert_eq!(fd.port.rx[0].missed(), 0);
    drop((fd, netdev));
    assert_all_free(pool);
}

#[test]
fn tags_travel_within_the_bytes() {
    let (_netns, mut fd, mut netdev, _) = linked(1);
    let beside = (ethernet(100, 1), FrameMeta { tag: Some(Tag::dot1q(10)), ..FrameMeta::default() });
    let mut within = plain(100, 1);
    within.0.splice(12..12, [0x81, 0, 0, 10]);
    for sent in [&beside, &within] {
        assert_eq!(fd.send(std::slice::from_ref(sent)).sent, 1);
        assert_eq!(netdev.receive(1), std::slice::from_ref(&beside));
        assert_eq!(netdev.send(std::slice::from_ref(sent)).sent, 1);
        assert_eq!(fd.receive(1), std::slice::from_ref(&within));
    }
}

#[test]
fn metadata_that_cannot_be_true_is_refused() {
    let (_netns, mut fd, mut netdev, pool) = linked(1);
    let mut bad = plain(3000, 1);
    bad.1.offload.gso = Some(Gso { kind: GsoKind::Tcp4, size: 1000, ecn: false });
    let report = fd.send(&[bad, plain(60, 2)]);
    assert_eq!((report.sent, report.refused), (1, 1));
    assert_eq!(netdev.receive(1), [plain(60, 2)]);
    drop((fd, netdev));
    assert_all_free(pool);
}

/// Two hosts, each with a tap of ours, and a loop that forwards between them.
fn with_hosts(test: impl FnOnce(&Netns, &Netns, &Seen)) {
    let (hosts, pool) = ([Netns::new(), Netns::new()], pool());
    let ports = [1, 2].map(|n| {
        let host = &hosts[usize::from(n) - 1];
        let port = open(host, "tap0", 1).unwrap();
        host.address(n, "tap0");
        port
    });
    forwarding(ports, pool, |seen| test(&hosts[0], &hosts[1], seen));
}

#[test]
fn tcp_keeps_gso_and_every_byte() {
    with_hosts(|a, b, seen| {
        for address in ["10.1.0.2:0", "[fd01::2]:0"] {
            seen.longest.store(0, Ordering::Relaxed);
            transfer(a, b, address.parse().unwrap(), 64 << 20);
            assert!(seen.longest.load(Ordering::Relaxed) > 30_000, "GSO was lost: {address}");
        }
        assert_eq!(snmp(b, "Tcp", "InCsumErrors"), 0);
    });
}

#[test]
fn udp_keeps_gso_and_every_datagram() {
    with_hosts(|a, b, seen| {
        for address in ["10.1.0.2:0", "[fd01::2]:0"] {
            seen.gso.store(0, Ordering::Relaxed);
            datagrams(a, b, address.parse().unwrap());
            assert_eq!(seen.gso.load(Ordering::Relaxed), 1, "GSO was lost: {address}");
        }
        assert_eq!(snmp(b, "Udp", "InCsumErrors"), 0);
    });
}

#[test]
fn a_tap_and_a_veth_talk_tcp() {
    let (switch, hosts, pool) = (Netns::new(), [Netns::new(), Netns::new()], pool());
    let tap = open(&hosts[0], "tap0", 1).unwrap();
    hosts[0].address(1, "tap0");
    switch.veth("s2", &hosts[1], "eth0");
    hosts[1].address(2, "eth0");
    let veth = switch.within(|| packet::open("s2", 1, None)).unwrap();
    forwarding([tap, veth], pool, |_| {
        transfer(&hosts[0], &hosts[1], "10.1.0.2:0".parse().unwrap(), 32 << 20);
        transfer(&hosts[1], &hosts[0], "[fd01::1]:0".parse().unwrap(), 32 << 20);
        assert!(hosts.iter().all(|host| snmp(host, "Tcp", "InCsumErrors") == 0));
    });
}

#[test]
fn each_worker_has_a_queue() {
    let (_netns, mut fd, mut netdev, pool) = linked(2);
    assert_eq!((fd.port.rx.len(), fd.port.tx.len(), fd.port.facts.rx_queues), (2, 2, 2));
    let sent: Vec<_> = (0..40).map(|i| plain(60 + usize::from(i), i)).collect();
    assert_eq!(netdev.send(&sent).sent, 40);
    let mut got = fd.receive(40);
    got.sort_by_key(|(bytes, _)| bytes.len());
    assert_eq!(got, sent);
    fd.port.tx.swap(0, 1);
    assert_eq!(fd.send(&sent).sent, 40);
    assert_eq!(netdev.receive(40), sent);
    drop((fd, netdev));
    assert_all_free(pool);
}

#[test]
fn the_tap_goes_with_its_last_fd_and_a_persistent_one_stays() {
    let netns = Netns::new();
    drop(open(&netns, "tap0", 2).unwrap());
    assert!(!netns.succeeds("ip link show tap0"));
    for (flags, workers, queues) in [("", 1, 1), ("", 2, 1), ("multi_queue", 1, 1), ("multi_queue", 2, 2)] {
        netns.ip(&format!("tuntap add dev tap1 mode tap {flags}"));
        let port = open(&netns, "tap1", workers).unwrap();
        assert_eq!((port.rx.len(), port.tx.len()), (queues, workers), "{flags} {workers}");
        drop(port);
        assert!(netns.succeeds("ip link show tap1"), "{flags} {workers}");
        netns.ip("link del tap1");
    }
}

#[test]
fn an_existing_tap_is_left_as_it_is_until_told() {
    let netns = Netns::new();
    netns.ip("tuntap add tap0 mode tap");
    netns.ip("link set tap0 mtu 2000");
    let port = netns.within(|| tap::open("tap0", 1)).unwrap();
    assert_eq!((port.facts.mtu, port.facts.mtu_limit), (2000, 65521));
    netns.within(|| tap::set_mtu("tap0", 65521)).unwrap();
    assert!(netns.within(|| tap::set_mtu("tap0", 65522)).is_err());
}

#[test]
fn a_link_that_is_down_refuses_and_a_deleted_one_is_gone() {
    let (netns, mut fd, netdev, pool) = linked(1);
    drop(netdev);
    netns.ip("link set tap0 down");
    assert_eq!(fd.send(&[plain(60, 1)]).refused, 1);
    assert_eq!(fd.poll().unwrap(), []);
    netns.ip("link set tap0 up");
    assert_eq!(fd.send(&[plain(60, 1)]).sent, 1);
    netns.ip("link del tap0");
    fd.wait_gone();
    assert_eq!(fd.send(&[plain(60, 1)]).refused, 1);
    wait_until("the queue says so each time", || fd.poll().is_err());
    drop(fd);
    assert_all_free(pool);
}

#[test]
fn what_cannot_be_a_tap_of_ours_is_refused_with_the_reason() {
    let netns = Netns::new();
    let _other = open(&netns, "tap0", 1).unwrap();
    netns.ip("link add veth0 type veth peer name veth1");
    for (name, text) in [
        ("tap0", "the tap `tap0` is held by another program"),
        ("veth0", "`veth0` exists and is no tap, or is no name of a netdev"),
        ("a-name-of-16-bytes", "`a-name-of-16-bytes` exists and is no tap, or is no name of a netdev"),
        ("tap%d", "`tap%d` exists and is no tap, or is no name of a netdev"),
        ("", "`` exists and is no tap, or is no name of a netdev"),
    ] {
        assert_eq!(open(&netns, name, 1).err().unwrap().to_string(), text);
    }
}

/// A tap's fd as a guest's hypervisor holds it, with bare vnet headers of 10 bytes.
fn guest(name: &str) -> File {
    let tun = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: plain numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from as libc::c_char);
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the request is live.
    assert_eq!(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) }, 0);
    tun
}

/// A large datagram with the vnet header of a guest that leaves `gso_type` to do: in parts of 1000 bytes, checksum
/// needed.
fn large_datagram(gso_type: u8) -> ([u8; 10], Vec<u8>) {
    let mut bytes = ethernet(14 + 20 + 8 + 3000, 3);
    let ip = [0x45, 0, 11, 212, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    bytes[12..14].copy_from_slice(&[8, 0]);
    bytes[14..34].copy_from_slice(&ip);
    bytes[38..40].copy_from_slice(&3008_u16.to_be_bytes());
    ([1, gso_type, 42, 0, 232, 3, 34, 0, 6, 0], bytes)
}

fn write(guest: &mut File, (header, bytes): ([u8; 10], Vec<u8>)) {
    assert_eq!(guest.write(&[&header, &bytes[..]].concat()).unwrap(), header.len() + bytes.len());
}

/// `VIRTIO_NET_HDR_GSO_UDP`: fragmentation, of old.
const GSO_UDP: u8 = 3;

#[test]
fn a_frame_of_unknown_gso_is_counted_and_does_not_block_the_ring() {
    let (netns, pool) = (Netns::new(), pool());
    let mut guest = netns.within(|| guest("vm"));
    netns.ip("link set vm up");
    let mut port = End::new(netns.within(|| packet::open("vm", 1, None)).unwrap(), pool);
    for round in 0..3 {
        write(&mut guest, ([0; 10], ethernet(60, round)));
        assert_eq!(port.receive(1), [plain(60, round)]);
        // More than the ring has slots.
        (0..700).for_each(|_| write(&mut guest, large_datagram(GSO_UDP)));
        let (header, bytes) = large_datagram(5); // VIRTIO_NET_HDR_GSO_UDP_L4
        write(&mut guest, (header, bytes.clone()));
        let (got, meta) = port.receive(1).remove(0);
        let gso = Gso { kind: GsoKind::Udp, size: 1000, ecn: false };
        assert_eq!((got, meta.offload.gso), (bytes, Some(gso)));
        assert_eq!(port.port.rx[0].missed(), 700 * (u64::from(round) + 1));
    }
    assert!(!port.port.facts.mode.contains("GSO"), "{}", port.port.facts.mode);
    drop(port);
    assert_all_free(pool);
}

/// Takes CAP_PERFMON and CAP_SYS_ADMIN, which implies it, from the calling thread (capabilities(7)).
fn give_up_perfmon() {
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_SYS_ADMIN: u32 = 21;
    const CAP_PERFMON: u32 = 38;
    let header = [VERSION_3, 0]; // of this thread
    // Effective, permitted and inheritable; capabilities 0 to 31, then the others.
    let mut sets = [[0_u32; 3]; 2];
    // SAFETY: both are as long as version 3 says.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()), 0);
        sets[0][0] &= !(1 << CAP_SYS_ADMIN);
        sets[1][0] &= !(1 << (CAP_PERFMON - 32));
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()), 0);
    }
}

#[test]
fn without_a_filter_a_blocked_ring_is_found_out() {
    let (netns, pool) = (Netns::new(), pool());
    let mut guest = netns.within(|| guest("vm"));
    netns.ip("link set vm up");
    let open = || {
        give_up_perfmon();
        packet::open("vm", 1, None)
    };
    let mut port = End::new(netns.within(open).unwrap(), pool);
    let mode = &port.port.facts.mode;
    assert!(mode.contains("unknown GSO") && mode.contains("CAP_PERFMON"), "{mode}");
    for round in 0..3 {
        write(&mut guest, ([0; 10], ethernet(60, round)));
        assert_eq!(port.receive(1), [plain(60, round)]);
    }
    write(&mut guest, large_datagram(GSO_UDP));
    let mut error = None;
    let mut written = 1;
    wait_until("the driver to notice", || {
        write(&mut guest, ([0; 10], ethernet(60, 9)));
        written += 1;
        port.port.rx[0].arm();
        error = port.poll().err();
        error.is_some()
    });
    assert!(matches!(error, Some(PortError::Failed(_))), "{error:?}");
    assert!(written <= 4, "two looks do: {written}");
    assert_eq!(port.port.rx[0].missed(), written, "each frame is counted once");
    drop(port);
    assert_eq!(End::new(netns.within(open).unwrap(), pool).port.rx[0].missed(), 0);
    assert_all_free(pool);
}
