//! Blocks of any size: one cache for each class of sizes, whole frames beyond (`kmalloc`).
//!
//! The classes are a constant, so that the worst case is one too: what a set of blocks can hold of
//! frames follows from their bytes alone ([`SizeClasses::budget`]).

use core::alloc::Layout;
use core::fmt;
use core::ops::{Deref, DerefMut};

use lock_api::RawMutex;

#[cfg(feature = "ablation")]
use crate::Mechanism;
use crate::budget::objects_per_frame;
use crate::{
    AllocError, Budget, Buffer, BufferCache, CacheStats, CriticalSection, FRAME_SIZE, Frame,
    FrameAllocator, Gfp, SLAB_HEADER, SizedCache,
};

/// A cache for each class of sizes over one zone; larger blocks are whole frames.
///
/// Up to an eighth of a frame there are two classes to a power of two (with frames of 4096 bytes: 8,
/// 16, 24, 32, 48, 64, 96 … 512), then a sixth, a quarter, a third, a half and the whole of what a
/// frame holds beside its header (672, 1008, 1344, 2016, 4032). So of an object for 17 bytes or more,
/// up to half a frame, at most a third is left over (in frames of other sizes up to 16 bytes more).
/// Every slab is one frame, which a reserve can guarantee.
///
/// Each class decides for each slab who may have its objects (M4), as a [`SizedCache`] does: the
/// entitled alone get what lies in reserve memory, and what they took goes back there.
///
/// The frames must be aligned to [`FRAME_SIZE`], as those of [`Buddy`](crate::Buddy) are; of a
/// source whose frames are not, no object can be had.
///
/// ```
/// use mempool::{Buddy, FrameEntry, Gfp, SingleTask, SizeClasses, Watermarks, Zone};
///
/// let (mut memory, mut table) = (vec![0u8; 65 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 65]);
/// let source = <Buddy>::new(&mut memory, &mut table)?;
/// let task = SingleTask::new();
/// let zone = <Zone>::new(&source, &task, Watermarks::default())?;
///
/// let sizes = <SizeClasses>::new(&zone);
/// let mut name = sizes.alloc(5, Gfp::KERNEL)?;
/// name.copy_from_slice(b"eth0\0");
/// let ring = sizes.alloc(10_000, Gfp::KERNEL | Gfp::ZERO)?;
/// assert_eq!((name.len(), ring.len(), ring[9_999]), (5, 10_000, 0));
///
/// // What they can hold at most, known when this was compiled.
/// const BOUND: mempool::Budget = SizeClasses::budget(5 + 10_000);
/// let stats = zone.stats();
/// assert!(stats.total - stats.free <= BOUND.frames());
/// # drop((name, ring));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SizeClasses<'z, R: RawMutex = CriticalSection> {
    zone: &'z dyn FrameAllocator,
    caches: [SizedCache<'z, R>; COUNT],
}

impl SizeClasses<'_> {
    /// How many classes there are.
    pub const COUNT: usize = COUNT;

    /// Bytes in an object of each class, in ascending order. Objects are aligned to the largest
    /// power of two that divides their size.
    pub const SIZES: [usize; COUNT] = SIZES;

    /// The largest size that has a class.
    pub const LARGEST: usize = SIZES[COUNT - 1];

    /// The class of blocks of `bytes`, an index into [`SIZES`](Self::SIZES); none if they are whole
    /// frames. O(log classes).
    ///
    /// ```
    /// use mempool::SizeClasses;
    ///
    /// assert_eq!(SizeClasses::class_of(100).map(|i| SizeClasses::SIZES[i]), Some(128));
    /// assert_eq!(SizeClasses::class_of(SizeClasses::LARGEST + 1), None);
    /// ```
    #[must_use]
    pub const fn class_of(bytes: usize) -> Option<usize> {
        class_of(bytes)
    }

    /// The bytes that a block counts for in a [`budget`](Self::budget): its size, but at least half
    /// of its share of the frames that it lies in.
    ///
    /// That is more than the size in four cases only, in which no class can help: for a few bytes
    /// (1 to 4 count as 5 in frames of 4096 bytes); where a frame is too small for two beside its
    /// header (2017 to 2047 count as 2048); for a little more than a run of frames, which a
    /// [`Heap`](crate::Heap) may have to note (4097 to 4159 count as 4160); and where an alignment of
    /// more than 16 asks for more than the size.
    #[must_use]
    pub const fn counted(layout: Layout) -> usize {
        let share = match place(layout) {
            Place::Object(class) => FRAME_SIZE.div_ceil(2 * per_slab(class)),
            Place::Frames(order) => (FRAME_SIZE << order) / 2 + RECORD,
        };
        if layout.size() > share {
            layout.size()
        } else {
            share
        }
    }

    /// The worst case of blocks that together count for `bytes` (see [`counted`](Self::counted)),
    /// whatever their sizes: `ceil(2 * bytes / FRAME_SIZE)`, and one slab for each class.
    ///
    /// It holds for each kind of memory apart: for the frames of the reserve, and for all others.
    /// Where blocks come and go, `bytes` is the sum of what each class holds at its own worst time:
    /// a slab in which one object is left is a frame that no other class can have. Two CPUs that
    /// miss an object of a class at the same time make a slab each: add [`Budget::parked`] for all
    /// but one of the CPUs.
    ///
    /// # Panics
    ///
    /// If the result is beyond any memory.
    #[must_use]
    pub const fn budget(bytes: usize) -> Budget {
        Budget::bytes(bytes, COUNT)
    }

    /// The worst case of `count` blocks of one layout, to the frame: objects of one class, or runs.
    ///
    /// ```
    /// use core::alloc::Layout;
    /// use mempool::{Budget, FRAME_SIZE, SizeClasses};
    ///
    /// const PAGES: Layout = Layout::new::<[u8; 2 * FRAME_SIZE]>();
    /// // Pairs of frames, and what a `Heap` notes about those of the reserve.
    /// const RING: Budget = SizeClasses::budget_of(4, PAGES);
    /// assert_eq!(RING, Budget::runs(4, 1).plus(Budget::from_frames(1)));
    /// ```
    ///
    /// # Panics
    ///
    /// If the result is beyond any memory.
    #[must_use]
    pub const fn budget_of(count: usize, layout: Layout) -> Budget {
        match place(layout) {
            Place::Object(class) => Budget::slabs(count, per_slab(class), 0),
            Place::Frames(order) => {
                let Some(record) = class_of(RECORD) else {
                    unreachable!()
                };
                Budget::runs(count, order).plus(Budget::slabs(count, per_slab(record), 0))
            }
        }
    }
}

