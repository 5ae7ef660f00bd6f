//! Which request carries which pages.

use super::Page;
use crate::{CLUSTER_FRAMES, FrameList, Instant, IoClass, IoOp, SpaceTicket};

/// The pages of one request, in slot order.
pub(super) type PageList = heapless::Vec<Page, CLUSTER_FRAMES>;

/// A request in flight; opaque to the caller, who only provides the storage.
#[derive(Debug, Clone)]
pub struct RequestEntry(Option<Request>);

impl RequestEntry {
    /// What a table is filled with before it is handed over.
    pub const EMPTY: RequestEntry = RequestEntry(None);
}

impl Default for RequestEntry {
    fn default() -> Self {
        Self::EMPTY
    }
}

#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) ticket: SpaceTicket,
    pub(super) op: IoOp,
    /// Of what class it was when it was admitted.
    pub(super) class: IoClass,
    /// It was read ahead, and somebody waits for it now.
    pub(super) expedited: bool,
    /// When the back end gives it up.
    pub(super) deadline: Option<Instant>,
    pub(super) pages: PageList,
    pub(super) since: Instant,
}

#[derive(Debug)]
pub(super) struct Requests<'s> {
    table: &'s mut [RequestEntry],
    reads: usize,
    writes: usize,
}

impl<'s> Requests<'s> {
    pub(super) fn new(table: &'s mut [RequestEntry]) -> Self {
        assert!(!table.is_empty(), "the request table has an entry at least");
        table.fill(RequestEntry::EMPTY);
        Requests {
            table,
            reads: 0,
            writes: 0,
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.table.len()
    }

    pub(super) const fn reads(&self) -> usize {
        self.reads
    }

    pub(super) const fn writes(&self) -> usize {
        self.writes
    }

    pub(super) const fn in_flight(&self) -> usize {
        self.reads + self.writes
    }

    /// Pages of all requests in flight. O(entries).
    pub(super) fn pages(&self) -> usize {
        let requests = self.table.iter().filter_map(|entry| entry.0.as_ref());
        requests.map(|request| request.pages.len()).sum()
    }

    /// Since when the oldest request has been in flight. O(entries).
    pub(super) fn oldest(&self) -> Option<Instant> {
        let requests = self.table.iter().filter_map(|entry| entry.0.as_ref());
        requests.map(|request| request.since).min()
    }

    /// Notes a request that was admitted; there is an entry free. O(entries).
    pub(super) fn insert(&mut self, request: Request) {
        match request.op {
            IoOp::Read => self.reads += 1,
            IoOp::Write => self.writes += 1,
        }
        let free = self.table.iter_mut().find(|entry| entry.0.is_none());
        free.expect("the credit was checked before the request was submitted")
            .0 = Some(request);
    }

    /// A page that is read ahead is wanted now: the request that it is in, if that is news.
    /// O(entries).
    pub(super) fn expedite(&mut self, page: Page) -> Option<SpaceTicket> {
        let mut requests = self.table.iter_mut().filter_map(|entry| entry.0.as_mut());
        let request = requests
            .find(|request| request.class == IoClass::Prefetch && request.pages.contains(&page))?;
        (!core::mem::replace(&mut request.expedited, true)).then_some(request.ticket)
    }

    /// Takes the request that a completion belongs to. O(entries).
    pub(super) fn remove<F>(&mut self, ticket: SpaceTicket, frames: &FrameList<F>) -> Request {
        let request = self
            .table
            .iter_mut()
            .find(|entry| entry.0.as_ref().is_some_and(|r| r.ticket == ticket))
            .and_then(|entry| entry.0.take())
            .expect("a completion belongs to a request in flight");
        assert_eq!(
            frames.len(),
            request.pages.len(),
            "a completion returns the frames that went in"
        );
        match request.op {
            IoOp::Read => self.reads -= 1,
            IoOp::Write => self.writes -= 1,
        }
        request
    }
}
