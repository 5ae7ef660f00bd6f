//! The tasks that wait for an element: a ring of wakers in storage of the caller.
//!
//! It only keeps them. A waker is foreign code, so it is cloned, woken and dropped by the callers of
//! these functions, after they released the pool's lock.

use core::task::Waker;

/// Wakers, the one that waits longest first.
pub(super) struct Waiters<'p> {
    slots: &'p mut [Option<Waker>],
    head: usize,
    len: usize,
}

impl<'p> Waiters<'p> {
    /// Nobody waits; what is in the slots is dropped.
    pub(super) fn new(slots: &'p mut [Option<Waker>]) -> Self {
        slots.fill_with(|| None);
        Waiters {
            slots,
            head: 0,
            len: 0,
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether the task of `waker` waits. O(slots).
    pub(super) fn contains(&self, waker: &Waker) -> bool {
        self.slots.iter().flatten().any(|w| w.will_wake(waker))
    }

    /// Lets `waker` wait. Returns the one that must be woken in its stead: without room that is
    /// whoever waits longest, and without a single slot `waker` itself. O(1).
    pub(super) fn push(&mut self, waker: Waker) -> Option<Waker> {
        if self.slots.is_empty() {
            return Some(waker);
        }
        let full = self.len == self.slots.len();
        let longest = if full { self.pop() } else { None };
        let tail = self.at(self.len);
        self.len += 1;
        self.slots[tail].replace(waker).or(longest)
    }

    /// Takes out whoever waits longest. O(1).
    pub(super) fn pop(&mut self) -> Option<Waker> {
        let waker = self.slots.get_mut(self.head)?.take()?;
        self.head = self.at(1);
        self.len -= 1;
        Some(waker)
    }

    /// The slot `n` places behind the head; there is at least one slot.
    fn at(&self, n: usize) -> usize {
        (self.head + n) % self.slots.len()
    }
}
