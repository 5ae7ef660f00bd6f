//! Packet buffers over a memory reserve.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

mod budget;
mod class;
mod ingress;
mod nic;
mod pool;
mod probe;
mod reason;
mod skb;
#[cfg(feature = "smoltcp")]
mod smoltcp;
mod sock;
mod stats;
#[cfg(test)]
mod testbed;

pub use budget::{budget, rx_budget, rx_limit, rx_skbs, tx_budget, tx_limit, tx_skbs};
pub use class::{
    Class, Control, Flow, FlowError, FlowTable, Malformed, Protocol, classify, classify_outgoing,
};
pub use ingress::{Ingress, IngressStats, Verdict};
pub use nic::{ChecksumOffload, Nic};
pub use pool::{AllocStats, PoolStats, SkbAllocError, SkbPool};
pub use probe::Slot;
pub use reason::{DropCounts, DropReason};
pub use skb::{Skb, SkbError};
#[cfg(feature = "smoltcp")]
pub use smoltcp::{PhyNic, Reserved, ReservedError, RxToken, TxToken};
pub use sock::{
    BindError, ProtocolMemory, QueueEntry, Socket, SocketId, SocketInfo, SocketStats, SocketTable,
};
pub use stats::Stats;
