//! Limits that change while the system runs: the reserve first, then the holder (N4).

use core::fmt;

use lock_api::RawMutex;
use mempool::{Budget, CriticalSection, ReserveError, ReserveNode};

use crate::ablation::{Ablation, Mechanism};
use crate::{Reassembly, ReassemblyLimits, RxHolders, TxHolders};

/// The receive node, and what the holders of its skbs may hold.
///
/// Who raises a limit gets the frames for it first, or is refused, and nothing has changed. Who lowers
/// one takes from the holder first, and then gives the frames back; if more is charged than would be
/// left, the holder has its old limit again.
///
/// ```
/// # use mempool::{Buddy, FrameEntry, ReserveNode, SingleTask, Watermarks, Zone};
/// use netreserve::{RxHolders, RxLimits};
///
/// # let (mut memory, mut table) = (vec![0u8; 33 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 33]);
/// # let source = <Buddy>::new(&mut memory, &mut table)?;
/// # let task = SingleTask::new();
/// # let zone = <Zone>::new(&source, &task, Watermarks::default())?;
/// // … a zone of some 30 frames …
/// let root: ReserveNode<'_> = ReserveNode::root("total", &zone);
/// let rx = ReserveNode::new("rx");
/// rx.connect(&root)?;
/// // Two to a frame.
/// const SKB: usize = (mempool::FRAME_SIZE - mempool::SLAB_HEADER) / 2 - mempool::SLAB_RED_ZONE;
/// let mut limits = RxLimits::new(&rx, RxHolders::ring(8), 0, SKB, 0)?;
/// assert_eq!((rx.limit(), rx.pages()), (10 * SKB, 5));
///
/// limits.set_ring(16)?; // and then the driver may post so many
/// assert_eq!(rx.pages(), 9);
/// assert!(limits.set_ring(1000).is_err());
/// assert_eq!((limits.holders().ring, rx.pages()), (16, 9));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RxLimits<'a, 't, R = CriticalSection> {
    side: Side<'a, 't, R>,
    holders: RxHolders,
}

impl<'a, 't, R: RawMutex> RxLimits<'a, 't, R> {
    /// Sets the limit of `node` to what `holders` can hold of skbs of `size` bytes, in slabs of
    /// `1 << order` frames. The node asks for the frames of `beside` more skbs, whose node shares the
    /// slabs and asks for none: see [`budget`](crate::budget()).
    ///
    /// # Errors
    ///
    /// [`ReserveError`]; nothing has changed.
    ///
    /// # Panics
    ///
    /// If no skb fits into a slab.
    pub fn new(
        node: &'a ReserveNode<'t, R>,
        holders: RxHolders,
        beside: usize,
        size: usize,
        order: u8,
    ) -> Result<Self, ReserveError> {
        let side = Side::new(node, beside, size, order);
        side.reserve(holders.skbs(size))?;
        Ok(RxLimits { side, holders })
    }

    /// What may be held now.
    #[must_use]
    pub fn holders(&self) -> RxHolders {
        self.holders
    }

    /// Lets the ring have `ring` skbs. A driver with a larger ring posts more when this has returned,
    /// one with a smaller ring has freed its skbs before.
    ///
    /// # Errors
    ///
    /// [`ReserveError::Backing`] if the frames are not to be had, [`ReserveError::InUse`] if more is
    /// charged than would be left; nothing has changed.
    pub fn set_ring(&mut self, ring: usize) -> Result<(), ReserveError> {
        let to = RxHolders {
            ring,
            ..self.holders
        };
        self.set(to, |_| ())
    }

    /// Lets the [rooms](crate::VmioRoom) of all VMIO sockets have `skbs` together: before one is given,
    /// and after one was taken.
    ///
    /// # Errors
    ///
    /// See [`set_ring`](RxLimits::set_ring).
    pub fn set_sockets(&mut self, skbs: usize) -> Result<(), ReserveError> {
        let to = RxHolders {
            sockets: skbs,
            ..self.holders
        };
        self.set(to, |_| ())
    }

    /// Lets reassembly hold what `limits` say. What exceeds lower ones is evicted.
    ///
    /// # Errors
    ///
    /// See [`set_ring`](RxLimits::set_ring); what was evicted stays so.
    pub fn set_reassembly(
        &mut self,
        reassembly: &Reassembly<'_>,
        limits: ReassemblyLimits,
    ) -> Result<(), ReserveError> {
        let to = RxHolders {
            reassembly: limits.high,
            ..self.holders
        };
        let before = reassembly.limits();
        self.set(to, |new| {
            reassembly.set_limits(if new { limits } else { before });
        })
    }

    /// Switches a mechanism of these limits off, for good. A mechanism of another object changes
    /// nothing.
    #[cfg(feature = "ablation")]
    pub fn ablate(&mut self, mechanism: Mechanism) {
        self.side.ablation.ablate(mechanism);
    }

    fn set(&mut self, to: RxHolders, apply: impl Fn(bool)) -> Result<(), ReserveError> {
        let [before, after] = [self.holders, to].map(|holders| holders.skbs(self.side.size));
        self.side.change(before, after, apply)?;
        self.holders = to;
        Ok(())
    }
}

