//! A typed object in slab memory.

use core::fmt;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, size_of};
use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};

use super::ObjectHome;
use super::slab::{Shape, SlabObject};

/// An owned `T` of a [`Cache`](crate::Cache), dropped and given back when it goes out of scope.
pub struct Object<'c, T> {
    object: SlabObject,
    home: &'c dyn ObjectHome,
    value: PhantomData<T>,
}

// SAFETY: the handle owns its value alone, as a `Box` does, and its home is `Sync`.
unsafe impl<T: Send> Send for Object<'_, T> {}
// SAFETY: `&Object` gives out only `&T` and a copy of a plain field.
unsafe impl<T: Sync> Sync for Object<'_, T> {}

impl<'c, T> Object<'c, T> {
    /// Makes a value in an object, which goes back to `home`, also should `make` panic. It is an object
    /// of a cache whose shape has room for a `T`.
    ///
    /// # Panics
    ///
    /// If it is not aligned for `T`.
    #[inline]
    pub(crate) fn new(
        object: SlabObject,
        shape: &Shape,
        home: &'c dyn ObjectHome,
        make: impl FnOnce() -> T,
    ) -> Self {
        debug_assert!(shape.size() >= size_of::<T>());
        let back = GiveBack(ManuallyDrop::new(object), home);
        let start = back.0.start().cast::<T>();
        assert!(start.is_aligned());
        // SAFETY: large enough and aligned, and the object is ours alone.
        unsafe { start.write(make()) };
        Object {
            object: back.keep(),
            home,
            value: PhantomData,
        }
    }

    /// Whether the object lies in reserve memory.
    #[must_use]
    #[inline]
    pub fn from_reserve(&self) -> bool {
        self.object.reserve_derived()
    }

    #[inline]
    fn start(&self) -> NonNull<T> {
        self.object.start().cast()
    }
}

impl<T> Drop for Object<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let start = self.start();
        // SAFETY: the handle ends here, and uses its copy no more.
        let object = unsafe { ptr::read(&self.object) };
        // Also when the value's own `drop` unwinds: the object is given back in any case.
        let _back = GiveBack(ManuallyDrop::new(object), self.home);
        let _zeroed = Zeroed(start);
        // SAFETY: `new` wrote a value that nobody else refers to; it is dropped once, here.
        unsafe { start.drop_in_place() };
    }
}

/// Gives an object back at the end of a scope.
struct GiveBack<'c>(ManuallyDrop<SlabObject>, &'c dyn ObjectHome);

impl GiveBack<'_> {
    #[inline]
    fn keep(self) -> SlabObject {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: taken once: the drop that would take it as well does not run.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl Drop for GiveBack<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: taken once: this ends here.
        let object = unsafe { ManuallyDrop::take(&mut self.0) };
        self.1.give(object);
    }
}

/// Zeroes a value that is gone. The padding of a `T` is uninitialised, a frame's bytes must not be.
struct Zeroed<T>(NonNull<T>);

impl<T> Drop for Zeroed<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: made and dropped in `Object::drop`, where the bytes are the object's own.
        unsafe { self.0.write_bytes(0, 1) };
    }
}

impl<T> Deref for Object<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: `new` wrote a value, and it is ours alone.
        unsafe { self.start().as_ref() }
    }
}

impl<T> DerefMut for Object<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and `&mut self` excludes other borrows.
        unsafe { self.start().as_mut() }
    }
}

impl<T: fmt::Debug> fmt::Debug for Object<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
