//! What makes a page accessible: an MMU, an MPU, `userfaultfd`, or nothing but good manners.

use super::Page;

/// How a page is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Mapping {
    /// Reads go through, a write faults.
    ReadOnly,
    /// Everything goes through.
    ReadWrite,
}

/// The table that the pager keeps in step with its books.
///
/// `bytes` is always the page's frame: an MMU maps the memory itself, a table with copies of its
/// own (`userfaultfd`) copies from and to it. The calls cannot fail; an implementation whose medium
/// can fail must end the client that the page belongs to.
pub trait PageTable {
    /// Whether a page stays mapped while its frame is lent out for writeback. With an MMU it does:
    /// the frame is only read, and a task that writes just makes the page dirty again. Where
    /// accesses go through [`Pager::frame_mut`](crate::Pager::frame_mut) it cannot: the page is
    /// unmapped for that time, and faults on it wait.
    const MAPPED_DURING_WRITEBACK: bool;

    /// Makes an unmapped page accessible with the contents of `bytes`, and wakes whoever waits for
    /// it.
    fn map(&mut self, page: Page, bytes: &mut [u8], mapping: Mapping);

    /// From now on a write to the page faults. When this returns, `bytes` holds the page's current
    /// contents.
    fn write_protect(&mut self, page: Page, bytes: &mut [u8]);

    /// Lets writes to a mapped page through again, and wakes whoever waits for that.
    fn make_writable(&mut self, page: Page);

    /// Makes a page inaccessible. It is write-protected, or its contents are not wanted any more.
    fn unmap(&mut self, page: Page);

    /// Whether the page was used since the last call (test and clear the accessed bit). A table
    /// that cannot know says `false`: eviction is then first in, first out.
    fn take_accessed(&mut self, page: Page) -> bool;
}

/// Software paging: no hardware at all. A client asks with [`Pager::fault`](crate::Pager::fault)
/// and reaches the bytes with [`Pager::frame`](crate::Pager::frame) and
/// [`Pager::frame_mut`](crate::Pager::frame_mut), which also note that the page was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExplicitTable;

impl PageTable for ExplicitTable {
    const MAPPED_DURING_WRITEBACK: bool = false;

    fn map(&mut self, _page: Page, _bytes: &mut [u8], _mapping: Mapping) {}

    fn write_protect(&mut self, _page: Page, _bytes: &mut [u8]) {}

    fn make_writable(&mut self, _page: Page) {}

    fn unmap(&mut self, _page: Page) {}

    fn take_accessed(&mut self, _page: Page) -> bool {
        false
    }
}
