//! Two thin layers around the swap file, which watch what goes through.
//!
//! [`Layer`] is an address space over an address space: it keeps books of the requests, and refuses
//! some on request. [`Tap`] is a transport over a transport: it reads along what is sent, and sees in
//! which order requests go.

use core::cell::{Cell, RefCell};
use core::task::Poll;
use std::collections::BTreeMap;
use std::rc::Rc;

use mempool::Budget;
use nfs_swap::rpc::Framing;
use nfs_swap::transport::{Link, LinkDown, Transport};
use swapspace::{
    AddressSpace, Completion, Geometry, Instant, IoClass, IoOp, PageFrame, Refused, SubmitError,
    SwapIo, Ticket,
};

use crate::rng::Rng;
use crate::verdict::Findings;

/// A request in flight.
#[derive(Debug, Clone, Copy)]
struct Entry {
    class: IoClass,
    op: IoOp,
    since: Instant,
    /// Its first record has begun.
    started: bool,
}

/// The books of one swap file's requests.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    requests: RefCell<BTreeMap<u32, Entry>>,
    /// Requests refused without need, in a thousand.
    busy: Cell<u16>,
    /// Connections made.
    connections: Cell<u64>,
    /// Slots of writes that completed well, and what was written.
    written: RefCell<Vec<(u64, u64)>>,
}

pub(crate) type SharedLedger = Rc<Ledger>;

impl Ledger {
    pub(crate) fn set_busy(&self, permille: u16) {
        self.busy.set(permille);
    }

    pub(crate) fn connections(&self) -> u64 {
        self.connections.get()
    }

    /// The slots that were written since the last call, with the fingerprints of their pages.
    pub(crate) fn take_written(&self) -> Vec<(u64, u64)> {
        self.written.take()
    }

    /// Writes in flight.
    pub(crate) fn writes(&self) -> usize {
        let requests = self.requests.borrow();
        let writes = requests.values().filter(|entry| entry.op == IoOp::Write);
        writes.count()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.requests.borrow().len()
    }

    /// Since when the oldest request has been in flight.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let requests = self.requests.borrow();
        requests.values().map(|entry| entry.since).min()
    }

    /// The most urgent class of those whose first record has not begun.
    fn most_urgent(&self) -> Option<IoClass> {
        let requests = self.requests.borrow();
        let waiting = requests.values().filter(|entry| !entry.started);
        waiting.map(|entry| entry.class).max()
    }
}

/// An address space that keeps books.
#[derive(Debug)]
pub(crate) struct Layer<A> {
    pub(crate) inner: A,
    ledger: SharedLedger,
    rng: Rng,
    findings: Findings,
}

impl<A> Layer<A> {
    pub(crate) fn new(inner: A, ledger: SharedLedger, rng: Rng, findings: Findings) -> Self {
        Layer {
            inner,
            ledger,
            rng,
            findings,
        }
    }
}

impl<F: PageFrame, A: AddressSpace<F>> AddressSpace<F> for Layer<A> {
    type Error = A::Error;

    const BUDGET: Budget = A::BUDGET;

    fn swap_activate(&mut self, now: Instant) -> Poll<Result<Geometry, A::Error>> {
        self.inner.swap_activate(now)
    }

    fn submit(&mut self, io: SwapIo<F>, now: Instant) -> Result<Ticket, Refused<F>> {
        let busy = self.ledger.busy.get();
        // The contract: one request can always be had when none is in flight.
        if busy > 0 && self.ledger.in_flight() > 0 && self.rng.chance(busy) {
            let error = SubmitError::Busy;
            return Err(Refused { error, io });
        }
        let entry = Entry {
            class: io.class,
            op: io.op,
            since: now,
            started: false,
        };
        let ticket = self.inner.submit(io, now)?;
        let earlier = self.ledger.requests.borrow_mut().insert(ticket.0, entry);
        self.findings.check(earlier.is_none(), "S1", || {
            format!("two requests in flight have the ticket {}", ticket.0)
        });
        Ok(ticket)
    }

