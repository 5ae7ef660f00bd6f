//! 64 bits in words of 32, for one writer at a time and readers that never wait.
//!
//! The upper half is kept twice. The writer carries in the order `ahead`, `low`, `behind`; a reader
//! goes the other way. Where it finds the two halves different it met the carry, and the count is the
//! one at which that happens: nothing has to be read again, so that an interrupt may read in the
//! middle of a write. (`tests/loom_counter.rs` shows it for weakly ordered memory, with words of
//! `loom`.)

use core::sync::atomic::Ordering::{self, Acquire, Relaxed, Release};

/// A word: `AtomicU32`, or loom's.
pub(crate) trait Word {
    fn load(&self, order: Ordering) -> u32;
    fn store(&self, value: u32, order: Ordering);
}

impl Word for core::sync::atomic::AtomicU32 {
    #[inline]
    fn load(&self, order: Ordering) -> u32 {
        self.load(order)
    }

    #[inline]
    fn store(&self, value: u32, order: Ordering) {
        self.store(value, order);
    }
}

pub(crate) struct Wide<W> {
    pub(crate) low: W,
    pub(crate) ahead: W,
    pub(crate) behind: W,
}

impl<W: Word> Wide<W> {
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        let behind = self.behind.load(Acquire);
        let low = self.low.load(Acquire);
        let ahead = self.ahead.load(Relaxed);
        let low = if ahead == behind { low } else { 0 };
        u64::from(ahead) << 32 | u64::from(low)
    }

    /// One writer at a time.
    #[inline]
    pub(crate) fn add(&self, by: u32) {
        let (low, carry) = self.low.load(Relaxed).overflowing_add(by);
        if carry {
            self.carry(low);
        } else {
            self.low.store(low, Release);
        }
    }

    #[cold]
    fn carry(&self, low: u32) {
        let high = self.ahead.load(Relaxed).wrapping_add(1);
        self.ahead.store(high, Relaxed);
        self.low.store(low, Release);
        self.behind.store(high, Release);
    }
}
