//! The reserve tree: who may hold how much emergency memory, and the frames that back it.
//!
//! Demand goes up the tree, usage does not (M5). A node says how many frames its worst case takes
//! (its [`Budget`](crate::Budget)) and how many units (bytes, objects) may be charged to it. The
//! frames are added up to the root, which holds them in its [`Zone`](crate::Zone)'s reserve; the
//! units are counted at the node alone.

mod error;
mod table;
mod wait;

use core::cmp::Ordering;
use core::fmt;

use lock_api::{Mutex, MutexGuard, RawMutex};

use crate::ablation::{Ablation, Mechanism};
use crate::counter::{Counter, Gauge, Writer};
use crate::event::{EVENTS, loud};
use crate::{__event, CriticalSection};

pub use error::{BackingError, ChargeError, ReserveError};
pub use table::{ReserveStats, ReserveWalk};
pub use wait::ChargeWaiters;

/// One holder of emergency memory. It prints as a table of its tree, from itself downwards: see
/// [`walk`](Self::walk).
///
/// ```
/// use mempool::{Buddy, FrameEntry, ReserveNode, SingleTask, Watermarks, Zone};
///
/// let (mut memory, mut table) = (vec![0u8; 65 * mempool::FRAME_SIZE], [FrameEntry::EMPTY; 65]);
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
/// assert_eq!(
///     total.to_string(),
///     "\
/// reserve                       limit        usage         peak    pages   failures
/// total reserve                     0            0            0        4          0
///   network                         0            0            0        4          0
///     rx                        16128         2016         2016        4          0"
/// );
/// drop(charge);
/// assert_eq!(rx.usage(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ReserveNode<'t, R = CriticalSection> {
    name: &'static str,
    backing: Option<&'t dyn ReserveBacking>,
    waiters: Option<&'t dyn ChargeWaiters>,
    books: Books,
    state: Mutex<R, State<'t, R>>,
}

/// What is read without the lock. Written under it.
struct Books {
    /// Frames that this node and all below ask for.
    pages: Gauge,
    limit: Gauge,
    usage: Gauge,
    peak: Gauge,
    failures: Counter,
}

