//! How much reserve packets can need, from the sizes of the rings (N4).
//!
//! A receive skb is in the ring, or in the [drop ladder](crate::Ingress) on its way out of it, or
//! with the swap stack: being read there, or waiting for its transmit skb. The ladder handles one
//! frame at a time and the swap stack is handed one at a time, so that with a ring of `n` no more
//! than `n + 2` exist. Nothing else may keep an emergency skb, but for what is named below (N2).
//!
//! A transmit skb is in the ring, or being filled or waiting for room in the ring, or the spare
//! that is held before a received frame is handed up (N5): `n + 2` again.
//!
//! Clones share a buffer, and add nothing while they lie where its skb may. Whoever keeps one after
//! that, or copies or expands shared emergency skbs, is one more holder: each such skb goes on top of
//! the ring that is named here.
//!
//! Sockets that serve the VM hold as many as the [room](crate::VmioRoom) that they were given, and one
//! more while a backlog is processed; [reassembly](crate::Reassembly) holds what its limits say.
//! [`RxHolders`] and [`TxHolders`] add all of these up.
//!
//! That holds for one caller that fills the rings. The slabs are the cache's: several caches, or
//! slabs of an order above 0, are not covered (see [`Budget`]).
//!
//! Each is charged with its truesize, the object size of the cache. The frames behind them are
//! those of full slabs: the cache uses up partial reserve slabs before it makes another.

use mempool::Budget;

/// Receive skbs that can exist at once beside those of others: the ring, one in the ladder, one
/// with the swap stack.
#[must_use]
pub const fn rx_skbs(ring: usize) -> usize {
    ring + 2
}

/// Transmit skbs that can exist at once: the ring, one being filled, the spare.
#[must_use]
pub const fn tx_skbs(ring: usize) -> usize {
    ring + 2
}

/// Receive skbs without which the swap connection may stop for good. One goes round: it is posted, judged,
/// read by the swap stack or freed at once, and posted again. More make it faster, not safer: with one, a
/// burst loses all but its first packet.
pub const MIN_RX_SKBS: usize = 1;

/// Transmit skbs without which the swap connection may stop for good. One goes round: held before a
/// received frame is handed up (N5), filled, sent, and freed when the card is done with it.
pub const MIN_TX_SKBS: usize = 1;

/// Frames behind both nodes when their limits are [`MIN_RX_SKBS`] and [`MIN_TX_SKBS`] times `size`: the
/// smallest reserve with which every accepted page-out completes. Both kinds share their slabs, so that
/// one of the nodes must ask for all of it.
///
/// The simulator finds a deadlock with less (`simulator budgets`).
///
/// ```
/// assert_eq!(netreserve::min_budget(2016, 0).frames(), 1);
/// ```
///
/// # Panics
///
/// If no skb fits into a slab; in a `const` that is a compile error.
#[must_use]
pub const fn min_budget(size: usize, order: u8) -> Budget {
    Budget::objects(MIN_RX_SKBS + MIN_TX_SKBS, size, order)
}

/// All that can hold skbs of one receive node.
///
/// ```
/// use netreserve::RxHolders;
///
/// // A ring of 8, and a socket of the swap connection with room for 4.
/// const HOLDERS: RxHolders = RxHolders {
///     sockets: 4,
///     ..RxHolders::ring(8)
/// };
/// assert_eq!(HOLDERS.skbs(2016), 8 + 2 + 4 + 1);
/// let per_frame = mempool::objects_per_slab(2016, 0);
/// assert_eq!(HOLDERS.budget(2016, 0).frames(), HOLDERS.skbs(2016).div_ceil(per_frame));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RxHolders {
    /// The size of the receive ring.
    pub ring: usize,
    /// Skbs in the rooms of all VMIO sockets: the sum of [`VmioRoom::rx`](crate::VmioRoom::rx).
    pub sockets: usize,
    /// Bytes of truesize that reassembly may hold. The reserve must exceed them, so that reassembly can
    /// overflow and evict.
    pub reassembly: usize,
}

impl RxHolders {
    /// A ring alone, with the ladder and the swap stack behind it.
    #[must_use]
    pub const fn ring(ring: usize) -> RxHolders {
        RxHolders {
            ring,
            sockets: 0,
            reassembly: 0,
        }
    }

    /// Skbs of `size` bytes that all of them hold at worst: those of [`rx_skbs`], those of the sockets
    /// and one that a backlog's handler looks at, those of reassembly.
    ///
    /// # Panics
    ///
    /// If that is beyond any memory, or `size` is 0 and there is reassembly; in a `const` that is a
    /// compile error.
    #[must_use]
    pub const fn skbs(self, size: usize) -> usize {
        let in_hand = if self.sockets > 0 { 1 } else { 0 };
        let fragments = match self.reassembly {
            0 => 0,
            bytes => bytes / size,
        };
        let sum = sum(sum(rx_skbs(self.ring), self.sockets), fragments);
        sum.checked_add(in_hand).expect(BEYOND)
    }

