#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::Path;

use proptest::prelude::*;

use super::super::connection::Connection;
use super::super::guest::frontend::{Frontend, Order, signals};
use super::super::guest::{Driver, Guest, PHYSICAL, USER};
use super::super::message::{BadMessage, HEADER, Header};
use super::super::record::Records;
use super::*;

const VERSION_1: u64 = 1 << 32;
const PROTOCOL: u64 = 1 << 30;
const PACKED: u64 = 1 << 34;

fn session() -> (Arc<Device>, Session) {
    let device = Arc::new(Device::new(2, None).unwrap());
    (Arc::clone(&device), Session::new(device))
}

fn parse(order: Order, need_reply: bool) -> Result<Message, BadMessage> {
    let bytes = order.bytes(need_reply);
    let (header, payload) = bytes.split_at(HEADER);
    Message::parse(Header::parse(header.try_into().unwrap())?, payload, order.fds)
}

/// The eight bytes of the answer.
fn ask(session: &mut Session, order: Order, need_reply: bool) -> Result<Option<u64>, Refused> {
    let reply = session.on_message(parse(order, need_reply).unwrap())?;
    Ok(reply.map(|reply| reply.bytes().last_chunk().map(|bytes| u64::from_ne_bytes(*bytes)).unwrap()))
}

fn all(session: &mut Session, orders: Vec<Order>) {
    for order in orders {
        ask(session, order, false).unwrap();
    }
}

fn features(bits: u64) -> Features {
    Features::acknowledged(VERSION_1 | PROTOCOL | bits).unwrap()
}

fn is_running(device: &Device, index: usize) -> bool {
    device.vrings()[index].work(|_| Ok(())).unwrap().is_some()
}

#[test]
fn answers_say_what_is_offered() {
    let (_, mut session) = session();
    let mut answer = |number, need| ask(&mut session, Order::new(number, &[]), need).unwrap();
    assert_eq!(answer(1, false), Some(Features::OFFERED.bits()));
    assert_eq!(answer(15, false), Some(PROTOCOL_OFFERED));
    assert_eq!(answer(17, false), Some(2));
    assert_eq!(answer(36, false), Some(32));
    assert_eq!((answer(3, false), answer(3, true)), (None, None), "REPLY_ACK was not agreed upon");
    assert_eq!(ask(&mut session, Order::long(16, &[REPLY_ACK]), true).unwrap(), Some(0));
    assert_eq!(ask(&mut session, Order::new(3, &[]), true).unwrap(), Some(0));
    assert_eq!(ask(&mut session, Order::new(3, &[]), false).unwrap(), None);
}

#[test]
fn rings_start_and_stop_and_keep_their_position() {
    for packed in [0, PACKED] {
        let (device, mut session) = session();
        let mut guest = Guest::new(features(packed), 64);
        let frontend = Frontend::default();
        all(&mut session, Frontend::negotiate(&guest, features(packed)));
        assert!(!is_running(&device, 0));
        all(&mut session, frontend.start(&guest));
        assert_eq!(
            (is_running(&device, 0), is_running(&device, 1), session.running_pairs()),
            (true, true, 1)
        );
        assert!(signals(&frontend.call[1]) >= 1, "the guest looks at what an earlier back end left");
        // Disabled and enabled, moved to other memory, with other features: it goes on where it was.
        let steps: [Vec<Order>; 4] = [
            vec![Order::new(18, &[1, 0]), Order::new(18, &[1, 1])],
            vec![Frontend::mem_table(&guest)],
            vec![Order::long(2, &[features(packed | 1).bits()])],
            vec![Order::new(11, &[1]), Order::long(12, &[1]).with(&frontend.kick[1])],
        ];
        let pool = crate::Pool::new(crate::PoolConfig { wire: 16, large: 0 }).unwrap();
        let (mut cache, mut frames) = (pool.cache(), crate::FrameVec::new(16));
        let mut rx = super::super::Rx::new(Arc::clone(&device), 0);
        for step in steps {
            all(&mut session, step);
            assert!(guest.send([0; 10], &[1; 60], &[12], false));
            assert_eq!(crate::RxQueue::rx(&mut rx, &mut cache, &mut frames).unwrap(), 1);
            assert_eq!(guest.sent(), 1);
            frames.drain().for_each(drop);
        }
        let base = ask(&mut session, Order::new(11, &[1]), false).unwrap().unwrap();
        assert_eq!((base as u32, (base >> 32) as u32), (1, guest.tx.base()));
        assert!(!is_running(&device, 1), "stopped");
        all(&mut session, vec![Order::new(18, &[1, 1])]);
        assert!(!is_running(&device, 1), "it has no kick");
        drop(session);
        assert!(!is_running(&device, 0));
    }
}

