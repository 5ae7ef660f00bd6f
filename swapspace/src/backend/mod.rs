//! Back ends of this crate. Others live where their medium does (`nfs-swap`).

mod ram;

pub use ram::{RamError, RamSpace};
