//! Where skbs come from: ordinary memory first, then the reserve, charged.

mod copy;

use core::fmt;

use lock_api::Mutex;
use mempool::__suite::{Counter, EVENTS, Writer, loud};
use mempool::{
    __event, AllocError, Buffer, BufferCache, Charge, ChargeError, CriticalSection, Gfp,
    MemallocToken, Reserve,
};

use crate::ablation::{Ablation, Mechanism};
use crate::skb::Side;
use crate::{FlowTable, Skb};

/// Allocates skbs for receiving and for sending.
///
/// Ordinary memory comes first. Only when that fails, and only while there is a VMIO flow (N1), the
/// skb is charged to its reserve node and then allocated with the token; should ordinary memory
/// have come free meanwhile, it is taken and the charge ends (M6). A node bounds what its side can
/// hold of the reserve; [`rx_limit`](crate::rx_limit) and [`tx_limit`](crate::tx_limit) say how
/// much that must be.
///
/// The memory is that of the cache: slabs in the frames of a zone, which come out of memory that the
/// caller gave to a [`Buddy`](mempool::Buddy), or from the kernel's own
/// [`FrameSource`](mempool::FrameSource).
///
/// Shared by reference. O(1), but for the making of a slab.
///
/// ```
/// # use mempool::{Buddy, FrameEntry, ReserveNode, SingleTask, SizedCache, Watermarks, Zone};
/// use netreserve::{FlowTable, SkbPool, Slot};
///
/// # let (mut memory, mut table) = (vec![0u8; 65 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 65]);
/// # let source = <Buddy>::new(&mut memory, &mut table)?;
/// # let task = SingleTask::new();
/// # let zone = <Zone>::new(&source, &task, Watermarks::default())?;
/// // … a zone, and the reserve nodes `rx` and `tx` …
/// # let (rx, tx) = (<ReserveNode>::new("rx"), <ReserveNode>::new("tx"));
/// let token = zone.claim_memalloc().expect("claimed once, here");
/// let skbs = <SizedCache>::new("skb", &zone, 2016, 0)?;
/// let (mut flows, mut peers) = ([const { Slot::EMPTY }; 8], [const { Slot::EMPTY }; 4]);
/// let flows = FlowTable::new(&mut flows, &mut peers);
/// let pool = SkbPool::new(&skbs, &rx, &tx, &flows, token);
///
/// let skb = pool.alloc_rx()?;
/// assert_eq!((skb.is_emergency(), skb.tailroom()), (false, 2016));
/// # drop(skb);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SkbPool<'m> {
    cache: &'m dyn BufferCache,
    rx: &'m dyn Reserve,
    tx: &'m dyn Reserve,
    flows: &'m FlowTable<'m>,
    token: MemallocToken,
    headroom: usize,
    books: Books,
    state: Mutex<CriticalSection, State>,
}

/// What [`SkbPool::stats`] reads without the lock. Written under it.
#[derive(Default)]
struct Books {
    rx: AllocBooks,
    tx: AllocBooks,
}

#[derive(Default)]
struct AllocBooks {
    ordinary: Counter,
    emergency: Counter,
    failed: Counter,
}

struct State {
    writer: Writer,
    ablation: Ablation,
}

/// What one side of a pool allocated since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct AllocStats {
    /// Skbs of ordinary memory.
    pub ordinary: u64,
    /// Skbs of the reserve.
    pub emergency: u64,
    /// Requests that got nothing.
    pub failed: u64,
}

/// A snapshot of a pool's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PoolStats {
    /// For receiving.
    pub rx: AllocStats,
    /// For sending.
    pub tx: AllocStats,
}

impl Books {
    fn of(&self, side: Side) -> &AllocBooks {
        match side {
            Side::Rx => &self.rx,
            Side::Tx => &self.tx,
        }
    }
}

impl AllocBooks {
    fn stats(&self) -> AllocStats {
        AllocStats {
            ordinary: self.ordinary.get(),
            emergency: self.emergency.get(),
            failed: self.failed.get(),
        }
    }
}

