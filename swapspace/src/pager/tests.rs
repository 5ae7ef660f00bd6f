mod areas;
mod bed;
mod model;
mod prefetch;
mod urgency;

use alloc::vec::Vec;

use mempool::{FRAME_SIZE, Gfp, ReserveBacking};

use self::bed::{Bed, Client, CopyTable, MARKS, Shape};
use super::*;
use crate::{IoClass, IoOp};

/// Runs a test with either table.
macro_rules! with_both_tables {
    ($($test:ident => $body:ident;)*) => {$(
        #[test]
        fn $test() {
            $body::<CopyTable>();
            $body::<ExplicitTable>();
        }
    )*};
}

with_both_tables! {
    more_pages_than_memory_keep_their_bytes => overcommit;
    s3_a_failed_page_out_leaves_the_page_dirty_resident_and_retryable => failing_page_outs;
    s3_the_slots_of_a_stray_write_hold_its_pages_and_never_any_other => stray_writes;
    a_page_discarded_in_flight_gives_everything_back_and_can_be_faulted_anew => discard_in_flight;
}

fn overcommit<T: Client>() {
    let mut bed = Bed::<T>::new(Shape::default());
    for page in 0..64 {
        bed.write(page, page as u8 + 1);
    }
    for round in 0..3 {
        for page in 0..64 {
            assert_eq!(bed.read(page), page as u8 + 1, "round {round}");
        }
    }
    let stats = bed.pager.stats();
    assert!(stats.pages_out >= 44 && stats.pages_in >= 100, "{stats:?}");
    assert!(stats.clean_drops > 50, "clean pages go without a write");
    assert!(stats.pages_out < 70, "and are not written again: {stats:?}");
    bed.shut_down();
}

fn failing_page_outs<T: Client>() {
    let mut bed = Bed::<T>::new(Shape::default());
    bed.script.borrow_mut().fail_writes = 5;
    for page in 0..64 {
        bed.write(page, page as u8 + 1);
    }
    let stats = bed.pager.stats();
    assert!(stats.write_failures >= 5, "{stats:?}");
    for page in 0..64 {
        assert_eq!(bed.read(page), page as u8 + 1, "no write was lost");
    }
    bed.shut_down();
}

fn stray_writes<T: Client>() {
    let mut bed = Bed::<T>::new(Shape {
        slots: 128,
        ..Shape::default()
    });
    bed.script.borrow_mut().stray_writes = 2;
    for page in 0..64 {
        bed.write(page, page as u8 + 1);
    }
    let late: Vec<u32> = {
        let script = bed.script.borrow();
        script.late.keys().map(|(_, slot)| *slot).collect()
    };
    assert!(late.len() > 1, "two page-outs");
    // They are stable: nothing is lost, and nothing is written again.
    for page in 0..64 {
        assert_eq!(bed.read(page), page as u8 + 1);
    }
    assert!(bed.pager.stats().pages_out < 70);
    assert_eq!(bed.pager.area().stats().retired, 0, "they are in use");
    // A page-in has proved the slots good, but what is late is still to come.
    for page in 0..64 {
        bed.write(page, page as u8 + 101);
    }
    assert_eq!(bed.pager.area().stats().retired as usize, late.len());
    for round in 0..2 {
        for page in 0..64 {
            assert_eq!(bed.read(page), page as u8 + 101 + round);
            bed.write(page, page as u8 + 102 + round);
        }
    }
    let script = bed.script.borrow();
    let writes = script.log.iter().filter(|entry| entry.0 == IoOp::Write);
    let written = writes.flat_map(|(_, _, slot, frames)| slot.0..slot.0 + *frames as u32);
    let again = written.filter(|slot| late.contains(slot)).count();
    assert_eq!(again, late.len(), "each was written once");
    drop(script);
    assert_eq!(bed.pager.area().stats().retired as usize, late.len());
    bed.shut_down();
}

fn discard_in_flight<T: Client>() {
    let mut bed = Bed::<T>::new(Shape::default());
    bed.script.borrow_mut().held = true;
    bed.fill();
    let victim = bed.start_writeback();
    bed.pager.discard(victim).unwrap();
    assert_eq!(T::load(&mut bed.pager, victim), None);

    let fault = |bed: &mut Bed<T>| bed.pager.fault(victim, Access::Read, bed.now);
    assert_eq!(fault(&mut bed), Ok(FaultOutcome::Pending));
    // Forgotten once more, while it waits.
    bed.pager.discard(victim).unwrap();
    let kind = ErrorKind::Cancelled;
    assert_eq!(bed.events(), [PagerEvent::Failed { page: victim, kind }]);

    assert_eq!(fault(&mut bed), Ok(FaultOutcome::Pending));
    bed.script.borrow_mut().held = false;
    assert!(matches!(bed.event(), Some(PagerEvent::Mapped { page, .. }) if page == victim));
    assert_eq!(bed.read(victim.0), 0);
    bed.shut_down();
}

