//! Who waits for whom: what a watchdog prints when faults stop moving.

use core::fmt;
use core::time::Duration;

use mempool::{Frame, Level};

use super::{EvictionPolicy, PageTable, Pager};
use crate::{AddressSpace, Instant};

/// Faults wait for a frame: since when, for what, and how things stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub struct Stall {
    /// What they wait for.
    pub reason: StallReason,
    /// Faults that wait for a frame.
    pub waiting: usize,
    /// How long the first of them has waited.
    pub waited: Duration,
    /// Resident pages.
    pub resident: usize,
    /// Resident pages that must be written before they can go.
    pub dirty: usize,
    /// Page-outs in flight, in requests.
    pub writes: usize,
    /// Page-ins in flight, in requests.
    pub reads: usize,
    /// How long the oldest request has been in flight.
    pub oldest_request: Option<Duration>,
    /// Slots that are free, in areas that pages go to.
    pub free_slots: u32,
    /// Frames that are free, against the marks.
    pub level: Level,
}

/// What faults wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum StallReason {
    /// For the store: page-outs are in flight, and their frames come back with them.
    PageOut,
    /// For the store: page-ins hold every request.
    PageIn,
    /// For the store to recover: the last page-out failed, and the next is due later.
    BackOff,
    /// For a swap area: none is active.
    NoSwap,
    /// For a slot: the area is full.
    NoSlot,
    /// For a page to be unpinned, or an event to be taken: every resident page is held.
    Held,
    /// For whoever else has the memory: no page is resident.
    NothingResident,
    /// For the next `poll`: there is something to reclaim.
    Poll,
}

impl<'m, A, T, P, const N: usize> Pager<'_, 'm, A, T, P, N>
where
    A: AddressSpace<Frame<'m>>,
    T: PageTable,
    P: EvictionPolicy,
{
    /// What faults wait for, if any wait for a frame. Faults whose page is on its way in are not
    /// stalled: the address space has a deadline. O(pages).
    #[must_use]
    pub fn stall(&self, now: Instant) -> Option<Stall> {
        let since = self.faults.oldest()?;
        Some(Stall {
            reason: self.stall_reason(now),
            waiting: self.faults.waiting(),
            waited: now.since(since),
            resident: self.policy.len(),
            dirty: self.dirty,
            writes: self.requests.writes(),
            reads: self.requests.reads(),
            oldest_request: self.requests.oldest().map(|oldest| now.since(oldest)),
            free_slots: self.space.usable_slots(),
            level: self.memory.level(),
        })
    }

    fn stall_reason(&self, now: Instant) -> StallReason {
        let mut movable = self
            .pages
            .iter()
            .filter(|entry| entry.frame.is_some() && !entry.held())
            .map(|entry| !entry.dirty)
            .peekable();
        if self.requests.writes() > 0 {
            StallReason::PageOut
        } else if self.requests.in_flight() >= self.credits().max(1) {
            StallReason::PageIn
        } else if self.policy.len() + self.cached.len() == 0 {
            StallReason::NothingResident
        } else if movable.peek().is_none() {
            StallReason::Held
        } else if movable.any(|clean| clean) {
            StallReason::Poll
        } else if !self.space.is_active() {
            StallReason::NoSwap
        } else if self.throttle.delays(now) {
            StallReason::BackOff
        } else if self.space.usable_slots() == 0 {
            StallReason::NoSlot
        } else {
            StallReason::Poll
        }
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        write!(
            f,
            "{} fault{} waiting for a frame, the first for {} ms: {}",
            self.waiting,
            plural(self.waiting),
            self.waited.as_millis(),
            self.reason,
        )?;
        if let Some(age) = self.oldest_request {
            write!(
                f,
                " ({} page-out{} and {} page-in{} in flight, the oldest for {} ms)",
                self.writes,
                plural(self.writes),
                self.reads,
                plural(self.reads),
                age.as_millis(),
            )?;
        }
        write!(
            f,
            "; {} pages resident, {} of them dirty; {} frames free, {} of them reserved, min {}",
            self.resident, self.dirty, self.level.free, self.level.reserve, self.level.marks.min,
        )
    }
}

impl fmt::Display for StallReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StallReason::PageOut => "page-outs do not complete",
            StallReason::PageIn => "page-ins hold every request",
            StallReason::BackOff => "the store failed, and is tried again later",
            StallReason::NoSwap => "no swap area is active",
            StallReason::NoSlot => "the swap area is full",
            StallReason::Held => "every resident page is held",
            StallReason::NothingResident => "no page is resident, others have the memory",
            StallReason::Poll => "there is something to reclaim, at the next poll",
        })
    }
}
