//! The pager: which pages are in memory, and how they get in and out.
//!
//! It owns the books of the pages, of their slots and of the requests in flight. It never reads a
//! clock, waits, or allocates anything but page frames.
//!
//! ```text
//!               fault                          clean, not used lately
//!  Untouched ──────────▶ Resident ──────────────────────────────────┐
//!                        ▲  │  ▲                                    ▼
//!             page-in OK │  │  └── page-out failed, or redirtied  Swapped ──▶ Reading
//!                Reading ┘  ▼                                       ▲   ▲        │
//!                        Writeback ── page-out OK ──────────────────┘   └────────┘
//!                                                                    page-in failed
//! ```
//! A page that is read ahead of any fault becomes Cached instead of Resident: in memory, not mapped,
//! and the first to go.

mod complete;
mod eviction;
mod fault;
mod page;
mod page_table;
mod prefetch;
mod queue;
mod readahead;
mod reclaim;
mod requests;
mod stall;
mod stats;
mod swapoff;
mod throttle;

use core::fmt;
use core::task::Poll;
use core::time::Duration;

use mempool::{Frame, FrameAllocator};

use self::page::{Books, State};
use self::queue::FaultQueue;
use self::readahead::Readahead;
use self::requests::Requests;
use self::swapoff::Sweep;
use self::throttle::Throttle;
use crate::ablation::{Ablation, Mechanism};
use crate::{AddressSpace, ErrorKind, Histogram, Instant, SwapArea, SwapSpace};

pub use self::eviction::{
    Arrival, End, EvictionNode, EvictionPages, EvictionPolicy, Nru, PageQueue, S3Fifo, SecondChance,
};
pub use self::fault::{Access, FaultError, FaultOptions, FaultOutcome};
pub use self::page::{Page, PageEntry};
pub use self::page_table::{ExplicitTable, Mapping, PageTable};
pub use self::prefetch::Advice;
pub use self::queue::FaultEntry;
pub use self::requests::RequestEntry;
pub use self::stall::{Stall, StallReason};
pub use self::stats::PagerStats;
pub use self::swapoff::EvacuateError;

/// The storage of a pager: tables that the caller gives for `'s`. [`TableSizes`](crate::TableSizes)
/// says what they take.
#[derive(Debug)]
pub struct PagerTables<'s, 'm> {
    /// One entry for each page, from [`Page`]\(0) on.
    pub pages: &'s mut [PageEntry<'m>],
    /// One entry for each fault that may wait at once.
    pub faults: &'s mut [FaultEntry],
    /// One entry for each request that may be in flight at once.
    pub requests: &'s mut [RequestEntry],
}

