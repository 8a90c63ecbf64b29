//! vswitch

fn main() {}
