//! S3-FIFO: a small queue on probation, a main queue, and a memory of what left the small one.

use super::{Arrival, End, EvictionPages, EvictionPolicy, PageQueue};
use crate::Page;

/// S3-FIFO: three first-in-first-out queues (Yang, Zhang, Qiu, Yue, Vigfusson: "FIFO queues are all
/// you need for cache eviction", SOSP 2023).
///
/// A page that comes for the first time enters the small queue, a tenth of what is resident. If it
/// was used again by the time that it reaches the end, it moves to the main queue, and goes
/// otherwise: a scan passes through the small queue and leaves the main one alone. A page that left
/// through the small queue is remembered for as many such pages as are resident (a ghost); if it
/// comes back in that time, it enters the main queue at once. There pages go round as often as
/// they were used, three times at most.
///
/// Ghosts need no storage: the node of a page that is out is free to be linked.
///
/// The access for which a page was faulted in counts as its first use, since neither an accessed
/// bit nor [`Pager::frame`](crate::Pager::frame) can tell it from a second one. Where uses are seen
/// through accessed bits only, a page cannot be used twice between two looks: then every page
/// reaches the main queue as a ghost.
#[derive(Debug, Default)]
pub struct S3Fifo {
    small: PageQueue,
    main: PageQueue,
    ghosts: PageQueue,
    /// Looks in a row, since something came or went, that moved nothing.
    fruitless: usize,
    spared: u64,
}

/// Values of `EvictionNode::queue`.
const NONE: u8 = 0;
const SMALL: u8 = 1;
const MAIN: u8 = 2;
const GHOST: u8 = 3;
/// Was a ghost, and is in memory.
const RECALLED: u8 = 4;

/// Uses that are counted.
const MOST: u8 = 3;
/// Of so many resident pages, one is in the small queue.
const SMALL_SHARE: usize = 10;

impl S3Fifo {
    /// No page is in.
    #[must_use]
    pub const fn new() -> Self {
        S3Fifo {
            small: PageQueue::new(),
            main: PageQueue::new(),
            ghosts: PageQueue::new(),
            fruitless: 0,
            spared: 0,
        }
    }

    /// Pages that are remembered though they are out.
    #[must_use]
    pub const fn ghosts(&self) -> usize {
        self.ghosts.len()
    }

    fn push<P: EvictionPages>(&mut self, pages: &mut P, page: Page, queue: u8) {
        pages.node_mut(page).queue = queue;
        match queue {
            SMALL => self.small.push_back(pages, page),
            MAIN => self.main.push_back(pages, page),
            _ => self.ghosts.push_back(pages, page),
        }
    }

    fn forget_ghost<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        if pages.node(page).queue == GHOST {
            self.ghosts.remove(pages, page);
            pages.node_mut(page).queue = NONE;
        }
    }

    /// The queue whose turn it is: the small one while it is too large, else the main one. Where
    /// nothing can go from that, the other.
    fn turn(&mut self) -> u8 {
        let (small, main) = (self.small.len(), self.main.len());
        if self.fruitless >= small + main {
            self.fruitless = 0;
        }
        let prefers_small = small > (small + main) / SMALL_SHARE;
        let preferred = if prefers_small { small } else { main };
        if prefers_small == (self.fruitless < preferred) {
            SMALL
        } else {
            MAIN
        }
    }

    /// Looks at the first page of the small queue.
    fn look_at_small<P: EvictionPages>(&mut self, pages: &mut P) -> Option<Page> {
        let page = self.small.first()?;
        let held = pages.is_held(page);
        if !held && count(pages, page) > 1 {
            self.spared += 1;
            self.small.remove(pages, page);
            pages.node_mut(page).used = 0;
            self.push(pages, page, MAIN);
            return None;
        }
        self.fruitless += 1;
        self.small.rotate(pages);
        (!held).then_some(page)
    }

    /// Looks at the first page of the main queue.
    fn look_at_main<P: EvictionPages>(&mut self, pages: &mut P) -> Option<Page> {
        let page = self.main.first()?;
        self.main.rotate(pages);
        if !pages.is_held(page) {
            let used = count(pages, page);
            if used == 0 {
                self.fruitless += 1;
                return Some(page);
            }
            pages.node_mut(page).used = used - 1;
            self.spared += 1;
            return None;
        }
        self.fruitless += 1;
        None
    }
}

/// Notes what the hardware saw, and returns how often a page was used.
fn count<P: EvictionPages>(pages: &mut P, page: Page) -> u8 {
    let accessed = pages.take_used(page);
    let node = pages.node_mut(page);
    node.used = (node.used + u8::from(accessed)).min(MOST);
    node.used
}

impl EvictionPolicy for S3Fifo {
    // From the small queue to the main one, three times round that, and the fruitless looks.
    const ROUNDS: usize = 6;

    fn insert<P: EvictionPages>(&mut self, pages: &mut P, page: Page, arrival: Arrival) {
        self.fruitless = 0;
        let was = pages.node(page).queue;
        self.forget_ghost(pages, page);
        match arrival {
            Arrival::Back if was == MAIN => self.push(pages, page, MAIN),
            Arrival::Back => self.push(pages, page, SMALL),
            Arrival::Faulted => {
                pages.node_mut(page).used = 0;
                self.push(
                    pages,
                    page,
                    if matches!(was, GHOST | RECALLED) {
                        MAIN
                    } else {
                        SMALL
                    },
                );
            }
        }
    }

    fn remove<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        self.fruitless = 0;
        // The node remembers the queue, in case that the page comes back.
        match pages.node(page).queue {
            MAIN => self.main.remove(pages, page),
            _ => self.small.remove(pages, page),
        }
    }

    fn evicted<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        let was = core::mem::replace(&mut pages.node_mut(page).queue, NONE);
        if !matches!(was, SMALL | RECALLED) {
            return;
        }
        self.push(pages, page, GHOST);
        // One more than there are now: the page itself was resident. Memory may have shrunk, and
        // then two go for each that comes.
        for _ in 0..2 {
            if self.ghosts.len() > self.len() + 1
                && let Some(oldest) = self.ghosts.first()
            {
                self.forget_ghost(pages, oldest);
            }
        }
    }

    fn recalled<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        if pages.node(page).queue == GHOST {
            self.ghosts.remove(pages, page);
            pages.node_mut(page).queue = RECALLED;
        }
    }

    fn forgotten<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        self.forget_ghost(pages, page);
        *pages.node_mut(page) = super::EvictionNode::EMPTY;
    }

    fn touch<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        let used = &mut pages.node_mut(page).used;
        *used = (*used + 1).min(MOST);
    }

    fn demote<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        self.remove(pages, page);
        pages.take_used(page);
        let node = pages.node_mut(page);
        (node.queue, node.used) = (SMALL, 0);
        self.small.push_front(pages, page);
    }

    fn victim<P: EvictionPages>(&mut self, pages: &mut P, looks: &mut usize) -> Option<Page> {
        while *looks > 0 && !self.is_empty() {
            *looks -= 1;
            let found = match self.turn() {
                SMALL => self.look_at_small(pages),
                _ => self.look_at_main(pages),
            };
            if found.is_some() {
                return found;
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
        let [first, second] = match from {
            End::First => [&self.small, &self.main],
            End::Last => [&self.main, &self.small],
        };
        first
            .find(pages, from, &mut wanted)
            .or_else(|| second.find(pages, from, wanted))
    }

    fn len(&self) -> usize {
        self.small.len() + self.main.len()
    }

    fn spared(&self) -> u64 {
        self.spared
    }
}
