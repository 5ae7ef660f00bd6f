//! Faults: a client cannot reach a page, or not as it wants to.

use core::fmt;

use mempool::{AllocError, Frame, Gfp};

use super::page::State;
use super::queue::FaultId;
use super::requests::Request;
use super::{Arrival, EvictionPolicy, Mapping, Page, PageTable, Pager};
use crate::ablation::Mechanism;
use crate::{AddressSpace, CLUSTER_FRAMES, ErrorKind, Instant, IoClass, IoOp, SubmitError, SwapIo};

/// Page frames are ordinary memory, even in a memalloc scope: the reserve is for what frees memory.
const PAGE_FRAME: Gfp = Gfp::KERNEL.with(Gfp::NOMEMALLOC);

/// What a client wants to do with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Access {
    /// Read it.
    Read,
    /// Change it.
    Write,
}

/// How urgent a fault is.
///
/// ```
/// use core::time::Duration;
/// use swapspace::{FaultOptions, Instant};
///
/// let now = Instant::from_micros(5_000);
/// let options = FaultOptions {
///     priority: 7,
///     deadline: Some(now + Duration::from_millis(2)),
/// };
/// assert!(options.priority > FaultOptions::default().priority);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct FaultOptions {
    /// Higher goes first. 0 unless something else is said.
    pub priority: u8,
    /// When the client has no use for the page any more.
    pub deadline: Option<Instant>,
}

impl FaultOptions {
    pub(super) const DEFAULT: Self = FaultOptions {
        priority: 0,
        deadline: None,
    };
}

/// What became of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[must_use = "a fault may have to wait"]
pub enum FaultOutcome {
    /// The page is mapped; the client can go on.
    Mapped,
    /// The client must wait: [`Pager::poll`] tells when the page is mapped, or that it failed.
    Pending,
}

/// Why a fault was not taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FaultError {
    /// There is no such page.
    BadPage,
    /// As many faults wait as the table holds: poll, then fault again.
    QueueFull,
    /// The page would have to be waited for, and the deadline has passed.
    Late,
}

