//! Any bytes as an ARP message: what is accepted is what was written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vswitch_wire::arp::{PACKET_LEN, Packet};

fuzz_target!(|bytes: &[u8]| {
    let Ok(packet) = Packet::new_checked(bytes) else { return };
    let again = [
        &[0, 1, 8, 0, 6, 4][..],
        &packet.operation().to_be_bytes(),
        &packet.sender_mac().0,
        &packet.sender_ip().octets(),
        &packet.target_mac().0,
        &packet.target_ip().octets(),
    ];
    assert_eq!(again.concat(), bytes[..PACKET_LEN]);
});