impl<'m> SkbPool<'m> {
    /// A pool over `cache`, whose emergency skbs are charged in bytes to `rx` and `tx`.
    ///
    /// All skbs of the reserve must come from here: two pools may share a cache, but then each
    /// needs nodes of its own.
    #[must_use]
    pub fn new(
        cache: &'m dyn BufferCache,
        rx: &'m dyn Reserve,
        tx: &'m dyn Reserve,
        flows: &'m FlowTable<'m>,
        token: MemallocToken,
    ) -> Self {
        SkbPool {
            cache,
            rx,
            tx,
            flows,
            token,
            headroom: 0,
            books: Books::default(),
            state: Mutex::new(State {
                writer: Writer::new(),
                ablation: Ablation::NONE,
            }),
        }
    }

    /// Gives every skb `headroom` bytes in front, for what a driver puts before a frame.
    #[must_use]
    pub fn with_headroom(mut self, headroom: usize) -> Self {
        self.headroom = headroom;
        self
    }

    /// Bytes in front of every skb.
    #[must_use]
    pub const fn headroom(&self) -> usize {
        self.headroom
    }

    /// The largest frame that fits into an skb behind its headroom.
    #[must_use]
    pub fn max_frame(&self) -> usize {
        self.cache.object_size().saturating_sub(self.headroom)
    }

    /// Bytes of memory that each skb holds: its [truesize](Skb::truesize).
    #[must_use]
    pub fn truesize(&self) -> usize {
        self.cache.object_size()
    }

