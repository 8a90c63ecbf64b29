//! Any bytes as a message of DHCP for IPv6: every address that is read of it is in it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vswitch_wire::dhcpv6::Message;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Message::new_checked(bytes) else { return };
    assert_eq!(message.message_type(), bytes[0]);
    let mut addresses = 0;
    for address in message.addresses() {
        let octets = address.address.octets();
        assert!(bytes.windows(16).any(|window| window == octets));
        addresses += 1;
    }
    assert!(addresses <= bytes.len() / 28);
});
