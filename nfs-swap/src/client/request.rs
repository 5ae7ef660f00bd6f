//! One request, from admission to completion.

use swapspace::{Instant, IoClass, IoOp, PageFrame, SwapIo};

use crate::error::RequestError;
use crate::nfs3::WriteVerifier;

/// What a request moves.
#[derive(Debug)]
pub(super) enum Body<F> {
    /// Pages, in or out.
    Pages(SwapIo<F>),
    /// Zeros, out: they need no memory.
    Zeros,
}

/// The call that a request waits to make, or has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Read,
    Write,
    Commit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its call is to be sent, not before the given time.
    Queued(Option<Instant>),
    /// Its call is the record under way.
    Sending,
    /// Its call was sent then; the reply is awaited.
    Sent(Instant),
    /// Finished; its owner has not fetched it yet.
    Done(Result<(), RequestError>),
}

#[derive(Debug)]
pub(super) struct Request<F> {
    pub(super) body: Body<F>,
    /// What its owner knows it by: its first xid.
    pub(super) ticket: u32,
    /// Who waits for it: what it was admitted with, or more.
    pub(super) class: IoClass,
    /// Where in the file, in bytes.
    pub(super) offset: u64,
    /// Bytes to move.
    pub(super) len: u32,
    /// Bytes moved so far.
    pub(super) done: u32,
    pub(super) call: Call,
    pub(super) phase: Phase,
    /// Whether any byte of it was ever handed to the connection.
    pub(super) sent: bool,
    /// How often its present call was put on the wire.
    pub(super) copies: u32,
    /// When its present call is to be sent again, if it goes by datagrams.
    pub(super) retry_at: Option<Instant>,
    /// Whether a WRITE of it went over a connection that was lost before the answer came, or was
    /// sent twice: the server may have read it, and carry it out at any later time.
    pub(super) stray: bool,
    /// Whether it is to be finished as timed out as soon as the connection is reset.
    pub(super) expired: bool,
    pub(super) deadline: Instant,
    /// How often the server has failed over it.
    pub(super) faults: u8,
    /// Of the WRITEs so far; a COMMIT with another one means that they may be lost.
    pub(super) verifier: Option<WriteVerifier>,
    /// Whether some WRITE was less than stable.
    pub(super) unstable: bool,
    /// Order of admission.
    pub(super) age: u32,
}

impl<F: PageFrame> Request<F> {
    pub(super) fn new(body: Body<F>, offset: u64, len: u32, deadline: Instant, age: u32) -> Self {
        let call = match &body {
            Body::Pages(SwapIo { op: IoOp::Read, .. }) => Call::Read,
            _ => Call::Write,
        };
        let class = match &body {
            Body::Pages(io) => io.class,
            Body::Zeros => IoClass::Writeback,
        };
        Request {
            body,
            ticket: 0,
            class,
            offset,
            len,
            done: 0,
            call,
            phase: Phase::Queued(None),
            sent: false,
            copies: 0,
            retry_at: None,
            stray: false,
            expired: false,
            deadline,
            faults: 0,
            verifier: None,
            unstable: false,
            age,
        }
    }

    pub(super) const fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done(_))
    }

    /// Whether its call may be sent now.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Queued(None) => true,
            Phase::Queued(Some(not_before)) => not_before <= now,
            _ => false,
        }
    }

    /// Whether its present call may reach the server, and be answered.
    pub(super) const fn is_out(&self) -> bool {
        match self.phase {
            Phase::Sending | Phase::Sent(_) => true,
            Phase::Queued(_) => self.copies > 0,
            Phase::Done(_) => false,
        }
    }

    /// How it ends when its deadline has passed: a write that was sent may still be carried out.
    pub(super) const fn overdue(&self) -> RequestError {
        match self.sent {
            true => RequestError::TimedOut,
            false => RequestError::Unsent,
        }
    }

    /// Bytes that its next or present READ or WRITE is about.
    pub(super) const fn left(&self) -> u32 {
        self.len - self.done
    }

    /// How many of its first pages are done, if it has failed with `result`: read, or written and
    /// stable. What was read of a file that turned out to be cut off is not vouched for.
    pub(super) fn pages_done(&self, result: Result<(), RequestError>) -> u8 {
        let Body::Pages(io) = &self.body else {
            return 0;
        };
        match result {
            Ok(()) | Err(RequestError::FileEnded) => 0,
            Err(_) if self.unstable => 0,
            Err(_) => (self.done as usize / io.frames[0].as_ref().len()) as u8,
        }
    }

    /// Starts over: what was written may be lost. What is stray stays so: that the server has
    /// rebooted since is not certain enough.
    pub(super) fn rewrite(&mut self) {
        self.done = 0;
        self.call = Call::Write;
        self.verifier = None;
        self.unstable = false;
    }

    /// Copies payload from byte `pos` of the request on into `out`, and returns how much.
    pub(super) fn copy_out(&self, pos: usize, out: &mut [u8]) -> usize {
        let Body::Pages(io) = &self.body else {
            let len = out.len().min(self.len as usize - pos);
            out[..len].fill(0);
            return len;
        };
        let page_size = self.len as usize / io.frames.len();
        let mut copied = 0;
        while copied < out.len() && pos + copied < self.len as usize {
            let at = pos + copied;
            let page = &io.frames[at / page_size].as_ref()[at % page_size..];
            let len = page.len().min(out.len() - copied);
            out[copied..copied + len].copy_from_slice(&page[..len]);
            copied += len;
        }
        copied
    }

    /// Copies payload from `input` to byte `pos` of the request on; all of it must fit.
    pub(super) fn copy_in(&mut self, pos: usize, input: &[u8]) {
        let Body::Pages(io) = &mut self.body else {
            return;
        };
        let page_size = self.len as usize / io.frames.len();
        let mut copied = 0;
        while copied < input.len() {
            let at = pos + copied;
            let page = &mut io.frames[at / page_size].as_mut()[at % page_size..];
            let len = page.len().min(input.len() - copied);
            page[..len].copy_from_slice(&input[copied..copied + len]);
            copied += len;
        }
    }
}