impl<'m, A, T, P, const N: usize> Pager<'_, 'm, A, T, P, N>
where
    A: AddressSpace<Frame<'m>>,
    T: PageTable,
    P: EvictionPolicy,
{
    /// A client needs `page`. Several faults on one page are one, with one event. O(1).
    ///
    /// A page that was never touched gets a frame of zeros; one that was swapped out is read; the
    /// first write to a page that was mapped read-only makes it dirty.
    ///
    /// # Errors
    ///
    /// [`FaultError`]; nothing has changed.
    pub fn fault(
        &mut self,
        page: Page,
        access: Access,
        now: Instant,
    ) -> Result<FaultOutcome, FaultError> {
        self.fault_with(page, access, FaultOptions::DEFAULT, now)
    }

    /// As [`fault`](Self::fault), for a client with a priority and a deadline.
    ///
    /// Faults that wait for a frame or a request are served by priority, strictly: one of a lower
    /// priority waits as long as there are others, as a task does under a scheduler with fixed
    /// priorities. Among equals the earlier deadline goes first, one without a deadline last, and
    /// then the older.
    ///
    /// A fault that was not served by its deadline ends as [`PagerEvent::Failed`] with
    /// [`ErrorKind::TimedOut`]. A page-in carries the deadline to the back end
    /// ([`SwapIo::deadline`]); if it comes to an end all the same, the page stays in memory, unmapped,
    /// for the next fault to find. Faults on one page are one: as urgent as the most urgent, and late
    /// when the last of them is. O(faults).
    ///
    /// # Errors
    ///
    /// [`FaultError`]; nothing has changed.
    ///
    /// [`PagerEvent::Failed`]: crate::PagerEvent::Failed
    pub fn fault_with(
        &mut self,
        page: Page,
        access: Access,
        options: FaultOptions,
        now: Instant,
    ) -> Result<FaultOutcome, FaultError> {
        let entry = self
            .pages
            .get_mut(page.index())
            .ok_or(FaultError::BadPage)?;
        match entry.state {
            State::Resident => {
                self.touch(page);
                if access == Access::Write {
                    self.make_dirty(page);
                }
                self.stats.faults_minor += 1;
                Ok(FaultOutcome::Mapped)
            }
            State::Cached => {
                self.note_fault(page);
                self.map_cached(page, access);
                self.stats.faults_minor += 1;
                Ok(FaultOutcome::Mapped)
            }
            State::Writeback if T::MAPPED_DURING_WRITEBACK && !entry.doomed => {
                if access == Access::Write && !entry.writable {
                    // What is being written is stale; the completion will see that (S3).
                    (entry.dirty, entry.writable) = (true, true);
                    self.table.make_writable(page);
                }
                self.touch(page);
                self.stats.faults_minor += 1;
                Ok(FaultOutcome::Mapped)
            }
            state => self.fault_absent(page, state, access, options, now),
        }
    }

    fn fault_absent(
        &mut self,
        page: Page,
        state: State,
        access: Access,
        options: FaultOptions,
        now: Instant,
    ) -> Result<FaultOutcome, FaultError> {
        if let Some(id) = self.pages[page.index()].fault {
            self.faults.merge(id, access, options);
            self.stats.faults_merged += 1;
            return Ok(FaultOutcome::Pending);
        }
        // Nobody is overtaken: those who wait for a frame come first.
        if state == State::Untouched
            && self.faults.waiting() == 0
            && let Ok(frame) = self.page_frame()
        {
            self.stats.faults_zero += 1;
            self.map_zeroed(page, frame, access);
            return Ok(FaultOutcome::Mapped);
        }
        if options.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(FaultError::Late);
        }
        let Some(id) = self.faults.open(page, access, options, now) else {
            self.stats.faults_refused += 1;
            return Err(FaultError::QueueFull);
        };
        self.pages[page.index()].fault = Some(id);
        self.note_fault(page);
        if state == State::Reading {
            self.expedite(page);
        }
        if matches!(state, State::Untouched | State::Swapped) {
            self.wait_for_frame(id);
            self.serve_waiting(now);
        }
        Ok(FaultOutcome::Pending)
    }

    pub(super) fn page_frame(&self) -> Result<Frame<'m>, AllocError> {
        let gfp = if self.off(Mechanism::OrdinaryPages) {
            Gfp::KERNEL
        } else {
            PAGE_FRAME
        };
        self.memory.alloc(0, gfp)
    }

    /// Queues an open fault for a frame.
    pub(super) fn wait_for_frame(&mut self, id: FaultId) {
        self.faults.wait(id);
        self.stats.waiting_peak = self.stats.waiting_peak.max(self.faults.waiting());
    }

    /// Serves the faults that wait, in order, as far as frames and requests go. Whether any moved.
    pub(super) fn serve_waiting(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some((id, fault)) = self.faults.first_waiting() {
            let page = fault.page;
            let swapped = self.pages[page.index()].state == State::Swapped;
            if swapped && (self.throttle.full() || self.requests.in_flight() >= self.credits()) {
                break;
            }
            let Ok(frame) = self.page_frame() else {
                break;
            };
            if swapped {
                if !self.page_in(page, id, frame, now) {
                    break;
                }
            } else {
                self.faults.leave_first();
                self.stats.faults_zero += 1;
                self.map_zeroed(page, frame, fault.access);
                let waited = self.faults.mapped(id, now, false);
                self.latency.record(waited);
                self.latency_minor.record(waited);
            }
            moved = true;
        }
        moved
    }

    /// Reads a page for the first fault that waits. If there is no room for the request, nothing
    /// has changed, and the answer is `false`.
    fn page_in(&mut self, page: Page, id: FaultId, frame: Frame<'m>, now: Instant) -> bool {
        let swap = self.pages[page.index()].swap.as_ref();
        let slot = swap.expect("a swapped page has a slot").slot();
        let mut io = SwapIo::new(IoOp::Read, slot, IoClass::Demand, one(frame));
        let deadline = self.faults.get(id).options.deadline;
        io.deadline = deadline;
        let ticket = match self.space.submit(io, now) {
            Ok(ticket) => ticket,
            Err(refused) => {
                self.stats.refusals += 1;
                if refused.error == SubmitError::Busy {
                    self.note_refusal();
                    return false;
                }
                // The space lost its activation, or its slots.
                self.faults.leave_first();
                self.fail(page, ErrorKind::Gone);
                return true;
            }
        };
        self.faults.leave_first();
        debug_assert_eq!(self.pages[page.index()].fault, Some(id));
        self.pages[page.index()].state = State::Reading;
        self.note_request(Request {
            ticket,
            op: IoOp::Read,
            class: IoClass::Demand,
            expedited: false,
            deadline,
            pages: one(page),
            since: now,
        });
        true
    }

    /// Notes a request that was admitted.
    pub(super) fn note_request(&mut self, request: Request) {
        self.requests.insert(request);
        let in_flight = self.requests.in_flight();
        self.stats.in_flight_peak = self.stats.in_flight_peak.max(in_flight);
    }

    /// A request was refused for want of room. Something will complete and make some, unless
    /// nothing is in flight: then the next poll tries again.
    pub(super) fn note_refusal(&mut self) {
        if self.requests.in_flight() > 0 {
            self.throttle.refused();
        }
    }

    /// Ends a fault whose deadline has passed, if there is one. Its page may be on its way in still.
    pub(super) fn expire_faults(&mut self, now: Instant) -> bool {
        let late = self.faults.expire(now);
        if let Some(page) = late {
            self.pages[page.index()].fault = None;
            self.stats.faults_late += 1;
        }
        late.is_some()
    }

    /// The fault that waits for a page, if one does, cannot be served.
    pub(super) fn fail(&mut self, page: Page, kind: ErrorKind) {
        if let Some(id) = self.pages[page.index()].fault.take() {
            self.stats.faults_major += 1;
            self.faults.failed(id, kind);
        }
    }

    /// Maps a page that was never touched. Read only, it stays clean: zeros need no slot.
    fn map_zeroed(&mut self, page: Page, mut frame: Frame<'m>, access: Access) {
        frame.fill(0);
        self.map(page, frame, access, Arrival::Faulted);
    }

    /// Maps a page whose bytes are in `frame`, and makes it resident.
    pub(super) fn map(
        &mut self,
        page: Page,
        mut frame: Frame<'m>,
        access: Access,
        arrival: Arrival,
    ) {
        let writable = access == Access::Write;
        let mapping = if writable {
            Mapping::ReadWrite
        } else {
            Mapping::ReadOnly
        };
        self.table.map(page, &mut frame, mapping);
        self.link(page, frame, arrival);
        self.pages[page.index()].writable = writable;
        if writable {
            self.lose_slot(page);
        }
    }
}

/// A list of one.
fn one<E>(element: E) -> heapless::Vec<E, CLUSTER_FRAMES> {
    core::iter::once(element).collect()
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultError::BadPage => "there is no such page",
            FaultError::QueueFull => "too many faults wait already",
            FaultError::Late => "the deadline has passed",
        })
    }
}

impl core::error::Error for FaultError {}
