//! A GSO frame behind a vnet header, right or not, cut into segments.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vswitch_fuzz::{lay_over, template};
use vswitch_wire::{FrameBuf, Offload, Segmenter, l4_header_end, vnet};

fuzz_target!(|bytes: &[u8]| {
    let [choice, len, bytes @ ..] = bytes else { return };
    let mut frame = template(*choice, *len);
    let mut header = vnet::emit(frame.meta().offload, 0);
    lay_over(&mut header, bytes);
    lay_over(frame.bytes_mut(), bytes.get(header.len()..).unwrap_or_default());
    let Ok(offload) = vnet::parse(&header, frame.bytes()) else { return };
    let end = l4_header_end(frame.bytes(), &offload);
    let Ok(mut segmenter) = Segmenter::new(frame.bytes(), &offload) else { return };
    let (count, longest) = (segmenter.count(), segmenter.longest());
    let size = offload.gso.map_or(0, |gso| usize::from(gso.size));
    assert!(end.is_some_and(|end| longest <= end + size));
    let mut buffer = vec![0; longest];
    let mut given = 0;
    let finish = choice & 0x80 == 0;
    while let Some((len, left)) = segmenter.next_into(&mut buffer, finish) {
        given += 1;
        assert!(left.check(&buffer[..len]).is_ok() && (left == Offload::NONE) == finish);
    }
    assert_eq!(given, count);
});
