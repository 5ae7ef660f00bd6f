//! The books of one page.

use core::fmt;

use mempool::Frame;

use super::PageTable;
use super::eviction::{EvictionNode, EvictionPages};
use super::queue::FaultId;
use super::readahead::Hint;
use crate::SwapEntry;

/// A virtual page, by its number: an index into the table of [`PageEntry`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Page(pub u32);

impl Page {
    pub(super) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The books of one page; opaque to the caller, who only provides the storage.
///
/// ```
/// use swapspace::PageEntry;
///
/// let table = [const { PageEntry::EMPTY }; 1024];
/// # let _ = table;
/// ```
pub struct PageEntry<'m> {
    /// The page's bytes, while it is resident.
    pub(super) frame: Option<Frame<'m>>,
    /// A slot that holds the page's bytes, or will.
    pub(super) swap: Option<SwapEntry>,
    /// What the eviction policy keeps here.
    pub(super) node: EvictionNode,
    /// The page that was written to the slot after this one's, or the first of that request: a
    /// guess, since either may have moved.
    pub(super) neighbour: u32,
    /// Who waits for the page, or has not been told yet that it is there.
    pub(super) fault: Option<FaultId>,
    /// Holders that forbid eviction.
    pub(super) pins: u16,
    pub(super) state: State,
    pub(super) hint: Hint,
    /// No slot holds the page's bytes. Under writeback: nor will the one that is being written.
    pub(super) dirty: bool,
    /// The table lets the page be written.
    pub(super) writable: bool,
    /// The last read of the slot failed.
    pub(super) suspect: bool,
    /// A write to the slot may still be carried out, at any later time: it must not be given to
    /// another page.
    pub(super) stray: bool,
    /// Forgotten while in flight: nobody wants the outcome.
    pub(super) doomed: bool,
}

/// Where a page is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Nowhere: it reads as zeros. No frame, no slot.
    Untouched,
    /// In its slot. No frame.
    Swapped,
    /// On its way in: the frame is lent to the address space, the slot is kept.
    Reading,
    /// Read ahead: in its frame, clean and in its slot as well, but not mapped.
    Cached,
    /// In its frame, and known to the eviction policy. A clean page has a slot, or is all zeros.
    Resident,
    /// On its way out: the frame is lent to the address space, the slot is being written.
    Writeback,
}

impl PageEntry<'_> {
    /// What a table is filled with before it is handed over.
    pub const EMPTY: Self = PageEntry {
        frame: None,
        swap: None,
        node: EvictionNode::EMPTY,
        neighbour: 0,
        fault: None,
        pins: 0,
        state: State::Untouched,
        hint: Hint::None,
        dirty: false,
        writable: false,
        suspect: false,
        stray: false,
        doomed: false,
    };

    /// The bytes of a page that is mapped.
    pub(super) fn mapped_frame(&self) -> Option<&[u8]> {
        let frame = self.frame.as_deref()?;
        (self.state == State::Resident).then_some(frame)
    }

    /// Whether somebody holds the page: it is pinned, or its fault was served and not reported yet.
    pub(super) const fn held(&self) -> bool {
        self.pins > 0 || self.fault.is_some()
    }
}

/// The pages, as an eviction policy sees them.
pub(super) struct Books<'a, 'm, T> {
    pub(super) pages: &'a mut [PageEntry<'m>],
    pub(super) table: &'a mut T,
}

impl<'m, T> Books<'_, 'm, T> {
    pub(super) fn entry(&self, page: Page) -> &PageEntry<'m> {
        &self.pages[page.index()]
    }
}

impl<T: PageTable> EvictionPages for Books<'_, '_, T> {
    fn node(&self, page: Page) -> &EvictionNode {
        &self.pages[page.index()].node
    }

    fn node_mut(&mut self, page: Page) -> &mut EvictionNode {
        &mut self.pages[page.index()].node
    }

    fn is_held(&self, page: Page) -> bool {
        self.pages[page.index()].held()
    }

    fn is_dirty(&self, page: Page) -> bool {
        self.pages[page.index()].dirty
    }

    fn take_used(&mut self, page: Page) -> bool {
        self.table.take_accessed(page)
    }
}

impl Default for PageEntry<'_> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl fmt::Debug for PageEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageEntry")
            .field("state", &self.state)
            .field("swap", &self.swap)
            .field("dirty", &self.dirty)
            .field("pins", &self.pins)
            .finish_non_exhaustive()
    }
}
