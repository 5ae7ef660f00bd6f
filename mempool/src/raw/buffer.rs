//! An owned object, as bytes.

use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::slice;

use super::slab::{Shape, SlabObject};

/// Takes an object back when its handle is dropped.
pub(crate) trait ObjectHome: Sync {
    /// Takes back what a handle was told to come from here.
    fn give(&self, object: SlabObject);
}

/// An owned object of a [`SizedCache`](crate::SizedCache): bytes, given back on drop. The bytes are
/// whatever the last owner left.
pub struct Buffer<'c> {
    object: SlabObject,
    len: usize,
    home: &'c dyn ObjectHome,
}

// SAFETY: the handle owns its bytes alone, and its home is `Sync`.
unsafe impl Send for Buffer<'_> {}
// SAFETY: `&Buffer` gives out only `&[u8]` and copies of plain fields.
unsafe impl Sync for Buffer<'_> {}

impl<'c> Buffer<'c> {
    /// The handle of an object of slabs of that shape, which goes back to `home`.
    #[inline]
    pub(crate) fn new(object: SlabObject, shape: &Shape, home: &'c dyn ObjectHome) -> Self {
        let len = shape.size();
        Buffer { object, len, home }
    }

    /// Whether the object lies in reserve memory: only the entitled get such a one (M4).
    #[must_use]
    #[inline]
    pub fn from_reserve(&self) -> bool {
        self.object.reserve_derived()
    }

    #[inline]
    pub(super) fn start(&self) -> NonNull<u8> {
        self.object.start()
    }

    /// Bytes in the object, without a look at them: somebody else may be writing to a shared one.
    #[inline]
    pub(super) fn size(&self) -> usize {
        self.len
    }

    /// Gives the object up to whoever makes it again with [`object_at`](super::slab::object_at). Its slab's address is exposed, so
    /// that it can be found again by arithmetic.
    pub(super) fn into_raw(self) -> NonNull<u8> {
        let start = self.start();
        self.object.slab().as_ptr().expose_provenance();
        core::mem::forget(self);
        start
    }
}

impl Drop for Buffer<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the handle ends here, and uses its copy no more.
        let object = unsafe { core::ptr::read(&self.object) };
        self.home.give(object);
    }
}

impl Deref for Buffer<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes that are ours alone.
        unsafe { slice::from_raw_parts(self.start().as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` excludes other borrows.
        unsafe { slice::from_raw_parts_mut(self.start().as_ptr(), self.len) }
    }
}

impl fmt::Debug for Buffer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("start", &self.start())
            .field("len", &self.len)
            .field("from_reserve", &self.from_reserve())
            .finish_non_exhaustive()
    }
}
