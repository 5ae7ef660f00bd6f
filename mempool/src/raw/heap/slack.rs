//! What a block leaves of its object is a red zone, with the feature `slab-debug`.

use core::alloc::Layout;
use core::ptr::NonNull;
use core::slice;

use lock_api::RawMutex;

use super::Heap;
use crate::raw::{Fault, mark_slack, overwritten};
use crate::sizes::{Place, index_in_frame, place};
use crate::{FRAME_SIZE, SizeClasses};

impl<R: RawMutex + Send + Sync> Heap<R> {
    /// A block of a layout stays where it is, and has another one from now on, in the same place.
    ///
    /// # Safety
    ///
    /// The caller owns the block, which has the layout `old`, and room for `new`.
    pub(super) unsafe fn mark_again(&self, block: *mut u8, old: Layout, new: Layout) {
        let (Some(inner), Some(block), Place::Object(class)) =
            (self.inner(), NonNull::new(block), place(old))
        else {
            return;
        };
        // SAFETY: the caller's word.
        if let Err(fault) = unsafe { check(block, old.size(), class) } {
            inner.classes.cache(class).give_or_stop(Err(fault));
        }
        // SAFETY: the caller's word.
        unsafe { mark(block, new) };
    }
}

/// Marks the end of the object that a block lies in.
///
/// # Safety
///
/// The caller owns the object; the block has that layout.
pub(super) unsafe fn mark(block: NonNull<u8>, layout: Layout) {
    if let Place::Object(class) = place(layout) {
        // SAFETY: the caller's word.
        mark_slack(unsafe { slack(block, layout.size(), class) });
    }
}

/// Whether nobody wrote there since.
///
/// # Safety
///
/// The caller owns the object; the block had that size when it was marked.
pub(super) unsafe fn check(block: NonNull<u8>, size: usize, class: usize) -> Result<(), Fault> {
    // SAFETY: the caller's word.
    match overwritten(unsafe { slack(block, size, class) }) {
        Some(at) => Err(Fault::WrittenPastEnd {
            index: index_in_frame(block.addr().get(), class),
            byte: size + at,
        }),
        None => Ok(()),
    }
}

/// # Safety
///
/// The caller owns the object for as long as they use the slice.
unsafe fn slack<'a>(block: NonNull<u8>, size: usize, class: usize) -> &'a mut [u8] {
    let start = block.as_ptr().wrapping_add(size);
    let object = SizeClasses::SIZES[class];
    let to_end = FRAME_SIZE - block.addr().get() % FRAME_SIZE;
    let left = (to_end - 1) % object + 1;
    // SAFETY: from the end of the block to the end of the object, which the caller owns.
    unsafe { slice::from_raw_parts_mut(start, left - size) }
}
