//! Atomics, and threads for the tests: those of `core` and `std`, or loom's under `cfg(loom)`.
//!
//! A concurrency test is one body. `cargo test` runs it many times on real threads;
//! `RUSTFLAGS="--cfg loom" cargo test -p vswitch-dataplane --release --lib loom` runs it once for every
//! interleaving (and every outcome of the memory model) that loom can tell apart.

#[cfg(not(loom))]
pub(crate) use core::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};
#[cfg(loom)]
pub(crate) use loom::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(all(test, loom))]
pub(crate) use loom::thread;
#[cfg(all(test, not(loom)))]
pub(crate) use std::thread;

/// Runs `body` under every interleaving with at most two forced switches: more find hardly any more bugs in
/// practice (Musuvathi and Qadeer, PLDI 2007) and takes minutes.
#[cfg(all(test, loom))]
pub(crate) fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(body);
}

/// Runs `body` often enough for real threads to meet.
#[cfg(all(test, not(loom)))]
pub(crate) fn model(body: impl Fn() + Sync + Send + 'static) {
    for _ in 0..500 {
        body();
    }
}
