//! The whole driver against a front end in the same process: socket, protocol, rings and frames.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods)] // deadlines of tests are in real time

mod net;

use std::fs;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use net::{End, assert_all_free, ethernet, pool, wait_until};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vswitch_io::vhost_user::guest::Guest;
use vswitch_io::vhost_user::guest::frontend::{Frontend, Order, answer, mark, marked, send, signals};
use vswitch_io::vhost_user::{self, Broken, Config, Features, Role, State, Watch};
use vswitch_io::{OpenError, Pool};
use vswitch_wire::FrameMeta;

const VERSION_1: u64 = 1 << 32;
const PROTOCOL: u64 = 1 << 30;
const PACKED: u64 = 1 << 34;
const EVENT_IDX: u64 = 1 << 29;
const MRG: u64 = 1 << 15;

fn features(bits: u64) -> Features {
    Features::acknowledged(VERSION_1 | PROTOCOL | bits).unwrap()
}

/// The switch's side of a port.
struct Switch {
    end: End,
    watch: Watch,
    pool: &'static Pool,
    folder: tempfile::TempDir,
}

impl Switch {
    fn path(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn new(role: Role, pairs: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (end, watch, pool) = Self::open(role, pairs, folder.path().join("socket"));
        Self { end, watch, pool, folder }
    }

    fn open(role: Role, pairs: u16, socket: PathBuf) -> (End, Watch, &'static Pool) {
        let pool = pool();
        let record = Some(socket.with_extension("rings"));
        let (port, watch) = vhost_user::open(&Config { socket, role, pairs, record }, 2).unwrap();
        (End::new(port, pool), watch, pool)
    }

    /// Dies and comes back: all that it knew is lost.
    fn restart(self) -> Self {
        let Self { end, watch, folder, .. } = self;
        drop((end, watch));
        let (end, watch, pool) = Self::open(Role::Server, 1, folder.path().join("socket"));
        Self { end, watch, pool, folder }
    }

    fn wait_for(&self, what: &str, condition: impl Fn(&State) -> bool) -> State {
        wait_until(what, || condition(&self.watch.state()));
        self.watch.state()
    }
}

/// A guest with its front end on a connection.
struct Connected {
    guest: Guest,
    events: Frontend,
    stream: UnixStream,
}

/// Sends messages, and waits until the last of them was obeyed.
fn order(stream: &UnixStream, orders: &[Order]) -> io::Result<()> {
    for order in orders {
        send(stream, order, false)?;
        if [1, 11, 15, 17, 36].contains(&order.number) {
            answer(stream)?;
        }
    }
    send(stream, &Order::new(3, &[]), true)?;
    assert_eq!(answer(stream)?, (3, 0));
    Ok(())
}

impl Connected {
    fn new(stream: UnixStream, guest: Guest, features: Features) -> Self {
        let events = Frontend::default();
        order(&stream, &Frontend::negotiate(&guest, features)).unwrap();
        order(&stream, &events.start(&guest)).unwrap();
        Self { guest, events, stream }
    }

    /// Frames both ways, and interrupts for them.
    fn exchange(&mut self, switch: &mut Switch, seed: u8) {
        let frames: Vec<_> = (0..20)
            .map(|i| (ethernet(60 + 97 * i, seed.wrapping_add(i as u8)), FrameMeta::default()))
            .collect();
        for call in &self.events.call {
            signals(call);
        }
        for (bytes, _) in &frames {
            assert!(self.guest.send([0; 10], bytes, &[12], false));
            assert!(self.guest.post(&[1600, 600], bytes.len() % 2 == 0));
        }
        assert_eq!(switch.end.receive(20), frames);
        assert_eq!(self.guest.sent(), 20);
        assert_eq!(switch.end.send(&frames).sent, 20);
        let got: Vec<_> = std::iter::from_fn(|| self.guest.receive()).map(|(_, bytes)| bytes).collect();
        assert_eq!(got, frames.into_iter().map(|(bytes, _)| bytes).collect::<Vec<_>>());
    }
}

#[test]
fn frames_pass_both_ways_in_both_roles_by_both_kinds_of_ring() {
    for role in [Role::Server, Role::Client] {
        for bits in [0, PACKED, MRG | EVENT_IDX, PACKED | MRG | EVENT_IDX] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("socket");
            let listener = (role == Role::Client).then(|| UnixListener::bind(&path).unwrap());
            let (end, watch, pool) = Switch::open(role, 2, path.clone());
            let mut switch = Switch { end, watch, pool, folder };
            let stream = match listener {
                Some(listener) => listener.accept().unwrap().0,
                None => UnixStream::connect(&path).unwrap(),
            };
            let mut frontend = Connected::new(stream, Guest::new(features(bits), 256), features(bits));
            let state = switch.wait_for("the link is up", |state| state.pairs == 1);
            assert_eq!((state.connected, state.features, state.sessions), (true, features(bits), 1));
            (0..40).for_each(|seed| frontend.exchange(&mut switch, seed));
            if bits & EVENT_IDX == 0 {
                assert!(frontend.events.call.iter().all(|call| signals(call) > 0));
            }
            drop(frontend);
            switch.wait_for("the link is down", |state| *state == State { sessions: 1, ..State::default() });
            assert_eq!(switch.end.send(&[(ethernet(60, 1), FrameMeta::default())]).full, 1);
            let Switch { end, pool, .. } = switch;
            drop(end);
            assert_all_free(pool);
            assert_eq!(path.exists(), role == Role::Client, "who listens takes the socket away");
        }
    }
}

