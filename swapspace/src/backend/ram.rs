//! Memory as an address space: for tests and simulators, and for memory that the processor cannot
//! run from.

use core::fmt;
use core::task::Poll;
use core::time::Duration;

use mempool::{Budget, FRAME_SIZE};

use crate::{
    AddressSpace, CLUSTER_FRAMES, Completion, ErrorKind, Geometry, Instant, IoOp, PageFrame,
    Refused, SpaceError, SubmitError, SwapIo, Ticket,
};

/// Pages in the caller's memory, with up to `N` requests in flight.
///
/// Requests complete in order, each `latency` after it was submitted, and touch the memory only
/// then: a reader sees what a slow medium would show. One that is cancelled, or whose deadline
/// passes, ends without having touched it.
///
/// ```
/// use core::task::Poll;
/// use swapspace::{
///     AddressSpace, FrameList, Instant, IoClass, IoOp, RamSpace, Slot, SwapIo,
/// };
///
/// let mut memory = vec![0; 16 * 4096];
/// let mut ram = RamSpace::<Vec<u8>, 4>::new(&mut memory);
/// let now = Instant::ZERO;
/// assert!(ram.swap_activate(now).is_ready());
///
/// let mut frames = FrameList::new();
/// frames.push(vec![7; 4096]).unwrap();
/// let io = SwapIo::new(IoOp::Write, Slot(3), IoClass::Reclaim, frames);
/// let ticket = ram.submit(io, now).expect("nothing is in flight");
/// let done = ram.poll(now).expect("no latency was asked for");
/// assert!(done.ticket == ticket && done.result.is_ok());
/// ```
#[derive(Debug)]
pub struct RamSpace<'m, F, const N: usize> {
    memory: &'m mut [u8],
    page_size: usize,
    latency: Duration,
    activations: u32,
    /// In the order of their admission.
    requests: heapless::Vec<Request<F>, N>,
    next_ticket: u32,
}

#[derive(Debug)]
struct Request<F> {
    ticket: Ticket,
    io: SwapIo<F>,
    /// When it is done, unless it ends before.
    due: Instant,
    cancelled_at: Option<Instant>,
}

impl<F> Request<F> {
    fn ends_at(&self) -> Instant {
        let early = self.io.deadline.into_iter().chain(self.cancelled_at);
        early.fold(self.due, Instant::min)
    }

    /// How it ends, once it does.
    fn outcome(&self) -> Result<(), RamError> {
        let end = self.ends_at();
        if end == self.due {
            Ok(())
        } else if self.cancelled_at == Some(end) {
            Err(RamError::Cancelled)
        } else {
            Err(RamError::Unsent)
        }
    }
}

impl<'m, F: PageFrame, const N: usize> RamSpace<'m, F, N> {
    /// As many slots of [`FRAME_SIZE`] as `memory` holds, without latency.
    pub fn new(memory: &'m mut [u8]) -> Self {
        const { assert!(N > 0 && N <= u16::MAX as usize, "1 to 65535 requests") };
        RamSpace {
            memory,
            page_size: FRAME_SIZE,
            latency: Duration::ZERO,
            activations: 0,
            requests: heapless::Vec::new(),
            next_ticket: 0,
        }
    }

    /// Slots of `bytes`, which is a power of two, 512 at least.
    ///
    /// # Panics
    ///
    /// If it is not.
    #[must_use]
    pub fn with_page_size(mut self, bytes: usize) -> Self {
        assert!(
            bytes.is_power_of_two() && bytes >= 512,
            "a page size is a power of two, 512 at least"
        );
        self.page_size = bytes;
        self
    }

    /// Each request takes `latency`.
    #[must_use]
    pub fn with_latency(mut self, latency: Duration) -> Self {
        self.latency = latency;
        self
    }

    fn slots(&self) -> usize {
        // The last number is no slot, so that an entry fits into 32 bits.
        (self.memory.len() / self.page_size).min(u32::MAX as usize - 1)
    }

