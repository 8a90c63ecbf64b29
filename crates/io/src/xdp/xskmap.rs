//! The map from rx queue to AF_XDP socket that the program redirects through.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::bpf;

const CMD_MAP_CREATE: libc::c_int = 0;
const CMD_MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_TYPE_XSKMAP: u32 = 17;

/// The fields of `union bpf_attr` that these commands read; without padding, since stray bytes are refused.
#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// An empty map for queues 0 to `queues` - 1.
pub(super) fn create(queues: u32) -> io::Result<OwnedFd> {
    let mut attr = MapCreate {
        map_type: MAP_TYPE_XSKMAP,
        key_size: 4,
        value_size: 4,
        max_entries: queues,
        map_name: *b"vswitch_xsks\0\0\0\0",
        ..MapCreate::default()
    };
    // SAFETY: the attribute holds no address.
    let fd = unsafe { bpf::call(CMD_MAP_CREATE, &mut attr) }?;
    // SAFETY: a new fd that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Frames of `queue` go to `socket` from now on, until it is closed.
pub(super) fn set(map: BorrowedFd<'_>, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    let value = socket.as_raw_fd();
    let mut attr = MapUpdate {
        map_fd: map.as_raw_fd() as u32,
        pad: 0,
        key: (&raw const queue) as u64,
        value: (&raw const value) as u64,
        flags: 0,
    };
    // SAFETY: key and value are four bytes, as the map says, and outlive the call.
    unsafe { bpf::call(CMD_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}
