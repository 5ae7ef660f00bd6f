//! The machine's page table: what the pager asks of an MMU, answered by `userfaultfd`, or by a list
//! for explicit paging.
//!
//! `userfaultfd` cannot map a frame of ours, so mapping is copying: a resident page owns exactly one
//! frame of the machine, whose bytes are copied into the process's page when it is mapped, and back
//! when it is write-protected. The frame is the page's memory in all that matters here: there is no
//! page without one.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use mempool::Frame;
use swapspace::{
    Access, AddressSpace, ExplicitTable, FaultOutcome, Instant, Mapping, Page, PageTable, Pager,
};

use crate::explicit::{Access as PageAccess, Action, Mailbox};
use crate::heap;
use crate::uffd::{FAULT_BATCH, Fault, PageBytes, Region};

/// A page table over a region of this process's memory.
pub(crate) struct FaultTable {
    pub(crate) region: Region,
    accessed: Vec<bool>,
}

impl FaultTable {
    pub(crate) fn new(region: Region, pages: usize) -> Self {
        FaultTable {
            region,
            accessed: vec![false; pages],
        }
    }
}

fn whole(bytes: &mut [u8]) -> &mut PageBytes {
    bytes.try_into().expect("a page is one frame")
}

/// Nothing here can fail but for a bug or a kernel that takes back what it granted; the page would
/// be lost then, so the process ends rather than going on with wrong bytes.
fn granted<T>(what: &str, page: Page, answer: std::io::Result<T>) -> T {
    answer.unwrap_or_else(|error| panic!("{what} page {}: {error}", page.0))
}

impl PageTable for FaultTable {
    /// The process's page stays where it is while the frame with its copy is on the wire.
    const MAPPED_DURING_WRITEBACK: bool = true;

    fn map(&mut self, page: Page, bytes: &mut [u8], mapping: Mapping) {
        let protected = mapping == Mapping::ReadOnly;
        granted(
            "mapping",
            page,
            self.region.copy(page.0 as usize, whole(bytes), protected),
        );
        self.accessed[page.0 as usize] = true;
    }

    fn write_protect(&mut self, page: Page, bytes: &mut [u8]) {
        granted(
            "protecting",
            page,
            self.region.write_protect(page.0 as usize, true, false),
        );
        granted(
            "copying",
            page,
            self.region.read_page(page.0 as usize, whole(bytes)),
        );
    }

    fn make_writable(&mut self, page: Page) {
        granted(
            "unprotecting",
            page,
            self.region.write_protect(page.0 as usize, false, true),
        );
        self.accessed[page.0 as usize] = true;
    }

    fn unmap(&mut self, page: Page) {
        granted("dropping", page, self.region.drop_page(page.0 as usize));
    }

    /// `userfaultfd` sees the accesses that fault, and no others: a page counts as used once when it
    /// is mapped and once when it is first written to.
    fn take_accessed(&mut self, page: Page) -> bool {
        core::mem::take(&mut self.accessed[page.0 as usize])
    }
}

/// Whose page faults a machine serves: how they arrive, and how their clients go on.
pub(crate) trait Clients {
    /// The page table that goes with it.
    type Table: PageTable;

    /// Takes up faults that have arrived.
    ///
    /// # Errors
    ///
    /// The system took back what it granted.
    fn take_up<A: Space>(
        &mut self,
        pager: &mut PagerOf<A, Self::Table>,
        now: Instant,
    ) -> io::Result<()>;

    /// A page is mapped that a fault waited for.
    fn mapped<A: Space>(&mut self, pager: &mut PagerOf<A, Self::Table>, page: Page);

    /// Clients that wait.
    fn waiting(&self) -> usize;

    /// Readable while faults wait to be taken up.
    fn fd<'a, A: Space>(&'a self, pager: &'a PagerOf<A, Self::Table>) -> BorrowedFd<'a>;
}

/// The pager of this machine, over any store.
pub(crate) type PagerOf<A, T> = Pager<'static, 'static, A, T>;

/// A store of this machine's frames.
pub(crate) trait Space: AddressSpace<Frame<'static>> {}

impl<A: AddressSpace<Frame<'static>>> Space for A {}

/// Threads that fault.
#[derive(Default)]
pub(crate) struct Faulting {
    waiting: HashSet<u32>,
}

impl Clients for Faulting {
    type Table = FaultTable;

    fn take_up<A: Space>(
        &mut self,
        pager: &mut PagerOf<A, FaultTable>,
        now: Instant,
    ) -> io::Result<()> {
        let mut buffer = [Fault::default(); FAULT_BATCH];
        loop {
            let faults = pager.table().region.read_faults(&mut buffer)?;
            if faults.is_empty() {
                return Ok(());
            }
            for fault in faults {
                let page = Page(fault.page as u32);
                let access = if fault.write {
                    Access::Write
                } else {
                    Access::Read
                };
                match heap::on_swap_path(|| pager.fault(page, access, now)) {
                    // It was mapped by the time the fault was read: the access is tried again.
                    Ok(FaultOutcome::Mapped) => pager.table().region.wake(fault.page)?,
                    Ok(FaultOutcome::Pending) => {
                        self.waiting.insert(page.0);
                    }
                    Err(error) => unreachable!("there is an entry for every thread: {error}"),
                }
            }
        }
    }

    fn mapped<A: Space>(&mut self, _pager: &mut PagerOf<A, FaultTable>, page: Page) {
        self.waiting.remove(&page.0);
    }

    fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn fd<'a, A: Space>(&'a self, pager: &'a PagerOf<A, FaultTable>) -> BorrowedFd<'a> {
        pager.table().region.as_fd()
    }
}

/// Threads that call.
pub(crate) struct Calling {
    mailbox: Mailbox,
    waiting: Vec<PageAccess>,
}

impl Calling {
    pub(crate) fn new(mailbox: Mailbox) -> Self {
        Calling {
            mailbox,
            waiting: Vec::new(),
        }
    }
}

impl Clients for Calling {
    type Table = ExplicitTable;

    fn take_up<A: Space>(
        &mut self,
        pager: &mut PagerOf<A, ExplicitTable>,
        now: Instant,
    ) -> io::Result<()> {
        while let Some(access) = self.mailbox.take() {
            let wanted = match access.action {
                Action::Read(_) => Access::Read,
                Action::Write(_) => Access::Write,
            };
            let page = Page(access.page as u32);
            match heap::on_swap_path(|| pager.fault(page, wanted, now)) {
                Ok(FaultOutcome::Mapped) => perform(pager, access),
                Ok(FaultOutcome::Pending) => self.waiting.push(access),
                Err(error) => unreachable!("there is an entry for every thread: {error}"),
            }
        }
        Ok(())
    }

    fn mapped<A: Space>(&mut self, pager: &mut PagerOf<A, ExplicitTable>, page: Page) {
        let here = |access: &mut PageAccess| access.page == page.0 as usize;
        for access in self.waiting.extract_if(.., here) {
            perform(pager, access);
        }
    }

    fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn fd<'a, A: Space>(&'a self, _pager: &'a PagerOf<A, ExplicitTable>) -> BorrowedFd<'a> {
        self.mailbox.bell().as_fd()
    }
}

fn perform<A: Space>(pager: &mut PagerOf<A, ExplicitTable>, access: PageAccess) {
    let page = Page(access.page as u32);
    match access.action {
        Action::Read(look) => look(pager.frame(page).expect("the page was just mapped")),
        Action::Write(change) => change(pager.frame_mut(page).expect("the page was just mapped")),
    }
}
