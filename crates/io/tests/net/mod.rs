//! Namespaces, links and frames for the tests of drivers on the real kernel. They need root and iproute2,
//! and fail without.
#![allow(unsafe_code)] // setns and poll are system calls
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::disallowed_methods)] // deadlines of tests are in real time

pub mod foreign;

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vswitch_io::hoststack::HostFilter;
use vswitch_io::shortcut::Shortcut;
use vswitch_io::{Frame, FrameClass, FrameVec, Opened, Pool, PoolCache, PoolConfig, PortError, TxReport};
use vswitch_wire::segment::is_tunnelled;
use vswitch_wire::{Csum, FrameBuf, FrameMeta, Gso, GsoKind, Offload, Segmenter};

/// How long anything may take before a test fails.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A network namespace without a name: it goes with its last user, so a killed test leaves nothing behind.
pub struct Netns(File);

impl Netns {
    pub fn new() -> Self {
        let unshare = || {
            // SAFETY: moves the calling thread only, which ends here.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "these tests need root");
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        let netns = Self(thread::spawn(unshare).join().unwrap());
        netns.ip("link set lo up");
        netns
    }

    /// Runs `ip` with these arguments, parted by blanks.
    pub fn ip(&self, args: &str) {
        let output = self.run(&format!("ip {args}"));
        assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs a command in the namespace; whether it succeeded.
    pub fn succeeds(&self, command: &str) -> bool {
        self.run(command).status.success()
    }

    fn run(&self, command: &str) -> Output {
        let mut words = command.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        let fd = self.0.as_raw_fd();
        // SAFETY: setns may be called between fork and exec.
        unsafe {
            command.pre_exec(move || match libc::setns(fd, libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            })
        };
        command.args(words).output().expect("the command is installed")
    }

    /// Adds a veth pair, both ends up: `name` here, `peer_name` in `peer`.
    pub fn veth(&self, name: &str, peer: &Self, peer_name: &str) {
        let path = format!("/proc/{}/fd/{}", std::process::id(), peer.0.as_raw_fd());
        self.ip(&format!("link add {name} type veth peer name {peer_name} netns {path}"));
        self.ip(&format!("link set {name} up"));
        peer.ip(&format!("link set {peer_name} up"));
    }

    /// Gives a netdev the addresses `10.1.0.n/24` and `fd01::n/64`.
    pub fn address(&self, n: u8, netdev: &str) {
        self.ip(&format!("addr add 10.1.0.{n}/24 dev {netdev}"));
        self.ip(&format!("addr add fd01::{n}/64 dev {netdev} nodad"));
    }

    /// Interface index of a netdev.
    pub fn index(&self, netdev: &str) -> u32 {
        let name = CString::new(netdev).unwrap();
        // SAFETY: a string that ends with a zero byte.
        self.within(|| unsafe { libc::if_nametoindex(name.as_ptr()) })
    }

    /// Keeps the host's stack off a netdev.
    pub fn keep_off(&self, netdev: &str, shortcut: Option<&Shortcut>) -> HostFilter {
        let index = self.index(netdev);
        self.within(|| HostFilter::attach(index, shortcut)).unwrap()
    }

    /// Runs `f` on a thread that has entered the namespace; sockets and drivers that it makes stay there.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            // SAFETY: moves the calling thread only.
            assert_eq!(unsafe { libc::setns(self.0.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
            f()
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Keeps the calling thread on one CPU.
pub fn pin() {
    // SAFETY: all zero is a valid set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is as long as said.
    let pinned = unsafe {
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
    };
    assert_eq!(pinned, 0);
}

pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        thread::yield_now();
    }
}

pub fn pool() -> &'static Pool {
    Pool::new(PoolConfig { wire: 8192, large: 256 }).unwrap()
}

pub fn assert_all_free(pool: &Pool) {
    for class in [FrameClass::Wire, FrameClass::Large] {
        assert_eq!(pool.free(class), pool.total(class), "{class:?} frames were lost");
    }
}

/// A frame with these bytes and metadata.
pub fn frame(cache: &mut PoolCache, bytes: &[u8], meta: FrameMeta) -> Frame {
    let mut frame = cache.acquire_for(bytes.len()).unwrap();
    frame.set_len(bytes.len());
    frame.bytes_mut().copy_from_slice(bytes);
    *frame.meta_mut() = meta;
    frame
}

/// An Ethernet frame of a local experiment (IEEE 802 EtherType 88b5) of `len` bytes, told apart by `seed`.
pub fn ethernet(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed)).collect();
    bytes[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
    bytes
}

/// An IPv4 or IPv6 packet of TCP or UDP without options, its checksum unfinished, in an Ethernet frame.
pub fn unfinished(kind: GsoKind, v6: bool, payload: usize, size: u16) -> (Vec<u8>, FrameMeta) {
    let (protocol, l4_len, offset) = if kind == GsoKind::Udp { (17, 8, 6) } else { (6, 20, 16) };
    let l3 = if v6 { 40 } else { 20 };
    let mut bytes = ethernet(14 + l3 + l4_len + payload, 3);
    let len = (l4_len + payload) as u16;
    if v6 {
        bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
        bytes[14..22].copy_from_slice(&[0x60, 0, 0, 0, (len >> 8) as u8, len as u8, protocol, 64]);
    } else {
        bytes[12..14].copy_from_slice(&[8, 0]);
        let total = (len + 20).to_be_bytes();
        bytes[14..26].copy_from_slice(&[0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, protocol, 0, 0]);
    }
    let l4 = 14 + l3;
    if kind == GsoKind::Udp {
        bytes[l4 + 4..l4 + 6].copy_from_slice(&len.to_be_bytes());
    } else {
        bytes[l4 + 12..l4 + 14].copy_from_slice(&[0x50, 0x10]);
    }
    let offload = Offload {
        csum: Some(Csum { start: l4 as u16, offset }),
        gso: (size > 0).then_some(Gso { kind, size, ecn: false }),
    };
    (bytes, FrameMeta { offload, tag: None })
}

/// A port in the hands of a test.
pub struct End {
    pub port: Opened,
    pub cache: PoolCache,
    frames: FrameVec,
}

impl End {
    pub fn new(port: Opened, pool: &'static Pool) -> Self {
        Self { port, cache: pool.cache(), frames: FrameVec::new(64) }
    }

    /// Sends frames in one batch.
    pub fn send(&mut self, frames: &[(Vec<u8>, FrameMeta)]) -> TxReport {
        for (bytes, meta) in frames {
            self.frames.push(frame(&mut self.cache, bytes, *meta)).unwrap();
        }
        let report = self.port.tx[0].tx(&mut self.cache, &mut self.frames);
        assert!(self.frames.is_empty());
        assert_eq!((report.sent + report.full + report.refused) as usize, frames.len(), "{report:?}");
        report
    }

    /// What was received by now, from all queues, but for what the hosts' own stacks send.
    pub fn poll(&mut self) -> Result<Vec<(Vec<u8>, FrameMeta)>, PortError> {
        let mut got = Vec::new();
        for rx in &mut self.port.rx {
            rx.rx(&mut self.cache, &mut self.frames)?;
            for frame in self.frames.drain() {
                got.push((frame.bytes().to_vec(), *frame.meta()));
                self.cache.release(frame);
            }
        }
        got.retain(|(bytes, _)| bytes.get(..6) == Some(&[2, 0, 0, 0, 0, 1]));
        Ok(got)
    }

    /// Waits for so many frames.
    pub fn receive(&mut self, count: usize) -> Vec<(Vec<u8>, FrameMeta)> {
        let mut got = Vec::new();
        wait_until("the frames arrive", || {
            got.extend(self.poll().unwrap());
            got.len() >= count
        });
        got
    }

    /// Waits until the driver says that its device is gone.
    pub fn wait_gone(&mut self) {
        wait_until("the driver notices", || {
            self.port.rx.iter_mut().for_each(|rx| rx.arm());
            matches!(self.poll(), Err(PortError::Gone))
        });
    }
}

/// What a [`forward`] loop saw.
#[derive(Default)]
pub struct Seen {
    pub longest: AtomicU64,
    pub gso: AtomicU64,
}

/// Runs a test while frames are forwarded between two ports; afterwards every frame must be back in the pool.
pub fn forwarding(ports: [Opened; 2], pool: &'static Pool, test: impl FnOnce(&Seen)) {
    let (stop, seen) = (AtomicBool::new(false), Seen::default());
    thread::scope(|scope| {
        let forwarder = scope.spawn(|| forward(ports, pool, &stop, &seen));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&seen)));
        stop.store(true, Ordering::Relaxed);
        forwarder.join().unwrap();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert_all_free(pool);
}

/// Forwards until `stop`, sleeping while there is nothing to do.
fn forward(mut ports: [Opened; 2], pool: &'static Pool, stop: &AtomicBool, seen: &Seen) {
    let mut cache = pool.cache();
    let mut frames = FrameVec::new(64);
    while !stop.load(Ordering::Relaxed) {
        let mut busy = false;
        let [a, b] = &mut ports;
        for (from, to) in [(0, 1), (1, 0)] {
            let ports = [&mut *a, &mut *b];
            for queue in 0..ports[from].rx.len() {
                busy |= ports[from].rx[queue].rx(&mut cache, &mut frames).unwrap() > 0;
                for frame in frames.as_slice() {
                    seen.longest.fetch_max(frame.bytes().len() as u64, Ordering::Relaxed);
                    seen.gso.fetch_add(u64::from(frame.meta().offload.gso.is_some()), Ordering::Relaxed);
                }
                cut_tunnels(&mut cache, &mut frames);
                ports[to].tx[0].tx(&mut cache, &mut frames);
            }
        }
        if !busy {
            sleep_until_readable(&mut ports);
        }
    }
}

/// Does what the switch does at egress with GSO frames that a vnet header cannot describe.
fn cut_tunnels(cache: &mut PoolCache, frames: &mut FrameVec) {
    if !frames.as_slice().iter().any(|frame| is_tunnelled(frame.bytes(), &frame.meta().offload)) {
        return;
    }
    let mut cut = FrameVec::new(frames.len() * 64);
    for frame in frames.drain() {
        if !is_tunnelled(frame.bytes(), &frame.meta().offload) {
            cut.push(frame).unwrap();
            continue;
        }
        let mut segments = Segmenter::new(frame.bytes(), &frame.meta().offload).unwrap();
        for _ in 0..segments.count() {
            let mut segment = cache.acquire_for(segments.longest()).unwrap();
            segment.set_len(segments.longest());
            let (len, offload) = segments.next_into(segment.bytes_mut(), false).unwrap();
            segment.set_len(len);
            *segment.meta_mut() = FrameMeta { offload, tag: frame.meta().tag };
            cut.push(segment).unwrap();
        }
    }
    std::mem::swap(frames, &mut cut);
}

fn sleep_until_readable(ports: &mut [Opened; 2]) {
    let queues = ports.iter_mut().flat_map(|port| &mut port.rx);
    let mut fds: Vec<libc::pollfd> = queues
        .map(|rx| {
            rx.arm();
            libc::pollfd { fd: rx.fd().unwrap().as_raw_fd(), events: libc::POLLIN, revents: 0 }
        })
        .collect();
    // SAFETY: the array is as long as said. Short, since `stop` wakes nobody.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, 5) };
}

/// Sends `len` bytes by TCP from one namespace to an address of another, and compares what arrives.
pub fn transfer(from: &Netns, to: &Netns, address: SocketAddr, len: usize) {
    let listener = to.within(|| TcpListener::bind(address).unwrap());
    let address = listener.local_addr().unwrap();
    let mut sender = from.within(|| TcpStream::connect_timeout(&address, DEADLINE).unwrap());
    let data: Vec<u8> =
        (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let mut received = Vec::with_capacity(len);
    thread::scope(|scope| {
        scope.spawn(|| {
            sender.set_write_timeout(Some(DEADLINE)).unwrap();
            sender.write_all(&data).unwrap();
            sender.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.read_to_end(&mut received).unwrap();
    });
    assert!(received == data, "{} of {len} bytes arrived, or not as they were sent", received.len());
}

/// Sends 30 datagrams as one GSO frame (`UDP_SEGMENT`), and compares what arrives.
pub fn datagrams(from: &Netns, to: &Netns, address: SocketAddr) {
    let size: libc::c_int = 1400;
    let receiver = to.within(|| UdpSocket::bind(address).unwrap());
    receiver.set_read_timeout(Some(DEADLINE)).unwrap();
    let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let sender = from.within(|| UdpSocket::bind(any).unwrap());
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option is an int.
    let result = unsafe {
        libc::setsockopt(sender.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const size).cast(), len)
    };
    assert_eq!(result, 0, "the kernel has UDP_SEGMENT");
    let data: Vec<u8> = (0..30 * size).map(|i| (i / 7) as u8).collect();
    assert_eq!(sender.send_to(&data, receiver.local_addr().unwrap()).unwrap(), data.len());
    for expected in data.chunks(size as usize) {
        let mut got = [0; 2000];
        let len = receiver.recv(&mut got).unwrap();
        assert_eq!(&got[..len], expected);
    }
}

/// A counter of the namespace's stack, as in `Tcp InCsumErrors`.
pub fn snmp(netns: &Netns, protocol: &str, counter: &str) -> u64 {
    let text = netns.within(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
    let prefix = format!("{protocol}:");
    let mut lines = text.lines().filter(|line| line.starts_with(&prefix));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split_whitespace().position(|name| name == counter).unwrap();
    values.split_whitespace().nth(at).unwrap().parse().unwrap()
}
