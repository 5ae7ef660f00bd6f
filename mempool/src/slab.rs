//! Caches of equal objects, and who may have which (M4).
//!
//! A slab inherits the tag of its frame. Objects of ordinary slabs go to anybody; objects of
//! reserve-derived slabs go to the entitled alone. The decision is made per slab and on every
//! allocation: there is no path around it. An entitled caller takes, in this order: an ordinary
//! object, a new ordinary slab, an object of a reserve-derived slab, a new slab from the reserve.

use core::fmt;
use core::marker::PhantomData;
use core::mem::{align_of, size_of};

use lock_api::{Mutex, RawMutex};

use crate::ablation::Mechanism;
use crate::raw::{ObjectHome, Slabs};
use crate::{
    AllocError, Buffer, CriticalSection, FRAME_SIZE, FrameAllocator, Gfp, Object, SLAB_HEADER,
    objects_per_slab,
};

/// A cache of byte buffers of one size, such as packet buffers.
///
/// Allocation and release are O(1), but for the making and the return of a slab. An empty
/// reserve-derived slab returns to the zone at once, so that the reserve is whole again when its
/// last object is; of ordinary slabs one may stay empty.
///
/// ```
/// use mempool::{Buddy, BufferCache, FrameEntry, Gfp, SingleTask, SizedCache, Watermarks, Zone};
///
/// let (mut memory, mut table) = (vec![0u8; 17 * 4096], [FrameEntry::EMPTY; 17]);
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
pub struct SizedCache<'z, R = CriticalSection> {
    name: &'static str,
    zone: &'z dyn FrameAllocator,
    object_size: usize,
    order: u8,
    in_aligned_frames: bool,
    state: Mutex<R, State<'z>>,
}

struct State<'z> {
    slabs: Slabs<'z>,
    in_use: usize,
    peak: usize,
    reserve_objects: usize,
}

/// A snapshot of a cache's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CacheStats {
    /// Objects handed out.
    pub in_use: usize,
    /// The most of those at once.
    pub peak: usize,
    /// Objects handed out that lie in reserve memory.
    pub reserve_objects: usize,
    /// Slabs of ordinary memory.
    pub slabs: usize,
    /// Slabs of reserve memory.
    pub reserve_slabs: usize,
}

impl<'z, R: RawMutex> SizedCache<'z, R> {
    /// A cache of objects of `object_size` bytes in slabs of `1 << order` frames of `zone`.
    /// Objects start at multiples of `object_size` behind a header of [`SLAB_HEADER`] bytes.
    ///
    /// # Errors
    ///
    /// [`CacheError`] if no object, or more than 65,534, would fit into a slab.
    pub fn new(
        name: &'static str,
        zone: &'z dyn FrameAllocator,
        object_size: usize,
        order: u8,
    ) -> Result<Self, CacheError> {
        Self::placed(name, zone, object_size, order, false)
    }

    /// A cache whose slabs are single frames, aligned to [`FRAME_SIZE`], and whose objects end where
    /// the frame ends: they are aligned to the largest power of two that divides their size.
    pub(crate) fn in_aligned_frames(
        name: &'static str,
        zone: &'z dyn FrameAllocator,
        object_size: usize,
    ) -> Result<Self, CacheError> {
        Self::placed(name, zone, object_size, 0, true)
    }

    fn placed(
        name: &'static str,
        zone: &'z dyn FrameAllocator,
        object_size: usize,
        order: u8,
        in_aligned_frames: bool,
    ) -> Result<Self, CacheError> {
        if object_size < size_of::<u16>() {
            return Err(CacheError::ObjectTooSmall);
        }
        let per_slab = match u16::try_from(objects_per_slab(object_size, order)) {
            Ok(0) => return Err(CacheError::ObjectTooLarge),
            Ok(n) if n < u16::MAX => n,
            _ => return Err(CacheError::ObjectTooSmall),
        };
        let first = if in_aligned_frames {
            (FRAME_SIZE << order) - usize::from(per_slab) * object_size
        } else {
            SLAB_HEADER
        };
        let state = State {
            slabs: Slabs::new(first, object_size, per_slab),
            in_use: 0,
            peak: 0,
            reserve_objects: 0,
        };
        Ok(SizedCache {
            name,
            zone,
            object_size,
            order,
            in_aligned_frames,
            state: Mutex::new(state),
        })
    }

