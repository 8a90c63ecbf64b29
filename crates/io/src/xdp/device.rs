//! What a netdev is, asked by ioctl: sysfs shows the namespace that it was mounted in, ioctls the caller's own.

use std::ffi::CStr;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::ptr;

use libc::ifreq;

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// A netdev of the calling thread's network namespace.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: Name,
    pub(super) ifindex: u32,
    pub(super) family: Family,
    /// Bytes, without the Ethernet header.
    pub(super) mtu: u32,
    pub(super) queues: Queues,
    control: Control,
}

/// What kinds of device differ in for AF_XDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// One end of a veth pair: tags beside the frame, checksums unfinished.
    Veth,
    /// The netdev of a tun/tap fd: tags in the frame, checksums unfinished.
    Tun,
    /// Anything with a bus behind it.
    Hardware,
    /// Anything else, by its driver's name.
    Other(String),
}

/// Queues in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queues {
    pub(super) rx: u32,
    pub(super) tx: u32,
}

impl Device {
    /// # Errors
    /// ENODEV where there is none of that name.
    pub(super) fn find(name: &str) -> io::Result<Self> {
        let control = Control::new()?;
        let name = Name::new(name)?;
        // SAFETY: the name ends with a zero.
        let ifindex = unsafe { libc::if_nametoindex(name.as_c_str().as_ptr()) };
        if ifindex == 0 {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        let family = control.family(&name)?;
        let mtu = control.mtu(&name)?;
        let queues = control.queues(&name)?;
        Ok(Self { name, ifindex, family, mtu, queues, control })
    }

    /// Runs an ethtool command on the device.
    ///
    /// # Safety
    /// As for [`Control::ethtool`].
    pub(super) unsafe fn ethtool<T: ?Sized>(&self, command: &mut T) -> io::Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.control.ethtool(&self.name, command) }
    }
}

/// Receive queues that a netdev has now, of the calling thread's network namespace.
///
/// # Errors
/// ENODEV where there is none of that name.
pub fn rx_queue_count(netdev: &str) -> io::Result<u32> {
    Ok(Control::new()?.queues(&Name::new(netdev)?)?.rx)
}

/// A netdev's name, short enough for the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name([u8; libc::IFNAMSIZ]);

impl Name {
    fn new(name: &str) -> io::Result<Self> {
        let mut bytes = [0; libc::IFNAMSIZ];
        if name.is_empty() || name.len() >= bytes.len() || name.bytes().any(|b| b == 0 || b == b'/') {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Self(bytes))
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }

    fn as_path(&self) -> &str {
        self.as_c_str().to_str().unwrap_or_default()
    }
}

/// A socket for ioctls on netdevs.
#[derive(Debug)]
struct Control(OwnedFd);

#[repr(C)]
struct Drvinfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    fw_version: [u8; 32],
    bus_info: [u8; 32],
    erom_version: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

#[repr(C)]
#[derive(Default)]
struct Channels {
    cmd: u32,
    max: [u32; 4],
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

impl Control {
    fn new() -> io::Result<Self> {
        // SAFETY: a plain system call.
        let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made it, and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn family(&self, name: &Name) -> io::Result<Family> {
        // SAFETY: plain bytes and numbers.
        let mut info: Drvinfo = unsafe { zeroed() };
        info.cmd = ETHTOOL_GDRVINFO;
        // SAFETY: GDRVINFO fills in the struct.
        match unsafe { self.ethtool(name, &mut info) } {
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                return Ok(Family::Other("no driver".to_owned()));
            }
            answer => answer?,
        }
        let text = |bytes: &[u8]| {
            CStr::from_bytes_until_nul(bytes).unwrap_or_default().to_string_lossy().into_owned()
        };
        let (driver, bus) = (text(&info.driver), text(&info.bus_info));
        Ok(match driver.as_str() {
            "veth" => Family::Veth,
            "tun" => Family::Tun,
            _ if !bus.is_empty() => Family::Hardware,
            _ => Family::Other(driver),
        })
    }

    fn mtu(&self, name: &Name) -> io::Result<u32> {
        let mut request = request(name);
        // SAFETY: SIOCGIFMTU writes to the request's union alone.
        unsafe { self.ioctl(libc::SIOCGIFMTU, &mut request) }?;
        // SAFETY: it set this field; the union is plain numbers.
        Ok(unsafe { request.ifr_ifru.ifru_mtu }.max(0) as u32)
    }

    fn queues(&self, name: &Name) -> io::Result<Queues> {
        let mut channels = Channels { cmd: ETHTOOL_GCHANNELS, ..Channels::default() };
        // SAFETY: GCHANNELS fills in the struct.
        match unsafe { self.ethtool(name, &mut channels) } {
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(queues_in_sysfs(name)),
            answer => answer.map(|()| Queues {
                rx: (channels.rx + channels.combined).max(1),
                tx: (channels.tx + channels.combined).max(1),
            }),
        }
    }

    /// # Safety
    /// `command` is the struct that its first word, the command, asks for.
    unsafe fn ethtool<T: ?Sized>(&self, name: &Name, command: &mut T) -> io::Result<()> {
        let mut request = request(name);
        request.ifr_ifru.ifru_data = ptr::from_mut(command).cast();
        // SAFETY: the request points to the command, which is live; its size is the caller's promise.
        unsafe { self.ioctl(libc::SIOCETHTOOL, &mut request) }
    }

    /// # Safety
    /// What `request` points to suits the `number`.
    unsafe fn ioctl(&self, number: libc::c_ulong, request: &mut ifreq) -> io::Result<()> {
        // SAFETY: the request is live, the rest is the caller's promise.
        let answer = unsafe { libc::ioctl(self.0.as_raw_fd(), number as _, ptr::from_mut(request)) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn request(name: &Name) -> ifreq {
    // SAFETY: plain numbers, and a pointer that may be null.
    let mut request: ifreq = unsafe { zeroed() };
    request.ifr_name = name.0.map(|b| b as libc::c_char);
    request
}

/// For drivers that do not say by ethtool (tun): sysfs has a folder for each queue. One queue where it has none.
fn queues_in_sysfs(name: &Name) -> Queues {
    let folder = Path::new("/sys/class/net").join(name.as_path()).join("queues");
    let count = |prefix: &str| {
        let entries = folder.read_dir().into_iter().flatten().flatten();
        let queues = entries.filter(|e| e.file_name().to_string_lossy().starts_with(prefix)).count();
        (queues as u32).max(1)
    };
    Queues { rx: count("rx-"), tx: count("tx-") }
}

/// Keeps a device in promiscuous mode while it lives: a switch receives frames for everyone. The kernel counts
/// who asks for it, and forgets us when the process ends.
pub(super) fn promiscuous(ifindex: u32) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call; protocol 0 receives nothing.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it, and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let membership = libc::packet_mreq {
        mr_ifindex: ifindex as libc::c_int,
        mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    let borrowed: BorrowedFd<'_> = std::os::fd::AsFd::as_fd(&socket);
    super::socket::set_option(borrowed, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &membership)?;
    Ok(socket)
}

const _: () = assert!(size_of::<Drvinfo>() == 196 && size_of::<Channels>() == 36);
