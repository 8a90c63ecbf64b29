//! Batched transmit of the AF_PACKET driver, on veth pairs and a tap. Needs root.
//!
//! Batches serve threads that are in the port's network namespace, so each test body runs within it. That a
//! batch was used shows in a checksum: the socket hands on an unfinished one as it is.
#![allow(unsafe_code)] // the tap's fd
#![allow(clippy::unwrap_used)]

mod net;

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::Ordering;

use net::{End, Netns, assert_all_free, ethernet, forwarding, pool, snmp, transfer, wait_until};
use vswitch_io::{Pool, packet};
use vswitch_wire::{Csum, FrameBuf, FrameMeta, Gso, GsoKind, Mac, Tag, testing};

/// The longest frame that a batch takes, in bytes.
const LIMIT: usize = 31 * 64 - 16;

type Sent = (Vec<u8>, FrameMeta);

/// Runs a test within a namespace, with the driver at both ends of a veth pair.
fn linked(test: impl FnOnce(&Netns, &mut End, &mut End) + Send) {
    let (netns, pool) = (Netns::new(), pool());
    netns.veth("left", &netns, "right");
    netns.within(|| {
        let [mut left, mut right] = ["left", "right"].map(|name| open(name, pool));
        test(&netns, &mut left, &mut right);
    });
    assert_all_free(pool);
}

fn open(name: &str, pool: &'static Pool) -> End {
    let port = packet::open(name, 1, None).unwrap();
    assert_eq!(port.facts.mode, "vnet headers, batched transmit");
    End::new(port, pool)
}

fn plain(len: usize, seed: u8) -> Sent {
    (ethernet(len, seed), FrameMeta::default())
}

/// A UDP datagram whose checksum is unfinished, and the same with the checksum finished.
fn unfinished(payload: &[u8]) -> (Sent, Sent) {
    let built = testing::frame(Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]))
        .ip([10, 0, 0, 1], [10, 0, 0, 2])
        .udp(1000, 2000)
        .payload(payload);
    let unfinished = built.unfinished();
    ((unfinished.bytes().to_vec(), *unfinished.meta()), (built.bytes(), FrameMeta::default()))
}

#[test]
fn every_byte_of_a_full_batch_arrives_in_order() {
    linked(|_, left, right| {
        // Up, down, and around the edges: what one frame leaves in the shared buffer must not show in the next.
        let lengths: [&dyn Fn(usize) -> usize; 4] =
            [&|i| 60 + i, &|i| 1514 - 20 * i, &|i| if i % 2 == 0 { 14 + i } else { 1514 - i }, &|i| {
                [14, 59, 60, 61, 64, 1514, 600, 42][i % 8]
            }];
        for length in lengths {
            let sent: Vec<_> = (0..64).map(|i| plain(length(i), (i * 37) as u8)).collect();
            let bytes: usize = sent.iter().map(|(bytes, _)| bytes.len()).sum();
            let report = left.send(&sent);
            assert_eq!((report.sent, report.sent_bytes), (64, bytes as u64));
            assert_eq!(right.receive(64), sent);
        }
    });
}

#[test]
fn other_ethertypes_keep_theirs_and_the_order() {
    linked(|_, left, right| {
        let sent: Vec<_> = (0..64)
            .map(|i| {
                let mut frame = plain(100, i);
                let kind = [[8, 0], [0x86, 0xdd], [8, 6], [0, 60], [0x88, 0xcc]][usize::from(i) / 4 % 5];
                frame.0[12..14].copy_from_slice(&kind);
                frame
            })
            .collect();
        assert_eq!(left.send(&sent).sent, 64);
        assert_eq!(right.receive(64), sent);
    });
}

#[test]
fn unfinished_checksums_are_finished() {
    linked(|_, left, right| {
        let lengths = (0..40).map(|i| i * 36 + i % 3);
        let (sent, expected): (Vec<_>, Vec<_>) = lengths.map(|len| unfinished(&vec![len as u8; len])).unzip();
        assert_eq!(left.send(&sent).sent, 40);
        assert_eq!(right.receive(40), expected);
        // A sum of zero is written as 0xffff (RFC 768): the payload makes up what is missing.
        let (_, (bytes, _)) = unfinished(&[0, 0]);
        let missing = [bytes[40], bytes[41]];
        let (zero, _) = unfinished(&missing);
        assert_eq!(left.send(&[zero.clone(), zero.clone(), zero]).sent, 3);
        assert!(right.receive(3).iter().all(|(bytes, _)| bytes[40..42] == [0xff, 0xff]));
    });
}

