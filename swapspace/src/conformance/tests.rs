//! The suite must catch what it is there for: each test breaks one promise of a RAM back end.

use alloc::boxed::Box;
use alloc::vec;

use core::time::Duration;

use mempool::Budget;

use super::*;
use crate::{Completion, RamError, RamSpace, Refused, Ticket};

type Page = Box<[u8]>;

/// What is wrong with a back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    DropsAFrame,
    SwapsTwoFrames,
    SwapsTwoPagesOfARead,
    CompletesTwice,
    LosesARequest,
    ForgetsOverwrites,
    ShiftsTheLastSlot,
    ReadsZeros,
    AdmitsWhileInactive,
    AdmitsNoFrames,
    AdmitsBeyondTheEnd,
    KeepsARefusedFrame,
    IsBusyWhenIdle,
    DoesNotNest,
    ReusesTickets,
    ChangesTheClass,
    FailsWrites,
    IsDeeperThanItSays,
    RestsWithARequestInFlight,
    SaysNoSlots,
    LosesWhatIsCancelled,
    CancelsAnything,
    FailsLateRequestsAsCorrupt,
    SaysThatAllIsDone,
}

struct Broken<'m> {
    ram: RamSpace<'m, Page, 4>,
    fault: Fault,
    active: bool,
    /// Writes of several pages to slot 0 so far.
    overwrites: u32,
    /// A request that went elsewhere, and where it should have gone.
    astray: Option<(Ticket, Slot)>,
    completions: u32,
    twin: Option<Completion<Page, RamError>>,
    /// Was cancelled, and is never to be seen again.
    lost: Option<Ticket>,
}

/// The last slot of the store.
const LAST: u32 = 63;

impl Broken<'_> {
    /// Where a request goes instead.
    fn lead_astray(&mut self, io: &SwapIo<Page>) -> Option<Slot> {
        match (self.fault, io.op, io.slot.0, io.frames.len()) {
            (Fault::ForgetsOverwrites, IoOp::Write, 0, 3..) => {
                self.overwrites += 1;
                (self.overwrites > 4).then_some(Slot(LAST / 2))
            }
            (Fault::ShiftsTheLastSlot, IoOp::Read, LAST, 1) => Some(Slot(LAST - 1)),
            (Fault::AdmitsBeyondTheEnd, _, slot, 1) if slot == LAST + 1 => Some(Slot(0)),
            _ => None,
        }
    }

    fn refuse(&self, io: &SwapIo<Page>) -> Option<SubmitError> {
        match self.fault {
            Fault::IsBusyWhenIdle if io.slot.0 == LAST && io.frames.len() == 1 => {
                Some(SubmitError::Busy)
            }
            Fault::DoesNotNest if !self.active => Some(SubmitError::Inactive),
            _ => None,
        }
    }

    fn admits_anything(&self, io: &SwapIo<Page>) -> bool {
        match self.fault {
            Fault::AdmitsWhileInactive => !self.active,
            Fault::AdmitsNoFrames => self.active && io.frames.is_empty(),
            _ => false,
        }
    }
}

fn copy(io: &SwapIo<Page>) -> SwapIo<Page> {
    SwapIo {
        op: io.op,
        slot: io.slot,
        class: io.class,
        frames: io.frames.clone(),
        deadline: io.deadline,
    }
}

