//! Which requests are in flight, and what each must come back as.

use super::{Clause, DEPTH, Violation, pattern};
use crate::{Completion, ErrorKind, IoClass, IoOp, PageFrame, Slot, SpaceError, SwapIo, Ticket};

/// What was handed in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    op: IoOp,
    slot: Slot,
    class: IoClass,
    frames: usize,
    /// What the pages hold: always known of a write, of a read unless nothing was written there.
    version: Option<u32>,
}

impl Entry {
    pub(super) fn of<F>(io: &SwapIo<F>, version: Option<u32>) -> Self {
        Entry {
            op: io.op,
            slot: io.slot,
            class: io.class,
            frames: io.frames.len(),
            version,
        }
    }

    pub(super) fn check_refused<F: PageFrame>(&self, io: &SwapIo<F>) -> Result<(), Violation> {
        let untouched = self.is_same(io)
            && io.frames.len() == self.frames
            && (self.op == IoOp::Read || self.holds_its_pages(io));
        if !untouched {
            return Err(Violation::of(Clause::GivesRefusedRequestsBack).at(self.slot));
        }
        Ok(())
    }

    fn is_same<F>(&self, io: &SwapIo<F>) -> bool {
        (io.op, io.slot, io.class) == (self.op, self.slot, self.class)
    }

    fn holds_its_pages<F: PageFrame>(&self, io: &SwapIo<F>) -> bool {
        self.version.is_none_or(|version| {
            (0u32..).zip(&io.frames).all(|(page, frame)| {
                pattern::matches(frame.as_ref(), self.slot.0.wrapping_add(page), version)
            })
        })
    }
}

/// How a good request may fail all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leniency {
    None,
    /// It was cancelled.
    Cancelled,
    /// Its deadline has passed.
    Late,
}

impl Leniency {
    const fn excuses(self, kind: ErrorKind) -> bool {
        match self {
            Leniency::None => false,
            Leniency::Cancelled => matches!(kind, ErrorKind::Cancelled),
            Leniency::Late => matches!(kind, ErrorKind::TimedOut | ErrorKind::Unsent),
        }
    }
}

/// The requests in flight.
pub(super) struct Books {
    open: heapless::Vec<(Ticket, Entry), DEPTH>,
    pub(super) leniency: Leniency,
}

impl Books {
    pub(super) const fn new() -> Self {
        Books {
            open: heapless::Vec::new(),
            leniency: Leniency::None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    pub(super) fn admit(&mut self, ticket: Ticket, entry: Entry) -> Result<(), Violation> {
        if self.open.iter().any(|(open, _)| *open == ticket) {
            return Err(Violation::of(Clause::UniqueTickets).at(entry.slot));
        }
        // The suite never submits more than DEPTH before it drains.
        let _ = self.open.push((ticket, entry));
        Ok(())
    }

    /// Checks a completion off.
    pub(super) fn settle<F: PageFrame, E: SpaceError>(
        &mut self,
        completion: &Completion<F, E>,
    ) -> Result<(), Violation> {
        let io = &completion.io;
        let open = self
            .open
            .iter()
            .position(|(ticket, _)| *ticket == completion.ticket);
        let Some(open) = open else {
            return Err(Violation::of(Clause::CompletesOnce)
                .at(io.slot)
                .because("a completion without a request in flight"));
        };
        let (_, entry) = self.open.swap_remove(open);
        let violation = |clause| Err(Violation::of(clause).at(entry.slot));
        if !entry.is_same(io) {
            return violation(Clause::CompletesTheRequest);
        }
        if io.frames.len() != entry.frames {
            return violation(Clause::ReturnsItsFrames);
        }
        if entry.op == IoOp::Write && !entry.holds_its_pages(io) {
            return violation(Clause::ReturnsItsFrames);
        }
        if completion.result.is_err() && usize::from(completion.done) >= entry.frames {
            return violation(Clause::SaysWhatIsDone);
        }
        match &completion.result {
            Ok(()) if entry.holds_its_pages(io) => Ok(()),
            Ok(()) => violation(Clause::ReadsBack),
            Err(_) if entry.version.is_none() => Ok(()),
            Err(error) if self.leniency.excuses(error.kind()) => Ok(()),
            Err(error) => Err(Violation::of(Clause::Succeeds)
                .at(entry.slot)
                .kind(error.kind())),
        }
    }
}