impl<'z, R: RawMutex> SizeClasses<'z, R> {
    /// A cache for each class, all of them empty.
    #[must_use]
    pub fn new(zone: &'z dyn FrameAllocator) -> Self {
        SizeClasses {
            zone,
            caches: SIZES.map(|size| {
                SizedCache::in_aligned_frames("size class", zone, size)
                    .expect("at least one object of each class fits into a frame")
            }),
        }
    }

    /// A snapshot of the counters of a class.
    ///
    /// # Panics
    ///
    /// If there is no such class.
    #[must_use]
    pub fn stats(&self, class: usize) -> CacheStats {
        self.caches[class].stats()
    }

    /// Gives the slabs that are kept empty, at most one of a class, back to the zone; returns their
    /// frames.
    pub fn shrink(&self) -> usize {
        self.caches.iter().map(SizedCache::shrink).sum()
    }

    /// See [`SizedCache::ablate`]; for every class.
    #[cfg(feature = "ablation")]
    pub fn ablate(&self, mechanism: Mechanism) {
        self.caches.iter().for_each(|cache| cache.ablate(mechanism));
    }

    pub(crate) fn cache(&self, class: usize) -> &SizedCache<'z, R> {
        &self.caches[class]
    }
}

impl<'z, R: RawMutex + Send + Sync> SizeClasses<'z, R> {
    /// Takes a block of `bytes`: an object, or whole frames. What it holds is whatever the last owner
    /// left, unless [`Gfp::ZERO`] is set. An object in O(log classes), but for the making of a slab.
    ///
    /// # Errors
    ///
    /// See [`Zone::alloc`](crate::Zone::alloc); [`AllocError::Misaligned`] if the frames are not
    /// aligned to [`FRAME_SIZE`].
    pub fn alloc(&self, bytes: usize, gfp: Gfp) -> Result<Block<'_>, AllocError> {
        let layout = Layout::from_size_align(bytes, 1).map_err(|_| AllocError::BadOrder)?;
        let memory = self.take(layout, gfp.without(Gfp::ZERO))?;
        let mut block = Block { memory, bytes };
        #[cfg(feature = "slab-debug")]
        if let Memory::Object(buffer) = &mut block.memory {
            crate::raw::mark_slack(&mut buffer[bytes..]);
        }
        if gfp.contains(Gfp::ZERO) {
            block.fill(0);
        }
        Ok(block)
    }

    /// Takes memory of that layout, which begins in it at the first address that is aligned so.
    pub(crate) fn take(&self, layout: Layout, gfp: Gfp) -> Result<Memory<'_, 'z>, AllocError> {
        match place(layout) {
            Place::Object(class) => self.caches[class].alloc(gfp).map(Memory::Object),
            Place::Frames(order) => {
                let frame = self.zone.alloc(order, gfp)?;
                // The zone may be somebody else's, and what follows relies on it.
                if frame.order() != order {
                    return Err(AllocError::BadOrder);
                }
                if !frame.is_aligned_to(layout.align()) {
                    return Err(AllocError::Misaligned);
                }
                Ok(Memory::Frames(frame))
            }
        }
    }
}

impl<R: RawMutex> fmt::Debug for SizeClasses<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SizeClasses")
            .field("sizes", &SIZES)
            .finish_non_exhaustive()
    }
}

