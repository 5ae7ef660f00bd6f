//! Swap space over a medium that does what it is told at once: the requests wait in a queue, and
//! each poll serves one of them.

use core::fmt;
use core::task::Poll;

use mempool::{Budget, FRAME_SIZE};

use super::queue::{Queue, Request, Verdict};
use crate::{
    AddressSpace, CLUSTER_FRAMES, Completion, ErrorKind, Geometry, Instant, IoClass, IoOp,
    PageFrame, Refused, SpaceError, SubmitError, SwapIo, Ticket,
};

/// A store of bytes that reads and writes while the caller waits. [`MediumSpace`] makes an address
/// space of it.
///
/// Each call must take a bounded time and no memory from a heap (S5).
pub trait Medium {
    /// What goes wrong.
    type Error: SpaceError;

    /// Makes the store ready, and says how many bytes it holds. It is closed when this is called;
    /// after an error it still is.
    ///
    /// # Errors
    ///
    /// The store cannot be used.
    fn open(&mut self) -> Result<u64, Self::Error>;

    /// Fills `page` from the bytes at `offset`, which is a multiple of the length of `page`.
    ///
    /// # Errors
    ///
    /// The contents of `page` mean nothing then.
    fn read(&mut self, offset: u64, page: &mut [u8]) -> Result<(), Self::Error>;

    /// Puts `page` at `offset`, which is a multiple of its length. It need not be stable before the
    /// next [`flush`](Self::flush).
    ///
    /// # Errors
    ///
    /// The bytes of this page, and no others, may be anything then.
    fn write(&mut self, offset: u64, page: &[u8]) -> Result<(), Self::Error>;

