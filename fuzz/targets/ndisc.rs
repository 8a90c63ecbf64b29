//! Any bytes as an IPv6 packet, and what it carries as a message of neighbour discovery.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vswitch_wire::classify::{packet, protocol};
use vswitch_wire::ethernet::TYPE_IPV6;
use vswitch_wire::extension::Upper;
use vswitch_wire::ndisc::{Kind, Message, Packet};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(packet) = Packet::new_checked(bytes) {
        assert_eq!(packet.message.target(), Some(packet.target));
        assert!(!packet.target.is_multicast());
    }
    let message = match Upper::of(bytes) {
        Ok(upper) => {
            assert!(upper.offset <= upper.end && upper.end <= bytes.len());
            // Who follows fewer sorts of header has come as far, or less.
            let layers = packet(bytes, TYPE_IPV6, 0).expect("lengths fit");
            assert!(layers.l4 <= upper.offset && layers.end == upper.end);
            if upper.protocol != protocol::ICMPV6 {
                return;
            }
            &bytes[upper.offset..upper.end]
        }
        Err(_) => bytes,
    };
    let Ok(read) = Message::new_checked(message) else { return };
    assert_eq!(Some(read.kind()), Kind::of_type(message[0]));
    assert!(read.link_layers().count() <= message.len() / 8);
    assert_eq!(read.target().is_some(), (135..=137).contains(&message[0]));
});