    fn poll(&mut self, now: Instant) -> Option<Completion<F, A::Error>> {
        let completion = self.inner.poll(now)?;
        let ticket = completion.ticket.0;
        let known = self.ledger.requests.borrow_mut().remove(&ticket);
        self.findings.check(known.is_some(), "S1", || {
            format!("the request {ticket} completed twice")
        });
        if completion.io.op == IoOp::Write && completion.result.is_ok() {
            let slots = u64::from(completion.io.slot.0)..;
            let pages = completion
                .io
                .frames
                .iter()
                .map(|frame| fingerprint(frame.as_ref()));
            self.ledger.written.borrow_mut().extend(slots.zip(pages));
        }
        Some(completion)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.inner.next_deadline()
    }

    fn swap_deactivate(&mut self, now: Instant) -> Poll<Result<(), A::Error>> {
        self.inner.swap_deactivate(now)
    }
}

/// Bytes from the start of a record to the end of its procedure number.
const HEAD: usize = 4 + 24;

/// A number for the contents of a page.
pub(crate) fn fingerprint(page: &[u8]) -> u64 {
    let words = page.chunks_exact(8).map(|word| {
        let word = word.try_into().expect("words have eight bytes");
        u64::from_le_bytes(word)
    });
    words.fold(0, |sum, word| {
        (sum ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    })
}

/// A transport that reads along.
#[derive(Debug)]
pub(crate) struct Tap<T> {
    pub(crate) inner: T,
    ledger: SharedLedger,
    findings: Findings,
    /// Bytes of the head of the record under way.
    head: Vec<u8>,
    /// Bytes of it that are still to come, once its head is complete.
    left: usize,
    /// The most urgent request that waited when it began.
    waited: Option<IoClass>,
}

impl<T> Tap<T> {
    pub(crate) fn new(inner: T, ledger: SharedLedger, findings: Findings) -> Self {
        Tap {
            inner,
            ledger,
            findings,
            head: Vec::with_capacity(HEAD),
            left: 0,
            waited: None,
        }
    }
}

/// Follows the stream of records.
struct Reader<'a> {
    ledger: &'a Ledger,
    findings: &'a Findings,
    head: &'a mut Vec<u8>,
    left: &'a mut usize,
    waited: &'a mut Option<IoClass>,
}

impl Reader<'_> {
    fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if *self.left > 0 {
                let skipped = bytes.len().min(*self.left);
                *self.left -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            if self.head.is_empty() {
                *self.waited = self.ledger.most_urgent();
            }
            let wanted = bytes.len().min(HEAD - self.head.len());
            self.head.extend_from_slice(&bytes[..wanted]);
            bytes = &bytes[wanted..];
            if self.head.len() == HEAD {
                self.judge();
            }
        }
    }

    fn judge(&mut self) {
        let word = |at: usize| {
            let bytes = self.head[at..at + 4].try_into();
            u32::from_be_bytes(bytes.expect("four bytes"))
        };
        let (mark, xid) = (word(0), word(4));
        *self.left = (mark & 0x7fff_ffff) as usize + 4 - HEAD;
        self.head.clear();
        let mut requests = self.ledger.requests.borrow_mut();
        let Some(entry) = requests.get_mut(&xid) else {
            return;
        };
        entry.started = true;
        let class = entry.class;
        if let Some(waited) = self.waited.filter(|waited| *waited > class) {
            self.findings.report("S8", || {
                format!("a {class:?} request was sent while a {waited:?} one waited")
            });
        }
    }
}

impl<T: Transport> Transport for Tap<T> {
    fn framing(&self) -> Framing {
        self.inner.framing()
    }

    fn strangers(&self) -> u64 {
        self.inner.strangers()
    }

    fn connect(&mut self, port: u16, now: Instant) -> Result<(), LinkDown> {
        self.head.clear();
        self.left = 0;
        self.ledger.connections.set(self.ledger.connections() + 1);
        self.inner.connect(port, now)
    }

    fn poll(&mut self, now: Instant) -> Link {
        self.inner.poll(now)
    }

    fn send(&mut self, fill: &mut dyn FnMut(&mut [u8]) -> usize) -> usize {
        let mut reader = Reader {
            ledger: &self.ledger,
            findings: &self.findings,
            head: &mut self.head,
            left: &mut self.left,
            waited: &mut self.waited,
        };
        self.inner.send(&mut |buf| {
            let filled = fill(buf);
            reader.read(&buf[..filled]);
            filled
        })
    }

    fn recv(&mut self, consume: &mut dyn FnMut(&[u8]) -> usize) -> usize {
        self.inner.recv(consume)
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.inner.next_deadline()
    }

    fn close(&mut self) {
        self.inner.close();
    }
}
