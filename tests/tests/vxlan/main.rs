//! Tunnels on the real data path: to Linux' own VXLAN device, and from switch to switch.

#![allow(clippy::unwrap_used, clippy::expect_used)] // set-up of tests

mod decoded;
mod linux;
mod openvswitch;
mod switches;
