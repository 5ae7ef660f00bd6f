//! How tasks reach their pages: through an MMU, or by asking.

use mempool::Frame;
use swapspace::{AddressSpace, ExplicitTable, Mapping, Page, PageTable, Pager};

/// Bytes of a page.
pub(crate) const PAGE: usize = mempool::FRAME_SIZE;

/// A page table that tasks can read and write through.
pub(crate) trait Mmu: PageTable + Sized {
    fn with_pages(pages: usize) -> Self;

    /// The bytes of a page, if it can be read without a fault.
    fn load<'p, 'm, A: AddressSpace<Frame<'m>>>(
        pager: &'p mut Pager<'_, 'm, A, Self>,
        page: Page,
    ) -> Option<&'p [u8]>;

    /// The bytes of a page, if it can be written without a fault.
    fn store<'p, 'm, A: AddressSpace<Frame<'m>>>(
        pager: &'p mut Pager<'_, 'm, A, Self>,
        page: Page,
    ) -> Option<&'p mut [u8]>;
}

impl Mmu for ExplicitTable {
    fn with_pages(_: usize) -> Self {
        ExplicitTable
    }

    fn load<'p, 'm, A: AddressSpace<Frame<'m>>>(
        pager: &'p mut Pager<'_, 'm, A, Self>,
        page: Page,
    ) -> Option<&'p [u8]> {
        pager.frame(page)
    }

    fn store<'p, 'm, A: AddressSpace<Frame<'m>>>(
        pager: &'p mut Pager<'_, 'm, A, Self>,
        page: Page,
    ) -> Option<&'p mut [u8]> {
        pager.frame_mut(page)
    }
}

/// Page tables in hardware, but for one thing: what a task writes is copied to the frame when the
/// page is write-protected, and not at once. Nobody may look into the frame before.
pub(crate) struct Hardware {
    entries: Vec<Option<Entry>>,
}

struct Entry {
    bytes: Box<[u8; PAGE]>,
    writable: bool,
    accessed: bool,
}

impl Hardware {
    fn entry(&mut self, page: Page) -> Option<&mut Entry> {
        self.entries.get_mut(page.0 as usize)?.as_mut()
    }
}

impl PageTable for Hardware {
    const MAPPED_DURING_WRITEBACK: bool = true;

    fn map(&mut self, page: Page, bytes: &mut [u8], mapping: Mapping) {
        let mut copy = Box::new([0; PAGE]);
        copy.copy_from_slice(bytes);
        self.entries[page.0 as usize] = Some(Entry {
            bytes: copy,
            writable: mapping == Mapping::ReadWrite,
            accessed: false,
        });
    }

    fn write_protect(&mut self, page: Page, bytes: &mut [u8]) {
        let entry = self.entry(page).expect("only a mapped page is protected");
        entry.writable = false;
        bytes.copy_from_slice(&entry.bytes[..]);
    }

    fn make_writable(&mut self, page: Page) {
        let entry = self.entry(page).expect("only a mapped page is writable");
        entry.writable = true;
    }

    fn unmap(&mut self, page: Page) {
        self.entries[page.0 as usize] = None;
    }

    fn take_accessed(&mut self, page: Page) -> bool {
        self.entry(page)
            .is_some_and(|entry| core::mem::take(&mut entry.accessed))
    }
}

impl Mmu for Hardware {
    fn with_pages(pages: usize) -> Self {
        let entries = core::iter::repeat_with(|| None).take(pages).collect();
        Hardware { entries }
    }

    fn load<'p, 'm, A: AddressSpace<Frame<'m>>>(
        pager: &'p mut Pager<'_, 'm, A, Self>,
        page: Page,
    ) -> Option<&'p [u8]> {
        let entry = pager.table_mut().entry(page)?;
        entry.accessed = true;
        Some(&entry.bytes[..])
    }

    fn store<'p, 'm, A: AddressSpace<Frame<'m>>>(
        pager: &'p mut Pager<'_, 'm, A, Self>,
        page: Page,
    ) -> Option<&'p mut [u8]> {
        let entry = pager
            .table_mut()
            .entry(page)
            .filter(|entry| entry.writable)?;
        entry.accessed = true;
        Some(&mut entry.bytes[..])
    }
}

/// What a task writes into a page: determined by a number, and by every byte of it.
pub(crate) fn fill(bytes: &mut [u8], tag: u64) {
    for (i, word) in bytes.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&pattern(tag, i).to_le_bytes());
    }
}

/// Where a page differs first from what `fill` wrote, in bytes, and what is there.
pub(crate) fn difference(bytes: &[u8], tag: u64) -> Option<(usize, u64)> {
    let words = bytes.chunks_exact(8).map(|word| {
        let word = word.try_into().expect("words have eight bytes");
        u64::from_le_bytes(word)
    });
    let mut words = words.enumerate();
    let wrong = words.find(|(i, word)| *word != pattern(tag, *i))?;
    Some((wrong.0 * 8, wrong.1))
}

/// Whether a page is what `fill` wrote, but for bytes that are zero.
pub(crate) fn differs_in_zeros_alone(bytes: &[u8], tag: u64) -> bool {
    let words = bytes.chunks_exact(8).enumerate();
    let mut pairs = words.flat_map(|(i, word)| word.iter().zip(pattern(tag, i).to_le_bytes()));
    pairs.all(|(is, was)| *is == 0 || *is == was)
}

/// A page that was never written is all zeros.
const fn pattern(tag: u64, word: usize) -> u64 {
    if tag == 0 {
        return 0;
    }
    tag.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add((word as u64).wrapping_mul(0xbf58_476d_1ce4_e5b9))
        ^ tag
}