    /// Makes stable what was written (S2). The default is for a medium that is stable anyway.
    ///
    /// # Errors
    ///
    /// What was written since the last flush may be lost.
    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Puts the store to rest. The default does nothing.
    ///
    /// # Errors
    ///
    /// The store is closed all the same.
    fn close(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// The pages of a [`Medium`], with up to `N` requests that wait.
///
/// A poll serves one request whole, so that it takes as long as the medium takes for
/// [`CLUSTER_FRAMES`] pages. The next one is the oldest of the highest class (S8): as long as
/// urgent requests keep coming, others wait. One that is cancelled, or whose deadline passes, while
/// it waits ends without having touched the medium. Of a request that fails the pages before the
/// failure are [done](Completion::done). The last deactivation is over when everything that was
/// admitted has been polled.
///
/// ```
/// use core::fmt;
/// use swapspace::{ErrorKind, Instant, Medium, MediumSpace, SpaceError, conformance};
///
/// /// Memory behind a window that shows 512 bytes of it.
/// struct Banked([[u8; 512]; 32]);
///
/// #[derive(Debug)]
/// struct NoSuchBank;
///
/// impl fmt::Display for NoSuchBank {
///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
///         f.write_str("no such bank")
///     }
/// }
///
/// impl SpaceError for NoSuchBank {
///     fn kind(&self) -> ErrorKind {
///         ErrorKind::Io
///     }
/// }
///
/// impl Medium for Banked {
///     type Error = NoSuchBank;
///
///     fn open(&mut self) -> Result<u64, NoSuchBank> {
///         Ok(32 * 512)
///     }
///
///     fn read(&mut self, offset: u64, page: &mut [u8]) -> Result<(), NoSuchBank> {
///         let bank = self.0.get(offset as usize / 512).ok_or(NoSuchBank)?;
///         page.copy_from_slice(bank);
///         Ok(())
///     }
///
///     fn write(&mut self, offset: u64, page: &[u8]) -> Result<(), NoSuchBank> {
///         let bank = self.0.get_mut(offset as usize / 512).ok_or(NoSuchBank)?;
///         bank.copy_from_slice(page);
///         Ok(())
///     }
/// }
///
/// let banked = Banked([[0; 512]; 32]);
/// let mut space = MediumSpace::<_, Vec<u8>, 4>::new(banked).with_page_size(512);
/// conformance(&mut space, || vec![0; 512], |_| Instant::ZERO)?;
/// # Ok::<(), swapspace::Violation>(())
/// ```
#[derive(Debug)]
pub struct MediumSpace<M, F, const N: usize> {
    medium: M,
    page_size: usize,
    /// While it is active.
    slots: Option<u32>,
    activations: u32,
    queue: Queue<F, N>,
}

impl<M: Medium, F: PageFrame, const N: usize> MediumSpace<M, F, N> {
    /// Slots of [`FRAME_SIZE`] on `medium`, which is closed.
    pub const fn new(medium: M) -> Self {
        const { assert!(N > 0 && N <= u16::MAX as usize, "1 to 65535 requests") };
        MediumSpace {
            medium,
            page_size: FRAME_SIZE,
            slots: None,
            activations: 0,
            queue: Queue::new(),
        }
    }

    /// Slots of `bytes`, which is a power of two, 512 at least and below 4 GiB.
    ///
    /// # Panics
    ///
    /// If it is not.
    #[must_use]
    pub fn with_page_size(mut self, bytes: usize) -> Self {
        assert!(
            bytes.is_power_of_two() && bytes >= 512 && u32::try_from(bytes).is_ok(),
            "a page size is a power of two, 512 at least"
        );
        self.page_size = bytes;
        self
    }

    /// What the pages are on.
    pub const fn medium(&self) -> &M {
        &self.medium
    }

    fn check(&self, io: &SwapIo<F>) -> Result<(), SubmitError> {
        let slots = self.slots.ok_or(SubmitError::Inactive)?;
        let sized = |frame: &F| frame.as_ref().len() == self.page_size;
        if io.frames.is_empty() || !io.frames.iter().all(sized) {
            return Err(SubmitError::BadFrames);
        }
        // At most CLUSTER_FRAMES.
        let end = io.slot.0.checked_add(io.frames.len() as u32);
        if end.is_none_or(|end| end > slots) {
            return Err(SubmitError::OutOfRange);
        }
        Ok(())
    }

    fn open(&mut self) -> Result<u32, MediumError<M::Error>> {
        let bytes = self.medium.open().map_err(MediumError::Medium)?;
        // The last number is no slot, so that an entry fits into 32 bits.
        let slots = (bytes / self.page_size as u64).min(u64::from(u32::MAX) - 1) as u32;
        if slots == 0 {
            // That it is too small says more than how closing it went.
            let _ = self.medium.close();
            return Err(MediumError::TooSmall);
        }
        Ok(slots)
    }

    /// Carries `io` out; with an error comes how many frames are done.
    fn serve(&mut self, io: &mut SwapIo<F>) -> Result<(), (u8, M::Error)> {
        let page_size = self.page_size as u64;
        let mut offset = u64::from(io.slot.0) * page_size;
        for (done, frame) in (0..).zip(&mut io.frames) {
            let result = match io.op {
                IoOp::Read => self.medium.read(offset, frame.as_mut()),
                IoOp::Write => self.medium.write(offset, frame.as_ref()),
            };
            if let Err(error) = result {
                return Err((self.stable(io.op, done), error));
            }
            offset += page_size;
        }
        match io.op {
            IoOp::Read => Ok(()),
            IoOp::Write => self.medium.flush().map_err(|error| (0, error)),
        }
    }

    /// How many of the `done` frames of a request that failed can be relied upon.
    fn stable(&mut self, op: IoOp, done: u8) -> u8 {
        match op {
            IoOp::Write if done > 0 && self.medium.flush().is_err() => 0,
            IoOp::Read | IoOp::Write => done,
        }
    }
}

impl<M: Medium, F: PageFrame, const N: usize> AddressSpace<F> for MediumSpace<M, F, N> {
    type Error = MediumError<M::Error>;

    const BUDGET: Budget = Budget::ZERO;

    fn swap_activate(&mut self, _now: Instant) -> Poll<Result<Geometry, Self::Error>> {
        let slots = match self.slots {
            Some(slots) => slots,
            None => match self.open() {
                Ok(slots) => slots,
                Err(error) => return Poll::Ready(Err(error)),
            },
        };
        self.slots = Some(slots);
        self.activations += 1;
        Poll::Ready(Ok(Geometry {
            slots,
            page_size: self.page_size as u32,
            max_frames: CLUSTER_FRAMES as u8,
            max_in_flight: N as u16,
        }))
    }

    fn submit(&mut self, io: SwapIo<F>, now: Instant) -> Result<Ticket, Refused<F>> {
        if let Err(error) = self.check(&io) {
            return Err(Refused { error, io });
        }
        self.queue.push(io, now).map_err(|io| Refused {
            error: SubmitError::Busy,
            io,
        })
    }

    fn poll(&mut self, now: Instant) -> Option<Completion<F, Self::Error>> {
        let (Request { ticket, mut io, .. }, verdict) = self.queue.pop(now)?;
        let (done, result) = match verdict {
            Verdict::Cancelled => (0, Err(MediumError::Cancelled)),
            Verdict::Late => (0, Err(MediumError::Unsent)),
            Verdict::Serve => match self.serve(&mut io) {
                Ok(()) => (0, Ok(())),
                Err((done, error)) => (done, Err(MediumError::Medium(error))),
            },
        };
        Some(Completion {
            ticket,
            io,
            result,
            done,
            // The medium carries nothing out later than it says.
            stray: false,
        })
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.queue.since()
    }

    fn cancel(&mut self, ticket: Ticket, _now: Instant) {
        self.queue.cancel(ticket);
    }

    fn expedite(&mut self, ticket: Ticket, class: IoClass) {
        self.queue.expedite(ticket, class);
    }

    fn swap_deactivate(&mut self, _now: Instant) -> Poll<Result<(), Self::Error>> {
        match self.activations {
            0 => return Poll::Ready(Err(MediumError::Inactive)),
            1 if !self.queue.is_empty() => return Poll::Pending,
            _ => self.activations -= 1,
        }
        if self.activations > 0 {
            return Poll::Ready(Ok(()));
        }
        self.slots = None;
        Poll::Ready(self.medium.close().map_err(MediumError::Medium))
    }
}

/// What can go wrong on a [`Medium`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum MediumError<E> {
    /// It does not hold a single page.
    TooSmall,
    /// It was not active.
    Inactive,
    /// The deadline of the request passed while it waited.
    Unsent,
    /// The request was cancelled while it waited.
    Cancelled,
    /// What the medium said.
    Medium(E),
}

impl<E: fmt::Display> fmt::Display for MediumError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MediumError::TooSmall => "the medium does not hold a single page",
            MediumError::Inactive => "the medium is not active as swap space",
            MediumError::Unsent => "the deadline passed before the request was carried out",
            MediumError::Cancelled => "the request was cancelled",
            MediumError::Medium(error) => return error.fmt(f),
        })
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for MediumError<E> {}

impl<E: SpaceError> SpaceError for MediumError<E> {
    fn kind(&self) -> ErrorKind {
        match self {
            MediumError::TooSmall => ErrorKind::NoSpace,
            MediumError::Unsent => ErrorKind::Unsent,
            MediumError::Inactive | MediumError::Cancelled => ErrorKind::Cancelled,
            MediumError::Medium(error) => error.kind(),
        }
    }
}

#[cfg(test)]
mod tests;