    /// An skb for the receive ring.
    ///
    /// # Errors
    ///
    /// [`SkbAllocError`]: neither ordinary memory nor the reserve may be had.
    pub fn alloc_rx(&self) -> Result<Skb<'m>, SkbAllocError> {
        self.alloc(Side::Rx)
    }

    /// An skb for a VMIO sender. What is sent in it must serve the VM if it turns out to be an
    /// emergency skb: see [`Ingress::egress`](crate::Ingress::egress).
    ///
    /// # Errors
    ///
    /// [`SkbAllocError`]: neither ordinary memory nor the reserve may be had.
    pub fn alloc_tx(&self) -> Result<Skb<'m>, SkbAllocError> {
        self.alloc(Side::Tx)
    }

    /// An skb for any sender: never of the reserve.
    ///
    /// # Errors
    ///
    /// [`SkbAllocError::Memory`]: no ordinary memory may be had.
    pub fn alloc_tx_ordinary(&self) -> Result<Skb<'m>, SkbAllocError> {
        self.ordinary_tx().map_err(|error| self.failed_tx(error))
    }

    /// The same, for whom a failure is not the end: it counts when he says so.
    pub(crate) fn ordinary_tx(&self) -> Result<Skb<'m>, AllocError> {
        self.ordinary(Side::Tx)
    }

    /// Counts that somebody got nothing to send with, and tells of it.
    pub(crate) fn failed_tx(&self, error: AllocError) -> SkbAllocError {
        self.failed(Side::Tx, SkbAllocError::Memory(error))
    }

    /// Exchanges an emergency transmit skb without data for an ordinary one, if one can be had; it
    /// counts as a failure of nobody's when none can.
    pub(crate) fn exchange_tx(&self, skb: Skb<'m>) -> Skb<'m> {
        self.ordinary(Side::Tx).unwrap_or(skb)
    }

    /// A snapshot of the counters. O(1), without a lock; each number is right by itself.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        PoolStats {
            rx: self.books.rx.stats(),
            tx: self.books.tx.stats(),
        }
    }

    /// Switches a mechanism of this pool off, for good. A mechanism of another object changes
    /// nothing.
    #[cfg(feature = "ablation")]
    pub fn ablate(&self, mechanism: Mechanism) {
        self.state.lock().ablation.ablate(mechanism);
    }

    fn ablation(&self) -> Ablation {
        if cfg!(feature = "ablation") {
            self.state.lock().ablation
        } else {
            Ablation::NONE
        }
    }

    /// Ordinary memory first, then the reserve, charged (N1, M6).
    fn alloc(&self, side: Side) -> Result<Skb<'m>, SkbAllocError> {
        let early = if self.ablation().off(Mechanism::OrdinaryFirst) && self.open() {
            self.emergency(side).ok()
        } else {
            None
        };
        let error = match early.map_or_else(|| self.ordinary(side), Ok) {
            Ok(skb) => return Ok(skb),
            Err(error) if !self.open() => SkbAllocError::Memory(error),
            Err(_) => match self.emergency(side) {
                Ok(skb) => return Ok(skb),
                Err(error) => error,
            },
        };
        Err(self.failed(side, error))
    }

    /// Whether the reserve may be touched (N1).
    fn open(&self) -> bool {
        self.flows.any() || self.ablation().off(Mechanism::FlowGate)
    }

    /// The pool itself tells of the failure, if it is one.
    fn ordinary(&self, side: Side) -> Result<Skb<'m>, AllocError> {
        // Without NOMEMALLOC a caller in a memalloc scope would dip uncharged.
        let gfp = if self.ablation().off(Mechanism::BestEffort) {
            Gfp::ATOMIC | Gfp::NOWARN
        } else {
            Gfp::ATOMIC | Gfp::NOMEMALLOC | Gfp::NOWARN
        };
        let buffer = self.cache.alloc(gfp)?;
        Ok(self.skb(buffer, None, side))
    }

    fn emergency(&self, side: Side) -> Result<Skb<'m>, SkbAllocError> {
        let charge = self.charge(side)?;
        let buffer = self
            .cache
            .alloc(self.token.gfp(Gfp::ATOMIC))
            .map_err(SkbAllocError::Memory)?;
        // The cache tries ordinary memory again before it dips.
        let off = |mechanism| self.ablation().off(mechanism);
        let keep =
            buffer.from_reserve() || off(Mechanism::RetryOrdinary) || off(Mechanism::OrdinaryFirst);
        let charge = (keep && !off(Mechanism::ChargeWithSkb)).then_some(charge);
        Ok(self.skb(buffer, charge, side))
    }

    fn charge(&self, side: Side) -> Result<Charge<'m>, SkbAllocError> {
        let node = match side {
            Side::Rx => self.rx,
            Side::Tx => self.tx,
        };
        node.charge(self.cache.object_size())
            .map_err(SkbAllocError::Reserve)
    }

    /// Makes the skb, and counts it.
    fn skb(&self, buffer: Buffer<'m>, charge: Option<Charge<'m>>, side: Side) -> Skb<'m> {
        let books = self.books.of(side);
        let counter = if charge.is_some() {
            &books.emergency
        } else {
            &books.ordinary
        };
        counter.count(&mut self.state.lock().writer);
        Skb::new(buffer, charge, self.headroom, side, self.ablation())
    }

    /// Counts a request that got nothing, and tells of it.
    #[cold]
    fn failed(&self, side: Side, error: SkbAllocError) -> SkbAllocError {
        let counter = &self.books.of(side).failed;
        let nth = {
            let mut state = self.state.lock();
            counter.count(&mut state.writer);
            counter.get()
        };
        if EVENTS && loud(nth) {
            __event!(
                warn,
                "skbs to {}: {} ({} failures so far)",
                match side {
                    Side::Rx => "receive",
                    Side::Tx => "send",
                },
                error,
                nth
            );
        }
        error
    }
}

impl fmt::Debug for SkbPool<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SkbPool")
            .field("object_size", &self.cache.object_size())
            .field("headroom", &self.headroom)
            .finish_non_exhaustive()
    }
}

/// Why there is no skb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SkbAllocError {
    /// No memory that this caller may have.
    Memory(AllocError),
    /// No ordinary memory, and all of the reserve that this side may hold is charged.
    Reserve(ChargeError),
    /// No skb of the pool has room for the data behind that much headroom.
    TooLarge,
}

impl fmt::Display for SkbAllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SkbAllocError::Memory(error) => write!(f, "no packet buffer: {error}"),
            SkbAllocError::Reserve(error) => write!(f, "no packet buffer of the reserve: {error}"),
            SkbAllocError::TooLarge => f.write_str("no packet buffer has so much room"),
        }
    }
}

impl core::error::Error for SkbAllocError {}

#[cfg(test)]
mod tests;
