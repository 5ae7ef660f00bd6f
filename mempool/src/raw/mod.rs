//! The one room with `unsafe` in it: memory that the rest of the crate knows only by handle.
//!
//! Everything above works on indices, counters and owned handles; what turns those into addresses
//! and bytes is here, behind safe functions where a safe function is possible.
#![allow(unsafe_code)]

mod arena;
mod frame;
mod heap;
mod lock;
mod object;
mod shared;
mod slab;

pub(crate) use arena::Arena;
pub use frame::{Frame, FrameSource, RawFrame};
pub(crate) use frame::{FrameOwner, Released};
pub use heap::{Heap, HeapError};
pub use lock::CriticalSection;
pub use object::Object;
pub use shared::SharedBuffer;
pub use slab::Buffer;
pub(crate) use slab::{ObjectHome, Slabs};
