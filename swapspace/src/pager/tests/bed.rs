//! A small machine: a zone, a swap area that can be made to fail, and a pager over both.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use core::task::Poll;
use core::time::Duration;

use mempool::{Buddy, Budget, FRAME_SIZE, FrameEntry, Gfp, SingleTask, Watermarks, Zone};

use super::super::*;
use crate::{
    Completion, Geometry, IoClass, IoOp, PageFrame, RamSpace, Refused, Slot, SpaceError,
    SubmitError, SwapIo, Ticket,
};

/// What a test does to the store, and what it saw of it.
#[derive(Debug, Default)]
pub(super) struct Script {
    /// The next so many writes fail.
    pub(super) fail_writes: usize,
    /// The next so many reads fail, and fill their frames with rubbish.
    pub(super) fail_reads: usize,
    /// Of a request that fails so many of the first pages are done all the same.
    pub(super) done: u8,
    /// How they fail; as I/O errors, unless something else is said.
    pub(super) kind: Option<ErrorKind>,
    /// Only requests of the area with this number fail.
    pub(super) only: Option<usize>,
    /// The next so many writes are stray, whether they fail or not.
    pub(super) stray_writes: usize,
    /// What writes that are stray or timed out put into their slots: always once more, just before
    /// a slot is read.
    pub(super) late: BTreeMap<(usize, u32), Vec<u8>>,
    /// The next so many requests are refused as busy.
    pub(super) refuse: usize,
    /// Completions are held back.
    pub(super) held: bool,
    /// The deadlines of requests are not handed on.
    pub(super) ignores_deadlines: bool,
    /// The deadline of each request that was admitted.
    pub(super) deadlines: Vec<Option<Instant>>,
    /// To which classes requests were raised.
    pub(super) expedited: Vec<IoClass>,
    /// Every request that was admitted.
    pub(super) log: Vec<(IoOp, IoClass, Slot, usize)>,
}

/// A RAM back end that does what its script says.
pub(super) struct Flaky<F> {
    ram: RamSpace<'static, F, 4>,
    /// Which area it is.
    area: usize,
    pub(super) script: Rc<RefCell<Script>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scripted(ErrorKind);

impl fmt::Display for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the script says so")
    }
}

impl SpaceError for Scripted {
    fn kind(&self) -> ErrorKind {
        self.0
    }
}

fn take(count: &mut usize) -> bool {
    let some = *count > 0;
    *count -= usize::from(some);
    some
}

impl<F: PageFrame> AddressSpace<F> for Flaky<F> {
    type Error = Scripted;

    const BUDGET: Budget = Budget::ZERO;

    fn swap_activate(&mut self, now: Instant) -> Poll<Result<Geometry, Scripted>> {
        self.ram
            .swap_activate(now)
            .map_err(|_| Scripted(ErrorKind::Io))
    }

    fn submit(&mut self, mut io: SwapIo<F>, now: Instant) -> Result<Ticket, Refused<F>> {
        let mut script = self.script.borrow_mut();
        if take(&mut script.refuse) {
            let error = SubmitError::Busy;
            return Err(Refused { error, io });
        }
        let entry = (io.op, io.class, io.slot, io.frames.len());
        let deadline = io.deadline;
        io.deadline = deadline.filter(|_| !script.ignores_deadlines);
        let ticket = self.ram.submit(io, now)?;
        script.log.push(entry);
        script.deadlines.push(deadline);
        Ok(ticket)
    }

    fn poll(&mut self, now: Instant) -> Option<Completion<F, Scripted>> {
        let script = &mut *self.script.borrow_mut();
        if script.held {
            return None;
        }
        let mut done = self.ram.poll(now)?;
        let meant = script.only.is_none_or(|only| only == self.area);
        let fails = match done.io.op {
            _ if !meant => false,
            IoOp::Read => take(&mut script.fail_reads),
            IoOp::Write => take(&mut script.fail_writes),
        };
        let kind = script.kind.unwrap_or(ErrorKind::Io);
        let stray = done.io.op == IoOp::Write && take(&mut script.stray_writes);
        let first_failed = done.io.slot.0 + u32::from(script.done);
        for (slot, frame) in (done.io.slot.0..).zip(&mut done.io.frames) {
            let fails = fails && slot >= first_failed;
            match done.io.op {
                IoOp::Write if stray || fails && kind == ErrorKind::TimedOut => {
                    script
                        .late
                        .insert((self.area, slot), frame.as_ref().to_vec());
                }
                IoOp::Write => {}
                IoOp::Read if fails => frame.as_mut().fill(0xbd),
                IoOp::Read => {
                    if let Some(late) = script.late.get(&(self.area, slot)) {
                        frame.as_mut().copy_from_slice(late);
                    }
                }
            }
        }
        Some(Completion {
            ticket: done.ticket,
            io: done.io,
            result: match fails {
                true => Err(Scripted(kind)),
                false => done.result.map_err(|error| Scripted(error.kind())),
            },
            done: if fails { script.done } else { 0 },
            stray,
        })
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.ram.next_deadline()
    }

