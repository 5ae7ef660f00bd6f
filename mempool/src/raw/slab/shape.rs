//! Where objects lie in a slab: the sizes, and the addresses.
//!
//! ```text
//!   header │ gap │ object 0 │ red zone │ object 1 │ red zone │ …
//!          0..   first      size       stride
//! ```

use core::mem::size_of;
use core::ptr::NonNull;

use super::Link;
use crate::SLAB_HEADER;

/// Places of the objects in every slab of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    first: usize,
    size: usize,
    stride: usize,
    per_slab: u32,
}

impl Shape {
    /// `per_slab` objects of `size` bytes, each `stride` behind the one before, from `first` on.
    ///
    /// # Panics
    ///
    /// If an object overlaps the header or its neighbour, or leaves no room for the link that free
    /// ones have.
    pub(crate) const fn new(first: usize, size: usize, stride: usize, per_slab: u32) -> Self {
        assert!(first >= SLAB_HEADER && stride >= size && stride >= size_of::<Link>());
        assert!(per_slab > 0);
        Shape {
            first,
            size,
            stride,
            per_slab,
        }
    }

    /// Bytes in an object.
    #[inline]
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    #[inline]
    pub(super) const fn per_slab(&self) -> u32 {
        self.per_slab
    }

    /// Bytes from the end of an object to the next one.
    #[cfg(feature = "slab-debug")]
    #[inline]
    pub(super) const fn red_zone(&self) -> usize {
        self.stride - self.size
    }

    /// Whether a slab of `bytes` holds all of it.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        let objects = self.stride.checked_mul(self.per_slab as usize);
        let needed = objects.and_then(|objects| objects.checked_add(self.first));
        needed.is_some_and(|needed| needed <= bytes)
    }

    /// The first byte of an object.
    ///
    /// # Safety
    ///
    /// The slab has this shape, and an object of that index.
    #[inline]
    pub(super) const unsafe fn object(&self, slab: NonNull<u8>, index: u32) -> NonNull<u8> {
        let offset = self.first + index as usize * self.stride;
        // SAFETY: the caller's word: inside the slab.
        unsafe { slab.add(offset) }
    }

    /// The index of the object that `address` lies in.
    pub(super) fn index_of(&self, address: NonNull<u8>, slab: NonNull<u8>) -> Option<u32> {
        let offset = address.addr().get().checked_sub(slab.addr().get())?;
        let offset = offset.checked_sub(self.first)?;
        let index = u32::try_from(offset / self.stride).ok()?;
        let inside = index < self.per_slab && offset % self.stride < self.size;
        inside.then_some(index)
    }
}
