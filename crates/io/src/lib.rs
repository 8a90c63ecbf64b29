//! Drivers: they move frames between devices and the pool, and know nothing of switching.
//!
//! A driver opens a device as [`Opened`]: some [`RxQueue`]s, spread over the workers, and one [`TxQueue`]
//! for each worker. Calls are made once a batch, so dynamic dispatch costs nothing that can be measured.
//! All frames live in one [`Pool`], registered as UMEM by every AF_XDP socket: a frame that came in by one
//! AF_XDP port leaves by another without a copy.

#![allow(unsafe_code)] // the home of unsafe: each block says why it is sound

mod bpf;
mod btf;
#[cfg(any(test, feature = "testing"))]
pub mod fault;
pub mod hoststack;
pub mod internal;
mod lane;
#[cfg(any(test, feature = "testing"))]
pub mod loopback;
mod netdev;
pub mod packet;
#[cfg(any(test, feature = "testing"))]
pub mod pcap;
pub mod pool;
pub mod port;
pub mod shortcut;
pub mod tap;
pub mod vhost_user;
pub mod xdp;

pub use pool::{Frame, FrameClass, FrameVec, Pool, PoolCache, PoolConfig};
pub use port::{Facts, Kind, OpenError, Opened, PortError, RxQueue, TxQueue, TxReport};
