//! Any vnet header before any frame: what is accepted can be finished, and emitted as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vswitch_wire::{complete, vnet};

fuzz_target!(|bytes: &[u8]| {
    let Some((header, frame)) = bytes.split_first_chunk() else { return };
    let Ok(offload) = vnet::parse(header, frame) else { return };
    assert_eq!(vnet::parse(&vnet::emit(offload, 0), frame), Ok(offload));
    if let Some(csum) = offload.csum {
        complete(&mut frame.to_vec(), csum).expect("checked");
    }
});
