//! A frame, right or not: classified, its tag moved out and back, its checksum recognised and finished.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vswitch_fuzz::{lay_over, template};
use vswitch_wire::testing::VecFrame;
use vswitch_wire::{FrameBuf, classify, complete, recognise, vlan};

fuzz_target!(|bytes: &[u8]| {
    let [choice, len, bytes @ ..] = bytes else { return };
    let mut frame = VecFrame::new(bytes);
    if choice & 0x80 == 0 {
        frame = VecFrame::new(template(*choice, *len).bytes());
        lay_over(frame.bytes_mut(), bytes);
    }
    let original = frame.bytes().to_vec();
    if let Ok(layers) = classify::classify(&original) {
        assert!(layers.l3 < layers.l4 && layers.l4 <= layers.end && layers.end <= original.len());
    }
    vlan::pop(&mut frame);
    vlan::push(&mut frame).expect("there is headroom");
    assert_eq!(frame.bytes(), original);
    if let Some(csum) = recognise(frame.bytes_mut()) {
        complete(frame.bytes_mut(), csum).expect("recognised");
        // Once is enough: what looks unfinished still does so by chance.
        let finished = frame.bytes().to_vec();
        if let Some(again) = recognise(frame.bytes_mut()).filter(|again| *again == csum) {
            complete(frame.bytes_mut(), again).expect("recognised");
            assert_eq!(frame.bytes(), finished);
        }
    }
    assert_eq!(frame.bytes().get(..34), original.get(..34));
});