/// A session of a process whose rings are written down in this file, and a guest's rings in it where `bases` says.
fn session_of(path: &Path, guest: &Guest, bases: [u32; 2]) -> (Arc<Device>, Session) {
    let records = Arc::new(Records::open(path, 4).unwrap());
    let device = Arc::new(Device::new(2, Some(&records)).unwrap());
    let mut session = Session::new(Arc::clone(&device));
    all(&mut session, Frontend::negotiate(guest, features(PACKED)));
    all(&mut session, Frontend::default().start_at(guest, bases));
    (device, session)
}

/// Whether a frame that the guest transmits comes.
fn is_heard(device: &Arc<Device>, guest: &mut Guest) -> bool {
    let pool = crate::Pool::new(crate::PoolConfig { wire: 16, large: 0 }).unwrap();
    let (mut cache, mut frames) = (pool.cache(), crate::FrameVec::new(16));
    assert!(guest.send([0; 10], &[1; 60], &[12], false));
    let mut rx = super::super::Rx::new(Arc::clone(device), 0);
    let count = crate::RxQueue::rx(&mut rx, &mut cache, &mut frames).unwrap();
    frames.drain().for_each(drop);
    assert_eq!(guest.sent(), count);
    count == 1
}

#[test]
fn packed_rings_are_taken_up_where_a_process_that_died_left_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record");
    let mut guest = Guest::new(features(PACKED), 64);
    let start = [&guest.rx, &guest.tx].map(Driver::base);
    for life in 0..3 {
        let (device, mut session) = session_of(&path, &guest, start);
        (0..5).for_each(|_| assert!(is_heard(&device, &mut guest), "life {life}"));
        // What starts and stops them in between changes nothing.
        all(
            &mut session,
            vec![Order::new(18, &[1, 0]), Frontend::mem_table(&guest), Order::new(18, &[1, 1])],
        );
        assert!(is_heard(&device, &mut guest));
        drop((session, device));
        assert!(path.exists());
    }
    // A front end that says where it is within a session is believed.
    let (device, mut session) = session_of(&path, &guest, start);
    let now = guest.tx.base();
    all(&mut session, vec![Order::new(10, &[1, start[1]])]);
    assert!(!is_heard(&device, &mut guest));
    all(&mut session, vec![Order::new(10, &[1, now])]);
    assert_eq!((0..2).filter(|_| is_heard(&device, &mut guest)).count(), 1, "two at once, then none");
}

#[test]
fn a_position_that_was_told_is_the_front_ends_to_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record");
    let mut guest = Guest::new(features(PACKED), 64);
    let start = [&guest.rx, &guest.tx].map(Driver::base);
    let (device, mut session) = session_of(&path, &guest, start);
    assert!(is_heard(&device, &mut guest));
    for index in [0, 1] {
        ask(&mut session, Order::new(11, &[index]), false).unwrap();
    }
    drop((session, device));
    assert!(!path.exists(), "there is nothing to be known from it");
    let told = [&guest.rx, &guest.tx].map(Driver::base);
    let (device, mut session) = session_of(&path, &guest, told);
    assert!(is_heard(&device, &mut guest));
    // Stopped and started without another word: what was told is what will be said.
    let told = ask(&mut session, Order::new(11, &[1]), false).unwrap().unwrap();
    all(&mut session, vec![Order::long(12, &[1]).with(&Frontend::default().kick[1])]);
    assert!(is_heard(&device, &mut guest));
    drop((session, device));
    let (device, session) = session_of(&path, &guest, [start[0], (told >> 32) as u32]);
    assert!(is_heard(&device, &mut guest));
    drop((session, device));
    let (device, _session) = session_of(&path, &guest, start);
    assert!(!is_heard(&device, &mut guest), "the record is of another beginning");
}

