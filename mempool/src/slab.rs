//! Caches of equal objects, and who may have which (M4).
//!
//! A slab inherits the tag of its frame. Objects of ordinary slabs go to anybody; objects of
//! reserve-derived slabs go to the entitled alone. The decision is made per slab and on every
//! allocation: there is no path around it. An entitled caller takes, in this order: an ordinary
//! object, a new ordinary slab, an ordinary object that another CPU has parked, an object of a
//! reserve-derived slab, a new slab from the reserve.

mod books;
mod error;
mod magazines;
mod typed;

use core::fmt;

use lock_api::{Mutex, RawMutex};

use books::{Books, Locked};
pub use error::CacheError;
pub use magazines::{CpuId, CpuMagazines, Magazines, NoMagazines, Parking};
pub use typed::Cache;

use crate::ablation::Mechanism;
use crate::budget::{objects_per_frame, stride};
use crate::counter::Gauge;
use crate::raw::{Fault, ObjectHome, Shape, SlabObject, Slabs};
use crate::{
    AllocError, Buffer, CriticalSection, FRAME_SIZE, FrameAllocator, Gfp, SLAB_HEADER,
    aligned_objects_per_slab,
};

/// A cache of byte buffers of one size, such as packet buffers.
///
/// Allocation and release are O(1), but for the making and the return of a slab. An empty
/// reserve-derived slab returns to the zone at once, so that the reserve is whole again when its
/// last object is; of ordinary slabs one may stay empty.
///
/// Its lock is taken by everybody who allocates and frees, so that it must exclude interrupts if they
/// do. Where several CPUs contend for it, give each [`Magazines`].
///
/// ```
/// use mempool::{Buddy, BufferCache, FrameEntry, Gfp, SingleTask, SizedCache, Watermarks, Zone};
///
/// let (mut memory, mut table) = (vec![0u8; 17 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 17]);
/// let source = <Buddy>::new(&mut memory, &mut table)?;
/// let task = SingleTask::new();
/// let zone = <Zone>::new(&source, &task, Watermarks::default())?;
///
/// let skbs = <SizedCache>::new("skb", &zone, 2016, 0)?;
/// let mut skb = skbs.alloc(Gfp::ATOMIC)?;
/// skb[..4].copy_from_slice(b"data");
/// assert_eq!((skb.len(), skb.from_reserve()), (2016, false));
/// # drop(skb);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
///
/// Whoever uses memory that is not theirs is not waited for. When an object comes back to a cache that
/// it is not from, or twice in a row, which only unsafe code can do, the cache panics with its own
/// name and the object's index. With the feature `slab-debug` it does so as well when an object is
/// freed twice at any time, when somebody wrote to it after it was freed, or past its end: that is
/// found when the object is next allocated or freed. What the panic is about goes to nobody any more.
pub struct SizedCache<'z, R: RawMutex = CriticalSection, M: Parking = NoMagazines> {
    name: &'static str,
    zone: &'z dyn FrameAllocator,
    order: u8,
    /// Of every slab's frame; a source promises 64.
    frame_align: usize,
    shape: Shape,
    number: u32,
    parking: M,
    books: Books,
    slabs: Mutex<R, Slabs<'z>>,
}

/// A snapshot of a cache's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CacheStats {
    /// Objects handed out.
    pub in_use: usize,
    /// The most of those at once, parked ones included.
    pub peak: usize,
    /// Objects that lie in the [`Magazines`] of some CPU, for the next who comes. What lies in
    /// magazines that are in use at this very moment counts as handed out.
    pub parked: usize,
    /// Objects handed out that lie in reserve memory.
    pub reserve_objects: usize,
    /// Slabs of ordinary memory.
    pub slabs: usize,
    /// Slabs of reserve memory.
    pub reserve_slabs: usize,
}

impl<'z, R: RawMutex> SizedCache<'z, R> {
    /// A cache of objects of `object_size` bytes in slabs of `1 << order` frames of `zone`.
    /// Objects start at multiples of `object_size`, but of a pointer's size at least, behind a header of
    /// [`SLAB_HEADER`] bytes (with the feature `slab-debug` [`SLAB_RED_ZONE`](crate::SLAB_RED_ZONE)
    /// bytes lie in between).
    ///
    /// # Errors
    ///
    /// [`CacheError`] if `object_size` is 0, or if no object would fit into a slab.
    pub fn new(
        name: &'static str,
        zone: &'z dyn FrameAllocator,
        object_size: usize,
        order: u8,
    ) -> Result<Self, CacheError> {
        Self::aligned(name, zone, object_size, order, 1)
    }

