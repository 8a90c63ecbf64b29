//! A guest in the test's own process: its memory, its rings, and the front end that speaks for it.

use std::collections::VecDeque;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use vswitch_io::vhost_user::Features;
use vswitch_io::vhost_user::guest::Guest;
use vswitch_io::vhost_user::guest::frontend::{Frontend, Order, answer, send};
use vswitch_tests::{Frame, SOON, wait_for};
use vswitch_wire::Mac;

const VERSION_1: u64 = 1 << 32;
const PROTOCOL: u64 = 1 << 30;
pub(crate) const PACKED: u64 = 1 << 34;

/// Entries of each ring.
const RING: u16 = 256;
/// Buffers that the guest has for the switch.
const BUFFERS: usize = 128;
const BUFFER: usize = 2048;

/// Requests that are answered without being asked to be.
const ANSWERED: [u32; 5] = [1, 11, 15, 17, 36];

/// A guest whose front end is connected.
pub(crate) struct Vm {
    pub(crate) mac: Mac,
    pub(crate) guest: Guest,
    events: Frontend,
    stream: UnixStream,
    features: Features,
    /// Where its rings were when the front end started them: it does not see more, as QEMU does not.
    bases: [u32; 2],
    /// Frames that came.
    inbox: VecDeque<Frame>,
}

impl Vm {
    /// Whose front end connects to the switch, as soon as that listens.
    pub(crate) fn connect(socket: &Path, number: u8, bits: u64) -> Self {
        Self::on(connect(socket), number, bits)
    }

    /// Whose front end is connected to by the switch.
    pub(crate) fn accept(listener: &UnixListener, number: u8, bits: u64) -> Self {
        Self::on(listener.accept().expect("the switch connects").0, number, bits)
    }

    fn on(stream: UnixStream, number: u8, bits: u64) -> Self {
        let features = Features::acknowledged(VERSION_1 | PROTOCOL | bits).expect("all of it is offered");
        let guest = Guest::new(features, RING);
        let mut vm = Self {
            mac: Mac([2, 0, 0, 0, 9, number]),
            bases: [guest.rx.base(), guest.tx.base()],
            guest,
            events: Frontend::default(),
            stream,
            features,
            inbox: VecDeque::new(),
        };
        vm.post_all();
        vm.start();
        vm
    }

    fn post_all(&mut self) {
        for _ in 0..BUFFERS {
            assert!(self.guest.post(&[BUFFER], false));
        }
    }

    /// The guest starts anew, in the same memory; the front end is not connected meanwhile.
    pub(crate) fn reboot(&mut self) {
        self.guest.reboot();
        self.post_all();
    }

    /// The front end connects anew; the guest knows nothing of it.
    pub(crate) fn connect_again(&mut self, stream: UnixStream) {
        self.stream = stream;
        self.events = Frontend::default();
        self.start();
    }

    fn start(&self) {
        self.order(&Frontend::negotiate(&self.guest, self.features));
        self.order(&self.events.start_at(&self.guest, self.bases));
    }

    /// Sends messages, and waits until the last of them was obeyed.
    pub(crate) fn order(&self, orders: &[Order]) {
        order(&self.stream, orders);
    }

    /// The switch has closed the connection.
    pub(crate) fn wait_for_end(&self) {
        self.stream.set_read_timeout(Some(SOON)).expect("a timeout");
        assert!(answer(&self.stream).is_err(), "the switch has ended, and says nothing any more");
    }

    /// The guest transmits a frame.
    pub(crate) fn send(&mut self, frame: &Frame) {
        self.guest.sent();
        assert!(self.guest.send([0; 10], &frame.bytes(), &[12], false), "the ring is full");
        let [_, kick] = &self.events.kick;
        kick.write(1).expect("the eventfd is not full");
    }

    fn collect(&mut self) {
        while let Some((_, bytes)) = self.guest.receive() {
            self.inbox.push_back(Frame::read(&bytes));
            assert!(self.guest.post(&[BUFFER], false));
        }
        let [kick, _] = &self.events.kick;
        kick.write(1).expect("the eventfd is not full");
    }

    /// Every frame that came before `last`, which has to come.
    #[track_caller]
    pub(crate) fn until(&mut self, last: &Frame) -> Vec<Frame> {
        let mut seen = Vec::new();
        loop {
            let next = wait_for(&format!("{last:?} comes, after {seen:?}"), SOON, || {
                self.collect();
                self.inbox.pop_front()
            });
            if next == *last {
                return seen;
            }
            seen.push(next);
        }
    }

    /// Holds that exactly these frames come, in this order, and none before or between them.
    #[track_caller]
    pub(crate) fn sees(&mut self, expected: impl IntoIterator<Item = Frame>) {
        let expected: Vec<Frame> = expected.into_iter().collect();
        let last = expected.last().expect("what comes last tells that nothing else came before");
        let mut seen = self.until(last);
        seen.push(last.clone());
        assert!(seen == expected, "the guest {} saw {seen:#?}, and not {expected:#?}", self.mac);
    }
}

/// Connects as soon as somebody listens.
pub(crate) fn connect(socket: &Path) -> UnixStream {
    wait_for("the switch listens", SOON, || UnixStream::connect(socket).ok())
}

/// Sends messages, and waits until the last of them was obeyed.
fn order(stream: &UnixStream, orders: &[Order]) {
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    for order in orders {
        send(stream, order, false).expect("the switch is there");
        if ANSWERED.contains(&order.number) {
            answer(stream).expect("an answer");
        }
    }
    send(stream, &Order::new(3, &[]), true).expect("the switch is there");
    assert_eq!(answer(stream).expect("an answer"), (3, 0));
}