    /// Limit of the node in bytes.
    ///
    /// # Panics
    ///
    /// See [`skbs`](RxHolders::skbs).
    #[must_use]
    pub const fn limit(self, size: usize) -> usize {
        self.skbs(size).checked_mul(size).expect(BEYOND)
    }

    /// Frames behind the node: skbs of `size` bytes in slabs of `1 << order` frames.
    ///
    /// # Panics
    ///
    /// See [`skbs`](RxHolders::skbs), and if no skb fits into a slab.
    #[must_use]
    pub const fn budget(self, size: usize, order: u8) -> Budget {
        Budget::objects(self.skbs(size), size, order)
    }
}

/// All that can hold skbs of one transmit node.
///
/// ```
/// use netreserve::TxHolders;
///
/// const HOLDERS: TxHolders = TxHolders { ring: 8, sockets: 2 };
/// assert_eq!(HOLDERS.skbs(), 8 + 2 + 2);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TxHolders {
    /// The size of the transmit ring.
    pub ring: usize,
    /// Skbs in the rooms of all VMIO sockets: the sum of [`VmioRoom::tx`](crate::VmioRoom::tx). Within
    /// their `sndbuf`s they get nothing of the reserve.
    pub sockets: usize,
}

impl TxHolders {
    /// Skbs that both hold at worst.
    ///
    /// # Panics
    ///
    /// If that is beyond any memory; in a `const` that is a compile error.
    #[must_use]
    pub const fn skbs(self) -> usize {
        sum(tx_skbs(self.ring), self.sockets)
    }

    /// Limit of the node in bytes.
    ///
    /// # Panics
    ///
    /// See [`skbs`](TxHolders::skbs).
    #[must_use]
    pub const fn limit(self, size: usize) -> usize {
        self.skbs().checked_mul(size).expect(BEYOND)
    }

    /// Frames behind the node: skbs of `size` bytes in slabs of `1 << order` frames.
    ///
    /// # Panics
    ///
    /// See [`skbs`](TxHolders::skbs), and if no skb fits into a slab.
    #[must_use]
    pub const fn budget(self, size: usize, order: u8) -> Budget {
        Budget::objects(self.skbs(), size, order)
    }
}

const fn sum(a: usize, b: usize) -> usize {
    a.checked_add(b).expect(BEYOND)
}

const BEYOND: &str = "rings beyond any memory";

/// Limit of the receive node in bytes, for skbs of `size` bytes.
///
/// # Panics
///
/// If that is beyond any memory; in a `const` that is a compile error.
#[must_use]
pub const fn rx_limit(ring: usize, size: usize) -> usize {
    rx_skbs(ring).checked_mul(size).expect(BEYOND)
}

/// Limit of the transmit node in bytes, for skbs of `size` bytes.
///
/// # Panics
///
/// If that is beyond any memory; in a `const` that is a compile error.
#[must_use]
pub const fn tx_limit(ring: usize, size: usize) -> usize {
    tx_skbs(ring).checked_mul(size).expect(BEYOND)
}

/// Frames behind the receive node: skbs of `size` bytes in slabs of `1 << order` frames.
///
/// # Panics
///
/// If no skb fits into a slab; in a `const` that is a compile error.
#[must_use]
pub const fn rx_budget(ring: usize, size: usize, order: u8) -> Budget {
    Budget::objects(rx_skbs(ring), size, order)
}

/// Frames behind the transmit node: skbs of `size` bytes in slabs of `1 << order` frames.
///
/// # Panics
///
/// If no skb fits into a slab; in a `const` that is a compile error.
#[must_use]
pub const fn tx_budget(ring: usize, size: usize, order: u8) -> Budget {
    Budget::objects(tx_skbs(ring), size, order)
}

/// Frames behind both nodes, whose skbs share the slabs of one cache: one of the nodes must ask for all
/// of it. That is less than [`rx_budget`] and [`tx_budget`] together where these round up twice.
///
/// The simulator finds an allocation that fails with less (`simulator budgets`).
///
/// ```
/// use mempool::{Budget, FRAME_SIZE, SLAB_HEADER, SLAB_RED_ZONE};
///
/// const NETWORK: Budget = netreserve::budget(64, 64, 2016, 0);
/// const _: () = NETWORK.assert_fits(66);
/// // Three to eight frames: seven slabs hold all twenty, where two roundings would ask for eight.
/// const LARGE: usize = (8 * FRAME_SIZE - SLAB_HEADER) / 3 - SLAB_RED_ZONE;
/// assert_eq!(netreserve::budget(8, 8, LARGE, 3).frames(), 56);
/// ```
///
/// # Panics
///
/// If no skb fits into a slab; in a `const` that is a compile error.
#[must_use]
pub const fn budget(rx_ring: usize, tx_ring: usize, size: usize, order: u8) -> Budget {
    let skbs = rx_skbs(rx_ring).checked_add(tx_skbs(tx_ring));
    Budget::objects(skbs.expect(BEYOND), size, order)
}
