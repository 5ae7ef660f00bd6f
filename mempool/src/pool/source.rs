//! Where a pool's elements come from.

use core::ops::DerefMut;

use lock_api::RawMutex;

use crate::{
    AllocError, Buffer, BufferCache, Frame, FrameAllocator, Gfp, Parking, SizedCache, Zone,
};

/// What a [`Pool`](crate::Pool) holds. Its guard gives access to what the element dereferences to,
/// and not to the element, which could be exchanged for one of another source.
pub trait PoolElement: DerefMut + Send {
    /// Whether the element lies in reserve memory: such a one never stays in a pool (M4).
    fn reserve_derived(&self) -> bool;

    /// Makes an element that was used before as good as one that was allocated with these flags:
    /// zeroes it if they ask for that, and the source heeds it.
    fn renew(&mut self, gfp: Gfp);
}

/// Whoever allocates equal elements, as a [`Pool`](crate::Pool) needs them: a cache of buffers
/// ([`SizedCache`], [`BufferCache`]), or a zone whose single frames are the elements ([`Zone`],
/// [`FrameAllocator`]).
///
/// An element is freed by its drop. Both are done with no lock of the pool held.
pub trait PoolSource: Sync {
    /// What is allocated, for as long as the source is borrowed.
    type Element<'a>: PoolElement
    where
        Self: 'a;

    /// Takes an element; never waits. With [`Gfp::NOMEMALLOC`] it is never one in reserve memory.
    ///
    /// # Errors
    ///
    /// See [`Zone::alloc`].
    fn alloc_element(&self, gfp: Gfp) -> Result<Self::Element<'_>, AllocError>;

    /// Whether the reserve is worth a try with these flags. It saves a call and decides nothing:
    /// who is entitled (M1) is decided by [`alloc_element`](Self::alloc_element). A source that does not know who
    /// runs tells so by the flags alone.
    fn may_dip(&self, gfp: Gfp) -> bool {
        !gfp.contains(Gfp::NOMEMALLOC)
    }
}

impl PoolElement for Buffer<'_> {
    fn reserve_derived(&self) -> bool {
        Buffer::from_reserve(self)
    }

    /// Nothing: a [`BufferCache`] ignores [`Gfp::ZERO`] as well.
    fn renew(&mut self, _: Gfp) {}
}

impl PoolElement for Frame<'_> {
    fn reserve_derived(&self) -> bool {
        Frame::from_reserve(self)
    }

    fn renew(&mut self, gfp: Gfp) {
        if gfp.contains(Gfp::ZERO) {
            self.fill(0);
        }
    }
}

impl PoolSource for dyn BufferCache + '_ {
    type Element<'a>
        = Buffer<'a>
    where
        Self: 'a;

    fn alloc_element(&self, gfp: Gfp) -> Result<Buffer<'_>, AllocError> {
        BufferCache::alloc(self, gfp)
    }
}

impl<R: RawMutex + Send + Sync, M: Parking> PoolSource for SizedCache<'_, R, M> {
    type Element<'a>
        = Buffer<'a>
    where
        Self: 'a;

    fn alloc_element(&self, gfp: Gfp) -> Result<Buffer<'_>, AllocError> {
        BufferCache::alloc(self, gfp)
    }
}

impl PoolSource for dyn FrameAllocator + '_ {
    type Element<'a>
        = Frame<'a>
    where
        Self: 'a;

    fn alloc_element(&self, gfp: Gfp) -> Result<Frame<'_>, AllocError> {
        FrameAllocator::alloc(self, 0, gfp)
    }

    fn may_dip(&self, gfp: Gfp) -> bool {
        FrameAllocator::entitled(self, gfp)
    }
}

impl<R: RawMutex + Send + Sync> PoolSource for Zone<'_, R> {
    type Element<'a>
        = Frame<'a>
    where
        Self: 'a;

    fn alloc_element(&self, gfp: Gfp) -> Result<Frame<'_>, AllocError> {
        FrameAllocator::alloc(self, 0, gfp)
    }

    fn may_dip(&self, gfp: Gfp) -> bool {
        FrameAllocator::entitled(self, gfp)
    }
}