impl AddressSpace<Page> for Broken<'_> {
    type Error = RamError;

    const BUDGET: Budget = Budget::ZERO;

    fn swap_activate(&mut self, now: Instant) -> Poll<Result<Geometry, RamError>> {
        self.active = true;
        let mut geometry = self.ram.swap_activate(now);
        if let Poll::Ready(Ok(geometry)) = &mut geometry {
            match self.fault {
                Fault::SaysNoSlots => geometry.slots = 0,
                Fault::IsDeeperThanItSays => geometry.max_in_flight = 2,
                _ => {}
            }
        }
        geometry
    }

    fn submit(&mut self, mut io: SwapIo<Page>, now: Instant) -> Result<Ticket, Refused<Page>> {
        if let Some(error) = self.refuse(&io) {
            return Err(Refused { error, io });
        }
        if self.admits_anything(&io) {
            return Ok(Ticket(9));
        }
        let asked = io.slot;
        let elsewhere = self.lead_astray(&io);
        io.slot = elsewhere.unwrap_or(asked);
        let mut result = self.ram.submit(io, now);
        match &mut result {
            Ok(ticket) => {
                self.astray = elsewhere.map(|_| (*ticket, asked));
                if self.fault == Fault::ReusesTickets {
                    ticket.0 = 0;
                }
            }
            Err(refused) if self.fault == Fault::KeepsARefusedFrame => {
                refused.io.frames.pop();
            }
            Err(_) => {}
        }
        result
    }

    fn poll(&mut self, now: Instant) -> Option<Completion<Page, RamError>> {
        if let Some(twin) = self.twin.take() {
            return Some(twin);
        }
        let mut done = self.ram.poll(now)?;
        if let Some((ticket, asked)) = self.astray
            && ticket == done.ticket
        {
            done.io.slot = asked;
        }
        // Some faults show late, so that it is not the first check which catches everything.
        self.completions += 1;
        let late = self.completions > 30;
        let (op, frames) = (done.io.op, &mut done.io.frames);
        match (self.fault, op) {
            (Fault::DropsAFrame, _) if late => drop(frames.pop()),
            (Fault::SwapsTwoFrames, IoOp::Write) if frames.len() > 1 => frames.swap(0, 1),
            (Fault::SwapsTwoPagesOfARead, IoOp::Read) if frames.len() > 2 => frames.swap(0, 2),
            (Fault::CompletesTwice, _) if late => {
                self.twin = Some(Completion {
                    ticket: done.ticket,
                    io: copy(&done.io),
                    result: Ok(()),
                    done: 0,
                    stray: false,
                });
            }
            (Fault::LosesARequest, _) if late => return None,
            (Fault::ReadsZeros, IoOp::Read) if late => frames[0].fill(0),
            (Fault::ChangesTheClass, _) => done.io.class = IoClass::Prefetch,
            (Fault::FailsWrites, IoOp::Write) if late => done.result = Err(RamError::TooSmall),
            (Fault::ReusesTickets, _) => done.ticket.0 = 0,
            (Fault::LosesWhatIsCancelled, _) if self.lost == Some(done.ticket) => return None,
            (Fault::CancelsAnything, _) if late => done.result = Err(RamError::Cancelled),
            (Fault::FailsLateRequestsAsCorrupt, _) if done.result == Err(RamError::Unsent) => {
                done.result = Err(RamError::TooSmall);
            }
            (Fault::SaysThatAllIsDone, _) => done.done = done.io.frames.len() as u8,
            _ => {}
        }
        Some(done)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.ram.next_deadline()
    }

    fn cancel(&mut self, ticket: Ticket, now: Instant) {
        self.lost = (self.fault == Fault::LosesWhatIsCancelled).then_some(ticket);
        self.ram.cancel(ticket, now);
    }

    fn swap_deactivate(&mut self, now: Instant) -> Poll<Result<(), RamError>> {
        if self.fault == Fault::RestsWithARequestInFlight && self.ram.next_deadline().is_some() {
            return Poll::Ready(Ok(()));
        }
        let result = self.ram.swap_deactivate(now);
        if self.fault == Fault::DoesNotNest {
            self.active = false;
        }
        result
    }
}

fn run(fault: Fault) -> Result<Report, Violation> {
    let mut memory = vec![0; 64 * 512];
    let mut space = Broken {
        ram: RamSpace::new(&mut memory)
            .with_page_size(512)
            .with_latency(Duration::from_micros(3)),
        fault,
        active: false,
        overwrites: 0,
        astray: None,
        completions: 0,
        twin: None,
        lost: None,
    };
    let mut now = Instant::ZERO;
    conformance(
        &mut space,
        || vec![0; 512].into_boxed_slice(),
        |_| {
            now = now + Duration::from_micros(1);
            now
        },
    )
}

