//! Several swap areas under one pager.

use super::bed::{Bed, ExplicitBed, Scripted, Shape};
use super::*;
use crate::{IoClass, SwapoffError};

fn striped() -> ExplicitBed {
    Bed::new(Shape {
        slots: 40,
        second: 40,
        ..Shape::default()
    })
}

fn used(bed: &ExplicitBed) -> [u32; 2] {
    [0, 1].map(|index| bed.pager.space().area(index).unwrap().stats().used)
}

#[test]
fn pages_are_striped_over_areas_of_equal_priority() {
    let mut bed = striped();
    for page in 0..64 {
        bed.write(page, page as u8 + 1);
    }
    let [first, second] = used(&bed);
    assert!(first > 16 && second > 16, "{first} and {second}");
    for page in 0..64 {
        assert_eq!(bed.read(page), page as u8 + 1);
    }
    bed.shut_down();
}

#[test]
fn s3_pages_of_an_area_that_fails_go_to_the_other_one() {
    let mut bed = striped();
    for page in 0..8 {
        bed.write(page, page as u8 + 1);
    }
    {
        let mut script = bed.script.borrow_mut();
        (script.only, script.kind) = (Some(0), Some(ErrorKind::Gone));
        script.fail_writes = usize::MAX;
    }
    for page in 8..40 {
        bed.write(page, page as u8 + 1);
    }
    assert_eq!(bed.pager.space().failed(0), Some(ErrorKind::Gone));
    let failures = bed.pager.stats().write_failures;
    assert!((1..=8 * 4).contains(&failures), "{failures} pages failed");
    assert!(used(&bed)[1] > 16);
    for page in 0..40 {
        assert_eq!(bed.read(page), page as u8 + 1);
    }

    bed.script.borrow_mut().fail_writes = 0;
    bed.pager.space_mut().enable(0);
    for page in 0..64 {
        bed.write(page, page as u8 + 2);
    }
    assert!(used(&bed)[0] > 0, "it is used again");
    bed.shut_down();
}

#[test]
fn resident_pages_keep_slots_that_nobody_could_use() {
    let mut bed = striped();
    for page in 0..40 {
        bed.write(page, page as u8 + 1);
    }
    // Clean pages whose slots are in areas which take no page.
    for page in 0..8 {
        assert_eq!(bed.read(page), page as u8 + 1);
    }
    for index in 0..2 {
        assert!(bed.pager.space_mut().swapoff(index, bed.now).is_pending());
    }
    let before = bed.pager.stats();
    let hog = bed.hog();
    assert_eq!(bed.events(), []);
    let after = bed.pager.stats();
    assert_eq!(after.slots_reclaimed, before.slots_reclaimed);
    drop(hog);
    for index in 0..2 {
        bed.pager.space_mut().enable(index);
    }
    bed.shut_down();
}

/// Empties an area, with faults on the way, until it is out or refused.
fn swap_off(bed: &mut ExplicitBed, index: usize) -> Result<(), EvacuateError<Scripted>> {
    for _ in 0..10_000 {
        match bed.pager.swapoff(index, bed.now) {
            Poll::Ready(result) => {
                bed.check();
                return result.map(drop);
            }
            Poll::Pending => assert_eq!(bed.events(), []),
        }
        assert!(bed.pager.next_deadline().is_some(), "it is not forgotten");
        if let Some(next) = bed.pager.next_deadline() {
            bed.now = next.max(bed.now);
        }
    }
    panic!("swapoff spins: {:?}", bed.pager.stats());
}

/// Sixty pages in sixteen frames, over two areas.
fn busy(slots: usize, second: usize) -> ExplicitBed {
    let mut bed = Bed::new(Shape {
        slots,
        second,
        ..Shape::default()
    });
    for page in 0..60 {
        bed.write(page, page as u8 + 1);
    }
    bed
}

fn assert_intact(bed: &mut ExplicitBed) {
    for page in 0..60 {
        assert_eq!(bed.read(page), page as u8 + 1);
    }
}

#[test]
fn an_area_is_emptied_into_the_other_one_and_into_memory() {
    for index in [0, 1] {
        let mut bed = busy(64, 64);
        swap_off(&mut bed, index).unwrap();
        assert!(bed.pager.space().area(index).is_none());
        assert_intact(&mut bed);
        bed.shut_down();
    }
}

#[test]
fn an_area_is_emptied_into_memory_alone_once_its_pages_fit() {
    for clean in [false, true] {
        let mut bed = busy(64, 0);
        for page in 8..60 {
            bed.pager.discard(Page(page)).unwrap();
        }
        if clean {
            // All are in memory, and in their slots as well.
            (0..8).for_each(|page| assert_eq!(bed.read(page), page as u8 + 1));
        }
        swap_off(&mut bed, 0).unwrap();
        for page in 0..8 {
            assert_eq!(bed.read(page), page as u8 + 1);
        }
        bed.shut_down();
    }
}

#[test]
fn a_large_table_is_gone_through_a_little_at_a_time() {
    let mut bed: ExplicitBed = Bed::new(Shape {
        pages: 1000,
        second: 64,
        ..Shape::default()
    });
    for page in 940..1000 {
        bed.write(page, page as u8);
    }
    swap_off(&mut bed, 1).unwrap();
    for page in 940..1000 {
        assert_eq!(bed.read(page), page as u8);
    }
    bed.shut_down();
}

