//! Panics, of which violations are made.

use core::cell::RefCell;
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use crate::verdict::{Counts, Outcome, Violation};

std::thread_local! {
    /// Where the last panic happened.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps panics from being printed: [`run`](super::run) makes violations of them, with their place.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        PLACE.set(place.unwrap_or_default());
    }));
}

/// What comes of a simulation, even if it panics.
pub(super) fn catch(simulation: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(simulation)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let what = format!("{} ({})", text.unwrap_or("without a word"), PLACE.take());
        Outcome {
            violation: Some(Violation {
                rule: "panic",
                what,
                at: 0,
            }),
            hash: 0,
            took: 0,
            events: 0,
            counts: Counts::default(),
        }
    })
}
