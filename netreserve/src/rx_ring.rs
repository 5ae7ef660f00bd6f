//! The buffers that a card may fill, and when they become more.

use core::fmt;

use heapless::Deque;

use crate::{Skb, SkbAllocError, SkbPool};

/// When a ring is refilled.
///
/// ```
/// use netreserve::RefillPolicy;
///
/// assert_eq!(RefillPolicy::half(64), RefillPolicy { size: 64, low: 32 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RefillPolicy {
    /// Buffers when it is full: what the [budget](crate::budget()) counts.
    pub size: usize,
    /// It is refilled when no more than so many are posted. With `size - 1` that is for each packet,
    /// with 0 when nothing more can come.
    pub low: usize,
}

impl RefillPolicy {
    /// Refilled when half of it is used up.
    #[must_use]
    pub const fn half(size: usize) -> Self {
        RefillPolicy {
            size,
            low: size / 2,
        }
    }
}

/// What became of a ring's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RxRingStats {
    /// Times that buffers were posted: a card is told once for all of them.
    pub batches: u64,
    /// Buffers posted.
    pub posted: u64,
    /// Times that the pool had no buffer for it.
    pub short: u64,
}

/// What one refill did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Refill {
    /// Buffers that were posted. If there are any the card is to be told, once.
    pub posted: usize,
    /// Why there were no more, if the ring is not full though its mark was reached.
    pub error: Option<SkbAllocError>,
}

/// A card's receive ring, for a driver: skbs in the order in which the card fills them, refilled in
/// batches.
///
/// To post buffers costs a write over the bus, and to look for memory a walk through the allocator: once
/// for many is cheaper than once for each packet. It makes nothing less safe:
///
/// - the pool decides as ever where memory comes from (N1), and never has more than `size` in here (N4);
/// - whatever the mark, an empty ring is refilled at every opportunity, so that the one buffer of
///   [`MIN_RX_SKBS`](crate::MIN_RX_SKBS) goes round (N7);
/// - below the mark the ring asks again for each packet, so that memory which comes free is posted;
/// - the window that is advertised follows [`posted`](RxRing::posted), by
///   [`Nic::rx_posted`](crate::Nic::rx_posted): between two batches it is smaller by what has come, which
///   is what the peer counts on as well.
///
/// Room for `N` buffers lies in it; the policy may ask for fewer. O(1), but for refilling.
///
/// ```
/// # use mempool::{Buddy, FrameEntry, ReserveNode, SingleTask, SizedCache, Watermarks, Zone};
/// # use netreserve::{FlowTable, SkbPool};
/// use netreserve::{RefillPolicy, RxRing};
///
/// # let (mut memory, mut table) = (vec![0u8; 17 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 17]);
/// # let source = <Buddy>::new(&mut memory, &mut table)?;
/// # let task = SingleTask::new();
/// # let zone = <Zone>::new(&source, &task, Watermarks::default())?;
/// # let (rx, tx) = (<ReserveNode>::new("rx"), <ReserveNode>::new("tx"));
/// # let cache = <SizedCache>::new("skb", &zone, 2016, 0)?;
/// # let flows = FlowTable::new(&mut [], &mut []);
/// # let pool = SkbPool::new(&cache, &rx, &tx, &flows, zone.claim_memalloc().unwrap());
/// let mut ring = RxRing::<'_, 8>::new(RefillPolicy::half(8));
/// for _ in 0..12 {
///     ring.refill(&pool, |skb| {
///         let room = skb.tailroom();
///         let _ = skb.put(room); // the card is told this address and this length
///     });
///     let mut skb = ring.next().expect("it was refilled");
///     skb.trim(60)?; // so much came
/// }
/// let stats = ring.stats();
/// assert_eq!((stats.batches, stats.posted), (3, 16));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct RxRing<'m, const N: usize> {
    skbs: Deque<Skb<'m>, N>,
    policy: RefillPolicy,
    stats: RxRingStats,
}

impl<'m, const N: usize> RxRing<'m, N> {
    /// An empty ring.
    ///
    /// # Panics
    ///
    /// If the policy asks for more than `N` buffers, or would never refill: its `low` must be less than
    /// its `size`.
    #[must_use]
    pub fn new(policy: RefillPolicy) -> Self {
        assert!(policy.size <= N, "the ring has no room for so many buffers");
        assert!(policy.low < policy.size, "such a ring is never refilled");
        RxRing {
            skbs: Deque::new(),
            policy,
            stats: RxRingStats::default(),
        }
    }

