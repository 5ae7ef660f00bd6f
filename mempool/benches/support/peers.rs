//! The peers, as their documentation says to use them, without locks.
#![allow(dead_code, unreachable_pub)]

use core::alloc::Layout;
use core::ptr::NonNull;

use buddy_system_allocator::FrameAllocator;
use rlsf::Tlsf;
use slabmalloc::{AllocationError, ObjectPage, SCAllocator};
use talc::DefaultBinning;
use talc::base::Talc;
use talc::source::Manual;

use crate::support::memory::{layout_of, map_aligned};
use crate::support::{BUFFER, Payload, Subject};

const PAGE: usize = 4096;

/// A general-purpose allocator.
pub trait Heap {
    fn over(memory: &'static mut [u8], layout: Layout) -> Self;

    fn take(&mut self, layout: Layout) -> Option<NonNull<u8>>;

    /// # Safety
    ///
    /// `object` was taken with `layout`, and is not used any more.
    unsafe fn give(&mut self, object: NonNull<u8>, layout: Layout);
}

/// Objects of 64 bytes out of a peer, with a value moved in.
pub struct Typed<H>(H);

impl<H: Heap> Subject for Typed<H> {
    type Handle = NonNull<Payload>;

    fn new(bytes: usize) -> Self {
        Typed(H::over(map_aligned(bytes), Layout::new::<Payload>()))
    }

    #[inline(always)]
    fn alloc(&mut self, _: u8) -> Option<Self::Handle> {
        let object = self.0.take(Layout::new::<Payload>())?.cast::<Payload>();
        // SAFETY: memory for one, just taken.
        unsafe { object.write(Payload::NEW) };
        Some(object)
    }

    #[inline(always)]
    fn free(&mut self, handle: Self::Handle) {
        // SAFETY: from `alloc`, and gone now.
        unsafe { self.0.give(handle.cast(), Layout::new::<Payload>()) }
    }
}

/// Blocks of `SIZE` bytes out of a peer, as they are.
pub struct Blocks<H, const SIZE: usize>(H);

/// Packet buffers.
pub type Buffers<H> = Blocks<H, BUFFER>;

impl<H: Heap, const SIZE: usize> Subject for Blocks<H, SIZE> {
    type Handle = NonNull<u8>;

    fn new(bytes: usize) -> Self {
        Blocks(H::over(map_aligned(bytes), layout_of(SIZE)))
    }

    #[inline(always)]
    fn alloc(&mut self, _: u8) -> Option<Self::Handle> {
        self.0.take(const { layout_of(SIZE) })
    }

    #[inline(always)]
    fn free(&mut self, handle: Self::Handle) {
        // SAFETY: from `alloc`, and gone now.
        unsafe { self.0.give(handle, const { layout_of(SIZE) }) }
    }
}

/// Frames out of a general-purpose allocator: blocks of a page, aligned to their size.
pub struct Pages<H>(H);

impl<H: Heap> Subject for Pages<H> {
    type Handle = (NonNull<u8>, u8);

    fn new(bytes: usize) -> Self {
        Pages(H::over(map_aligned(bytes), page(0)))
    }

    #[inline(always)]
    fn alloc(&mut self, order: u8) -> Option<Self::Handle> {
        Some((self.0.take(page(order))?, order))
    }

    #[inline(always)]
    fn free(&mut self, (start, order): Self::Handle) {
        // SAFETY: from `alloc`, and gone now.
        unsafe { self.0.give(start, page(order)) }
    }
}

#[inline(always)]
fn page(order: u8) -> Layout {
    let size = PAGE << order;
    Layout::from_size_align(size, size).expect("a power of two")
}

impl Heap for Talc<Manual, DefaultBinning> {
    fn over(memory: &'static mut [u8], _: Layout) -> Self {
        let mut talc = Talc::new(Manual);
        // SAFETY: the memory is its own from now on.
        let arena = unsafe { talc.claim(memory.as_mut_ptr(), memory.len()) };
        arena.expect("enough for its tables");
        talc
    }

    #[inline(always)]
    fn take(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: of a size above zero.
        unsafe { self.allocate(layout) }
    }

