use alloc::boxed::Box;
use alloc::vec::Vec;

use super::*;
use crate::testbed::machine;
use crate::{Budget, BufferCache, FRAME_SIZE, Gfp, SLAB_HEADER, SizedCache, Zone};

/// Two to a frame.
const SKB: usize = (FRAME_SIZE - SLAB_HEADER) / 2;

type Node<'t> = ReserveNode<'t>;

#[test]
fn m5_demand_goes_up_and_usage_does_not() {
    let m = machine(64);
    let (root, net, rx) = (
        Node::root("total", &m.zone),
        Node::new("network"),
        Node::new("rx"),
    );
    rx.set_limit(1000, 5).unwrap();
    net.set_limit(10, 2).unwrap();
    rx.connect(&net).unwrap();
    assert_eq!(
        (net.pages(), root.pages(), m.zone.stats().reserve),
        (7, 0, 0)
    );
    net.connect(&root).unwrap();
    assert_eq!((root.pages(), m.zone.stats().reserve), (7, 7));
    rx.set_limit(2000, 9).unwrap();
    assert_eq!(
        (net.pages(), root.pages(), m.zone.stats().reserve),
        (11, 11, 11)
    );
    let _charge = rx.charge(600).unwrap();
    assert_eq!((rx.usage(), net.usage(), root.usage()), (600, 0, 0));
}

#[test]
fn m5_a_limit_that_cannot_be_backed_changes_nothing() {
    let m = machine(64);
    let (root, net, rx) = (
        Node::root("total", &m.zone),
        Node::new("network"),
        Node::new("rx"),
    );
    net.connect(&root).unwrap();
    rx.set_limit(100, 40).unwrap();
    rx.connect(&net).unwrap();

    let refused = Err(ReserveError::Backing(BackingError { missing: 24 }));
    assert_eq!(rx.set_limit(200, 80), refused);
    assert_eq!(
        (rx.limit(), rx.pages(), net.pages(), root.pages()),
        (100, 40, 40, 40)
    );
    assert_eq!(m.zone.stats().reserve, 40);

    let big = Node::new("big");
    big.set_limit(1, 17).unwrap();
    assert!(matches!(big.connect(&net), Err(ReserveError::Backing(_))));
    assert_eq!((net.pages(), m.zone.stats().reserve), (40, 40));
    assert_eq!(big.charge(1).unwrap_err(), ChargeError::Unbacked);
}

/// Found by fuzzing: it was refused.
#[test]
fn m5_a_subtree_that_needs_nothing_connects_when_memory_is_short() {
    let m = machine(64);
    let root = Node::root("total", &m.zone);
    let _hog: Vec<_> = core::iter::from_fn(|| m.zone.alloc(0, Gfp::ATOMIC).ok()).collect();
    let (net, rx) = (Node::new("network"), Node::new("rx"));
    assert_eq!(net.connect(&root), Ok(()));
    rx.set_limit(1, 1).unwrap();
    assert!(matches!(rx.connect(&net), Err(ReserveError::Backing(_))));
}

/// Found by fuzzing: sums overflowed.
#[test]
fn m5_demands_beyond_any_memory_are_refused_and_change_nothing() {
    let m = machine(64);
    let root = Node::root("total", &m.zone);
    let (net, rx) = (Node::new("network"), Node::new("rx"));
    net.set_limit(1, usize::MAX).unwrap();
    rx.set_limit(1, 1).unwrap();
    assert!(matches!(rx.connect(&net), Err(ReserveError::Backing(_))));
    assert!(matches!(net.connect(&root), Err(ReserveError::Backing(_))));
    net.set_limit(1, 2).unwrap();
    net.connect(&root).unwrap();
    let absurd = net.set_limit(1, usize::MAX);
    assert!(matches!(absurd, Err(ReserveError::Backing(_))));
    assert_eq!(
        (net.pages(), root.pages(), m.zone.stats().reserve),
        (2, 2, 2)
    );
}