    fn check(&self, io: &SwapIo<F>) -> Result<(), SubmitError> {
        if self.activations == 0 {
            return Err(SubmitError::Inactive);
        }
        let sized = |frame: &F| frame.as_ref().len() == self.page_size;
        if io.frames.is_empty() || !io.frames.iter().all(sized) {
            return Err(SubmitError::BadFrames);
        }
        let end = (io.slot.0 as usize).checked_add(io.frames.len());
        if end.is_none_or(|end| end > self.slots()) {
            return Err(SubmitError::OutOfRange);
        }
        if self.requests.is_full() {
            return Err(SubmitError::Busy);
        }
        Ok(())
    }

    fn transfer(&mut self, io: &mut SwapIo<F>) {
        let first = io.slot.0 as usize * self.page_size;
        let slots = self.memory[first..].chunks_exact_mut(self.page_size);
        for (slot, frame) in slots.zip(&mut io.frames) {
            match io.op {
                IoOp::Read => frame.as_mut().copy_from_slice(slot),
                IoOp::Write => slot.copy_from_slice(frame.as_ref()),
            }
        }
    }
}

impl<F: PageFrame, const N: usize> AddressSpace<F> for RamSpace<'_, F, N> {
    type Error = RamError;

    const BUDGET: Budget = Budget::ZERO;

    fn swap_activate(&mut self, _now: Instant) -> Poll<Result<Geometry, RamError>> {
        let slots = self.slots();
        if slots == 0 {
            return Poll::Ready(Err(RamError::TooSmall));
        }
        self.activations += 1;
        Poll::Ready(Ok(Geometry {
            slots: slots as u32,
            page_size: self.page_size as u32,
            max_frames: CLUSTER_FRAMES as u8,
            max_in_flight: N as u16,
        }))
    }

    fn submit(&mut self, io: SwapIo<F>, now: Instant) -> Result<Ticket, Refused<F>> {
        if let Err(error) = self.check(&io) {
            return Err(Refused { error, io });
        }
        let ticket = Ticket(self.next_ticket);
        let due = now + self.latency;
        let request = Request {
            ticket,
            io,
            due,
            cancelled_at: None,
        };
        match self.requests.push(request) {
            Ok(()) => {
                self.next_ticket = self.next_ticket.wrapping_add(1);
                Ok(ticket)
            }
            Err(Request { io, .. }) => Err(Refused {
                error: SubmitError::Busy,
                io,
            }),
        }
    }

    fn poll(&mut self, now: Instant) -> Option<Completion<F, RamError>> {
        let over = |request: &Request<F>| request.ends_at() <= now;
        let mut request = self.requests.remove(self.requests.iter().position(over)?);
        let result = request.outcome();
        if result.is_ok() {
            self.transfer(&mut request.io);
        }
        Some(Completion {
            ticket: request.ticket,
            io: request.io,
            result,
            done: 0,
            // A request touches the memory once.
            stray: false,
        })
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.requests.iter().map(Request::ends_at).min()
    }

    fn cancel(&mut self, ticket: Ticket, now: Instant) {
        let found = self.requests.iter_mut().find(|r| r.ticket == ticket);
        if let Some(request) = found {
            request.cancelled_at = Some(now);
        }
    }

    fn swap_deactivate(&mut self, _now: Instant) -> Poll<Result<(), RamError>> {
        match self.activations {
            0 => return Poll::Ready(Err(RamError::Inactive)),
            1 if !self.requests.is_empty() => return Poll::Pending,
            _ => self.activations -= 1,
        }
        Poll::Ready(Ok(()))
    }
}

/// What can be wrong with memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum RamError {
    /// It does not hold a single page.
    TooSmall,
    /// It was not active.
    Inactive,
    /// The deadline of the request passed before its latency was over.
    Unsent,
    /// The request was cancelled before its latency was over.
    Cancelled,
}

