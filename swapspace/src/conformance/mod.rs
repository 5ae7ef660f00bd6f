//! What every [`AddressSpace`] promises, as one function that its author runs.
//!
//! The suite writes and reads pages of a known pattern, many requests at once, asks for what must
//! be refused, and keeps books of what comes back. It uses no heap and no clock, so that it runs
//! where the back end runs. It overwrites whatever the store holds.

mod books;
mod pattern;

use core::fmt;
use core::marker::PhantomData;
use core::task::Poll;

use self::books::{Books, Leniency};
use crate::{
    AddressSpace, CLUSTER_FRAMES, ErrorKind, FrameList, Geometry, Instant, IoClass, IoOp,
    PageFrame, Slot, SpaceError, SubmitError, SwapIo, Ticket,
};

/// Requests that the suite keeps in flight at most.
pub(crate) const DEPTH: usize = 64;

/// Turns without a completion after which a request counts as lost.
const PATIENCE: u32 = 1_000_000;

/// Checks the contract of [`AddressSpace`] on `space`, which is inactive, and leaves it so.
///
/// `make_frame` gives a frame of the back end's page size. `drive` moves the medium along, or lets
/// time pass until there is something to poll for, and returns the time; it is called between
/// polls, a million times in a row before a request counts as lost.
///
/// # Errors
///
/// The first [`Violation`], by the clause of the contract that is broken.
///
/// ```
/// use core::time::Duration;
/// use swapspace::{Instant, RamSpace, conformance};
///
/// let mut memory = vec![0; 64 * 4096];
/// let mut ram = RamSpace::<Vec<u8>, 4>::new(&mut memory);
/// let mut now = Instant::ZERO;
/// let report = conformance(&mut ram, || vec![0; 4096], |_| {
///     now = now + Duration::from_micros(10);
///     now
/// })?;
/// assert_eq!(report.deepest, 4);
/// # Ok::<(), swapspace::Violation>(())
/// ```
pub fn conformance<F, A>(
    space: &mut A,
    make_frame: impl FnMut() -> F,
    drive: impl FnMut(&mut A) -> Instant,
) -> Result<Report, Violation>
where
    F: PageFrame,
    A: AddressSpace<F>,
{
    let mut suite = Suite {
        space,
        make_frame,
        drive,
        now: Instant::ZERO,
        books: Books::new(),
        version: 0,
        report: Report::default(),
        _frame: PhantomData,
    };
    suite.now = (suite.drive)(suite.space);
    suite.refuses_while_inactive()?;
    let geometry = suite.activates()?;
    suite.nests(geometry)?;
    suite.refuses_bad_requests(geometry)?;
    suite.reads_back(geometry)?;
    suite.keeps_many_in_flight(geometry)?;
    suite.overwrites(geometry)?;
    suite.survives_reads_of_unwritten_slots(geometry)?;
    suite.deactivates_with_a_request_in_flight()?;
    suite.ends_what_is_not_wanted(geometry)?;
    suite.activates_again(geometry)?;
    Ok(suite.report)
}

struct Suite<'a, F, A, M, D> {
    space: &'a mut A,
    make_frame: M,
    drive: D,
    now: Instant,
    books: Books,
    version: u32,
    report: Report,
    _frame: PhantomData<F>,
}

