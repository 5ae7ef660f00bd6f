//! A buffer with several owners: the count of them, and a value, lie in the tail of its object.
//!
//! The count is a plain number that changes only inside a critical section. Compare-and-swap would
//! leave out the small cores; a lock inside the object, of whatever kind, would be freed while the
//! owner before the last is still on its way out of `unlock`. Inside a critical section the owner
//! before the last is done with the object before the last one can come in.

use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::{ManuallyDrop, align_of, size_of};
use core::ops::Deref;
use core::ptr::{self, NonNull};
use core::slice;

use critical_section::Mutex;

use super::Buffer;

/// What lies at the aligned end of the object.
struct Tail<T> {
    handles: Mutex<Cell<u32>>,
    value: T,
}

/// One of the owners of a buffer, and of a value that ends after it.
///
/// ```text
///   ├──────────── bytes, for all to read ───────────┼─ handles, value ─┤
/// ```
/// Made of a [`Buffer`], whose last [`TAIL`](Self::TAIL) bytes become the count of handles and the
/// value. The bytes in front can be read by every owner, and written by one that is alone. When the
/// last handle is dropped the buffer is given back first, and then the value is dropped: a
/// [`Charge`](crate::Charge) is meant to be that value, and ends after the memory that it stands
/// for (M6).
///
/// Every operation is O(1), with one short critical section where handles are counted.
///
/// ```
/// use mempool::{
///     Buddy, BufferCache, FrameEntry, Gfp, SharedBuffer, SingleTask, SizedCache, Watermarks, Zone,
/// };
///
/// # let (mut memory, mut table) = (vec![0u8; 17 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 17]);
/// # let source = <Buddy>::new(&mut memory, &mut table)?;
/// # let task = SingleTask::new();
/// # let zone = <Zone>::new(&source, &task, Watermarks::default())?;
/// // … a zone …
/// let skbs = <SizedCache>::new("skb", &zone, 2016, 0)?;
/// let mut buffer = skbs.alloc(Gfp::ATOMIC)?;
/// buffer[..4].copy_from_slice(b"data");
///
/// let mut first = SharedBuffer::new(buffer, 4, "value").expect("4 bytes leave room for the tail");
/// let second = first.clone();
/// assert_eq!((&first[..4], *second.value()), (&b"data"[..], "value"));
/// assert!(first.get_mut().is_none(), "there are two owners");
/// drop(second);
///
/// let (buffer, value) = first.try_into_inner().expect("there is one owner");
/// assert_eq!((buffer.len(), value), (2016, "value"));
/// # drop(buffer);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SharedBuffer<'c, T> {
    /// The same in every handle; the last one drops it. Never read as bytes: the tail changes.
    buffer: ManuallyDrop<Buffer<'c>>,
    value: PhantomData<T>,
}

// SAFETY: as for an `Arc`: any thread may get at the value through a handle (so `T: Sync`), and any
// may be the last and drop it (so `T: Send`). The bytes are only read while there are several
// handles, the count changes inside critical sections, and a `Buffer` may be dropped anywhere.
unsafe impl<T: Send + Sync> Send for SharedBuffer<'_, T> {}
// SAFETY: as above; `&SharedBuffer` gives out `&[u8]`, `&T` and further handles.
unsafe impl<T: Send + Sync> Sync for SharedBuffer<'_, T> {}

impl<'c, T> SharedBuffer<'c, T> {
    /// Bytes that the count and the value take from the end of the object, at most: the last few
    /// depend on how the object is aligned.
    pub const TAIL: usize = size_of::<Tail<T>>() + align_of::<Tail<T>>() - 1;

    /// The first handle of `buffer`, with `value` in its tail. The first `keep` bytes are kept; of
    /// those behind them, as many as the tail takes are lost.
    ///
    /// # Errors
    ///
    /// Fewer than `keep` bytes would lie in front of the tail. Both come back, and nothing has
    /// changed; `keep + TAIL <= buffer.len()` always suffices.
    pub fn new(buffer: Buffer<'c>, keep: usize, value: T) -> Result<Self, (Buffer<'c>, T)> {
        if front::<T>(&buffer).is_none_or(|front| front < keep) {
            return Err((buffer, value));
        }
        let shared = SharedBuffer {
            buffer: ManuallyDrop::new(buffer),
            value: PhantomData,
        };
        let handles = Mutex::new(Cell::new(1));
        // SAFETY: `front` found aligned room for a tail at the end of the object, which is ours
        // alone: there is one handle, and nobody else has it yet.
        unsafe { shared.tail().write(Tail { handles, value }) };
        Ok(shared)
    }

    /// Whether this is the only handle. That may become true at any time, as others are dropped; it
    /// stays true until this one is cloned.
    #[must_use]
    pub fn is_unique(&self) -> bool {
        self.count(|handles| handles.get() == 1)
    }

