//! Swapoff: everything that an area holds comes back, while the system runs.
//!
//! It goes round the pages a little at a time, and moves those that have a slot in the area: a page
//! in memory gives its slot up, a page that is out is read. From there reclaim writes it to another
//! area, as it would any dirty page.

use core::fmt;
use core::task::Poll;
use core::time::Duration;

use mempool::Frame;

use super::page::State;
use super::requests::PageList;
use super::{Access, EvictionPolicy, Page, PageTable, Pager};
use crate::{AddressSpace, ErrorKind, FrameList, Instant, Slot, SwapArea, SwapoffError};

/// Entries of the table of pages that one call looks at.
const BATCH: usize = 64;

/// When to go on: what memory or a request is waited for need not have a deadline.
const PACE: Duration = Duration::from_millis(1);

/// An area that is being emptied.
#[derive(Debug)]
pub(super) struct Sweep {
    index: usize,
    /// The page to look at next.
    next: usize,
    /// Pages looked at since there was something to do.
    idle: usize,
    failed: Option<(Page, ErrorKind)>,
    /// When to go on.
    pub(super) again: Option<Instant>,
}

impl Sweep {
    pub(super) const fn index(&self) -> usize {
        self.index
    }
}

/// Why a pager's area could not be taken out. It is used as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum EvacuateError<E> {
    /// Another area is being emptied.
    Busy {
        /// Which one.
        index: usize,
    },
    /// Its pages fit neither into memory nor into the other areas.
    NoRoom {
        /// Slots of the area that hold pages.
        slots: u32,
        /// Pages for which there is room: in memory above the low mark, in place of clean pages,
        /// and in other areas.
        room: usize,
    },
    /// A page cannot be read back: discard it, or mend the store, and try again.
    Unreadable {
        /// Which page.
        page: Page,
        /// Why.
        kind: ErrorKind,
    },
    /// See [`SwapoffError`].
    Swapoff(SwapoffError<E>),
}