    /// The name given when it was made.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Gives the slab that is kept empty, if any, back to the zone; returns its frames.
    pub fn shrink(&self) -> usize {
        // Freed with the lock released.
        let frames = core::iter::from_fn(|| self.state.lock().slabs.shrink());
        frames.map(|frame| 1 << frame.order()).sum()
    }

    /// A snapshot of the counters.
    pub fn stats(&self) -> CacheStats {
        let state = self.state.lock();
        let [slabs, reserve_slabs] = state.slabs.count();
        CacheStats {
            in_use: state.in_use,
            peak: state.peak,
            reserve_objects: state.reserve_objects,
            slabs,
            reserve_slabs,
        }
    }

    /// Switches a mechanism of this cache off, for good. A mechanism of another object changes
    /// nothing.
    #[cfg(feature = "ablation")]
    pub fn ablate(&self, mechanism: Mechanism) {
        self.state.lock().slabs.ablation.ablate(mechanism);
    }
}

impl<R: RawMutex + Send + Sync> SizedCache<'_, R> {
    /// Takes an object of the lists that `admitted` names (false ordinary, true reserve-derived).
    fn take(&self, state: &mut State<'_>, admitted: &[bool]) -> Option<Buffer<'_>> {
        let buffer = admitted
            .iter()
            .find_map(|&tag| Buffer::take(&mut state.slabs, tag, self))?;
        state.in_use += 1;
        state.reserve_objects += usize::from(buffer.from_reserve());
        state.peak = state.peak.max(state.in_use);
        Some(buffer)
    }

    /// Makes a slab and takes an object of it: nobody can come in between.
    fn grow(&self, gfp: Gfp) -> Result<Buffer<'_>, AllocError> {
        let frame = self.zone.alloc(self.order, gfp)?;
        if self.in_aligned_frames && !frame.is_aligned_to(FRAME_SIZE) {
            return Err(AllocError::Misaligned);
        }
        let tag = frame.from_reserve();
        let mut state = self.state.lock();
        state.slabs.grow(frame);
        Ok(self
            .take(&mut state, &[tag])
            .expect("a new slab has a free object"))
    }
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

impl<R: RawMutex + Send + Sync> BufferCache for SizedCache<'_, R> {
    fn alloc(&self, gfp: Gfp) -> Result<Buffer<'_>, AllocError> {
        let gfp = gfp.without(Gfp::ZERO);
        let entitled = self.zone.entitled(gfp);
        {
            let mut state = self.state.lock();
            if state.slabs.ablation.off(Mechanism::SlabAdmission)
                && let Some(buffer) = self.take(&mut state, &[true, false])
            {
                return Ok(buffer);
            }
            if let Some(buffer) = self.take(&mut state, &[false]) {
                return Ok(buffer);
            }
        }
        // Not yet a failure, if there is the reserve to turn to.
        let quiet = if entitled { Gfp::NOWARN } else { Gfp::NONE };
        match self.grow(gfp | Gfp::NOMEMALLOC | quiet) {
            Err(AllocError::Exhausted) if entitled => {}
            done => return done,
        }
        if let Some(buffer) = self.take(&mut self.state.lock(), &[true]) {
            return Ok(buffer);
        }
        self.grow(gfp).or_else(|error| {
            // Somebody else may have made the slab for which no frame is left.
            let mut state = self.state.lock();
            self.take(&mut state, &[false, true]).ok_or(error)
        })
    }

    fn object_size(&self) -> usize {
        self.object_size
    }
}