    /// The bytes in front of the tail, if this is the only handle.
    pub fn get_mut(&mut self) -> Option<&mut [u8]> {
        if !self.is_unique() {
            return None;
        }
        // SAFETY: initialised bytes of the object in front of its tail. This is the only handle,
        // and `&mut self` keeps it from being read or cloned.
        Some(unsafe { slice::from_raw_parts_mut(self.buffer.start().as_ptr(), self.front()) })
    }

    /// Takes the buffer, with all of its bytes, and the value apart again.
    ///
    /// # Errors
    ///
    /// There are other handles; this one comes back.
    pub fn try_into_inner(self) -> Result<(Buffer<'c>, T), Self> {
        if !self.is_unique() {
            return Err(self);
        }
        let mut shared = ManuallyDrop::new(self);
        // SAFETY: this is the only handle, and it is not used again: not even dropped.
        Ok(unsafe { shared.end() })
    }

    /// What all handles share.
    #[must_use]
    pub fn value(&self) -> &T {
        // SAFETY: `new` wrote a tail, which is alive as long as a handle is. Values are only read.
        unsafe { &*ptr::addr_of!((*self.tail().as_ptr()).value) }
    }

    /// Bytes of the whole object, tail included.
    #[must_use]
    pub fn object_size(&self) -> usize {
        self.buffer.size()
    }

    /// Whether the object lies in reserve memory: only the entitled get such a one (M4).
    #[must_use]
    pub fn from_reserve(&self) -> bool {
        self.buffer.from_reserve()
    }

    fn front(&self) -> usize {
        front::<T>(&self.buffer).expect("a handle is made with room for its tail")
    }

    fn tail(&self) -> NonNull<Tail<T>> {
        // SAFETY: inside the object.
        unsafe { self.buffer.start().add(self.front()) }.cast()
    }

    /// Looks at the count, or changes it, with everybody else kept out.
    fn count<R>(&self, f: impl FnOnce(&Cell<u32>) -> R) -> R {
        critical_section::with(|cs| {
            // SAFETY: `new` wrote a tail, which is alive while this handle is counted: until `f`
            // returns, at least, and with it ends this reference.
            let handles = unsafe { &*ptr::addr_of!((*self.tail().as_ptr()).handles) };
            f(handles.borrow(cs))
        })
    }

    /// Takes the buffer and the value out.
    ///
    /// # Safety
    ///
    /// No other handle exists, and this one is neither used nor dropped afterwards.
    unsafe fn end(&mut self) -> (Buffer<'c>, T) {
        let tail = self.tail();
        // SAFETY: the tail is alive, and read for the last time.
        let Tail { value, .. } = unsafe { tail.read() };
        // SAFETY: as above. The padding of a tail is uninitialised, a buffer's bytes must not be.
        unsafe { tail.write_bytes(0, 1) };
        // SAFETY: taken once, here: the caller's word.
        (unsafe { ManuallyDrop::take(&mut self.buffer) }, value)
    }
}

/// Bytes in front of a tail in `buffer`, or `None` if there is no room for one.
fn front<T>(buffer: &Buffer<'_>) -> Option<usize> {
    let start = buffer.start().as_ptr() as usize;
    let tail = (start + buffer.size()).checked_sub(size_of::<Tail<T>>())?;
    (tail & !(align_of::<Tail<T>>() - 1)).checked_sub(start)
}

impl<T> Clone for SharedBuffer<'_, T> {
    /// Another handle.
    ///
    /// # Panics
    ///
    /// At 2^32 handles. Only forgotten ones can be so many.
    fn clone(&self) -> Self {
        let counted = self.count(|handles| match handles.get().checked_add(1) {
            Some(more) => {
                handles.set(more);
                true
            }
            None => false,
        });
        assert!(counted, "a buffer has too many handles");
        SharedBuffer {
            // SAFETY: a copy that is counted, so that one handle alone drops the buffer.
            buffer: unsafe { ptr::read(&self.buffer) },
            value: PhantomData,
        }
    }
}

impl<T> Drop for SharedBuffer<'_, T> {
    fn drop(&mut self) {
        let last = self.count(|handles| {
            handles.set(handles.get() - 1);
            handles.get() == 0
        });
        if last {
            // SAFETY: no handle is counted any more, and this one ends here.
            let (buffer, value) = unsafe { self.end() };
            drop(buffer);
            // After the memory that it may be the charge of (M6).
            drop(value);
        }
    }
}

impl<T> Deref for SharedBuffer<'_, T> {
    type Target = [u8];

    /// The bytes in front of the tail.
    fn deref(&self) -> &[u8] {
        // SAFETY: initialised bytes of the object in front of its tail. Whoever writes to them has
        // the only handle by `&mut`, and this one is borrowed.
        unsafe { slice::from_raw_parts(self.buffer.start().as_ptr(), self.front()) }
    }
}

impl<T: fmt::Debug> fmt::Debug for SharedBuffer<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBuffer")
            .field("buffer", &*self.buffer)
            .field("value", self.value())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
