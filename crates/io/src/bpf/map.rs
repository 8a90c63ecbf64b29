//! Maps: memory that programs and this process share.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::call;

const CMD_CREATE: libc::c_int = 0;
const CMD_LOOKUP: libc::c_int = 1;
const CMD_UPDATE: libc::c_int = 2;
const CMD_DELETE: libc::c_int = 3;

const TYPE_HASH: u32 = 1;
const TYPE_ARRAY: u32 = 2;
const TYPE_ARRAY_OF_MAPS: u32 = 12;
const TYPE_XSKMAP: u32 = 17;
const F_MMAPABLE: u32 = 1 << 10;

#[repr(C)]
#[derive(Default)]
struct Create {
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
struct Element {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Element {
    /// Both are to be good for the call.
    fn new<K, V>(map: BorrowedFd<'_>, key: *const K, value: *const V) -> Self {
        Self { map_fd: map.as_raw_fd() as u32, pad: 0, key: key as u64, value: value as u64, flags: 0 }
    }
}

/// An array of `entries` values of `value_size` bytes (a multiple of 8), which mmap shows to its creator.
///
/// # Errors
/// What the kernel said.
pub(crate) fn array(value_size: u32, entries: u32) -> io::Result<OwnedFd> {
    create(Create {
        map_type: TYPE_ARRAY,
        value_size,
        max_entries: entries,
        map_flags: F_MMAPABLE,
        ..Create::default()
    })
}

/// An empty map from the numbers 0 to `entries` - 1 to AF_XDP sockets, by fd.
///
/// # Errors
/// What the kernel said.
pub(crate) fn of_sockets(entries: u32) -> io::Result<OwnedFd> {
    let value_size = size_of::<RawFd>() as u32;
    create(Create { map_type: TYPE_XSKMAP, value_size, max_entries: entries, ..Create::default() })
}

/// Makes a map whose keys are 32-bit numbers, unless it says otherwise.
fn create(mut attr: Create) -> io::Result<OwnedFd> {
    if attr.key_size == 0 {
        attr.key_size = size_of::<u32>() as u32;
    }
    attr.map_name[..7].copy_from_slice(b"vswitch");
    // SAFETY: the attribute holds no address.
    let fd = unsafe { call(CMD_CREATE, &mut attr) }?;
    // SAFETY: a new fd that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts `socket` under `key` into a map of sockets, until it is closed.
///
/// # Errors
/// What the kernel said.
pub(crate) fn set_socket(map: BorrowedFd<'_>, key: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
    let value = socket.as_raw_fd();
    let mut attr = Element::new(map, &raw const key, &raw const value);
    // SAFETY: key and value are four bytes, as the map says, and outlive the call.
    unsafe { call(CMD_UPDATE, &mut attr) }.map(drop)
}

/// The first value of an array of u64.
///
/// # Errors
/// What the kernel said.
pub(crate) fn first_value(map: BorrowedFd<'_>) -> io::Result<u64> {
    let (key, mut value) = (0_u32, 0_u64);
    let mut attr = Element::new(map, &raw const key, &raw mut value);
    // SAFETY: key and value are as long as the map says, and outlive the call.
    unsafe { call(CMD_LOOKUP, &mut attr) }?;
    Ok(value)
}

/// Waits for programs. The kernel promises of a map of maps that a change of it returns when no program can see what was
/// there before (`maybe_wait_bpf_programs`): so none that ran before the call runs when it returns.
#[derive(Debug)]
pub(crate) struct Barrier {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl Barrier {
    /// Makes what it takes.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn new() -> io::Result<Self> {
        let one = |map_type, inner_map_fd| {
            create(Create { map_type, value_size: 4, max_entries: 1, inner_map_fd, ..Create::default() })
        };
        let inner = one(TYPE_ARRAY, 0)?;
        Ok(Self { outer: one(TYPE_ARRAY_OF_MAPS, inner.as_raw_fd() as u32)?, inner })
    }

    /// Some milliseconds at most, where programs do not run for longer.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn wait(&self) -> io::Result<()> {
        let (key, value) = (0_u32, self.inner.as_raw_fd());
        let mut attr = Element::new(self.outer.as_fd(), &raw const key, &raw const value);
        // SAFETY: key and value are four bytes, as the map says, and outlive the call.
        unsafe { call(CMD_UPDATE, &mut attr) }.map(drop)
    }
}

/// A map from `N` bytes to a number, full at a fixed size. Any number of threads may use it. A program that holds the
/// address of a value may find that of another key there: the kernel uses its memory again at once.
#[derive(Debug)]
pub(crate) struct Hash<const N: usize>(OwnedFd);

impl<const N: usize> Hash<N> {
    /// An empty one with room for `entries`.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn new(entries: u32) -> io::Result<Self> {
        let (key_size, value_size) = (N as u32, size_of::<u32>() as u32);
        let attr =
            Create { map_type: TYPE_HASH, key_size, value_size, max_entries: entries, ..Create::default() };
        create(attr).map(Self)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn insert(&self, key: &[u8; N], value: u32) -> io::Result<()> {
        let mut attr = Element::new(self.fd(), key, &raw const value);
        // SAFETY: key and value are as long as the map says, and outlive the call.
        unsafe { call(CMD_UPDATE, &mut attr) }.map(drop)
    }

    /// Takes a key out.
    ///
    /// # Errors
    /// What the kernel said; it was not there.
    pub(crate) fn remove(&self, key: &[u8; N]) -> io::Result<()> {
        let mut attr = Element::new(self.fd(), key, std::ptr::null::<u32>());
        // SAFETY: the key is as long as the map says, and outlives the call.
        unsafe { call(CMD_DELETE, &mut attr) }.map(drop)
    }
}
