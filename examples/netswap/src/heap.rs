//! Counts what the swap path takes from the heap, which must be nothing: to free a page must not
//! need memory of unknown size (S5). The crates promise it; here every run checks it.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};
use std::alloc::System;

/// Allocations made inside [`on_swap_path`] since the process began.
static TAKEN: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this thread is inside [`on_swap_path`].
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, with a look at who asks.
struct Watching;

// SAFETY: every call goes to the system's allocator as it is; looking touches a flag and a counter
// that are not on the heap.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if WATCHED.get() {
            TAKEN.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Runs a step of paging, and counts what this thread takes from the heap meanwhile.
pub(crate) fn on_swap_path<T>(step: impl FnOnce() -> T) -> T {
    let outer = WATCHED.replace(true);
    let result = step();
    WATCHED.set(outer);
    result
}

/// Allocations on the swap path so far.
pub(crate) fn taken() -> u64 {
    TAKEN.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use core::hint::black_box;

    use super::*;

    #[test]
    fn what_is_taken_on_the_swap_path_is_counted_and_nothing_else() {
        let before = taken();
        drop(black_box(Box::new(1)));
        assert_eq!(taken(), before);
        on_swap_path(|| drop(black_box(Box::new(1))));
        assert_eq!(taken(), before + 1);
        drop(black_box(Box::new(1)));
        assert_eq!(taken(), before + 1);
    }
}