    fn expedite(&mut self, ticket: Ticket, class: IoClass) {
        self.script.borrow_mut().expedited.push(class);
        self.ram.expedite(ticket, class);
    }

    fn swap_deactivate(&mut self, now: Instant) -> Poll<Result<(), Scripted>> {
        self.ram
            .swap_deactivate(now)
            .map_err(|_| Scripted(ErrorKind::Io))
    }
}

/// A table whose pages are copies, as with `userfaultfd`, and that knows what was used.
#[derive(Debug)]
pub(super) struct CopyTable {
    pages: Vec<Option<Copied>>,
}

#[derive(Debug)]
struct Copied {
    bytes: Vec<u8>,
    writable: bool,
    accessed: bool,
}

impl CopyTable {
    fn mapped(&mut self, page: Page) -> &mut Copied {
        self.pages[page.index()].as_mut().expect("a mapped page")
    }
}

impl PageTable for CopyTable {
    const MAPPED_DURING_WRITEBACK: bool = true;

    fn map(&mut self, page: Page, bytes: &mut [u8], mapping: Mapping) {
        let copied = Copied {
            bytes: bytes.to_vec(),
            writable: mapping == Mapping::ReadWrite,
            accessed: false,
        };
        let old = self.pages[page.index()].replace(copied);
        assert!(old.is_none(), "only an unmapped page is mapped");
    }

    fn write_protect(&mut self, page: Page, bytes: &mut [u8]) {
        let copied = self.mapped(page);
        assert!(copied.writable, "only a writable page is write-protected");
        copied.writable = false;
        bytes.copy_from_slice(&copied.bytes);
    }

    fn make_writable(&mut self, page: Page) {
        let copied = self.mapped(page);
        assert!(!copied.writable, "only a protected page is made writable");
        copied.writable = true;
    }

    fn unmap(&mut self, page: Page) {
        let old = self.pages[page.index()].take();
        assert!(old.is_some(), "only a mapped page is unmapped");
    }

    fn take_accessed(&mut self, page: Page) -> bool {
        core::mem::take(&mut self.mapped(page).accessed)
    }
}

pub(super) type TestPager<T, P> = Pager<'static, 'static, Flaky<Frame<'static>>, T, P, 2>;

/// How a client of either table gets at a page that is mapped.
pub(super) trait Client: PageTable + Sized {
    fn new(pages: usize) -> Self;

    /// The bytes, if a load would go through.
    fn load<P: EvictionPolicy>(pager: &mut TestPager<Self, P>, page: Page) -> Option<Vec<u8>>;

    /// Whether a store went through.
    fn store<P: EvictionPolicy>(pager: &mut TestPager<Self, P>, page: Page, bytes: &[u8]) -> bool;
}

impl Client for CopyTable {
    fn new(pages: usize) -> Self {
        CopyTable {
            pages: (0..pages).map(|_| None).collect(),
        }
    }

    fn load<P: EvictionPolicy>(pager: &mut TestPager<Self, P>, page: Page) -> Option<Vec<u8>> {
        let copied = pager.table.pages[page.index()].as_mut()?;
        copied.accessed = true;
        Some(copied.bytes.clone())
    }

    fn store<P: EvictionPolicy>(pager: &mut TestPager<Self, P>, page: Page, bytes: &[u8]) -> bool {
        let copied = pager.table.pages[page.index()].as_mut();
        let Some(copied) = copied.filter(|copied| copied.writable) else {
            return false;
        };
        copied.accessed = true;
        copied.bytes.copy_from_slice(bytes);
        true
    }
}

impl Client for ExplicitTable {
    fn new(_pages: usize) -> Self {
        ExplicitTable
    }

    fn load<P: EvictionPolicy>(pager: &mut TestPager<Self, P>, page: Page) -> Option<Vec<u8>> {
        pager.frame(page).map(<[u8]>::to_vec)
    }

