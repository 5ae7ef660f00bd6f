//! The reserve tree: who may hold how much emergency memory, and the frames that back it.
//!
//! Demand goes up the tree, usage does not (M5). A node says how many frames its worst case takes
//! (its [`Budget`](crate::Budget)) and how many units (bytes, objects) may be charged to it. The
//! frames are added up to the root, which holds them in its [`Zone`](crate::Zone)'s reserve; the
//! units are counted at the node alone.

mod error;
mod wait;

use core::cmp::Ordering;
use core::fmt;

use lock_api::{Mutex, MutexGuard, RawMutex};

use crate::CriticalSection;
use crate::ablation::{Ablation, Mechanism};

pub use error::{BackingError, ChargeError, ReserveError};
pub use wait::ChargeWaiters;

/// One holder of emergency memory.
///
/// ```
/// use mempool::{Buddy, FrameEntry, ReserveNode, SingleTask, Watermarks, Zone};
///
/// let (mut memory, mut table) = (vec![0u8; 65 * 4096], [FrameEntry::EMPTY; 65]);
/// let source = <Buddy>::new(&mut memory, &mut table)?;
/// let task = SingleTask::new();
/// let zone = <Zone>::new(&source, &task, Watermarks::default())?;
///
/// let total: ReserveNode<'_> = ReserveNode::root("total reserve", &zone);
/// let network = ReserveNode::new("network");
/// let rx = ReserveNode::new("rx");
/// rx.set_limit(8 * 2016, 4)?;
/// rx.connect(&network)?;
/// network.connect(&total)?;
/// assert_eq!((total.pages(), zone.stats().reserve), (4, 4));
///
/// let charge = rx.charge(2016)?;
/// assert_eq!(rx.usage(), 2016);
/// drop(charge);
/// assert_eq!(rx.usage(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ReserveNode<'t, R = CriticalSection> {
    name: &'static str,
    backing: Option<&'t dyn ReserveBacking>,
    waiters: Option<&'t dyn ChargeWaiters>,
    state: Mutex<R, State<'t, R>>,
}

struct State<'t, R> {
    parent: Option<&'t ReserveNode<'t, R>>,
    /// Frames that this node asks for.
    own: usize,
    /// Frames that this node and all below ask for.
    pages: usize,
    limit: usize,
    usage: usize,
    peak: usize,
    /// A charge was refused since the waiters were told last.
    refused: bool,
    ablation: Ablation,
}

/// What holds the frames of a whole tree: a [`Zone`](crate::Zone).
pub trait ReserveBacking: Sync {
    /// Sets `frames` more frames aside. Called with the nodes on the way up locked: it must not
    /// ask them anything.
    ///
    /// # Errors
    ///
    /// So many are not free above the `min` mark; nothing has changed.
    fn grow(&self, frames: usize) -> Result<(), BackingError>;

    /// Returns `frames` to ordinary use; under the same locks.
    ///
    /// # Panics
    ///
    /// If so many are not set aside (M5).
    fn shrink(&self, frames: usize);
}