impl fmt::Display for RamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RamError::TooSmall => "the memory does not hold a single page",
            RamError::Inactive => "the memory is not active as swap space",
            RamError::Unsent => "the deadline passed before the request was carried out",
            RamError::Cancelled => "the request was cancelled",
        })
    }
}

impl core::error::Error for RamError {}

impl SpaceError for RamError {
    fn kind(&self) -> ErrorKind {
        match self {
            RamError::TooSmall => ErrorKind::NoSpace,
            RamError::Unsent => ErrorKind::Unsent,
            RamError::Inactive | RamError::Cancelled => ErrorKind::Cancelled,
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;
    use alloc::vec;

    use super::*;
    use crate::{FrameList, IoClass, Slot};

    fn io(op: IoOp, slot: u32, byte: u8) -> SwapIo<Box<[u8]>> {
        let mut frames = FrameList::new();
        frames
            .push(vec![byte; FRAME_SIZE].into_boxed_slice())
            .unwrap();
        SwapIo::new(op, Slot(slot), IoClass::Demand, frames)
    }

    #[test]
    fn s2_a_write_is_in_memory_when_it_completes_and_not_claimed_before() {
        let mut memory = vec![0; 2 * FRAME_SIZE];
        let latency = Duration::from_millis(1);
        let mut ram = RamSpace::<_, 2>::new(&mut memory).with_latency(latency);
        let _ = ram.swap_activate(Instant::ZERO);
        ram.submit(io(IoOp::Write, 1, 9), Instant::ZERO).unwrap();

        assert!(ram.poll(Instant::from_micros(999)).is_none());
        assert_eq!(ram.next_deadline(), Some(Instant::from_micros(1000)));
        let done = ram.poll(Instant::from_micros(1000)).unwrap();
        assert_eq!(done.result, Ok(()));
        assert!(memory[FRAME_SIZE..].iter().all(|byte| *byte == 9));
    }

    #[test]
    fn s3_what_is_cancelled_or_late_ends_early_and_touches_nothing() {
        let mut memory = vec![0; 3 * FRAME_SIZE];
        let latency = Duration::from_millis(1);
        let mut ram = RamSpace::<_, 3>::new(&mut memory).with_latency(latency);
        let _ = ram.swap_activate(Instant::ZERO);
        let at = Instant::from_micros;
        let ticket = ram.submit(io(IoOp::Write, 0, 9), at(0)).unwrap();
        ram.submit(io(IoOp::Write, 1, 9).by(at(500)), at(0))
            .unwrap();
        ram.submit(io(IoOp::Write, 2, 9).by(at(5000)), at(0))
            .unwrap();
        ram.cancel(ticket, at(100));
        ram.cancel(Ticket(77), at(100));

        let mut ended = |micros| {
            assert_eq!(ram.next_deadline(), Some(at(micros)));
            assert!(ram.poll(at(micros - 1)).is_none());
            let done = ram.poll(at(micros)).unwrap();
            (done.io.slot.0, done.result, done.stray)
        };
        assert_eq!(ended(100), (0, Err(RamError::Cancelled), false));
        assert_eq!(ended(500), (1, Err(RamError::Unsent), false));
        assert_eq!(ended(1000), (2, Ok(()), false));
        let (first, last) = memory.split_at(2 * FRAME_SIZE);
        assert!(first.iter().all(|byte| *byte == 0));
        assert!(last.iter().all(|byte| *byte == 9));
    }

    #[test]
    fn a_frame_of_the_wrong_size_is_given_back() {
        let mut memory = vec![0; 2 * FRAME_SIZE];
        let mut ram = RamSpace::<_, 2>::new(&mut memory).with_page_size(2 * FRAME_SIZE);
        let _ = ram.swap_activate(Instant::ZERO);
        let refused = ram
            .submit(io(IoOp::Write, 0, 3), Instant::ZERO)
            .unwrap_err();
        assert_eq!(refused.error, SubmitError::BadFrames);
        assert_eq!(refused.io.frames.len(), 1);
    }
}
