//! Back ends of this crate. Others live where their medium does (`nfs-swap`).
//!
//! `ram` is one by itself; `medium` makes one of any store that does what it is told at once, with
//! the requests in `queue`, and `block` is such a store.

#[cfg(feature = "embedded-storage")]
mod block;
mod medium;
mod queue;
mod ram;

#[cfg(feature = "embedded-storage")]
pub use block::{BlockError, BlockMedium};
pub use medium::{Medium, MediumError, MediumSpace};
pub use ram::{RamError, RamSpace};
