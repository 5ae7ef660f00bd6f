//! A global allocator over size classes.
//!
//! `dealloc` gets a bare address and a layout. The layout says which class or order it was; an
//! object's slab is the frame around it; and of whole frames only those that are not plain ordinary
//! ones of the zone are noted, in records beside them. No table, and no header in front of a block.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::{MaybeUninit, size_of};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, Ordering};

use lock_api::{Mutex, RawMutex};

use super::frame::{Frame, FrameOwner, RawFrame};
use super::slab::object_at;
use crate::sizes::{Memory, Place, RECORD, place};
use crate::{AllocError, CriticalSection, FRAME_SIZE, FrameAllocator, Gfp, SizeClasses};

/// A [`GlobalAlloc`] over the [`SizeClasses`] of a zone, which it is given at run time.
///
/// It never waits: it allocates as [`Gfp::ATOMIC`] does, and code in a
/// [memalloc scope](crate::Zone::memalloc) goes on from the reserve when everybody else gets a null
/// pointer. `Box`, `Vec` and the rest of `alloc` so obey M1 to M4 without knowing of it: what lies in
/// reserve memory goes to the entitled alone, and back to the reserve whoever frees it.
///
/// Before [`init`](Heap::init) every allocation fails.
///
/// ```no_run
/// use mempool::{Buddy, FrameEntry, Heap, SingleTask, Watermarks, Zone};
///
/// #[global_allocator]
/// static HEAP: Heap = Heap::new();
///
/// static TASK: SingleTask = SingleTask::new();
///
/// fn boot(memory: &'static mut [u8], table: &'static mut [FrameEntry]) {
///     // Where these live for ever: a `static_cell`, or a stack frame that never returns.
/// #   fn for_ever<T>(_: T) -> &'static T { unimplemented!() }
///     let source: &'static Buddy = for_ever(Buddy::new(memory, table).unwrap());
///     let marks = Watermarks { min: 16, low: 32, high: 64 };
///     let zone: &'static Zone = for_ever(Zone::new(source, &TASK, marks).unwrap());
///     HEAP.init(zone).unwrap();
///     let greeting = Box::new("memory at last");
/// }
/// # fn main() {}
/// ```
///
/// # Costs
///
/// An object in O(log classes); whole frames in what the zone takes. Freed bytes are zeroed, since
/// the frames that they return to must hold no uninitialised ones; nothing of their owner is left
/// for the next. To free whole frames takes O(n / 16) while n blocks of just so many frames lie in
/// reserve memory.
///
/// An alignment of more than a frame needs a source whose runs are aligned to it, as those of a
/// [`Buddy`](crate::Buddy) are over memory that is; otherwise such allocations fail. Making a block
/// smaller may fail as well: it then changes its class.
pub struct Heap<R: RawMutex + Send + Sync + 'static = CriticalSection> {
    /// Set once, when `inner` was written.
    ready: AtomicBool,
    inner: UnsafeCell<MaybeUninit<Inner<R>>>,
    /// Held to write `inner`.
    init: Mutex<R, ()>,
}

struct Inner<R: RawMutex> {
    classes: SizeClasses<'static, R>,
    runs: Mutex<R, Runs>,
}

// SAFETY: `inner` is written once, under the lock, before `ready` is set; after that it is shared
// only, and it is `Sync` itself (asserted below).
unsafe impl<R: RawMutex + Send + Sync> Sync for Heap<R> {}

const fn is_sync<T: Sync>() {}
const _: () = is_sync::<Inner<CriticalSection>>();

impl<R: RawMutex + Send + Sync> Heap<R> {
    /// A heap without memory.
    #[must_use]
    pub const fn new() -> Self {
        Heap {
            ready: AtomicBool::new(false),
            inner: UnsafeCell::new(MaybeUninit::uninit()),
            init: Mutex::new(()),
        }
    }

    /// Gives the heap the memory of `zone`, for good. Takes one frame of it for a moment.
    ///
    /// # Errors
    ///
    /// [`HeapError`] if it has memory already, or if the zone's frames are not aligned to
    /// [`FRAME_SIZE`](crate::FRAME_SIZE). The heap is what it was.
    pub fn init(&self, zone: &'static dyn FrameAllocator) -> Result<(), HeapError> {
        let classes = SizeClasses::new(zone);
        // Should no frame be free now, every slab is asked again when it is made.
        let quiet = Gfp::ATOMIC | Gfp::NOMEMALLOC | Gfp::NOWARN;
        match classes.take(Layout::new::<u64>(), quiet) {
            Err(AllocError::Misaligned) => return Err(HeapError::Misaligned),
            probe => drop(probe),
        }
        classes.shrink();
        let _alone = self.init.lock();
        if self.ready.load(Ordering::Relaxed) {
            return Err(HeapError::AlreadyInitialised);
        }
        let runs = Mutex::new(Runs::EMPTY);
        // SAFETY: under the lock, and nobody reads it before `ready` is set.
        unsafe { (*self.inner.get()).write(Inner { classes, runs }) };
        self.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// The size classes below, for their counters and to [shrink](SizeClasses::shrink) them; none
    /// before [`init`](Heap::init).
    #[must_use]
    pub fn classes(&self) -> Option<&SizeClasses<'static, R>> {
        self.inner().map(|inner| &inner.classes)
    }