#[test]
fn one_frame_or_two_take_the_shorter_way() {
    linked(|_, left, right| {
        let (sent, finished): (Vec<_>, Vec<_>) = (0..3).map(|i| unfinished(&[i; 20])).unzip();
        assert_eq!(left.send(&sent[..2]).sent, 2);
        assert_eq!(right.receive(2), sent[..2], "unfinished still: the socket took them");
        assert_eq!(left.send(&sent).sent, 3);
        assert_eq!(right.receive(3), finished);
    });
}

#[test]
fn tags_arrive_as_tags() {
    linked(|_, left, right| {
        let tagged = |tag, len| (ethernet(len, 7), FrameMeta { tag: Some(tag), ..FrameMeta::default() });
        let mut sent = Vec::new();
        // Identifiers at the edges, every priority, drop eligible; short, and full at MTU 1500.
        for (n, vid) in [1, 2, 100, 4094].into_iter().enumerate() {
            for priority in 0..8_u16 {
                let tci = priority << 13 | ((priority & 1) << 12) | vid;
                sent.push(tagged(Tag::dot1q(tci), [60, 1514][n % 2]));
            }
            sent.push(plain(60, n as u8)); // no tag of its neighbours comes upon it
        }
        sent.push(tagged(Tag::dot1q(0x6000), 60)); // priority-tagged
        sent.extend([60, 61, 62].map(|len| tagged(Tag { tpid: 0x88a8, tci: 100 }, len)));
        let mut double = tagged(Tag { tpid: 0x88a8, tci: 200 }, 64);
        double.0.splice(12..12, [0x81, 0, 0, 30]);
        sent.push(double);
        assert_eq!(left.send(&sent).sent, sent.len() as u32);
        assert_eq!(right.receive(sent.len()), sent);
    });
}

#[test]
fn small_and_large_frames_keep_their_order() {
    linked(|netns, left, right| {
        netns.ip("link set left mtu 9000");
        netns.ip("link set right mtu 9000");
        let lengths = [60, 9014, 61, LIMIT, LIMIT + 1, 62, 5000, 5001, LIMIT - 1, 63, 64, 2500, 65];
        let mut sent: Vec<_> = (0..).zip(lengths).map(|(seed, len)| plain(len, seed)).collect();
        let mut gso = unfinished(&[9; 30_000]).0;
        gso.1.offload.gso = Some(Gso { kind: GsoKind::Udp, size: 1400, ecn: false });
        sent.insert(3, gso.clone());
        sent.push(gso);
        for _ in 0..100 {
            assert_eq!(left.send(&sent).sent, sent.len() as u32);
            assert_eq!(right.receive(sent.len()), sent);
        }
    });
}

#[test]
fn what_is_no_frame_is_refused_alone() {
    linked(|_, left, right| {
        let mut beyond = plain(60, 1);
        beyond.1.offload.csum = Some(Csum { start: 60, offset: 16 });
        let mut tagged = (vec![2; 10], FrameMeta::default());
        tagged.1.tag = Some(Tag::dot1q(5));
        let cut = |len| (ethernet(14, 2)[..len].to_vec(), FrameMeta::default());
        let report = left.send(&[plain(60, 1), cut(13), beyond, tagged, cut(0), plain(14, 4)]);
        assert_eq!((report.sent, report.sent_bytes, report.full, report.refused), (2, 74, 0, 4));
        assert_eq!(right.receive(2), [plain(60, 1), plain(14, 4)]);
    });
}

#[test]
fn a_link_that_is_down_drops_and_recovers() {
    linked(|netns, left, right| {
        let sent: Vec<_> = (0..64).map(|i| plain(60, i)).collect();
        for down in ["left", "right"] {
            netns.ip(&format!("link set {down} down"));
            let report = left.send(&sent);
            assert_eq!((report.sent, report.full + report.refused), (0, 64), "{down}: {report:?}");
            netns.ip(&format!("link set {down} up"));
            wait_until("the carrier is back", || {
                left.send(&[plain(60, 99)]);
                !right.poll().unwrap().is_empty()
            });
        }
        while !right.poll().unwrap().is_empty() {}
        assert_eq!(left.send(&sent).sent, 64);
        assert_eq!(right.receive(64), sent);
    });
}