#[test]
fn m5_a_full_charge_is_admitted_and_one_more_is_not() {
    let m = machine(64);
    let (root, rx) = (Node::root("total", &m.zone), Node::new("rx"));
    rx.set_limit(100, 1).unwrap();
    rx.connect(&root).unwrap();
    let full = rx.charge(100).unwrap();
    assert_eq!(rx.charge(1).unwrap_err(), ChargeError::OverLimit);
    assert_eq!(rx.set_limit(99, 1), Err(ReserveError::InUse));
    assert_eq!(rx.disconnect(), Err(ReserveError::InUse));
    drop(full);
    assert_eq!((rx.usage(), rx.peak()), (0, 100));
    assert_eq!(rx.charge(usize::MAX).unwrap_err(), ChargeError::OverLimit);
}

#[test]
fn m6_charge_first_then_memory_and_nothing_is_left_at_rest() {
    let m = machine(64);
    let token = m.zone.claim_memalloc().unwrap();
    let (root, rx) = (Node::root("total", &m.zone), Node::new("rx"));
    rx.set_limit(8 * SKB, Budget::objects(8, SKB, 0).frames())
        .unwrap();
    rx.connect(&root).unwrap();
    let cache = <SizedCache<'_>>::new("skb", &m.zone, SKB, 0).unwrap();
    let hog: alloc::vec::Vec<_> = core::iter::from_fn(|| cache.alloc(Gfp::ATOMIC).ok()).collect();

    let charged: alloc::vec::Vec<_> = core::iter::from_fn(|| {
        let charge = rx.charge(SKB).ok()?;
        // The limit was derived: whatever can be charged can be allocated.
        let skb = cache
            .alloc(token.gfp(Gfp::ATOMIC))
            .expect("frames stand behind the limit");
        Some((skb, charge))
    })
    .collect();
    assert_eq!(charged.len(), 8);
    drop(charged);
    assert_eq!((rx.usage(), m.zone.stats().reserve_in_use), (0, 0));
    drop(hog);
}

#[test]
fn disconnecting_returns_the_frames_of_the_whole_subtree() {
    let m = machine(64);
    let (root, net, rx) = (
        Node::root("total", &m.zone),
        Node::new("network"),
        Node::new("rx"),
    );
    rx.set_limit(1, 5).unwrap();
    rx.connect(&net).unwrap();
    net.connect(&root).unwrap();
    assert!(rx.charge(1).is_ok());
    net.disconnect().unwrap();
    assert_eq!(
        (root.pages(), net.pages(), m.zone.stats().reserve),
        (0, 5, 0)
    );
    assert_eq!(rx.charge(1).unwrap_err(), ChargeError::Unbacked);
    net.connect(&root).unwrap();
    assert_eq!(m.zone.stats().reserve, 5);
}

#[test]
fn a_tree_stays_a_tree() {
    let zone: &'static Zone<'static> = Box::leak(Box::new(machine(64).zone));
    let (root, a, b) = (Node::root("total", zone), Node::new("a"), Node::new("b"));
    b.connect(&a).unwrap();
    assert_eq!(a.connect(&b), Err(ReserveError::Cycle));
    assert_eq!(a.connect(&a), Err(ReserveError::Cycle));
    assert_eq!(root.connect(&a), Err(ReserveError::Connected));
    a.connect(&root).unwrap();
    assert_eq!(b.connect(&root), Err(ReserveError::Connected));
}

#[test]
fn a_root_is_not_disconnected_and_a_zone_is_not_given_back_more_than_it_set_aside() {
    let m = machine(64);
    let root = Node::root("total", &m.zone);
    root.set_limit(1, 4).unwrap();
    assert_eq!(root.disconnect(), Err(ReserveError::Root));
    assert_eq!(m.zone.stats().reserve, 4);
    let more = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| m.zone.shrink(5)));
    assert!(more.is_err() && m.zone.stats().reserve == 4);
    root.set_limit(0, 0).unwrap();
    assert_eq!(m.zone.stats().reserve, 0);
}

#[cfg(feature = "ablation")]
mod ablation {
    use super::*;

