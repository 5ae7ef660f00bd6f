//! Swap over any address space: slots, areas and a pager whose every step is bounded and admitted
//! first.
//!
//! # The problem
//!
//! A page is written out because memory is short, so that writing it out must not need memory. And
//! it must not fail half-way: a page that is neither in memory nor stable in the store is lost.
//!
//! # The model
//!
//! ```text
//!   clients ──fault──▶ Pager ──map, write-protect, unmap──▶ PageTable   MMU, userfaultfd, explicit
//!                        │ ▲
//!                 frames │ │ the same frames, with the outcome
//!                        ▼ │
//!                 SwapSpace, SwapArea     which area takes a page, who owns which slot
//!                        │ ▲
//!                        ▼ │
//!                   AddressSpace          RAM here; a file on an NFS server in `nfs-swap`
//! ```
//! Frames are owned values. They move into a request and come back with its completion, on failure
//! too; a page whose write failed is dirty again because its frame is there again. Time is a
//! parameter of every call, and nothing in here waits.
//!
//! # Example
//!
//! [`Pager`] has a complete one: 64 pages in 16 frames. A back end's author starts at
//! [`AddressSpace`], and runs [`conformance`] on the result:
//!
//! ```
//! use swapspace::{Instant, RamSpace, conformance};
//!
//! let mut memory = vec![0; 16 * 4096];
//! let mut ram = RamSpace::<Vec<u8>, 8>::new(&mut memory);
//! let report = conformance(&mut ram, || vec![0; 4096], |_| Instant::ZERO)?;
//! assert_eq!(report.deepest, 8);
//! # Ok::<(), swapspace::Violation>(())
//! ```
//!
//! # Modules, from below
//!
//! `time`; `address_space` (the contract), `conformance` (its suite), `backend` (RAM, and any
//! [`Medium`] that reads and writes at once); `entry`,
//! `slots` and `area` (the books of slots), `header` (of `mkswap`), `space` (several areas);
//! `histogram`; `pager` (`fault`, `reclaim` and `complete` move the pages, `prefetch` those that
//! nobody asked for yet; `swapoff` empties an area; `eviction`, `readahead`, `queue`, `requests` and
//! `throttle` are what they decide by; `stall` tells a watchdog why nothing moves); `budget`. All
//! names are re-exported here.
//!
//! # Features
//!
//! `std`: the host's critical section, for hosted programs. `embedded-storage`: block devices as
//! swap space (`BlockMedium`). `defmt`: formats for errors and
//! statistics. `ablation`: every `Mechanism` can be switched off (`ablate`), for tests and
//! demonstrations; never enable it in a product.
//!
//! # Guarantees
//!
//! No heap, no unsafe code, no recursion, no lock, no clock. All storage comes from the caller and
//! is sized by constants ([`TableSizes`]). A page-out needs no memory whatever; a page-in needs one
//! ordinary frame and never takes it from the reserve.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod ablation;
mod address_space;
mod area;
mod backend;
mod budget;
mod conformance;
mod entry;
mod header;
mod histogram;
mod pager;
mod slots;
mod space;
mod time;

#[cfg(feature = "ablation")]
pub use ablation::Mechanism;
pub use address_space::{
    AddressSpace, CLUSTER_FRAMES, Completion, ErrorKind, FrameList, Geometry, IoClass, IoOp,
    PageFrame, Refused, Slot, SpaceError, SubmitError, SwapIo, Ticket,
};
pub use area::{ActivateError, AreaStats, DeactivateError, Misfit, SwapArea};
#[cfg(feature = "embedded-storage")]
pub use backend::{BlockError, BlockMedium};
pub use backend::{Medium, MediumError, MediumSpace, RamError, RamSpace};
pub use budget::TableSizes;
pub use conformance::{Clause, Report, Violation, conformance};
pub use entry::{SlotRun, SwapEntry};
pub use header::{BadPages, HeaderError, SwapHeader};
pub use histogram::Histogram;
pub use pager::{
    Access, Advice, Arrival, End, EvacuateError, EvictionNode, EvictionPages, EvictionPolicy,
    ExplicitTable, FaultEntry, FaultError, FaultOptions, FaultOutcome, Mapping, Nru, Page,
    PageEntry, PageQueue, PageTable, Pager, PagerEvent, PagerStats, PagerTables, PinError,
    RequestEntry, S3Fifo, SecondChance, Stall, StallReason,
};
pub use slots::DupError;
pub use space::{NotOn, SpaceTicket, SwapSpace, SwapoffError, SwaponError};
pub use time::Instant;