/// A front end stops pairs that the guest does not use as well, and starts them where it was told.
#[test]
fn the_position_of_a_ring_that_did_not_run_since_the_kill_is_told_right() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("record");
    let mut guest = Guest::new(features(PACKED), 64);
    let start = [&guest.rx, &guest.tx].map(Driver::base);
    let (device, session) = session_of(&path, &guest, start);
    (0..5).for_each(|_| assert!(is_heard(&device, &mut guest)));
    drop((session, device));
    let records = Arc::new(Records::open(&path, 4).unwrap());
    let device = Arc::new(Device::new(2, Some(&records)).unwrap());
    let mut session = Session::new(Arc::clone(&device));
    all(&mut session, Frontend::negotiate(&guest, features(PACKED)));
    let mut orders = Frontend::default().start_at(&guest, start);
    orders.retain(|order| order.number != 18);
    all(&mut session, orders);
    assert!(!is_running(&device, 1), "it was not enabled");
    let told = ask(&mut session, Order::new(11, &[1]), false).unwrap().unwrap();
    assert_eq!((told >> 32) as u32, guest.tx.base());
}

#[test]
fn a_ring_needs_no_eventfds_and_no_enabling_without_protocol_features() {
    let (device, mut session) = session();
    let guest = Guest::new(Features::acknowledged(VERSION_1).unwrap(), 64);
    let mut orders = vec![Order::long(2, &[VERSION_1]), Frontend::mem_table(&guest)];
    orders.extend(Frontend::default().start(&guest).into_iter().filter(|order| order.number != 18));
    for order in &mut orders {
        if [12, 13].contains(&order.number) {
            (order.payload[1], order.fds) = (1, Vec::new()); // there is none
        }
    }
    all(&mut session, orders);
    assert!(is_running(&device, 0));
    all(&mut session, vec![Order::new(4, &[])]);
    assert!(!is_running(&device, 0));
}

#[test]
fn regions_come_and_go() {
    let (_, mut session) = session();
    let guest = Guest::new(features(0), 64);
    let region = |n: u64| [0, PHYSICAL + (n << 20), 1 << 20, USER + (n << 20), n << 20];
    let add = |n| Order::long(37, &region(n)).with(&guest.memory.fd());
    assert_eq!(guest.memory.mappings(), 1, "its own");
    all(&mut session, vec![add(0), add(1), add(1)]); // twice the same: one for each queue pair
    assert_eq!(session.memory.regions().len(), 2);
    assert!(matches!(
        ask(
            &mut session,
            Order::long(37, &[0, PHYSICAL + 1, 16, USER + (9 << 20), 0]).with(&guest.memory.fd()),
            false
        ),
        Err(Refused::Memory(MemoryError::Overlap))
    ));
    all(
        &mut session,
        vec![Order::long(38, &region(1)), Order::long(38, &region(1)).with(&guest.memory.fd())],
    );
    assert_eq!(session.memory.regions().len(), 1);
    // A table with room for more than it has, as user-mode Linux sends it.
    let mut table = Frontend::mem_table(&guest);
    table.payload.extend([0; 32]);
    all(&mut session, vec![table]);
    assert_eq!(guest.memory.mappings(), 2);
    drop(session);
    assert_eq!(guest.memory.mappings(), 1);
}

#[test]
fn what_cannot_be_obeyed_is_refused() {
    let guest = Guest::new(features(0), 64);
    let file = File::open("/dev/null").unwrap();
    let table = |info: &[u64]| Order::long(5, &[&[1], info].concat()).with(&guest.memory.fd());
    let cases = [
        Order::long(2, &[1 << 17]),
        Order::long(16, &[1 << 9]),
        Order::new(8, &[4, 64]),
        Order::new(8, &[0, 65536]),
        Order::new(10, &[u32::MAX, 0]),
        Order::new(11, &[9]),
        Order::new(18, &[4, 1]),
        Order::long(12, &[0]).with(&file),
        Order::long(12, &[0]).with(&UnixStream::pair().unwrap().0), // it would have to be read
        Order::long(13, &[0]).with(&file),
        Order::long(14, &[0]).with(&file),
        table(&[0, 0, 0, 0]),
        table(&[u64::MAX, 2, 0, 0]),
        table(&[0, u64::MAX, 0, 0]),
        table(&[0, 1 << 40, 0, 0]),
        table(&[0, 4096, 0, 16 << 20]),
        Order::long(5, &[1, 0, 4096, 0, 0]).with(&file),
        Order::long(37, &[0, 0, 4096, 0, 0]).with(&UnixStream::pair().unwrap().0),
    ];
    for (i, order) in cases.into_iter().enumerate() {
        assert!(ask(&mut session().1, order, true).is_err(), "case {i}");
    }
    // A file of a file system that may keep us waiting for its bytes as long as it likes.
    let region = Order::long(5, &[1, 0, 4096, 0, 0]).with(&File::open("/proc/self/status").unwrap());
    let refused = ask(&mut session().1, region, true);
    assert!(matches!(refused, Err(Refused::Memory(MemoryError::NoMemory))), "{refused:?}");
    // A ring in no memory is refused when it would start.
    let (_, mut session) = session();
    all(&mut session, Frontend::negotiate(&guest, features(0)));
    let mut orders = Frontend::default().start(&guest);
    orders[2].payload[8..16].copy_from_slice(&8_u64.to_ne_bytes());
    let result: Result<Vec<_>, _> = orders.into_iter().map(|order| ask(&mut session, order, false)).collect();
    assert!(matches!(result, Err(Refused::Ring { index: 0, source: BadRing::Address })), "{result:?}");
}

