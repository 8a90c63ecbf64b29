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

pub mod addr;
pub mod frame;
pub mod offload;
pub mod time;
pub mod vlan;

pub use addr::{Mac, ParseMacError};
pub use frame::{FrameBuf, FrameMeta, NoHeadroom};
pub use offload::{Caps, Csum, Gso, GsoKind, Offload};
pub use time::Instant;
pub use vlan::{InvalidVid, Tag, Vid};