#[test]
fn a_page_that_was_only_read_needs_no_slot() {
    let mut bed = Bed::<CopyTable>::new(Shape {
        slots: 1,
        ..Shape::default()
    });
    for page in 0..64 {
        assert_eq!(bed.read(page), 0);
    }
    assert_eq!(bed.pager.stats().pages_out, 0);
    bed.shut_down();
}

#[test]
fn faults_on_one_page_are_one_fault_with_one_event() {
    let mut bed = Bed::<CopyTable>::new(Shape::default());
    for page in 0..64 {
        bed.write(page, 7);
    }
    let outcomes = [Access::Read, Access::Write, Access::Read]
        .map(|access| bed.pager.fault(Page(0), access, bed.now));
    assert_eq!(outcomes, [Ok(FaultOutcome::Pending); 3]);
    let Some(PagerEvent::Mapped { page, major, .. }) = bed.event() else {
        panic!("the page is there");
    };
    assert_eq!((page, major), (Page(0), true));
    assert_eq!(bed.event(), None);
    assert_eq!(bed.pager.stats().faults_merged, 2);
    // One of them wanted to write, so that all of them may.
    assert_eq!(
        bed.pager.fault(Page(0), Access::Write, bed.now),
        Ok(FaultOutcome::Mapped)
    );
    bed.shut_down();
}

#[test]
fn the_fault_queue_is_bounded_and_full_is_an_error() {
    let mut bed = Bed::<CopyTable>::new(Shape {
        faults: 2,
        ..Shape::default()
    });
    let page = bed.fill();
    let hog = bed.hog();
    let results = [0, 1, 2].map(|i| bed.pager.fault(Page(page + i), Access::Read, bed.now));
    assert_eq!(results[..2], [Ok(FaultOutcome::Pending); 2]);
    assert_eq!(results[2], Err(FaultError::QueueFull));
    assert_eq!(
        bed.pager.fault(Page(64), Access::Read, bed.now),
        Err(FaultError::BadPage)
    );
    drop(hog);
    bed.shut_down();
}

#[test]
fn faults_that_wait_for_a_frame_are_served_in_order() {
    let mut bed = Bed::<CopyTable>::new(Shape::default());
    let first = bed.fill();
    let hog = bed.hog();
    for page in first..first + 4 {
        let outcome = bed.pager.fault(Page(page), Access::Write, bed.now);
        assert_eq!(outcome, Ok(FaultOutcome::Pending));
    }
    for expected in first..first + 4 {
        let Some(PagerEvent::Mapped { page, major, .. }) = bed.event() else {
            panic!("{:?}", bed.pager.stall(bed.now));
        };
        assert_eq!((page, major), (Page(expected), false));
    }
    drop(hog);
    bed.shut_down();
}

#[test]
fn s1_a_refused_page_out_has_changed_nothing() {
    let mut bed = Bed::<CopyTable>::new(Shape::default());
    let pages = bed.fill();
    let before = bed.pager.stats();
    bed.script.borrow_mut().refuse = 1;
    // Push memory below the low mark; the hand has to come round for what was just used.
    let hog = [(); 2].map(|()| bed.zone.alloc(0, Gfp::KERNEL).unwrap());
    while bed.pager.stats().refusals == 0 {
        assert_eq!(bed.events(), []);
    }
    let after = bed.pager.stats();
    assert_eq!(
        (after.resident, after.dirty, after.writeback),
        (before.resident, before.dirty, 0)
    );
    assert_eq!(bed.pager.area().stats().used, 0);
    // Every page can still be written without a fault.
    for page in 0..pages {
        let bytes = [0xcc; FRAME_SIZE];
        assert!(CopyTable::store(&mut bed.pager, Page(page), &bytes));
    }
    drop(hog);
    bed.shut_down();
}

