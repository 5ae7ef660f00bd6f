//! The fault queue: who waits, for how long, and who has not been told yet.
//!
//! A table of fixed size holds the faults; two lists are threaded through it: faults that wait for a
//! frame, by urgency, and faults whose outcome was not reported yet, first in, first out. Faults
//! whose page is in flight are in neither: its completion moves them on.

use core::num::NonZeroU16;
use core::time::Duration;

use super::{Access, FaultOptions, Page, PagerEvent};
use crate::{ErrorKind, Instant};

/// Which entry of the table; its number plus one, so that `Option<FaultId>` takes two bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FaultId(NonZeroU16);

impl FaultId {
    fn index(self) -> usize {
        usize::from(self.0.get()) - 1
    }

    fn of(index: usize) -> Self {
        let number = u16::try_from(index + 1).ok().and_then(NonZeroU16::new);
        FaultId(number.expect("the table has at most u16::MAX entries"))
    }
}

/// A waiting fault; opaque to the caller, who only provides the storage.
#[derive(Debug, Clone, Copy)]
pub struct FaultEntry {
    pub(super) page: Page,
    pub(super) access: Access,
    pub(super) since: Instant,
    pub(super) options: FaultOptions,
    outcome: Outcome,
    /// The next of the list that the entry is in (the free list included).
    next: Option<FaultId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Open,
    Mapped { waited: Duration, major: bool },
    Failed(ErrorKind),
}

impl FaultEntry {
    /// What a table is filled with before it is handed over.
    pub const EMPTY: FaultEntry = FaultEntry {
        page: Page(0),
        access: Access::Read,
        since: Instant::ZERO,
        options: FaultOptions::DEFAULT,
        outcome: Outcome::Open,
        next: None,
    };
}

impl FaultEntry {
    /// Whether it must not wait behind `other`: by priority, then by deadline.
    fn goes_before(&self, other: &FaultEntry) -> bool {
        let (own, other) = (self.options, other.options);
        if own.priority != other.priority {
            return own.priority > other.priority;
        }
        match (own.deadline, other.deadline) {
            (Some(own), Some(other)) => own < other,
            (own, other) => own.is_some() && other.is_none(),
        }
    }

    /// Whether it is to end now, served or not.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.options
            .deadline
            .is_some_and(|deadline| deadline <= now)
    }
}

impl Default for FaultEntry {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// A list threaded through the table.
#[derive(Debug, Clone, Copy, Default)]
struct List {
    first: Option<FaultId>,
    last: Option<FaultId>,
    len: usize,
}

impl List {
    fn push(&mut self, table: &mut [FaultEntry], id: FaultId) {
        table[id.index()].next = None;
        match self.last {
            Some(last) => table[last.index()].next = Some(id),
            None => self.first = Some(id),
        }
        self.last = Some(id);
        self.len += 1;
    }

    /// Adds a fault behind those that are as urgent, and before the others. O(length), and O(1) where
    /// it comes last.
    fn insert(&mut self, table: &mut [FaultEntry], id: FaultId) {
        let is_last = self
            .last
            .is_none_or(|last| !table[id.index()].goes_before(&table[last.index()]));
        if is_last {
            return self.push(table, id);
        }
        let mut before = None;
        let mut at = self.first;
        while let Some(other) = at
            && !table[id.index()].goes_before(&table[other.index()])
        {
            before = Some(other);
            at = table[other.index()].next;
        }
        table[id.index()].next = at;
        match before {
            Some(before) => table[before.index()].next = Some(id),
            None => self.first = Some(id),
        }
        self.len += 1;
    }

    fn pop(&mut self, table: &[FaultEntry]) -> Option<FaultId> {
        let id = self.first?;
        self.first = table[id.index()].next;
        if self.first.is_none() {
            self.last = None;
        }
        self.len -= 1;
        Some(id)
    }

    /// O(length).
    fn remove(&mut self, table: &mut [FaultEntry], id: FaultId) -> bool {
        // Round once, so that the order stays.
        let mut found = false;
        for _ in 0..self.len {
            if let Some(other) = self.pop(table) {
                if other == id {
                    found = true;
                } else {
                    self.push(table, other);
                }
            }
        }
        found
    }
}

#[derive(Debug)]
pub(super) struct FaultQueue<'s> {
    table: &'s mut [FaultEntry],
    free: List,
    waiting: List,
    done: List,
}

impl<'s> FaultQueue<'s> {
    pub(super) fn new(table: &'s mut [FaultEntry]) -> Self {
        assert!(
            (1..=usize::from(u16::MAX)).contains(&table.len()),
            "the fault queue has 1 to 65535 entries"
        );
        let mut free = List::default();
        for index in 0..table.len() {
            free.push(table, FaultId::of(index));
        }
        FaultQueue {
            table,
            free,
            waiting: List::default(),
            done: List::default(),
        }
    }