    /// As [`new`](Self::new), with objects that start at multiples of `align`: that of a cache line,
    /// so that no two CPUs write to the same, or of a page, for a device.
    ///
    /// A slab has [`aligned_objects_per_slab`] of them. An alignment of more than 64 needs a source
    /// whose frames are aligned so, as those of [`Buddy`](crate::Buddy) are to [`FRAME_SIZE`]; of
    /// another no object can be had ([`AllocError::Misaligned`]).
    ///
    /// ```
    /// # use mempool::{Buddy, BufferCache, FrameEntry, Gfp, SingleTask, SizedCache, Watermarks, Zone};
    /// # let (mut memory, mut table) = (vec![0u8; 17 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 17]);
    /// # let source = <Buddy>::new(&mut memory, &mut table)?;
    /// # let task = SingleTask::new();
    /// # let zone = <Zone>::new(&source, &task, Watermarks::default())?;
    /// let rings = <SizedCache>::aligned("descriptors", &zone, 100, 0, 256)?;
    /// let ring = rings.alloc(Gfp::KERNEL)?;
    /// assert_eq!((ring.len(), ring.as_ptr() as usize % 256), (100, 0));
    /// # drop(ring);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`CacheError`] if `align` is not a power of two, if `object_size` is 0, or if no object would fit
    /// into a slab.
    pub fn aligned(
        name: &'static str,
        zone: &'z dyn FrameAllocator,
        object_size: usize,
        order: u8,
        align: usize,
    ) -> Result<Self, CacheError> {
        if !align.is_power_of_two() {
            return Err(CacheError::NotAPowerOfTwo);
        }
        let per_slab = aligned_objects_per_slab(object_size, align, order);
        let per_slab = counted(object_size, per_slab)?;
        let stride = stride(object_size, align).ok_or(CacheError::ObjectTooLarge)?;
        let first = SLAB_HEADER.next_multiple_of(align);
        let shape = Shape::new(first, object_size, stride, per_slab);
        Ok(Self::placed(name, zone, order, align, shape))
    }

    /// A cache whose slabs are single frames, aligned to [`FRAME_SIZE`], and whose objects end where
    /// the frame ends: they are aligned to the largest power of two that divides their size.
    pub(crate) fn in_aligned_frames(
        name: &'static str,
        zone: &'z dyn FrameAllocator,
        object_size: usize,
    ) -> Result<Self, CacheError> {
        let per_slab = counted(object_size, objects_per_frame(object_size))?;
        let first = FRAME_SIZE - per_slab as usize * object_size;
        let shape = Shape::new(first, object_size, object_size, per_slab);
        Ok(Self::placed(name, zone, 0, FRAME_SIZE, shape))
    }

    fn placed(
        name: &'static str,
        zone: &'z dyn FrameAllocator,
        order: u8,
        frame_align: usize,
        shape: Shape,
    ) -> Self {
        let slabs = Slabs::new(shape);
        SizedCache {
            name,
            zone,
            order,
            frame_align,
            shape,
            number: slabs.number(),
            parking: NoMagazines,
            books: Books::new(),
            slabs: Mutex::new(slabs),
        }
    }

    /// This cache, with magazines in front of its lock. What it was told to ablate is forgotten.
    ///
    /// ```
    /// use mempool::{
    ///     Buddy, BufferCache, CpuId, CpuMagazines, FrameEntry, Gfp, Magazines, SingleTask,
    ///     SizedCache, Watermarks, Zone,
    /// };
    ///
    /// struct ThisCpu;
    ///
    /// impl CpuId for ThisCpu {
    ///     fn cpu(&self) -> usize {
    ///         0 // a kernel reads a register
    ///     }
    /// }
    ///
    /// # let (mut memory, mut table) = (vec![0u8; 17 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 17]);
    /// # let source = <Buddy>::new(&mut memory, &mut table)?;
    /// # let task = SingleTask::new();
    /// # let zone = <Zone>::new(&source, &task, Watermarks::default())?;
    /// let mut slots: [CpuMagazines<8>; 2] = Default::default();
    /// let skbs = <SizedCache>::new("skb", &zone, 2016, 0)?
    ///     .with_magazines(Magazines::new(ThisCpu, &mut slots));
    /// drop(skbs.alloc(Gfp::ATOMIC)?);
    /// assert_eq!((skbs.stats().in_use, skbs.stats().parked), (0, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn with_magazines<M: Parking>(self, magazines: M) -> SizedCache<'z, R, M> {
        let slabs = Slabs::new(self.shape);
        SizedCache {
            name: self.name,
            zone: self.zone,
            order: self.order,
            frame_align: self.frame_align,
            shape: self.shape,
            number: slabs.number(),
            parking: magazines,
            books: Books::new(),
            slabs: Mutex::new(slabs),
        }
    }
}

