//! Virtual time: events in the order of their time, and of their making.

use std::collections::BinaryHeap;

use crate::scenario::Micros;

/// Events that will happen.
#[derive(Debug)]
pub(crate) struct Agenda<E> {
    now: Micros,
    serial: u64,
    heap: BinaryHeap<Entry<E>>,
}

#[derive(Debug)]
struct Entry<E> {
    at: Micros,
    serial: u64,
    event: E,
}

impl<E> Agenda<E> {
    pub(crate) const fn new() -> Self {
        Agenda {
            now: 0,
            serial: 0,
            heap: BinaryHeap::new(),
        }
    }

    pub(crate) const fn now(&self) -> Micros {
        self.now
    }

    /// Something happens at `at`, or now if that has passed.
    pub(crate) fn at(&mut self, at: Micros, event: E) {
        self.serial += 1;
        self.heap.push(Entry {
            at: at.max(self.now),
            serial: self.serial,
            event,
        });
    }

    /// Something happens when `delay` has passed.
    pub(crate) fn after(&mut self, delay: Micros, event: E) {
        self.at(self.now.saturating_add(delay), event);
    }

    /// Lets time pass until the next event.
    pub(crate) fn next(&mut self) -> Option<E> {
        let entry = self.heap.pop()?;
        self.now = entry.at;
        Some(entry.event)
    }
}

impl<E> Ord for Entry<E> {
    /// The heap gives the greatest first: that is the earliest.
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::Agenda;

    #[test]
    fn events_come_by_their_time_and_then_by_their_age() {
        let mut agenda = Agenda::new();
        for (at, event) in [(5, 'b'), (3, 'a'), (5, 'c'), (9, 'd')] {
            agenda.at(at, event);
        }
        let mut order = Vec::new();
        while let Some(event) = agenda.next() {
            order.push((agenda.now(), event));
            if event == 'b' {
                // Too late: it happens now, behind what was there before.
                agenda.at(1, 'x');
            }
        }
        assert_eq!(order, [(3, 'a'), (5, 'b'), (5, 'c'), (5, 'x'), (9, 'd')]);
    }
}
