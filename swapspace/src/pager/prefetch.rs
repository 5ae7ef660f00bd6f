//! Pages that are read ahead: how they come in, what becomes of them, and what a caller can say.

use core::ops::Range;

use mempool::Frame;

use super::page::{Books, State};
use super::readahead::Hint;
use super::requests::{PageList, Request};
use super::{
    Access, Arrival, EvictionPolicy, FaultError, Page, PageEntry, PageQueue, PageTable, Pager,
};
use crate::{
    AddressSpace, CLUSTER_FRAMES, ErrorKind, FrameList, Instant, IoClass, IoOp, Slot, SubmitError,
    SwapIo,
};

/// What a caller knows of a range of pages (`madvise`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Advice {
    /// Nothing: readahead sees for itself.
    Normal,
    /// They will be used in order: readahead goes as far as it can from the first fault on.
    Sequential,
    /// They will be used in no order: a fault on one of them reads nothing ahead.
    Random,
    /// They will be used soon: as [`Pager::prefetch`].
    WillNeed,
    /// Their contents are not needed any more: as [`Pager::discard`] of each.
    DontNeed,
    /// They will not be used soon: those that are resident go first, with their contents kept.
    Cold,
}

impl<'m, A, T, P, const N: usize> Pager<'_, 'm, A, T, P, N>
where
    A: AddressSpace<Frame<'m>>,
    T: PageTable,
    P: EvictionPolicy,
{
    /// Whether faults make the pager read ahead: the pages at the stride that the last faults had
    /// in common (Leap), or those that lie in the slots around (Linux's `swapin_readahead`); more of
    /// them while they turn out to be used, down to none while they do not. Off at first. O(1).
    pub fn set_readahead(&mut self, on: bool) {
        self.readahead.switch(on);
    }

    /// These pages will be wanted: `poll` reads those that are swapped out, as far as memory above
    /// the low mark and requests go that nothing more urgent needs. A later call takes the place of
    /// an earlier one. O(1), and O(pages) in the polls that follow.
    ///
    /// # Errors
    ///
    /// [`FaultError::BadPage`] if the range has pages that do not exist; nothing has changed.
    pub fn prefetch(&mut self, pages: Range<Page>) -> Result<(), FaultError> {
        let pages = self.numbers(pages)?;
        self.readahead.ask(pages);
        Ok(())
    }

    /// Takes advice about a range of pages. [`Normal`](Advice::Normal),
    /// [`Sequential`](Advice::Sequential) and [`Random`](Advice::Random) hold until other advice is
    /// given, and matter only while [readahead](Self::set_readahead) is on. O(pages).
    ///
    /// ```
    /// # use mempool::{Buddy, FrameEntry, SingleTask, Watermarks, Zone};
    /// use swapspace::{Advice, Page};
    /// # use swapspace::{
    /// #     ExplicitTable, FaultEntry, PageEntry, Pager, PagerTables, RamSpace, RequestEntry,
    /// #     SwapArea,
    /// # };
    /// # let (mut memory, mut frames) = (vec![0; 17 * 4096], [FrameEntry::EMPTY; 17]);
    /// # let source = <Buddy>::new(&mut memory, &mut frames)?;
    /// # let task = SingleTask::new();
    /// # let zone = <Zone>::new(&source, &task, Watermarks { min: 2, low: 4, high: 6 })?;
    /// # let (mut store, mut map) = (vec![0; 64 * 4096], [0; 8]);
    /// # let area = SwapArea::new(RamSpace::<_, 4>::new(&mut store), &mut map);
    /// # let tables = PagerTables {
    /// #     pages: &mut [const { PageEntry::EMPTY }; 64],
    /// #     faults: &mut [FaultEntry::EMPTY; 8],
    /// #     requests: &mut [const { RequestEntry::EMPTY }; 4],
    /// # };
    /// # let mut pager = Pager::new(&zone, area, ExplicitTable, tables);
    /// pager.set_readahead(true);
    /// pager.advise(Page(0)..Page(32), Advice::Sequential)?;
    /// pager.advise(Page(32)..Page(64), Advice::Random)?;
    /// assert!(pager.advise(Page(32)..Page(65), Advice::Cold).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`FaultError::BadPage`] if the range has pages that do not exist; nothing has changed.
    pub fn advise(&mut self, pages: Range<Page>, advice: Advice) -> Result<(), FaultError> {
        let numbers = self.numbers(pages.clone())?;
        if advice == Advice::WillNeed {
            return self.prefetch(pages);
        }
        for page in numbers.map(Page) {
            let hint = &mut self.pages[page.index()].hint;
            match advice {
                Advice::Normal => *hint = Hint::None,
                Advice::Sequential => *hint = Hint::Sequential,
                Advice::Random => *hint = Hint::Random,
                Advice::DontNeed => self.forget(page),
                Advice::Cold => self.cool(page),
                Advice::WillNeed => {}
            }
        }
        Ok(())
    }

    fn numbers(&self, pages: Range<Page>) -> Result<Range<u32>, FaultError> {
        let numbers = pages.start.0..pages.end.0;
        if pages.end.index() > self.pages.len() {
            return Err(FaultError::BadPage);
        }
        Ok(numbers)
    }

    fn cool(&mut self, page: Page) {
        match self.pages[page.index()].state {
            State::Resident => {
                let (policy, mut pages) = self.eviction();
                policy.demote(&mut pages, page);
            }
            State::Cached => self.evict_one_cached(page),
            _ => {}
        }
    }

    /// A fault found its page in the store, on its way in, or read ahead.
    pub(super) fn note_fault(&mut self, page: Page) {
        let entry = &self.pages[page.index()];
        let ahead = match entry.state {
            State::Cached => true,
            State::Reading => !entry.doomed,
            State::Swapped => false,
            _ => return,
        };
        if ahead {
            self.stats.prefetch_hits += 1;
            self.readahead.hit();
        }
        let (pages, hint) = (&*self.pages, entry.hint);
        self.readahead
            .faulted(page, hint, || cluster(pages, page), pages.len());
    }

    /// Somebody waits for a page that is being read ahead: it is not read twice, but sooner (S8).
    pub(super) fn expedite(&mut self, page: Page) {
        if let Some(ticket) = self.requests.expedite(page) {
            self.space.expedite(ticket, IoClass::Demand);
        }
    }

    /// Starts one request for pages that will be wanted, if nobody else has a use for what it
    /// takes. Whether it did.
    pub(super) fn prefetch_some(&mut self, now: Instant) -> bool {
        // S8: not while a fault waits, nor while memory is short.
        if self.faults.waiting() > 0 || self.background || self.throttle.full() {
            return false;
        }
        while let Some(page) = self.readahead.next() {
            if !self.readable(page) {
                self.readahead.done(page);
                continue;
            }
            // The last request is kept for a page-in that somebody waits for, in all and in the
            // area that this page is in.
            let most = usize::from(self.space.spare_frames(self.slot(page)));
            if self.requests.in_flight() + 1 >= self.credits() || most == 0 {
                return false;
            }
            let mut pages = self.run(page, most);
            let mut frames = FrameList::new();
            while frames.len() < pages.len()
                && let Some(frame) = self.spare_frame()
            {
                let _ = frames.push(frame); // both hold as many
            }
            pages.truncate(frames.len());
            return !pages.is_empty() && self.read_ahead(pages, frames, now);
        }
        false
    }

    /// Whether a page can be read ahead.
    fn readable(&self, page: Page) -> bool {
        let entry = &self.pages[page.index()];
        entry.state == State::Swapped && entry.fault.is_none() && !entry.suspect
    }

    /// A page that is to be read, and others that are to be read and lie in the slots beside it, in
    /// slot order.
    fn run(&self, page: Page, most: usize) -> PageList {
        let mut run: PageList = core::iter::once(page).collect();
        while run.len() < most.min(CLUSTER_FRAMES) {
            let last = &self.pages[run[run.len() - 1].index()];
            let planned = self.readahead.plan().iter().copied();
            let mut candidates = planned
                .chain([Page(last.neighbour)])
                .filter(|candidate| self.readahead.wants(*candidate) && self.readable(*candidate));
            let Some(next) = candidates.find(|next| distance(last, self.entry(*next)) == Some(1))
            else {
                break;
            };
            let _ = run.push(next); // there is room
        }
        run
    }

    fn entry(&self, page: Page) -> &PageEntry<'m> {
        &self.pages[page.index()]
    }

    fn slot(&self, page: Page) -> Slot {
        let swap = self.entry(page).swap.as_ref();
        swap.expect("a swapped page has a slot").slot()
    }

    /// A frame that nobody needs: ordinary memory above the low mark.
    fn spare_frame(&self) -> Option<Frame<'m>> {
        let level = self.memory.level();
        let spare = level.ordinary() > level.marks.low;
        spare.then(|| self.page_frame().ok())?
    }

    pub(super) fn read_ahead(
        &mut self,
        pages: PageList,
        frames: FrameList<Frame<'m>>,
        now: Instant,
    ) -> bool {
        let slot = self.slot(pages[0]);
        let io = SwapIo::new(IoOp::Read, slot, IoClass::Prefetch, frames);
        let ticket = match self.space.submit(io, now) {
            Ok(ticket) => ticket,
            Err(refused) => {
                self.stats.refusals += 1;
                if refused.error == SubmitError::Busy {
                    self.note_refusal();
                } else {
                    pages.iter().for_each(|page| self.readahead.done(*page));
                }
                return false;
            }
        };
        for page in &pages {
            self.readahead.done(*page);
            self.pages[page.index()].state = State::Reading;
        }
        self.note_request(Request {
            ticket,
            op: IoOp::Read,
            class: IoClass::Prefetch,
            expedited: false,
            deadline: None,
            pages,
            since: now,
        });
        true
    }

    /// A page that was read ahead is there, or could not be read.
    pub(super) fn prefetch_done(
        &mut self,
        page: Page,
        frame: Frame<'m>,
        result: Result<(), ErrorKind>,
        now: Instant,
    ) {
        match (result, self.pages[page.index()].fault) {
            (Ok(()), Some(_)) => {
                self.stats.prefetched += 1;
                self.page_in_done(page, frame, result, None, now);
            }
            (Ok(()), None) => {
                self.cache(page, frame);
                if self.leaves(page) {
                    self.adopt(page);
                }
            }
            (Err(kind), fault) => {
                // Whose fault it was among the pages of the request nobody knows. Who waits reads
                // the page alone, and hears the truth.
                drop(frame);
                self.pages[page.index()].state = State::Swapped;
                self.stats.read_failures += 1;
                match fault {
                    Some(id) => self.wait_for_frame(id),
                    None => self.note_unreadable(page, kind),
                }
            }
        }
    }

    /// A page was read, and nobody waits for it, or not any more: it stays, unmapped.
    pub(super) fn cache(&mut self, page: Page, frame: Frame<'m>) {
        self.stats.prefetched += 1;
        self.stats.pages_in += 1;
        let entry = &mut self.pages[page.index()];
        (entry.frame, entry.state, entry.suspect) = (Some(frame), State::Cached, false);
        let (policy, mut pages) = self.eviction();
        policy.recalled(&mut pages, page);
        self.with_cached(|cached, pages| cached.push_back(pages, page));
    }

    /// Maps a page that was read ahead.
    pub(super) fn map_cached(&mut self, page: Page, access: Access) {
        self.with_cached(|cached, pages| cached.remove(pages, page));
        let frame = self.pages[page.index()].frame.take();
        let frame = frame.expect("a page that was read ahead has a frame");
        self.map(page, frame, access, Arrival::Faulted);
    }

    /// Evicts pages that were read ahead and not used, the oldest first. Whether there were any.
    pub(super) fn evict_cached(&mut self, most: usize) -> bool {
        let mut evicted = 0;
        while evicted < most
            && let Some(page) = self.cached.first()
        {
            self.evict_one_cached(page);
            evicted += 1;
        }
        evicted > 0
    }

    fn evict_one_cached(&mut self, page: Page) {
        self.drop_cached(page);
        self.pages[page.index()].state = State::Swapped;
        let (policy, mut pages) = self.eviction();
        policy.evicted(&mut pages, page);
    }

    /// Drops a page that was read ahead in vain. The caller gives it its new state.
    pub(super) fn drop_cached(&mut self, page: Page) {
        self.with_cached(|cached, pages| cached.remove(pages, page));
        drop(self.pages[page.index()].frame.take());
        self.stats.prefetch_wasted += 1;
        self.readahead.wasted();
    }

    fn with_cached(&mut self, change: impl FnOnce(&mut PageQueue, &mut Books<'_, 'm, T>)) {
        let mut pages = Books {
            pages: self.pages,
            table: &mut self.table,
        };
        change(&mut self.cached, &mut pages);
    }
}

/// The pages that were written together with `page`, are still out, and lie in the slots around
/// its own. O(1).
fn cluster(pages: &[PageEntry<'_>], page: Page) -> PageList {
    let home = &pages[page.index()];
    let mut cluster = PageList::new();
    let mut at = home.neighbour;
    for _ in 1..CLUSTER_FRAMES {
        if at == page.0 {
            break;
        }
        let entry = &pages[at as usize];
        let close = distance(home, entry).is_some_and(|d| d.unsigned_abs() < CLUSTER_FRAMES as u64);
        if close && entry.state == State::Swapped {
            let _ = cluster.push(Page(at)); // at most seven
        }
        at = entry.neighbour;
    }
    cluster
}

/// How many slots `to` lies beyond `from`, if both have slots.
fn distance(from: &PageEntry<'_>, to: &PageEntry<'_>) -> Option<i64> {
    let slot = |entry: &PageEntry<'_>| Some(i64::from(entry.swap.as_ref()?.slot().0));
    Some(slot(to)? - slot(from)?)
}