/// `per_slab` as an index in a slab.
fn counted(object_size: usize, per_slab: usize) -> Result<u32, CacheError> {
    if object_size == 0 {
        return Err(CacheError::ObjectTooSmall);
    }
    match u32::try_from(per_slab) {
        Ok(0) => Err(CacheError::ObjectTooLarge),
        Ok(n) => Ok(n),
        Err(_) => Err(CacheError::ObjectTooSmall),
    }
}

impl<'z, R: RawMutex, M: Parking> SizedCache<'z, R, M> {
    #[inline]
    fn lock(&self) -> Locked<'_, 'z, R> {
        Locked::new(self.slabs.lock(), &self.books)
    }

    /// The name given when it was made.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Gives back to the zone what nobody uses: empties the magazines of all CPUs, and then the slab
    /// that is kept empty, if any. Returns its frames. Magazines that are in use at this moment are
    /// passed over. O(parked objects + partial slabs).
    pub fn shrink(&self) -> usize {
        let parked = self.drain() << self.order;
        // Freed with the lock released.
        let frames = core::iter::from_fn(|| self.lock().shrink());
        parked + frames.map(|frame| 1 << frame.order()).sum::<usize>()
    }

    /// A snapshot of the counters. O(CPUs), without the lock of the slabs, and of magazines only where
    /// it is free: whoever holds them, this very thread even, is not waited for. Each number is right
    /// by itself.
    pub fn stats(&self) -> CacheStats {
        let parked = self.parking.parked();
        let [slabs, reserve_slabs] = self.books.slabs.each_ref().map(Gauge::get);
        CacheStats {
            in_use: self.books.out.get().saturating_sub(parked),
            peak: self.books.peak.get(),
            parked,
            reserve_objects: self.books.out_of_reserve.get(),
            slabs,
            reserve_slabs,
        }
    }

    /// Switches a mechanism of this cache off, for good. A mechanism of another object changes
    /// nothing.
    #[cfg(feature = "ablation")]
    pub fn ablate(&self, mechanism: Mechanism) {
        self.lock().ablation().ablate(mechanism);
        self.parking.ablate(mechanism);
    }

    /// Takes an object back that was known by its address alone, or stops.
    pub(crate) fn give_or_stop(&self, object: Result<SlabObject, Fault>) {
        self.report(object.and_then(|mut object| {
            object.freed(&self.shape)?;
            let mut slabs = self.lock();
            let object = slabs.may_go_back(object)?;
            slabs.push(object);
            Ok(())
        }));
    }

    /// Whether such an object may come back.
    #[cfg(feature = "slab-debug")]
    pub(crate) fn may_come_back(&self, object: SlabObject) -> Result<SlabObject, Fault> {
        self.lock().may_go_back(object)
    }

    /// What its slabs look like, and the number in their headers.
    pub(crate) fn mark(&self) -> (&Shape, u32) {
        (&self.shape, self.number)
    }

    /// Gives what all CPUs have parked back to the slabs, a CPU at a time. Returns how many slabs that
    /// emptied went back to the zone.
    fn drain(&self) -> usize {
        let (mut result, mut released) = (Ok(()), 0);
        for cpu in 0.. {
            let mut slabs = self.lock();
            let [before, _] = slabs.count();
            let exists = self.parking.drain(cpu, &mut |object| {
                result = result.and(give(&mut slabs, object));
            });
            released += before - slabs.count()[0];
            if !exists {
                break;
            }
        }
        self.report(result);
        released
    }

    /// Stops at a fault; with no lock held.
    #[inline]
    fn report(&self, result: Result<(), Fault>) {
        if let Err(fault) = result {
            fault.report(self.name, self.shape.size());
        }
    }
}