#[test]
fn frames_that_the_peer_refuses_are_counted() {
    linked(|netns, left, right| {
        netns.ip("link set left mtu 1000");
        netns.ip("link set right mtu 1000");
        let sent = [plain(1500, 1), plain(1014, 2), plain(1501, 3), plain(60, 4)];
        let report = left.send(&sent);
        assert_eq!((report.sent, report.full + report.refused), (2, 2), "{report:?}");
        assert_eq!(right.receive(2), [sent[1].clone(), sent[3].clone()]);
    });
}

#[test]
fn a_deleted_netdev_refuses_all() {
    linked(|netns, left, right| {
        netns.ip("link del left");
        let sent: Vec<_> = (0..64).map(|i| plain(60, i)).collect();
        assert_eq!((left.send(&sent).refused, right.send(&sent).refused), (64, 64));
    });
}

/// The interface indices of the two ends.
fn indices(netns: &Netns) -> [u32; 2] {
    // SAFETY: strings that end with a zero byte.
    netns.within(|| [c"left", c"right"].map(|name| unsafe { libc::if_nametoindex(name.as_ptr()) }))
}

#[test]
fn a_thread_of_another_namespace_sends_by_the_socket() {
    let other = Netns::new();
    // There, the same interface indices belong to other netdevs.
    other.veth("left", &other, "right");
    linked(|netns, left, right| {
        assert_eq!(indices(netns), indices(&other));
        let mut elsewhere = other.within(|| open("right", pool()));
        let (sent, finished): (Vec<_>, Vec<_>) = (0..8).map(|i| unfinished(&[i; 100])).unzip();
        other.within(|| assert_eq!(left.send(&sent).sent, 8));
        assert_eq!(right.receive(8), sent, "unfinished still: the socket took them");
        assert_eq!(left.send(&sent).sent, 8);
        assert_eq!(right.receive(8), finished);
        assert_eq!(elsewhere.poll().unwrap(), []);
    });
}

/// Opens the switch's side of a tap as a hypervisor does.
fn hold_tap(name: &str) -> File {
    let file =
        File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun").unwrap();
    // SAFETY: all zero is a valid `ifreq`, and TUNSETIFF reads one.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        assert_eq!(libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request), 0);
    }
    file
}

/// Frames that a netdev of the calling thread's namespace dropped on their way out.
fn dropped_by(name: &str) -> usize {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().nth(11).unwrap().parse().unwrap()
}

#[test]
fn a_guest_that_does_not_read_stalls_nothing() {
    let (netns, pool) = (Netns::new(), pool());
    netns.within(|| {
        let mut guest = hold_tap("tap0");
        netns.ip("link set tap0 txqueuelen 100");
        // Without, the host sends frames of its own.
        std::fs::write("/proc/sys/net/ipv6/conf/tap0/disable_ipv6", "1").unwrap();
        netns.ip("link set tap0 up");
        let mut port = open("tap0", pool);
        let batch: Vec<_> = (0..64).map(|i| plain(64 + i, 1)).collect();
        let sent: usize = (0..20).map(|_| port.send(&batch).sent as usize).sum();
        let (mut seen, mut buffer) = (0, [0; 2048]);
        while let Ok(len) = guest.read(&mut buffer) {
            assert_eq!(buffer[..len], batch[seen % 64].0);
            seen += 1;
        }
        assert!(seen >= 64, "{seen} of {sent}");
        assert_eq!(sent, seen + dropped_by("tap0"), "what the guest did not get, the tap counts");
    });
    assert_all_free(pool);
}

#[test]
fn tcp_of_small_segments_arrives_whole() {
    let (switch, pool) = (Netns::new(), pool());
    let hosts = [1, 2].map(|n| {
        let host = Netns::new();
        switch.veth(&format!("s{n}"), &host, "eth0");
        host.address(n, "eth0");
        // Every segment is a frame of its own, its checksum left to the switch.
        assert!(host.succeeds("ethtool -K eth0 tso off gso off"), "ethtool is installed");
        host
    });
    switch.within(|| {
        forwarding(["s1", "s2"].map(|name| open(name, pool).port), pool, |seen| {
            for address in ["10.1.0.2:0", "[fd01::2]:0"] {
                transfer(&hosts[0], &hosts[1], address.parse().unwrap(), 4 << 20);
            }
            assert_eq!(seen.longest.load(Ordering::Relaxed), 1514);
        });
    });
    assert_eq!(snmp(&hosts[1], "Tcp", "InCsumErrors"), 0);
}