    fn store<P: EvictionPolicy>(pager: &mut TestPager<Self, P>, page: Page, bytes: &[u8]) -> bool {
        let frame = pager.frame_mut(page);
        frame.map(|frame| frame.copy_from_slice(bytes)).is_some()
    }
}

/// The shape of a test machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) frames: usize,
    pub(super) pages: usize,
    pub(super) slots: usize,
    /// Slots of a second area, of the same priority; 0 for none.
    pub(super) second: usize,
    pub(super) faults: usize,
    pub(super) requests: usize,
    pub(super) latency: Duration,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            frames: 20,
            pages: 64,
            slots: 64,
            second: 0,
            faults: 8,
            requests: 4,
            latency: Duration::from_micros(50),
        }
    }
}

pub(super) const MARKS: Watermarks = Watermarks {
    min: 2,
    low: 4,
    high: 6,
};

pub(super) type ExplicitBed = Bed<ExplicitTable>;

pub(super) struct Bed<T, P = SecondChance> {
    pub(super) pager: TestPager<T, P>,
    pub(super) zone: &'static Zone<'static>,
    pub(super) script: Rc<RefCell<Script>>,
    pub(super) now: Instant,
}

/// Everything is leaked, so that lifetimes do not matter.
fn leak<E>(make: impl Fn() -> E, count: usize) -> &'static mut [E] {
    Vec::leak((0..count).map(|_| make()).collect())
}

impl<T: Client> Bed<T> {
    pub(super) fn new(shape: Shape) -> Self {
        Self::with_policy(shape)
    }
}

impl<T: Client, P: EvictionPolicy + Default> Bed<T, P> {
    pub(super) fn with_policy(shape: Shape) -> Self {
        let memory = vec![0xa5; (shape.frames + 1) * FRAME_SIZE].leak();
        let skip = memory.as_ptr().align_offset(FRAME_SIZE);
        let memory = &mut memory[skip..skip + shape.frames * FRAME_SIZE];
        let source: &'static Buddy<'static> = Box::leak(Box::new(
            Buddy::new(memory, leak(|| FrameEntry::EMPTY, shape.frames)).unwrap(),
        ));
        let task: &'static SingleTask = Box::leak(Box::new(SingleTask::new()));
        let zone: &'static Zone<'static> =
            Box::leak(Box::new(Zone::new(source, task, MARKS).unwrap()));

        let script = Rc::new(RefCell::new(Script::default()));
        let mut space = SwapSpace::new();
        for (number, slots) in [shape.slots, shape.second].into_iter().enumerate() {
            if slots == 0 {
                continue;
            }
            let store = vec![0x5a; slots * FRAME_SIZE].leak();
            let flaky = Flaky {
                ram: RamSpace::new(store).with_latency(shape.latency),
                area: number,
                script: Rc::clone(&script),
            };
            let map = crate::slots::map_len(slots as u32);
            let mut area = SwapArea::new(flaky, leak(|| 0, map));
            assert!(matches!(area.activate(Instant::ZERO), Poll::Ready(Ok(_))));
            assert_eq!(space.swapon(area, 0).ok(), Some(number));
        }
        let tables = PagerTables {
            pages: leak(|| PageEntry::EMPTY, shape.pages),
            faults: leak(|| FaultEntry::EMPTY, shape.faults),
            requests: leak(|| RequestEntry::EMPTY, shape.requests),
        };
        Bed {
            pager: Pager::with_policy(zone, space, T::new(shape.pages), tables, P::default()),
            zone,
            script,
            now: Instant::ZERO,
        }
    }

    /// Polls without letting time pass.
    pub(super) fn events(&mut self) -> Vec<PagerEvent> {
        let events = core::iter::from_fn(|| self.pager.poll(self.now)).collect();
        self.check();
        events
    }

    /// Polls, and jumps to the next deadline, until there is an event or nothing to wait for.
    pub(super) fn event(&mut self) -> Option<PagerEvent> {
        for _ in 0..10_000 {
            let event = self.pager.poll(self.now);
            self.check();
            if event.is_some() {
                return event;
            }
            self.now = self.pager.next_deadline()?.max(self.now);
        }
        panic!("the pager spins: {:?}", self.pager.stats());
    }