impl<R: RawMutex + Send + Sync, M: Parking> SizedCache<'_, R, M> {
    /// Takes an object of the magazines, or of the slabs.
    #[inline]
    fn take(&self, gfp: Gfp) -> Result<SlabObject, AllocError> {
        let mut object = match self.parking.take() {
            Some(object) => object,
            None if M::PARKS => self.take_after_all(gfp)?,
            None => self.take_from_slabs(gfp)?,
        };
        self.report(object.taken(&self.shape));
        Ok(object)
    }

    /// Nothing is parked.
    #[cold]
    fn take_after_all(&self, gfp: Gfp) -> Result<SlabObject, AllocError> {
        self.take_from_slabs(gfp)
    }

    #[inline]
    fn take_from_slabs(&self, gfp: Gfp) -> Result<SlabObject, AllocError> {
        {
            let mut slabs = self.lock();
            if slabs.ablation().off(Mechanism::SlabAdmission)
                && let Some(object) = slabs.pop(true)
            {
                return Ok(object);
            }
            if let Some(object) = slabs.pop(false) {
                self.parking.load(&mut || slabs.pop(false));
                return Ok(object);
            }
        }
        self.make(gfp.without(Gfp::ZERO))
    }

    /// No ordinary object is free.
    #[cold]
    fn make(&self, gfp: Gfp) -> Result<SlabObject, AllocError> {
        let (entitled, ordinary) = (self.zone.entitled(gfp), gfp | Gfp::NOMEMALLOC);
        if M::PARKS {
            match self.grow(ordinary | Gfp::NORECLAIM | Gfp::NOWARN) {
                Err(AllocError::Exhausted) => {}
                done => return done,
            }
            // What is parked comes before reclaim, and before the reserve is needed.
            if !self.lock().ablation().off(Mechanism::MagazineDrain) {
                self.drain();
            }
            if let Some(object) = self.lock().pop(false) {
                return Ok(object);
            }
        }
        if !M::PARKS || !entitled {
            // Not yet a failure, if there is the reserve to turn to.
            let quiet = if entitled { Gfp::NOWARN } else { Gfp::NONE };
            match self.grow(ordinary | quiet) {
                Err(AllocError::Exhausted) if entitled => {}
                done => return done,
            }
        }
        if let Some(object) = self.lock().pop(true) {
            return Ok(object);
        }
        self.grow(gfp).or_else(|error| {
            // Somebody else may have made the slab for which no frame is left.
            let mut slabs = self.lock();
            slabs.pop(false).or_else(|| slabs.pop(true)).ok_or(error)
        })
    }

    /// Makes a slab and takes an object of it: nobody can come in between.
    fn grow(&self, gfp: Gfp) -> Result<SlabObject, AllocError> {
        let frame = self.zone.alloc(self.order, gfp)?;
        if !frame.is_aligned_to(self.frame_align) {
            return Err(AllocError::Misaligned);
        }
        let tag = frame.from_reserve();
        let mut slabs = self.lock();
        slabs.grow(frame);
        Ok(slabs.pop(tag).expect("a new slab has a free object"))
    }

    /// Takes an object back into its slab.
    #[inline]
    fn give_to_slab(&self, object: SlabObject) {
        let result = give(&mut self.lock(), object);
        self.report(result);
    }

    /// Takes an object back that was not parked, after what a full magazine holds.
    #[cold]
    fn give_after_all(&self, object: SlabObject) {
        let mut result = Ok(());
        {
            let mut slabs = self.lock();
            if !object.reserve_derived() {
                self.parking
                    .spill(&mut |object| result = result.and(give(&mut slabs, object)));
            }
            result = result.and(give(&mut slabs, object));
        }
        self.report(result);
    }
}

/// What was a handle goes back to where it came from, once: nothing need be looked at, but to find
/// other people's faults.
#[inline]
fn give<R: RawMutex>(slabs: &mut Locked<'_, '_, R>, object: SlabObject) -> Result<(), Fault> {
    let object = if cfg!(feature = "slab-debug") {
        slabs.may_go_back(object)?
    } else {
        object
    };
    slabs.push(object);
    Ok(())
}

/// Whoever hands out buffers of one size, without the cache's type parameters.
pub trait BufferCache: Sync {
    /// Takes an object. Its bytes are whatever the last owner left; [`Gfp::ZERO`] is ignored.
    ///
    /// # Errors
    ///
    /// See [`Zone::alloc`](crate::Zone::alloc).
    fn alloc(&self, gfp: Gfp) -> Result<Buffer<'_>, AllocError>;

    /// Bytes in an object.
    fn object_size(&self) -> usize;
}

impl<R: RawMutex + Send + Sync, M: Parking> BufferCache for SizedCache<'_, R, M> {
    #[inline]
    fn alloc(&self, gfp: Gfp) -> Result<Buffer<'_>, AllocError> {
        let object = self.take(gfp)?;
        Ok(Buffer::new(object, &self.shape, self))
    }

    fn object_size(&self) -> usize {
        self.shape.size()
    }
}

impl<R: RawMutex + Send + Sync, M: Parking> ObjectHome for SizedCache<'_, R, M> {
    fn give(&self, mut object: SlabObject) {
        self.report(object.freed(&self.shape));
        // M4: what lies in reserve memory is not parked, whoever frees it.
        match self.parking.park(object) {
            Ok(()) => {}
            Err(object) if M::PARKS => self.give_after_all(object),
            Err(object) => self.give_to_slab(object),
        }
    }
}

impl<R: RawMutex, M: Parking> Drop for SizedCache<'_, R, M> {
    fn drop(&mut self) {
        if M::PARKS {
            // What is parked is nobody's: its slabs go with the others.
            self.drain();
        }
    }
}

impl<R: RawMutex, M: Parking> fmt::Debug for SizedCache<'_, R, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SizedCache")
            .field("name", &self.name)
            .field("object_size", &self.shape.size())
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
