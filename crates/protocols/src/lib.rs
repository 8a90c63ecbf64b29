//! Timed protocols as machines: frames and the time in, frames and answers out.
//!
//! Nothing here has a socket, a task or a clock. Whoever drives a machine gives it the frames that concern it, asks it for
//! frames when [`neighbours::Neighbours::next_deadline`] has come, and sends them. So a test drives it through hours of a
//! lossy network in a moment.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod host;
pub mod neighbours;