impl<F, A, M, D> Suite<'_, F, A, M, D>
where
    F: PageFrame,
    A: AddressSpace<F>,
    M: FnMut() -> F,
    D: FnMut(&mut A) -> Instant,
{
    fn refuses_while_inactive(&mut self) -> Result<(), Violation> {
        let io = self.request(IoOp::Write, 0, 1);
        self.must_refuse(io, SubmitError::Inactive, Clause::RefusesWhileInactive)
    }

    fn activates(&mut self) -> Result<Geometry, Violation> {
        let geometry = self.activate()?;
        let sane = geometry.slots > 0
            && geometry.slots < u32::MAX
            && geometry.page_size.is_power_of_two()
            && geometry.page_size >= 512
            && (1..=CLUSTER_FRAMES).contains(&usize::from(geometry.max_frames))
            && geometry.max_in_flight > 0;
        if !sane {
            return Err(Violation::of(Clause::SaneGeometry));
        }
        if (self.make_frame)().as_ref().len() != geometry.page_size as usize {
            return Err(Violation::of(Clause::SaneGeometry)
                .because("make_frame gives frames of another size than the page size"));
        }
        Ok(geometry)
    }

    fn nests(&mut self, geometry: Geometry) -> Result<(), Violation> {
        if self.activate()? != geometry {
            return Err(Violation::of(Clause::Nests).because("the second activation differs"));
        }
        self.deactivate()?;
        // One activation is left, and the space must still serve.
        self.write(0, 1)
            .and_then(|()| self.read(0, 1))
            .map_err(|violation| match violation.error {
                Some(SubmitError::Inactive) => {
                    Violation::of(Clause::Nests).because("the first deactivation ended the second")
                }
                _ => violation,
            })
    }

    fn refuses_bad_requests(&mut self, geometry: Geometry) -> Result<(), Violation> {
        let frames = usize::from(geometry.max_frames);
        for op in [IoOp::Read, IoOp::Write] {
            let none = self.request(op, 0, 0);
            self.must_refuse(none, SubmitError::BadFrames, Clause::RefusesBadFrames)?;
            if frames < CLUSTER_FRAMES && geometry.slots as usize > frames {
                let many = self.request(op, 0, frames + 1);
                self.must_refuse(many, SubmitError::BadFrames, Clause::RefusesBadFrames)?;
            }
            let beyond = [geometry.slots, u32::MAX].map(|slot| (slot, 1));
            let across = (frames > 1).then_some((geometry.slots - 1, 2));
            for (slot, count) in beyond.into_iter().chain(across) {
                let io = self.request(op, slot, count);
                self.must_refuse(io, SubmitError::OutOfRange, Clause::RefusesOutOfRange)?;
            }
        }
        Ok(())
    }

    fn reads_back(&mut self, geometry: Geometry) -> Result<(), Violation> {
        let last = geometry.slots - 1;
        let scattered = (1..12).map(|i| pattern::mix(i) as u32 % geometry.slots);
        for slot in [0, last].into_iter().chain(scattered) {
            let most = u32::from(geometry.max_frames).min(geometry.slots - slot);
            for count in [1, most.div_ceil(2), most] {
                self.write(slot, count as usize)?;
                self.read(slot, count as usize)?;
            }
        }
        // One request that ends at the last slot, and its pages one by one.
        let most = u32::from(geometry.max_frames).min(geometry.slots);
        let first = geometry.slots - most;
        self.write(first, most as usize)?;
        let version = self.version;
        for slot in first..geometry.slots {
            self.read_version(slot, 1, version)?;
        }
        Ok(())
    }

    fn keeps_many_in_flight(&mut self, geometry: Geometry) -> Result<(), Violation> {
        let width = u32::from(geometry.max_frames.min(2));
        let requests = (geometry.slots / width).min(DEPTH as u32);
        self.version += 1;
        for op in [IoOp::Write, IoOp::Read] {
            for i in 0..requests {
                self.admit(op, i * width, width as usize, geometry)?;
            }
            self.drain()?;
        }
        Ok(())
    }

    fn overwrites(&mut self, geometry: Geometry) -> Result<(), Violation> {
        let count = usize::from(geometry.max_frames).min(geometry.slots as usize);
        for _ in 0..3 {
            self.write(0, count)?;
        }
        self.read(0, count)
            .map_err(|violation| violation.unless_refused(Clause::OverwritesWin))
    }

    fn survives_reads_of_unwritten_slots(&mut self, geometry: Geometry) -> Result<(), Violation> {
        // What they hold is nobody's promise, and they may fail; but they complete.
        for i in 100..104 {
            let slot = pattern::mix(i) as u32 % geometry.slots;
            let io = self.request(IoOp::Read, slot, 1);
            self.submit(io, None)?;
            self.drain()?;
        }
        Ok(())
    }

    fn deactivates_with_a_request_in_flight(&mut self) -> Result<(), Violation> {
        self.version += 1;
        let io = self.request(IoOp::Write, 0, 1);
        self.books.leniency = Leniency::Cancelled;
        self.submit(io, Some(self.version))?;
        self.deactivate()?;
        if !self.books.is_empty() {
            return Err(Violation::of(Clause::CompletesOnce)
                .because("the space came to rest with a request not completed"));
        }
        self.books.leniency = Leniency::None;
        let io = self.request(IoOp::Write, 0, 1);
        self.must_refuse(io, SubmitError::Inactive, Clause::Deactivates)
    }

    /// In an activation of its own: slots that a cancelled write may still reach are not used again.
    fn ends_what_is_not_wanted(&mut self, geometry: Geometry) -> Result<(), Violation> {
        self.activate()?;
        let count = usize::from(geometry.max_frames).min(geometry.slots as usize);
        self.version += 1;
        self.books.leniency = Leniency::Cancelled;
        let io = self.request(IoOp::Write, 0, count);
        let ticket = self.submit(io, Some(self.version))?;
        self.space.cancel(ticket, self.now);
        self.drain()?;
        // It names nothing any more.
        self.space.cancel(ticket, self.now);
        self.space.expedite(ticket, IoClass::Demand);
        self.drain()?;

        self.books.leniency = Leniency::Late;
        let slot = geometry.slots - 1;
        let io = self.request(IoOp::Write, slot, 1).by(self.now);
        self.submit(io, Some(self.version))?;
        self.drain()?;
        self.books.leniency = Leniency::None;

        self.deactivate()
    }

    fn activates_again(&mut self, geometry: Geometry) -> Result<(), Violation> {
        // What was stored before need not have survived.
        self.activate()?;
        self.write(geometry.slots - 1, 1)?;
        self.read(geometry.slots - 1, 1)?;
        self.deactivate()
    }
}

