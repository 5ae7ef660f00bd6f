//! The clock: resident pages in the order in which they came, for second-chance eviction.
//!
//! A ring threaded through the page entries. The hand points at the page that came first; a page
//! that was used since the hand last came by is passed over once.

use super::PageEntry;

/// No page: the ring is empty.
const NIL: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Clock {
    hand: u32,
    len: usize,
}

impl Clock {
    pub(super) const fn new() -> Self {
        Clock { hand: NIL, len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The page under the hand.
    pub(super) fn first(&self) -> Option<u32> {
        (self.hand != NIL).then_some(self.hand)
    }

    /// The page that the hand passed last.
    pub(super) fn last(&self, pages: &[PageEntry<'_>]) -> Option<u32> {
        self.first().map(|hand| pages[hand as usize].prev)
    }

    /// Moves the hand past the page under it.
    pub(super) fn advance(&mut self, pages: &[PageEntry<'_>]) {
        if let Some(hand) = self.first() {
            self.hand = pages[hand as usize].next;
        }
    }

    /// Inserts a page just behind the hand: every other page comes before it. O(1).
    pub(super) fn insert(&mut self, pages: &mut [PageEntry<'_>], page: u32) {
        let (next, prev) = match self.first() {
            None => {
                self.hand = page;
                (page, page)
            }
            Some(hand) => (hand, pages[hand as usize].prev),
        };
        pages[page as usize].next = next;
        pages[page as usize].prev = prev;
        pages[prev as usize].next = page;
        pages[next as usize].prev = page;
        self.len += 1;
    }

    /// Takes a page out. O(1).
    pub(super) fn remove(&mut self, pages: &mut [PageEntry<'_>], page: u32) {
        let (next, prev) = (pages[page as usize].next, pages[page as usize].prev);
        pages[prev as usize].next = next;
        pages[next as usize].prev = prev;
        if self.hand == page {
            self.hand = if next == page { NIL } else { next };
        }
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn order(clock: &mut Clock, pages: &[PageEntry<'_>]) -> Vec<u32> {
        (0..clock.len())
            .map(|_| {
                let page = clock.first().unwrap();
                clock.advance(pages);
                page
            })
            .collect()
    }

    #[test]
    fn the_hand_meets_pages_in_the_order_in_which_they_came() {
        let mut pages = [const { PageEntry::EMPTY }; 5];
        let mut clock = Clock::new();
        for page in [3, 0, 4] {
            clock.insert(&mut pages, page);
        }
        assert_eq!(order(&mut clock, &pages), [3, 0, 4]);

        clock.remove(&mut pages, 3);
        clock.insert(&mut pages, 1);
        assert_eq!(order(&mut clock, &pages), [0, 4, 1]);
        assert_eq!(clock.last(&pages), Some(1));

        for page in [4, 0, 1] {
            clock.remove(&mut pages, page);
        }
        assert_eq!((clock.first(), clock.len()), (None, 0));
    }
}
