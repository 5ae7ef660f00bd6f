//! Faults with a priority, and faults with a deadline.

use super::bed::{Bed, CopyTable, Shape};
use super::*;

fn at(micros: u64) -> Instant {
    Instant::from_micros(micros)
}

fn options(priority: u8, deadline: Option<u64>) -> FaultOptions {
    FaultOptions {
        priority,
        deadline: deadline.map(at),
    }
}

/// A machine with pages in the store, the time at 0, and one of those pages.
fn with_a_page_out() -> (Bed<CopyTable>, Page) {
    let mut bed = Bed::<CopyTable>::new(Shape::default());
    for page in 0..64 {
        bed.write(page, page as u8);
    }
    while bed.pager.stats().in_flight > 0 {
        assert_eq!(bed.event(), None);
    }
    bed.script.borrow_mut().deadlines.clear();
    bed.script.borrow_mut().log.clear();
    let page = bed.some(State::Swapped).unwrap();
    (bed, page)
}

fn late(page: Page) -> Option<PagerEvent> {
    let kind = ErrorKind::TimedOut;
    Some(PagerEvent::Failed { page, kind })
}

#[test]
fn faults_are_served_by_priority_then_by_deadline_then_by_age() {
    let mut bed = Bed::<CopyTable>::new(Shape::default());
    let first = bed.fill();
    let hog = bed.hog();
    let far = 10_000_000;
    let faults = [
        options(0, None),
        options(1, None),
        options(1, Some(far + 9)),
        options(2, None),
        options(1, Some(far)),
        options(0, Some(far)),
        options(1, None),
    ];
    for (page, options) in (first..).zip(faults) {
        let outcome = bed
            .pager
            .fault_with(Page(page), Access::Write, options, bed.now);
        assert_eq!(outcome, Ok(FaultOutcome::Pending));
    }
    for expected in [3, 4, 2, 1, 6, 5, 0] {
        let Some(PagerEvent::Mapped { page, .. }) = bed.event() else {
            panic!("{:?}", bed.pager.stall(bed.now));
        };
        assert_eq!(page.0 - first, expected);
    }
    drop(hog);
    bed.shut_down();
}

#[test]
fn a_fault_that_joins_makes_the_other_as_urgent_as_itself() {
    let mut bed = Bed::<CopyTable>::new(Shape::default());
    let first = bed.fill();
    let hog = bed.hog();
    for (page, priority) in [(first, 1), (first + 1, 0), (first + 1, 2)] {
        let options = options(priority, None);
        let outcome = bed
            .pager
            .fault_with(Page(page), Access::Write, options, bed.now);
        assert_eq!(outcome, Ok(FaultOutcome::Pending));
    }
    let event = bed.event();
    assert!(matches!(event, Some(PagerEvent::Mapped { page, .. }) if page.0 == first + 1));
    assert!(bed.event().is_some());
    drop(hog);
    bed.shut_down();
}

#[test]
fn a_fault_that_waits_for_a_frame_ends_at_its_deadline() {
    let mut bed = Bed::<CopyTable>::new(Shape::default());
    let first = bed.fill();
    let hog = bed.hog();
    // No page can go, so that there is nothing else to wait for.
    for page in 0..first {
        bed.pager.pin(Page(page)).unwrap();
    }
    let deadline = bed.now + Duration::from_micros(700);
    let urgent = FaultOptions {
        priority: 3,
        deadline: Some(deadline),
    };
    let outcomes = [urgent, FaultOptions::default()].into_iter().zip(first..);
    for (options, page) in outcomes {
        let outcome = bed
            .pager
            .fault_with(Page(page), Access::Write, options, bed.now);
        assert_eq!(outcome, Ok(FaultOutcome::Pending));
    }
    assert_eq!(bed.events(), []);
    assert_eq!(bed.pager.next_deadline(), Some(deadline));
    bed.now = deadline;
    assert_eq!(bed.pager.poll(bed.now), late(Page(first)));
    assert_eq!(bed.events(), []);
    assert_eq!(bed.pager.stats().faults_late, 1);
    assert_eq!(bed.pager.next_deadline(), None);
    // The other one is served.
    for page in 0..first {
        bed.pager.unpin(Page(page)).unwrap();
    }
    let event = bed.event();
    assert!(matches!(event, Some(PagerEvent::Mapped { page, .. }) if page.0 == first + 1));
    drop(hog);
    bed.shut_down();
}

