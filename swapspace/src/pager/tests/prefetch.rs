//! What is read ahead, when, and what becomes of it.

use core::ops::Range;

use super::bed::{Bed, Client, CopyTable, MARKS, Shape};
use super::*;

const PAGES: u32 = 48;

/// A machine whose pages are all in the store, in order, but for a few; page `n` is full of `n`.
fn swapped_out() -> Bed<CopyTable> {
    let mut bed = Bed::new(Shape {
        frames: 32,
        ..Shape::default()
    });
    for page in 0..PAGES {
        bed.write(page, page as u8);
    }
    let mut hog = Vec::new();
    while bed.pager.stats().resident > 4 {
        hog.extend(bed.hog());
        settle(&mut bed);
    }
    drop(hog);
    bed.script.borrow_mut().log.clear();
    bed
}

/// Reads of the store so far, of either class, in pages.
fn reads(bed: &Bed<CopyTable>, class: IoClass) -> usize {
    let script = bed.script.borrow();
    let reads = script.log.iter().filter(|entry| entry.0 == IoOp::Read);
    reads.filter(|entry| entry.1 == class).map(|e| e.3).sum()
}

/// The longest run of pages that are out.
fn out(bed: &Bed<CopyTable>) -> Range<u32> {
    let is_out = |page: &u32| bed.pager.pages[*page as usize].state == State::Swapped;
    let mut best = 0..0;
    for from in 0..PAGES {
        let to = (from..PAGES).take_while(is_out).count() as u32 + from;
        if to - from > best.end - best.start {
            best = from..to;
        }
    }
    assert!(best.len() >= 20, "{best:?}");
    best
}

fn in_state(bed: &Bed<CopyTable>, state: State) -> usize {
    bed.pager
        .pages
        .iter()
        .filter(|entry| entry.state == state)
        .count()
}

/// Lets everything in flight arrive.
fn settle(bed: &mut Bed<CopyTable>) {
    assert_eq!(bed.event(), None);
}

#[test]
fn pages_in_order_are_read_ahead_in_clusters_and_found_in_memory() {
    let mut bed = swapped_out();
    bed.pager.set_readahead(true);
    let range = out(&bed);
    for page in range.start..range.start + 20 {
        assert_eq!(bed.read(page), page as u8);
        settle(&mut bed);
    }
    let stats = bed.pager.stats();
    assert!(stats.prefetch_hits >= 15, "{stats:?}");
    assert!(reads(&bed, IoClass::Demand) <= 5);
    let script = bed.script.borrow();
    let ahead = |entry: &&(IoOp, IoClass, crate::Slot, usize)| entry.1 == IoClass::Prefetch;
    let requests = script.log.iter().filter(ahead).count();
    let pages = script.log.iter().filter(ahead).map(|e| e.3).sum::<usize>();
    assert!(
        pages >= 2 * requests,
        "{pages} pages in {requests} requests"
    );
    drop(script);
    bed.shut_down();
}

#[test]
fn it_is_off_unless_it_is_switched_on() {
    let mut bed = swapped_out();
    let range = out(&bed);
    for page in range.start..range.start + 10 {
        bed.read(page);
        settle(&mut bed);
    }
    assert_eq!(bed.pager.stats().prefetched, 0);
    bed.shut_down();
}

#[test]
fn what_was_read_ahead_is_not_mapped_and_a_fault_finds_it_without_the_store() {
    let mut bed = swapped_out();
    let range = out(&bed);
    let page = Page(range.start);
    bed.pager.prefetch(page..Page(page.0 + 4)).unwrap();
    settle(&mut bed);
    assert_eq!(bed.pager.stats().cached, 4);
    assert_eq!(bed.pager.stats().prefetched, 4);
    assert_eq!(CopyTable::load(&mut bed.pager, page), None);
    assert_eq!(bed.pager.frame(page), None);
    assert_eq!(bed.pager.frame_mut(page), None);
    assert_eq!(bed.pager.pin(page), Err(PinError::NotMapped));

    let outcome = bed.pager.fault(page, Access::Write, bed.now);
    assert_eq!(outcome, Ok(FaultOutcome::Mapped));
    assert_eq!(bed.read(page.0), page.0 as u8);
    assert!(bed.pager.pages[page.index()].dirty);
    assert_eq!(bed.pager.stats().cached, 3);
    assert_eq!(bed.pager.stats().prefetch_hits, 1);
    bed.shut_down();
}