#[test]
fn messages_that_are_none_are_refused() {
    let fd = File::open("/dev/null").unwrap();
    let cases = [
        (Order::new(0, &[]), BadMessage::Unknown(0)),
        (Order::new(6, &[]), BadMessage::Unknown(6)),
        (Order::new(2, &[1]), BadMessage::Length { request: 2, len: 4 }),
        (Order::new(9, &[0; 7]), BadMessage::Length { request: 9, len: 28 }),
        (Order::new(5, &[33, 0]), BadMessage::Length { request: 5, len: 8 }),
        (Order::new(5, &[1, 0]), BadMessage::Length { request: 5, len: 8 }),
        (Order::long(5, &[1, 0, 0, 0, 0]), BadMessage::Fds { request: 5, count: 0 }),
        (Order::long(12, &[0]), BadMessage::Fds { request: 12, count: 0 }),
        (Order::long(12, &[1 << 8]).with(&fd), BadMessage::Fds { request: 12, count: 1 }),
        (Order::new(3, &[]).with(&fd), BadMessage::Fds { request: 3, count: 1 }),
        (Order::long(1, &[0; 513]), BadMessage::Length { request: 1, len: 4104 }),
    ];
    for (order, expected) in cases {
        assert_eq!(parse(order, false).err(), Some(expected));
    }
    for flags in [0_u32, 2, 5, 1 << 31 | 1] {
        let header = [1, flags, 0].map(u32::to_ne_bytes).concat();
        assert_eq!(Header::parse(header.try_into().unwrap()), Err(BadMessage::Flags(flags)));
    }
}

proptest! {
    /// Any requests in any order.
    #[test]
    fn a_session_survives_anything(
        orders in prop::collection::vec(
            (1..40_u32, prop::collection::vec(prop_oneof![0..4_u64, Just(PHYSICAL), Just(USER), Just(1 << 20), any::<u64>()], 0..6), 0..3_usize),
            0..60,
        ),
    ) {
        let (device, mut session) = session();
        let guest = Guest::new(features(0), 64);
        let frontend = Frontend::default();
        all(&mut session, Frontend::negotiate(&guest, features(0)));
        all(&mut session, frontend.start(&guest));
        for (number, words, fds) in orders {
            let mut order = Order::long(number, &words);
            for i in 0..fds {
                order = if i % 2 == 0 { order.with(&frontend.call[0]) } else { order.with(&guest.memory.fd()) };
            }
            let Ok(message) = parse(order, number % 2 == 0) else { continue };
            if session.on_message(message).is_err() {
                break;
            }
        }
        drop(session);
        prop_assert!((0..4).all(|index| !is_running(&device, index)));
    }

    /// Bytes in any portions give the messages that whole ones give.
    #[test]
    fn messages_come_in_pieces(cuts in prop::collection::vec(1..40_usize, 1..40)) {
        use std::io::Write;
        let (mut front, back) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(back).unwrap();
        let orders = [Order::new(1, &[]), Order::long(2, &[VERSION_1]), Order::new(18, &[0, 1])];
        let bytes: Vec<u8> = orders.iter().flat_map(|order| order.bytes(false)).collect();
        let (mut rest, mut numbers) = (&bytes[..], Vec::new());
        for cut in cuts.into_iter().chain([bytes.len()]) {
            let (part, after) = rest.split_at(cut.min(rest.len()));
            front.write_all(part).unwrap();
            rest = after;
            while let Some(message) = connection.receive().unwrap() {
                numbers.push(message.number());
            }
        }
        prop_assert_eq!(numbers, [1, 2, 18]);
    }
}
