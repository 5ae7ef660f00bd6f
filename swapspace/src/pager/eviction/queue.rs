//! A queue of pages, threaded through their nodes.

use super::{EvictionPages, Page};

/// No page.
const NIL: u32 = u32::MAX;

/// First in, first out, with removal from the middle; every change is O(1). A page is in one queue
/// at most, whoever uses it: the links are those of its [`EvictionNode`](super::EvictionNode).
///
/// ```
/// use swapspace::{EvictionNode, EvictionPages, Page, PageQueue};
///
/// struct Books([EvictionNode; 4]);
///
/// impl EvictionPages for Books {
///     fn node(&self, page: Page) -> &EvictionNode {
///         &self.0[page.0 as usize]
///     }
///     fn node_mut(&mut self, page: Page) -> &mut EvictionNode {
///         &mut self.0[page.0 as usize]
///     }
///     fn is_held(&self, _page: Page) -> bool {
///         false
///     }
///     fn is_dirty(&self, _page: Page) -> bool {
///         false
///     }
///     fn take_used(&mut self, _page: Page) -> bool {
///         false
///     }
/// }
///
/// let mut books = Books([EvictionNode::EMPTY; 4]);
/// let mut queue = PageQueue::new();
/// queue.push_back(&mut books, Page(2));
/// queue.push_back(&mut books, Page(0));
/// queue.push_front(&mut books, Page(3));
/// queue.remove(&mut books, Page(2));
/// assert_eq!((queue.first(), queue.len()), (Some(Page(3)), 2));
/// ```
#[derive(Debug)]
pub struct PageQueue {
    first: u32,
    last: u32,
    len: usize,
}

/// An end of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum End {
    /// Where pages go first.
    First,
    /// Where they go last.
    Last,
}

impl PageQueue {
    /// A queue of no pages.
    #[must_use]
    pub const fn new() -> Self {
        PageQueue {
            first: NIL,
            last: NIL,
            len: 0,
        }
    }

    /// Pages in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The page that has been in longest.
    #[must_use]
    pub fn first(&self) -> Option<Page> {
        (self.first != NIL).then_some(Page(self.first))
    }

    /// Adds a page that is in no queue, behind all others.
    pub fn push_back<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        self.insert(pages, page, self.last, NIL);
    }

    /// Adds a page that is in no queue, before all others.
    pub fn push_front<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        self.insert(pages, page, NIL, self.first);
    }

    fn insert<P: EvictionPages>(&mut self, pages: &mut P, page: Page, prev: u32, next: u32) {
        let node = pages.node_mut(page);
        (node.prev, node.next) = (prev, next);
        self.join(pages, prev, page.0);
        self.join(pages, page.0, next);
        self.len += 1;
    }

    /// Takes out a page that is in this queue.
    pub fn remove<P: EvictionPages>(&mut self, pages: &mut P, page: Page) {
        let node = pages.node(page);
        let (prev, next) = (node.prev, node.next);
        self.join(pages, prev, next);
        self.len -= 1;
    }

    /// Moves the first page behind all others.
    pub fn rotate<P: EvictionPages>(&mut self, pages: &mut P) {
        if let Some(first) = self.first() {
            self.remove(pages, first);
            self.push_back(pages, first);
        }
    }

    /// Makes `next` follow `prev`; either may be the end.
    fn join<P: EvictionPages>(&mut self, pages: &mut P, prev: u32, next: u32) {
        match prev {
            NIL => self.first = next,
            prev => pages.node_mut(Page(prev)).next = next,
        }
        match next {
            NIL => self.last = prev,
            next => pages.node_mut(Page(next)).prev = prev,
        }
    }

    /// The first page for which `wanted` holds, beginning at one end. O(length).
    pub fn find<P: EvictionPages>(
        &self,
        pages: &P,
        from: End,
        mut wanted: impl FnMut(&P, Page) -> bool,
    ) -> Option<Page> {
        let mut at = match from {
            End::First => self.first,
            End::Last => self.last,
        };
        while at != NIL {
            if wanted(pages, Page(at)) {
                return Some(Page(at));
            }
            let node = pages.node(Page(at));
            at = match from {
                End::First => node.next,
                End::Last => node.prev,
            };
        }
        None
    }
}

impl Default for PageQueue {
    fn default() -> Self {
        Self::new()
    }
}