#[test]
fn a_kick_wakes_a_sleeping_worker() {
    for bits in [0, PACKED, EVENT_IDX, PACKED | EVENT_IDX] {
        let mut switch = Switch::new(Role::Server, 1);
        let stream = UnixStream::connect(switch.path()).unwrap();
        let mut frontend = Connected::new(stream, Guest::new(features(bits), 64), features(bits));
        let readable = |switch: &Switch| {
            let mut fds = [PollFd::new(switch.end.port.rx[0].fd().unwrap(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
        };
        for seed in 0..5 {
            assert_eq!(switch.end.poll().unwrap(), []);
            switch.end.port.rx[0].arm();
            assert!(!readable(&switch));
            let frame = ethernet(60, seed);
            assert!(frontend.guest.send([0; 10], &frame, &[12], false));
            frontend.events.kick[1].write(1).unwrap();
            assert!(readable(&switch), "{bits:#x}");
            assert_eq!(switch.end.receive(1), [(frame, FrameMeta::default())]);
            assert!(!readable(&switch));
            frontend.guest.sent();
        }
    }
}

#[test]
fn front_ends_come_and_go_without_a_trace() {
    let mut switch = Switch::new(Role::Server, 1);
    for round in 0..100_u8 {
        let bits = if round % 2 == 0 { 0 } else { PACKED };
        let stream = UnixStream::connect(switch.path()).unwrap();
        let mut frontend = Connected::new(stream, Guest::new(features(bits), 64), features(bits));
        frontend.exchange(&mut switch, round);
        let Connected { guest, events, stream } = frontend;
        assert_eq!(guest.memory.mappings(), 2);
        let number = 0x7e57_0000 + u64::from(round);
        events.kick.iter().chain(&events.call).for_each(|event| mark(event, number));
        assert_eq!(marked(number), 8, "its own and the switch's");
        drop((events, stream));
        let state = switch.wait_for("it is gone", |state| !state.connected);
        assert_eq!((state.sessions, state.refused), (u64::from(round) + 1, 0));
        assert_eq!(guest.memory.mappings(), 1, "its own");
        assert_eq!(marked(number), 0);
    }
    let Switch { end, pool, .. } = switch;
    drop(end);
    assert_all_free(pool);
}

#[test]
fn a_guest_keeps_its_rings_over_a_restart_of_the_switch() {
    // DPDK's front end says 0 of split rings, and all of them say of packed ones where they were.
    for (bits, base) in [(0, 0), (PACKED, 0x8000_8000)] {
        keeps_its_rings(features(bits), base);
    }
}

fn keeps_its_rings(features: Features, base: u32) {
    let mut switch = Switch::new(Role::Server, 1);
    let record = switch.path().with_extension("rings");
    let stream = UnixStream::connect(switch.path()).unwrap();
    let mut frontend = Connected::new(stream, Guest::new(features, 64), features);
    (0..3).for_each(|seed| frontend.exchange(&mut switch, seed));
    // A frame waits in the ring, and a buffer.
    let waiting = ethernet(60, 77);
    assert!(frontend.guest.send([0; 10], &waiting, &[12], false));
    let mut switch = switch.restart();
    let Connected { guest, stream, .. } = frontend;
    drop(stream);
    // Somebody looks whether anyone listens, as another switch would, or a front end that wants what is not offered.
    drop(UnixStream::connect(switch.path()).unwrap());
    switch.wait_for("it has left", |state| state.sessions == 1 && !state.connected);
    let stream = UnixStream::connect(switch.path()).unwrap();
    let events = Frontend::default();
    let mut orders = Frontend::negotiate(&guest, features);
    orders.extend(events.start_at(&guest, [base; 2]));
    order(&stream, &orders).unwrap();
    let mut frontend = Connected { guest, events, stream };
    assert_eq!(switch.end.receive(1), [(waiting, FrameMeta::default())]);
    assert_eq!(frontend.guest.sent(), 1);
    frontend.exchange(&mut switch, 9);
    // With the front end the guest is gone, and what was known of its rings.
    assert_eq!(record.metadata().unwrap().len(), 8192);
    drop(frontend);
    switch.wait_for("the link is down", |state| !state.connected);
    drop((switch.end, switch.watch));
    assert!(!record.exists());
}

#[test]
fn a_ring_that_broke_is_told_of_and_works_again_once_set_up() {
    let mut switch = Switch::new(Role::Server, 1);
    let stream = UnixStream::connect(switch.path()).unwrap();
    let mut frontend = Connected::new(stream, Guest::new(features(0), 64), features(0));
    let err = Frontend::default();
    order(&frontend.stream, &[Order::long(14, &[1]).with(&err.call[0])]).unwrap();
    frontend.exchange(&mut switch, 1);
    // The index jumps.
    frontend.guest.memory.write(frontend.guest.tx.physical()[1] + 2, &9999_u16.to_le_bytes());
    assert_eq!(switch.end.poll().unwrap(), []);
    switch.wait_for("the ring rests", |state| state.broken == Some(Broken::Index));
    wait_until("the front end is told", || signals(&err.call[0]) > 0);
    // The guest resets its device.
    order(&frontend.stream, &[Order::new(11, &[0]), Order::new(11, &[1])]).unwrap();
    switch.wait_for("the link is down", |state| state.pairs == 0);
    frontend.guest.reboot();
    order(&frontend.stream, &frontend.events.start(&frontend.guest)).unwrap();
    switch.wait_for("the ring works", |state| state.broken.is_none() && state.pairs == 1);
    frontend.exchange(&mut switch, 2);
}

#[test]
fn a_front_end_that_misbehaves_is_sent_away_and_the_next_is_served() {
    let mut switch = Switch::new(Role::Server, 1);
    let cases: [(&str, Vec<u8>); 4] = [
        ("request 6 was not offered", Order::new(6, &[]).bytes(false)),
        ("a message with flags 0x9999999a", [0x9a, 0x99, 0x99, 0x99].repeat(10)),
        ("there is no ring 99", Order::new(11, &[99]).bytes(false)),
        ("features 0x20000 were not offered", Order::long(2, &[1 << 17]).bytes(true)),
    ];
    for (count, (reason, bytes)) in (1..).zip(cases) {
        let mut stream = UnixStream::connect(switch.path()).unwrap();
        io::Write::write_all(&mut stream, &bytes).unwrap();
        assert!(answer(&stream).is_err(), "the connection is closed");
        let state = switch.wait_for("it is sent away", |state| state.refused == count);
        assert_eq!((state.connected, state.reason.as_deref()), (false, Some(reason)));
    }
    let stream = UnixStream::connect(switch.path()).unwrap();
    let mut frontend = Connected::new(stream, Guest::new(features(0), 64), features(0));
    frontend.exchange(&mut switch, 1);
}

#[test]
fn a_front_end_that_is_killed_has_broken_nothing() {
    let switch = Switch::new(Role::Server, 1);
    for count in 1..=20 {
        let stream = UnixStream::connect(switch.path()).unwrap();
        // The second answer is never read, so that the switch sees a reset.
        send(&stream, &Order::new(1, &[]), false).unwrap();
        send(&stream, &Order::new(1, &[]), false).unwrap();
        answer(&stream).unwrap();
        drop(stream);
        let state = switch.wait_for("it is gone", |state| state.sessions == count && !state.connected);
        assert_eq!((state.refused, state.reason), (0, None));
    }
}

#[test]
fn a_moved_guest_is_announced() {
    let mut switch = Switch::new(Role::Server, 1);
    let stream = UnixStream::connect(switch.path()).unwrap();
    let frontend = Connected::new(stream, Guest::new(features(0), 64), features(0));
    let mut rarp = Order::long(19, &[0]);
    rarp.payload[..6].copy_from_slice(&[2, 0, 0, 0, 0, 7]);
    order(&frontend.stream, &[rarp]).unwrap();
    let mut frames = vswitch_io::FrameVec::new(4);
    assert_eq!(switch.end.port.rx[0].rx(&mut switch.end.cache, &mut frames).unwrap(), 1);
    let bytes = vswitch_wire::FrameBuf::bytes(&frames.as_slice()[0]);
    assert_eq!(bytes[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 7, 0x80, 0x35]);
    assert_eq!(bytes.len(), 60);
}

#[test]
fn sockets_that_cannot_be_had_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, pairs| {
        let config = Config { socket: folder.path().join(name), role: Role::Server, pairs, record: None };
        match vhost_user::open(&config, 1) {
            Err(OpenError::Refused(why)) => why,
            Err(e) => e.to_string(),
            Ok(_) => "opened".to_owned(),
        }
    };
    let name = |name: &str| folder.path().join(name).display().to_string();
    fs::write(folder.path().join("file"), "").unwrap();
    let _listener = UnixListener::bind(folder.path().join("taken")).unwrap();
    drop(UnixListener::bind(folder.path().join("stale")).unwrap());
    assert_eq!(open("file", 1), format!("`{}` exists and is no socket", name("file")));
    assert_eq!(open("taken", 1), format!("another program listens on `{}`", name("taken")));
    assert_eq!(open("stale", 1), "opened");
    assert_eq!(open("no/folder", 1), format!("the folder of `{}` does not exist", name("no/folder")));
    assert_eq!(open("many", 200), "a vhost-user port has 1 to 64 queue pairs, not 200");
    assert!(open(&"long".repeat(40), 1).ends_with("is too long for the name of a socket"));
}
