//! A front end that sends any requests in any order, with the right and the wrong file descriptors.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vswitch_io::vhost_user::Features;
use vswitch_io::vhost_user::guest::frontend::{Exchange, Frontend, Order};
use vswitch_io::vhost_user::guest::{Guest, PHYSICAL, USER};

/// VERSION_1, and vhost-user's own.
const FEATURES: u64 = 1 << 32 | 1 << 30;

fuzz_target!(|bytes: &[u8]| {
    let Some(features) = Features::acknowledged(FEATURES) else { return };
    let (guest, frontend) = (Guest::new(features, 16), Frontend::default());
    let mut exchange = Exchange::default();
    if bytes.first().is_some_and(|first| first & 1 == 1) {
        let orders = Frontend::negotiate(&guest, features).into_iter().chain(frontend.start(&guest));
        orders.for_each(|order| assert!(exchange.obey(&order), "sound orders are obeyed"));
    }
    for chunk in bytes.get(1..).unwrap_or_default().chunks(12) {
        let [number, fds, small @ ..] = chunk else { break };
        let words = small.iter().map(|&byte| match byte {
            0..=0x7f => u64::from(byte),
            0x80..=0x8f => PHYSICAL + (u64::from(byte & 15) << 20),
            0x90..=0x9f => USER + (u64::from(byte & 15) << 20),
            0xa0..=0xbf => 1 << (byte & 31),
            _ => u64::MAX - u64::from(byte),
        });
        let mut order = Order::long(u32::from(number % 48), &words.collect::<Vec<_>>());
        for bit in 0..fds % 4 {
            order = if fds >> (2 + bit) & 1 == 0 {
                order.with(&frontend.call[0])
            } else {
                order.with(&guest.memory.fd())
            };
        }
        if !exchange.obey(&order) {
            break;
        }
    }
    drop(exchange);
    assert_eq!(guest.memory.mappings(), 1, "its own");
});
