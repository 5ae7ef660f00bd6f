//! Swap space in a file on an NFS server: NFSv3 over TCP or UDP, without a heap, a thread or a clock.
//!
//! # The problem
//!
//! Pages are written out because memory is short, so writing them must not need any. An ordinary
//! NFS client does: it allocates calls, buffers, credentials and connections as it goes along, and
//! looks names up when a connection breaks. This one admits a request only with all that it will
//! ever need in hand, and then carries it through lost connections, reboots of the server, short
//! transfers and nonsense until the server has answered or a deadline has passed.
//!
//! # The model
//!
//! ```text
//!   swapspace::AddressSpace
//!        │ SwapFile      finds or creates the file, keeps the connection up
//!        │   Client      requests ⇄ a stream of bytes; sans-IO, many in flight
//!        │     nfs3 mount portmap    arguments and results
//!        │     rpc  xdr              headers, records, words
//!        ▼
//!   transport::Transport             std::net, smoltcp, or yours
//! ```
//!
//! - [`SwapFile`] is an [`AddressSpace`](swapspace::AddressSpace): hand it to a pager.
//! - [`Client`] is the protocol alone, for a kernel with a network stack of its own: give it the
//!   bytes that arrive and the time, take the bytes to send and the requests that are finished.
//! - [`Transport`](transport::Transport) is the little that a swap file needs of TCP or UDP.
//!
//! # Example
//!
#![cfg_attr(feature = "std", doc = "```no_run")]
#![cfg_attr(not(feature = "std"), doc = "```ignore")]
//! use core::task::Poll;
//! use core::time::Duration;
//! use nfs_swap::transport::std::StdTcp;
//! use nfs_swap::{SwapFile, SwapFileConfig, SwapUrl};
//! use swapspace::{AddressSpace, Instant, IoClass, IoOp, Slot, SwapIo};
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let boot = std::time::Instant::now();
//! let now = || Instant::ZERO + boot.elapsed();
//!
//! let url = SwapUrl::parse("nfs://10.0.2.2:2049/srv/swap/node1")?;
//! let transport = StdTcp::resolve(url.host, Duration::from_secs(1))?;
//! let mut config = SwapFileConfig::new(&url, 65_536)?;
//! config.client.xid_seed = 0x5eed; // random, from boot to boot
//! let mut swap = SwapFile::<Box<[u8]>, _, 32>::new(transport, config);
//! let geometry = loop {
//!     match swap.swap_activate(now()) {
//!         Poll::Ready(result) => break result?,
//!         Poll::Pending => swap.transport_mut().wait_readable(Duration::from_millis(10))?,
//!     }
//! };
//! assert_eq!(geometry.slots, 65_536);
//!
//! let frames = [vec![7; 4096].into_boxed_slice()].into_iter().collect();
//! let io = SwapIo::new(IoOp::Write, Slot(0), IoClass::Reclaim, frames);
//! swap.submit(io, now()).map_err(|refused| refused.error)?;
//! let done = loop {
//!     match swap.poll(now()) {
//!         Some(done) => break done,
//!         None => swap.transport_mut().wait_readable(Duration::from_millis(10))?,
//!     }
//! };
//! done.result?; // the page is on stable storage
//! # Ok(())
//! # }
//! ```
//!
//! # What is guaranteed
//!
//! - **Admission** (S1): a request that is admitted needs nothing more. No path of page-out or
//!   page-in allocates; a test counts.
//! - **Stability** (S2): a write completes when the server has said that it is stable: by
//!   `FILE_SYNC`, or by COMMIT with an unchanged verifier. What a reboot lost is written again.
//! - **Failure** (S3): a request that fails comes back with its frames and can be tried again. A
//!   write of which a copy went down with a connection says so when it completes
//!   ([stray](swapspace::Completion::stray)).
//! - **Reads** (S4): a read completes when every byte of every frame came from the file; a file
//!   that ends early is an error and not zeros.
//! - **Deadlines**: every request ends by its deadline, unless it is to wait for ever
//!   ([`Timeouts::Hard`]), and frames never come back while a
//!   half-received reply or a half-sent record could still touch them.
//! - **Order** (S8): demand before reclaim before prefetch before writeback, at each record. What
//!   has been given to the transport is past that: keep its send buffer small.
//! - **Exclusive use** (S6): with a [lease](LeaseConfig), a file that another machine swaps to is
//!   refused by name.
//! - **Flows** (S7): over smoltcp, each connection is tagged VMIO before its SYN.
//! - **Loss**: over UDP a lost call or reply costs the few milliseconds that the server usually
//!   takes, and no reply does harm that comes late, twice, cut off, or from elsewhere.
//!
//! What each error means is told with [`RequestError`].
//!
//! What it cannot prevent: a write may be carried out later than its client believes by a server
//! that had read it and was merely slow, as with any NFS client. The pages of a pager are safe from
//! that: until the file is activated anew, nothing else is put into the slots of a write that
//! [timed out](RequestError::TimedOut), or that was sent again. The price is a few slots for each
//! connection, or a slot for each datagram, that is lost amid page-outs. A new file whose filling was
//! disturbed in that way is removed and made afresh, and a late write finds no file. (Over UDP the
//! second filling may lose a datagram as well as the first: what is late has the time of
//! [`rpc_timeout`](ClientConfig::rpc_timeout) to arrive, then.) Pages are not safe from the late
//! writes of an earlier activation of the same file; nor from somebody who truncates the file,
//! when the answer is lost that would have shown it and a later page-out makes it longer again; or
//! when he does so on the server itself, behind the back of an NFS server that remembers the old size
//! (nfs-ganesha does, for a minute), and a page-out makes it longer again before a page-in meets the
//! new end. Where others can reach the file there, only a check of the pages above would show it.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `std` | `transport::std`: non-blocking TCP and UDP over `std::net` |
//! | `smoltcp` | `transport::smoltcp`: TCP on a smoltcp stack of its own, with VMIO flows |
//! | `defmt` | `defmt::Format` on errors and statistics |
//! | `ablation` | every `Mechanism` can be switched off (`ablate`), for tests and demonstrations; never enable it in a product |

#![no_std]
#![forbid(unsafe_code)]

mod ablation;
mod client;
mod error;
pub mod mount;
pub mod nfs3;
pub mod portmap;
pub mod rpc;
mod stats;
mod swapfile;
pub mod transport;
mod url;
pub mod xdr;

#[cfg(feature = "ablation")]
pub use ablation::Mechanism;
pub use client::{BufferTooSmall, CallError, Client, ClientConfig, Timeouts};
pub use error::{ProtocolError, RequestError, Stage, SwapFileError};
pub use stats::Stats;
pub use swapfile::{
    FileMode, LeaseConfig, LeaseHolder, LeasePolicy, OWNER_MAX, Owner, SwapFile, SwapFileConfig,
};
pub use url::{FILE_MAX, NFS_PORT, SwapUrl, UrlError};

/// The examples of the workspace's README, compiled.
#[cfg(all(doctest, feature = "std", feature = "smoltcp"))]
#[doc = include_str!("../../README.md")]
mod readme {}
