//! A lock that is a critical section: the default where nothing is known of the kernel.

use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;

use critical_section::RestoreState;
use lock_api::{GuardNoSend, RawMutex};

/// A [`RawMutex`] over the [`critical_section`] crate.
///
/// Guards of several such locks must be dropped in the reverse order of locking, as scopes do.
///
/// # Panics
///
/// Locking panics if this very lock is already held: inside a critical section nobody else can
/// hold it, so waiting would be for ever.
pub struct CriticalSection {
    held: Cell<bool>,
    restore: UnsafeCell<MaybeUninit<RestoreState>>,
}

// SAFETY: both fields are touched only inside a critical section, which excludes every other
// thread, core and interrupt.
unsafe impl Sync for CriticalSection {}
// SAFETY: the restore state belongs to the section, and is present only while the lock is held;
// guards are `GuardNoSend`.
unsafe impl Send for CriticalSection {}

// SAFETY: exclusion is that of the critical section, held from `lock` to `unlock`.
unsafe impl RawMutex for CriticalSection {
    const INIT: Self = CriticalSection {
        held: Cell::new(false),
        restore: UnsafeCell::new(MaybeUninit::uninit()),
    };

    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        assert!(self.try_lock(), "a lock was taken again by its holder");
    }

    fn try_lock(&self) -> bool {
        // SAFETY: released in `unlock`, or just below.
        let restore = unsafe { critical_section::acquire() };
        if self.held.replace(true) {
            // SAFETY: pairs with the acquire above.
            unsafe { critical_section::release(restore) };
            return false;
        }
        // SAFETY: inside the section and `held` was false: nobody else touches the cell.
        unsafe { (*self.restore.get()).write(restore) };
        true
    }

    unsafe fn unlock(&self) {
        // SAFETY: the caller holds the lock, so `lock` wrote the state, and we are still inside
        // its section.
        let restore = unsafe { (*self.restore.get()).assume_init_read() };
        self.held.set(false);
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
    #[should_panic(expected = "taken again by its holder")]
    fn taking_it_twice_is_named_not_waited_for() {
        let a = Mutex::new(());
        let _first = a.lock();
        let _second = a.lock();
    }
}
