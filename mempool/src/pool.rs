//! A pool: elements set aside so that work which holds only a few at once always gets on.
//!
//! The reserve is for work that frees memory. A pool is for work that must get on whether or not it
//! is entitled, and that gives back what it took: a few elements, which come round again and again.
//! The pool never waits and never calls anybody with its lock held; who waits is
//! [woken](Pool::poll_alloc).

use core::fmt;
use core::task::{Context, Poll, Waker};

use lock_api::{Mutex, RawMutex};

use crate::ablation::{Ablation, Mechanism};
use crate::event::{EVENTS, loud};
use crate::{__event, AllocError, Budget, BufferCache, CriticalSection, Gfp};

mod error;
mod guard;
mod source;
mod state;
mod wait;

pub use error::{FillError, PoolError};
use guard::Keeper;
pub use guard::Pooled;
pub use source::{PoolElement, PoolSource};
pub use state::PoolStats;
use state::State;
use wait::Waiters;

/// A guaranteed minimum of elements of one source (Linux: `mempool_t`).
///
/// An allocation takes, in this order: ordinary memory of the source; an element of the pool; memory
/// of the reserve, if the caller is entitled. So the pool is there for hard times, and the reserve
/// for harder ones. What comes back refills the pool first, while it is below its minimum, and goes
/// to the source otherwise.
///
/// An element in reserve memory never stays in the pool, whose elements go to callers who are not
/// entitled (M4): it returns to the source at once, so that the reserve is whole again.
///
/// The promise: once the pool was [filled](Self::fill), an allocation fails only while elements of
/// the pool are out, and each of them that comes back serves the next. It holds as long as nobody
/// who has one waits for another: give every link of a chain of work a pool of its own. A guard that
/// is forgotten takes its element from the pool for ever, and there is no way to take it out of its
/// guard.
///
/// ```
/// use mempool::{
///     Buddy, FRAME_SIZE, FrameEntry, Gfp, Pool, PoolError, SingleTask, Watermarks, Zone,
/// };
///
/// let (mut memory, mut table) = (vec![0u8; 17 * FRAME_SIZE], [FrameEntry::EMPTY; 17]);
/// let source = <Buddy>::new(&mut memory, &mut table)?;
/// let task = SingleTask::new();
/// let zone = <Zone>::new(&source, &task, Watermarks { min: 4, low: 4, high: 4 })?;
///
/// let mut slots = [const { None }; 2];
/// let pool: Pool<'_, '_, _> = Pool::new("requests", &zone, &mut slots);
/// pool.fill(Gfp::KERNEL)?;
///
/// // Somebody takes all that ordinary callers can have …
/// let mut hog = Vec::new();
/// while let Ok(frame) = zone.alloc(0, Gfp::KERNEL) {
///     hog.push(frame);
/// }
/// // … and two requests at a time get on all the same, for as long as it takes.
/// for _ in 0..100 {
///     let (mut first, _second) = (pool.alloc(Gfp::KERNEL)?, pool.alloc(Gfp::KERNEL)?);
///     first[..4].copy_from_slice(b"data");
///     assert_eq!(pool.alloc(Gfp::KERNEL).unwrap_err(), PoolError::Empty);
/// }
/// assert_eq!((pool.stats().available, pool.stats().from_pool), (2, 200));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
// With the bound written out, the source may be a `dyn` that is borrowed for `'s`.
#[allow(explicit_outlives_requirements)]
pub struct Pool<'p, 's, S: PoolSource + ?Sized + 's, R = CriticalSection> {
    name: &'static str,
    source: &'s S,
    state: Mutex<R, State<'p, S::Element<'s>>>,
}

impl Pool<'_, '_, dyn BufferCache> {
    /// The frames that a pool of `min` elements keeps from others at worst, its elements being
    /// frames (`order` 0) or buffers in slabs of `1 << order` frames.
    ///
    /// Buffers count a slab each: the pool keeps whichever come back first, and the others of their
    /// slabs may be free. To fill it from a new cache of its own takes less:
    /// [`Budget::objects`]`(min, size, order)`.
    ///
    /// # Panics
    ///
    /// If the result is beyond any memory; in a `const` that is a compile error.
    ///
    /// ```
    /// use mempool::{Budget, Pool};
    ///
    /// const REQUESTS: Budget = Pool::budget(16, 0);
    /// assert_eq!(REQUESTS.frames(), 16);
    /// ```
    #[must_use]
    pub const fn budget(min: usize, order: u8) -> Budget {
        Budget::slabs(min, 1, order)
    }
}

