//! Random clients, random memory pressure, a store that fails at random: every page holds what was
//! last stored in it, and everything goes back in the end.

use alloc::vec;
use alloc::vec::Vec;

use mempool::{FRAME_SIZE, Gfp};
use proptest::prelude::*;

use super::bed::{Bed, Client, CopyTable, Shape};
use super::*;
use crate::CLUSTER_FRAMES;

const PAGES: u32 = 40;

#[derive(Debug, Clone)]
enum Op {
    Read(u32),
    Write(u32),
    Discard(u32),
    /// What later faults ask for: a priority, and a deadline so many microseconds ahead.
    Urgent(u8, Option<u64>),
    Prefetch(u32, u32),
    Advise(u32, Advice),
    Pin(u32),
    Unpin(u32),
    /// Somebody else takes, or gives back, so many frames.
    Hog(usize),
    Relent(usize),
    FailWrites(usize),
    StrayWrite,
    FailReads(usize),
    Refuse(usize),
    Hold(bool),
    Pass(u64),
    /// Begins to empty an area, or goes on.
    SwapOff(usize),
    CancelSwapOff(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let page = 0..PAGES;
    prop_oneof![
        20 => page.clone().prop_map(Op::Read),
        30 => page.clone().prop_map(Op::Write),
        3 => page.clone().prop_map(Op::Discard),
        3 => (0u8..3, prop::option::of(0u64..150)).prop_map(|(p, d)| Op::Urgent(p, d)),
        3 => (page.clone(), 0u32..12).prop_map(|(page, len)| Op::Prefetch(page, len)),
        2 => (page.clone(), advice()).prop_map(|(page, advice)| Op::Advise(page, advice)),
        1 => page.clone().prop_map(Op::Pin),
        2 => page.prop_map(Op::Unpin),
        3 => (1usize..5).prop_map(Op::Hog),
        4 => (1usize..5).prop_map(Op::Relent),
        3 => (1usize..4).prop_map(Op::FailWrites),
        2 => Just(Op::StrayWrite),
        2 => (1usize..3).prop_map(Op::FailReads),
        2 => (1usize..3).prop_map(Op::Refuse),
        3 => any::<bool>().prop_map(Op::Hold),
        15 => (0u64..200).prop_map(Op::Pass),
        12 => (0usize..2).prop_map(Op::SwapOff),
        1 => (0usize..2).prop_map(Op::CancelSwapOff),
    ]
}

fn advice() -> impl Strategy<Value = Advice> {
    prop_oneof![
        Just(Advice::Normal),
        Just(Advice::Sequential),
        Just(Advice::Random),
        Just(Advice::Cold),
    ]
}

/// What a client will do once its page is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Nothing,
    Read,
    Write(u8),
}

struct World<T, P> {
    bed: Bed<T, P>,
    /// What each page holds.
    model: Vec<u8>,
    wants: Vec<Want>,
    version: u8,
    urgency: (u8, Option<u64>),
    /// Writes that may yet become stray: each takes slots out of use.
    strays: usize,
}

impl<T: Client, P: EvictionPolicy + Default> World<T, P> {
    fn new((shape, strays): (Shape, usize)) -> Self {
        let mut bed = Bed::with_policy(shape);
        // Half of the machines read ahead.
        bed.pager.set_readahead(shape.slots % 2 == 0);
        World {
            bed,
            model: vec![0; PAGES as usize],
            wants: vec![Want::Nothing; PAGES as usize],
            version: 0,
            urgency: (0, None),
            strays,
        }
    }

    /// Does what a client wants, if it can without a fault.
    fn attempt(&mut self, page: u32, want: Want) -> bool {
        let pager = &mut self.bed.pager;
        match want {
            Want::Nothing => true,
            Want::Read => match T::load(pager, Page(page)) {
                None => false,
                Some(bytes) => {
                    let expected = self.model[page as usize];
                    assert!(
                        bytes.iter().all(|byte| *byte == expected),
                        "page {page} holds {:#x} and not {expected:#x}",
                        bytes[0]
                    );
                    true
                }
            },
            Want::Write(byte) => {
                let stored = T::store(pager, Page(page), &[byte; FRAME_SIZE]);
                if stored {
                    self.model[page as usize] = byte;
                }
                stored
            }
        }
    }

