//! A lock that is a critical section: the default where nothing is known of the kernel.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

use critical_section::RestoreState;
use lock_api::{GuardNoSend, RawMutex};

/// A [`RawMutex`] over the [`critical_section`] crate.
///
/// It is the default of this crate's types, which drop their guards in the reverse order of locking,
/// as [`critical_section`] demands. For data of your own use `critical_section::Mutex`: of two guards
/// of this type, dropped in the wrong order, the first ends the critical section, and the data of
/// the second is then kept from others by its lock alone.
///
/// # Panics
///
/// Locking panics if this very lock is already held: inside a critical section nobody else can
/// hold it, so waiting would be for ever.
pub struct CriticalSection {
    /// Set inside a critical section, so that two cannot set it at once; cleared by the holder alone.
    held: AtomicBool,
    restore: UnsafeCell<MaybeUninit<RestoreState>>,
}

// SAFETY: `held` goes from false to true only inside a critical section, which excludes every other
// thread, core and interrupt; `restore` is touched only by whoever made it so, until they clear it.
unsafe impl Sync for CriticalSection {}
// SAFETY: the restore state belongs to the section, and is present only while the lock is held;
// guards are `GuardNoSend`.
unsafe impl Send for CriticalSection {}

// SAFETY: exclusion is that of `held`, which one at a time can set: see `Sync`.
unsafe impl RawMutex for CriticalSection {
    const INIT: Self = CriticalSection {
        held: AtomicBool::new(false),
        restore: UnsafeCell::new(MaybeUninit::uninit()),
    };

    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        assert!(self.try_lock(), "a lock was taken again by its holder");
    }

    fn try_lock(&self) -> bool {
        // SAFETY: released in `unlock`, or just below.
        let restore = unsafe { critical_section::acquire() };
        // Load and store, not swap: nobody comes in between, and some targets have no swap.
        if self.held.load(Ordering::Acquire) {
            // SAFETY: pairs with the acquire above.
            unsafe { critical_section::release(restore) };
            return false;
        }
        self.held.store(true, Ordering::Relaxed);
        // SAFETY: inside the section and `held` was false: nobody else touches the cell.
        unsafe { (*self.restore.get()).write(restore) };
        true
    }

    unsafe fn unlock(&self) {
        // SAFETY: the caller holds the lock, so `lock` wrote the state, and nobody else touches it.
        let restore = unsafe { (*self.restore.get()).assume_init_read() };
        self.held.store(false, Ordering::Release);
        // SAFETY: pairs with the acquire of `try_lock`.
        unsafe { critical_section::release(restore) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Mutex<T> = lock_api::Mutex<CriticalSection, T>;

    #[test]
    fn excludes_other_threads() {
        let sum = Mutex::new(0u32);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| (0..1000).for_each(|_| *sum.lock() += 1));
            }
        });
        assert_eq!(*sum.lock(), 4000);
    }

    #[test]
    fn nests_with_another_lock() {
        let (a, b) = (Mutex::new(1), Mutex::new(2));
        let first = a.lock();
        assert_eq!(*first + *b.lock(), 3);
    }

    #[test]
    fn out_of_order_it_still_keeps_others_out() {
        let (a, b) = (Mutex::new(1), Mutex::new(2));
        let (first, second) = (a.lock(), b.lock());
        drop(first);
        std::thread::scope(|s| {
            s.spawn(|| assert!(b.try_lock().is_none())).join().unwrap();
        });
        drop(second);
        assert!(b.try_lock().is_some());
    }

    #[test]
    #[should_panic(expected = "taken again by its holder")]
    fn taking_it_twice_is_named_not_waited_for() {
        let a = Mutex::new(());
        let _first = a.lock();
        let _second = a.lock();
    }
}
