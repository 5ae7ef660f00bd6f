//! The address space: a backing store that can hold swapped pages.
//!
//! This is the seam between the pager and whatever keeps the pages: RAM, a block device, a file on
//! an NFS server. An address space never blocks and never allocates: a request is either admitted
//! whole, with everything that it will need already in hand (S1), or refused with its frames given
//! back. Frames move into the request and come back with its completion, on failure too.

use core::fmt;
use core::task::Poll;

use mempool::Budget;

use crate::Instant;

/// The most frames that one request carries.
pub const CLUSTER_FRAMES: usize = 8;

/// The frames of one request, in slot order.
pub type FrameList<F> = heapless::Vec<F, CLUSTER_FRAMES>;

/// One page worth of bytes, owned: what a request carries. `mempool::Frame` is one, and so is
/// `Box<[u8]>`.
pub trait PageFrame: AsRef<[u8]> + AsMut<[u8]> {}

impl<F: AsRef<[u8]> + AsMut<[u8]>> PageFrame for F {}

/// Index of a page-sized slot within one address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Slot(pub u32);

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum IoOp {
    /// Fill the frames from the slots.
    Read,
    /// Store the frames in the slots; complete only when that is stable (S2).
    Write,
}

/// Who waits for a request; the order is the order of service (S8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum IoClass {
    /// Nobody: pages are written ahead of need.
    Writeback,
    /// Nobody yet: readahead.
    Prefetch,
    /// A faulting task, through a page-out that frees its frame.
    Reclaim,
    /// A faulting task.
    Demand,
}

/// One request: consecutive slots from `slot` on, one frame each.
#[derive(Debug)]
pub struct SwapIo<F> {
    /// Read or write.
    pub op: IoOp,
    /// Slot of the first frame.
    pub slot: Slot,
    /// Who waits.
    pub class: IoClass,
    /// At least one frame, each of exactly [`Geometry::page_size`] bytes.
    pub frames: FrameList<F>,
    /// When the request is of no use any more, if that is sooner than the back end gives up by
    /// itself. It then ends as [`ErrorKind::TimedOut`] or [`ErrorKind::Unsent`].
    pub deadline: Option<Instant>,
}

impl<F> SwapIo<F> {
    /// A request without a deadline of its own.
    ///
    /// ```
    /// use swapspace::{IoClass, IoOp, Slot, SwapIo};
    ///
    /// let frames = [vec![0; 4096]].into_iter().collect();
    /// let io = SwapIo::new(IoOp::Read, Slot(3), IoClass::Demand, frames);
    /// assert_eq!(io.deadline, None);
    /// ```
    #[must_use]
    pub const fn new(op: IoOp, slot: Slot, class: IoClass, frames: FrameList<F>) -> Self {
        SwapIo {
            op,
            slot,
            class,
            frames,
            deadline: None,
        }
    }

    /// The same request, to end by `deadline` at the latest.
    #[must_use]
    pub fn by(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

/// Names a request in flight; unique among those in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Ticket(pub u32);

/// A finished request: its frames, and how it ended.
#[derive(Debug)]
pub struct Completion<F, E> {
    /// What [`AddressSpace::submit`] returned.
    pub ticket: Ticket,
    /// The request, frames included. After a failed read the contents of the frames mean nothing.
    pub io: SwapIo<F>,
    /// For a write, `Ok` means that every page is stable (S2). For a read, `Ok` means that every
    /// frame is filled and checked (S4). `Err` is about the frames from `done` on: none of them can
    /// be relied upon (S3).
    pub result: Result<(), E>,
    /// How many of the first frames are done all the same when the request failed: each written
    /// and stable, or filled and checked. Of no meaning after `Ok`. A back end that cannot tell
    /// says 0, which is always true.
    pub done: u8,
    /// An earlier copy of this write may still be carried out, at any later time: the slots hold
    /// what was written as long as nothing else is put into them, and must not be used again
    /// before the space is activated anew. Never so for a read; implied by
    /// [`ErrorKind::TimedOut`], and to be heeded whatever else a write failed with.
    pub stray: bool,
}

impl<F, E> Completion<F, E> {
    /// How frame `index` of the request fared: [`result`](Self::result) and [`done`](Self::done) in
    /// one answer.
    ///
    /// # Errors
    ///
    /// What the request failed with, if the frame is not among those that are done.
    pub fn result_of(&self, index: usize) -> Result<(), &E> {
        match &self.result {
            Err(error) if index >= usize::from(self.done) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Why a request was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SubmitError {
    /// Every request slot is taken: poll, then submit again.
    Busy,
    /// The address space is not active.
    Inactive,
    /// No frame, more than [`Geometry::max_frames`], or a frame of the wrong size.
    BadFrames,
    /// The slots do not all exist.
    OutOfRange,
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SubmitError::Busy => "every request slot is taken",
            SubmitError::Inactive => "the address space is not active",
            SubmitError::BadFrames => "wrong number or size of frames",
            SubmitError::OutOfRange => "a slot lies beyond the end",
        })
    }
}

impl core::error::Error for SubmitError {}

/// A refused request: the reason, and the request back.
#[derive(Debug)]
pub struct Refused<F> {
    /// Why.
    pub error: SubmitError,
    /// The request as it was handed in.
    pub io: SwapIo<F>,
}

/// What the pager must know of an error, whatever the back end's own error type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ErrorKind {
    /// The deadline passed without an answer. A write may still be carried out later: its slots
    /// must not be used again before the space is activated anew.
    TimedOut,
    /// The deadline passed before the request could leave: the slots hold what they held.
    Unsent,
    /// The store has no room left.
    NoSpace,
    /// The store refuses writes.
    ReadOnly,
    /// What was stored is gone (file removed, handle stale, device unplugged).
    Gone,
    /// The store answered, but not with what was asked for.
    Corrupt,
    /// The store refuses us.
    Denied,
    /// The store reports an I/O error.
    Io,
    /// The request was [cancelled](AddressSpace::cancel), by its owner or by deactivation. A write
    /// that had left by then is [stray](Completion::stray).
    Cancelled,
}

/// An error of an address space.
pub trait SpaceError: fmt::Debug + fmt::Display {
    /// What it means to the pager.
    fn kind(&self) -> ErrorKind;
}

/// The shape of an active address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Geometry {
    /// Slots, each of one page.
    pub slots: u32,
    /// Bytes in a page: a power of two, 512 at least.
    pub page_size: u32,
    /// The most frames in one request, 1 to [`CLUSTER_FRAMES`].
    pub max_frames: u8,
    /// The most requests in flight at once.
    pub max_in_flight: u16,
}