    /// A client reads or writes; it may have to wait. A client that waits does nothing else.
    fn access(&mut self, page: u32, want: Want) {
        if self.wants[page as usize] != Want::Nothing || self.attempt(page, want) {
            return;
        }
        let access = match want {
            Want::Write(_) => Access::Write,
            _ => Access::Read,
        };
        let (priority, micros) = self.urgency;
        let now = self.bed.now;
        let options = FaultOptions {
            priority,
            deadline: micros.map(|micros| now + Duration::from_micros(micros)),
        };
        match self.bed.pager.fault_with(Page(page), access, options, now) {
            Ok(FaultOutcome::Mapped) => assert!(self.attempt(page, want), "mapped, but not there"),
            Ok(FaultOutcome::Pending) => self.wants[page as usize] = want,
            Err(FaultError::Late) => assert_eq!(micros, Some(0)),
            Err(error) => assert_eq!(error, FaultError::QueueFull),
        }
        self.bed.check();
    }

    fn handle(&mut self, event: PagerEvent) {
        match event {
            PagerEvent::Mapped { page, .. } => {
                let want = core::mem::replace(&mut self.wants[page.index()], Want::Nothing);
                assert_ne!(want, Want::Nothing, "nobody waits for {page:?}");
                assert!(self.attempt(page.0, want), "mapped, but not there");
            }
            PagerEvent::Failed { page, .. } => self.wants[page.index()] = Want::Nothing,
        }
    }

    /// An area that is empty is given to the pager anew.
    fn swap_off(&mut self, index: usize) {
        if let Poll::Ready(Ok(mut area)) = self.bed.pager.swapoff(index, self.bed.now) {
            assert!(matches!(area.activate(self.bed.now), Poll::Ready(Ok(_))));
            // What was late is over when the space is activated anew.
            let mut script = self.bed.script.borrow_mut();
            script.late.retain(|(late, _), _| *late != index);
            let on = self.bed.pager.space_mut().swapon(area, 0);
            assert_eq!(on.ok(), Some(index));
        }
    }

    fn pump(&mut self) {
        while let Some(event) = self.bed.pager.poll(self.bed.now) {
            self.bed.check();
            self.handle(event);
        }
        self.bed.check();
    }

    /// Waits until nobody waits.
    fn settle(&mut self) {
        while let Some(event) = self.bed.event() {
            self.handle(event);
        }
        let waiting = self.wants.iter().position(|want| *want != Want::Nothing);
        assert_eq!(waiting, None, "{:?}", self.bed.pager.stall(self.bed.now));
    }