#[test]
fn s1_without_a_free_request_no_page_is_touched() {
    let mut bed = Bed::<CopyTable>::new(Shape {
        requests: 2,
        ..Shape::default()
    });
    bed.script.borrow_mut().held = true;
    let first = bed.fill();
    let hog = bed.hog();
    for page in first..first + 8 {
        let _ = bed.pager.fault(Page(page), Access::Write, bed.now);
    }
    for _ in 0..4 {
        assert_eq!(bed.events(), []);
    }
    // Twelve frames are wanted; one request may be a page-out, and holds eight.
    let stats = bed.pager.stats();
    assert_eq!((stats.in_flight, stats.writeback), (1, 8));
    assert_eq!(bed.pager.area().stats().used, 8);
    drop(hog);
    bed.shut_down();
}

#[test]
fn s3_of_a_write_that_failed_half_way_the_other_half_stays_dirty() {
    let mut bed = Bed::<CopyTable>::new(Shape::default());
    {
        let mut script = bed.script.borrow_mut();
        (script.fail_writes, script.done) = (1, 3);
    }
    let first = bed.fill();
    let hog = bed.hog();
    let _ = bed.pager.fault(Page(first), Access::Write, bed.now);
    assert!(matches!(bed.event(), Some(PagerEvent::Mapped { .. })));
    let (op, _, _, frames) = bed.script.borrow().log[0];
    assert!(op == IoOp::Write && frames > 3);
    let stats = bed.pager.stats();
    assert_eq!(stats.write_failures, frames as u64 - 3);
    assert!(stats.pages_out >= 3);
    drop(hog);
    for page in 0..first {
        assert_eq!(bed.read(page), page as u8);
    }
    bed.shut_down();
}

#[test]
fn s3_a_store_that_fails_is_not_tried_again_at_once() {
    let mut bed = Bed::<CopyTable>::new(Shape::default());
    bed.script.borrow_mut().fail_writes = usize::MAX;
    let first = bed.fill();
    let hog = bed.hog();
    let _ = bed.pager.fault(Page(first), Access::Write, bed.now);
    // Ten seconds of a store that is broken.
    while bed.now < Instant::from_micros(10_000_000) {
        assert_eq!(bed.events(), []);
        let stall = bed.pager.stall(bed.now).expect("the fault waits");
        assert!(matches!(
            stall.reason,
            StallReason::BackOff | StallReason::PageOut
        ));
        bed.now = bed.pager.next_deadline().expect("a retry is due");
    }
    let writes = bed.script.borrow().log.len();
    assert!((10..80).contains(&writes), "{writes} tries");
    assert_eq!(bed.pager.stats().dirty, first as usize, "nothing is lost");

    bed.script.borrow_mut().fail_writes = 0;
    assert!(matches!(bed.event(), Some(PagerEvent::Mapped { .. })));
    drop(hog);
    for page in 0..first {
        assert_eq!(bed.read(page), page as u8);
    }
    bed.shut_down();
}

#[test]
fn a_pager_that_was_shut_down_has_no_deadline_left() {
    let mut bed = Bed::<CopyTable>::new(Shape::default());
    bed.script.borrow_mut().fail_writes = usize::MAX;
    let first = bed.fill();
    let hog = bed.hog();
    let _ = bed.pager.fault(Page(first), Access::Write, bed.now);
    assert_eq!(bed.events(), []);
    let retry = bed.pager.next_deadline();
    assert!(retry.is_some(), "a failed write is tried again");
    drop(hog);
    while bed.pager.shutdown(bed.now).is_pending() {
        bed.now = bed
            .pager
            .next_deadline()
            .expect("what is in flight ends")
            .max(bed.now);
    }
    assert_eq!(
        bed.pager.next_deadline(),
        None,
        "nobody is to be woken for nothing"
    );
    bed.shut_down();
}

#[test]
fn s3_a_page_written_to_while_it_is_being_written_stays_dirty() {
    let mut bed = Bed::<CopyTable>::new(Shape::default());
    bed.script.borrow_mut().held = true;
    bed.fill();
    let victim = bed.start_writeback().0;
    // A read goes through; a write faults and makes the page dirty again.
    assert_eq!(bed.read(victim), victim as u8);
    assert!(!CopyTable::store(
        &mut bed.pager,
        Page(victim),
        &[0; FRAME_SIZE]
    ));
    bed.write(victim, 0xee);

    bed.script.borrow_mut().held = false;
    bed.now = bed.now + Duration::from_secs(1);
    assert_eq!(bed.events(), []);
    assert_eq!(bed.pager.stats().redirtied, 1);
    for page in (0..64).filter(|page| *page != victim) {
        bed.write(page, 1);
    }
    assert_eq!(bed.read(victim), 0xee);
    bed.shut_down();
}