#[test]
fn a_page_that_comes_in_late_stays_for_the_next_fault() {
    let (mut bed, page) = with_a_page_out();
    {
        let mut script = bed.script.borrow_mut();
        (script.held, script.ignores_deadlines) = (true, true);
    }
    let deadline = bed.now + Duration::from_micros(10);
    let options = FaultOptions {
        deadline: Some(deadline),
        ..FaultOptions::default()
    };
    let fault = |bed: &mut Bed<CopyTable>, options| {
        bed.pager.fault_with(page, Access::Read, options, bed.now)
    };
    assert_eq!(fault(&mut bed, options), Ok(FaultOutcome::Pending));
    assert_eq!(bed.script.borrow().deadlines, [Some(deadline)]);
    bed.now = deadline;
    assert_eq!(bed.pager.poll(bed.now), late(page));
    bed.script.borrow_mut().held = false;
    assert_eq!(bed.event(), None);
    assert_eq!(bed.pager.stats().cached, 1);

    // It is there: a deadline that has passed does not matter.
    assert_eq!(fault(&mut bed, options), Ok(FaultOutcome::Mapped));
    assert_eq!(bed.read(page.0), page.0 as u8);
    bed.shut_down();
}

#[test]
fn a_fault_that_has_time_is_not_ended_by_the_deadline_of_another() {
    let (mut bed, page) = with_a_page_out();
    let hurried = FaultOptions {
        deadline: Some(bed.now + Duration::from_micros(10)),
        ..FaultOptions::default()
    };
    for options in [hurried, FaultOptions::default()] {
        let outcome = bed.pager.fault_with(page, Access::Read, options, bed.now);
        assert_eq!(outcome, Ok(FaultOutcome::Pending));
    }
    // The back end gives the request up; the page is read once more.
    let event = bed.event();
    assert!(matches!(event, Some(PagerEvent::Mapped { page: mapped, .. }) if mapped == page));
    let script = bed.script.borrow();
    let requests = script.log.iter().zip(&script.deadlines);
    let reads = requests.filter(|(entry, _)| entry.0 == IoOp::Read);
    let deadlines: Vec<_> = reads.map(|(_, deadline)| *deadline).collect();
    assert_eq!(deadlines, [hurried.deadline, None]);
    drop(script);
    assert_eq!(bed.read(page.0), page.0 as u8);
    assert_eq!(bed.event(), None);
    bed.shut_down();
}

#[test]
fn a_fault_that_is_late_already_is_refused() {
    let (mut bed, page) = with_a_page_out();
    let options = options(0, Some(bed.now.as_micros()));
    let outcome = bed.pager.fault_with(page, Access::Read, options, bed.now);
    assert_eq!(outcome, Err(FaultError::Late));
    assert!(bed.script.borrow().log.is_empty());
    bed.shut_down();
}

#[test]
fn page_ins_and_other_waits_have_histograms_of_their_own() {
    let (mut bed, page) = with_a_page_out();
    let before = [bed.pager.latency_major(), bed.pager.latency_minor()].map(Histogram::count);
    bed.read(page.0);
    let after = [bed.pager.latency_major(), bed.pager.latency_minor()].map(Histogram::count);
    assert_eq!(after, [before[0] + 1, before[1]]);
    assert_eq!(bed.pager.latency().count(), after[0] + after[1]);
    assert!(bed.pager.latency_major().max() >= Duration::from_micros(50));
    bed.shut_down();
}