impl<E: fmt::Display> fmt::Display for EvacuateError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EvacuateError::Busy { index } => write!(f, "area {index} is being emptied"),
            EvacuateError::NoRoom { slots, room } => {
                write!(f, "{slots} slots hold pages, and there is room for {room}")
            }
            EvacuateError::Unreadable { page, kind } => {
                write!(f, "page {} cannot be read back: {kind:?}", page.0)
            }
            EvacuateError::Swapoff(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for EvacuateError<E> {}

impl<'s, 'm, A, T, P, const N: usize> Pager<'s, 'm, A, T, P, N>
where
    A: AddressSpace<Frame<'m>>,
    T: PageTable,
    P: EvictionPolicy,
{
    /// Empties an area and takes it out of the space (`swapoff`), while faults are served as
    /// always. Call it while it is pending: whenever `poll` has returned `None`, and call `poll`
    /// after it. One call looks at 64 pages at most and starts a few reads at most: fewer than
    /// requests and memory above the low mark allow, and none while a fault waits (S8).
    ///
    /// Nothing is lost if the calls stop: no page goes to the area any more, those in it stay, and
    /// a later call goes on. [`cancel_swapoff`](Self::cancel_swapoff) takes the area into use
    /// again.
    ///
    /// # Errors
    ///
    /// [`EvacuateError`]; the area is used as before, without those pages that were moved already.
    ///
    /// # Panics
    ///
    /// As [`poll`](Self::poll).
    #[allow(clippy::type_complexity)] // a name would hide that it is pollable
    pub fn swapoff(
        &mut self,
        index: usize,
        now: Instant,
    ) -> Poll<Result<SwapArea<'s, Frame<'m>, A>, EvacuateError<A::Error>>> {
        if let Some(other) = self.sweep.as_ref().filter(|sweep| sweep.index != index) {
            let index = other.index;
            return Poll::Ready(Err(EvacuateError::Busy { index }));
        }
        let Some(area) = self.space.area(index) else {
            let error = SwapoffError::NoSuchArea;
            return Poll::Ready(Err(EvacuateError::Swapoff(error)));
        };
        let slots = area.stats().used;
        if slots == 0 {
            // Requests may still be out, a cancelled page-in for example.
            let result = self.space.swapoff(index, now);
            if result.is_ready() {
                self.sweep = None;
            } else if let Some(sweep) = &mut self.sweep {
                sweep.again = Some(now + PACE);
            }
            return result.map_err(EvacuateError::Swapoff);
        }
        self.space.leave(index);
        let sweep = self.sweep.get_or_insert(Sweep {
            index,
            next: 0,
            idle: 0,
            failed: None,
            again: None,
        });
        let unreadable = sweep.failed;
        let room = self.room();
        let error = if let Some((page, kind)) = unreadable {
            EvacuateError::Unreadable { page, kind }
        } else if slots as usize > room {
            EvacuateError::NoRoom { slots, room }
        } else {
            self.sweep_some(now);
            return Poll::Pending;
        };
        self.cancel_swapoff(index);
        Poll::Ready(Err(error))
    }

    /// Takes an area that is being emptied into use again. What was moved stays where it is.
    pub fn cancel_swapoff(&mut self, index: usize) {
        if self
            .sweep
            .as_ref()
            .is_some_and(|sweep| sweep.index == index)
        {
            self.sweep = None;
            self.space.stay(index);
        }
    }

    /// Pages that have somewhere to go when an area is closed to them. What is in memory, clean, or
    /// on its way counts, as it does among the slots: it changes nothing.
    fn room(&self) -> usize {
        let level = self.memory.level();
        let spare = level.ordinary().saturating_sub(level.marks.low);
        let clean = self.policy.len() - self.dirty;
        let others = self.space.usable_slots() as usize;
        spare + clean + others + self.cached.len() + self.requests.pages()
    }

    fn sweep_some(&mut self, now: Instant) {
        let Some(mut sweep) = self.sweep.take() else {
            return;
        };
        sweep.again = Some(now + PACE);
        for _ in 0..BATCH {
            if sweep.idle >= self.pages.len() {
                // Once round: all that is left is on its way.
                sweep.idle = 0;
                self.sweep = Some(sweep);
                return;
            }
            let number = sweep.next % self.pages.len();
            let page = Page(u32::try_from(number).unwrap_or(u32::MAX));
            let slot = self.pages[number].swap.as_ref().map(|swap| swap.slot());
            let ours = slot.filter(|slot| self.space.index_of(*slot) == sweep.index);
            sweep.idle += 1;
            if let Some(slot) = ours {
                let state = self.pages[number].state;
                match state {
                    State::Resident => self.lose_slot(page),
                    State::Cached => self.adopt(page),
                    State::Swapped if !self.bring_in(page, slot, now) => {
                        sweep.idle = 0;
                        self.sweep = Some(sweep);
                        return;
                    }
                    State::Swapped => sweep.idle = 0,
                    _ => {}
                }
            }
            sweep.next = number + 1;
        }
        self.sweep = Some(sweep);
    }

    /// Starts to read a page that nobody waits for, if nobody else has a use for what it takes.
    fn bring_in(&mut self, page: Page, slot: Slot, now: Instant) -> bool {
        let credits = self.credits();
        let kept = usize::from(credits > 1);
        let busy = self.faults.waiting() > 0 || self.background || self.throttle.full();
        if busy || self.requests.in_flight() + kept >= credits || !self.space.idles(slot) {
            return false;
        }
        // The low mark may be touched: below it, reclaim makes room again.
        if self.memory.level().below_low() {
            return false;
        }
        let Ok(frame) = self.page_frame() else {
            return false;
        };
        let pages: PageList = core::iter::once(page).collect();
        let frames: FrameList<_> = core::iter::once(frame).collect();
        self.read_ahead(pages, frames, now)
    }

    /// Whether a page has a slot in an area that is being emptied.
    pub(super) fn leaves(&self, page: Page) -> bool {
        let slot = self.pages[page.index()].swap.as_ref();
        let index = slot.map(|swap| self.space.index_of(swap.slot()));
        index.is_some() && index == self.sweep.as_ref().map(|sweep| sweep.index)
    }

    /// A page was read for the sake of its slot, or happens to have been read ahead: from now on it
    /// is like any page that was written to.
    pub(super) fn adopt(&mut self, page: Page) {
        self.map_cached(page, Access::Read);
        self.lose_slot(page);
    }

    /// A page that leaves its area could not be read.
    pub(super) fn note_unreadable(&mut self, page: Page, kind: ErrorKind) {
        if self.leaves(page)
            && let Some(sweep) = &mut self.sweep
        {
            sweep.failed = Some((page, kind));
        }
    }
}
