//! Locks that loom explores: for tests with `--cfg loom`, as `#[path = "support/loom_lock.rs"] mod`.
//!
//! A lock is made inside the model, and by a constant (`RawMutex::INIT`), so that loom's own objects
//! come into being at its first use. Beside the lock lies a cell that loom watches: whoever holds the
//! lock also holds the cell for writing. So loom reports two holders at once, and a holder who does
//! not see what the one before did, whatever the lock protects.

use core::cell::UnsafeCell;
use std::sync::OnceLock;

use lock_api::{GuardNoSend, RawMutex};
use loom::cell::MutPtr;
use loom::sync::{Mutex, MutexGuard};

/// A lock of loom's: `try_lock` may fail, `lock` waits.
pub(crate) type LoomLock = Lock<true>;

/// A lock that lets everybody in: the bug that a model must find, to show that it can.
#[allow(dead_code)]
pub(crate) type NoLock = Lock<false>;

/// See [`LoomLock`] and [`NoLock`].
pub(crate) struct Lock<const EXCLUDES: bool> {
    mutex: OnceLock<Mutex<()>>,
    /// Made by whoever holds the lock first: to loom that is a write.
    cell: OnceLock<loom::cell::UnsafeCell<()>>,
    /// Of whoever holds the lock, and touched by nobody else.
    held: UnsafeCell<Option<Held>>,
}

struct Held {
    // Dropped in this order: the cell is given up before the lock is.
    _cell: MutPtr<()>,
    _guard: Option<MutexGuard<'static, ()>>,
}

// SAFETY: loom runs its threads one at a time on one thread of the system, and switches only inside
// its own operations, none of which is called while `held` is being read or written.
unsafe impl<const EXCLUDES: bool> Sync for Lock<EXCLUDES> {}
// SAFETY: as above; a guard is `GuardNoSend`, so that a lock which is held does not move.
unsafe impl<const EXCLUDES: bool> Send for Lock<EXCLUDES> {}

impl<const EXCLUDES: bool> Lock<EXCLUDES> {
    fn mutex(&self) -> &'static Mutex<()> {
        let mutex = self.mutex.get_or_init(|| Mutex::new(()));
        // SAFETY: the guard made of it ends in `unlock`, before which the lock cannot go away.
        unsafe { &*core::ptr::from_ref(mutex) }
    }

    fn enter(&self, guard: Option<MutexGuard<'static, ()>>) {
        let held = Held {
            _cell: self
                .cell
                .get_or_init(|| loom::cell::UnsafeCell::new(()))
                .get_mut(),
            _guard: guard,
        };
        // SAFETY: this thread holds the lock; of a `NoLock` loom has just found who else does.
        unsafe { *self.held.get() = Some(held) };
    }
}

// SAFETY: `LoomLock` excludes as loom's mutex does. `NoLock` does not, which is what it is for: loom
// ends the run at the second holder, in `enter`.
unsafe impl<const EXCLUDES: bool> RawMutex for Lock<EXCLUDES> {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = Lock {
        mutex: OnceLock::new(),
        cell: OnceLock::new(),
        held: UnsafeCell::new(None),
    };

    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        let guard = EXCLUDES.then(|| self.mutex().lock().expect("nobody panicked with it"));
        self.enter(guard);
    }

    fn try_lock(&self) -> bool {
        if EXCLUDES {
            let Ok(guard) = self.mutex().try_lock() else {
                return false;
            };
            self.enter(Some(guard));
        } else {
            self.enter(None);
        }
        true
    }

    unsafe fn unlock(&self) {
        // SAFETY: the caller holds the lock.
        let held = unsafe { (*self.held.get()).take() };
        drop(held);
    }
}
