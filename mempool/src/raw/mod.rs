//! The one room with `unsafe` in it: memory that the rest of the crate knows only by handle.
//!
//! Everything above works on indices, counters and owned handles; what turns those into addresses
//! and bytes is here, behind safe functions where a safe function is possible.
#![allow(unsafe_code)]

mod arena;
mod buffer;
mod frame;
mod heap;
mod lock;
mod magazine;
mod object;
mod shared;
mod slab;

pub(crate) use arena::Arena;
pub use buffer::Buffer;
pub(crate) use buffer::ObjectHome;
pub use frame::{Frame, FrameSource, RawFrame};
pub(crate) use frame::{FrameOwner, Released};
pub use heap::{Heap, HeapError};
pub use lock::CriticalSection;
pub(crate) use magazine::Magazine;
pub use object::Object;
pub use shared::SharedBuffer;
#[cfg(all(test, feature = "slab-debug"))]
pub(crate) use slab::tests::writer;
pub(crate) use slab::{Fault, Shape, SlabObject, Slabs};
#[cfg(feature = "slab-debug")]
pub(crate) use slab::{mark_slack, overwritten};
