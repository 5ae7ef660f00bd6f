//! A cache of values.

use core::fmt;
use core::marker::PhantomData;
use core::mem::{align_of, size_of};

use lock_api::RawMutex;

use super::{CacheError, CacheStats, NoMagazines, Parking, SizedCache};
#[cfg(feature = "ablation")]
use crate::ablation::Mechanism;
use crate::raw::SlabObject;
use crate::{AllocError, CriticalSection, FrameAllocator, Gfp, Object};

/// A cache of values of one type.
///
/// There is no constructor as `kmem_cache_create` has one, which keeps free objects constructed: what
/// is free has no owner who could drop a `T`, its first bytes link it to the next, and an empty
/// reserve-derived slab goes back at once, with whatever was constructed in it. Keep values that
/// are dear to make in a [`Pool`](crate::Pool), or make them where they will lie
/// ([`alloc_with`](Self::alloc_with)).
///
/// ```
/// use mempool::{Buddy, Cache, FrameEntry, Gfp, SingleTask, Watermarks, Zone};
///
/// let (mut memory, mut table) = (vec![0u8; 17 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 17]);
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
pub struct Cache<'z, T, R: RawMutex = CriticalSection, M: Parking = NoMagazines> {
    buffers: SizedCache<'z, R, M>,
    value: PhantomData<T>,
}

impl<'z, T, R: RawMutex> Cache<'z, T, R> {
    /// Bytes from one object to the next, without a red zone.
    pub const STRIDE: usize = {
        let size = if size_of::<T>() < size_of::<usize>() {
            size_of::<usize>()
        } else {
            size_of::<T>()
        };
        size.next_multiple_of(align_of::<T>())
    };

    /// A cache of `T`s in slabs of `1 << order` frames.
    ///
    /// # Errors
    ///
    /// See [`SizedCache::aligned`], with the alignment of `T`.
    pub fn new(
        name: &'static str,
        zone: &'z dyn FrameAllocator,
        order: u8,
    ) -> Result<Self, CacheError> {
        let align = align_of::<T>();
        let buffers = SizedCache::aligned(name, zone, Self::STRIDE, order, align)?;
        Ok(Cache {
            buffers,
            value: PhantomData,
        })
    }

    /// See [`SizedCache::with_magazines`].
    #[must_use]
    pub fn with_magazines<M: Parking>(self, magazines: M) -> Cache<'z, T, R, M> {
        Cache {
            buffers: self.buffers.with_magazines(magazines),
            value: PhantomData,
        }
    }
}

impl<T, R: RawMutex, M: Parking> Cache<'_, T, R, M> {
    /// A snapshot of the counters.
    pub fn stats(&self) -> CacheStats {
        self.buffers.stats()
    }

    /// See [`SizedCache::shrink`].
    pub fn shrink(&self) -> usize {
        self.buffers.shrink()
    }

    /// See [`SizedCache::ablate`].
    #[cfg(feature = "ablation")]
    pub fn ablate(&self, mechanism: Mechanism) {
        self.buffers.ablate(mechanism);
    }
}

impl<T, R: RawMutex + Send + Sync, M: Parking> Cache<'_, T, R, M> {
    /// Moves `value` into an object of the cache.
    ///
    /// # Errors
    ///
    /// See [`Zone::alloc`](crate::Zone::alloc); the value comes back.
    #[inline(always)] // Else the value is copied once more, to where the result is.
    pub fn alloc(&self, gfp: Gfp, value: T) -> Result<Object<'_, T>, (AllocError, T)> {
        match self.buffers.take(gfp) {
            Ok(object) => Ok(self.object(object, || value)),
            Err(error) => Err((error, value)),
        }
    }

    /// Makes a value in an object of the cache: `make` runs when there is memory, and not before, and
    /// nothing is copied that the compiler need not copy. It runs with no lock held. Should it
    /// panic, the object goes back.
    ///
    /// ```
    /// # use mempool::{Buddy, Cache, FrameEntry, Gfp, SingleTask, Watermarks, Zone};
    /// # let (mut memory, mut table) = (vec![0u8; 17 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 17]);
    /// # let source = <Buddy>::new(&mut memory, &mut table)?;
    /// # let task = SingleTask::new();
    /// # let zone = <Zone>::new(&source, &task, Watermarks::default())?;
    /// let tables: Cache<'_, [u32; 256]> = Cache::new("table", &zone, 0)?;
    /// let table = tables.alloc_with(Gfp::KERNEL, || [7; 256])?;
    /// assert_eq!(table[255], 7);
    /// # drop(table);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// See [`Zone::alloc`](crate::Zone::alloc); `make` has not run.
    #[inline]
    pub fn alloc_with(
        &self,
        gfp: Gfp,
        make: impl FnOnce() -> T,
    ) -> Result<Object<'_, T>, AllocError> {
        let object = self.buffers.take(gfp)?;
        Ok(self.object(object, make))
    }

    #[inline]
    fn object(&self, object: SlabObject, make: impl FnOnce() -> T) -> Object<'_, T> {
        Object::new(object, self.buffers.mark().0, &self.buffers, make)
    }
}

impl<T, R: RawMutex, M: Parking> fmt::Debug for Cache<'_, T, R, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.buffers.fmt(f)
    }
}
