//! Tasks: they dirty, read, copy, pin and free pages, allocate, and look into their sockets.

use core::fmt;
use std::collections::VecDeque;

use mempool::{Frame, FrameAllocator, Gfp};
use netreserve::SocketId;
use swapspace::{Access, AddressSpace, FaultError, FaultOutcome, Page, Pager};

use super::{Kernel, time};
use crate::mmu::{Mmu, difference, differs_in_zeros_alone, fill};
use crate::rng::Rng;
use crate::scenario::{Micros, Program, SECOND};
use crate::trace::Trace;

/// Pages that a task holds pinned at once.
pub(crate) const PINS: usize = 2;

/// Frames that a task holds at once besides its pages.
pub(crate) const KERNEL_FRAMES: usize = 2;

/// Streams of the seed from here on are the tasks'.
const STREAM: u64 = 1000;

/// A task.
pub(crate) struct Task<'m> {
    pub(crate) swapper: usize,
    rng: Rng,
    sockets: Vec<SocketId>,
    reads_sockets: u16,
    pages: usize,
    /// Operations that are left.
    left: usize,
    operation: Option<Operation>,
    /// Waits for this page since then.
    waiting: Option<(Page, Access, Micros)>,
    pinned: VecDeque<Page>,
    frames: VecDeque<Frame<'m>>,
    /// Numbers of what it writes.
    serial: u64,
}

/// What a task is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Read(Page),
    Write(Page),
    /// As a fork does for a page: read the parent's, write the child's.
    Copy {
        from: Page,
        to: Page,
    },
    /// The second half of it, with what was read.
    Paste {
        to: Page,
        tag: u64,
    },
    Discard(Page),
    /// Reads it, and keeps it from being evicted for a while.
    Pin(Page),
    /// Takes a frame for the kernel, as a pipe or a page table would.
    Allocate,
}

/// What comes after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It did something, and goes on after so long.
    After(Micros),
    /// It could do nothing, and tries again after so long.
    Again(Micros),
    /// It waits for a page.
    Blocked,
    /// It has ended.
    Done,
}

impl Task<'_> {
    pub(super) fn new(
        seed: u64,
        number: usize,
        swapper: usize,
        sockets: Vec<SocketId>,
        program: &Program,
    ) -> Self {
        Task {
            swapper,
            rng: Rng::new(seed, STREAM + number as u64),
            sockets,
            reads_sockets: program.reads_sockets,
            pages: program.pages,
            left: program.operations,
            operation: None,
            waiting: None,
            pinned: VecDeque::new(),
            frames: VecDeque::new(),
            serial: (number as u64 + 1) << 32,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.left == 0 && self.operation.is_none()
    }

    pub(super) fn waits_for(&self, page: Page) -> bool {
        self.waiting.is_some_and(|(waited, ..)| waited == page)
    }

    /// The page that it waits for, what for, and since when.
    pub(crate) fn waiting(&self) -> Option<(Page, Access, Micros)> {
        self.waiting
    }

    pub(super) fn give_up(&mut self) {
        (self.operation, self.waiting) = (None, None);
    }

    /// It is killed: what it holds goes back.
    pub(super) fn end(&mut self) {
        self.give_up();
        self.left = 0;
        self.frames.clear();
        self.pinned.clear();
    }

    /// Mostly it goes on at once; now and then it sleeps, so that the program lasts as long as what
    /// goes wrong.
    fn pause(&mut self) -> Micros {
        match self.rng.chance(40) {
            true => self.rng.range(1, SECOND / 4),
            false => self.rng.range(1, 200),
        }
    }

    fn draw(&mut self) -> Operation {
        let rng = &mut self.rng;
        // Half of the accesses go to a quarter of the pages.
        let pages = self.pages as u64;
        let mut page = || {
            let among = if rng.chance(500) { pages / 4 } else { pages };
            Page(rng.below(among) as u32)
        };
        let (one, other) = (page(), page());
        match rng.below(100) {
            0..35 => Operation::Read(one),
            35..80 => Operation::Write(one),
            80..86 => Operation::Copy {
                from: one,
                to: other,
            },
            86..90 => Operation::Discard(one),
            90..95 => Operation::Pin(one),
            _ => Operation::Allocate,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operation::Read(page) => write!(f, "reads page {}", page.0),
            Operation::Write(page) => write!(f, "writes page {}", page.0),
            Operation::Copy { from, to } => write!(f, "copies page {} to {}", from.0, to.0),
            Operation::Paste { to, .. } => write!(f, "writes the copy {}", to.0),
            Operation::Discard(page) => write!(f, "discards page {}", page.0),
            Operation::Pin(page) => write!(f, "pins page {}", page.0),
            Operation::Allocate => f.write_str("takes a frame for the kernel"),
        }
    }
}

