//! `embassy-net` over the reserve, and what happens without each part.

use embassy_exchange::{BYTES, Options, exchange};
use netreserve::Medium;

const MEDIA: [Medium; 2] = [Medium::Ethernet, Medium::Ip];

#[test]
fn n2_n8_embassy_net_ends_its_exchange_in_reserve_memory_alone_under_a_flood() {
    for medium in MEDIA {
        let outcome = exchange(&Options {
            medium,
            ..Options::default()
        });
        assert!(outcome.is_complete(), "{outcome}");
        assert!(outcome.dropped > 1000 && outcome.lost > 0, "{outcome}");
        assert_eq!((outcome.delivered, outcome.charged), (0, 0), "{outcome}");
    }
}

#[test]
fn n2_without_the_filter_the_exchange_does_not_end() {
    for medium in MEDIA {
        let outcome = exchange(&Options {
            medium,
            vmio_filter: false,
            ..Options::default()
        });
        assert!(outcome.echoed < BYTES && outcome.delivered > 0, "{outcome}");
    }
}

/// It is the card's interrupts that drive the stack; without them nothing moves.
#[test]
fn nothing_is_polled_that_was_not_woken() {
    let outcome = exchange(&Options {
        interrupts: false,
        patience: 10,
        ..Options::default()
    });
    assert_eq!(outcome.echoed, 0, "{outcome}");
    assert!(outcome.polls < 50, "{outcome}");
}

#[test]
fn in_silence_nobody_is_polled() {
    let outcome = exchange(&Options {
        flood: 0,
        ..Options::default()
    });
    assert!(outcome.is_complete(), "{outcome}");
    assert_eq!(outcome.idle_polls, 0, "{outcome}");
    assert!(outcome.polls <= 4 * outcome.milliseconds, "{outcome}");
}