    /// Faults that wait for a frame.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting.len
    }

    /// Since when one of them has waited. O(waiting).
    pub(super) fn oldest(&self) -> Option<Instant> {
        let mut at = self.waiting.first;
        let waiting = core::iter::from_fn(|| {
            let entry = &self.table[at?.index()];
            at = entry.next;
            Some(entry.since)
        });
        waiting.min()
    }

    /// When the next fault is late. O(table).
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let open = self
            .table
            .iter()
            .filter(|entry| entry.outcome == Outcome::Open);
        open.filter_map(|entry| entry.options.deadline).min()
    }

    /// Ends one fault whose deadline has passed, and names its page. O(table).
    pub(super) fn expire(&mut self, now: Instant) -> Option<Page> {
        let late = |entry: &FaultEntry| entry.outcome == Outcome::Open && entry.is_late(now);
        let id = FaultId::of(self.table.iter().position(late)?);
        self.waiting.remove(self.table, id);
        self.failed(id, ErrorKind::TimedOut);
        Some(self.table[id.index()].page)
    }

    /// A new fault whose page is in flight, or `None` if the queue is full.
    pub(super) fn open(
        &mut self,
        page: Page,
        access: Access,
        options: FaultOptions,
        now: Instant,
    ) -> Option<FaultId> {
        let id = self.free.pop(self.table)?;
        self.table[id.index()] = FaultEntry {
            page,
            access,
            options,
            since: now,
            ..FaultEntry::EMPTY
        };
        Some(id)
    }

    pub(super) fn get(&self, id: FaultId) -> &FaultEntry {
        &self.table[id.index()]
    }

    /// One more fault on the same page: together they are as urgent as the more urgent one, and late
    /// when the later one is. O(waiting).
    pub(super) fn merge(&mut self, id: FaultId, access: Access, options: FaultOptions) {
        let entry = &mut self.table[id.index()];
        if access == Access::Write {
            entry.access = Access::Write;
        }
        if entry.outcome != Outcome::Open {
            return;
        }
        let deadlines = entry.options.deadline.zip(options.deadline);
        let merged = FaultOptions {
            priority: entry.options.priority.max(options.priority),
            deadline: deadlines.map(|(one, other)| one.max(other)),
        };
        if core::mem::replace(&mut entry.options, merged) != merged
            && self.waiting.remove(self.table, id)
        {
            self.waiting.insert(self.table, id);
        }
    }

    /// An open fault waits for a frame now.
    pub(super) fn wait(&mut self, id: FaultId) {
        self.waiting.insert(self.table, id);
    }

    /// The most urgent fault that waits for a frame.
    pub(super) fn first_waiting(&self) -> Option<(FaultId, FaultEntry)> {
        self.waiting.first.map(|id| (id, self.table[id.index()]))
    }

    /// The most urgent fault does not wait for a frame any more.
    pub(super) fn leave_first(&mut self) {
        self.waiting.pop(self.table);
    }

    /// The page is mapped. Returns how long the fault waited.
    pub(super) fn mapped(&mut self, id: FaultId, now: Instant, major: bool) -> Duration {
        let waited = now.since(self.table[id.index()].since);
        self.finish(id, Outcome::Mapped { waited, major });
        waited
    }

    /// The fault, which is not waiting for a frame, cannot be served.
    pub(super) fn failed(&mut self, id: FaultId, kind: ErrorKind) {
        self.finish(id, Outcome::Failed(kind));
    }

    fn finish(&mut self, id: FaultId, outcome: Outcome) {
        self.table[id.index()].outcome = outcome;
        self.done.push(self.table, id);
    }

    /// Ends a fault wherever it is: its page was forgotten.
    pub(super) fn cancel(&mut self, id: FaultId) {
        let unreported = self.table[id.index()].outcome != Outcome::Open;
        if unreported {
            self.table[id.index()].outcome = Outcome::Failed(ErrorKind::Cancelled);
        } else {
            self.waiting.remove(self.table, id);
            self.failed(id, ErrorKind::Cancelled);
        }
    }

    /// The next outcome to report; its entry is free again.
    pub(super) fn report(&mut self) -> Option<(FaultId, PagerEvent)> {
        let id = self.done.pop(self.table)?;
        let FaultEntry { page, outcome, .. } = self.table[id.index()];
        self.free.push(self.table, id);
        let event = match outcome {
            Outcome::Mapped { waited, major } => PagerEvent::Mapped {
                page,
                waited,
                major,
            },
            Outcome::Failed(kind) => PagerEvent::Failed { page, kind },
            Outcome::Open => unreachable!("only finished faults are in the list"),
        };
        Some((id, event))
    }
}
