//! Limits that change while the system runs: the reserve first, then the holder (N4).

use core::fmt;

use lock_api::RawMutex;
use mempool::{CriticalSection, ReserveError, ReserveNode};

use crate::ablation::{Ablation, Mechanism};
use crate::{Reassembly, ReassemblyLimits, RxHolders, rx_budget};

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
/// # let (mut memory, mut table) = (vec![0u8; 33 * 4096], [FrameEntry::EMPTY; 33]);
/// # let source = <Buddy>::new(&mut memory, &mut table)?;
/// # let task = SingleTask::new();
/// # let zone = <Zone>::new(&source, &task, Watermarks::default())?;
/// // … a zone of some 30 frames …
/// let root: ReserveNode<'_> = ReserveNode::root("total", &zone);
/// let rx = ReserveNode::new("rx");
/// rx.connect(&root)?;
/// let mut limits = RxLimits::new(&rx, RxHolders::ring(8), 0, 2016, 0)?;
/// assert_eq!((rx.limit(), rx.pages()), (10 * 2016, 5));
///
/// limits.set_ring(16)?; // and then the driver may post so many
/// assert_eq!(rx.pages(), 9);
/// assert!(limits.set_ring(1000).is_err());
/// assert_eq!((limits.holders().ring, rx.pages()), (16, 9));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RxLimits<'a, 't, R = CriticalSection> {
    node: &'a ReserveNode<'t, R>,
    holders: RxHolders,
    beside: usize,
    size: usize,
    order: u8,
    ablation: Ablation,
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
        let limits = RxLimits {
            node,
            holders,
            beside,
            size,
            order,
            ablation: Ablation::NONE,
        };
        limits.reserve(holders)?;
        Ok(limits)
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
        self.ablation.ablate(mechanism);
    }

    /// `apply` gives the holder its new limit, or its old one again.
    fn set(&mut self, to: RxHolders, apply: impl Fn(bool)) -> Result<(), ReserveError> {
        let raised = to.skbs(self.size) >= self.holders.skbs(self.size);
        if raised {
            let grown = self.reserve(to);
            if !self.ablation.off(Mechanism::GrowFirst) {
                grown?;
            }
            apply(true);
        } else {
            apply(true);
            if let Err(error) = self.reserve(to) {
                apply(false);
                return Err(error);
            }
        }
        self.holders = to;
        Ok(())
    }

    fn reserve(&self, holders: RxHolders) -> Result<(), ReserveError> {
        let skbs = holders.skbs(self.size);
        // `rx_budget` counts two beside the ring that it is told of.
        let frames = match (skbs + self.beside).checked_sub(2) {
            Some(ring) => rx_budget(ring, self.size, self.order).frames(),
            None => 0,
        };
        self.node.set_limit(holders.limit(self.size), frames)
    }
}

impl<R> fmt::Debug for RxLimits<'_, '_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RxLimits")
            .field("node", &self.node)
            .field("holders", &self.holders)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use core::time::Duration;

    use super::*;
    use crate::testbed::{RX_RING, SKB, leak, machine};
    use crate::{FragmentSlot, LruSlot, Medium};

    fn reassembly(limits: ReassemblyLimits) -> &'static Reassembly<'static> {
        let datagrams: Vec<_> = (0..16).map(|_| LruSlot::EMPTY).collect();
        let fragments: Vec<_> = (0..64).map(|_| FragmentSlot::EMPTY).collect();
        let table = Reassembly::new(datagrams.leak(), fragments.leak(), limits, Medium::Ip);
        leak(table)
    }

    #[test]
    fn n4_raising_a_limit_grows_the_reserve_first_or_fails() {
        let m = machine();
        let before = m.zone.stats().reserve;
        let none = ReassemblyLimits::new(0);
        let reassembly = reassembly(none);
        let mut limits = RxLimits::new(m.rx, RxHolders::ring(RX_RING), 0, SKB, 0).unwrap();
        assert_eq!(m.zone.stats().reserve, before);

        // Of memory that is all taken nothing can be set aside, and nothing has changed.
        let hog = m.exhaust();
        let more = ReassemblyLimits::new(6 * SKB);
        for error in [
            limits.set_reassembly(reassembly, more),
            limits.set_ring(RX_RING + 8),
            limits.set_sockets(4),
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
        limits.set_sockets(4).unwrap();
        limits.set_ring(RX_RING + 8).unwrap();
        let skbs = RX_RING + 8 + 2 + 6 + 4 + 1;
        assert_eq!((m.rx.limit(), reassembly.limits()), (skbs * SKB, more));
        assert_eq!(
            m.zone.stats().reserve - before,
            m.rx.pages() - (RX_RING + 2) / 2
        );

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
            (none, (skbs - 6) * SKB)
        );
        drop(hog);
        reassembly.expire(Duration::ZERO);
        limits.set_sockets(0).unwrap();
        limits.set_ring(RX_RING).unwrap();
        assert_eq!(m.zone.stats().reserve, before);
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
