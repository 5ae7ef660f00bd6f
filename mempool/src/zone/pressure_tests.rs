//! What happens before an allocation fails.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex as StdMutex;

use super::*;
use crate::{Buddy, FRAME_SIZE, FrameEntry, SingleTask};

/// Its lock, a [`CriticalSection`], notices when its holder takes it again: a hook would.
type TestZone = Zone<'static>;

const FRAMES: usize = 64;
const MARKS: Watermarks = Watermarks {
    min: 8,
    low: 12,
    high: 16,
};

/// A kernel that holds frames and lets go of some when it is asked to.
#[derive(Default)]
struct Kernel {
    zone: StdMutex<Option<&'static TestZone>>,
    held: StdMutex<Vec<Frame<'static>>>,
    /// Frames to free for each time that it is asked; and what it says that it freed.
    frees: AtomicUsize,
    says: AtomicUsize,
    wakes: AtomicUsize,
    throttled: AtomicUsize,
    reclaims: StdMutex<Vec<(u8, Gfp)>>,
}

impl Pressure for Kernel {
    fn wake_background(&self, level: Level) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        if let Some(zone) = *self.zone.lock().unwrap() {
            assert_eq!(zone.stats().free, level.free, "the lock is free");
        }
    }

    fn reclaim(&self, order: u8, gfp: Gfp, level: Level) -> usize {
        self.reclaims.lock().unwrap().push((order, gfp));
        let zone = self.zone.lock().unwrap().expect("it was set");
        assert_eq!(zone.stats().free, level.free);
        assert!(zone.entitled(Gfp::KERNEL), "reclaim is in a memalloc scope");
        // What it allocates does not reclaim in turn.
        drop(zone.alloc(0, Gfp::KERNEL | Gfp::NOMEMALLOC));
        let mut held = self.held.lock().unwrap();
        let left = held.len() - self.frees.load(Ordering::Relaxed).min(held.len());
        held.truncate(left);
        self.says.load(Ordering::Relaxed)
    }

    fn throttle(&self, level: Level) {
        assert!(level.reserve_is_low());
        self.throttled.fetch_add(1, Ordering::Relaxed);
    }
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn machine() -> (&'static TestZone, &'static Kernel, &'static SingleTask) {
    let memory = Box::leak(vec![0; (FRAMES + 1) * FRAME_SIZE].into_boxed_slice());
    let skip = memory.as_ptr().align_offset(FRAME_SIZE);
    let memory = &mut memory[skip..skip + FRAMES * FRAME_SIZE];
    let table = Box::leak(vec![FrameEntry::EMPTY; FRAMES].into_boxed_slice());
    let source: &Buddy<'static> = leak(Buddy::new(memory, table).unwrap());
    let (task, kernel) = (leak(SingleTask::new()), leak(Kernel::default()));
    let zone = TestZone::new(source, task, MARKS).unwrap();
    let zone = leak(zone.with_pressure(kernel));
    *kernel.zone.lock().unwrap() = Some(zone);
    (zone, kernel, task)
}

/// Takes everything that ordinary callers get.
fn exhaust(zone: &'static TestZone, kernel: &Kernel) {
    let taken = core::iter::from_fn(|| zone.alloc(0, Gfp::KERNEL).ok());
    let taken: Vec<_> = taken.collect();
    kernel.held.lock().unwrap().extend(taken);
}

#[test]
fn m2_background_reclaim_is_woken_below_low_and_before_anything_fails() {
    let (zone, kernel, _) = machine();
    zone.grow(16).unwrap();
    let mut held = Vec::new();
    let woken = |kernel: &Kernel| kernel.wakes.load(Ordering::Relaxed);
    while zone.level().ordinary() > MARKS.low {
        held.push(zone.alloc(0, Gfp::ATOMIC).unwrap());
        assert_eq!(woken(kernel), 0);
    }
    for wakes in 1..4 {
        held.push(zone.alloc(0, Gfp::ATOMIC).unwrap());
        assert_eq!(woken(kernel), wakes);
    }
    assert_eq!(zone.stats().refused, 0);
    // So is it by a run that is not there, however much is free.
    let (zone, kernel, _) = machine();
    assert!(zone.alloc(6, Gfp::ATOMIC).is_err());
    assert_eq!(woken(kernel), 1);
}

#[test]
fn a_caller_who_may_wait_makes_room_before_it_fails() {
    let (zone, kernel, _) = machine();
    exhaust(zone, kernel);
    kernel.reclaims.lock().unwrap().clear();
    kernel.frees.store(1, Ordering::Relaxed);
    kernel.says.store(1, Ordering::Relaxed);
    let frame = zone.alloc(0, Gfp::KERNEL | Gfp::NOIO).unwrap();
    assert!(!frame.from_reserve());
    let asked = kernel.reclaims.lock().unwrap().clone();
    assert_eq!(asked, [(0, Gfp::KERNEL | Gfp::NOIO)]);
    // A run of two needs neighbours: it goes on while anything comes free.
    let before = asked.len();
    let run = zone.alloc(1, Gfp::KERNEL);
    let asked = kernel.reclaims.lock().unwrap().len() - before;
    assert!(
        run.is_ok() && (2..=RECLAIM_ROUNDS).contains(&asked),
        "{asked}"
    );
}

