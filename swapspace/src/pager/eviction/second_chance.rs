//! Second chance, or the clock: first in, first out, but for what was used.

use super::{Arrival, End, EvictionPages, EvictionPolicy, PageQueue};
use crate::Page;

/// The clock: pages go in the order in which they came; one that was used since the hand last came
/// by is passed over once. The default.
#[derive(Debug, Default)]
pub struct SecondChance {
    /// The hand is at the front.
    queue: PageQueue,
    spared: u64,
}

impl SecondChance {
    /// No page is in.
    #[must_use]
    pub const fn new() -> Self {
        SecondChance {
            queue: PageQueue::new(),
            spared: 0,
        }
    }
}

impl EvictionPolicy for SecondChance {
    const ROUNDS: usize = 2;

    fn insert<P: EvictionPages>(&mut self, pages: &mut P, page: Page, arrival: Arrival) {
        if arrival == Arrival::Faulted {
            pages.node_mut(page).used = 1;
        }
        self.queue.push_back(pages, page);
    }

    fn remove<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        self.queue.remove(pages, page);
    }

    fn touch<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        pages.node_mut(page).used = 1;
    }

    fn demote<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        pages.take_used(page);
        pages.node_mut(page).used = 0;
        self.queue.remove(pages, page);
        self.queue.push_front(pages, page);
    }

    fn victim<P: EvictionPages>(&mut self, pages: &mut P, looks: &mut usize) -> Option<Page> {
        while *looks > 0 {
            let page = self.queue.first()?;
            *looks -= 1;
            self.queue.rotate(pages);
            if pages.is_held(page) {
                continue;
            }
            let accessed = pages.take_used(page);
            if core::mem::take(&mut pages.node_mut(page).used) == 0 && !accessed {
                return Some(page);
            }
            self.spared += 1;
        }
        None
    }

    fn find<P: EvictionPages>(
        &self,
        pages: &P,
        from: End,
        wanted: impl FnMut(&P, Page) -> bool,
    ) -> Option<Page> {
        self.queue.find(pages, from, wanted)
    }

    fn len(&self) -> usize {
        self.queue.len()
    }

    fn spared(&self) -> u64 {
        self.spared
    }
}