/// Pages of memory over a swap area: faults go in, page-ins and page-outs come out.
///
/// `'m` is the life of the memory that frames come from, `'s` that of the tables.
///
/// # How it is driven
///
/// Call [`fault`](Self::fault) when a client cannot reach a page. Call [`poll`](Self::poll) until
/// it returns `None`: after every fault, whenever the store may have moved, whenever memory was
/// taken or given back elsewhere, and at the latest at [`next_deadline`](Self::next_deadline).
///
/// # What it promises
///
/// - A page-out is admitted whole (slots, then a request) before a page is touched, or it does not
///   start (S1). It needs no memory at all.
/// - A page leaves memory only when a slot holds its bytes, stable; a failed write leaves it dirty,
///   resident and mapped, and is tried again (S3).
/// - A slot that a late write may still reach (the write timed out, or is
///   [stray](crate::Completion::stray)) is never given to another page, nor written to again (S3).
/// - A failed read fails its fault and nothing else; the page stays in its slot, and a later fault
///   tries again (S4).
/// - Page-ins go before page-outs, and page-outs never take the last request (S8).
/// - Pages are read ahead ([`set_readahead`](Self::set_readahead), [`prefetch`](Self::prefetch)) only
///   while no fault waits, with requests that no page-in is kept waiting for, into memory above the
///   low mark; unused, they are the first to go (S8).
/// - Page frames never come from the reserve, whoever calls.
///
/// ```
/// use core::task::Poll;
/// use mempool::{Buddy, FrameEntry, SingleTask, Watermarks, Zone};
/// use swapspace::{
///     Access, ExplicitTable, FaultEntry, FaultOutcome, Instant, Page, PageEntry, Pager,
///     PagerTables, RamSpace, RequestEntry, SwapArea,
/// };
///
/// // 16 frames of memory for 64 pages.
/// let (mut memory, mut frames) = (vec![0; 17 * 4096], [FrameEntry::EMPTY; 17]);
/// let source = <Buddy>::new(&mut memory, &mut frames)?;
/// let task = SingleTask::new();
/// let zone = <Zone>::new(&source, &task, Watermarks { min: 2, low: 4, high: 6 })?;
///
/// let (mut store, mut map) = (vec![0; 64 * 4096], [0; 17]);
/// let mut area = SwapArea::new(RamSpace::<_, 4>::new(&mut store), &mut map);
/// assert!(matches!(area.activate(Instant::ZERO), Poll::Ready(Ok(_))));
///
/// let mut pages = [const { PageEntry::EMPTY }; 64];
/// let (mut faults, mut requests) = ([FaultEntry::EMPTY; 8], [RequestEntry::EMPTY; 4]);
/// let tables = PagerTables { pages: &mut pages, faults: &mut faults, requests: &mut requests };
/// let mut pager = Pager::new(&zone, area, ExplicitTable, tables);
///
/// let mut now = Instant::ZERO;
/// for number in 0..64 {
///     let mut outcome = pager.fault(Page(number), Access::Write, now)?;
///     while let Some(_) = pager.poll(now) {
///         outcome = FaultOutcome::Mapped; // the only fault that waits is ours
///     }
///     assert_eq!(outcome, FaultOutcome::Mapped);
///     pager.frame_mut(Page(number)).expect("just mapped").fill(number as u8);
/// }
/// assert!(pager.stats().pages_out >= 64 - 16);
///
/// assert_eq!(pager.shutdown(now), Poll::Ready(()));
/// assert_eq!(zone.stats().free, zone.stats().total);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pager<'s, 'm, A, T, P = SecondChance, const N: usize = 1> {
    memory: &'m dyn FrameAllocator,
    space: SwapSpace<'s, Frame<'m>, A, N>,
    table: T,
    pages: &'s mut [PageEntry<'m>],
    policy: P,
    /// Pages that were read ahead, the oldest first. The policy does not know them.
    cached: PageQueue,
    readahead: Readahead,
    faults: FaultQueue<'s>,
    requests: Requests<'s>,
    throttle: Throttle,
    sweep: Option<Sweep>,
    /// Memory was below `low`, and is not above `high` yet.
    background: bool,
    /// Resident pages that are dirty.
    dirty: usize,
    /// Pages being written.
    writeback: usize,
    stats: PagerStats,
    latency: Histogram,
    latency_major: Histogram,
    latency_minor: Histogram,
    ablation: Ablation,
}

impl<'s, 'm, A, T, const N: usize> Pager<'s, 'm, A, T, SecondChance, N>
where
    A: AddressSpace<Frame<'m>>,
    T: PageTable,
{
    /// A pager whose pages were never touched, and go by [`SecondChance`], over a [`SwapSpace`] or
    /// a single [`SwapArea`]. Areas may be activated later, through [`area_mut`](Self::area_mut) or
    /// [`space_mut`](Self::space_mut): until then nothing can be paged out. O(tables).
    ///
    /// # Panics
    ///
    /// If there is no entry for faults or for requests, or if there are more than 65,535 for faults
    /// or 2^32 - 2 for pages.
    pub fn new(
        memory: &'m dyn FrameAllocator,
        space: impl Into<SwapSpace<'s, Frame<'m>, A, N>>,
        table: T,
        tables: PagerTables<'s, 'm>,
    ) -> Self {
        Self::with_policy(memory, space, table, tables, SecondChance::new())
    }
}