#[test]
fn s3_no_frame_is_free_before_its_write_completed() {
    let mut bed = Bed::<CopyTable>::new(Shape::default());
    bed.script.borrow_mut().held = true;
    bed.fill();
    let hog = bed.hog();
    let free = bed.zone.stats().free;
    for _ in 0..4 {
        assert_eq!(bed.events(), []);
    }
    assert!(bed.pager.stats().writeback > 0);
    assert_eq!(bed.zone.stats().free, free);
    drop(hog);
    bed.shut_down();
}

#[test]
fn s4_a_failed_page_in_fails_its_fault_and_a_later_one_succeeds() {
    let mut bed = Bed::<CopyTable>::new(Shape::default());
    for page in 0..64 {
        bed.write(page, page as u8 + 1);
    }
    let gone = bed.some(State::Swapped).unwrap().0;
    bed.script.borrow_mut().fail_reads = 1;
    assert_eq!(
        bed.pager.fault(Page(gone), Access::Read, bed.now),
        Ok(FaultOutcome::Pending)
    );
    assert_eq!(
        bed.event(),
        Some(PagerEvent::Failed {
            page: Page(gone),
            kind: ErrorKind::Io
        })
    );
    assert_eq!(
        CopyTable::load(&mut bed.pager, Page(gone)),
        None,
        "what was read is never handed out"
    );
    assert_eq!(bed.read(gone), gone as u8 + 1);
    bed.shut_down();
}

#[test]
fn a_slot_that_could_not_be_read_is_not_used_again() {
    let mut bed = Bed::<CopyTable>::new(Shape::default());
    for page in 0..64 {
        bed.write(page, 1);
    }
    let gone = bed.some(State::Swapped).unwrap().0;
    bed.script.borrow_mut().fail_reads = 1;
    let _ = bed.pager.fault(Page(gone), Access::Read, bed.now);
    assert!(matches!(bed.event(), Some(PagerEvent::Failed { .. })));
    bed.pager.discard(Page(gone)).unwrap();
    assert_eq!(bed.pager.area().stats().retired, 1);
    assert_eq!(bed.read(gone), 0, "a forgotten page reads as zeros");
    bed.shut_down();
}

#[test]
fn s3_the_slots_of_a_failed_write_that_may_yet_be_carried_out_are_not_used_again() {
    for (kind, stray, retired) in [
        (ErrorKind::TimedOut, false, true),
        (ErrorKind::Unsent, false, false),
        (ErrorKind::Io, false, false),
        (ErrorKind::Io, true, true),
    ] {
        let mut bed = Bed::<CopyTable>::new(Shape::default());
        {
            let mut script = bed.script.borrow_mut();
            (script.fail_writes, script.kind) = (1, Some(kind));
            script.stray_writes = usize::from(stray);
        }
        for page in 0..48 {
            bed.write(page, page as u8 + 1);
        }
        assert!(bed.pager.stats().write_failures > 0);
        let found = bed.pager.area().stats().retired > 0;
        assert_eq!(found, retired, "{kind:?}, stray: {stray}");
        for page in 0..48 {
            assert_eq!(bed.read(page), page as u8 + 1);
        }
        bed.shut_down();
    }
}

#[test]
fn the_slot_of_a_late_write_is_retired_even_when_its_page_was_discarded_meanwhile() {
    for (fail_writes, stray_writes) in [(1, 0), (0, 1)] {
        let mut bed = Bed::<CopyTable>::new(Shape::default());
        bed.script.borrow_mut().held = true;
        bed.fill();
        let victim = bed.start_writeback();
        bed.pager.discard(victim).unwrap();
        {
            let mut script = bed.script.borrow_mut();
            (script.held, script.kind) = (false, Some(ErrorKind::TimedOut));
            (script.fail_writes, script.stray_writes) = (fail_writes, stray_writes);
        }
        assert_eq!(bed.event(), None);
        assert!(bed.pager.area().stats().retired > 0);
        bed.shut_down();
    }
}

/// A machine whose eight slots are in use, so many of the page-outs to them stray, and whose memory
/// is full of pages that cannot go. Each page is full of its number.
fn full_area(stray_writes: usize) -> Bed<CopyTable> {
    let mut bed = Bed::new(Shape {
        slots: 8,
        ..Shape::default()
    });
    bed.script.borrow_mut().stray_writes = stray_writes;
    for page in 0.. {
        let outcome = bed.pager.fault(Page(page), Access::Write, bed.now);
        if outcome != Ok(FaultOutcome::Mapped) && bed.event().is_none() {
            // The fault waits; it must not take what the test makes free.
            bed.pager.discard(Page(page)).unwrap();
            assert!(matches!(bed.event(), Some(PagerEvent::Failed { .. })));
            break;
        }
        let bytes = [page as u8; FRAME_SIZE];
        assert!(CopyTable::store(&mut bed.pager, Page(page), &bytes));
    }
    assert_eq!(bed.pager.area().stats().free, 0);
    bed
}