    fn inner(&self) -> Option<&Inner<R>> {
        self.ready.load(Ordering::Acquire).then(|| {
            // SAFETY: `ready` was set after the value was written, which happens once.
            unsafe { (*self.inner.get()).assume_init_ref() }
        })
    }
}

impl<R: RawMutex + Send + Sync> Default for Heap<R> {
    fn default() -> Self {
        Heap::new()
    }
}

impl<R: RawMutex + Send + Sync> Drop for Heap<R> {
    fn drop(&mut self) {
        if *self.ready.get_mut() {
            // SAFETY: written, and nobody can refer to it any more. Blocks that were not freed leak.
            unsafe { self.inner.get_mut().assume_init_drop() };
        }
    }
}

impl<R: RawMutex + Send + Sync> fmt::Debug for Heap<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heap")
            .field("classes", &self.classes())
            .finish_non_exhaustive()
    }
}

// SAFETY: blocks are objects or frames that their handles owned alone and gave up, of the size and
// alignment that `place` and `take` answer for; their place follows from the layout alone. Nothing
// unwinds: see `NoUnwind`.
unsafe impl<R: RawMutex + Send + Sync> GlobalAlloc for Heap<R> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let guard = NoUnwind;
        let block = self.inner().and_then(|inner| inner.alloc(layout));
        core::mem::forget(guard);
        block.map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let guard = NoUnwind;
        if let (Some(inner), Some(block)) = (self.inner(), NonNull::new(ptr)) {
            // SAFETY: the caller gives a block back that `alloc` made for that layout.
            unsafe { inner.dealloc(block, layout) };
        }
        core::mem::forget(guard);
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the new size, rounded up, is no more than `isize::MAX`.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        if place(new) == place(layout) {
            if let Some(cut) = layout.size().checked_sub(new_size) {
                // SAFETY: the last bytes of the block, which its owner gives up. `dealloc` will not
                // know of them.
                unsafe { ptr.add(new_size).write_bytes(0, cut) };
            }
            #[cfg(feature = "slab-debug")]
            // SAFETY: the caller owns the block, which has the first layout, and then the second.
            unsafe {
                self.mark_again(ptr, layout, new);
            }
            return ptr;
        }
        // SAFETY: a valid layout, and the caller promises that its size is not 0.
        let moved = unsafe { self.alloc(new) };
        if !moved.is_null() {
            let bytes = layout.size().min(new_size);
            // SAFETY: two blocks, both at least that long; the caller gives the old one up.
            unsafe {
                ptr::copy_nonoverlapping(ptr, moved, bytes);
                self.dealloc(ptr, layout);
            }
        }
        moved
    }
}

/// Bytes that their owner gives up. They may have been left uninitialised, and whoever owns the
/// memory next must not find them so.
///
/// # Safety
///
/// So many bytes from `block` on were the caller's.
unsafe fn zero(block: NonNull<u8>, size: usize) {
    // SAFETY: the caller's word.
    unsafe { block.write_bytes(0, size) };
}

/// A global allocator must not unwind: a panic while a panic unwinds aborts.
struct NoUnwind;

impl Drop for NoUnwind {
    fn drop(&mut self) {
        panic!("a panic in the heap");
    }
}

impl<R: RawMutex + Send + Sync> Inner<R> {
    fn alloc(&self, layout: Layout) -> Option<NonNull<u8>> {
        match self.classes.take(layout, Gfp::ATOMIC).ok()? {
            Memory::Object(buffer) => {
                let object = buffer.into_raw();
                let skip = object.align_offset(layout.align());
                // SAFETY: `place` left room for the alignment.
                let block = unsafe { object.add(skip) };
                #[cfg(feature = "slab-debug")]
                // SAFETY: as above, and the object is ours.
                unsafe {
                    slack::mark(block, layout);
                }
                Some(block)
            }
            Memory::Frames(frame) => self.keep(frame),
        }
    }

