//! Background reclaim that sleeps until a zone wakes it: no wake-up is lost (M2).
#![cfg(loom)]

#[path = "support/loom_lock.rs"]
mod loom_lock;

use core::mem::ManuallyDrop; // a frame that is dropped while a model fails would ask loom once more
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom::sync::{Condvar, Mutex};
use loom::thread;
use loom_lock::LoomLock;
use mempool::{
    FRAME_SIZE, Frame, FrameAllocator, FrameSource, Gfp, Level, Pressure, RawFrame, SingleTask,
    Watermarks, Zone,
};

const FRAMES: usize = 7;
const MARKS: Watermarks = Watermarks {
    min: 0,
    low: 3,
    high: 4,
};

/// Frames as numbers: nobody looks at their memory.
struct Numbers(AtomicUsize);

#[repr(align(64))]
struct Memory([u8; FRAME_SIZE]);

static MEMORY: Memory = Memory([0; FRAME_SIZE]);

// SAFETY: none of these frames is ever read, written or distinguished from another.
unsafe impl FrameSource for Numbers {
    fn alloc(&self, order: u8) -> Option<RawFrame> {
        let free = self.0.load(Relaxed).checked_sub(1)?;
        self.0.store(free, Relaxed);
        Some(RawFrame::new(NonNull::from(&MEMORY.0).cast(), order))
    }

    unsafe fn free(&self, _: RawFrame) {
        self.0.store(self.0.load(Relaxed) + 1, Relaxed);
    }

    fn total(&self) -> usize {
        FRAMES
    }

    fn free_frames(&self) -> usize {
        self.0.load(Relaxed)
    }

    fn max_order(&self) -> u8 {
        0
    }
}

/// A thread that evicts, and sleeps until it is woken.
struct Kswapd {
    woken: Mutex<bool>,
    wake: Condvar,
}

impl Pressure for Kswapd {
    fn wake_background(&self, _: Level) {
        *self.woken.lock().unwrap() = true;
        self.wake.notify_one();
    }
}

impl Kswapd {
    /// Frees what it has until `high` is reached, and once more for each time that it is woken, as long
    /// as it has anything. `late`: forgets that it was woken after it worked, not before.
    fn run(&self, zone: &Zone<'_, LoomLock>, mut held: Vec<ManuallyDrop<Frame<'_>>>, late: bool) {
        while !held.is_empty() {
            let mut woken = self.woken.lock().unwrap();
            while !*woken {
                woken = self.wake.wait(woken).unwrap();
            }
            *woken = late;
            drop(woken);
            while zone.level().below_high()
                && let Some(frame) = held.pop()
            {
                drop(ManuallyDrop::into_inner(frame));
            }
            if late {
                *self.woken.lock().unwrap() = false;
            }
        }
    }
}

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// More is taken than there is without what reclaim holds: all of that must come back, in two goes if
/// the first one ended before the last frame was taken.
fn reclaimed(late: bool) {
    let kswapd = leak(Kswapd {
        woken: Mutex::new(false),
        wake: Condvar::new(),
    });
    let source = leak(Numbers(AtomicUsize::new(FRAMES)));
    let zone = Zone::<LoomLock>::new(source, leak(SingleTask::new()), MARKS).unwrap();
    let zone = leak(zone.with_pressure(kswapd));
    let held: Vec<_> = (0..3)
        .map(|_| ManuallyDrop::new(zone.alloc(0, Gfp::KERNEL).unwrap()))
        .collect();
    assert!(!zone.level().below_low());
    let reclaim = thread::spawn(move || kswapd.run(zone, held, late));
    for _ in 0..4 {
        core::mem::forget(zone.alloc(0, Gfp::KERNEL).unwrap());
    }
    reclaim.join().unwrap();
    assert!(!zone.level().below_low(), "low, and nobody works");
}

#[test]
fn m2_who_reclaims_is_woken_for_every_time_that_memory_is_low() {
    loom::model(|| reclaimed(false));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_wake_up_that_is_forgotten_too_late_is_found() {
    loom::model(|| reclaimed(true));
}