impl<'p, 's, S: PoolSource + ?Sized, R: RawMutex> Pool<'p, 's, S, R> {
    /// An empty pool over `source`; [fill](Self::fill) it before it is needed. The length of `slots`
    /// is its minimum, in elements; whatever is in them is dropped. O(slots).
    pub fn new(name: &'static str, source: &'s S, slots: &'p mut [Option<S::Element<'s>>]) -> Self {
        Self::with_waiters(name, source, slots, &mut [])
    }

    /// As [`new`](Self::new), with room for as many tasks that [wait](Self::poll_alloc) as `waiters`
    /// is long; what is in there is dropped as well. O(slots + waiters).
    pub fn with_waiters(
        name: &'static str,
        source: &'s S,
        slots: &'p mut [Option<S::Element<'s>>],
        waiters: &'p mut [Option<Waker>],
    ) -> Self {
        Pool {
            name,
            source,
            state: Mutex::new(State::new(slots, Waiters::new(waiters))),
        }
    }
}

impl<'s, S: PoolSource + ?Sized, R: RawMutex + Send + Sync> Pool<'_, 's, S, R> {
    /// Takes elements of ordinary memory into the pool until it is full. With [`Gfp::WAIT`] the source may
    /// make room for them. O(slots).
    ///
    /// The reserve is no place for them: that the caller is entitled does not count here.
    ///
    /// # Errors
    ///
    /// [`FillError`] if the source had too few. What it had is in the pool; fill it again later.
    pub fn fill(&self, gfp: Gfp) -> Result<(), FillError> {
        let filled = loop {
            if self.state.lock().missing() == 0 {
                break Ok(());
            }
            let reason = match self.source.alloc_element(gfp | Gfp::NOMEMALLOC) {
                Ok(element) if element.reserve_derived() => AllocError::Exhausted,
                Ok(element) => {
                    // Others may have filled it meanwhile: then it is freed, with the lock released.
                    let _surplus = self.state.lock().put(element);
                    continue;
                }
                Err(reason) => reason,
            };
            let missing = self.state.lock().missing();
            break Err(FillError { missing, reason });
        };
        let waiting = {
            let mut state = self.state.lock();
            state.stats.min_available = state.stats.available;
            state.waiters.len()
        };
        self.wake(waiting);
        filled
    }

    /// Takes an element: of ordinary memory, of the pool, or of the reserve if the caller is
    /// entitled. Its bytes are whatever the last owner left, but for what [`Gfp::ZERO`] does at the
    /// source. O(1) and two calls of the source at most.
    ///
    /// Never waits, whatever the flags.
    ///
    /// # Errors
    ///
    /// [`PoolError::Empty`] if there was none. An element that comes back serves the next: try again
    /// then, or [poll](Self::poll_alloc).
    pub fn alloc(&self, gfp: Gfp) -> Result<Pooled<'_, S::Element<'s>>, PoolError> {
        self.attempt(gfp).ok_or_else(|| self.refuse(gfp))
    }

    /// As [`alloc`](Self::alloc), and lets the task wait where that fails: its waker is kept until an
    /// element comes back, to the pool or to its source, or until the pool is filled. Then all tasks
    /// that wait are woken: call again, first come, first served. O(waiters).
    ///
    /// Memory that is freed elsewhere wakes nobody; that the pool's own comes back suffices. Where
    /// there is no room for a waker, it takes the place of the one that waits longest, which is woken
    /// and polls again: too little room costs time, and never a wake-up.
    ///
    /// # Errors
    ///
    /// [`PoolError::Empty`] if nothing is out that could come back: the pool was not filled.
    pub fn poll_alloc(
        &self,
        context: &mut Context<'_>,
        gfp: Gfp,
    ) -> Poll<Result<Pooled<'_, S::Element<'s>>, PoolError>> {
        if let Some(pooled) = self.attempt(gfp) {
            return Poll::Ready(Ok(pooled));
        }
        // What came back before the waker was there has woken nobody: look again.
        let hope = self.wait(context.waker().clone());
        match self.attempt(gfp) {
            Some(pooled) => Poll::Ready(Ok(pooled)),
            None if hope => {
                self.state.lock().stats.waited += 1;
                Poll::Pending
            }
            None => Poll::Ready(Err(self.refuse(gfp))),
        }
    }

    /// A snapshot of the counters.
    pub fn stats(&self) -> PoolStats {
        self.state.lock().stats
    }

    /// The name given when it was made.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Switches a mechanism of this pool off, for good. A mechanism of another object changes
    /// nothing.
    #[cfg(feature = "ablation")]
    pub fn ablate(&self, mechanism: Mechanism) {
        self.state.lock().ablation.ablate(mechanism);
    }

    fn ablation(&self) -> Ablation {
        if cfg!(feature = "ablation") {
            self.state.lock().ablation
        } else {
            Ablation::NONE
        }
    }

    /// Nobody makes room for it: whoever frees memory may be the one that asks. And that the source has
    /// nothing is what a pool is for: no news.
    fn attempt(&self, gfp: Gfp) -> Option<Pooled<'_, S::Element<'s>>> {
        let gfp = gfp | Gfp::NORECLAIM | Gfp::NOWARN;
        if let Ok(element) = self.source.alloc_element(gfp | Gfp::NOMEMALLOC) {
            return Some(self.hand_out(element));
        }
        let kept = self.state.lock().take();
        if let Some(mut element) = kept {
            element.renew(gfp);
            return Some(Pooled::new(element, self));
        }
        if !self.source.may_dip(gfp) || self.ablation().off(Mechanism::PoolEntitledRetry) {
            return None;
        }
        let element = self.source.alloc_element(gfp).ok()?;
        Some(self.hand_out(element))
    }

    fn hand_out(&self, element: S::Element<'s>) -> Pooled<'_, S::Element<'s>> {
        let from_reserve = element.reserve_derived();
        self.state.lock().allocated(from_reserve);
        Pooled::new(element, self)
    }

    fn refuse(&self, gfp: Gfp) -> PoolError {
        let stats = {
            let mut state = self.state.lock();
            state.stats.refused += 1;
            state.stats
        };
        if EVENTS && loud(stats.refused) && !gfp.contains(Gfp::NOWARN) {
            __event!(
                warn,
                "pool {}: empty ({} times so far), flags {:?}: {} of at least {} elements are out",
                self.name,
                stats.refused,
                gfp,
                stats.in_use,
                stats.min
            );
        }
        PoolError::Empty
    }

    /// Lets `waker` wait; false if nothing is there, in the pool or out, for which it could.
    fn wait(&self, waker: Waker) -> bool {
        let longest = {
            let mut state = self.state.lock();
            if state.stats.available == 0 && state.stats.in_use == 0 {
                return false;
            }
            if state.waiters.contains(&waker) {
                return true;
            }
            state.waiters.push(waker)
        };
        if let Some(waker) = longest {
            waker.wake();
        }
        true
    }

    /// Wakes the `waiting` tasks that wait longest. All who waited when the element came back and
    /// not one alone: that one may have lost interest, and the others would sleep on. None who came
    /// later: they have looked for themselves, and there is no end to them.
    fn wake(&self, waiting: usize) {
        for _ in 0..waiting {
            let waker = self.state.lock().waiters.pop();
            let Some(waker) = waker else { return };
            waker.wake();
        }
    }
}

impl<'s, S: PoolSource + ?Sized, R: RawMutex + Send + Sync> Keeper<S::Element<'s>>
    for Pool<'_, 's, S, R>
{
    fn returned(&self, element: S::Element<'s>) {
        let ablation = self.ablation();
        let leaves = element.reserve_derived() && !ablation.off(Mechanism::PoolReserveReturn)
            || ablation.off(Mechanism::PoolRefill);
        // Memory is free before anybody is woken for it.
        let stays = if leaves {
            drop(element);
            None
        } else {
            Some(element)
        };
        let (surplus, waiting) = {
            let mut state = self.state.lock();
            state.stats.in_use -= 1;
            let surplus = stays.and_then(|element| state.put(element));
            (surplus, state.waiters.len())
        };
        drop(surplus);
        self.wake(waiting);
    }
}

impl<S: PoolSource + ?Sized, R> fmt::Debug for Pool<'_, '_, S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
