//! The AF_PACKET driver without the right to use BPF. Needs root. Alone in its process, since what the first port
//! shows of batches goes for all.
#![allow(unsafe_code)] // capget and capset are system calls
#![allow(clippy::unwrap_used)]

mod net;

use net::{End, Netns, assert_all_free, pool};
use vswitch_io::packet;
use vswitch_wire::{FrameBuf, Mac, testing};

/// Takes CAP_BPF and CAP_SYS_ADMIN, which implies it, from the calling thread (capabilities(7)).
fn give_up_bpf() {
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_SYS_ADMIN: u32 = 21;
    const CAP_BPF: u32 = 39;
    let header = [VERSION_3, 0]; // of this thread
    // Effective, permitted and inheritable; capabilities 0 to 31, then the others.
    let mut sets = [[0_u32; 3]; 2];
    // SAFETY: both are as long as version 3 says.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()), 0);
        sets[0][0] &= !(1 << CAP_SYS_ADMIN);
        sets[1][0] &= !(1 << (CAP_BPF - 32));
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()), 0);
    }
}

#[test]
fn without_bpf_the_socket_does_all() {
    let (netns, pool) = (Netns::new(), pool());
    netns.veth("left", &netns, "right");
    let port = netns.within(|| {
        give_up_bpf();
        packet::open("left", 1, None).unwrap()
    });
    let why = "small frames leave one by one, batches were refused: ";
    assert!(port.facts.mode.contains(why), "{}", port.facts.mode);
    netns.within(|| {
        let mut left = End::new(port, pool);
        let right = packet::open("right", 1, None).unwrap();
        assert_eq!(
            right.facts.mode, "vnet headers, batched transmit",
            "the right is back: it is tried again"
        );
        let mut right = End::new(right, pool);
        // A batch would finish the checksums.
        let frame = testing::frame(Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
        let datagram = frame.ip([10, 0, 0, 1], [10, 0, 0, 2]).udp(1000, 2000).payload(&[1; 100]).unfinished();
        let sent = vec![(datagram.bytes().to_vec(), *datagram.meta()); 64];
        assert_eq!(left.send(&sent).sent, 64);
        assert_eq!(right.receive(64), sent);
    });
    assert_all_free(pool);
}
