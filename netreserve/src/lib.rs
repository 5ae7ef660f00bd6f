//! Packet buffers that spend a memory reserve only on traffic that serves the VM.
//!
//! # The problem
//!
//! A page-out over the network ends with a reply, and the reply needs a buffer before anybody can
//! know that it is the reply. So the card's buffers must come out of the reserve when nothing else
//! is left; but then all that arrives lands there, and what waits for a task which cannot run
//! (its memory is swapped out) stays there. The reserve fills up with packets for sleepers, and
//! the reply finds no buffer.
//!
//! # The model
//!
//! ```text
//!            ordinary memory first, then the reserve, charged (N1, M6)
//!  SkbPool ───────────────────────────────────────────────┐
//!                                                         ▼
//!  card ──▶ Nic ──skb──▶ Ingress ──VMIO, its ARP, its ICMP errors──▶ the swap stack, by `Reserved`
//!                           │  ▲
//!                           │  └─ classify: headers against the FlowTable
//!          ordinary, for ───┼──▶ SocketTable, or unclaimed: another stack's
//!          somebody         └──▶ dropped, counted by reason (N2)
//! ```
//! An [`Skb`] whose memory came out of the reserve is an *emergency* skb and carries its
//! [charge](mempool::Charge); so do its clones, together, and its copies, each its own (N3).
//! [`Ingress`] lets it through to the swap stack, or frees it at once. A connection serves the VM
//! (VMIO) while it is in the [`FlowTable`]; a socket that has its flow gets its packets in place of the
//! swap stack ([`SocketTable::set_vmio`]). How large the reserve must be follows from the sizes of the
//! rings, and of what else [may hold](RxHolders) packets: see [`budget()`].
//!
//! # Example
//!
//! A receive path by hand; [`Reserved`] does this, and the same for sending, for any stack, with smoltcp
//! as a `phy::Device`.
//!
//! ```
//! # use mempool::{Buddy, FrameEntry, ReserveNode, SingleTask, SizedCache, Watermarks, Zone};
//! use core::net::{Ipv4Addr, SocketAddrV4};
//! use netreserve::{
//!     DropReason, Flow, FlowTable, Ingress, ProtocolMemory, SkbPool, Slot, SocketTable, Verdict,
//! };
//!
//! # let (mut memory, mut table) = (vec![0u8; 65 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 65]);
//! # let source = <Buddy>::new(&mut memory, &mut table)?;
//! # let task = SingleTask::new();
//! # let zone = <Zone>::new(&source, &task, Watermarks { min: 4, low: 6, high: 8 })?;
//! // … a zone, as `mempool` shows; the reserve for a ring of 8 each way …
//! const RING: usize = 8;
//! const SKB: usize = 2016;
//! let root: ReserveNode<'_> = ReserveNode::root("total", &zone);
//! let (rx, tx) = (ReserveNode::new("rx"), ReserveNode::new("tx"));
//! rx.set_limit(netreserve::rx_limit(RING, SKB), netreserve::rx_budget(RING, SKB, 0).frames())?;
//! tx.set_limit(netreserve::tx_limit(RING, SKB), netreserve::tx_budget(RING, SKB, 0).frames())?;
//! rx.connect(&root)?;
//! tx.connect(&root)?;
//!
//! let skbs = <SizedCache>::new("skb", &zone, SKB, 0)?;
//! let (mut flows, mut peers) = ([const { Slot::EMPTY }; 4], [const { Slot::EMPTY }; 4]);
//! let flows = FlowTable::new(&mut flows, &mut peers);
//! let token = zone.claim_memalloc().expect("claimed once, here");
//! let pool = SkbPool::new(&skbs, &rx, &tx, &flows, token);
//! let sockets = SocketTable::new(&mut [], &mut [], ProtocolMemory::each(64 << 10));
//! let ingress = Ingress::new(&flows, &sockets, [2, 0, 0, 0, 0, 1]);
//!
//! // The connection to the server is VMIO before its first packet.
//! let local = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 15), 700);
//! flows.add(Flow::tcp(local, SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 2), 2049)))?;
//!
//! let received = [0; 60]; // by the card
//! let mut skb = pool.alloc_rx()?;
//! skb.put(received.len())?.copy_from_slice(&received);
//! match ingress.receive(skb) {
//!     Verdict::Swap(skb) => println!("{} bytes for the swap stack", skb.len()),
//!     Verdict::Delivered(socket) => println!("wake the owner of {socket:?}"),
//!     Verdict::Taken(consumer) => println!("{consumer:?} has it"),
//!     Verdict::Unclaimed(skb, reason) => drop(ingress.drop_skb(skb, reason)), // no other stack
//!     Verdict::Dropped(reason) => assert_eq!(reason, DropReason::OtherHost),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Modules, from below
//!
//! `skb` and `pool` (buffers), `class` (flows and early demux), `sock` (queues and backlogs, what is
//! sent, and their limits), `consumer` (taps and forwarding, and what they may
//! have), `ingress` (the drop ladder, with its `reason`s), `reassembly` and
//! `neighbours` (bounded holders, for stacks that have none), `nic` (what a driver implements) and
//! `rx_ring` (what it posts), `window` (what a peer may send), `device` (a card and a ladder, for any
//! stack), `budget` (how much reserve) and `limits` (how it changes), `stats`;
//! `smoltcp` and `embassy`, the only rooms that know those stacks. All names are re-exported here.
//!
//! # Features
//!
//! `smoltcp`: [`Reserved`] is a `phy::Device`, and `PhyNic` a card over any other device, over Ethernet
//! and IP; with it `proto-ipv6`, `packetmeta-id` (numbers of packets reach the driver) and
//! `segmentation-offload` (cards that segment TCP), as smoltcp calls them. `embassy`: `ReservedDriver`, a
//! driver for `embassy-net`. `std`: the host's critical section, for hosted programs. `log`, `defmt`:
//! events for a kernel's log (`warn`: no buffer was to be had; VMIO traffic was dropped), as often as
//! `mempool` tells its own, and with no lock held; `defmt` also formats for everything public.
//! `ablation`: every `Mechanism` can be switched off (`ablate`), for tests and demonstrations; never
//! enable it in a product.
//!
//! # Guarantees
//!
//! No heap, no unsafe code, no clock; storage comes from the caller. No packet is freed and no
//! foreign code is called under a lock, except the counting of memory by `mempool`. Every packet
//! that is received or to be sent and is dropped is counted under one [`DropReason`]; what a socket
//! held when it was closed is in the answer of [`SocketTable::close`]. IPv4 and IPv6 over Ethernet, in a
//! VLAN or none; everything else is [`Class::Other`] and serves nobody.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

