//! Several swap areas under one pager.

use super::bed::{Bed, ExplicitBed, Shape};
use super::*;

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