    #[inline(always)]
    unsafe fn give(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.deallocate(object.as_ptr(), layout) }
    }
}

/// talc, in its default configuration.
pub type TalcHeap = Talc<Manual, DefaultBinning>;

impl Heap for linked_list_allocator::Heap {
    fn over(memory: &'static mut [u8], _: Layout) -> Self {
        // SAFETY: the memory is its own from now on.
        unsafe { linked_list_allocator::Heap::new(memory.as_mut_ptr(), memory.len()) }
    }

    #[inline(always)]
    fn take(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.allocate_first_fit(layout).ok()
    }

    #[inline(always)]
    unsafe fn give(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.deallocate(object, layout) }
    }
}

/// linked_list_allocator.
pub type ListHeap = linked_list_allocator::Heap;

impl Heap for buddy_system_allocator::Heap<33> {
    fn over(memory: &'static mut [u8], _: Layout) -> Self {
        let mut heap = buddy_system_allocator::Heap::empty();
        // SAFETY: the memory is its own from now on.
        unsafe { heap.init(memory.as_mut_ptr() as usize, memory.len()) };
        heap
    }

    #[inline(always)]
    fn take(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.alloc(layout).ok()
    }

    #[inline(always)]
    unsafe fn give(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.dealloc(object, layout) }
    }
}

/// buddy_system_allocator's heap.
pub type BuddyHeap = buddy_system_allocator::Heap<33>;

/// rlsf, with lists for blocks of up to 128 MiB, 16 to each power of two.
pub type TlsfHeap = Tlsf<'static, u32, u32, 23, 16>;

impl Heap for TlsfHeap {
    fn over(memory: &'static mut [u8], _: Layout) -> Self {
        let mut tlsf = Tlsf::new();
        // SAFETY: the memory is its own from now on.
        unsafe { tlsf.insert_free_block_ptr(NonNull::from(memory)) }.expect("a large block");
        tlsf
    }

    #[inline(always)]
    fn take(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.allocate(layout)
    }

    #[inline(always)]
    unsafe fn give(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.deallocate(object, layout.align()) }
    }
}

/// slabmalloc's allocator of one size over pages that it is refilled with when it asks.
pub struct SlabHeap {
    slabs: SCAllocator<'static, ObjectPage<'static>>,
    pages: core::slice::ChunksExactMut<'static, u8>,
}

impl Heap for SlabHeap {
    fn over(memory: &'static mut [u8], layout: Layout) -> Self {
        SlabHeap {
            slabs: SCAllocator::new(layout.size()),
            pages: memory.chunks_exact_mut(PAGE),
        }
    }

    #[inline(always)]
    fn take(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        loop {
            match self.slabs.allocate(layout) {
                Ok(object) => return Some(object),
                Err(AllocationError::OutOfMemory) => {}
                Err(AllocationError::InvalidLayout) => return None,
            }
            let Some(page) = self.pages.next() else {
                // Pages that were full are looked through only now and then; here is how to ask for it.
                self.slabs.try_reclaim_pages(0, &mut |_| ());
                return self.slabs.allocate(layout).ok();
            };
            // SAFETY: a zeroed page, aligned, of nobody else: all of its fields may be zero.
            unsafe { self.slabs.refill(&mut *page.as_mut_ptr().cast()) };
        }
    }

    #[inline(always)]
    unsafe fn give(&mut self, object: NonNull<u8>, layout: Layout) {
        let freed = self.slabs.deallocate(object, layout);
        debug_assert!(freed.is_ok());
    }
}

/// buddy_system_allocator's frame allocator: numbers of frames, nothing behind them.
pub struct BuddyFrames(FrameAllocator<33>);

impl Subject for BuddyFrames {
    type Handle = (usize, u8);

    fn new(bytes: usize) -> Self {
        let mut frames = FrameAllocator::new();
        frames.add_frame(0, bytes / PAGE);
        BuddyFrames(frames)
    }

    #[inline(always)]
    fn alloc(&mut self, order: u8) -> Option<Self::Handle> {
        Some((self.0.alloc(1 << order)?, order))
    }

    #[inline(always)]
    fn free(&mut self, (first, order): Self::Handle) {
        self.0.dealloc(first, 1 << order);
    }
}
