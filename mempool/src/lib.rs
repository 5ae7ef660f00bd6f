//! Frames with watermarks and a reserve of derived size, and slabs that spend it only on work that
//! frees memory.
//!
//! # The problem
//!
//! To free a page, a system under memory pressure must write it out, and writing needs memory. So
//! some memory must be kept that only such work can get, on every path, and its size must follow
//! from what the work can hold at once.
//!
//! # The model
//!
//! ```text
//!     Heap   Pool           a `GlobalAlloc`; a guaranteed minimum, for work that must get on
//!      │       │
//!      SizeClasses          blocks of any size: a cache for each class of sizes, else whole frames
//!            │
//!   Cache / SizedCache      objects; a reserve-derived slab serves only the entitled (M4);
//!            │              `Magazines` in front, for several CPUs
//!            │
//!          Zone             min / low / high watermarks above a reserve (M2, M3)
//!            │   ▲ grows and shrinks the reserve
//!            │   └── ReserveNode tree: frames go up, charges stay at the node (M5, M6)
//!       FrameSource         frames: the built-in Buddy, or the kernel's own
//! ```
//! Who is *entitled* (M1): the caller whose [`Gfp`] carries the flag that only a
//! [`MemallocToken`] sets, or who runs in a [memalloc scope](Zone::memalloc), and who did not ask
//! for [`Gfp::NOMEMALLOC`]. An interrupt never inherits the scope of the task below it.
//!
//! # Example
//!
//! A reserve for eight packet buffers, computed and not guessed:
//!
//! ```
//! use mempool::{
//!     Buddy, Budget, BufferCache, FrameEntry, Gfp, ReserveNode, SingleTask, SizedCache,
//!     Watermarks, Zone,
//! };
//!
//! const SKB: usize = 2016;
//! const RX: Budget = Budget::objects(8, SKB, 0);
//! const FRAMES: usize = 64;
//! const _: () = RX.assert_fits(FRAMES); // a reserve that is too small does not build
//!
//! let (mut memory, mut table) = (vec![0u8; (FRAMES + 1) * mempool::FRAME_SIZE], [FrameEntry::EMPTY; FRAMES + 1]);
//! let source = <Buddy>::new(&mut memory, &mut table)?;
//! let task = SingleTask::new();
//! let zone = <Zone>::new(&source, &task, Watermarks { min: 4, low: 6, high: 8 })?;
//! let token = zone.claim_memalloc().expect("claimed once, here");
//!
//! let root: ReserveNode<'_> = ReserveNode::root("total", &zone);
//! let rx = ReserveNode::new("rx");
//! rx.set_limit(8 * SKB, RX.frames())?;
//! rx.connect(&root)?;
//!
//! // Somebody takes all that ordinary callers can have …
//! let skbs = <SizedCache>::new("skb", &zone, SKB, 0)?;
//! let mut hog = Vec::new();
//! while let Ok(skb) = skbs.alloc(Gfp::ATOMIC) {
//!     hog.push(skb);
//! }
//! // … and eight emergency buffers are there all the same.
//! for _ in 0..8 {
//!     let charge = rx.charge(SKB)?;
//!     let skb = skbs.alloc(token.gfp(Gfp::ATOMIC))?;
//!     hog.push(skb);
//!     std::mem::forget(charge);
//! }
//! assert!(rx.charge(SKB).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Modules, from below
//!
//! `raw` (the one room with `unsafe`, the heap among it), `buddy` and `bitmap` (where frames come
//! from), `zone` and `zone_list`, `slab`, `sizes`, `pool`; `gfp` and `context` (who may); `pressure`
//! (what happens before an allocation fails); `reserve` (how much); `budget` (how much that is, at
//! compile time). All names are re-exported here.
//!
//! # Features
//!
//! `std`: `StdContext` and the host's critical section. `log`, `defmt`: events for a kernel's log;
//! `defmt` also formats for everything public, and gets the events where both are on. `ablation`: every
//! `Mechanism` can be switched off (`ablate`), for tests and demonstrations; never enable it in a
//! product. `slab-debug`: red zones between objects, poison in free ones, and a panic that names the
//! cache and the object when somebody wrote where they may not; budgets of objects grow by
//! [`SLAB_RED_ZONE`].
//!
//! # Events
//!
//! | level | event |
//! |---|---|
//! | `warn` | an allocation failed, and what stood against it, unless [`Gfp::NOWARN`]; a charge was refused; a [`Pool`] is empty |
//! | `info` | a reserve node was connected or disconnected; its limit was set |
//! | `debug` | the reserve came into use; it is whole again, as the next allocation finds it |
//!
//! Of those that can come as fast as packets the 1st, 2nd, 4th … 1024th of its kind is told, and from
//! there on every 1024th; each says how many there were. What is tried before something else (ordinary
//! memory before the reserve, one zone before the next) is no failure.
//!
//! No lock of this crate is held while a logger is called, so that it may allocate, charge and take
//! snapshots. It runs in the context of whoever caused the event, an interrupt included, and logs are
//! best effort (M7): it must ask with [`Gfp::NOMEMALLOC`], since a memalloc scope entitles it like
//! everybody who runs in it, and with [`Gfp::NOWARN`], or it is called once more for its own failure.
//! What it takes from a [`Heap`] inside a scope may come out of the reserve: let it have memory of its
//! own, as the loggers of small systems do.
//!
//! # Guarantees
//!
//! No heap, no recursion beyond the depth of the reserve tree, no lock held across a call to
//! foreign code other than the [`FrameSource`] and the [`ReserveBacking`]. Locks are
//! [`lock_api::RawMutex`]es; [`CriticalSection`] is the default. Every handle gives its memory back
//! on drop (the frames behind a [`ReserveNode`] are its tree's: disconnect it first), and a failed
//! operation has changed nothing.
#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