/// A backing store that can hold swapped pages.
///
/// # Contract
///
/// - `submit` admits a request with all that it needs to finish, or gives it back (S1). At least
///   one request can always be admitted when none is in flight.
/// - Every admitted request completes exactly once, within the deadline of the back end or its own,
///   whichever is sooner, with the frames that went in, in their order. Of a request that failed
///   the first frames may be [done](Completion::done).
/// - Nothing here blocks, allocates from a heap, or waits for memory (S5).
/// - Requests may overtake each other; two requests in flight for one slot are the caller's error
///   and may complete in either order.
/// - A write is over when it completes, unless it [timed out](ErrorKind::TimedOut) or is
///   [stray](Completion::stray): then the caller puts nothing else into its slots (S3). A layer
///   over another space hands both on.
///
/// [`conformance`](crate::conformance) checks all of it.
pub trait AddressSpace<F: PageFrame> {
    /// The error of this back end.
    type Error: SpaceError;

    /// The worst case that the back end can hold at once, in frames, beyond the frames in requests.
    const BUDGET: Budget;

    /// Prepares the store; call it again until it is ready, at the latest at
    /// [`next_deadline`](Self::next_deadline). Activation nests: each success needs its own
    /// [`swap_deactivate`](Self::swap_deactivate) (S6).
    ///
    /// # Errors
    ///
    /// The store cannot be used, and why. A later call starts afresh.
    fn swap_activate(&mut self, now: Instant) -> Poll<Result<Geometry, Self::Error>>;

    /// Admits a request, or gives it back unchanged.
    ///
    /// # Errors
    ///
    /// [`Refused`] holds the reason and the request.
    fn submit(&mut self, io: SwapIo<F>, now: Instant) -> Result<Ticket, Refused<F>>;

    /// Moves requests along and returns one that is finished. Call again until `None`, after every
    /// `submit`, whenever the medium may have something, and at the latest at `next_deadline`.
    #[must_use = "the completion holds the frames"]
    fn poll(&mut self, now: Instant) -> Option<Completion<F, Self::Error>>;

    /// When `poll` must be called even if nothing else happens.
    fn next_deadline(&self) -> Option<Instant>;

    /// The owner does not want a request any more. It completes as every request does, soon if the
    /// back end can manage that and with [`ErrorKind::Cancelled`] if it did not get done. An unknown
    /// ticket is one that completed meanwhile. A back end whose requests end by themselves soon
    /// enough need not do anything: the default.
    fn cancel(&mut self, ticket: Ticket, now: Instant) {
        let _ = (ticket, now);
    }

    /// Somebody now waits for a request that nobody, or somebody less urgent, waited for: a task
    /// faults on a page that is being prefetched (S8). The class only ever rises. An unknown ticket
    /// is one that completed meanwhile. Where requests are served in order anyway there is nothing
    /// to do: the default.
    fn expedite(&mut self, ticket: Ticket, class: IoClass) {
        let _ = (ticket, class);
    }

    /// Ends one activation; the last one ends with the store at rest. Call it again until it is
    /// ready. Requests in flight complete (or are cancelled) first and must be taken by `poll`.
    ///
    /// # Errors
    ///
    /// The store could not be left as intended; it is inactive all the same.
    fn swap_deactivate(&mut self, now: Instant) -> Poll<Result<(), Self::Error>>;
}
