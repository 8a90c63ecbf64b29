//! The daemon: threads, the one clock, control and wiring. No forwarding logic.

mod clock;
mod worker;

fn main() {}
mod netlink;
