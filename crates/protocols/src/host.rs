//! The switch as a host of one network: it answers ARP, neighbour discovery and pings for its addresses there.
//!
//! One [`Host`] is one stack, smoltcp's, with its own MAC, addresses and neighbours: it knows nothing of other networks,
//! so that two tenants may use the same addresses. What it keeps is bounded, whatever the network sends.
//!
//! smoltcp does not answer who asks on behalf of no address yet ([`duplicate`] does), does not put fragments together,
//! and believes any advertisement of its own network.

mod duplicate;
#[cfg(test)]
mod tests;

use core::net::IpAddr;
use core::time::Duration;

use smoltcp::config::{IFACE_MAX_ADDR_COUNT, IFACE_MAX_MULTICAST_GROUP_COUNT};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};
use vswitch_wire::ipv6::link_local_of;
use vswitch_wire::{Instant, Mac, ethernet};

/// The most addresses of one host. It has one more, which is link-local.
pub const ADDRESSES_MAX: usize = 7;
// Each IPv6 address may have a solicited-node group of its own.
const _: () =
    assert!(ADDRESSES_MAX < IFACE_MAX_ADDR_COUNT && ADDRESSES_MAX < IFACE_MAX_MULTICAST_GROUP_COUNT);

/// How long a router waits for the answer to its query at most, with some to spare (RFC 3810 section 9.3).
const QUERY: Duration = Duration::from_secs(12);
/// How often it is looked whether an answer is due.
const REPORT_STEP: Duration = Duration::from_millis(250);

/// A stack.
pub struct Host {
    mac: Mac,
    /// Bytes of a frame without its Ethernet header, at most.
    mtu: usize,
    interface: Interface,
    sockets: SocketSet<'static>,
    /// A router may wait for a report until then.
    queried_until: Instant,
    /// When it is to be polled.
    deadline: Option<Instant>,
}

impl Host {
    /// A host of the unicast address `mac`, with unicast `addresses` and the lengths of their prefixes, and a link-local
    /// one. What is no such address, or beyond [`ADDRESSES_MAX`], is left out. Frames have `mtu` bytes at most, without
    /// their Ethernet header. `seed` is one that nobody can guess.
    #[must_use]
    pub fn new(mac: Mac, addresses: &[(IpAddr, u8)], mtu: u32, seed: u64) -> Self {
        let mac = if mac.is_unicast() { mac } else { Mac([2, 0, 0, 0, 0, 0]) };
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac.0)));
        config.random_seed = seed;
        let mtu = mtu as usize;
        let mut wire = Wire { mtu, frame: None, send: &mut |_| () };
        let mut interface = Interface::new(config, &mut wire, StackInstant::ZERO);
        interface.update_ip_addrs(|own| {
            let cidrs = addresses.iter().filter_map(|&(ip, prefix)| cidr(ip, prefix)).take(ADDRESSES_MAX);
            let link_local = cidr(link_local_of(mac).into(), 64);
            // There is room for each, by the limit.
            for cidr in cidrs.chain(link_local) {
                let _ = own.push(cidr);
            }
        });
        let sockets = SocketSet::new(alloc::vec::Vec::new());
        Self { mac, mtu, interface, sockets, queried_until: Instant::ZERO, deadline: Some(Instant::ZERO) }
    }

    /// Takes in a frame of the network, without its tag; `send` is given what answers it.
    pub fn input(&mut self, now: Instant, frame: &[u8], mut send: impl FnMut(&[u8])) {
        if duplicate::answer(frame, self.mac, |ip| self.interface.has_ip_addr(ip), &mut send) {
            return;
        }
        if is_query(frame) {
            self.queried_until = now + QUERY;
            self.deadline.get_or_insert(now + REPORT_STEP);
        }
        let mut wire = Wire { mtu: self.mtu, frame: Some(frame), send: &mut send };
        let at = stack_instant(now);
        self.interface.poll_ingress_single(at, &mut wire, &mut self.sockets);
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Instant, mut send: impl FnMut(&[u8])) {
        let mut wire = Wire { mtu: self.mtu, frame: None, send: &mut send };
        let at = stack_instant(now);
        self.interface.poll_maintenance(at);
        self.interface.poll_egress(at, &mut wire, &mut self.sockets);
        self.deadline = (now < self.queried_until).then(|| now + REPORT_STEP);
    }

    /// When [`Self::poll`] is to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

fn cidr(ip: IpAddr, prefix: u8) -> Option<IpCidr> {
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let is_one_station = match ip {
        IpAddr::V4(v4) => !v4.is_multicast() && !v4.is_broadcast(),
        IpAddr::V6(v6) => !v6.is_multicast(),
    };
    let is_good = is_one_station && !ip.is_unspecified() && !ip.is_loopback() && prefix <= most;
    is_good.then(|| IpCidr::new(ip.into(), prefix))
}

/// Behind IPv6's hop-by-hop header is a message of MLD (RFC 3810 section 5), in IPv4 one of IGMP.
fn is_query(frame: &[u8]) -> bool {
    let Ok(header) = ethernet::Header::new_checked(frame) else { return false };
    let next = |at: usize| frame.get(ethernet::HEADER_LEN + at).copied();
    match header.ether_type() {
        ethernet::TYPE_IPV6 => next(6) == Some(0),
        ethernet::TYPE_IPV4 => next(9) == Some(2),
        _ => false,
    }
}

fn stack_instant(now: Instant) -> StackInstant {
    StackInstant::from_micros(i64::try_from(now.as_nanos() / 1000).unwrap_or(i64::MAX))
}

/// The network, as the stack sees it: one frame that comes in, and room for any that leaves.
struct Wire<'a> {
    mtu: usize,
    frame: Option<&'a [u8]>,
    send: &'a mut dyn FnMut(&[u8]),
}

impl Device for Wire<'_> {
    type RxToken<'t>
        = Rx<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Tx<'t>
    where
        Self: 't;

    fn receive(&mut self, _now: StackInstant) -> Option<(Rx<'_>, Tx<'_>)> {
        let frame = self.frame.take()?;
        Some((Rx(frame), Tx(self.send)))
    }

    fn transmit(&mut self, _now: StackInstant) -> Option<Tx<'_>> {
        Some(Tx(self.send))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ethernet::HEADER_LEN;
        capabilities
    }
}

struct Rx<'a>(&'a [u8]);

impl RxToken for Rx<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(self.0)
    }
}

struct Tx<'a>(&'a mut dyn FnMut(&[u8]));

impl TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = alloc::vec![0; len];
        let result = write(&mut frame);
        (self.0)(&frame);
        result
    }
}