    /// Fills the ring if its mark is reached, as far as the pool has skbs; `post` makes each ready for
    /// the card, in the order in which they will be filled.
    ///
    /// A driver calls this for each packet that it takes, and whenever it is asked for one.
    pub fn refill(&mut self, pool: &SkbPool<'m>, mut post: impl FnMut(&mut Skb<'m>)) -> Refill {
        let mut refill = Refill {
            posted: 0,
            error: None,
        };
        if self.skbs.len() > self.policy.low {
            return refill;
        }
        while self.skbs.len() < self.policy.size {
            let mut skb = match pool.alloc_rx() {
                Ok(skb) => skb,
                Err(error) => {
                    self.stats.short += 1;
                    refill.error = Some(error);
                    break;
                }
            };
            post(&mut skb);
            if self.skbs.push_back(skb).is_err() {
                break;
            }
            refill.posted += 1;
        }
        self.stats.batches += u64::from(refill.posted > 0);
        self.stats.posted += refill.posted as u64;
        refill
    }

    /// Whether the next [`refill`](RxRing::refill) would post something.
    #[must_use]
    pub fn needs_refill(&self) -> bool {
        self.skbs.len() <= self.policy.low
    }

    /// The buffer that the card fills next.
    #[must_use]
    pub fn front_mut(&mut self) -> Option<&mut Skb<'m>> {
        self.skbs.front_mut()
    }

    /// Takes the buffer that the card has filled: the one that was posted first.
    #[expect(
        clippy::should_implement_trait,
        reason = "a ring is no sequence that ends"
    )]
    pub fn next(&mut self) -> Option<Skb<'m>> {
        self.skbs.pop_front()
    }

    /// Buffers in the ring: for [`Nic::rx_posted`](crate::Nic::rx_posted).
    #[must_use]
    pub fn posted(&self) -> usize {
        self.skbs.len()
    }

    /// The buffers in the ring, the one to be filled next first.
    pub fn iter(&self) -> impl Iterator<Item = &Skb<'m>> {
        self.skbs.iter()
    }

    /// When it is refilled.
    #[must_use]
    pub fn policy(&self) -> RefillPolicy {
        self.policy
    }

    /// A snapshot of the counters.
    #[must_use]
    pub fn stats(&self) -> RxRingStats {
        self.stats
    }

    /// Frees all buffers: of a card that was reset.
    pub fn clear(&mut self) {
        self.skbs.clear();
    }
}

impl<const N: usize> fmt::Debug for RxRing<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RxRing")
            .field("posted", &self.posted())
            .field("policy", &self.policy)
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbed::{SKB, SWAP, machine};
    use crate::{MIN_RX_SKBS, Protocol, Verdict};

    #[test]
    fn buffers_are_posted_in_batches_and_the_ring_is_never_empty() {
        let m = machine();
        for low in 0..8 {
            let mut ring = RxRing::<'_, 8>::new(RefillPolicy { size: 8, low });
            let mut told = 0;
            for _ in 0..240 {
                told += ring.refill(m.pool, |skb| assert!(skb.is_empty())).posted;
                assert!(ring.posted() > low && ring.posted() <= 8);
                assert!(ring.next().is_some());
            }
            let stats = ring.stats();
            // The first fills it, and then each time that the mark is reached again.
            let batch = 8 - low as u64;
            assert_eq!(
                stats.batches,
                1 + (240 - batch).div_ceil(batch),
                "low {low}"
            );
            assert_eq!((stats.posted, stats.short), (told as u64, 0));
            ring.clear();
            m.assert_quiescent();
        }
    }

    #[test]
    fn n7_with_the_smallest_reserve_no_reply_is_lost_whatever_the_mark() {
        use crate::testbed::{LOCAL, SERVER, STRANGER, packet};

        for low in 0..8 {
            let m = machine();
            m.rx.set_limit(MIN_RX_SKBS * SKB, 1).unwrap();
            m.flows.add(SWAP).unwrap();
            let _hog = m.exhaust();
            let mut ring = RxRing::<'_, 8>::new(RefillPolicy { size: 8, low });
            for number in 0..200 {
                let refill = ring.refill(m.pool, |_| ());
                assert!(matches!(refill.error, Some(SkbAllocError::Reserve(_))));
                // The peer sends what the window allows, and that is what is posted.
                assert_eq!(ring.posted(), MIN_RX_SKBS, "low {low}");
                let from = if number % 3 == 0 { SERVER } else { STRANGER };
                let frame = packet(Protocol::Tcp, from, LOCAL, 8);
                let mut skb = ring.next().unwrap();
                assert!(skb.is_emergency());
                skb.put(frame.len()).unwrap().copy_from_slice(&frame);
                let verdict = m.ingress.receive(skb);
                assert_eq!(matches!(verdict, Verdict::Swap(_)), from == SERVER);
            }
            assert_eq!(m.ingress.stats().vmio, 67);
        }
    }

    #[test]
    #[should_panic(expected = "never refilled")]
    fn a_ring_that_would_never_be_refilled_is_refused() {
        let _ = RxRing::<'_, 8>::new(RefillPolicy { size: 4, low: 4 });
    }
}