#[test]
fn reclaim_that_frees_nothing_or_lies_ends() {
    let (zone, kernel, _) = machine();
    exhaust(zone, kernel);
    for (says, calls) in [(0, 1), (7, RECLAIM_ROUNDS)] {
        kernel.reclaims.lock().unwrap().clear();
        kernel.says.store(says, Ordering::Relaxed);
        assert_eq!(
            zone.alloc(0, Gfp::KERNEL).unwrap_err(),
            AllocError::Exhausted
        );
        assert_eq!(kernel.reclaims.lock().unwrap().len(), calls);
    }
}

#[test]
fn who_cannot_wait_or_makes_room_itself_does_not_reclaim() {
    let (zone, kernel, task) = machine();
    let token = zone.claim_memalloc().unwrap();
    exhaust(zone, kernel);
    kernel.reclaims.lock().unwrap().clear();
    kernel.says.store(1, Ordering::Relaxed);
    let asked = || kernel.reclaims.lock().unwrap().len();

    let urgent = core::iter::from_fn(|| zone.alloc(0, Gfp::ATOMIC).ok());
    let urgent: Vec<_> = urgent.collect();
    assert!(!urgent.is_empty() && asked() == 0, "it cannot wait");
    let irq = task.interrupt();
    assert!(zone.alloc(0, Gfp::KERNEL).is_err());
    assert_eq!(asked(), 0, "an interrupt cannot, whatever it says");
    drop(irq);
    let flag = token.gfp(Gfp::KERNEL);
    assert!(zone.alloc(0, flag | Gfp::NOMEMALLOC).is_err());
    assert_eq!(asked(), 0, "as a cache asks for an entitled caller first");
    let mut slots = [const { None }; 1];
    let pool: crate::Pool<'_, '_, TestZone> = crate::Pool::new("empty", zone, &mut slots);
    assert!(pool.alloc(Gfp::KERNEL).is_err());
    assert_eq!(asked(), 0, "a pool never waits");
    let scope = zone.memalloc(&token);
    assert!(zone.alloc(0, Gfp::KERNEL | Gfp::NOMEMALLOC).is_err());
    let entitled = core::iter::from_fn(|| zone.alloc(0, Gfp::KERNEL).ok());
    let entitled: Vec<_> = entitled.collect();
    assert_eq!((asked(), zone.stats().free), (0, 0));
    drop((scope, entitled, urgent));
}

#[test]
fn no_zone_of_a_list_makes_room_while_another_has_some() {
    let ((full, kernel, _), (other, ..)) = (machine(), machine());
    exhaust(full, kernel);
    kernel.reclaims.lock().unwrap().clear();
    let list = crate::ZoneList::new([full, other]);
    drop(list.alloc(0, Gfp::KERNEL).unwrap());
    assert!(kernel.reclaims.lock().unwrap().is_empty());
    let rest: Vec<_> = core::iter::from_fn(|| other.alloc(0, Gfp::KERNEL).ok()).collect();
    kernel.reclaims.lock().unwrap().clear();
    kernel.frees.store(1, Ordering::Relaxed);
    kernel.says.store(1, Ordering::Relaxed);
    drop(list.alloc(0, Gfp::KERNEL).unwrap());
    assert_eq!(kernel.reclaims.lock().unwrap().len(), 1);
    drop(rest);
}

#[test]
fn callers_who_may_wait_are_throttled_while_half_of_the_reserve_is_gone() {
    let (zone, kernel, _) = machine();
    zone.grow(8).unwrap();
    let token = zone.claim_memalloc().unwrap();
    exhaust(zone, kernel);
    let throttled = || kernel.throttled.load(Ordering::Relaxed);
    let mut taken = Vec::new();
    while zone.stats().free > 4 {
        assert_eq!(throttled(), 0);
        taken.push(zone.alloc(0, token.gfp(Gfp::ATOMIC)).unwrap());
    }
    assert!(zone.alloc(0, Gfp::KERNEL).is_err());
    assert_eq!(throttled(), 0, "half is left");
    taken.push(zone.alloc(0, token.gfp(Gfp::ATOMIC)).unwrap());
    assert!(zone.alloc(0, Gfp::KERNEL).is_err());
    assert_eq!(throttled(), 1);
    assert!(zone.alloc(0, Gfp::ATOMIC).is_err());
    assert_eq!(throttled(), 1, "who cannot wait is not made to");
}

#[cfg(feature = "ablation")]
#[test]
fn m2_without_its_hooks_a_zone_fails_at_once() {
    let (zone, kernel, _) = machine();
    zone.ablate(Mechanism::PressureHooks);
    exhaust(zone, kernel);
    assert_eq!(kernel.wakes.load(Ordering::Relaxed), 0);
    assert!(kernel.reclaims.lock().unwrap().is_empty());
}
