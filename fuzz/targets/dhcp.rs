//! Any bytes as a message of DHCP: what is read of it is in it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vswitch_wire::dhcp::Message;

fuzz_target!(|bytes: &[u8]| {
    let Ok(message) = Message::new_checked(bytes) else { return };
    assert_eq!((message.op(), message.yiaddr().octets()), (bytes[0], bytes[16..20].try_into().unwrap()));
    let has = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
    if let Some(mac) = message.client_mac() {
        assert!(has(&mac.0));
    }
    if let Some(message_type) = message.message_type() {
        assert!(has(&[53, 1, message_type]));
    }
    if let Some(seconds) = message.lease_seconds() {
        assert!(has(&[&[51, 4][..], &seconds.to_be_bytes()].concat()));
    }
});
