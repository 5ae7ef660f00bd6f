//! What happens before an allocation fails: hooks of a zone, called outside its lock.
//!
//! ```text
//!  free frames fall below low ─► wake_background   whoever allocates, an interrupt too
//!  a caller who may wait finds nothing ─► throttle, if half of the reserve is gone
//!                                      ─► reclaim, and once more, as long as it frees anything
//!  then it fails
//! ```

use crate::{Gfp, Level};

/// Hooks of a [`Zone`](crate::Zone): how a kernel makes room. No lock of the zone is held while they
/// run.
///
/// ```
/// use core::sync::atomic::{AtomicBool, Ordering};
/// use mempool::{
///     Buddy, FrameEntry, Gfp, Level, Pressure, SingleTask, Watermarks, Zone, FRAME_SIZE,
/// };
///
/// /// Wakes a thread that evicts pages.
/// #[derive(Default)]
/// struct Kswapd(AtomicBool);
///
/// impl Pressure for Kswapd {
///     fn wake_background(&self, _: Level) {
///         self.0.store(true, Ordering::Relaxed);
///     }
/// }
///
/// let (mut memory, mut table) = (vec![0u8; 17 * FRAME_SIZE], [FrameEntry::EMPTY; 17]);
/// let source = <Buddy>::new(&mut memory, &mut table)?;
/// let (task, kswapd) = (SingleTask::new(), Kswapd::default());
/// let marks = Watermarks { min: 2, low: 4, high: 6 };
/// let zone = <Zone>::new(&source, &task, marks)?.with_pressure(&kswapd);
///
/// let mut held = Vec::new();
/// while !kswapd.0.load(Ordering::Relaxed) {
///     held.push(zone.alloc(0, Gfp::KERNEL)?);
/// }
/// assert_eq!(zone.stats().free, 3, "below low, and nothing has failed");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Pressure: Sync {
    /// Free frames are below `low`: background reclaim should work until `high` is reached. Called
    /// after every allocation that leaves it so and for every one that fails, in the context of the
    /// allocation, an interrupt included: it must not wait, and to wake what is awake must be cheap.
    fn wake_background(&self, level: Level);

    /// A caller who may wait is about to fail: make room for it, now. Returns how many frames came
    /// free, 0 to let it fail. The caller then tries again.
    ///
    /// Runs in a memalloc scope, so that what it allocates may come out of the reserve and does not
    /// reclaim in turn. With [`Gfp::NOIO`] in `gfp` it must start no I/O: the caller holds what I/O
    /// needs.
    fn reclaim(&self, order: u8, gfp: Gfp, level: Level) -> usize {
        let _ = (order, gfp, level);
        0
    }

    /// Half of the reserve or more is in use, and another caller who may wait has come: let it
    /// wait until those who free memory have got on. Called before [`reclaim`](Self::reclaim).
    fn throttle(&self, level: Level) {
        let _ = level;
    }
}
