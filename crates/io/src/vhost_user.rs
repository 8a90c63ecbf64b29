//! vhost-user
mod buffers;
mod device;
mod features;
#[cfg(any(test, feature = "testing"))]
pub mod guest;
mod memory;
mod ring;
pub use features::Features;
mod rx;
#[cfg(test)]
mod tests;
mod tx;
mod vanish;
mod vring;