impl<'t, R: RawMutex> ReserveNode<'t, R> {
    /// A node without limit, frames or parent; nothing can be charged to it yet.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self::make(name, None, None)
    }

    /// A node at which callers wait for charges: see [`ChargeWaiters`].
    #[must_use]
    pub const fn with_waiters(name: &'static str, waiters: &'t dyn ChargeWaiters) -> Self {
        Self::make(name, None, Some(waiters))
    }

    /// The root of a tree, backed by `backing`.
    #[must_use]
    pub const fn root(name: &'static str, backing: &'t dyn ReserveBacking) -> Self {
        Self::make(name, Some(backing), None)
    }

    const fn make(
        name: &'static str,
        backing: Option<&'t dyn ReserveBacking>,
        waiters: Option<&'t dyn ChargeWaiters>,
    ) -> Self {
        let state = State {
            parent: None,
            own: 0,
            pages: 0,
            limit: 0,
            usage: 0,
            peak: 0,
            refused: false,
            ablation: Ablation::NONE,
        };
        ReserveNode {
            name,
            backing,
            waiters,
            state: Mutex::const_new(R::INIT, state),
        }
    }

    /// Puts this node, with all below it, under `parent`. O(depth).
    ///
    /// The frames stay set aside until the node is [disconnected](Self::disconnect): do that before
    /// it is dropped, on error paths as well. Connections of one tree are made one after another,
    /// not from two threads at once: each looks for cycles before it makes its own.
    ///
    /// # Errors
    ///
    /// [`ReserveError::Connected`] if it has a parent or is a root, [`ReserveError::Cycle`] if
    /// `parent` lies below it, [`ReserveError::Backing`] if the root cannot back its frames.
    /// Nothing has changed then.
    pub fn connect(&'t self, parent: &'t ReserveNode<'t, R>) -> Result<(), ReserveError> {
        if self.backing.is_some() {
            return Err(ReserveError::Connected);
        }
        let mut above = Some(parent);
        while let Some(node) = above {
            if core::ptr::eq(node, self) {
                return Err(ReserveError::Cycle);
            }
            above = node.state.lock().parent;
        }
        // Locks are taken from the leaf to the root, here as everywhere.
        let mut state = self.state.lock();
        if state.parent.is_some() {
            return Err(ReserveError::Connected);
        }
        parent.grow(state.pages)?;
        state.parent = Some(parent);
        Ok(())
    }

    /// Takes this node, with all below it, out of its tree and returns the frames. The nodes below
    /// must be quiescent: usage does not go up the tree, so it is not seen from here.
    ///
    /// # Errors
    ///
    /// [`ReserveError::InUse`] if something is charged to this node, [`ReserveError::Root`] if it is
    /// a root: its own frames go back with [`set_limit`](Self::set_limit).
    pub fn disconnect(&self) -> Result<(), ReserveError> {
        if self.backing.is_some() {
            return Err(ReserveError::Root);
        }
        let mut state = self.state.lock();
        if state.usage > 0 {
            return Err(ReserveError::InUse);
        }
        if let Some(parent) = state.parent.take() {
            parent.shrink(state.pages);
        }
        Ok(())
    }

    /// Lets `limit` units be charged, backed by `pages` frames. Frames are acquired before the
    /// limit rises, and returned after it fell (M5, N4).
    ///
    /// # Errors
    ///
    /// [`ReserveError::InUse`] if more than `limit` is charged already, [`ReserveError::Backing`]
    /// if the root cannot back the frames. Nothing has changed then.
    pub fn set_limit(&self, limit: usize, pages: usize) -> Result<(), ReserveError> {
        let mut state = self.state.lock();
        if state.usage > limit {
            return Err(ReserveError::InUse);
        }
        let own = state.own;
        if pages > own {
            self.grow_locked(&mut state, pages - own)?;
        } else {
            self.shrink_locked(&mut state, own - pages);
        }
        state.own = pages;
        let raised = limit > state.limit;
        state.limit = limit;
        if raised {
            self.released(state);
        }
        Ok(())
    }

    /// Frames that this node and all below it ask for.
    pub fn pages(&self) -> usize {
        self.state.lock().pages
    }

    /// Units charged now.
    pub fn usage(&self) -> usize {
        self.state.lock().usage
    }

    /// Units that may be charged.
    pub fn limit(&self) -> usize {
        self.state.lock().limit
    }

    /// The most units that were charged at once.
    pub fn peak(&self) -> usize {
        self.state.lock().peak
    }

    /// The name given when it was made.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Switches a mechanism of this node off, for good. A mechanism of another object changes
    /// nothing.
    #[cfg(feature = "ablation")]
    pub fn ablate(&self, mechanism: Mechanism) {
        self.state.lock().ablation.ablate(mechanism);
    }

    fn grow(&self, frames: usize) -> Result<(), ReserveError> {
        self.grow_locked(&mut self.state.lock(), frames)
    }

    fn grow_locked(&self, state: &mut State<'t, R>, frames: usize) -> Result<(), ReserveError> {
        // No memory has so many frames, whether a root counts them now or when it is connected.
        let too_many = ReserveError::Backing(BackingError { missing: frames });
        let pages = state.pages.checked_add(frames).ok_or(too_many)?;
        match (self.backing, state.parent) {
            (Some(_), _) if state.ablation.off(Mechanism::Backing) => {}
            (Some(backing), _) => backing.grow(frames).map_err(ReserveError::Backing)?,
            (None, Some(parent)) => parent.grow(frames)?,
            (None, None) => {}
        }
        state.pages = pages;
        Ok(())
    }

    fn shrink(&self, frames: usize) {
        self.shrink_locked(&mut self.state.lock(), frames);
    }

    fn shrink_locked(&self, state: &mut State<'t, R>, frames: usize) {
        state.pages -= frames;
        match (self.backing, state.parent) {
            (Some(_), _) if state.ablation.off(Mechanism::Backing) => {}
            (Some(backing), _) => backing.shrink(frames),
            (None, Some(parent)) => parent.shrink(frames),
            (None, None) => {}
        }
    }

    /// Units may have come free: whoever waits is told, with the lock released.
    fn released(&self, mut state: MutexGuard<'_, R, State<'t, R>>) {
        let refused = core::mem::take(&mut state.refused);
        drop(state);
        if let Some(waiters) = self.waiters.filter(|_| refused) {
            waiters.released();
        }
    }

    fn has_backing(&self, state: &State<'t, R>) -> bool {
        let mut above = state.parent;
        let mut backed = self.backing.is_some();
        while let Some(node) = above {
            backed |= node.backing.is_some();
            above = node.state.lock().parent;
        }
        backed
    }
}

