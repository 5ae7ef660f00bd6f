//! The lock that the other loom tests stand on.
#![cfg(loom)]

#[path = "support/loom_lock.rs"]
mod loom_lock;

use std::sync::Arc;

use lock_api::{Mutex, RawMutex};
use loom::thread;
use loom_lock::{LoomLock, NoLock};

fn two_increments<R: RawMutex + Send + Sync + 'static>() {
    let sum = Arc::new(Mutex::<R, u32>::new(0));
    let other = {
        let sum = sum.clone();
        thread::spawn(move || *sum.lock() += 1)
    };
    let mine = sum.try_lock().map(|mut sum| *sum += 1);
    other.join().expect("it does not panic");
    assert_eq!(*sum.lock(), 1 + u32::from(mine.is_some()));
}

#[test]
fn one_at_a_time() {
    loom::model(two_increments::<LoomLock>);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn two_at_once_are_found() {
    loom::model(two_increments::<NoLock>);
}
