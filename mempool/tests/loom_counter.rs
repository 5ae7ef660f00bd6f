//! A count of 64 bits in words of 32, read while it is written, on weakly ordered memory.
#![cfg(loom)]

#[path = "../src/counter/wide.rs"]
#[allow(dead_code)]
mod wide;

use core::sync::atomic::Ordering;
use std::sync::Arc;

use loom::sync::atomic::AtomicU32;
use loom::thread;
use wide::{Wide, Word};

/// A word of loom's, with the orders that are asked for, or with none: the bug that must be found.
struct Watched<const ORDERED: bool>(AtomicU32);

impl<const ORDERED: bool> Word for Watched<ORDERED> {
    fn load(&self, order: Ordering) -> u32 {
        self.0.load(if ORDERED { order } else { Ordering::Relaxed })
    }

    fn store(&self, value: u32, order: Ordering) {
        let order = if ORDERED { order } else { Ordering::Relaxed };
        self.0.store(value, order);
    }
}

/// Two words before the carry, and as many after.
fn read_while_it_is_counted<const ORDERED: bool>() {
    const START: u32 = u32::MAX - 1;
    let word = |value| Watched::<ORDERED>(AtomicU32::new(value));
    let counter = Arc::new(Wide {
        low: word(START),
        ahead: word(0),
        behind: word(0),
    });
    let writer = {
        let counter = counter.clone();
        thread::spawn(move || (0..3).for_each(|_| counter.add(1)))
    };
    let first = counter.get();
    let second = counter.get();
    writer.join().expect("it does not panic");
    let end = counter.get();
    assert_eq!(end, u64::from(START) + 3);
    assert!(u64::from(START) <= first && first <= second, "backwards");
    assert!(second <= end, "ahead of its time");
}

#[test]
fn what_is_read_is_a_count_that_there_was_and_never_less_than_before() {
    loom::model(read_while_it_is_counted::<true>);
}

#[test]
#[should_panic(expected = "backwards")]
fn without_the_order_of_its_words_it_is_found_wrong() {
    loom::model(read_while_it_is_counted::<false>);
}