/// The moves that the checks are made of.
impl<F, A, M, D> Suite<'_, F, A, M, D>
where
    F: PageFrame,
    A: AddressSpace<F>,
    M: FnMut() -> F,
    D: FnMut(&mut A) -> Instant,
{
    fn activate(&mut self) -> Result<Geometry, Violation> {
        for _ in 0..PATIENCE {
            match self.space.swap_activate(self.now) {
                Poll::Ready(Ok(geometry)) => return Ok(geometry),
                Poll::Ready(Err(error)) => {
                    return Err(Violation::of(Clause::Activates).kind(error.kind()));
                }
                Poll::Pending => self.now = (self.drive)(self.space),
            }
        }
        Err(Violation::of(Clause::Activates).because("it stays pending"))
    }

    fn deactivate(&mut self) -> Result<(), Violation> {
        for _ in 0..PATIENCE {
            let result = self.space.swap_deactivate(self.now);
            while self.take()? {}
            match result {
                Poll::Ready(Ok(())) => return Ok(()),
                Poll::Ready(Err(error)) => {
                    return Err(Violation::of(Clause::Deactivates).kind(error.kind()));
                }
                Poll::Pending => self.now = (self.drive)(self.space),
            }
        }
        Err(Violation::of(Clause::Deactivates).because("it stays pending"))
    }

    /// Writes a new version of `count` pages and waits for it.
    fn write(&mut self, slot: u32, count: usize) -> Result<(), Violation> {
        self.version += 1;
        let io = self.request(IoOp::Write, slot, count);
        self.submit(io, Some(self.version))?;
        self.drain()
    }

    /// Reads back what the last `write` stored.
    fn read(&mut self, slot: u32, count: usize) -> Result<(), Violation> {
        self.read_version(slot, count, self.version)
    }

    fn read_version(&mut self, slot: u32, count: usize, version: u32) -> Result<(), Violation> {
        let io = self.request(IoOp::Read, slot, count);
        self.submit(io, Some(version))?;
        self.drain()
    }

    /// Submits a request among others: `Busy` means to wait for one of them.
    fn admit(
        &mut self,
        op: IoOp,
        slot: u32,
        count: usize,
        geometry: Geometry,
    ) -> Result<(), Violation> {
        loop {
            let io = self.request(op, slot, count);
            match self.submit(io, Some(self.version)) {
                Err(Violation {
                    error: Some(SubmitError::Busy),
                    ..
                }) if !self.books.is_empty() => self.wait()?,
                result => {
                    result?;
                    break;
                }
            }
        }
        if self.books.len() > usize::from(geometry.max_in_flight) {
            return Err(Violation::of(Clause::KeepsItsDepth));
        }
        Ok(())
    }

    /// A request with frames that hold the current version (to write) or rubbish (to read into).
    fn request(&mut self, op: IoOp, slot: u32, count: usize) -> SwapIo<F> {
        let mut frames = FrameList::new();
        for (page, _) in (0u32..).zip(0..count) {
            let mut frame = (self.make_frame)();
            match op {
                IoOp::Read => frame.as_mut().fill(0xe5),
                IoOp::Write => {
                    pattern::fill(frame.as_mut(), slot.wrapping_add(page), self.version);
                }
            }
            // `count` is at most CLUSTER_FRAMES, the capacity.
            let _ = frames.push(frame);
        }
        let class = match op {
            IoOp::Read => IoClass::Demand,
            IoOp::Write => IoClass::Reclaim,
        };
        SwapIo::new(op, Slot(slot), class, frames)
    }

    /// Submits a request that ought to be admitted.
    fn submit(&mut self, io: SwapIo<F>, version: Option<u32>) -> Result<Ticket, Violation> {
        let expected = books::Entry::of(&io, version);
        match self.space.submit(io, self.now) {
            Ok(ticket) => {
                self.books.admit(ticket, expected)?;
                self.report.requests += 1;
                self.report.deepest = self.report.deepest.max(self.books.len());
                Ok(ticket)
            }
            Err(refused) => {
                expected.check_refused(&refused.io)?;
                let clause = match refused.error {
                    SubmitError::Busy => Clause::AdmitsWhenIdle,
                    _ => Clause::AdmitsGoodRequests,
                };
                Err(Violation::of(clause)
                    .at(refused.io.slot)
                    .refused(refused.error))
            }
        }
    }

    fn must_refuse(
        &mut self,
        io: SwapIo<F>,
        wanted: SubmitError,
        clause: Clause,
    ) -> Result<(), Violation> {
        let slot = io.slot;
        let version = (io.op == IoOp::Write).then_some(self.version);
        let expected = books::Entry::of(&io, version);
        match self.space.submit(io, self.now) {
            Ok(_) => Err(Violation::of(clause).at(slot).because("it was admitted")),
            Err(refused) if refused.error != wanted => {
                Err(Violation::of(clause).at(slot).refused(refused.error))
            }
            Err(refused) => expected.check_refused(&refused.io),
        }
    }

    /// Waits until nothing is in flight, and sees that nothing more comes.
    fn drain(&mut self) -> Result<(), Violation> {
        while !self.books.is_empty() {
            self.wait()?;
        }
        while self.take()? {}
        Ok(())
    }

    /// Waits for one completion.
    fn wait(&mut self) -> Result<(), Violation> {
        for _ in 0..PATIENCE {
            if self.take()? {
                return Ok(());
            }
            self.now = (self.drive)(self.space);
        }
        Err(Violation::of(Clause::CompletesOnce).because("a request is lost"))
    }

    /// Takes one completion, if there is one, and checks it against the books.
    fn take(&mut self) -> Result<bool, Violation> {
        let Some(completion) = self.space.poll(self.now) else {
            return Ok(false);
        };
        let pages = completion.io.frames.len() as u64;
        match completion.io.op {
            IoOp::Read => self.report.pages_read += pages,
            IoOp::Write => self.report.pages_written += pages,
        }
        self.books.settle(&completion)?;
        Ok(true)
    }
}