/// The transmit node, and what the holders of its skbs may hold: as [`RxLimits`].
///
/// ```
/// # use mempool::{Buddy, FrameEntry, ReserveNode, SingleTask, Watermarks, Zone};
/// use netreserve::{TxHolders, TxLimits};
///
/// # let (mut memory, mut table) = (vec![0u8; 33 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 33]);
/// # let source = <Buddy>::new(&mut memory, &mut table)?;
/// # let task = SingleTask::new();
/// # let zone = <Zone>::new(&source, &task, Watermarks::default())?;
/// let root: ReserveNode<'_> = ReserveNode::root("total", &zone);
/// let tx = ReserveNode::new("tx");
/// tx.connect(&root)?;
/// let mut limits = TxLimits::new(&tx, TxHolders { ring: 8, sockets: 0 }, 0, 2016, 0)?;
/// limits.set_sockets(4)?; // and then a socket may serve the VM, with room for so many
/// assert_eq!(tx.limit(), 14 * 2016);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TxLimits<'a, 't, R = CriticalSection> {
    side: Side<'a, 't, R>,
    holders: TxHolders,
}

impl<'a, 't, R: RawMutex> TxLimits<'a, 't, R> {
    /// Sets the limit of `node` to what `holders` can hold of skbs of `size` bytes: see
    /// [`RxLimits::new`].
    ///
    /// # Errors
    ///
    /// [`ReserveError`]; nothing has changed.
    ///
    /// # Panics
    ///
    /// If no skb fits into a slab.
    pub fn new(
        node: &'a ReserveNode<'t, R>,
        holders: TxHolders,
        beside: usize,
        size: usize,
        order: u8,
    ) -> Result<Self, ReserveError> {
        let side = Side::new(node, beside, size, order);
        side.reserve(holders.skbs())?;
        Ok(TxLimits { side, holders })
    }

    /// What may be held now.
    #[must_use]
    pub fn holders(&self) -> TxHolders {
        self.holders
    }

    /// Lets the ring have `ring` skbs: before the driver takes more, and after it took its last beyond.
    ///
    /// # Errors
    ///
    /// See [`RxLimits::set_ring`].
    pub fn set_ring(&mut self, ring: usize) -> Result<(), ReserveError> {
        self.set(TxHolders {
            ring,
            ..self.holders
        })
    }

    /// Lets the [rooms](crate::VmioRoom) of all VMIO sockets have sent `skbs` together: before one is
    /// given, and after one was taken.
    ///
    /// # Errors
    ///
    /// See [`RxLimits::set_ring`].
    pub fn set_sockets(&mut self, skbs: usize) -> Result<(), ReserveError> {
        self.set(TxHolders {
            sockets: skbs,
            ..self.holders
        })
    }

    /// Switches a mechanism of these limits off, for good. A mechanism of another object changes
    /// nothing.
    #[cfg(feature = "ablation")]
    pub fn ablate(&mut self, mechanism: Mechanism) {
        self.side.ablation.ablate(mechanism);
    }

    fn set(&mut self, to: TxHolders) -> Result<(), ReserveError> {
        self.side.change(self.holders.skbs(), to.skbs(), |_| ())?;
        self.holders = to;
        Ok(())
    }
}

/// A node whose limit is that of a number of skbs.
struct Side<'a, 't, R> {
    node: &'a ReserveNode<'t, R>,
    beside: usize,
    size: usize,
    order: u8,
    ablation: Ablation,
}

impl<'a, 't, R: RawMutex> Side<'a, 't, R> {
    fn new(node: &'a ReserveNode<'t, R>, beside: usize, size: usize, order: u8) -> Self {
        Side {
            node,
            beside,
            size,
            order,
            ablation: Ablation::NONE,
        }
    }

    /// `apply` gives the holder its new limit, or its old one again.
    fn change(
        &self,
        before: usize,
        after: usize,
        apply: impl Fn(bool),
    ) -> Result<(), ReserveError> {
        if after >= before {
            let grown = self.reserve(after);
            if !self.ablation.off(Mechanism::GrowFirst) {
                grown?;
            }
            apply(true);
            return Ok(());
        }
        apply(true);
        self.reserve(after).inspect_err(|_| apply(false))
    }

    fn reserve(&self, skbs: usize) -> Result<(), ReserveError> {
        let beyond = || {
            ReserveError::Backing(mempool::BackingError {
                missing: usize::MAX,
            })
        };
        let limit = skbs.checked_mul(self.size).ok_or_else(beyond)?;
        let all = skbs.checked_add(self.beside).ok_or_else(beyond)?;
        let frames = Budget::objects(all, self.size, self.order).frames();
        self.node.set_limit(limit, frames)
    }
}