mod ablation;
mod budget;
mod class;
mod consumer;
mod device;
#[cfg(feature = "embassy")]
mod embassy;
#[cfg(all(test, feature = "log", not(feature = "defmt")))]
mod event_tests;
#[cfg(feature = "defmt")]
mod format;
mod ingress;
mod limits;
mod lru;
mod neighbours;
mod nic;
mod pool;
mod probe;
mod reason;
mod reassembly;
mod rx_ring;
mod skb;
#[cfg(feature = "smoltcp")]
mod smoltcp;
mod sock;
mod stats;
#[cfg(test)]
mod testbed;
mod window;

#[cfg(feature = "ablation")]
pub use ablation::Mechanism;
pub use budget::{
    MIN_RX_SKBS, MIN_TX_SKBS, RxHolders, TxHolders, budget, min_budget, rx_budget, rx_limit,
    rx_skbs, tx_budget, tx_limit, tx_skbs,
};
pub use class::{
    AddrEntry, Class, Control, DhcpClient, FirstFragment, Flow, FlowError, FlowTable, Malformed,
    Neighbour, Protocol, VlanId, classify, classify_ip, classify_ip_outgoing, classify_outgoing,
};
pub use consumer::{Consumer, ConsumerError, ConsumerId, ConsumerSlot, Keeps, Policy, Sees};
pub use device::{Reserved, ReservedError, RxToken, TxToken};
#[cfg(feature = "embassy")]
pub use embassy::{NicWaker, ReservedDriver};
pub use ingress::{Ingress, IngressStats, Verdict};
pub use limits::{RxLimits, TxLimits};
pub use lru::LruSlot;
pub use neighbours::{Hardware, NeighbourCache, NeighbourEntry, NeighbourError, NeighbourStats};
pub use nic::{ChecksumOffload, Medium, Nic, Offload};
pub use pool::{AllocStats, PoolStats, SkbAllocError, SkbPool};
pub use probe::Slot;
pub use reason::{DropCounts, DropReason};
pub use reassembly::{
    DatagramEntry, FragmentSlot, Reassembled, Reassembly, ReassemblyError, ReassemblyLimits,
    ReassemblyStats,
};
pub use rx_ring::{Refill, RefillPolicy, RxRing, RxRingStats};
pub use skb::{Skb, SkbError, SkbFrags};
#[cfg(feature = "smoltcp")]
pub use smoltcp::{OtherMedium, PhyNic};
pub use sock::{
    BindError, MemallocContext, OwnedSocket, Processed, ProtocolMemory, QueueEntry, SendError,
    SendWaiters, Settled, Socket, SocketId, SocketInfo, SocketStats, SocketTable, VmioError,
    VmioRoom,
};
pub use stats::Stats;
