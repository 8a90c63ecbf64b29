//! What servers give, as it is read from the frames that pass.

#![allow(clippy::unwrap_used)] // these are tests, although not all functions are marked so

mod testbed;

use std::net::Ipv6Addr;

use proptest::prelude::*;
use testbed::*;
use vswitch_dataplane::{Lease, NetId, PortId, Reason, Verdict, lease};
use vswitch_wire::testing::{VecFrame, frame};
use vswitch_wire::{FrameBuf, Mac};

const FLOOD: Verdict = Verdict::Flood { network: NetId(7) };

fn read(frame: &VecFrame, verdict: Verdict) -> Vec<(Mac, String, u32)> {
    let mut found = Vec::new();
    lease::read(frame, verdict, |Lease { network, client, address, seconds }| {
        assert_eq!(network, NetId(7));
        found.push((client, address.to_string(), seconds));
    });
    found
}

/// What a server says to the client B about 10.0.0.7.
fn answer(op: u8, options: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..3].copy_from_slice(&[op, 1, 6]);
    message[16..20].copy_from_slice(&[10, 0, 0, 7]);
    message[28..34].copy_from_slice(&B.0);
    [&message[..], &[99, 130, 83, 99], options].concat()
}

fn acknowledge() -> Vec<u8> {
    answer(2, &[53, 1, 5, 51, 4, 0, 0, 0x0e, 0x10, 255])
}

fn datagram(ports: (u16, u16), message: &[u8]) -> VecFrame {
    frame(Mac::BROADCAST, A).ip([10, 0, 0, 1], [255; 4]).udp(ports.0, ports.1).payload(message).build()
}

/// A Reply with these addresses, to B.
fn reply(message_type: u8, addresses: &[(&str, u32)]) -> VecFrame {
    let option =
        |code: u8, value: &[u8]| [&[0, code][..], &(value.len() as u16).to_be_bytes(), value].concat();
    let given = addresses.iter().flat_map(|(address, seconds)| {
        let address: Ipv6Addr = address.parse().unwrap();
        option(5, &[&address.octets()[..], &[0; 4], &seconds.to_be_bytes()].concat())
    });
    let association = [vec![0; 12], given.collect()].concat();
    let message = [vec![message_type, 1, 2, 3], option(3, &association)].concat();
    frame(B, A).ip([0xfd; 16], [0xfe; 16]).udp(547, 546).payload(&message).build()
}

#[test]
fn an_acknowledged_address() {
    let ack = datagram((67, 68), &acknowledge());
    let given = [(B, "10.0.0.7".to_owned(), 3600)];
    assert_eq!(read(&ack, FLOOD), given);
    assert_eq!(read(&ack, Verdict::Unicast { network: NetId(7), port: PortId(1) }), given);
    assert_eq!(read(&ack, Verdict::Drop(Reason::TooBigIngress)), []);
    // As a sender leaves it whose device finishes checksums.
    let unfinished = frame(B, A).ip([10, 0, 0, 1], [10, 0, 0, 7]).udp(67, 68).payload(&acknowledge());
    assert_eq!(read(&unfinished.unfinished(), FLOOD), given);
}

#[test]
fn what_gives_no_address() {
    let mut fragment = datagram((67, 68), &acknowledge());
    fragment.bytes_mut()[20] = 0x20;
    let mut none = acknowledge();
    none[16..20].fill(0);
    for (name, frame) in [
        ("to a server", datagram((67, 67), &acknowledge())),
        ("an offer", datagram((67, 68), &answer(2, &[53, 1, 2, 51, 4, 0, 0, 0, 9]))),
        ("a client's", datagram((67, 68), &answer(1, &[53, 1, 5, 51, 4, 0, 0, 0, 9]))),
        ("without a time", datagram((67, 68), &answer(2, &[53, 1, 5]))),
        ("of no address", datagram((67, 68), &none)),
        ("a fragment", fragment),
        ("nothing", VecFrame::new(&[0; 14])),
        ("an advertisement", reply(2, &[("fd00::7", 60)])),
        ("a group", reply(7, &[("ff02::1", 60), ("::", 60), ("::1", 60)])),
    ] {
        assert_eq!(read(&frame, FLOOD), [], "{name}");
    }
}

#[test]
fn addresses_of_a_reply() {
    let both = reply(7, &[("fd00::7", 60), ("fd00::8", 0)]);
    assert_eq!(read(&both, FLOOD), [(B, "fd00::7".to_owned(), 60), (B, "fd00::8".to_owned(), 0)]);
    assert_eq!(read(&reply(7, &[("fd00::7", 60); 9]), FLOOD).len(), 8, "so many of one message");
}

proptest! {
    #[test]
    fn changed_and_cut_messages_are_read_or_not(
        is_v6: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in 0..300_usize,
    ) {
        let mut frame = if is_v6 { reply(7, &[("fd00::7", 60)]) } else { datagram((67, 68), &acknowledge()) };
        let bytes = frame.bytes_mut();
        for (at, value) in changes {
            bytes[12 + at.index(bytes.len() - 12)] = value;
        }
        let left = bytes.len().saturating_sub(cut);
        let _ = read(&VecFrame::new(&frame.bytes()[..left]), FLOOD);
    }
}