fn caught(fault: Fault) -> Clause {
    match run(fault) {
        Ok(_) => panic!("{fault:?} went unnoticed"),
        Err(violation) => violation.clause,
    }
}

#[test]
fn ram_keeps_the_contract() {
    let report = run(Fault::None).unwrap();
    assert_eq!(report.deepest, 4, "every request slot was used at once");
    assert!(report.pages_written > 100 && report.pages_read > 100);
}

#[test]
fn ram_of_one_slot_keeps_the_contract() {
    let mut memory = vec![0; 512];
    let mut ram = RamSpace::<Page, 1>::new(&mut memory).with_page_size(512);
    let frame = || vec![0; 512].into_boxed_slice();
    conformance(&mut ram, frame, |_| Instant::ZERO).unwrap();
}

#[test]
fn frames_that_are_lost_or_out_of_order_are_caught() {
    assert_eq!(caught(Fault::DropsAFrame), Clause::ReturnsItsFrames);
    assert_eq!(caught(Fault::SwapsTwoFrames), Clause::ReturnsItsFrames);
    assert_eq!(caught(Fault::SwapsTwoPagesOfARead), Clause::ReadsBack);
}

#[test]
fn completions_that_are_lost_or_too_many_are_caught() {
    assert_eq!(caught(Fault::CompletesTwice), Clause::CompletesOnce);
    assert_eq!(caught(Fault::LosesARequest), Clause::CompletesOnce);
    assert_eq!(caught(Fault::ChangesTheClass), Clause::CompletesTheRequest);
}

#[test]
fn data_that_is_lost_or_elsewhere_is_caught() {
    assert_eq!(caught(Fault::ForgetsOverwrites), Clause::OverwritesWin);
    assert_eq!(caught(Fault::ShiftsTheLastSlot), Clause::ReadsBack);
    assert_eq!(caught(Fault::ReadsZeros), Clause::ReadsBack);
    assert_eq!(caught(Fault::FailsWrites), Clause::Succeeds);
}

#[test]
fn requests_that_must_be_refused_and_are_not_are_caught() {
    assert_eq!(
        caught(Fault::AdmitsWhileInactive),
        Clause::RefusesWhileInactive
    );
    assert_eq!(caught(Fault::AdmitsNoFrames), Clause::RefusesBadFrames);
    assert_eq!(caught(Fault::AdmitsBeyondTheEnd), Clause::RefusesOutOfRange);
}

#[test]
fn s1_refusals_that_keep_something_or_have_no_reason_are_caught() {
    assert_eq!(
        caught(Fault::KeepsARefusedFrame),
        Clause::GivesRefusedRequestsBack
    );
    assert_eq!(caught(Fault::IsBusyWhenIdle), Clause::AdmitsWhenIdle);
}

#[test]
fn s6_activation_that_does_not_nest_or_rest_is_caught() {
    assert_eq!(caught(Fault::DoesNotNest), Clause::Nests);
    assert_eq!(
        caught(Fault::RestsWithARequestInFlight),
        Clause::CompletesOnce
    );
    assert_eq!(caught(Fault::SaysNoSlots), Clause::SaneGeometry);
}

#[test]
fn s3_requests_that_are_cancelled_or_late_must_end_as_such() {
    assert_eq!(caught(Fault::LosesWhatIsCancelled), Clause::CompletesOnce);
    assert_eq!(caught(Fault::CancelsAnything), Clause::Succeeds);
    assert_eq!(caught(Fault::FailsLateRequestsAsCorrupt), Clause::Succeeds);
    assert_eq!(caught(Fault::SaysThatAllIsDone), Clause::SaysWhatIsDone);
}

#[test]
fn tickets_and_depth_are_watched() {
    assert_eq!(caught(Fault::ReusesTickets), Clause::UniqueTickets);
    assert_eq!(caught(Fault::IsDeeperThanItSays), Clause::KeepsItsDepth);
}