#[test]
fn a_slot_that_would_be_retired_is_not_taken_from_its_page_to_make_room() {
    for (stray_writes, reclaims) in [(usize::MAX, false), (0, true)] {
        let mut bed = full_area(stray_writes);
        // A frame for the page that comes back; for the next one, some page must go.
        let resident = bed.some(State::Resident).unwrap();
        bed.pager.discard(resident).unwrap();
        for _ in 0..8 {
            let swapped = bed.some(State::Swapped).unwrap();
            assert_eq!(bed.read(swapped.0), swapped.0 as u8);
            assert_eq!(bed.event(), None);
        }
        assert_eq!(bed.pager.stats().slots_reclaimed > 0, reclaims);
        assert_eq!(bed.pager.area().stats().retired, 0);
        bed.shut_down();
    }
}

#[test]
fn where_one_slot_would_be_retired_another_page_gives_up_its_own() {
    let mut bed = full_area(1);
    while bed.zone.stats().free <= MARKS.high + 2 {
        let resident = bed.some(State::Resident).unwrap();
        bed.pager.discard(resident).unwrap();
    }
    // Both come back and stay, the one with the stray slot last.
    let is_out =
        |stray| move |entry: &PageEntry<'_>| entry.state == State::Swapped && entry.stray == stray;
    let [spare, stray] = [false, true].map(|stray| {
        let page = bed.pager.pages.iter().position(is_out(stray)).unwrap();
        assert_eq!(bed.read(page as u32), page as u8);
        bed.pager.pin(Page(page as u32)).unwrap();
        page
    });
    let hog = bed.hog();
    assert_eq!(bed.event(), None);
    assert_eq!(bed.pager.stats().slots_reclaimed, 1);
    let has_slot = |page: usize| bed.pager.pages[page].swap.is_some();
    assert!(has_slot(stray) && !has_slot(spare));
    assert_eq!(bed.pager.area().stats().retired, 0);
    drop(hog);
    bed.shut_down();
}

/// Found by reading: the hand met a dirty page first, could not write it, and gave up for good.
#[test]
fn a_full_area_does_not_keep_a_clean_page_from_going() {
    let mut bed = Bed::<CopyTable>::new(Shape {
        slots: 4,
        ..Shape::default()
    });
    let mut stuck = 0;
    while bed.pager.fault(Page(stuck), Access::Write, bed.now) == Ok(FaultOutcome::Mapped)
        || bed.event().is_some()
    {
        stuck += 1;
    }
    assert_eq!(bed.pager.area().stats().free, 0);
    // One frame for the fault that waits, one for a page of zeros, which is clean.
    for _ in 0..2 {
        let resident = bed.some(State::Resident).unwrap();
        bed.pager.discard(resident).unwrap();
        let _ = bed.event();
    }
    assert_eq!(
        bed.pager.fault(Page(60), Access::Read, bed.now),
        Ok(FaultOutcome::Mapped)
    );
    assert_eq!(
        bed.pager.fault(Page(61), Access::Write, bed.now),
        Ok(FaultOutcome::Pending)
    );
    assert!(matches!(bed.event(), Some(PagerEvent::Mapped { page, .. }) if page == Page(61)));
    bed.shut_down();
}

#[test]
fn s8_a_page_in_goes_before_page_outs_and_always_finds_a_request() {
    let mut bed = Bed::<CopyTable>::new(Shape::default());
    for page in 0..64 {
        bed.write(page, 1);
    }
    while bed.pager.stats().in_flight > 0 {
        assert_eq!(bed.event(), None);
    }
    // A page-in and page-outs are both due: memory is short, and a page faults.
    bed.script.borrow_mut().log.clear();
    bed.script.borrow_mut().held = true;
    let target = bed.some(State::Swapped).unwrap();
    let mut hog = Vec::new();
    while bed.zone.stats().free > MARKS.min + 1 {
        hog.push(bed.zone.alloc(0, Gfp::KERNEL).unwrap());
    }
    let _ = bed.pager.fault(target, Access::Read, bed.now);
    for _ in 0..4 {
        assert_eq!(bed.events(), []);
    }
    let log = core::mem::take(&mut bed.script.borrow_mut().log);
    assert_eq!((log[0].0, log[0].1), (IoOp::Read, IoClass::Demand));
    assert!(log.len() > 1 && log[1..].iter().all(|entry| entry.0 == IoOp::Write));
    assert!(bed.pager.stats().in_flight <= 4);

    // Page-outs hold all the requests that they may; there is one left for the next page-in.
    let writes = bed.pager.requests.writes();
    drop(hog);
    let target = bed.some(State::Swapped).unwrap();
    assert_eq!(
        bed.pager.fault(target, Access::Read, bed.now),
        Ok(FaultOutcome::Pending)
    );
    assert_eq!(bed.script.borrow().log.len(), 1, "with {writes} writes out");
    bed.shut_down();
}

