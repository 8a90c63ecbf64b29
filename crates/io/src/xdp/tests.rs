//! What cannot be reached from outside: modes that are fallbacks, and the kernel's side of a teardown. Needs root;
//! each test's thread has a network namespace of its own, which ends with it.

use std::fs::File;
use std::io::{Read, Write};
use std::mem::zeroed;
use std::process::Command;

use vswitch_wire::FrameBuf;

use super::*;
use crate::pool::{FrameClass, FrameVec, PoolConfig};
use crate::{PoolCache, TxReport};

fn enter_own_namespace() {
    // SAFETY: plain system calls; the namespace is this thread's alone.
    unsafe {
        assert_eq!(libc::geteuid(), 0, "these tests need root: they make network namespaces");
        assert_eq!(libc::unshare(libc::CLONE_NEWNET), 0, "{}", io::Error::last_os_error());
    }
}

fn run(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn pool() -> &'static Pool {
    Pool::new(PoolConfig { wire: 2048, large: 8 }).unwrap()
}

fn assert_whole(pool: &Pool) {
    assert_eq!((pool.free(FrameClass::Wire), pool.free(FrameClass::Large)), (2048, 8), "frames are missing");
}

/// A tap whose fd is ours, as a virtual machine's would be.
fn tap(name: &str) -> File {
    let tun = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: plain numbers.
    let mut request: libc::ifreq = unsafe { zeroed() };
    request.ifr_name.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from as libc::c_char);
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request is live.
    assert_eq!(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) }, 0);
    // Not by sysctl(8), which a small system lacks.
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
    run(&format!("ip link set dev {name} up"));
    tun
}

/// The next frame, within about two seconds.
fn receive(port: &mut Opened, cache: &mut PoolCache) -> Vec<u8> {
    let mut batch = FrameVec::new(1);
    for _ in 0..20 {
        port.rx[0].arm();
        if port.rx[0].rx(cache, &mut batch).unwrap() == 1 {
            return batch.drain().next().unwrap().bytes().to_vec();
        }
        let fd = port.rx[0].fd().unwrap().as_raw_fd();
        let mut wait = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        // SAFETY: one descriptor, as is said.
        unsafe { libc::poll(&raw mut wait, 1, 100) };
    }
    panic!("no frame");
}

fn send(port: &mut Opened, cache: &mut PoolCache, bytes: &[u8]) -> TxReport {
    let mut frame = cache.acquire_for(bytes.len()).unwrap();
    frame.set_len(bytes.len());
    frame.bytes_mut().copy_from_slice(bytes);
    let mut batch = FrameVec::new(1);
    batch.push(frame).unwrap();
    port.tx[0].tx(cache, &mut batch)
}

/// Both ways through a tap, in this mode; tags and all.
fn tap_carries_frames(mode: Mode, words: &str) {
    enter_own_namespace();
    let mut guest = tap("vm");
    let pool = pool();
    let mut cache = pool.cache();
    let mut port = open_in(&[mode], "vm", 1, pool, Options::default()).unwrap();
    assert_eq!((port.facts.mode.as_str(), &port.facts.vlan), (words, &Ok(())));
    run("ip link set dev vm mtu 9000");
    for len in [60, 1514, 3900, 9014] {
        let mut frame = vec![0x5a; len];
        frame[12..16].copy_from_slice(&[0x81, 0x00, 0x00, 0x0a]); // VLAN 10: stays in the bytes
        frame[16..18].copy_from_slice(&[0x88, 0xb5]);
        guest.write_all(&frame).unwrap();
        assert!(receive(&mut port, &mut cache) == frame, "{len} bytes from the guest");
        assert_eq!(send(&mut port, &mut cache, &frame).sent, 1);
        let mut got = vec![0; 10000];
        let n = guest.read(&mut got).unwrap();
        assert!(got[..n] == frame, "{len} bytes to the guest");
    }
    drop((port, cache));
    assert_whole(pool);
}

#[test]
fn a_tap_in_native_mode() {
    tap_carries_frames(Mode::Native, "native, copy");
}

#[test]
fn a_tap_in_generic_mode() {
    tap_carries_frames(Mode::Generic, "generic, copy");
}

#[test]
fn a_veth_in_generic_mode_would_lose_tags() {
    enter_own_namespace();
    run("ip link add name v0 type veth peer name v1");
    let pool = pool();
    let refused = open_in(&[Mode::Generic], "v0", 1, pool, Options::default()).err().unwrap();
    assert!(refused.to_string().contains("would lose VLAN tags"), "{refused}");
    assert_whole(pool);
}

#[test]
fn tag_stripping_is_off_for_as_long_as_it_is_held() {
    enter_own_namespace();
    run("ip link add name v0 type veth peer name v1");
    let state = || {
        let all = run("ethtool -k v0");
        let of = |name| all.lines().filter(|l| l.starts_with(name)).map(str::to_owned).collect::<String>();
        (of("rx-vlan-offload"), of("rx-vlan-stag-hw-parse"))
    };
    let before = state();
    assert_eq!(before, ("rx-vlan-offload: on".to_owned(), "rx-vlan-stag-hw-parse: on".to_owned()));
    let held = features::keep_tags("v0").unwrap().ok().unwrap();
    assert_eq!(state(), ("rx-vlan-offload: off".to_owned(), "rx-vlan-stag-hw-parse: off".to_owned()));
    drop(held);
    assert_eq!(state(), before);
}

#[test]
fn a_teardown_is_seen_to_end() {
    enter_own_namespace();
    run("ip link add name v0 type veth peer name v1");
    let (pool, device) = (pool(), Device::find("v0").unwrap());
    let (first, rings) = Socket::bind(pool, device.ifindex, 0, 64, libc::XDP_COPY).unwrap();
    let queue = first.queue();
    assert!(!socket::is_torn_down(queue, pool), "while it lives");
    drop(rings);
    drop(first);
    assert!(socket::is_torn_down(queue, pool), "after");
}

/// Frames that a dead port left in its tx ring.
#[test]
fn frames_that_were_never_sent_come_back() {
    enter_own_namespace();
    run("ip link add name v0 type veth peer name v1");
    let pool = pool();
    let mut cache = pool.cache();
    let mut port = open("v0", 1, pool, Options::default()).unwrap();
    assert_eq!(send(&mut port, &mut cache, &[0; 60]).sent, 1, "on the ring: the link is down");
    drop((port, cache));
    assert_whole(pool);
}