    /// Faults, and waits until the page is mapped.
    pub(super) fn touch(&mut self, page: u32, access: Access) {
        let page = Page(page);
        if self.pager.fault(page, access, self.now) == Ok(FaultOutcome::Mapped) {
            self.check();
            return;
        }
        loop {
            match self.event() {
                Some(PagerEvent::Mapped { page: other, .. }) if other == page => return,
                Some(PagerEvent::Mapped { .. }) => {}
                event => panic!("{event:?}, {:?}", self.pager.stall(self.now)),
            }
        }
    }

    /// Writes a page full of `byte`, faulting as a client would.
    pub(super) fn write(&mut self, page: u32, byte: u8) {
        let bytes = [byte; FRAME_SIZE];
        if !T::store(&mut self.pager, Page(page), &bytes) {
            self.touch(page, Access::Write);
            assert!(T::store(&mut self.pager, Page(page), &bytes), "just mapped");
        }
    }

    /// Reads a page, which is full of one byte.
    pub(super) fn read(&mut self, page: u32) -> u8 {
        let bytes = T::load(&mut self.pager, Page(page)).unwrap_or_else(|| {
            self.touch(page, Access::Read);
            T::load(&mut self.pager, Page(page)).expect("just mapped")
        });
        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a torn page");
        bytes[0]
    }

    /// Fills memory with dirty pages from 0 on, as long as a fault is served at once.
    pub(super) fn fill(&mut self) -> u32 {
        for page in 0.. {
            if self.zone.stats().free <= MARKS.low {
                return page;
            }
            self.write(page, page as u8);
        }
        unreachable!("memory is finite")
    }

    /// Takes all that an ordinary caller can have.
    pub(super) fn hog(&self) -> Vec<Frame<'static>> {
        core::iter::from_fn(|| self.zone.alloc(0, Gfp::KERNEL).ok()).collect()
    }

    /// Some page in that state.
    pub(super) fn some(&self, state: State) -> Option<Page> {
        let at = self.pager.pages.iter().position(|e| e.state == state)?;
        Some(Page(at as u32))
    }

    /// Pushes memory a little below the low mark, until pages are on their way out.
    pub(super) fn start_writeback(&mut self) -> Page {
        let hog = [(); 2].map(|()| self.zone.alloc(0, Gfp::KERNEL).unwrap());
        while self.pager.stats().writeback == 0 {
            assert_eq!(self.events(), []);
        }
        drop(hog);
        self.some(State::Writeback).unwrap()
    }

    /// Shuts down, and sees that everything went back where it came from.
    pub(super) fn shut_down(mut self) {
        self.script.borrow_mut().held = false;
        while self.pager.shutdown(self.now).is_pending() {
            self.now = self.pager.next_deadline().unwrap().max(self.now);
        }
        self.check();
        let (zone, area) = (self.zone.stats(), self.pager.space.stats());
        assert_eq!(zone.free, zone.total, "every frame went back");
        assert_eq!((area.used, area.in_flight), (0, 0), "every slot went back");
        for index in 0..2 {
            if self.pager.space.area(index).is_some() {
                let off = self.pager.space.swapoff(index, self.now);
                assert!(matches!(off, Poll::Ready(Ok(_))), "area {index}");
            }
        }
    }

    /// Checks the books against the entries.
    pub(super) fn check(&self) {
        let pager = &self.pager;
        let in_state = |state| pager.pages.iter().filter(move |e| e.state == state);
        let count = |state| in_state(state).count();
        assert_eq!(pager.policy.len(), count(State::Resident));
        assert_eq!(pager.cached.len(), count(State::Cached));
        assert_eq!(pager.writeback, count(State::Writeback));
        assert_eq!(
            pager.dirty,
            in_state(State::Resident).filter(|e| e.dirty).count()
        );
        let slots = pager.pages.iter().filter(|e| e.swap.is_some()).count();
        assert_eq!(pager.space.stats().used as usize, slots, "no slot leaks");
        assert_eq!(pager.space.stats().in_flight, pager.requests.in_flight());
        for entry in pager.pages.iter() {
            let (frame, swap) = (entry.frame.is_some(), entry.swap.is_some());
            let flagged = entry.suspect || entry.stray;
            assert!(swap || !flagged, "flags of a slot go with it");
            match entry.state {
                State::Untouched => assert!(!frame && !swap && !entry.dirty),
                State::Swapped => assert!(!frame && swap && !entry.dirty),
                State::Reading => assert!(!frame && swap),
                State::Cached => assert!(frame && swap && !entry.dirty && !entry.held()),
                State::Resident => assert!(frame && !(entry.dirty && swap)),
                State::Writeback => assert!(!frame && swap),
            }
        }
    }
}