#[test]
fn dirty_pages_are_written_in_clusters_of_consecutive_slots() {
    let mut bed = Bed::<CopyTable>::new(Shape {
        frames: 40,
        ..Shape::default()
    });
    let pages = bed.fill();
    let hog = bed.hog();
    let _ = bed.pager.fault(Page(pages), Access::Write, bed.now);
    assert!(bed.event().is_some());
    let log = &bed.script.borrow().log;
    let (op, class, slot, frames) = log[0];
    assert_eq!((op, class), (IoOp::Write, IoClass::Reclaim));
    assert_eq!((slot.0, frames), (0, MARKS.high + 1 - MARKS.min));
    drop(hog);
}

#[test]
fn a_page_that_is_used_gets_a_second_chance() {
    let mut bed = Bed::<ExplicitTable>::new(Shape::default());
    let pages = bed.fill();
    let hog = bed.hog();
    // The hand goes round once and finds that everything was used.
    assert_eq!(bed.events(), []);
    assert_eq!(bed.pager.stats().second_chances, u64::from(pages));
    assert_eq!(bed.pager.stats().resident, pages as usize);
    // On its second round it would take page 0 first, had that not been used since.
    assert_eq!(bed.read(0), 0);
    assert_eq!(bed.event(), None);
    assert!(bed.pager.frame(Page(0)).is_some());
    assert!(bed.pager.frame(Page(1)).is_none());
    drop(hog);
    bed.shut_down();
}

#[test]
fn the_policy_hears_of_pages_that_left_memory_and_of_those_that_are_forgotten() {
    let mut bed = Bed::<CopyTable, S3Fifo>::with_policy(Shape::default());
    for page in 0..24 {
        // Clean pages are dropped, dirty ones written.
        let _ = if page % 2 == 0 {
            bed.read(page)
        } else {
            bed.write(page, 1);
            1
        };
    }
    while bed.pager.stats().in_flight > 0 {
        assert_eq!(bed.event(), None);
    }
    let out = 24 - bed.pager.stats().resident;
    assert!(out > 4);
    assert_eq!(bed.pager.policy().ghosts(), out);
    for page in 0..24 {
        bed.pager.discard(Page(page)).unwrap();
    }
    assert_eq!(bed.pager.policy().ghosts(), 0);
    bed.shut_down();
}

#[test]
fn a_page_that_was_just_mapped_is_not_the_next_victim() {
    let mut bed = Bed::<ExplicitTable>::new(Shape {
        latency: Duration::ZERO,
        ..Shape::default()
    });
    for page in 0..64 {
        bed.touch(page, Access::Write);
        assert_eq!(bed.events(), []);
        assert!(bed.pager.frame_mut(Page(page)).is_some());
    }
    bed.shut_down();
}

#[test]
fn a_pinned_page_stays() {
    let mut bed = Bed::<ExplicitTable>::new(Shape::default());
    assert_eq!(bed.pager.pin(Page(0)), Err(PinError::NotMapped));
    bed.write(0, 9);
    bed.pager.pin(Page(0)).unwrap();
    for page in 1..64 {
        bed.write(page, 1);
    }
    assert_eq!(bed.pager.frame(Page(0)).map(|frame| frame[0]), Some(9));
    bed.pager.unpin(Page(0)).unwrap();
    assert_eq!(bed.pager.unpin(Page(0)), Err(PinError::NotPinned));
    for page in 1..64 {
        bed.write(page, 2);
    }
    assert_eq!(bed.pager.frame(Page(0)), None);
    bed.shut_down();
}