/// An owned block of [`SizeClasses`]: bytes, given back on drop.
#[derive(Debug)]
pub struct Block<'c> {
    memory: Memory<'c, 'c>,
    bytes: usize,
}

/// Where a block lies, and to whom it goes back: a cache, or the zone.
#[derive(Debug)]
pub(crate) enum Memory<'c, 'z> {
    Object(Buffer<'c>),
    Frames(Frame<'z>),
}

impl Block<'_> {
    /// Whether the block lies in reserve memory: only the entitled get such a one (M4).
    #[must_use]
    pub fn from_reserve(&self) -> bool {
        match &self.memory {
            Memory::Object(buffer) => buffer.from_reserve(),
            Memory::Frames(frame) => frame.from_reserve(),
        }
    }
}

/// What a block leaves of its object is a red zone.
#[cfg(feature = "slab-debug")]
impl Drop for Block<'_> {
    fn drop(&mut self) {
        if let Memory::Object(buffer) = &self.memory
            && let Some(at) = crate::raw::overwritten(&buffer[self.bytes..])
        {
            let class = class_of(buffer.len()).expect("an object is as large as its class");
            let fault = crate::raw::Fault::WrittenPastEnd {
                index: index_in_frame(buffer.as_ptr().addr(), class),
                byte: self.bytes + at,
            };
            fault.report("size class", buffer.len());
        }
    }
}

impl Deref for Block<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let memory: &[u8] = match &self.memory {
            Memory::Object(buffer) => buffer,
            Memory::Frames(frame) => frame,
        };
        &memory[..self.bytes]
    }
}

impl DerefMut for Block<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let memory: &mut [u8] = match &mut self.memory {
            Memory::Object(buffer) => buffer,
            Memory::Frames(frame) => frame,
        };
        &mut memory[..self.bytes]
    }
}

/// Where blocks of a layout lie; the same whenever the layout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Objects of a class.
    Object(usize),
    /// Runs of an order.
    Frames(u8),
}

/// Bytes that a [`Heap`](crate::Heap) may need besides, for each run of frames.
pub(crate) const RECORD: usize = 64;

pub(crate) const fn place(layout: Layout) -> Place {
    let (size, align) = (layout.size(), layout.align());
    if let Some(mut class) = class_of(size) {
        while class + 1 < COUNT {
            if SIZES[class].is_multiple_of(align) {
                return Place::Object(class);
            }
            class += 1;
        }
        // The last class has one object to a slab, and the block need not begin where that does.
        let first = if align > SLAB_HEADER {
            align
        } else {
            SLAB_HEADER
        };
        if first + size <= FRAME_SIZE {
            return Place::Object(class);
        }
    }
    let bytes = if size > align { size } else { align };
    let frames = bytes.div_ceil(FRAME_SIZE).next_power_of_two();
    Place::Frames(frames.trailing_zeros() as u8)
}

const fn class_of(bytes: usize) -> Option<usize> {
    let (mut from, mut to) = (0, COUNT);
    while from < to {
        let middle = from.midpoint(to);
        if SIZES[middle] < bytes {
            from = middle + 1;
        } else {
            to = middle;
        }
    }
    if from < COUNT { Some(from) } else { None }
}

const fn per_slab(class: usize) -> usize {
    objects_per_frame(SIZES[class])
}

/// The index of the object at that address in the slab of its class.
#[cfg(feature = "slab-debug")]
pub(crate) fn index_in_frame(address: usize, class: usize) -> u32 {
    let to_end = FRAME_SIZE - address % FRAME_SIZE;
    (per_slab(class) - to_end.div_ceil(SIZES[class])) as u32
}

const COUNT: usize = ladder().1;

const SIZES: [usize; COUNT] = {
    let (all, mut sizes, mut i) = (ladder().0, [0; COUNT], 0);
    while i < COUNT {
        sizes[i] = all[i];
        i += 1;
    }
    sizes
};

/// The classes, and how many they are. One more is one more frame in every budget, so there are no
/// more than it takes to keep what is left over below a third, and below half of every slab.
const fn ladder() -> ([usize; 40], usize) {
    let (mut sizes, mut n) = ([0; 40], 2);
    (sizes[0], sizes[1]) = (8, 16);
    let mut power = 32;
    while power <= FRAME_SIZE / 8 {
        (sizes[n], sizes[n + 1]) = (power / 4 * 3, power);
        n += 2;
        power *= 2;
    }
    // Powers of two would waste a share of the frame here: the header leaves room for three
    // quarters of a frame, not for four.
    let (parts, mut i) = ([6, 4, 3, 2, 1], 0);
    while i < parts.len() {
        let size = (FRAME_SIZE - SLAB_HEADER) / parts[i] / 16 * 16;
        if size > sizes[n - 1] {
            sizes[n] = size;
            n += 1;
        }
        i += 1;
    }
    (sizes, n)
}

#[cfg(test)]
mod tests;
