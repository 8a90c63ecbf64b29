//! Programs that a test attaches to netdevs beside ours.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const PROG_LOAD: i64 = 5;
const LINK_CREATE: i64 = 28;
const LINK_DETACH: i64 = 34;
const XDP: u32 = 37;
const TCX_EGRESS: u32 = 47;

/// An attached program; goes when dropped, at once. (Closing the link would not do: a child that another test has just
/// forked may hold it too.)
pub(crate) struct Attached(OwnedFd);

impl Drop for Attached {
    fn drop(&mut self) {
        let link = self.0.as_raw_fd();
        // SAFETY: the attribute is an fd alone.
        let detached =
            unsafe { libc::syscall(libc::SYS_bpf, LINK_DETACH, &raw const link, size_of_val(&link)) };
        assert_eq!(detached, 0, "{}", io::Error::last_os_error());
    }
}

/// Passes every frame, in the driver.
pub(crate) fn pass(ifindex: u32) -> io::Result<Attached> {
    attach(&load(6, XDP, &[0x0000_0002_0000_00b7, EXIT])?, ifindex, XDP, 1 << 2)
}

/// Puts an 802.1Q tag beside every frame that the netdev sends, as a VLAN netdev on it would.
pub(crate) fn push_tag(ifindex: u32, tci: u16) -> io::Result<Attached> {
    let program = [
        0x0000_0000_0000_02b7 | u64::from(0x8100_u16.to_be()) << 32, // r2 = TPID
        0x0000_0000_0000_03b7 | u64::from(tci) << 32,                // r3 = TCI
        0x0000_0012_0000_0085,                                       // bpf_skb_vlan_push(skb, r2, r3)
        0x0000_0000_0000_00b7,                                       // r0 = TCX_PASS
        EXIT,
    ];
    attach(&load(3, TCX_EGRESS, &program)?, ifindex, TCX_EGRESS, 0)
}

const EXIT: u64 = 0x95;

fn load(kind: u32, attach_type: u32, insns: &[u64]) -> io::Result<OwnedFd> {
    let mut attr = [0_u32; 18];
    attr[0] = kind;
    attr[1] = insns.len() as u32;
    put(&mut attr[2..4], insns.as_ptr().expose_provenance() as u64);
    put(&mut attr[4..6], c"GPL".as_ptr().expose_provenance() as u64);
    attr[17] = attach_type;
    bpf(PROG_LOAD, &mut attr)
}

fn attach(program: &OwnedFd, ifindex: u32, attach_type: u32, flags: u32) -> io::Result<Attached> {
    let mut attr = [program.as_raw_fd() as u32, ifindex, attach_type, flags];
    bpf(LINK_CREATE, &mut attr).map(Attached)
}

fn put(words: &mut [u32], value: u64) {
    words[0] = value as u32;
    words[1] = (value >> 32) as u32;
}

fn bpf(command: i64, attr: &mut [u32]) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are as long as is said, and point to slices that their makers hold.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
