//! Counters that are written under a lock and read without it.
//!
//! Whoever writes holds the lock that guards the [`Writer`], so that there is one writer at a time:
//! loads and stores suffice, where some targets have no more. Whoever reads takes no lock, waits for
//! nobody and may interrupt the writer: a snapshot is to be had in a panic handler, or from within a
//! call that the lock's holder makes.
//!
//! What is read is right for each counter by itself. Two that belong together (`usage` and its
//! `peak`) may be read on both sides of an update.

use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

mod wide;

/// The right to write, as a value: it lies in the state under a lock, and is not to be had twice.
#[derive(Debug)]
pub struct Writer(());

impl Writer {
    /// For the state under the lock.
    #[must_use]
    #[allow(clippy::new_without_default)] // one for each lock, and deliberately
    pub const fn new() -> Self {
        Writer(())
    }
}

/// A value that goes up and down: frames, bytes.
pub struct Gauge(AtomicUsize);

impl Gauge {
    /// Starts at `value`.
    #[must_use]
    pub const fn new(value: usize) -> Self {
        Gauge(AtomicUsize::new(value))
    }

    /// The value. O(1), without a lock.
    #[must_use]
    #[inline]
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Writes another value.
    #[inline]
    pub fn set(&self, _: &mut Writer, value: usize) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// Counts up, in 64 bits, on targets whose atomics have 32.
pub struct Counter(wide::Wide<AtomicU32>);

impl Counter {
    /// Starts at 0.
    #[must_use]
    pub const fn new() -> Self {
        Counter(wide::Wide {
            low: AtomicU32::new(0),
            ahead: AtomicU32::new(0),
            behind: AtomicU32::new(0),
        })
    }

    /// The count. O(1), without a lock; never less than it said before.
    #[must_use]
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.get()
    }

    /// Counts one.
    #[inline]
    pub fn count(&self, _: &mut Writer) {
        self.0.add(1);
    }
}

impl Default for Counter {
    fn default() -> Self {
        Counter::new()
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_goes_on_beyond_what_one_word_holds() {
        let (counter, mut writer) = (Counter::new(), Writer::new());
        counter.0.low.store(u32::MAX - 1, Ordering::Relaxed);
        for n in 0..4 {
            assert_eq!(counter.get(), u64::from(u32::MAX) - 1 + n);
            counter.count(&mut writer);
        }
    }

    /// As an interrupt in the middle of the writer sees it, on the same CPU.
    #[test]
    fn whoever_interrupts_the_carry_reads_the_count_at_which_it_happens() {
        let counter = Counter::new();
        let wide = &counter.0;
        wide.low.store(u32::MAX, Ordering::Relaxed);
        wide.ahead.store(1, Ordering::Relaxed);
        assert_eq!(counter.get(), 1 << 32);
        wide.low.store(0, Ordering::Relaxed);
        assert_eq!(counter.get(), 1 << 32);
        wide.behind.store(1, Ordering::Relaxed);
        assert_eq!(counter.get(), 1 << 32);
    }
}
