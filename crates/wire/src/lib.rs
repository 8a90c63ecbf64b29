//! Bytes <-> headers, and the field's numbers as types.
//!
//! Everything here is pure: no clock, no system call, no allocation. Two ideas carry the crate:
//!
//! * a header is checked once (`parse`/`new_checked`) and then read through accessors that cannot fail;
//! * a frame is anything that implements [`FrameBuf`]: contiguous bytes with headroom, and the
//!   [`FrameMeta`] that must not be lost between two ports (unfinished checksum, GSO, VLAN tag carried
//!   out of band). Drivers own frames, the switch borrows them, this trait is all they share.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "alloc"))]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod addr;
pub mod arp;
pub mod checksum;
pub mod classify;
pub mod dhcp;
pub mod dhcpv6;
pub mod ecn;
pub mod ethernet;
pub mod extension;
pub mod flow;
pub mod frame;
pub mod ipv4;
pub mod ipv6;
pub mod malformed;
pub mod ndisc;
pub mod offload;
#[cfg(test)]
mod oracle;
pub mod recognise;
pub mod sctp;
pub mod segment;
pub mod tcp;
#[cfg(any(test, feature = "alloc"))]
pub mod testing;
pub mod time;
mod tunnel;
pub mod udp;
mod unfinished;
pub mod vlan;
pub mod vnet;
pub mod vxlan;

pub use addr::{Mac, ParseMacError};
pub use checksum::complete;
pub use frame::{FrameBuf, FrameMeta, NoHeadroom};
pub use malformed::Malformed;
pub use offload::{BadOffload, Caps, Csum, Gso, GsoKind, Offload};
pub use recognise::{recognise, recognise_gso};
pub use segment::{BadSegmentation, Segmenter, is_tunnelled, l4_header_end};
pub use time::Instant;
pub use vlan::{InvalidVid, Tag, Vid};
pub use vxlan::{InvalidVni, Vni};