impl<R: RawMutex + Send + Sync> ReserveNode<'_, R> {
    /// Charges `units` until the guard is dropped: before the emergency allocation, so that the
    /// guard goes after the memory (M6). O(depth).
    ///
    /// # Errors
    ///
    /// [`ChargeError::OverLimit`] if less than `units` is left (a charge that fills the limit is
    /// admitted), [`ChargeError::Unbacked`] if the node is not connected to a root.
    pub fn charge(&self, units: usize) -> Result<Charge<'_>, ChargeError> {
        let mut state = self.state.lock();
        if !self.has_backing(&state) {
            return Err(ChargeError::Unbacked);
        }
        let State {
            limit, ablation, ..
        } = *state;
        let fits = |usage: &usize| match usage.cmp(&limit) {
            Ordering::Less => true,
            Ordering::Equal => !ablation.off(Mechanism::FullCharge),
            Ordering::Greater => ablation.off(Mechanism::ChargeLimit),
        };
        let Some(usage) = state.usage.checked_add(units).filter(fits) else {
            state.refused = true;
            return Err(ChargeError::OverLimit);
        };
        state.usage = usage;
        state.peak = state.peak.max(state.usage);
        Ok(Charge { node: self, units })
    }
}

/// A reserve node without its type parameters.
pub trait Reserve: Sync {
    /// See [`ReserveNode::charge`].
    ///
    /// # Errors
    ///
    /// See [`ReserveNode::charge`].
    fn charge(&self, units: usize) -> Result<Charge<'_>, ChargeError>;

    /// Units charged now.
    fn usage(&self) -> usize;

    /// Units that may be charged.
    fn limit(&self) -> usize;

    /// The most units that were charged at once.
    fn peak(&self) -> usize;

    /// The name given when it was made.
    fn name(&self) -> &'static str;
}

impl<R: RawMutex + Send + Sync> Reserve for ReserveNode<'_, R> {
    fn charge(&self, units: usize) -> Result<Charge<'_>, ChargeError> {
        ReserveNode::charge(self, units)
    }

    fn usage(&self) -> usize {
        ReserveNode::usage(self)
    }

    fn limit(&self) -> usize {
        ReserveNode::limit(self)
    }

    fn peak(&self) -> usize {
        ReserveNode::peak(self)
    }

    fn name(&self) -> &'static str {
        self.name
    }
}

/// Units charged to a node. The charge ends with the guard, exactly once and for exactly what was
/// charged: nothing else can be written down.
#[must_use = "a charge ends when it is dropped"]
pub struct Charge<'r> {
    node: &'r dyn Uncharge,
    units: usize,
}

impl Charge<'_> {
    /// Units charged.
    #[must_use]
    pub fn units(&self) -> usize {
        self.units
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        self.node.uncharge(self.units);
    }
}

impl fmt::Debug for Charge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charge")
            .field("units", &self.units)
            .finish_non_exhaustive()
    }
}

trait Uncharge: Sync {
    fn uncharge(&self, units: usize);
}

impl<R: RawMutex + Send + Sync> Uncharge for ReserveNode<'_, R> {
    fn uncharge(&self, units: usize) {
        let mut state = self.state.lock();
        if !state.ablation.off(Mechanism::Uncharge) {
            state.usage -= units;
        }
        self.released(state);
    }
}

/// One line of a `/proc/reserve_info`: name, frames, usage, peak and limit.
impl<R: RawMutex> fmt::Display for ReserveNode<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State {
            pages,
            usage,
            peak,
            limit,
            ..
        } = *self.state.lock();
        write!(
            f,
            "{:<16} {pages:>6} pages {usage:>9} used {peak:>9} peak {limit:>9} limit",
            self.name
        )
    }
}

impl<R> fmt::Debug for ReserveNode<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReserveNode")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
