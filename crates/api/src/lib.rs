//! What the daemon and its clients agree on: the topology schema, requests and responses, the client.
//!
//! Three things, in the order that a change travels:
//!
//! * [`topology`]: the desired state as a value. Parsed from TOML or JSON, checked, compared, written
//!   back; no I/O, so `vswitch --check` and a refused `apply` touch nothing.
//! * [`request`] and [`response`]: the bodies of the HTTP API under [`paths`], on a Unix socket.
//! * [`client`]: one request, one answer, three kinds of failure (the CLI's exit codes).
//!
//! One set of types serves both notations: keys are kebab-case in TOML and snake_case in JSON, and
//! [`topology::load`] and [`topology::to_toml`] convert them at that boundary alone.

#![forbid(unsafe_code)]

pub mod client;
pub mod paths;
pub mod request;
pub mod response;
pub mod topology;
pub mod value;

pub use topology::Topology;