/// What the suite did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Report {
    /// Requests that were admitted; each completed once.
    pub requests: u64,
    /// Pages written.
    pub pages_written: u64,
    /// Pages read.
    pub pages_read: u64,
    /// The most requests in flight at once, 64 at most.
    pub deepest: usize,
}

/// A clause of the contract of [`AddressSpace`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Clause {
    /// It becomes active.
    Activates,
    /// Its geometry makes sense.
    SaneGeometry,
    /// Activations nest (S6).
    Nests,
    /// Requests are refused as `Inactive` before activation.
    RefusesWhileInactive,
    /// Too few or too many frames are refused as `BadFrames`.
    RefusesBadFrames,
    /// Slots beyond the end are refused as `OutOfRange`.
    RefusesOutOfRange,
    /// A refused request comes back as it was handed in (S1).
    GivesRefusedRequestsBack,
    /// A request is never `Busy` when none is in flight (S1).
    AdmitsWhenIdle,
    /// A request within the geometry is admitted.
    AdmitsGoodRequests,
    /// No more requests are in flight than the geometry says.
    KeepsItsDepth,
    /// Tickets are unique among the requests in flight.
    UniqueTickets,
    /// Every admitted request completes exactly once, and nothing else does.
    CompletesOnce,
    /// A completion carries the request as it was: operation, slot and class.
    CompletesTheRequest,
    /// A completion carries the frames that went in, in their order (S3).
    ReturnsItsFrames,
    /// Good requests succeed.
    Succeeds,
    /// Of a request that failed only some frames are said to be done.
    SaysWhatIsDone,
    /// A read gives what was written there (S2, S4).
    ReadsBack,
    /// Of two writes one after the other, the later one wins.
    OverwritesWin,
    /// It becomes inactive, and then refuses requests.
    Deactivates,
}

