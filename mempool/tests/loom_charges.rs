//! Charges of several threads, those who wait for one, and a tree that changes meanwhile (M5, M6).
#![cfg(loom)]

#[path = "support/loom_lock.rs"]
mod loom_lock;

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

use lock_api::RawMutex;
use loom::sync::{Condvar, Mutex};
use loom::thread;
use loom_lock::{LoomLock, NoLock};
use mempool::{BackingError, ChargeError, ChargeWaiters, ReserveBacking, ReserveNode};

/// Frames without end; how many are set aside.
struct Frames(AtomicUsize);

impl ReserveBacking for Frames {
    fn grow(&self, frames: usize) -> Result<(), BackingError> {
        self.0.fetch_add(frames, Relaxed);
        Ok(())
    }

    fn shrink(&self, frames: usize) {
        self.0.fetch_sub(frames, Relaxed);
    }
}

type Node<R> = ReserveNode<'static, R>;

/// Leaked in every run of the model, so that lifetimes do not matter; they are small.
fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// A node with a limit and one frame, under a root.
fn connected<R: RawMutex>(node: &'static Node<R>, limit: usize) -> &'static Node<R> {
    let root = leak(Node::root("total", leak(Frames(AtomicUsize::new(0)))));
    node.set_limit(limit, 1).unwrap();
    node.connect(root).unwrap();
    root
}

/// Two of three at a time do not fit.
fn two_charge<R: RawMutex + Send + Sync + 'static>() {
    let node = leak(Node::<R>::new("rx"));
    connected(node, 3);
    let held = Arc::new(AtomicUsize::new(0));
    let charge = {
        let held = held.clone();
        move || {
            let Ok(charge) = node.charge(2) else {
                return false;
            };
            assert!(held.fetch_add(2, Relaxed) + 2 <= 3, "more than the limit");
            thread::yield_now();
            held.fetch_sub(2, Relaxed);
            drop(charge);
            true
        }
    };
    let other = thread::spawn(charge.clone());
    let mine = charge();
    let one = mine | other.join().unwrap();
    assert!(one, "nobody was admitted");
    assert_eq!((node.usage(), node.peak()), (0, 2));
}

#[test]
fn m6_charges_of_several_threads_stay_below_the_limit_and_leave_nothing() {
    loom::model(two_charge::<LoomLock>);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn charges_without_a_lock_are_found() {
    loom::model(two_charge::<NoLock>);
}

/// Counts, so that a release between the refusal and the sleep is not missed.
struct WaitQueue(Mutex<u64>, Condvar);

impl WaitQueue {
    fn new() -> &'static Self {
        leak(WaitQueue(Mutex::new(0), Condvar::new()))
    }

    fn told(&self) -> u64 {
        *self.0.lock().unwrap()
    }

    /// Until it is told for the first time since `seen`.
    fn sleep(&self, seen: u64) {
        let mut told = self.0.lock().unwrap();
        while *told == seen {
            told = self.1.wait(told).unwrap();
        }
    }
}

impl ChargeWaiters for WaitQueue {
    fn released(&self) {
        *self.0.lock().unwrap() += 1;
        self.1.notify_all();
    }
}

/// Charges `units`, and waits for as long as that takes. `late`: looks at the queue only after it was
/// refused, which is the mistake that everybody makes once.
fn charge_or_wait(node: &Node<LoomLock>, queue: &WaitQueue, units: usize, late: bool) {
    loop {
        let seen = queue.told();
        match node.charge(units) {
            Ok(charge) => break drop(charge),
            Err(ChargeError::OverLimit) if late => queue.sleep(queue.told()),
            Err(ChargeError::OverLimit) => queue.sleep(seen),
            Err(error) => panic!("{error}"),
        }
    }
}

fn all_of_them_get_on(late: bool) {
    let queue = WaitQueue::new();
    let node = leak(Node::with_waiters("rx", queue));
    connected(node, 2);
    let other = thread::spawn(move || charge_or_wait(node, queue, 2, late));
    charge_or_wait(node, queue, 2, late);
    other.join().unwrap();
    assert_eq!((node.usage(), node.peak()), (0, 2));
}

#[test]
fn m6_nobody_sleeps_on_after_the_charge_that_he_waited_for_ended() {
    loom::model(|| all_of_them_get_on(false));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_waiter_who_looks_too_late_is_found_asleep() {
    loom::model(|| all_of_them_get_on(true));
}

#[test]
fn m6_a_limit_that_rises_wakes_who_waits_for_it() {
    loom::model(|| {
        let queue = WaitQueue::new();
        let node = leak(Node::with_waiters("rx", queue));
        connected(node, 1);
        let other = thread::spawn(move || charge_or_wait(node, queue, 2, false));
        node.set_limit(2, 1).unwrap();
        other.join().unwrap();
        assert_eq!(node.usage(), 0);
    });
}

#[test]
fn m5_while_something_is_charged_its_frames_stay() {
    loom::model(|| {
        let node = leak(Node::<LoomLock>::new("rx"));
        let root = connected(node, 1);
        let other = thread::spawn(move || match node.charge(1) {
            Ok(charge) => {
                thread::yield_now();
                assert_eq!(root.pages(), 1, "a charge over frames that went");
                drop(charge);
            }
            Err(error) => assert_eq!(error, ChargeError::Unbacked),
        });
        let gone = node.disconnect().is_ok();
        other.join().unwrap();
        assert_eq!((root.pages(), node.usage()), (usize::from(!gone), 0));
    });
}

/// The table is made while a node comes and goes: it ends, and its rows are nodes of the tree.
#[test]
fn m5_the_table_can_be_made_while_the_tree_changes() {
    loom::model(|| {
        let [a, b] = ["a", "b"].map(|name| leak(Node::<LoomLock>::new(name)));
        let root = connected(a, 1);
        let other = thread::spawn(move || {
            b.connect(root).unwrap();
            a.disconnect().unwrap();
        });
        let names: Vec<_> = root
            .walk()
            .map(|(depth, node)| (depth, node.name))
            .collect();
        other.join().unwrap();
        let seen = match names[..] {
            [(0, "total"), (1, x)] => x == "a" || x == "b",
            [(0, "total"), (1, "a"), (1, "b")] | [(0, "total")] => true,
            _ => false,
        };
        assert!(seen, "{names:?}");
        let after: Vec<_> = root.walk().map(|(_, node)| node.name).collect();
        assert_eq!(after, ["total", "b"]);
    });
}
