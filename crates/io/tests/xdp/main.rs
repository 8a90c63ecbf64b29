//! The AF_XDP driver on the real kernel: veths between namespaces. Needs root.

#![allow(unsafe_code)] // raw sockets and bpf(2), as in the crate under test
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]
#![cfg(target_endian = "little")]

mod bpf;
mod frames;
mod lab;
mod links;
#[path = "../net/mod.rs"]
mod net;
mod port;
mod queues;
mod refusals;

use vswitch_io::{FrameClass, Pool, PoolConfig};

/// IEEE 802 local experimental EtherType 1.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const WIRE: u32 = 4096;
const LARGE: u32 = 64;

fn pool() -> &'static Pool {
    Pool::new(PoolConfig { wire: WIRE, large: LARGE }).unwrap()
}

/// Every frame is back.
fn assert_whole(pool: &Pool) {
    let free = (pool.free(FrameClass::Wire), pool.free(FrameClass::Large));
    assert_eq!(free, (WIRE as usize, LARGE as usize), "frames are missing");
}

/// A frame of `len` bytes that says which one it is.
fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1]);
    frame.extend(ETHERTYPE);
    frame.extend(number.to_be_bytes());
    let filled = frame.len();
    frame.extend((filled..len).map(|n| (n as u32 ^ number) as u8));
    frame
}

fn ifindex(name: &std::ffi::CStr) -> u32 {
    // SAFETY: the name ends with a zero.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}
