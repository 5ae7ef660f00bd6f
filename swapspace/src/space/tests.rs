use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use mempool::{Budget, FRAME_SIZE};

use super::*;
use crate::{IoClass, RamSpace};

type Page = Box<[u8]>;

/// RAM that can be made to fail.
#[derive(Debug)]
struct Store {
    ram: RamSpace<'static, Page, 4>,
    fails: Option<ErrorKind>,
}

#[derive(Debug, PartialEq)]
struct Failed(ErrorKind);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl SpaceError for Failed {
    fn kind(&self) -> ErrorKind {
        self.0
    }
}

impl AddressSpace<Page> for Store {
    type Error = Failed;

    const BUDGET: Budget = Budget::ZERO;

    fn swap_activate(&mut self, now: Instant) -> Poll<Result<Geometry, Failed>> {
        self.ram.swap_activate(now).map_err(|e| Failed(e.kind()))
    }

    fn submit(&mut self, io: SwapIo<Page>, now: Instant) -> Result<Ticket, Refused<Page>> {
        self.ram.submit(io, now)
    }

    fn poll(&mut self, now: Instant) -> Option<Completion<Page, Failed>> {
        let done = self.ram.poll(now)?;
        Some(Completion {
            ticket: done.ticket,
            io: done.io,
            result: self.fails.map_or(Ok(()), |kind| Err(Failed(kind))),
            done: 0,
            stray: false,
        })
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.ram.next_deadline()
    }

    fn swap_deactivate(&mut self, now: Instant) -> Poll<Result<(), Failed>> {
        self.ram.swap_deactivate(now).map_err(|e| Failed(e.kind()))
    }
}

const NOW: Instant = Instant::ZERO;

fn area(slots: u32) -> SwapArea<'static, Page, Store> {
    let store = vec![0; slots as usize * FRAME_SIZE].leak();
    let map = vec![0; SwapArea::<(), ()>::map_len(slots)].leak();
    let ram = RamSpace::new(store);
    SwapArea::new(Store { ram, fails: None }, map)
}

/// Areas of so many slots with such priorities, active.
fn space<const N: usize>(shape: [(u32, i16); N]) -> SwapSpace<'static, Page, Store, N> {
    let mut space = SwapSpace::new();
    for (slots, priority) in shape {
        let index = space.swapon(area(slots), priority).unwrap();
        assert!(matches!(space.activate(index, NOW), Poll::Ready(Ok(_))));
    }
    space
}

fn io(op: IoOp, slot: Slot, bytes: u8) -> SwapIo<Page> {
    let frames = [vec![bytes; FRAME_SIZE].into()].into_iter().collect();
    SwapIo::new(op, slot, IoClass::Demand, frames)
}

/// Which areas the next runs of up to eight slots are in.
fn turns<const N: usize>(
    space: &mut SwapSpace<'static, Page, Store, N>,
    runs: usize,
) -> Vec<Option<usize>> {
    let mut next = || {
        let run = space.alloc(8)?;
        Some(space.index_of(run.first()))
    };
    (0..runs).map(|_| next()).collect()
}

#[test]
fn the_highest_priority_fills_first_and_equals_take_turns() {
    let mut space = space([(16, 0), (16, 5), (32, 5)]);
    let expected = [1, 2, 1, 2, 2, 2, 0, 0].map(Some);
    assert_eq!(turns(&mut space, 8), expected);
    assert_eq!(turns(&mut space, 1), [None], "everything is full");
}

#[test]
fn slots_of_different_areas_differ_and_go_back_where_they_came_from() {
    let mut space = space([(8, 0), (8, 0), (8, 0)]);
    let mut entries: Vec<SwapEntry> = core::iter::from_fn(|| space.alloc(4)).flatten().collect();
    entries.sort_by_key(SwapEntry::slot);
    entries.dedup();
    assert_eq!(entries.len(), 24);
    let shared = space.dup(&entries[20]).unwrap();
    for (i, entry) in entries.into_iter().enumerate() {
        if i < 8 {
            space.retire(entry);
        } else {
            space.free(entry);
        }
    }
    let books = |index| {
        let stats = space.area(index).unwrap().stats();
        (stats.free, stats.used, stats.retired)
    };
    assert_eq!([0, 1, 2].map(books), [(0, 0, 8), (8, 0, 0), (7, 1, 0)]);
    space.free(shared);
    assert_eq!(space.usable_slots(), 16);
}