impl<R: RawMutex + Send + Sync> ObjectHome for SizedCache<'_, R> {
    fn returned(&self, give: &mut dyn FnMut(&mut Slabs<'_>) -> bool) {
        let mut state = self.state.lock();
        let from_reserve = give(&mut state.slabs);
        state.in_use -= 1;
        state.reserve_objects -= usize::from(from_reserve);
    }
}

impl<R> fmt::Debug for SizedCache<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SizedCache")
            .field("name", &self.name)
            .field("object_size", &self.object_size)
            .field("order", &self.order)
            .finish_non_exhaustive()
    }
}

/// A cache of values of one type.
///
/// ```
/// use mempool::{Buddy, Cache, FrameEntry, Gfp, SingleTask, Watermarks, Zone};
///
/// let (mut memory, mut table) = (vec![0u8; 17 * 4096], [FrameEntry::EMPTY; 17]);
/// let source = <Buddy>::new(&mut memory, &mut table)?;
/// let task = SingleTask::new();
/// let zone = <Zone>::new(&source, &task, Watermarks::default())?;
///
/// let routes: Cache<'_, (u32, u16)> = Cache::new("route", &zone, 0)?;
/// let route = routes.alloc(Gfp::KERNEL, (7, 9)).map_err(|(error, _)| error)?;
/// assert_eq!(*route, (7, 9));
/// # drop(route);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Cache<'z, T, R = CriticalSection> {
    buffers: SizedCache<'z, R>,
    value: PhantomData<T>,
}

impl<'z, T, R: RawMutex> Cache<'z, T, R> {
    /// Bytes from one object to the next.
    pub const STRIDE: usize = {
        let align = align_of::<T>();
        assert!(align <= SLAB_HEADER, "alignment of more than a slab header");
        let size = if size_of::<T>() < size_of::<u16>() {
            size_of::<u16>()
        } else {
            size_of::<T>()
        };
        size.next_multiple_of(align)
    };

    /// A cache of `T`s in slabs of `1 << order` frames.
    ///
    /// # Errors
    ///
    /// See [`SizedCache::new`].
    pub fn new(
        name: &'static str,
        zone: &'z dyn FrameAllocator,
        order: u8,
    ) -> Result<Self, CacheError> {
        let buffers = SizedCache::new(name, zone, Self::STRIDE, order)?;
        Ok(Cache {
            buffers,
            value: PhantomData,
        })
    }

    /// A snapshot of the counters.
    pub fn stats(&self) -> CacheStats {
        self.buffers.stats()
    }

    /// See [`SizedCache::ablate`].
    #[cfg(feature = "ablation")]
    pub fn ablate(&self, mechanism: Mechanism) {
        self.buffers.ablate(mechanism);
    }
}

impl<T, R: RawMutex + Send + Sync> Cache<'_, T, R> {
    /// Moves `value` into an object of the cache.
    ///
    /// # Errors
    ///
    /// See [`Zone::alloc`](crate::Zone::alloc); the value comes back.
    pub fn alloc(&self, gfp: Gfp, value: T) -> Result<Object<'_, T>, (AllocError, T)> {
        match self.buffers.alloc(gfp) {
            Ok(buffer) => Ok(Object::new(buffer, value)),
            Err(error) => Err((error, value)),
        }
    }
}

impl<T, R> fmt::Debug for Cache<'_, T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.buffers.fmt(f)
    }
}

/// Why a cache cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum CacheError {
    /// Less than 2 bytes, or so small that a slab holds more objects than can be counted.
    ObjectTooSmall,
    /// Not one fits into a slab of that order.
    ObjectTooLarge,
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CacheError::ObjectTooSmall => "the object is too small for slabs of that order",
            CacheError::ObjectTooLarge => "not one object fits into a slab of that order",
        })
    }
}

impl core::error::Error for CacheError {}

#[cfg(test)]
mod tests;