impl<R> fmt::Debug for RxLimits<'_, '_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RxLimits")
            .field("node", &self.side.node)
            .field("holders", &self.holders)
            .finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for TxLimits<'_, '_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TxLimits")
            .field("node", &self.side.node)
            .field("holders", &self.holders)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use core::time::Duration;

    use super::*;
    use crate::testbed::{RX_RING, SKB, TX_RING, leak, machine};
    use crate::{FragmentSlot, LruSlot, Medium};

    /// As many skbs as take a frame more, however large that is.
    const SLAB: usize = mempool::objects_per_slab(SKB, 0);

    fn reassembly(limits: ReassemblyLimits) -> &'static Reassembly<'static> {
        let datagrams: Vec<_> = (0..16).map(|_| LruSlot::EMPTY).collect();
        let fragments: Vec<_> = (0..64).map(|_| FragmentSlot::EMPTY).collect();
        let table = Reassembly::new(datagrams.leak(), fragments.leak(), limits, Medium::Ip);
        leak(table)
    }

    #[test]
    fn n4_raising_a_limit_grows_the_reserve_first_or_fails() {
        let m = machine();
        let (before, pages) = (m.zone.stats().reserve, m.rx.pages());
        let none = ReassemblyLimits::new(0);
        let reassembly = reassembly(none);
        let mut limits = RxLimits::new(m.rx, RxHolders::ring(RX_RING), 0, SKB, 0).unwrap();
        assert_eq!(m.zone.stats().reserve, before);

        // Of memory that is all taken nothing can be set aside, and nothing has changed.
        let hog = m.exhaust();
        let more = ReassemblyLimits::new(3 * SLAB * SKB);
        for error in [
            limits.set_reassembly(reassembly, more),
            limits.set_ring(RX_RING + 4 * SLAB),
            limits.set_sockets(2 * SLAB),
        ] {
            assert!(matches!(error, Err(ReserveError::Backing(_))), "{error:?}");
        }
        assert_eq!(
            (reassembly.limits(), limits.holders()),
            (none, RxHolders::ring(RX_RING))
        );
        assert_eq!(
            (m.rx.limit(), m.zone.stats().reserve),
            ((RX_RING + 2) * SKB, before)
        );

        drop(hog);
        limits.set_reassembly(reassembly, more).unwrap();
        limits.set_sockets(2 * SLAB).unwrap();
        limits.set_ring(RX_RING + 4 * SLAB).unwrap();
        let skbs = RX_RING + 2 + 9 * SLAB + 1;
        assert_eq!((m.rx.limit(), reassembly.limits()), (skbs * SKB, more));
        assert_eq!(m.zone.stats().reserve - before, m.rx.pages() - pages);

        // Lower again: the holder first, and if too much is charged it has its limit back.
        m.flows.add(crate::testbed::SWAP).unwrap();
        let hog = m.exhaust();
        let ring: Vec<_> = (0..skbs).map(|_| m.pool.alloc_rx().unwrap()).collect();
        assert_eq!(m.rx.usage(), m.rx.limit());
        assert_eq!(
            limits.set_reassembly(reassembly, none),
            Err(ReserveError::InUse)
        );
        assert_eq!((reassembly.limits(), m.rx.limit()), (more, skbs * SKB));
        drop(ring);
        limits.set_reassembly(reassembly, none).unwrap();
        assert_eq!(
            (reassembly.limits(), m.rx.limit()),
            (none, (skbs - 3 * SLAB) * SKB)
        );
        drop(hog);
        reassembly.expire(Duration::ZERO);
        limits.set_sockets(0).unwrap();
        limits.set_ring(RX_RING).unwrap();
        assert_eq!(m.zone.stats().reserve, before);
    }

    #[test]
    fn n4_a_sender_s_limit_rises_with_the_reserve_behind_it_or_not_at_all() {
        let m = machine();
        let holders = TxHolders {
            ring: TX_RING,
            sockets: 0,
        };
        let mut limits = TxLimits::new(m.tx, holders, 0, SKB, 0).unwrap();
        let before = (m.tx.limit(), m.tx.pages());
        let hog = m.exhaust();
        assert!(matches!(
            limits.set_sockets(2 * SLAB),
            Err(ReserveError::Backing(_))
        ));
        assert_eq!((m.tx.limit(), m.tx.pages()), before);
        drop(hog);
        limits.set_sockets(2 * SLAB).unwrap();
        limits.set_ring(TX_RING + 2).unwrap();
        assert_eq!(m.tx.limit(), (TX_RING + 2 + 2 * SLAB + 2) * SKB);
        limits.set_ring(TX_RING).unwrap();
        limits.set_sockets(0).unwrap();
        assert_eq!((m.tx.limit(), m.tx.pages()), before);
        assert_eq!(limits.holders(), holders);
    }

    #[test]
    fn the_frames_are_those_of_both_sides_where_one_node_asks_for_them() {
        let m = machine();
        let limits = RxLimits::new(m.rx, RxHolders::ring(3), 4, SKB, 0).unwrap();
        assert_eq!(m.rx.pages(), crate::budget(3, 2, SKB, 0).frames());
        assert_eq!(m.rx.limit(), 5 * SKB);
        assert_eq!(limits.holders(), RxHolders::ring(3));
    }
}