#[test]
fn requests_go_to_the_area_of_their_slot_and_come_back_under_their_own_ticket() {
    let mut space = space([(8, 0), (8, 0)]);
    let first = space.alloc(1).unwrap().next().unwrap();
    let second = space.alloc(1).unwrap().next().unwrap();
    let mut sent = Vec::new();
    for (entry, byte) in [(&first, 1), (&second, 2)] {
        let io = io(IoOp::Write, entry.slot(), byte);
        sent.push((space.submit(io, NOW).unwrap(), entry.slot(), byte));
    }
    assert_ne!(sent[0].0, sent[1].0, "though each is the first of its area");
    assert_eq!(space.stats().in_flight, 2);
    for _ in 0..2 {
        let (ticket, done) = space.poll(NOW).unwrap();
        assert!(sent.contains(&(ticket, done.io.slot, done.io.frames[0][0])));
    }
    for (_, slot, byte) in sent {
        space.submit(io(IoOp::Read, slot, 0), NOW).unwrap();
        assert_eq!(space.poll(NOW).unwrap().1.io.frames[0][0], byte);
    }
}

#[test]
fn a_request_that_is_refused_comes_back_as_it_was() {
    let mut space = space([(8, 0), (8, 0)]);
    let [_, second] = [(); 2].map(|()| space.alloc(1).unwrap().first());
    let mut sent = io(IoOp::Write, second, 2);
    sent.frames.clear();
    let refused = space.submit(sent, NOW).unwrap_err();
    assert_eq!(
        (refused.error, refused.io.slot),
        (SubmitError::BadFrames, second)
    );

    let nowhere = Slot(u32::MAX - 1);
    let refused = space.submit(io(IoOp::Read, nowhere, 0), NOW).unwrap_err();
    assert_eq!(
        (refused.error, refused.io.slot),
        (SubmitError::OutOfRange, nowhere)
    );
}

#[test]
fn areas_take_turns_with_their_completions() {
    let mut space = space([(8, 0), (8, 0)]);
    let [first, second] = [(); 2].map(|()| space.alloc(1).unwrap().first());
    for slot in [first, first, second] {
        space.submit(io(IoOp::Read, slot, 0), NOW).unwrap();
    }
    let order: Vec<usize> = core::iter::from_fn(|| space.poll(NOW))
        .map(|(ticket, _)| ticket.index)
        .collect();
    assert_eq!(order, [0, 1, 0]);
}

#[test]
fn an_area_without_a_request_to_spare_is_passed_over() {
    let mut space = space([(64, 5), (64, 0)]);
    for _ in 0..3 {
        let entry = space.alloc(1).unwrap().next().unwrap();
        assert_eq!(space.index_of(entry.slot()), 0);
        space.submit(io(IoOp::Write, entry.slot(), 7), NOW).unwrap();
    }
    let sparing = space.alloc_sparing(1, true).unwrap();
    assert_eq!(
        space.index_of(sparing.first()),
        1,
        "the last one is for reads"
    );
    let last = space.alloc(1).unwrap();
    assert_eq!(space.index_of(last.first()), 0);
    space.submit(io(IoOp::Write, last.first(), 7), NOW).unwrap();
    assert_eq!(turns(&mut space, 1), [Some(1)]);
}

#[test]
fn a_store_out_of_order_gets_no_pages_until_it_is_enabled_and_is_still_read() {
    for (kind, op, skipped) in [
        (ErrorKind::Gone, IoOp::Write, true),
        (ErrorKind::Denied, IoOp::Read, true),
        (ErrorKind::ReadOnly, IoOp::Write, true),
        (ErrorKind::ReadOnly, IoOp::Read, false),
        (ErrorKind::TimedOut, IoOp::Write, false),
        (ErrorKind::Io, IoOp::Write, false),
    ] {
        let mut space = space([(64, 5), (8, 0)]);
        let entry = space.alloc(1).unwrap().next().unwrap();
        space.area_mut(0).unwrap().space_mut().fails = Some(kind);
        space.submit(io(op, entry.slot(), 7), NOW).unwrap();
        assert!(space.poll(NOW).unwrap().1.result.is_err());
        assert_eq!(space.failed(0), skipped.then_some(kind));
        let next = usize::from(skipped);
        assert_eq!(turns(&mut space, 1), [Some(next)], "{kind:?} {op:?}");
        // It is read, and pages go there neither when the other one is full.
        space.submit(io(IoOp::Read, entry.slot(), 0), NOW).unwrap();
        if skipped {
            assert_eq!(
                (turns(&mut space, 1), space.usable_slots()),
                (vec![None], 0)
            );
        }
        space.enable(0);
        assert_eq!(turns(&mut space, 1), [Some(0)]);
    }
}