    #[test]
    fn m5_without_backing_limits_rise_over_no_frames_and_nothing_underflows() {
        let m = machine(64);
        let (root, rx) = (Node::root("total", &m.zone), Node::new("rx"));
        root.ablate(Mechanism::Backing);
        rx.set_limit(100, 1000).unwrap();
        rx.connect(&root).unwrap();
        assert_eq!((root.pages(), m.zone.stats().reserve), (1000, 0));
        assert!(rx.charge(100).is_ok());
        rx.disconnect().unwrap();
        assert_eq!((root.pages(), m.zone.stats().reserve), (0, 0));
    }

    #[test]
    fn m6_without_their_mechanisms_charges_are_too_few_or_too_many() {
        for (mechanism, full, over, left) in [
            (Mechanism::FullCharge, false, true, 0),
            (Mechanism::ChargeLimit, true, true, 0),
            (Mechanism::Uncharge, true, false, 100),
        ] {
            let m = machine(64);
            let (root, rx) = (Node::root("total", &m.zone), Node::new("rx"));
            rx.set_limit(100, 1).unwrap();
            rx.connect(&root).unwrap();
            rx.ablate(mechanism);
            let first = rx.charge(100);
            assert_eq!(first.is_ok(), full, "{mechanism:?}");
            assert_eq!(rx.charge(1).is_ok(), over, "{mechanism:?}");
            assert!(rx.charge(usize::MAX).is_err(), "no count holds so many");
            drop(first);
            assert_eq!(rx.usage(), left, "{mechanism:?}");
        }
    }
}

#[test]
fn m6_who_waits_for_a_charge_is_told_when_one_ends_and_only_then() {
    #[derive(Default)]
    struct Told(core::sync::atomic::AtomicUsize);

    impl ChargeWaiters for Told {
        fn released(&self) {
            self.0.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        }
    }

    let m = machine(64);
    let told = Told::default();
    let count = || told.0.load(core::sync::atomic::Ordering::Relaxed);
    let (root, rx) = (
        Node::root("total", &m.zone),
        Node::with_waiters("rx", &told),
    );
    rx.set_limit(2, 1).unwrap();
    rx.connect(&root).unwrap();
    let (one, two) = (rx.charge(1).unwrap(), rx.charge(1).unwrap());
    drop(two);
    assert_eq!(count(), 0, "nobody was refused");
    let two = rx.charge(1).unwrap();
    for _ in 0..2 {
        assert_eq!(rx.charge(1).unwrap_err(), ChargeError::OverLimit);
    }
    drop(one);
    assert_eq!(count(), 1, "all who wait are told at once");
    drop(two);
    assert_eq!(count(), 1, "and not again");
    let all = rx.charge(2).unwrap();
    assert!(rx.charge(1).is_err());
    rx.set_limit(3, 1).unwrap();
    assert_eq!(count(), 2, "a limit that rises makes room as well");
    drop(all);
    rx.disconnect().unwrap();
}

#[test]
fn nobody_who_waits_sleeps_on_when_there_is_room() {
    use std::sync::{Condvar, Mutex as StdMutex};

    #[derive(Default)]
    struct WaitQueue(StdMutex<u64>, Condvar);

    impl ChargeWaiters for WaitQueue {
        fn released(&self) {
            *self.0.lock().unwrap() += 1;
            self.1.notify_all();
        }
    }

    let m = machine(64);
    let queue = WaitQueue::default();
    let (root, rx) = (
        Node::root("total", &m.zone),
        Node::with_waiters("rx", &queue),
    );
    rx.set_limit(3, 1).unwrap();
    rx.connect(&root).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let charge = loop {
                        let seen = *queue.0.lock().unwrap();
                        match rx.charge(2) {
                            Ok(charge) => break charge,
                            Err(ChargeError::OverLimit) => {
                                let told = queue.0.lock().unwrap();
                                // Without a deadline: a wake-up that is lost hangs the test.
                                drop(queue.1.wait_while(told, |told| *told == seen).unwrap());
                            }
                            Err(error) => panic!("{error}"),
                        }
                    };
                    drop(charge);
                }
            });
        }
    });
    assert_eq!((rx.usage(), rx.peak()), (0, 2));
    rx.disconnect().unwrap();
}