    /// # Safety
    ///
    /// `block` came from `alloc` of this heap with that place, and nobody uses it any more.
    unsafe fn dealloc(&self, block: NonNull<u8>, layout: Layout) {
        match place(layout) {
            Place::Object(class) => {
                let cache = self.classes.cache(class);
                let slab = block.as_ptr().addr() & !(FRAME_SIZE - 1);
                // Whoever owned the block may only have had the right to its own bytes: the slab is
                // reached by the right that `into_raw` exposed.
                let slab = NonNull::new(ptr::with_exposed_provenance_mut(slab))
                    .expect("a slab is not at address 0");
                let (shape, number) = cache.mark();
                // SAFETY: the slabs of a class lie in aligned frames, in which no block reaches
                // beyond the first: the frame's start is the slab of this object, which is ours.
                let object = unsafe { object_at(block, slab, shape, number) };
                #[cfg(feature = "slab-debug")]
                let object = object.and_then(|object| {
                    let object = cache.may_come_back(object)?;
                    // SAFETY: the object is ours.
                    unsafe { slack::check(block, layout.size(), class)? };
                    Ok(object)
                });
                if object.is_ok() {
                    // SAFETY: see `zero`.
                    unsafe { zero(block, layout.size()) };
                }
                cache.give_or_stop(object);
            }
            Place::Frames(order) => {
                // SAFETY: see `zero`; and as the caller promises.
                drop(unsafe {
                    zero(block, layout.size());
                    self.restore(block, order)
                });
            }
        }
    }

    /// Gives up the handle of `frame`, after a note if it could not be made again from the address.
    fn keep(&self, frame: Frame<'static>) -> Option<NonNull<u8>> {
        let start = frame.start();
        start.as_ptr().expose_provenance();
        let owner = *self.runs.lock().owner.get_or_insert(frame.owner());
        if !frame.from_reserve() && ptr::addr_eq(owner, frame.owner()) {
            core::mem::forget(frame);
            return Some(start);
        }
        let record = self.alloc(RECORD_LAYOUT)?.cast::<Record>();
        let mut runs = self.runs.lock();
        let bucket = Runs::bucket(start);
        let next = runs.records[bucket].replace(record);
        // SAFETY: a fresh block that is large enough and aligned for a record.
        unsafe { record.write(Record { frame, next }) };
        Some(start)
    }

    /// Makes the handle that was given up again.
    ///
    /// # Safety
    ///
    /// `start` came from `keep`, of a frame of that order, and nobody uses its memory any more.
    unsafe fn restore(&self, start: NonNull<u8>, order: u8) -> Frame<'static> {
        let mut runs = self.runs.lock();
        if let Some(record) = runs.unlink(start) {
            drop(runs);
            // SAFETY: it is on no list any more: it is read for the last time.
            let frame = unsafe { record.read() }.frame;
            // SAFETY: `keep` made the block, with that layout.
            unsafe { self.dealloc(record.cast(), RECORD_LAYOUT) };
            return frame;
        }
        let owner = runs.owner.expect("frames come from somebody");
        let start = NonNull::new(ptr::with_exposed_provenance_mut(start.as_ptr().addr()))
            .expect("it was not null");
        // SAFETY: without a record it is an ordinary frame of this owner, forgotten by `keep`.
        unsafe { Frame::from_raw(RawFrame::new(start, order), owner) }
    }
}

/// The whole frames that the heap gave out, as far as they must be known.
struct Runs {
    /// Of every frame without a record.
    owner: Option<&'static dyn FrameOwner>,
    /// Frames of the reserve, and of other owners, by their address.
    records: [Option<NonNull<Record>>; 16],
}

struct Record {
    frame: Frame<'static>,
    next: Option<NonNull<Record>>,
}

const RECORD_LAYOUT: Layout = match Layout::from_size_align(RECORD, 8) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};

const _: () = assert!(size_of::<Record>() <= RECORD && align_of::<Record>() <= 8);

// SAFETY: the records lead to blocks that this value owns, reached under `&mut self`.
unsafe impl Send for Runs {}

impl Runs {
    const EMPTY: Runs = Runs {
        owner: None,
        records: [None; 16],
    };

    const fn buckets() -> usize {
        Runs::EMPTY.records.len()
    }

    fn bucket(start: NonNull<u8>) -> usize {
        // Mixed: the numbers of frames that are aligned runs end in zeros.
        let number = (start.as_ptr().addr() / FRAME_SIZE) as u32;
        (number.wrapping_mul(0x9E37_79B1) >> 16) as usize % Runs::buckets()
    }

    /// Takes the record of the frame at `start` out, if it has one.
    fn unlink(&mut self, start: NonNull<u8>) -> Option<NonNull<Record>> {
        let mut link = &mut self.records[Runs::bucket(start)];
        loop {
            let record = (*link)?;
            // SAFETY: records on a list are alive, and `&mut self` makes us the only one in them.
            let entry = unsafe { &mut *record.as_ptr() };
            if entry.frame.start() == start {
                *link = entry.next;
                return Some(record);
            }
            link = &mut entry.next;
        }
    }
}

/// Why a heap cannot take the memory that it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum HeapError {
    /// It has memory already.
    AlreadyInitialised,
    /// The frames are not aligned to [`FRAME_SIZE`](crate::FRAME_SIZE).
    Misaligned,
}

impl fmt::Display for HeapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HeapError::AlreadyInitialised => "the heap has memory already",
            HeapError::Misaligned => "the zone's frames are not aligned to their size",
        })
    }
}

impl core::error::Error for HeapError {}

#[cfg(feature = "slab-debug")]
mod slack;
#[cfg(test)]
mod tests;