#[test]
fn the_only_area_is_tried_again_even_when_it_is_out_of_order() {
    let mut space = space([(64, 0)]);
    let entry = space.alloc(1).unwrap().next().unwrap();
    space.area_mut(0).unwrap().space_mut().fails = Some(ErrorKind::Gone);
    space.submit(io(IoOp::Write, entry.slot(), 7), NOW).unwrap();
    let _ = space.poll(NOW).unwrap();
    assert_eq!(space.failed(0), Some(ErrorKind::Gone));
    assert_eq!(turns(&mut space, 1), [Some(0)]);
}

#[test]
fn s6_an_area_leaves_when_nobody_needs_it_and_its_place_is_free() {
    let mut space = space([(8, 5), (8, 0)]);
    assert!(
        matches!(space.activate(0, NOW), Poll::Ready(Ok(_))),
        "nests"
    );
    let entry = space.alloc(1).unwrap().next().unwrap();
    assert!(space.swapoff(0, NOW).is_pending());
    assert_eq!(
        turns(&mut space, 1),
        [Some(1)],
        "no page goes to it any more"
    );
    // Whoever owns the slot reads it, and may change its mind about the rest.
    space.submit(io(IoOp::Read, entry.slot(), 0), NOW).unwrap();
    space.enable(0);
    assert_eq!(turns(&mut space, 1), [Some(0)]);

    let rest: Vec<Slot> = (1..8).map(Slot).collect();
    for slot in rest {
        space.free(SwapEntry::new(slot));
    }
    space.free(entry);
    assert!(space.swapoff(0, NOW).is_pending(), "a request is in flight");
    let undone = space.area_mut(0).unwrap().deactivate(NOW);
    assert_eq!(undone, Poll::Ready(Ok(())));
    assert!(
        space.area(0).unwrap().geometry().is_some(),
        "both activations were there"
    );
    let _ = space.poll(NOW).unwrap();
    let Poll::Ready(Ok(area)) = space.swapoff(0, NOW) else {
        panic!("nobody needs it")
    };
    assert_eq!(area.geometry(), None);
    assert!(matches!(
        space.swapoff(0, NOW),
        Poll::Ready(Err(SwapoffError::NoSuchArea))
    ));
    assert_eq!(space.swapon(area, 3).unwrap(), 0);
    let refused = space.swapon(super::tests::area(8), 3).unwrap_err();
    assert_eq!(refused.error, SwaponError::Full);
    assert_eq!(refused.area.geometry(), None, "it comes back");
}

#[test]
fn s6_an_area_with_more_slots_than_can_be_numbered_is_refused_by_name() {
    // A stride of seven slots would need 2^29 areas: the limit is set by hand instead.
    let mut area = area(8);
    assert!(area.limit_slots(7));
    let refused = ActivateError::Misfit(crate::Misfit::TooManySlots { slots: 8, most: 7 });
    assert_eq!(area.activate(NOW), Poll::Ready(Err(refused)));
    assert!(area.limit_slots(8));
    assert!(matches!(area.activate(NOW), Poll::Ready(Ok(_))));
    assert!(!area.limit_slots(7), "it is active");
}

#[test]
fn sixteen_areas_of_a_tebibyte_can_be_numbered() {
    let stride = SwapSpace::<Page, Store, 15>::STRIDE;
    assert!(stride >= 1 << 28, "{stride}");
    assert_eq!(SwapSpace::<Page, Store, 1>::STRIDE, u32::MAX);
    let last = Slot(SwapSpace::<Page, Store, 16>::base(15));
    assert_eq!(SwapSpace::<Page, Store, 16>::locate(last), (15, Slot(0)));
}