impl<'s, 'm, A, T, P, const N: usize> Pager<'s, 'm, A, T, P, N>
where
    A: AddressSpace<Frame<'m>>,
    T: PageTable,
    P: EvictionPolicy,
{
    /// As [`new`](Pager::new), with another eviction policy, which knows no page yet. O(tables).
    ///
    /// # Panics
    ///
    /// As `new`, or if the policy knows a page.
    ///
    /// ```
    /// # use mempool::{Buddy, FrameEntry, SingleTask, Watermarks, Zone};
    /// use swapspace::{
    ///     ExplicitTable, FaultEntry, PageEntry, Pager, PagerTables, RamSpace, RequestEntry, S3Fifo,
    ///     SwapArea,
    /// };
    ///
    /// # let (mut memory, mut frames) = (vec![0; 17 * 4096], [FrameEntry::EMPTY; 17]);
    /// # let source = <Buddy>::new(&mut memory, &mut frames)?;
    /// # let task = SingleTask::new();
    /// # let zone = <Zone>::new(&source, &task, Watermarks { min: 2, low: 4, high: 6 })?;
    /// # let (mut store, mut map) = (vec![0; 64 * 4096], [0; 8]);
    /// let area = SwapArea::new(RamSpace::<_, 4>::new(&mut store), &mut map);
    /// let tables = PagerTables {
    ///     pages: &mut [const { PageEntry::EMPTY }; 64],
    ///     faults: &mut [FaultEntry::EMPTY; 8],
    ///     requests: &mut [const { RequestEntry::EMPTY }; 4],
    /// };
    /// let pager = Pager::with_policy(&zone, area, ExplicitTable, tables, S3Fifo::new());
    /// assert_eq!(pager.policy().ghosts(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_policy(
        memory: &'m dyn FrameAllocator,
        space: impl Into<SwapSpace<'s, Frame<'m>, A, N>>,
        table: T,
        tables: PagerTables<'s, 'm>,
        policy: P,
    ) -> Self {
        assert!(policy.is_empty(), "no page is resident yet");
        assert!(
            u32::try_from(tables.pages.len()).is_ok_and(|pages| pages < u32::MAX),
            "page numbers have 32 bits"
        );
        tables.pages.fill_with(PageEntry::default);
        Pager {
            memory,
            space: space.into(),
            table,
            pages: tables.pages,
            policy,
            cached: PageQueue::new(),
            readahead: Readahead::new(),
            faults: FaultQueue::new(tables.faults),
            requests: Requests::new(tables.requests),
            throttle: Throttle::default(),
            sweep: None,
            background: false,
            dirty: 0,
            writeback: 0,
            stats: PagerStats::default(),
            latency: Histogram::new(),
            latency_major: Histogram::new(),
            latency_minor: Histogram::new(),
            ablation: Ablation::NONE,
        }
    }

    /// Moves everything along and returns one outcome that a client waits for. When to call it is
    /// said [above](Self#how-it-is-driven).
    ///
    /// O(resident pages) when memory is short, O(requests in flight) otherwise.
    ///
    /// # Panics
    ///
    /// If the address space breaks its contract: an unknown ticket, or frames that do not come back.
    #[must_use = "a client waits for the event"]
    pub fn poll(&mut self, now: Instant) -> Option<PagerEvent> {
        self.throttle.expire(now);
        if let Some(sweep) = &mut self.sweep {
            // Whoever goes on with it sets the next time.
            sweep.again = sweep.again.filter(|again| *again > now);
        }
        loop {
            if let Some((id, event)) = self.faults.report() {
                if let PagerEvent::Mapped { page, .. } = event {
                    let fault = &mut self.pages[page.index()].fault;
                    *fault = fault.filter(|own| *own != id);
                }
                return Some(event);
            }
            // S8: what completes and what faults goes before what is written, and reading ahead
            // comes last.
            let moved = self.expire_faults(now)
                || self.complete_one(now)
                || self.serve_waiting(now)
                || self.reclaim(now)
                || self.prefetch_some(now);
            if !moved {
                return None;
            }
        }
    }

    /// When `poll`, and [`swapoff`](Self::swapoff) while it is pending, must be called even if
    /// nothing else happens. O(faults).
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let retry = self.throttle.retry_at();
        [
            self.space.next_deadline(),
            retry,
            self.sweep.as_ref().and_then(|sweep| sweep.again),
            self.faults.next_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Keeps a page that is mapped from being evicted, until as many calls of
    /// [`unpin`](Self::unpin).
    ///
    /// # Errors
    ///
    /// [`PinError`]; nothing has changed.
    pub fn pin(&mut self, page: Page) -> Result<(), PinError> {
        let entry = self.pages.get_mut(page.index()).ok_or(PinError::BadPage)?;
        let mapped = match entry.state {
            State::Resident => true,
            State::Writeback => T::MAPPED_DURING_WRITEBACK && !entry.doomed,
            _ => false,
        };
        if !mapped {
            return Err(PinError::NotMapped);
        }
        entry.pins = entry.pins.checked_add(1).ok_or(PinError::TooMany)?;
        Ok(())
    }

    /// Undoes one [`pin`](Self::pin).
    ///
    /// # Errors
    ///
    /// [`PinError::BadPage`], or [`PinError::NotPinned`] if there was no pin left.
    pub fn unpin(&mut self, page: Page) -> Result<(), PinError> {
        let entry = self.pages.get_mut(page.index()).ok_or(PinError::BadPage)?;
        entry.pins = entry.pins.checked_sub(1).ok_or(PinError::NotPinned)?;
        Ok(())
    }

    /// Forgets a page: it is unmapped at once, pinned or not, and reads as zeros from now on. Its
    /// frame and slot go back now, or when the request that they are in completes. A fault that
    /// waits for it fails with [`ErrorKind::Cancelled`]. O(faults).
    ///
    /// # Errors
    ///
    /// [`FaultError::BadPage`] if there is no such page.
    pub fn discard(&mut self, page: Page) -> Result<(), FaultError> {
        if page.index() >= self.pages.len() {
            return Err(FaultError::BadPage);
        }
        self.forget(page);
        Ok(())
    }

    fn forget(&mut self, page: Page) {
        let entry = &mut self.pages[page.index()];
        entry.pins = 0;
        if let Some(id) = entry.fault.take() {
            self.faults.cancel(id);
        }
        match entry.state {
            // Its zeros may have been in memory.
            State::Untouched => self.forgotten(page),
            _ if entry.doomed => {}
            State::Swapped => {
                entry.state = State::Untouched;
                self.forgotten(page);
            }
            State::Cached => {
                self.drop_cached(page);
                self.pages[page.index()].state = State::Untouched;
                self.forgotten(page);
            }
            State::Reading => entry.doomed = true,
            State::Writeback => {
                entry.doomed = true;
                if T::MAPPED_DURING_WRITEBACK {
                    self.table.unmap(page);
                }
            }
            State::Resident => {
                self.table.unmap(page);
                drop(self.unlink(page));
                let entry = &mut self.pages[page.index()];
                (entry.state, entry.dirty, entry.writable) = (State::Untouched, false, false);
                self.forgotten(page);
            }
        }
    }

    /// Forgets every page, and waits for what is in flight: call it again while it is pending, as
    /// one would `poll`. Afterwards every frame and slot has gone back, and the area can be
    /// deactivated through [`area_mut`](Self::area_mut). O(pages).
    ///
    /// # Panics
    ///
    /// As [`poll`](Self::poll).
    pub fn shutdown(&mut self, now: Instant) -> Poll<()> {
        for (number, _) in (0..).zip(0..self.pages.len()) {
            self.forget(Page(number));
        }
        while self.complete_one(now) {}
        // There is nothing left to write, now or later.
        self.throttle = Throttle::default();
        if let Some(sweep) = self.sweep.take() {
            self.space.stay(sweep.index());
        }
        if self.requests.in_flight() > 0 {
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// The bytes of a resident page, and notes that it was used. For tables whose frames *are* the
    /// pages, software paging above all. `None` while the page is out or in flight.
    pub fn frame(&mut self, page: Page) -> Option<&[u8]> {
        self.pages.get(page.index())?.mapped_frame()?;
        self.touch(page);
        self.pages[page.index()].mapped_frame()
    }

    /// The bytes of a resident page, to be changed: the page is dirty from now on. Otherwise as
    /// [`frame`](Self::frame).
    pub fn frame_mut(&mut self, page: Page) -> Option<&mut [u8]> {
        self.pages.get(page.index())?.mapped_frame()?;
        self.make_dirty(page);
        self.touch(page);
        self.pages[page.index()].frame.as_deref_mut()
    }

    /// A snapshot of the counters. O(1).
    #[must_use]
    pub fn stats(&self) -> PagerStats {
        PagerStats {
            resident: self.policy.len(),
            cached: self.cached.len(),
            second_chances: self.policy.spared(),
            dirty: self.dirty,
            writeback: self.writeback,
            in_flight: self.requests.in_flight(),
            waiting: self.faults.waiting(),
            ..self.stats
        }
    }

    /// How long faults waited, those that were served at once not included.
    #[must_use]
    pub fn latency(&self) -> &Histogram {
        &self.latency
    }

    /// Of these, faults that were served by a page-in.
    #[must_use]
    pub fn latency_major(&self) -> &Histogram {
        &self.latency_major
    }

    /// Of these, faults that were served without one: they waited for a frame, or for a page-out
    /// of their page.
    #[must_use]
    pub fn latency_minor(&self) -> &Histogram {
        &self.latency_minor
    }

    /// The eviction policy.
    #[must_use]
    pub fn policy(&self) -> &P {
        &self.policy
    }

    /// The swap area with index 0: the only one, unless the pager was made over several.
    ///
    /// # Panics
    ///
    /// If it was taken out of the [space](Self::space).
    #[must_use]
    pub fn area(&self) -> &SwapArea<'s, Frame<'m>, A> {
        self.space.area(0).expect("the first area")
    }

    /// The swap area with index 0, to activate and deactivate it, and for whoever drives its
    /// medium. Its slots and completions are the pager's.
    ///
    /// # Panics
    ///
    /// As [`area`](Self::area).
    #[must_use]
    pub fn area_mut(&mut self) -> &mut SwapArea<'s, Frame<'m>, A> {
        self.space.area_mut(0).expect("the first area")
    }

    /// All swap areas.
    #[must_use]
    pub fn space(&self) -> &SwapSpace<'s, Frame<'m>, A, N> {
        &self.space
    }

    /// All swap areas, to add some, to activate them, and to take out those that hold no page.
    /// Their slots and completions are the pager's.
    #[must_use]
    pub fn space_mut(&mut self) -> &mut SwapSpace<'s, Frame<'m>, A, N> {
        &mut self.space
    }

    /// The page table.
    #[must_use]
    pub fn table(&self) -> &T {
        &self.table
    }

    /// The page table, mutably. What the pager mapped must stay so.
    #[must_use]
    pub fn table_mut(&mut self) -> &mut T {
        &mut self.table
    }

    /// Switches a mechanism of this pager off, for good. A mechanism of another object changes
    /// nothing: its area has [switches of its own](SwapArea::ablate).
    #[cfg(feature = "ablation")]
    pub fn ablate(&mut self, mechanism: Mechanism) {
        self.ablation.ablate(mechanism);
    }

    fn off(&self, mechanism: Mechanism) -> bool {
        self.ablation.off(mechanism)
    }
}

/// The moves between states, which keep the counters in step.
impl<'m, A, T, P, const N: usize> Pager<'_, 'm, A, T, P, N>
where
    A: AddressSpace<Frame<'m>>,
    T: PageTable,
    P: EvictionPolicy,
{
    /// The policy, and what it may see of the pages.
    fn eviction(&mut self) -> (&mut P, Books<'_, 'm, T>) {
        let books = Books {
            pages: self.pages,
            table: &mut self.table,
        };
        (&mut self.policy, books)
    }

    /// A page that is resident, or lent out, was used.
    fn touch(&mut self, page: Page) {
        let (policy, mut pages) = self.eviction();
        policy.touch(&mut pages, page);
    }

    /// Nothing is known of a page any more; its slot goes back.
    fn forgotten(&mut self, page: Page) {
        let (policy, mut pages) = self.eviction();
        policy.forgotten(&mut pages, page);
        self.release_slot(page);
    }

    /// Makes a page with a frame resident. Its `dirty` flag is right already.
    fn link(&mut self, page: Page, frame: Frame<'m>, arrival: Arrival) {
        let entry = &mut self.pages[page.index()];
        entry.frame = Some(frame);
        entry.state = State::Resident;
        self.dirty += usize::from(entry.dirty);
        let (policy, mut pages) = self.eviction();
        policy.insert(&mut pages, page, arrival);
        self.stats.resident_peak = self.stats.resident_peak.max(self.policy.len());
    }

    /// Takes the frame of a resident page, which is not resident any more. The caller gives it its new state.
    fn unlink(&mut self, page: Page) -> Frame<'m> {
        let (policy, mut pages) = self.eviction();
        policy.remove(&mut pages, page);
        let entry = &mut self.pages[page.index()];
        self.dirty -= usize::from(entry.dirty);
        entry.frame.take().expect("a resident page has a frame")
    }

    /// A resident page is about to be written to.
    fn make_dirty(&mut self, page: Page) {
        let entry = &mut self.pages[page.index()];
        if entry.writable {
            return;
        }
        entry.writable = true;
        self.lose_slot(page);
        self.table.make_writable(page);
    }

    /// No slot holds a resident page any more.
    fn lose_slot(&mut self, page: Page) {
        let entry = &mut self.pages[page.index()];
        if !entry.dirty {
            entry.dirty = true;
            self.dirty += 1;
        }
        self.release_slot(page);
    }

    /// Gives the slot of a page back, if it has one; for good if the slot is known to be bad, or if
    /// a late write could change what the next page puts there.
    fn release_slot(&mut self, page: Page) {
        let entry = &mut self.pages[page.index()];
        let suspect = core::mem::take(&mut entry.suspect);
        let stray = core::mem::take(&mut entry.stray);
        match entry.swap.take() {
            Some(slot) if suspect || stray => self.space.retire(slot),
            Some(slot) => self.space.free(slot),
            None => {}
        }
    }

    /// Requests that may be in flight at once.
    fn credits(&self) -> usize {
        self.requests.capacity().min(self.space.max_in_flight())
    }
}

impl<A, T, P: EvictionPolicy, const N: usize> fmt::Debug for Pager<'_, '_, A, T, P, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pager")
            .field("pages", &self.pages.len())
            .field("resident", &self.policy.len())
            .field("dirty", &self.dirty)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

/// What became of a fault that was [`Pending`](FaultOutcome::Pending).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum PagerEvent {
    /// The page is mapped, as every fault on it asked for. It stays until this event is taken.
    Mapped {
        /// Which page.
        page: Page,
        /// From the first fault on it until it was mapped.
        waited: Duration,
        /// Whether it was read from the store.
        major: bool,
    },
    /// The page could not be had. Nothing is lost: it is where it was, and a later fault tries
    /// again (S4).
    Failed {
        /// Which page.
        page: Page,
        /// Why.
        kind: ErrorKind,
    },
}

/// Why a page could not be pinned or unpinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum PinError {
    /// There is no such page.
    BadPage,
    /// It is not mapped: fault it in first.
    NotMapped,
    /// It was not pinned.
    NotPinned,
    /// It has 65,535 pins already.
    TooMany,
}

impl fmt::Display for PinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PinError::BadPage => "there is no such page",
            PinError::NotMapped => "the page is not mapped",
            PinError::NotPinned => "the page is not pinned",
            PinError::TooMany => "the page has too many pins",
        })
    }
}

impl core::error::Error for PinError {}

#[cfg(test)]
mod tests;