/// A broken promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Violation {
    /// What is broken.
    pub clause: Clause,
    /// Where, if it is about a slot.
    pub slot: Option<Slot>,
    /// The refusal, if it is about one.
    pub error: Option<SubmitError>,
    /// The error of the back end, if there was one.
    pub kind: Option<ErrorKind>,
    /// More about it, or nothing.
    pub detail: &'static str,
}

impl Violation {
    pub(crate) const fn of(clause: Clause) -> Self {
        Violation {
            clause,
            slot: None,
            error: None,
            kind: None,
            detail: "",
        }
    }

    pub(crate) const fn at(mut self, slot: Slot) -> Self {
        self.slot = Some(slot);
        self
    }

    pub(crate) const fn refused(mut self, error: SubmitError) -> Self {
        self.error = Some(error);
        self
    }

    pub(crate) const fn kind(mut self, kind: ErrorKind) -> Self {
        self.kind = Some(kind);
        self
    }

    pub(crate) const fn because(mut self, detail: &'static str) -> Self {
        self.detail = detail;
        self
    }

    /// The wrong bytes were read for a reason that is known.
    fn unless_refused(mut self, clause: Clause) -> Self {
        if self.clause == Clause::ReadsBack {
            self.clause = clause;
        }
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the contract is broken: {:?}", self.clause)?;
        if let Some(slot) = self.slot {
            write!(f, ", at slot {}", slot.0)?;
        }
        if let Some(error) = self.error {
            write!(f, ", refused because {error}")?;
        }
        if let Some(kind) = self.kind {
            write!(f, ", error {kind:?}")?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl core::error::Error for Violation {}

#[cfg(test)]
mod tests;
