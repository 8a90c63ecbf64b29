//! The harness of the black-box scenarios: the real daemon and the real CLI, in network namespaces.
//!
//! A [`Scenario`] takes a topology file, makes a namespace for the switch and one for each `[[host]]`, starts
//! `vswitch`, waits until every port is up, runs the test's body, and then holds what must always hold: every
//! frame accounted for, nothing unexpected in the log, an orderly end. When the body panics it prints the
//! daemon's log and state instead.
//!
//! Nothing has a name outside of the scenario (the namespaces are anonymous, the socket is in a folder of its
//! own), so scenarios run side by side; and whatever ends a test, the kernel cleans up after it. A step that
//! cannot be done is a failed test, so everything here panics with what went wrong.

#![allow(clippy::expect_used, clippy::panic)] // in a test a panic is how a failure is told

mod frame;
mod host;
mod lab;
pub mod openvswitch;
mod programs;
mod switch;
mod tcp;
pub mod transfer;
mod wait;
mod witness;

pub use frame::{Frame, PAYLOAD_MIN};
pub use host::{Host, Raw};
pub use lab::{Lab, Scenario, scenario, topology_file};
pub use switch::{Answer, Switch};
pub use wait::{SOON, wait_for, wait_until};
pub use witness::Witness;