#[test]
fn no_page_goes_to_an_area_that_is_being_emptied() {
    let mut bed = busy(64, 64);
    assert!(bed.pager.swapoff(0, bed.now).is_pending());
    let space = bed.pager.space_mut();
    for _ in 0..8 {
        let entry = space.alloc(1).unwrap().next().unwrap();
        assert_eq!(space.index_of(entry.slot()), 1);
        space.free(entry);
    }
    swap_off(&mut bed, 0).unwrap();
    assert_intact(&mut bed);
    bed.shut_down();
}

#[test]
fn s6_an_area_whose_pages_fit_nowhere_is_refused_by_name_and_used_again() {
    let mut bed = busy(64, 8);
    let refused = swap_off(&mut bed, 0);
    assert!(
        matches!(refused, Err(EvacuateError::NoRoom { .. })),
        "{refused:?}"
    );
    for page in 0..60 {
        bed.write(page, page as u8 + 1);
    }
    assert!(used(&bed)[0] > 30, "pages go to it");
    assert_intact(&mut bed);
    bed.shut_down();
}

#[test]
fn s4_a_page_that_cannot_be_read_back_ends_a_swapoff_and_is_not_lost() {
    let mut bed = busy(64, 64);
    (
        bed.script.borrow_mut().only,
        bed.script.borrow_mut().fail_reads,
    ) = (Some(0), 1);
    let refused = swap_off(&mut bed, 0);
    let kind = ErrorKind::Io;
    assert!(
        matches!(refused, Err(EvacuateError::Unreadable { kind: k, .. }) if k == kind),
        "{refused:?}"
    );
    swap_off(&mut bed, 0).unwrap();
    assert_intact(&mut bed);
    bed.shut_down();
}

#[test]
fn one_area_is_emptied_at_a_time_and_one_that_is_not_there_is_named() {
    let mut bed = busy(64, 64);
    assert!(bed.pager.swapoff(0, bed.now).is_pending());
    let busy = bed.pager.swapoff(1, bed.now).map_ok(drop);
    assert_eq!(busy, Poll::Ready(Err(EvacuateError::Busy { index: 0 })));
    bed.pager.cancel_swapoff(0);
    let missing = bed.pager.swapoff(2, bed.now).map_ok(drop);
    let error = EvacuateError::Swapoff(SwapoffError::NoSuchArea);
    assert_eq!(missing, Poll::Ready(Err(error)));
    assert_intact(&mut bed);
    bed.shut_down();
}

/// Forty pages, most of them out, and memory free.
fn with_free_memory() -> ExplicitBed {
    let mut bed = busy(64, 64);
    for page in 40..60 {
        bed.pager.discard(Page(page)).unwrap();
    }
    let _ = bed.events();
    bed.script.borrow_mut().log.clear();
    bed
}

fn finish(mut bed: ExplicitBed) {
    bed.script.borrow_mut().held = false;
    while bed.event().is_some() {}
    swap_off(&mut bed, 0).unwrap();
    for page in 0..40 {
        assert_eq!(bed.read(page), page as u8 + 1);
    }
    bed.shut_down();
}

#[test]
fn s8_a_swapoff_leaves_the_last_request_to_faults() {
    let mut bed = with_free_memory();
    bed.script.borrow_mut().held = true;
    for _ in 0..100 {
        assert!(bed.pager.swapoff(0, bed.now).is_pending());
    }
    assert_eq!(bed.pager.stats().in_flight, 3, "of four requests");
    let page = bed.some(State::Swapped).unwrap();
    let outcome = bed.pager.fault(page, Access::Read, bed.now);
    assert_eq!(outcome, Ok(FaultOutcome::Pending));
    assert_eq!(bed.pager.stats().in_flight, 4, "it is read at once");
    finish(bed);
}

#[test]
fn s8_a_fault_that_waits_goes_before_a_swapoff() {
    let mut bed = with_free_memory();
    let hog = bed.hog();
    let page = bed.some(State::Swapped).unwrap();
    let outcome = bed.pager.fault(page, Access::Read, bed.now);
    assert_eq!(outcome, Ok(FaultOutcome::Pending));
    drop(hog);
    assert!(bed.pager.swapoff(0, bed.now).is_pending());
    assert_eq!(bed.pager.stats().in_flight, 0);
    let _ = bed.pager.poll(bed.now);
    let class = bed.script.borrow().log.first().map(|(_, class, ..)| *class);
    assert_eq!(class, Some(IoClass::Demand));
    finish(bed);
}

#[test]
fn a_shutdown_ends_a_swapoff() {
    let mut bed = busy(64, 64);
    assert!(bed.pager.swapoff(0, bed.now).is_pending());
    while bed.pager.shutdown(bed.now).is_pending() {
        bed.now = bed.pager.next_deadline().unwrap().max(bed.now);
    }
    assert_eq!(bed.pager.next_deadline(), None);
    let space = bed.pager.space_mut();
    let runs = [(); 2].map(|()| space.alloc(8).unwrap().first());
    assert_ne!(space.index_of(runs[0]), space.index_of(runs[1]), "in turn");
}