#[test]
fn a_fault_on_a_page_on_its_way_in_raises_its_request_and_reads_nothing_twice() {
    let mut bed = swapped_out();
    let range = out(&bed);
    let page = Page(range.start);
    bed.script.borrow_mut().held = true;
    bed.pager.prefetch(page..Page(page.0 + 2)).unwrap();
    assert_eq!(bed.events(), []);
    let outcome = |bed: &mut Bed<CopyTable>, page| bed.pager.fault(page, Access::Read, bed.now);
    assert_eq!(outcome(&mut bed, page), Ok(FaultOutcome::Pending));
    assert_eq!(outcome(&mut bed, page), Ok(FaultOutcome::Pending));
    assert_eq!(
        outcome(&mut bed, Page(page.0 + 1)),
        Ok(FaultOutcome::Pending)
    );
    assert_eq!(bed.script.borrow().expedited, [IoClass::Demand], "once");
    bed.script.borrow_mut().held = false;
    for expected in [page, Page(page.0 + 1)] {
        let event = bed.event();
        assert!(
            matches!(event, Some(PagerEvent::Mapped { page, major: true, .. }) if page == expected)
        );
    }
    assert_eq!(reads(&bed, IoClass::Demand), 0);
    assert_eq!(bed.pager.stats().prefetch_hits, 2);
    bed.shut_down();
}

#[test]
fn s8_nothing_is_read_ahead_while_a_fault_waits() {
    let mut bed = swapped_out();
    let range = out(&bed);
    let mut hog = bed.hog();
    let waits = bed.pager.fault(Page(range.end - 1), Access::Read, bed.now);
    assert_eq!(waits, Ok(FaultOutcome::Pending));
    // There is memory, but no request: the fault waits all the same.
    bed.script.borrow_mut().refuse = 1;
    hog.clear();
    bed.pager
        .prefetch(Page(range.start)..Page(range.start + 4))
        .unwrap();
    assert_eq!(bed.pager.poll(bed.now), None);
    assert_eq!(bed.script.borrow().refuse, 0, "the fault was tried");
    assert_eq!(reads(&bed, IoClass::Prefetch), 0);
    assert!(bed.event().is_some());
    let log = bed.script.borrow().log.clone();
    let first = log.iter().find(|entry| entry.0 == IoOp::Read).unwrap();
    assert_eq!(first.1, IoClass::Demand);
    bed.shut_down();
}

#[test]
fn s8_the_last_request_is_kept_for_a_page_in_that_somebody_waits_for() {
    let mut bed = swapped_out();
    let range = out(&bed);
    bed.script.borrow_mut().held = true;
    // Every other page, so that each is a request of its own.
    for page in (range.start..range.start + 16).step_by(2) {
        bed.pager.prefetch(Page(page)..Page(page + 1)).unwrap();
        assert_eq!(bed.events(), []);
    }
    assert_eq!(bed.pager.stats().in_flight, 3);
    let fault = bed
        .pager
        .fault(Page(range.start + 17), Access::Read, bed.now);
    assert_eq!(fault, Ok(FaultOutcome::Pending));
    assert_eq!(reads(&bed, IoClass::Demand), 1);
    bed.script.borrow_mut().held = false;
    assert!(bed.event().is_some());
    bed.shut_down();
}

#[test]
fn memory_below_the_low_mark_is_not_read_into() {
    let mut bed = swapped_out();
    let range = out(&bed);
    let mut hog = Vec::new();
    while bed.zone.stats().free > MARKS.low + 3 {
        hog.push(bed.zone.alloc(0, Gfp::KERNEL).unwrap());
    }
    bed.pager
        .prefetch(Page(range.start)..Page(range.start + 8))
        .unwrap();
    settle(&mut bed);
    assert_eq!(bed.pager.stats().cached, 3);
    assert_eq!(bed.zone.stats().free, MARKS.low);
    // The rest follows when there is memory.
    drop(hog);
    settle(&mut bed);
    assert_eq!(bed.pager.stats().cached, 8);
    bed.shut_down();
}

