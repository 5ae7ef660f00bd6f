//! Not recently used: what was not used goes first, and of that what need not be written.

use super::{Arrival, End, EvictionPages, EvictionPolicy, PageQueue};
use crate::Page;

/// Not recently used, in four classes: unused and clean, unused and dirty, used and clean, used and
/// dirty. A page of the first class that has one goes.
///
/// Uses are forgotten when every page was used since they last were. To do so page by page, there
/// is a queue of those that are still to be sorted; the classes of used pages are told apart only
/// then.
#[derive(Debug)]
pub struct Nru {
    queues: [PageQueue; 4],
    /// Which of the last two queues takes what is used; the other has what is to be sorted.
    used: u8,
    spared: u64,
}

/// The queues; [`Nru::used`] tells the other two apart.
const CLEAN: u8 = 0;
const DIRTY: u8 = 1;
/// The sum of their numbers.
const USED_AND_UNSORTED: u8 = 2 + 3;

impl Nru {
    /// No page is in.
    #[must_use]
    pub const fn new() -> Self {
        Nru {
            queues: [const { PageQueue::new() }; 4],
            used: 3,
            spared: 0,
        }
    }

    fn push<P: EvictionPages>(&mut self, pages: &mut P, page: Page, queue: u8) {
        pages.node_mut(page).queue = queue;
        self.queues[usize::from(queue)].push_back(pages, page);
    }

    fn shift<P: EvictionPages>(&mut self, pages: &mut P, page: Page, queue: u8) {
        self.remove(pages, page);
        self.push(pages, page, queue);
    }

    /// The page to look at.
    fn candidate(&mut self) -> Option<Page> {
        let [clean, dirty, ..] = &self.queues;
        let sorted = clean.first().or_else(|| dirty.first());
        if sorted.is_none() && self.queue(self.unsorted()).is_empty() {
            self.used = self.unsorted();
        }
        // Everything is sorted before anything goes, or a dirty page would go before a clean one.
        self.queue(self.unsorted()).first().or(sorted)
    }

    const fn unsorted(&self) -> u8 {
        USED_AND_UNSORTED - self.used
    }

    fn queue(&self, queue: u8) -> &PageQueue {
        &self.queues[usize::from(queue)]
    }

    /// The queues, in the order in which pages go.
    fn in_order(&self) -> [&PageQueue; 4] {
        [CLEAN, DIRTY, self.unsorted(), self.used].map(|queue| self.queue(queue))
    }
}

impl Default for Nru {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a page was used; from now on it was not.
fn take_used<P: EvictionPages>(pages: &mut P, page: Page) -> bool {
    let accessed = pages.take_used(page);
    core::mem::take(&mut pages.node_mut(page).used) > 0 || accessed
}

const fn class(dirty: bool) -> u8 {
    if dirty { DIRTY } else { CLEAN }
}

impl EvictionPolicy for Nru {
    // Used, sorted, named.
    const ROUNDS: usize = 3;

    fn insert<P: EvictionPages>(&mut self, pages: &mut P, page: Page, _arrival: Arrival) {
        self.push(pages, page, self.used);
    }

    fn remove<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        let queue = usize::from(pages.node(page).queue);
        self.queues[queue].remove(pages, page);
    }

    fn touch<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        pages.node_mut(page).used = 1;
    }

    fn demote<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        self.remove(pages, page);
        take_used(pages, page);
        let queue = class(pages.is_dirty(page));
        pages.node_mut(page).queue = queue;
        self.queues[usize::from(queue)].push_front(pages, page);
    }

    fn victim<P: EvictionPages>(&mut self, pages: &mut P, looks: &mut usize) -> Option<Page> {
        while *looks > 0 {
            let page = self.candidate()?;
            *looks -= 1;
            let queue = pages.node(page).queue;
            let now = class(pages.is_dirty(page));
            if queue == self.unsorted() {
                take_used(pages, page);
                self.shift(pages, page, now);
            } else if pages.is_held(page) {
                self.shift(pages, page, self.used);
            } else if take_used(pages, page) {
                self.spared += 1;
                self.shift(pages, page, self.used);
            } else if queue == CLEAN && now == DIRTY {
                self.shift(pages, page, DIRTY);
            } else {
                // Its turn is over, whether it goes or not.
                self.shift(pages, page, self.used);
                return Some(page);
            }
        }
        None
    }

    fn find<P: EvictionPages>(
        &self,
        pages: &P,
        from: End,
        mut wanted: impl FnMut(&P, Page) -> bool,
    ) -> Option<Page> {
        let find = |queue: &PageQueue| queue.find(pages, from, &mut wanted);
        let mut queues = self.in_order().into_iter();
        match from {
            End::First => queues.find_map(find),
            End::Last => queues.rev().find_map(find),
        }
    }

    fn len(&self) -> usize {
        self.queues.iter().map(PageQueue::len).sum()
    }

    fn spared(&self) -> u64 {
        self.spared
    }
}