#[test]
fn page_frames_never_come_from_the_reserve() {
    let mut bed = Bed::<CopyTable>::new(Shape::default());
    bed.zone.grow(6).unwrap();
    let token = bed.zone.claim_memalloc().unwrap();
    let scope = bed.zone.memalloc(&token);
    for page in 0..64 {
        bed.write(page, 1);
    }
    let stats = bed.zone.stats();
    assert_eq!(stats.reserve_peak, 0);
    assert!(stats.min_free >= 6 + MARKS.min);
    drop(scope);
    bed.shut_down();
}

#[test]
fn background_reclaim_works_from_low_up_to_high() {
    let mut bed = Bed::<CopyTable>::new(Shape::default());
    bed.fill();
    assert!(
        bed.script.borrow().log.is_empty(),
        "not before the low mark"
    );
    let hog = bed.zone.alloc(0, Gfp::KERNEL).unwrap();
    while bed.zone.stats().free < MARKS.high {
        assert_eq!(bed.events(), []);
        bed.now = bed.now + Duration::from_micros(100);
    }
    assert_eq!(bed.events(), []);
    assert_eq!(bed.zone.stats().free, MARKS.high);
    assert_eq!(bed.script.borrow().log[0].1, IoClass::Writeback);
    drop(hog);
    bed.shut_down();
}

#[test]
fn slots_are_taken_from_resident_pages_when_none_is_free() {
    // 16 frames beyond the low mark and 50 slots hold 64 pages only if no slot is kept idle.
    let mut bed = Bed::<CopyTable>::new(Shape {
        slots: 50,
        ..Shape::default()
    });
    for round in 0..4 {
        for page in 0..64 {
            bed.write(page, page as u8 + round);
        }
        for page in 0..64 {
            assert_eq!(bed.read(page), page as u8 + round);
        }
    }
    let stats = bed.pager.stats();
    assert!(stats.slots_reclaimed > 0, "{stats:?}");
    bed.shut_down();
}

#[test]
fn a_stall_says_what_is_waited_for() {
    let mut bed = Bed::<CopyTable>::new(Shape {
        slots: 1,
        ..Shape::default()
    });
    assert_eq!(bed.pager.stall(bed.now), None);
    let first = bed.fill();
    let hog = bed.hog();
    for page in 0..first {
        bed.pager.pin(Page(page)).unwrap();
    }
    let _ = bed.pager.fault(Page(first), Access::Write, bed.now);
    assert_eq!(bed.event(), None);
    bed.now = bed.now + Duration::from_millis(1500);
    let stall = bed.pager.stall(bed.now).unwrap();
    assert_eq!(stall.reason, StallReason::Held);
    assert_eq!((stall.waiting, stall.waited.as_millis()), (1, 1500));
    assert!(std::format!("{stall}").starts_with(
        "1 fault waiting for a frame, the first for 1500 ms: every resident page is held"
    ));

    for page in 0..first {
        bed.pager.unpin(Page(page)).unwrap();
    }
    bed.script.borrow_mut().held = true;
    assert_eq!(bed.events(), []);
    let reason = |bed: &Bed<CopyTable>| bed.pager.stall(bed.now).map(|stall| stall.reason);
    assert_eq!(reason(&bed), Some(StallReason::PageOut));

    bed.script.borrow_mut().held = false;
    assert!(matches!(bed.event(), Some(PagerEvent::Mapped { .. })));
    let _ = bed.pager.fault(Page(first + 1), Access::Write, bed.now);
    assert_eq!(bed.event(), None);
    assert_eq!(reason(&bed), Some(StallReason::NoSlot));

    drop(hog);
    assert!(matches!(bed.event(), Some(PagerEvent::Mapped { .. })));
    assert_eq!(reason(&bed), None);
    bed.shut_down();
}

#[cfg(feature = "ablation")]
mod ablation {
    use super::*;

    /// A machine without `mechanism`.
    fn without<T: Client>(mechanism: Mechanism, shape: Shape) -> Bed<T> {
        let mut bed = Bed::new(shape);
        bed.pager.ablate(mechanism);
        bed
    }

    /// Which of `pages` do not hold what `fill` put into them.
    fn lost<T: Client>(bed: &mut Bed<T>, pages: u32) -> usize {
        (0..pages)
            .filter(|page| bed.read(*page) != *page as u8)
            .count()
    }

    #[test]
    fn s1_without_admission_a_refusal_loses_slots() {
        let mut bed = without::<ExplicitTable>(Mechanism::Admission, Shape::default());
        bed.fill();
        bed.script.borrow_mut().refuse = 1;
        let _hog = [(); 2].map(|()| bed.zone.alloc(0, Gfp::KERNEL).unwrap());
        while bed.pager.stats().refusals == 0 {
            assert_eq!(bed.pager.poll(bed.now), None);
        }
        assert_eq!(bed.pager.stats().writeback, 0);
        assert!(bed.pager.area().stats().used > 0, "nobody has them");
    }