#[test]
fn what_was_read_ahead_in_vain_goes_first_and_the_oldest_of_it_before_the_rest() {
    let mut bed = swapped_out();
    let range = out(&bed);
    bed.pager
        .prefetch(Page(range.start)..Page(range.start + 6))
        .unwrap();
    settle(&mut bed);
    let before = bed.pager.stats();
    let mut hog = Vec::new();
    while bed.zone.stats().free >= MARKS.low {
        hog.push(bed.zone.alloc(0, Gfp::KERNEL).unwrap());
    }
    settle(&mut bed);
    let after = bed.pager.stats();
    assert_eq!(after.resident, before.resident);
    let gone = before.cached - after.cached;
    assert!(gone > 0);
    assert_eq!(after.prefetch_wasted, gone as u64);
    let cached = (range.start..)
        .take(6)
        .map(|page| bed.pager.pages[page as usize].state);
    assert!(cached.take(gone).all(|state| state == State::Swapped));
    drop(hog);
    bed.shut_down();
}

#[test]
fn what_fails_ahead_of_need_fails_nobody() {
    let mut bed = swapped_out();
    let range = out(&bed);
    let page = Page(range.start);
    bed.script.borrow_mut().held = true;
    bed.pager.prefetch(page..Page(page.0 + 3)).unwrap();
    assert_eq!(bed.events(), []);
    let fault = bed.pager.fault(page, Access::Read, bed.now);
    assert_eq!(fault, Ok(FaultOutcome::Pending));
    {
        let mut script = bed.script.borrow_mut();
        (script.held, script.fail_reads) = (false, 1);
    }
    // Whoever waits reads the page alone.
    assert!(matches!(bed.event(), Some(PagerEvent::Mapped { .. })));
    assert_eq!(reads(&bed, IoClass::Demand), 1);
    assert_eq!(bed.pager.stats().read_failures, 3);
    assert_eq!(in_state(&bed, State::Cached), 0);
    assert_eq!(bed.pager.area().stats().retired, 0);
    bed.shut_down();
}

#[test]
fn a_page_discarded_while_it_is_read_ahead_is_gone() {
    let mut bed = swapped_out();
    let range = out(&bed);
    bed.pager
        .prefetch(Page(range.start)..Page(range.start + 2))
        .unwrap();
    settle(&mut bed);
    bed.pager.discard(Page(range.start)).unwrap();
    assert_eq!(bed.read(range.start), 0);

    bed.script.borrow_mut().held = true;
    bed.pager
        .prefetch(Page(range.start + 2)..Page(range.start + 4))
        .unwrap();
    assert_eq!(bed.events(), []);
    bed.pager.discard(Page(range.start + 2)).unwrap();
    bed.script.borrow_mut().held = false;
    settle(&mut bed);
    assert_eq!(bed.read(range.start + 2), 0);
    assert_eq!(bed.read(range.start + 3), range.start as u8 + 3);
    bed.shut_down();
}

#[test]
fn advice_is_taken() {
    let mut bed = swapped_out();
    bed.pager.set_readahead(true);
    let range = out(&bed);
    let pages = Page(range.start)..Page(range.end);
    let beyond = Page(0)..Page(65);
    assert_eq!(
        bed.pager.advise(beyond.clone(), Advice::Cold),
        Err(FaultError::BadPage)
    );
    assert_eq!(bed.pager.prefetch(beyond), Err(FaultError::BadPage));

    bed.pager.advise(pages.clone(), Advice::Random).unwrap();
    bed.read(range.start);
    settle(&mut bed);
    assert_eq!(bed.pager.stats().prefetched, 0);

    bed.pager.advise(pages.clone(), Advice::Sequential).unwrap();
    bed.read(range.start + 1);
    settle(&mut bed);
    assert_eq!(bed.pager.stats().prefetched, 8);

    // Cold: what was read ahead goes at once, what is resident before the others.
    bed.pager.advise(pages.clone(), Advice::Cold).unwrap();
    assert_eq!(bed.pager.stats().cached, 0);
    let first = bed.pager.policy.find(
        &page::Books {
            pages: bed.pager.pages,
            table: &mut bed.pager.table,
        },
        End::First,
        |_, _| true,
    );
    assert_eq!(first, Some(Page(range.start + 1)));

    bed.pager.advise(pages.clone(), Advice::WillNeed).unwrap();
    settle(&mut bed);
    assert!(bed.pager.stats().cached >= 10);

    bed.pager.advise(pages, Advice::DontNeed).unwrap();
    assert_eq!(bed.pager.stats().cached, 0);
    for page in range {
        assert_eq!(bed.read(page), 0);
    }
    bed.shut_down();
}
