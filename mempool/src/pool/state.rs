//! The books of a pool, under its lock.

use super::wait::Waiters;
use crate::ablation::Ablation;

/// What a pool counted since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PoolStats {
    /// Elements that the pool holds when it is full.
    pub min: usize,
    /// Elements in the pool now.
    pub available: usize,
    /// The fewest of those since the pool was last filled.
    pub min_available: usize,
    /// Elements handed out now, wherever they came from.
    pub in_use: usize,
    /// Allocations from ordinary memory.
    pub ordinary: u64,
    /// Allocations from the pool.
    pub from_pool: u64,
    /// Allocations from the reserve, for the entitled.
    pub from_reserve: u64,
    /// Allocations that failed.
    pub refused: u64,
    /// [Polls](crate::Pool::poll_alloc) that ended with a wait.
    pub waited: u64,
}

/// The elements that are in, the tasks that wait, and the counters. Nothing here calls the source,
/// drops an element or wakes a task: what must be dropped or woken is returned.
pub(super) struct State<'p, E> {
    /// The first `stats.available` are taken, the others are empty.
    slots: &'p mut [Option<E>],
    pub(super) stats: PoolStats,
    pub(super) waiters: Waiters<'p>,
    pub(super) ablation: Ablation,
}

impl<'p, E> State<'p, E> {
    pub(super) fn new(slots: &'p mut [Option<E>], waiters: Waiters<'p>) -> Self {
        slots.fill_with(|| None);
        let stats = PoolStats {
            min: slots.len(),
            ..PoolStats::default()
        };
        State {
            slots,
            stats,
            waiters,
            ablation: Ablation::NONE,
        }
    }

    /// Elements that the pool is short of its minimum.
    pub(super) fn missing(&self) -> usize {
        self.stats.min - self.stats.available
    }

    /// Counts an element that the source gave.
    pub(super) fn allocated(&mut self, from_reserve: bool) {
        self.stats.in_use += 1;
        if from_reserve {
            self.stats.from_reserve += 1;
        } else {
            self.stats.ordinary += 1;
        }
    }

    /// Takes an element out, and counts it.
    pub(super) fn take(&mut self) -> Option<E> {
        let last = self.stats.available.checked_sub(1)?;
        self.stats.available = last;
        self.stats.min_available = self.stats.min_available.min(last);
        self.stats.in_use += 1;
        self.stats.from_pool += 1;
        self.slots[last].take()
    }

    /// Keeps `element`, unless the pool is full: then it comes back.
    pub(super) fn put(&mut self, element: E) -> Option<E> {
        let Some(slot) = self.slots.get_mut(self.stats.available) else {
            return Some(element);
        };
        self.stats.available += 1;
        slot.replace(element)
    }
}

impl<E> Drop for State<'_, E> {
    fn drop(&mut self) {
        // The slots may outlive the pool by far.
        self.slots.fill_with(|| None);
    }
}