    fn run(mut self, ops: Vec<Op>) {
        let mut hog = Vec::new();
        for op in ops {
            match op {
                Op::Read(page) => self.access(page, Want::Read),
                Op::Write(page) => {
                    self.version = self.version.wrapping_add(1).max(1);
                    self.access(page, Want::Write(self.version));
                }
                Op::Discard(page) => {
                    self.bed.pager.discard(Page(page)).unwrap();
                    self.model[page as usize] = 0;
                    self.pump();
                    self.wants[page as usize] = Want::Nothing;
                }
                Op::Urgent(priority, micros) => self.urgency = (priority, micros),
                Op::Prefetch(page, len) => {
                    let pages = Page(page)..Page(PAGES.min(page + len));
                    self.bed.pager.prefetch(pages).unwrap();
                }
                Op::Advise(page, advice) => {
                    let pages = Page(page)..Page(PAGES.min(page + 8));
                    self.bed.pager.advise(pages, advice).unwrap();
                }
                Op::Pin(page) => drop(self.bed.pager.pin(Page(page))),
                Op::Unpin(page) => drop(self.bed.pager.unpin(Page(page))),
                Op::Hog(frames) => {
                    hog.extend(
                        (0..frames).filter_map(|_| self.bed.zone.alloc(0, Gfp::KERNEL).ok()),
                    );
                }
                Op::Relent(frames) => hog.truncate(hog.len().saturating_sub(frames)),
                Op::FailWrites(count) => self.bed.script.borrow_mut().fail_writes += count,
                Op::StrayWrite if self.strays > 0 => {
                    self.strays -= 1;
                    self.bed.script.borrow_mut().stray_writes += 1;
                }
                Op::StrayWrite => {}
                Op::FailReads(count) => self.bed.script.borrow_mut().fail_reads += count,
                Op::Refuse(count) => self.bed.script.borrow_mut().refuse += count,
                Op::Hold(held) => self.bed.script.borrow_mut().held = held,
                Op::SwapOff(index) => self.swap_off(index),
                Op::CancelSwapOff(index) => self.bed.pager.cancel_swapoff(index),
                Op::Pass(micros) => self.bed.now = self.bed.now + Duration::from_micros(micros),
            }
            self.pump();
        }

        // The store recovers, the others relent: whoever waits is served.
        hog.clear();
        {
            let mut script = self.bed.script.borrow_mut();
            (script.fail_writes, script.fail_reads, script.refuse) = (0, 0, 0);
            (script.stray_writes, script.held) = (0, false);
        }
        for index in 0..2 {
            self.bed.pager.cancel_swapoff(index);
        }
        for page in 0..PAGES {
            while self.bed.pager.unpin(Page(page)).is_ok() {}
        }
        self.settle();
        for page in 0..PAGES {
            assert_eq!(self.bed.read(page), self.model[page as usize]);
        }
        // Often enough for every slot to be used again that may be.
        for round in 0..3 {
            for page in 0..PAGES {
                self.bed.write(page, page as u8 ^ (0x40 << (round % 2)));
            }
            for page in 0..PAGES {
                assert_eq!(self.bed.read(page), page as u8 ^ (0x40 << (round % 2)));
            }
        }
        self.bed.shut_down();
    }
}

/// A machine, and how many of its writes may be stray.
fn shape() -> impl Strategy<Value = (Shape, usize)> {
    (
        8usize..24,
        0usize..20,
        1usize..6,
        1usize..5,
        0u64..100,
        0usize..4,
        any::<(bool, prop::sample::Index)>(),
    )
        .prop_map(
            |(frames, spare, faults, requests, latency, strays, (two, at))| {
                let slots = PAGES as usize + spare + strays * CLUSTER_FRAMES;
                let second = if two { at.index(slots) } else { 0 };
                let shape = Shape {
                    frames,
                    pages: PAGES as usize,
                    // What does not fit into memory fits into the slots, with and without room to
                    // spare, when all the slots of stray writes are retired. A slot whose read failed
                    // may be retired on top.
                    slots: slots - second,
                    second,
                    faults,
                    requests,
                    latency: Duration::from_micros(latency),
                };
                (shape, strays)
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn pages_keep_their_bytes_with_a_table_of_copies(
        shape in shape(),
        ops in prop::collection::vec(op(), 1..250),
    ) {
        World::<CopyTable, SecondChance>::new(shape).run(ops);
    }

    #[test]
    fn pages_keep_their_bytes_with_explicit_paging(
        shape in shape(),
        ops in prop::collection::vec(op(), 1..250),
    ) {
        World::<ExplicitTable, SecondChance>::new(shape).run(ops);
    }

    #[test]
    fn pages_keep_their_bytes_when_they_go_by_nru(
        shape in shape(),
        ops in prop::collection::vec(op(), 1..250),
    ) {
        World::<CopyTable, Nru>::new(shape).run(ops);
    }

    #[test]
    fn pages_keep_their_bytes_when_they_go_by_s3_fifo(
        shape in shape(),
        ops in prop::collection::vec(op(), 1..250),
    ) {
        World::<CopyTable, S3Fifo>::new(shape).run(ops);
    }
}
