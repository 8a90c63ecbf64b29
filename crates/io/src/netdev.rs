//! What drivers ask of a netdev by its name, in the network namespace of the calling thread.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::OpenError;

/// The interface's index.
///
/// # Errors
/// [`OpenError::NoDevice`].
pub(crate) fn index(name: &str) -> Result<u32, OpenError> {
    let missing = || OpenError::NoDevice(name.to_owned());
    let name = CString::new(name).map_err(|_| missing())?;
    // SAFETY: a string that ends with a zero byte.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(missing()),
        index => Ok(index),
    }
}

/// The MTU, in bytes.
pub(crate) fn mtu(name: &str) -> io::Result<u32> {
    let mut request = request(name)?;
    control(libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: after this ioctl the union holds an MTU; any bits are a valid int.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    u32::try_from(mtu).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Sets the MTU, in bytes.
pub(crate) fn set_mtu(name: &str, mtu: u32) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_mtu = libc::c_int::try_from(mtu).map_err(|_| io::ErrorKind::InvalidInput)?;
    control(libc::SIOCSIFMTU, &mut request)
}

/// Sets the link administratively up.
pub(crate) fn set_up(name: &str) -> io::Result<()> {
    let mut request = request(name)?;
    control(libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: after this ioctl the union holds flags; any bits are a valid short.
    unsafe { request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short };
    control(libc::SIOCSIFFLAGS, &mut request)
}

/// An `ifreq` with this name, otherwise zero.
pub(crate) fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero. With `%` the kernel would make up a name.
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains(['\0', '/', '%']) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// One interface ioctl; any socket will do for it.
fn control(command: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: plain integers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new fd that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the kernel reads and writes no more than an `ifreq`.
    match unsafe { libc::ioctl(socket.as_raw_fd(), command, std::ptr::from_mut(request)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
