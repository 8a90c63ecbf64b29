//! vswitchctl

fn main() {}
