//! Maps: memory that programs and this process share.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::call;

const CMD_CREATE: libc::c_int = 0;
const CMD_LOOKUP: libc::c_int = 1;
const CMD_UPDATE: libc::c_int = 2;
const CMD_DELETE: libc::c_int = 3;
const CMD_LOOKUP_BATCH: libc::c_int = 24;

const TYPE_ARRAY: u32 = 2;
const TYPE_PERCPU_ARRAY: u32 = 6;
const TYPE_LRU_HASH: u32 = 9;
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

#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
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

/// One value of `value_size` bytes for each CPU.
///
/// # Errors
/// What the kernel said.
pub(crate) fn per_cpu(value_size: u32) -> io::Result<OwnedFd> {
    create(Create { map_type: TYPE_PERCPU_ARRAY, value_size, max_entries: 1, ..Create::default() })
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

/// What may be a key or a value: any bits make one, and no byte is padding.
///
/// # Safety
/// That is so.
pub(crate) unsafe trait Plain: Copy + Default {}

/// A map that drops what was least recently used when it is full. Any number of threads may use it.
#[derive(Debug)]
pub(crate) struct LruHash<K, V> {
    fd: OwnedFd,
    types: std::marker::PhantomData<fn(K, V)>,
}

/// Entries that one system call reads.
const BATCH: usize = 512;

impl<K: Plain, V: Plain> LruHash<K, V> {
    /// An empty one with room for `entries`.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn new(entries: u32) -> io::Result<Self> {
        let (key_size, value_size) = (size_of::<K>() as u32, size_of::<V>() as u32);
        let attr = Create {
            map_type: TYPE_LRU_HASH,
            key_size,
            value_size,
            max_entries: entries,
            ..Create::default()
        };
        Ok(Self { fd: create(attr)?, types: std::marker::PhantomData })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.fd)
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn insert(&self, key: &K, value: &V) -> io::Result<()> {
        let mut attr = Element::new(self.fd(), key, value);
        // SAFETY: key and value are as long as the map says, and outlive the call.
        unsafe { call(CMD_UPDATE, &mut attr) }.map(drop)
    }

    /// Takes a key out, if it is there.
    pub(crate) fn remove(&self, key: &K) {
        let mut attr = Element::new(self.fd(), key, std::ptr::null::<V>());
        // SAFETY: the key is as long as the map says, and outlives the call. It may be gone, which is as well.
        let _ = unsafe { call(CMD_DELETE, &mut attr) };
    }

    /// Shows every entry once; what comes or goes meanwhile may be missed.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn for_each(&self, mut see: impl FnMut(&K, &V)) -> io::Result<()> {
        let (mut keys, mut values) = (vec![K::default(); BATCH], vec![V::default(); BATCH]);
        let (mut from, mut to) = (None, 0_u64);
        loop {
            let mut attr = Batch {
                in_batch: from.as_ref().map_or(0, |from: &u64| std::ptr::from_ref(from) as u64),
                out_batch: (&raw mut to) as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: BATCH as u32,
                map_fd: self.fd.as_raw_fd() as u32,
                elem_flags: 0,
                flags: 0,
            };
            // SAFETY: there is room for `count` keys and values; the positions are four bytes, and all outlive the call.
            let result = unsafe { call(CMD_LOOKUP_BATCH, &mut attr) };
            let is_last = match result {
                Ok(_) => false,
                Err(e) if e.raw_os_error() == Some(libc::ENOENT) => true,
                Err(e) => return Err(e),
            };
            let count = attr.count as usize;
            keys.iter().zip(&values).take(count).for_each(|(key, value)| see(key, value));
            if is_last {
                return Ok(());
            }
            from = Some(to);
        }
    }
}