impl<'m, M: Mmu> Kernel<'_, 'm, M> {
    /// A task goes on, as far as it can without waiting.
    pub(super) fn step(&mut self, number: usize, now: Micros, trace: &mut Trace) -> Step {
        let task = &mut self.tasks[number];
        task.waiting = None;
        if task.is_done() {
            return Step::Done;
        }
        if task.operation.is_none() {
            self.between_operations(number);
            let task = &mut self.tasks[number];
            task.left -= 1;
            let operation = task.draw();
            task.operation = Some(operation);
            trace.note(now, || format!("task {number} {operation}"));
        }
        loop {
            let Some(operation) = self.tasks[number].operation else {
                return Step::After(self.tasks[number].pause());
            };
            let reached = match operation {
                Operation::Read(page)
                | Operation::Copy { from: page, .. }
                | Operation::Pin(page) => self.reach(number, page, Access::Read, now),
                Operation::Write(page) | Operation::Paste { to: page, .. } => {
                    self.reach(number, page, Access::Write, now)
                }
                Operation::Discard(_) | Operation::Allocate => Ok(()),
            };
            if let Err(step) = reached {
                return step;
            }
            self.tasks[number].operation = self.carry_out(number, operation, now);
        }
    }

    /// Looks into the sockets, and lets go of what is held long enough.
    fn between_operations(&mut self, number: usize) {
        let task = &mut self.tasks[number];
        for &socket in &task.sockets {
            while task.rng.chance(task.reads_sockets) && self.parts.sockets.recv(socket).is_some() {
            }
        }
        if task.rng.chance(300) {
            task.frames.pop_front();
        }
        let unpin = task.pinned.len() == PINS || task.rng.chance(200);
        if unpin && let Some(page) = task.pinned.pop_front() {
            let result = self.swappers[task.swapper].pager.unpin(page);
            self.parts.findings.check(result.is_ok(), "pager", || {
                format!(
                    "page {} was pinned and cannot be unpinned: {result:?}",
                    page.0
                )
            });
        }
    }

    /// Makes sure that a page can be accessed, or says why the task cannot go on.
    fn reach(
        &mut self,
        number: usize,
        page: Page,
        access: Access,
        now: Micros,
    ) -> Result<(), Step> {
        let swapper = &mut self.swappers[self.tasks[number].swapper];
        let pager = &mut swapper.pager;
        if is_accessible(pager, page, access) {
            return Ok(());
        }
        match pager.fault(page, access, time(now)) {
            Ok(FaultOutcome::Mapped) => {
                swapper.progress = now;
                let mapped = is_accessible(pager, page, access);
                self.parts.findings.check(mapped, "pager", || {
                    format!(
                        "page {} is said to be mapped for a {access:?} and is not",
                        page.0
                    )
                });
                if mapped {
                    Ok(())
                } else {
                    Err(Step::Again(1000))
                }
            }
            Ok(FaultOutcome::Pending) => {
                self.tasks[number].waiting = Some((page, access, now));
                Err(Step::Blocked)
            }
            Err(FaultError::QueueFull) => Err(Step::Again(1000)),
            Err(error) => {
                self.parts.findings.report("pager", || format!("{error}"));
                Err(Step::Done)
            }
        }
    }

    /// Does what the operation is about; what is left of it comes back.
    fn carry_out(&mut self, number: usize, operation: Operation, now: Micros) -> Option<Operation> {
        match operation {
            Operation::Read(page) => {
                self.verify(number, page);
            }
            Operation::Write(page) => {
                let task = &mut self.tasks[number];
                task.serial += 1;
                let tag = task.serial;
                self.overwrite(number, page, tag);
            }
            Operation::Copy { from, to } => {
                let tag = self.verify(number, from);
                return Some(Operation::Paste { to, tag });
            }
            Operation::Paste { to, tag } => self.overwrite(number, to, tag),
            Operation::Discard(page) => self.discard(number, page),
            Operation::Pin(page) => {
                self.verify(number, page);
                let task = &mut self.tasks[number];
                if self.swappers[task.swapper].pager.pin(page).is_ok() {
                    task.pinned.push_back(page);
                }
            }
            Operation::Allocate => {
                let memory = self.parts.memory;
                let task = &mut self.tasks[number];
                if task.frames.len() < KERNEL_FRAMES
                    && let Ok(frame) = memory.alloc(0, Gfp::KERNEL)
                {
                    task.frames.push_back(frame);
                }
            }
        }
        self.got_on(self.tasks[number].swapper, now);
        None
    }

    /// Compares a page with what it must hold, and returns that.
    fn verify(&mut self, number: usize, page: Page) -> u64 {
        let swapper = &mut self.swappers[self.tasks[number].swapper];
        let expected = swapper.truth[page.0 as usize];
        let cut = swapper.cut && swapper.ledger.connections() > 1;
        let bytes = M::load(&mut swapper.pager, page).expect("it was reached just now");
        self.counts.verified += 1;
        // Zeros where somebody had cut the file, and the answer was lost that would have told:
        // nobody can know, as long as pages are not sealed. A page that was written in two pieces may
        // have lost one of them.
        let excused = cut && differs_in_zeros_alone(bytes, expected);
        if let Some((at, found)) = difference(bytes, expected).filter(|_| !excused) {
            self.parts.findings.report("integrity", || {
                format!(
                    "page {} holds {found:#x} at byte {at}, and must hold what was written as \
                     number {expected:#x}",
                    page.0
                )
            });
        }
        expected
    }

    fn overwrite(&mut self, number: usize, page: Page, tag: u64) {
        // What is there must be right before it goes: a write can be of a part of a page.
        self.verify(number, page);
        let swapper = &mut self.swappers[self.tasks[number].swapper];
        let bytes = M::store(&mut swapper.pager, page).expect("it was reached just now");
        fill(bytes, tag);
        swapper.truth[page.0 as usize] = tag;
    }

    fn discard(&mut self, number: usize, page: Page) {
        let number = self.tasks[number].swapper;
        let swapper = &mut self.swappers[number];
        let result = swapper.pager.discard(page);
        self.parts.findings.check(result.is_ok(), "pager", || {
            format!("page {} cannot be discarded: {result:?}", page.0)
        });
        swapper.truth[page.0 as usize] = 0;
        for task in self.tasks.iter_mut().filter(|task| task.swapper == number) {
            task.pinned.retain(|pinned| *pinned != page);
        }
    }
}

/// Whether a page can be accessed without a fault.
pub(super) fn is_accessible<'m, A: AddressSpace<Frame<'m>>, M: Mmu>(
    pager: &mut Pager<'_, 'm, A, M>,
    page: Page,
    access: Access,
) -> bool {
    match access {
        Access::Read => M::load(pager, page).is_some(),
        Access::Write => M::store(pager, page).is_some(),
    }
}
