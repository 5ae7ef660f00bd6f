//! A typed object in slab memory.

use core::fmt;
use core::marker::PhantomData;
use core::mem::size_of;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::Buffer;

/// An owned `T` of a [`Cache`](crate::Cache), dropped and given back when it goes out of scope.
pub struct Object<'c, T> {
    /// Freed after the value was dropped in place.
    buffer: Buffer<'c>,
    value: PhantomData<T>,
}

impl<'c, T> Object<'c, T> {
    /// Moves `value` into `buffer`.
    ///
    /// # Panics
    ///
    /// If the buffer is too small or not aligned for `T`; a cache checks both when it is made.
    pub(crate) fn new(buffer: Buffer<'c>, value: T) -> Self {
        let start = buffer.start().cast::<T>();
        assert!(buffer.len() >= size_of::<T>() && start.as_ptr().is_aligned());
        // SAFETY: large enough and aligned (just asserted), and the buffer is ours alone.
        unsafe { start.write(value) };
        Object {
            buffer,
            value: PhantomData,
        }
    }

    /// Whether the object lies in reserve memory.
    #[must_use]
    pub fn from_reserve(&self) -> bool {
        self.buffer.from_reserve()
    }

    fn start(&self) -> NonNull<T> {
        self.buffer.start().cast()
    }
}

impl<T> Drop for Object<'_, T> {
    fn drop(&mut self) {
        // Also when the value's own `drop` unwinds: the buffer is given back in any case.
        let _zeroed = Zeroed(self.start());
        // SAFETY: `new` wrote a value that nobody else refers to; it is dropped once, here.
        unsafe { self.start().drop_in_place() };
    }
}

/// Zeroes a value that is gone. The padding of a `T` is uninitialised, a buffer's bytes must not be.
struct Zeroed<T>(NonNull<T>);

impl<T> Drop for Zeroed<T> {
    fn drop(&mut self) {
        // SAFETY: made and dropped in `Object::drop`, where the bytes are the object's own.
        unsafe { self.0.write_bytes(0, 1) };
    }
}

impl<T> Deref for Object<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `new` wrote a value, and it is ours alone.
        unsafe { self.start().as_ref() }
    }
}

impl<T> DerefMut for Object<'_, T> {
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