struct State<'t, R> {
    writer: Writer,
    parent: Option<&'t ReserveNode<'t, R>>,
    first_child: Option<&'t ReserveNode<'t, R>>,
    /// The next child of the same parent.
    next: Option<&'t ReserveNode<'t, R>>,
    /// Frames that this node asks for.
    own: usize,
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
            writer: Writer::new(),
            parent: None,
            first_child: None,
            next: None,
            own: 0,
            refused: false,
            ablation: Ablation::NONE,
        };
        ReserveNode {
            name,
            backing,
            waiters,
            books: Books {
                pages: Gauge::new(0),
                limit: Gauge::new(0),
                usage: Gauge::new(0),
                peak: Gauge::new(0),
                failures: Counter::new(),
            },
            state: Mutex::const_new(R::INIT, state),
        }
    }

    /// Puts this node, with all below it, under `parent`, behind the children that it has. O(depth),
    /// and O(children of the parent).
    ///
    /// The frames stay set aside until the node is [disconnected](Self::disconnect): do that before
    /// it is dropped, on error paths as well. Connections of one tree are made, and ended, one after
    /// another, not from two threads at once: each looks for cycles before it makes its own, and for
    /// its neighbours. Charges and limits may change meanwhile.
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
        let pages = self.books.pages.get();
        parent.grow(pages)?;
        state.parent = Some(parent);
        state.next = None;
        drop(state);
        self.link(parent);
        __event!(
            info,
            "reserve {}: connected to {} with {} frames",
            self.name,
            parent.name,
            pages
        );
        Ok(())
    }

    /// Takes this node, with all below it, out of its tree and returns the frames. The nodes below
    /// must be quiescent: usage does not go up the tree, so it is not seen from here. O(depth), and
    /// O(children of the parent).
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
        if self.books.usage.get() > 0 {
            return Err(ReserveError::InUse);
        }
        let Some(parent) = state.parent.take() else {
            return Ok(());
        };
        let pages = self.books.pages.get();
        parent.shrink(pages);
        let next = state.next;
        drop(state);
        self.unlink(parent, next);
        __event!(
            info,
            "reserve {}: disconnected from {}, {} frames returned",
            self.name,
            parent.name,
            pages
        );
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
        if self.books.usage.get() > limit {
            return Err(ReserveError::InUse);
        }
        let own = state.own;
        if pages > own {
            self.grow_locked(&mut state, pages - own)?;
        } else {
            self.shrink_locked(&mut state, own - pages);
        }
        state.own = pages;
        let raised = limit > self.books.limit.get();
        self.books.limit.set(&mut state.writer, limit);
        if raised {
            self.released(state);
        } else {
            drop(state);
        }
        __event!(
            info,
            "reserve {}: limit {}, backed by {} frames",
            self.name,
            limit,
            pages
        );
        Ok(())
    }

    /// Frames that this node and all below it ask for.
    pub fn pages(&self) -> usize {
        self.books.pages.get()
    }

    /// Units charged now.
    pub fn usage(&self) -> usize {
        self.books.usage.get()
    }

    /// Units that may be charged.
    pub fn limit(&self) -> usize {
        self.books.limit.get()
    }

    /// The most units that were charged at once.
    pub fn peak(&self) -> usize {
        self.books.peak.get()
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
        let pages = self.books.pages.get().checked_add(frames);
        let pages = pages.ok_or(too_many)?;
        match (self.backing, state.parent) {
            (Some(_), _) if state.ablation.off(Mechanism::Backing) => {}
            (Some(backing), _) => backing.grow(frames).map_err(ReserveError::Backing)?,
            (None, Some(parent)) => parent.grow(frames)?,
            (None, None) => {}
        }
        self.books.pages.set(&mut state.writer, pages);
        Ok(())
    }

    fn shrink(&self, frames: usize) {
        self.shrink_locked(&mut self.state.lock(), frames);
    }

    fn shrink_locked(&self, state: &mut State<'t, R>, frames: usize) {
        let pages = self.books.pages.get() - frames;
        self.books.pages.set(&mut state.writer, pages);
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
            return Err(self.refuse(state, units, ChargeError::Unbacked));
        }
        let (limit, ablation) = (self.books.limit.get(), state.ablation);
        let fits = |usage: &usize| match usage.cmp(&limit) {
            Ordering::Less => true,
            Ordering::Equal => !ablation.off(Mechanism::FullCharge),
            Ordering::Greater => ablation.off(Mechanism::ChargeLimit),
        };
        let usage = self.books.usage.get().checked_add(units);
        let Some(usage) = usage.filter(fits) else {
            state.refused = true;
            return Err(self.refuse(state, units, ChargeError::OverLimit));
        };
        self.books.usage.set(&mut state.writer, usage);
        if usage > self.books.peak.get() {
            self.books.peak.set(&mut state.writer, usage);
        }
        Ok(Charge { node: self, units })
    }

    #[cold]
    fn refuse(
        &self,
        mut state: MutexGuard<'_, R, State<'_, R>>,
        units: usize,
        error: ChargeError,
    ) -> ChargeError {
        self.books.failures.count(&mut state.writer);
        let nth = self.books.failures.get();
        drop(state);
        if EVENTS && loud(nth) {
            __event!(
                warn,
                "reserve {}: a charge of {} was refused ({} so far): {}, {} of {} charged",
                self.name,
                units,
                nth,
                error,
                self.books.usage.get(),
                self.books.limit.get()
            );
        }
        error
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
            let usage = self.books.usage.get() - units;
            self.books.usage.set(&mut state.writer, usage);
        }
        self.released(state);
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