#[cfg(test)]
mod testbed;

/// Of what an interrupt may find half done. A test puts others in their place, between any two of whose
/// instructions an interrupt may come (`tests/loom_context.rs`).
mod atomic {
    pub(crate) use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
}

mod ablation;
mod bitmap;
mod buddy;
mod budget;
mod context;
mod counter;
mod event;
#[cfg(feature = "defmt")]
mod format;
mod gfp;
mod pool;
mod pressure;
mod raw;
mod reserve;
mod sizes;
mod slab;
mod zone;
mod zone_list;

#[cfg(feature = "ablation")]
pub use ablation::Mechanism;
pub use bitmap::{Bitmap, BitmapError};
pub use buddy::{Buddy, BuddyError, FrameEntry};
pub use budget::{
    Budget, FRAME_SIZE, SLAB_HEADER, SLAB_RED_ZONE, aligned_objects_per_slab, objects_per_slab,
};
#[cfg(feature = "std")]
pub use context::StdContext;
pub use context::{InterruptScope, MemallocScope, SingleTask, SoftirqScope, TaskContext};
pub use gfp::{Gfp, MemallocToken};
pub use pool::{FillError, Pool, PoolElement, PoolError, PoolSource, PoolStats, Pooled};
pub use pressure::Pressure;
pub use raw::{
    Buffer, CriticalSection, Frame, FrameSource, Heap, HeapError, Object, RawFrame, SharedBuffer,
};
pub use reserve::{
    BackingError, Charge, ChargeError, ChargeWaiters, Reserve, ReserveBacking, ReserveError,
    ReserveNode, ReserveStats, ReserveWalk,
};
pub use sizes::{Block, SizeClasses};
pub use slab::{
    BufferCache, Cache, CacheError, CacheStats, CpuId, CpuMagazines, Magazines, NoMagazines,
    Parking, SizedCache,
};
pub use zone::{AllocError, FrameAllocator, Level, Watermarks, Zone, ZoneError, ZoneStats};
pub use zone_list::ZoneList;

/// For the crates of this suite, which count and tell events in the same way. No part of the API.
#[doc(hidden)]
pub mod __suite {
    pub use crate::counter::{Counter, Gauge, Writer};
    pub use crate::event::{EVENTS, loud};
}