    #[test]
    fn s3_without_its_mechanisms_pages_are_lost() {
        for (mechanism, whole) in [(None, true), (Some(Mechanism::FailedWriteDirty), false)] {
            let mut bed = Bed::<CopyTable>::new(Shape::default());
            if let Some(mechanism) = mechanism {
                bed.pager.ablate(mechanism);
            }
            bed.script.borrow_mut().fail_writes = 1;
            bed.fill();
            let page = bed.start_writeback();
            bed.now = bed.now + Duration::from_secs(1);
            assert_eq!(bed.events(), []);
            assert!(bed.pager.stats().write_failures > 0);
            let resident = bed.pager.pages[page.index()].state == State::Resident;
            assert_eq!(resident, whole, "{mechanism:?}");
        }

        let mut bed = without::<CopyTable>(Mechanism::Redirty, Shape::default());
        bed.script.borrow_mut().held = true;
        let pages = bed.fill();
        let victim = bed.start_writeback().0;
        bed.write(victim, 0xee);
        bed.script.borrow_mut().held = false;
        for page in pages..64 {
            bed.write(page, page as u8);
        }
        assert_eq!(bed.read(victim), victim as u8, "what was written is gone");
        bed.shut_down();

        let mut bed = without::<CopyTable>(Mechanism::WriteProtect, Shape::default());
        for page in 0..64 {
            bed.write(page, page as u8);
        }
        assert!(lost(&mut bed, 64) > 0);
        bed.shut_down();
    }

    #[test]
    fn s3_without_retirement_a_late_write_hits_the_page_that_has_its_slot_now() {
        for (fail_writes, stray_writes) in [(1, 0), (0, 1)] {
            let mut bed = without::<CopyTable>(Mechanism::RetireLate, Shape::default());
            {
                let mut script = bed.script.borrow_mut();
                script.kind = Some(ErrorKind::TimedOut);
                (script.fail_writes, script.stray_writes) = (fail_writes, stray_writes);
            }
            for version in [100, 0] {
                for page in 0..64 {
                    bed.write(page, page as u8 + version);
                }
            }
            assert!(!bed.script.borrow().late.is_empty());
            assert_eq!(bed.pager.area().stats().retired, 0);
            assert!(lost(&mut bed, 64) > 0);
            bed.shut_down();
        }
    }

    #[test]
    fn s4_without_it_rubbish_is_mapped() {
        let mut bed = without::<CopyTable>(Mechanism::FailedRead, Shape::default());
        for page in 0..64 {
            bed.write(page, page as u8);
        }
        let gone = bed.some(State::Swapped).unwrap().0;
        bed.script.borrow_mut().fail_reads = 1;
        assert_eq!(bed.read(gone), 0xbd);
        bed.shut_down();
    }

    #[test]
    fn s8_without_its_credit_page_outs_take_every_request() {
        let shape = Shape {
            requests: 2,
            faults: 12,
            ..Shape::default()
        };
        for (mechanism, writes) in [(None, 1), (Some(Mechanism::ReadCredit), 2)] {
            let mut bed = Bed::<CopyTable>::new(shape);
            if let Some(mechanism) = mechanism {
                bed.pager.ablate(mechanism);
            }
            bed.script.borrow_mut().held = true;
            let first = bed.fill();
            let hog = bed.hog();
            for page in first..first + 8 {
                let _ = bed.pager.fault(Page(page), Access::Write, bed.now);
            }
            for _ in 0..4 {
                assert_eq!(bed.events(), []);
            }
            assert_eq!(bed.pager.stats().in_flight, writes, "{mechanism:?}");
            drop(hog);
            bed.shut_down();
        }
    }

    #[test]
    fn m7_without_it_pages_lie_in_the_reserve() {
        let mut bed = without::<CopyTable>(Mechanism::OrdinaryPages, Shape::default());
        bed.zone.grow(4).unwrap();
        let token = bed.zone.claim_memalloc().unwrap();
        let hog = bed.hog();
        let scope = bed.zone.memalloc(&token);
        let outcome = bed.pager.fault(Page(0), Access::Read, bed.now);
        assert_eq!(outcome, Ok(FaultOutcome::Mapped));
        assert_eq!(bed.zone.stats().reserve_in_use, 1);
        drop((scope, hog));
        bed.zone.shrink(4);
        bed.shut_down();
    }
}
